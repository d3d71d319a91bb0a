"""The data channels of one link, and what its handshake knows so far."""

import asyncio
import re
import secrets
from collections.abc import Callable

from aiortc import RTCDataChannel

from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.proof import to_text, transcript

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
