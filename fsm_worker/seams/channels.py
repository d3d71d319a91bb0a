"""The data channels of one link, and what its handshake knows so far."""

import asyncio
import re
import secrets
from collections.abc import Callable

from aiortc import RTCDataChannel
from aiortc.exceptions import InvalidStateError

from protocol import BULK_LABEL
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.proof import to_text, transcript

#: Bytes that may wait in a channel before senders wait; measured best with 64 KiB chunks.
HIGH_WATER = 2 * 1024 * 1024
LOW_WATER = 512 * 1024

_FINGERPRINT = re.compile(r"^a=fingerprint:sha-256 ([0-9A-Fa-f:]{95})\s*$", re.MULTILINE)


# Why a frame has no meaning here.
NO_LANE = ProtocolError(ErrorCode.NOT_SUPPORTED, "no lane has this label")
NO_TEXT = ProtocolError(ErrorCode.MALFORMED, "the bulk lane takes binary chunks only")
NUMBER = ProtocolError(ErrorCode.MALFORMED, "`seq` is missing, or stands where none belongs")
TOO_FAST = ProtocolError(ErrorCode.OVERLOADED, "wait for answers before you ask for more")
WRONG_LANE = ProtocolError(ErrorCode.MALFORMED, "this message belongs on another lane")


class LinkGone(ConnectionError):
    """The link is over: what was not acknowledged goes out again with the next one."""


def fingerprint(sdp: str) -> str:
    """The SHA-256 fingerprint of the DTLS certificate in an SDP (RFC 8122); "" if there is none."""
    found = _FINGERPRINT.findall(sdp)
    return found[0].lower() if found and len(set(found)) == 1 else ""


class Channels:
    """The data channels and the handshake of one link."""

    def __init__(self) -> None:
        self.by_label: dict[str, RTCDataChannel] = {}
        self.room: dict[str, asyncio.Event] = {}
        self.over = asyncio.Event()
        self.came = asyncio.Event()  # another channel, or the end
        self.nonce = to_text(secrets.token_bytes(32))
        self.ours: m.Hello | None = None
        self.theirs: m.Hello | None = None
        self.fingerprints: Callable[[], tuple[str, str]] = lambda: ("", "")  # ours, theirs
        self.strikes = 0
        self.heard = 0.0
        self.pings = 0
        self.waiting = 0  # events of its frames that are not yet decided
        self.flooded = False

    def add(self, label: str, channel: RTCDataChannel) -> None:
        """Another channel is there."""
        self.by_label[label] = channel
        self.came.set()
        room = self.room[label] = asyncio.Event()
        room.set()
        channel.bufferedAmountLowThreshold = LOW_WATER
        channel.on("bufferedamountlow", room.set)

    def end(self) -> None:
        """The peer connection is closed: nobody waits for it any more."""
        self.over.set()
        self.came.set()
        for room in self.room.values():
            room.set()
        for channel in self.by_label.values():
            channel.remove_all_listeners()

    def send(self, label: str, data: str | bytes) -> bool:
        """Sends without waiting; False if the channel is not open."""
        channel = self.by_label.get(label)
        if channel is None or channel.readyState != "open":
            return False
        try:
            channel.send(data)
        except (InvalidStateError, ConnectionError):
            return False  # it closed under us; its event is on the way
        if label != BULK_LABEL:
            self._overtake_bulk(channel)
        return True

    def _overtake_bulk(self, channel: RTCDataChannel) -> None:
        """What was sent last goes before the chunks that wait: they must not hold up a cancel.

        aiortc has one queue for all channels of a connection, first in, first out. Within each
        channel, and between those that are not bulk, the order stays.
        """
        queue, bulk = channel.transport._data_channel_queue, self.by_label.get(BULK_LABEL)
        if not queue or queue[-1][0] is not channel:
            return  # it has left already
        last = queue.pop()
        waiting = []
        while queue and queue[-1][0] is bulk:
            waiting.append(queue.pop())
        queue.append(last)
        queue.extend(reversed(waiting))

    def full(self, label: str) -> bool:
        """Whether senders should wait."""
        channel = self.by_label.get(label)
        return channel is not None and channel.bufferedAmount > HIGH_WATER

    async def paced(self, label: str, data: str | bytes) -> None:
        """Sends when there is room.

        Raises:
            LinkGone: the link ended.
        """
        while label not in self.by_label and not self.over.is_set():
            self.came.clear()  # channels open one by one, and control may be first
            await self.came.wait()
        while self.full(label) and not self.over.is_set():
            self.room[label].clear()
            await self.room[label].wait()
        if self.over.is_set() or not self.send(label, data):
            raise LinkGone("the link ended")

    async def flushed(self, label: str) -> None:
        """Waits until all that was sent has left, or the link is over."""
        channel = self.by_label.get(label)
        if channel is None:
            return
        channel.bufferedAmountLowThreshold = 0
        while channel.bufferedAmount and channel.readyState == "open" and not self.over.is_set():
            self.room[label].clear()
            await self.room[label].wait()

    def transcript(self, role: str) -> bytes:
        """What the side of this role signs: both hellos, over this very connection.

        Raises:
            LinkGone: the handshake has not begun.
        """
        ours, theirs = self.ours, self.theirs
        if ours is None or theirs is None:
            raise LinkGone("the handshake has not begun")
        mine, other = self.fingerprints()
        if ours.role == "client":
            return transcript(role, ours, theirs, (mine, other))
        return transcript(role, theirs, ours, (other, mine))
