"""The ceiling: 64 KiB messages by an event-driven high-water mark, to an end that only counts."""

import asyncio
import time

from aiortc import RTCDataChannel

from bench.ends.channel import COUNTED, ChannelEnd, Counter
from bench.program import Answer, Handlers, serve

_MESSAGE = bytes(64 * 1024)
_HIGH_WATER = 2 * 1024 * 1024
_LOW_WATER = 512 * 1024
_LAST = "last"


class BareEnd(ChannelEnd):
    """Sends zeros from memory, or counts what comes."""

    def __init__(self) -> None:
        super().__init__()
        self._room = asyncio.Event()
        self._counts: asyncio.Queue[int] = asyncio.Queue()

    @property
    def handlers(self) -> Handlers:
        """What this end can be asked for."""
        return {**super().handlers, "send": self.send}

    def took(self, channel: RTCDataChannel) -> None:
        """Listens for counts and for room."""
        count = Counter(_LAST).listen(channel)

        def take(message: str | bytes) -> None:
            if isinstance(message, str) and message.startswith(COUNTED):
                self._counts.put_nowait(int(message.removeprefix(COUNTED)))
            else:
                count(message)

        channel.bufferedAmountLowThreshold = _LOW_WATER
        channel.on("bufferedamountlow", self._room.set)
        channel.on("message", take)

    async def send(self, size: int) -> Answer:
        """Sends `size` bytes; gives the seconds until the other end had counted them."""
        channel = self.channel
        messages = -(-size // len(_MESSAGE))
        begin = time.perf_counter()
        for _ in range(messages):
            while channel.bufferedAmount > _HIGH_WATER:
                self._room.clear()
                await self._room.wait()
            channel.send(_MESSAGE)
        channel.send(_LAST)
        counted = await self._counts.get()
        assert counted == messages * len(_MESSAGE)
        return {"seconds": time.perf_counter() - begin, "bytes": counted}


async def main() -> None:
    await serve(BareEnd().handlers)


if __name__ == "__main__":
    asyncio.run(main())
