"""Whom a server believes besides the names it gives out itself: a setting of its operator.

sleap-rtc 0.0.7 signs in with accounts that another server keeps: its clients bring a JWT, its
workers an API key. This server keeps no accounts, so it believes what the operator names: a key
that JWTs are signed with, and a list of API keys. Or, for trying things out on one machine, any
JWT at all; that is taken only where nobody else can come.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

PublicKey = RSAPublicKey | Ed25519PublicKey

_SECRET = 32  # bytes at least: as long as the hash (RFC 7518, 3.2)
_SECRET_TEXT = re.compile(rb"hs256:([!-~]+)\r?\n?")
_RSA = 2048  # bits at least (RFC 7518, 3.3)
_API_KEY = 16  # characters at least: a guess is then hopeless
_NAME = 128  # characters at most, of an account
_FILE = 1024 * 1024  # bytes at most


class NoUsableKey(Exception):
    """A file holds no key that could be used: name another one; the sentence says what it takes."""


class JwtKey:
    """What signatures of JWTs are checked with; it decides the algorithm, the token never does.

    Attributes:
        algorithm: "HS256", "RS256" or "EdDSA" (RFC 7518, RFC 8037).
        key: the shared secret, or the public key.
        audience: the `aud` that a token must name, or `None` if it must name none.
    """

    __slots__ = ("algorithm", "audience", "key")

    def __init__(self, algorithm: str, key: bytes | PublicKey, audience: str | None) -> None:
        self.algorithm = algorithm
        self.key = key
        self.audience = audience

    @classmethod
    def of_secret(cls, secret: bytes, *, audience: str | None = None) -> Self:
        """A secret shared with whoever signs: HS256.

        Args:
            secret: at least 32 bytes.
            audience: the `aud` that a token must name.

        Raises:
            NoUsableKey: the secret is shorter.
        """
        if len(secret) < _SECRET:
            raise NoUsableKey(
                f"a secret for HS256 has at least {_SECRET} bytes, this one has {len(secret)}: "
                "make one with `openssl rand -hex 32`"
            )
        return cls("HS256", secret, audience)

    @classmethod
    def of_file(cls, path: Path, *, audience: str | None = None) -> Self:
        """A public key as PEM (RSA: RS256, Ed25519: EdDSA), or a secret as one line `hs256:TEXT`.

        A secret says that it is one: a public key in some other form, taken for a secret, would be
        one that everybody knows.

        Args:
            path: the file; a newline at its end is no part of a secret.
            audience: the `aud` that a token must name.

        Raises:
            NoUsableKey: it can't be read, or holds no such key.
        """
        data = _read(path)
        if b"-----BEGIN" not in data:
            secret = _SECRET_TEXT.fullmatch(data)
            if secret is None:
                raise NoUsableKey(
                    f"{path} holds neither a public key as PEM nor a secret as one line "
                    "`hs256:TEXT` without spaces: name another file, or write it so"
                )
            return cls.of_secret(secret[1], audience=audience)
        try:
            key = load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise NoUsableKey(
                f"{path} holds no public key: give the public half, as PEM "
                "(`openssl pkey -in KEY -pubout`)"
            ) from error
        match key:
            case Ed25519PublicKey():
                return cls("EdDSA", key, audience)
            case RSAPublicKey() if key.key_size >= _RSA:
                return cls("RS256", key, audience)
        raise NoUsableKey(f"{path}: use an Ed25519 key, or an RSA key of at least {_RSA} bits")

    def __repr__(self) -> str:
        return f"<JwtKey {self.algorithm}>"


class Trust:
    """Everything that an operator lets a server believe; by default nothing.

    Attributes:
        jwt: checks JWTs; `None` if none are believed.
        unchecked: believe any JWT that has not expired.

    Args:
        jwt: what JWTs are checked with.
        unchecked: believe any; only for a server that listens on loopback.
        api_keys: account name by API key.

    Raises:
        ValueError: both a key and `unchecked`; or a name or an API key that can't be one.
    """

    def __init__(
        self,
        *,
        jwt: JwtKey | None = None,
        unchecked: bool = False,
        api_keys: Mapping[str, str] | None = None,
    ) -> None:
        if jwt is not None and unchecked:
            raise ValueError("JWTs are either checked with a key or not at all: leave one out")
        self.jwt = jwt
        self.unchecked = unchecked
        # By their hashes: looking one up then tells nothing by the time that it takes.
        self._accounts = {}
        for api_key, name in (api_keys or {}).items():
            if len(api_key) < _API_KEY:
                raise ValueError(
                    f"an API key has at least {_API_KEY} characters: take a longer one"
                )
            if not is_name(name):
                raise ValueError(f"an account's name has 1 to {_NAME} printable characters")
            self._accounts[_hashed(api_key)] = name

    def account(self, api_key: str) -> str | None:
        """The name of the account that an API key belongs to, or `None`."""
        return self._accounts.get(_hashed(api_key))

    def __repr__(self) -> str:
        return f"<Trust jwt={self.jwt} unchecked={self.unchecked} {len(self._accounts)} API keys>"


def read_api_keys(path: Path) -> dict[str, str]:
    """Reads API keys, one line each: `NAME KEY`.

    Args:
        path: the file; lines that are empty or begin with `#` are left out.

    Returns:
        Account name by API key. One account may have several keys.

    Raises:
        NoUsableKey: it can't be read, or a line is something else. No key is shown.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(_text(path).splitlines(), 1):
        match line.split():
            case []:
                continue
            case [first, *_] if first.startswith("#"):
                continue
            case [name, key] if is_name(name) and len(key) >= _API_KEY and key not in found:
                found[key] = name
            case _:
                raise NoUsableKey(
                    f"{path}, line {number}: write the account's name, a space, and a key of at "
                    f"least {_API_KEY} characters that no other line has"
                )
    return found


def is_name(name: str) -> bool:
    """Whether an account can have this name."""
    return 0 < len(name) <= _NAME and name.isprintable()


def _hashed(api_key: str) -> bytes:
    return hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).digest()


def _text(path: Path) -> str:
    try:
        return _read(path).decode()
    except UnicodeDecodeError as error:
        raise NoUsableKey(f"{path} is no text in UTF-8") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE + 1)
    except OSError as error:
        raise NoUsableKey(f"{path} can't be read ({error.strerror}): name another file") from error
    if len(data) > _FILE:
        raise NoUsableKey(f"{path} is too large to be a key: name another file")
    return data
