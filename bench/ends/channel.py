"""One end of a bare aiortc pair: a peer connection with one data channel, and nothing of ours."""

import asyncio
import time
from collections.abc import Callable

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)

from bench.program import Answer, Handlers
from fsm_worker.seams.loopback import allow_loopback


class ChannelEnd:
    """The end that offers, or the one that answers, as it is asked.

    Descriptions travel through whoever asks.
    """

    def __init__(self) -> None:
        allow_loopback()
        self._pc: RTCPeerConnection | None = None
        self._channel: RTCDataChannel | None = None
        self._open = asyncio.Event()
        self._begin = 0.0

    @property
    def handlers(self) -> Handlers:
        """What this end can be asked for."""
        return {
            "offer": self.offer,
            "answer": self.answer,
            "accept": self.accept,
            "close": self.close,
        }

    @property
    def channel(self) -> RTCDataChannel:
        """The open data channel."""
        assert self._channel is not None
        return self._channel

    def took(self, channel: RTCDataChannel) -> None:
        """There is a channel; it may not be open yet. For those who listen to it."""

    async def offer(self) -> Answer:
        """Begins a connection; the clock starts here."""
        self._begin = time.perf_counter()
        self._pc = _new_peer()
        self._take(self._pc.createDataChannel("bench"))
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return {"sdp": self._pc.localDescription.sdp}

    async def answer(self, sdp: str) -> Answer:
        """Answers an offer."""
        self._pc = _new_peer()
        self._pc.on("datachannel", self._take)
        await self._pc.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="offer"))
        await self._pc.setLocalDescription(await self._pc.createAnswer())
        return {"sdp": self._pc.localDescription.sdp}

    async def accept(self, sdp: str) -> Answer:
        """Takes the answer; gives the seconds from `offer` until the channel was open."""
        assert self._pc is not None
        await self._pc.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="answer"))
        await self._open.wait()
        return {"seconds": time.perf_counter() - self._begin}

    async def close(self) -> Answer:
        """Closes the connection."""
        self._open.clear()
        if self._pc is not None:
            await self._pc.close()
        return {}

    def _take(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        self.took(channel)
        if channel.readyState == "open":
            self._open.set()
        else:
            channel.on("open", self._open.set)


class Counter:
    """A receiver that only counts, and says how much it has when it is told that this is all.

    Args:
        last: the text that ends a file.
    """

    def __init__(self, last: str) -> None:
        self._last = last
        self._bytes = 0

    def listen(self, channel: RTCDataChannel) -> Callable[[str | bytes], None]:
        """The listener for a channel's messages."""

        def take(message: str | bytes) -> None:
            if isinstance(message, bytes):
                self._bytes += len(message)
            elif message == self._last:
                channel.send(f"{COUNTED}{self._bytes}")
                self._bytes = 0

        return take


#: What a `Counter` says before its count.
COUNTED = "counted "


def _new_peer() -> RTCPeerConnection:
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))
