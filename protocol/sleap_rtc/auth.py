"""Proofs of the dialect: a client answers the worker's nonce with an HMAC or with a signature.

Both bind to nothing but the nonce, so whoever relays the offer and the answer can sit in the
middle; the native dialect has `protocol.proof` against that.

Signing itself is left to whoever holds a key: `proof` of an Ed25519 client is the signature of
`signed(nonce)` in URL-safe base64 without padding (sleap-rtc 0.0.7, `auth/keypair.py`).
"""

import base64
import hashlib
import hmac
from typing import Final

from protocol.proof import to_text

#: Random bytes in a nonce.
NONCE_SIZE: Final = 32


class BadRoomSecret(ValueError):
    """The room secret is no base64, or empty: copy the others' one, or make a new one."""


def nonce(random: bytes) -> str:
    """The text of a nonce.

    Args:
        random: 32 bytes that nobody can guess, used once.

    Raises:
        ValueError: there are more or fewer bytes.
    """
    if len(random) != NONCE_SIZE:
        raise ValueError(f"a nonce has {NONCE_SIZE} bytes, not {len(random)}")
    return to_text(random)


def hmac_proof(secret: str, challenge: str) -> str:
    """A client's proof that it holds the room secret (HMAC-SHA256; sleap-rtc 0.0.7, `auth/psk.py`).

    Args:
        secret: the room secret, base64 with the URL-safe alphabet.
        challenge: the worker's nonce, in the same coding.

    Returns:
        43 characters of URL-safe base64 without padding.

    Raises:
        BadRoomSecret: the secret cannot be decoded, or has no bytes, which anybody could guess.
        ValueError: the nonce cannot be decoded.
    """
    try:
        key = _decoded(secret)
    except ValueError as error:
        raise BadRoomSecret("the room secret is no base64: copy the whole line") from error
    if not key:
        raise BadRoomSecret("the room secret is empty: make one of 32 random bytes")
    return to_text(hmac.new(key, _decoded(challenge), hashlib.sha256).digest())


def hmac_proved(secret: str, challenge: str, proof: str) -> bool:
    """Whether `proof` is that of a holder of the secret; anything malformed is not.

    Raises:
        BadRoomSecret: the worker's own secret is unusable.
    """
    wanted = hmac_proof(secret, challenge)
    return hmac.compare_digest(wanted.encode(), proof.encode("utf-8", "replace"))


def signed(challenge: str) -> bytes:
    """The bytes that an Ed25519 client signs: the text of the nonce, not what it decodes to.

    Raises:
        UnicodeEncodeError: the nonce is not ASCII, so it is none.
    """
    return challenge.encode("ascii")


def _decoded(text: str) -> bytes:
    # As lenient as sleap-rtc, which skips characters outside the alphabet: a room's secret may be
    # any text that people agreed on, and both sides must make the same bytes of it.
    return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
