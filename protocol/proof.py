"""What a proof signs, and how a session string is written.

The signed transcript binds a key to one connection: it holds both sides' DTLS certificate
fingerprints as the signer sees them (RFC 8122), so whoever relays the offer and the answer cannot
sit in the middle, and both version lists, so nobody can talk the peers down to an old one.
"""

import base64
import binascii
import hashlib
import hmac

import msgspec
from msgspec import Struct

from protocol.messages import Hello

_DOMAIN = "fsm-worker/1"
SESSION_PREFIX = "fsm-worker:"


class BadSessionString(ValueError):
    """The session string was cut or mistyped: copy the whole line that the worker printed."""


class SessionString(Struct, frozen=True, kw_only=True):
    """All that a client needs to reach and to recognise one worker.

    It travels from the worker to the user by a way that the signaling server does not see, so it
    may carry the worker's public key and the one-time secret.
    """

    url: str  # of the signaling server's websocket
    room: str
    token: str  # of the room
    peer: str  # the worker's peer id in the room
    key: str  # the worker's Ed25519 public key, URL-safe base64 without padding
    secret: str = ""  # one-time invitation, same coding; empty once the client is known

    def encode(self) -> str:
        """The string to copy."""
        return SESSION_PREFIX + to_text(msgspec.json.encode(self))

    @classmethod
    def decode(cls, text: str) -> "SessionString":
        """Reads a session string.

        Raises:
            BadSessionString: it is not one, or a part of it is missing.
        """
        text = text.strip()
        if not text.startswith(SESSION_PREFIX) or len(text) > 4096:
            raise BadSessionString(
                f"a session string starts with {SESSION_PREFIX!r}: copy the whole line that the "
                "worker printed"
            )
        try:
            return msgspec.json.decode(from_text(text.removeprefix(SESSION_PREFIX)), type=cls)
        except (ValueError, msgspec.DecodeError, RecursionError) as error:
            raise BadSessionString(
                "the session string is damaged: copy the whole line that the worker printed"
            ) from error


def to_text(data: bytes) -> str:
    """Bytes as URL-safe base64 without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_text(text: str) -> bytes:
    """The inverse of `to_text`.

    Raises:
        ValueError: the text is not base64.
    """
    try:
        return base64.b64decode(
            text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True
        )
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not URL-safe base64") from error


def transcript(role: str, client: Hello, worker: Hello, fingerprints: tuple[str, str]) -> bytes:
    """The bytes that the side `role` signs.

    Args:
        role: "client" or "worker", the signer; so one side's proof is never the other's.
        client: the client's hello.
        worker: the worker's hello.
        fingerprints: SHA-256 DTLS fingerprints of the client's and of the worker's certificate,
            as the signer sees them.
    """
    parts = [
        _DOMAIN,
        role,
        client.session,
        client.generation,
        (client.key, client.nonce, client.versions),
        (worker.key, worker.nonce, worker.versions),
        [text.lower() for text in fingerprints],
    ]
    return hashlib.sha256(msgspec.json.encode(parts)).digest()


def invitation(secret: bytes, signed: bytes) -> str:
    """Shows that the client holds the one-time secret, without saying it (HMAC-SHA256).

    Args:
        secret: 32 bytes from the session string.
        signed: the client's transcript.
    """
    return to_text(hmac.new(secret, b"invitation" + signed, hashlib.sha256).digest())
