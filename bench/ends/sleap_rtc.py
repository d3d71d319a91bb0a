"""sleap-rtc's own senders and its worker's receiver, called from its package as it is on PyPI.

`send` is its worker's way out (`FileManager.send_file`) to an end that only counts; `upload` its
client's way in (`client.file_transfer.upload_file`) to its worker's `FileManager`, which writes and
hashes. What is ours is the peer connection, and the hand that gives messages to the methods that
its worker gives them to.
"""

import asyncio
import importlib
import time
from types import SimpleNamespace
from typing import Any

from aiortc import RTCDataChannel

from bench.ends.channel import COUNTED, ChannelEnd, Counter
from bench.program import Answer, Handlers, serve

_manager: Any = importlib.import_module("sleap_rtc.worker.file_manager")
_uploads: Any = importlib.import_module("sleap_rtc.client.file_transfer")
_words: Any = importlib.import_module("sleap_rtc.protocol")
_LAST = "END_OF_FILE"


class SleapRtcEnd(ChannelEnd):
    """A sleap-rtc worker or client, as far as files go."""

    def __init__(self) -> None:
        super().__init__()
        self._files = _manager.FileManager()
        self._counts: asyncio.Queue[int] = asyncio.Queue()
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._todo: asyncio.Queue[str] = asyncio.Queue()

    @property
    def handlers(self) -> Handlers:
        """What this end can be asked for."""
        return {
            **super().handlers,
            "send": self.send,
            "upload": self.upload,
            "receive": self.receive,
        }

    def took(self, channel: RTCDataChannel) -> None:
        """Listens for counts, and for the words and bytes of an upload."""
        count = Counter(_LAST).listen(channel)
        asked = (_words.MSG_FILE_UPLOAD_CHECK, _words.MSG_FILE_UPLOAD_START)

        def take(message: str | bytes) -> None:
            if isinstance(message, bytes):
                if self._files._upload_session is not None:  # as its worker asks
                    self._files.receive_upload_chunk(message)
                else:
                    count(message)
            elif message.startswith(asked) or message == _words.MSG_FILE_UPLOAD_END:
                self._todo.put_nowait(message)
            elif message.startswith(COUNTED):
                self._counts.put_nowait(int(message.removeprefix(COUNTED)))
            elif message.startswith("FILE_UPLOAD_"):
                self._said.put_nowait(message)
            else:
                count(message)

        channel.on("message", take)

    async def send(self, path: str) -> Answer:
        """Sends a file; gives the seconds until the other end had counted it."""
        begin = time.perf_counter()
        await self._files.send_file(self.channel, path)
        counted = await self._counts.get()
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "bytes": counted}

    async def upload(self, path: str, into: str) -> Answer:
        """Uploads a file; gives the seconds until the other end said that it has it."""
        begin = time.perf_counter()
        await _uploads.upload_file(self.channel, self._said, path, into, "0")
        return {"seconds": time.perf_counter() - begin}

    async def receive(self, into: str) -> Answer:
        """Takes one upload into a folder."""
        files, separator = self._files, _words.MSG_SEPARATOR
        files.set_mounts([SimpleNamespace(path=into)])
        while True:
            message = await self._todo.get()
            if message == _words.MSG_FILE_UPLOAD_END:
                await files.finish_upload_session(self.channel)
                return {}
            name, *rest = message.split(separator)
            if name == _words.MSG_FILE_UPLOAD_CHECK:
                self.channel.send(_words.MSG_FILE_UPLOAD_READY)
            else:
                file, size, folder, nested = rest
                await files.start_upload_session(self.channel, file, int(size), folder, nested)


async def main() -> None:
    await serve(SleapRtcEnd().handlers)


if __name__ == "__main__":
    asyncio.run(main())
