"""JWTs made by hand (RFC 7515, 3.1), so that what reads them is checked against something else."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET = b"a-secret-that-is-long-enough-for-it"
FAR = 4_000_000_000  # seconds since 1970, and in nobody's past


def jwt(
    claims: dict[str, Any] | bytes, *, secret: bytes = SECRET, header: dict[str, Any] | None = None
) -> str:
    """Signed with HS256, whatever its header says."""

    def sign(data: bytes) -> bytes:
        return hmac.new(secret, data, hashlib.sha256).digest()

    return _assembled(claims, header or {"alg": "HS256", "typ": "JWT"}, sign)


def jwt_of(key: Ed25519PrivateKey | RSAPrivateKey, claims: dict[str, Any]) -> str:
    """Signed with a private key."""
    if isinstance(key, Ed25519PrivateKey):
        return _assembled(claims, {"alg": "EdDSA"}, key.sign)
    return _assembled(claims, {"alg": "RS256"}, lambda data: key.sign(data, PKCS1v15(), SHA256()))


def pem(key: Any) -> bytes:
    """A public key as a file holds it."""
    data: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _assembled(
    claims: dict[str, Any] | bytes, header: dict[str, Any], sign: Callable[[bytes], bytes]
) -> str:
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signed = f"{base64url(json.dumps(header).encode())}.{base64url(payload)}"
    return f"{signed}.{base64url(sign(signed.encode()))}"
