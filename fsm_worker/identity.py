"""Who we are, and whom we know: an Ed25519 key on disk, and the keys that may come in."""

import hmac
import os
import secrets
from pathlib import Path
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.messages import Hello, Proof
from protocol.proof import from_text, invitation, to_text
from protocol.table import Right

_INVITED = (Right.SUBMIT.value, Right.OPERATE.value)
_FILE = msgspec.json.Decoder(dict[str, tuple[str, ...]])


class KeyUnreadable(RuntimeError):
    """The key file is damaged: restore it, or delete it to become somebody new."""


#: Bytes of every key on disk: what RFC 8032 (5.1.5) asks for, and enough for a MAC.
_KEY_SIZE = 32


def load_key(path: Path) -> bytes:
    """Reads the secret key at `path`, or makes one there that only its owner can read.

    Returns:
        32 bytes.

    Raises:
        KeyUnreadable: there is a file, but it holds no key.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        try:
            raw = from_text(path.read_text(encoding="ascii").strip())
        except (ValueError, OSError) as error:
            raise _unreadable(path) from error
        if len(raw) != _KEY_SIZE:
            raise _unreadable(path) from None
        return raw
    made = secrets.token_bytes(_KEY_SIZE)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(to_text(made) + "\n")
    return made


def _unreadable(path: Path) -> KeyUnreadable:
    return KeyUnreadable(f"{path} holds no key: restore it, or delete it to become somebody new")


class Identity:
    """An Ed25519 key pair (RFC 8032).

    Args:
        private: the private key.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key = to_text(private.public_key().public_bytes_raw())

    @classmethod
    def load(cls, path: Path) -> "Identity":
        """Reads the key at `path`, or makes one there that only its owner can read.

        Raises:
            KeyUnreadable: there is a file, but it holds no key.
        """
        return cls(Ed25519PrivateKey.from_private_bytes(load_key(path)))

    def sign(self, transcript: bytes) -> str:
        """A signature over the transcript, in URL-safe base64."""
        return to_text(self._private.sign(transcript))


def proved(key: str, signature: str, transcript: bytes) -> bool:
    """Whether `signature` is of `key` over `transcript`; anything malformed is not."""
    try:
        public = Ed25519PublicKey.from_public_bytes(from_text(key))
        public.verify(from_text(signature), transcript)
    except (ValueError, InvalidSignature):
        return False
    return True


class Trust(Protocol):
    """Whom we let in."""

    def __call__(self, hello: Hello, proof: Proof, transcript: bytes) -> str:
        """Decides whether a proved peer may come in; returns "" or the reason why not."""

    def rights(self, key: str) -> tuple[str, ...]:
        """What a key may do here."""


class KnownClients:
    """The clients of a worker: keys that came once with an invitation, kept in a file.

    Whoever comes with the line that a worker printed got it from its operator, and is one. So is
    whoever can read the worker's own key.

    Args:
        path: of a JSON file, an object of rights by key; need not exist.
        own: the worker's own key.
    """

    def __init__(self, path: Path, own: str = "") -> None:
        self.path = path
        self.secret = secrets.token_bytes(32)
        self._own = own
        self._spent = False
        try:
            self._keys = _FILE.decode(path.read_bytes())
        except FileNotFoundError:
            self._keys = {}
        except (OSError, ValueError, RecursionError) as error:
            raise KeyUnreadable(
                f"{path} can't be read: repair it, or delete it and invite the clients again"
            ) from error

    def __call__(self, hello: Hello, proof: Proof, transcript: bytes) -> str:
        """Trusts known keys, and the first new key that holds this worker's invitation."""
        if self.rights(hello.key):
            return ""
        if not hmac.compare_digest(proof.invitation, invitation(self.secret, transcript)):
            return "this key is not known here: use the line that the worker printed"
        if self._spent:
            return "this invitation was used by another client: ask for a new one"
        self._spent = True
        self._keys[hello.key] = _INVITED
        self._save()
        return ""

    def rights(self, key: str) -> tuple[str, ...]:
        """What a key may do here; nothing if it is not known."""
        return _INVITED if key and key == self._own else self._keys.get(key, ())

    def _save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".part")
        partial.touch(mode=0o600)
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(self._keys)))
        partial.replace(self.path)


class Only:
    """Trusts one worker: the one whose key the session string names.

    Args:
        key: that one.
    """

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, hello: Hello, proof: Proof, transcript: bytes) -> str:
        """Trusts that key."""
        del proof, transcript
        if hmac.compare_digest(hello.key, self._key):
            return ""
        return "another worker answered: its key is not the one in the session string"

    def rights(self, key: str) -> tuple[str, ...]:
        """A worker asks for nothing."""
        del key
        return ()
