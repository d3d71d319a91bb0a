"""The data channels of one link, and what its handshake knows so far."""

import asyncio
import re
import secrets
from collections.abc import Callable

from aiortc import RTCDataChannel

from protocol import messages as m
from protocol.proof import to_text

_FINGERPRINT = re.compile(r"^a=fingerprint:sha-256 ([0-9A-Fa-f:]{95})\s*$", re.MULTILINE)


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
