"""Whom a JWT names (RFC 7519), as far as the operator's setting lets it be believed."""

import hashlib

import jwt
import msgspec

from fsm_worker.signaling.trust import JwtKey, is_name
from protocol.signaling import SignalingCode, SignalingRefused, canonical

_MOST = 8 * 1024  # characters; of a token that is longer nothing is looked at
_SKEW_S = 60.0  # by how much the clock of who signed may be ahead of ours

_SIGNATURES = jwt.PyJWS()


class _Claims(msgspec.Struct, frozen=True):
    """Those that are looked at (RFC 7519, 4.1); `username` is sleap-rtc's."""

    sub: str | int | None = None
    username: str | None = None
    exp: float | None = None  # seconds since 1970
    nbf: float | None = None
    aud: str | tuple[str, ...] | None = None


_CLAIMS: msgspec.json.Decoder[_Claims] = msgspec.json.Decoder(_Claims)


def checked_name(token: str, key: JwtKey, now: float) -> str:
    """The account that a signed token was made out to.

    Args:
        token: a JWT in compact form.
        key: what its signature is checked with.
        now: seconds since 1970.

    Returns:
        `sub`, or `username` if it has no `sub`.

    Raises:
        SignalingRefused: `not_authenticated`: signed by another key or in another way, expired,
            not valid yet, without an expiry, for another audience, or without a name.
    """
    claims = _claims(token, key)
    if claims.exp is None:
        raise _refusal("this JWT never expires, and such a one is not taken: sign in again")
    _check_times(claims, now)
    meant = (claims.aud,) if isinstance(claims.aud, str) else claims.aud or ()
    if (key.audience is None and meant) or (key.audience is not None and key.audience not in meant):
        raise _refusal("this JWT is meant for another server: sign in for this one")
    if (name := _name(claims)) is None:
        raise _refusal("this JWT names nobody in `sub` or `username`: sign in again")
    return name


def unchecked_name(token: str, now: float) -> str:
    """The name in a token whose signature nobody checked.

    Args:
        token: a JWT in compact form.
        now: seconds since 1970.

    Returns:
        As `checked_name`; for a token without a name, one that is made from the token.

    Raises:
        SignalingRefused: `not_authenticated`: it is no JWT, has expired or is not valid yet.
    """
    claims = _claims(token, None)
    _check_times(claims, now)
    return _name(claims) or f"bearer-{hashlib.sha256(token.encode()).hexdigest()[:16]}"


def _claims(token: str, key: JwtKey | None) -> _Claims:
    if len(token) > _MOST:
        raise _refusal(f"a JWT has at most {_MOST} characters")
    try:
        if key is None:
            payload = _SIGNATURES.decode(token, options={"verify_signature": False})
        else:
            payload = _SIGNATURES.decode(token, key.key, [key.algorithm])
        # The depth is bounded, and a repeated name has one meaning.
        return _CLAIMS.decode(canonical(payload))
    except jwt.InvalidSignatureError as error:
        raise _refusal(
            "this JWT was signed with another key: sign in with this server's"
        ) from error
    except (jwt.PyJWTError, SignalingRefused, ValueError) as error:
        wanted = "" if key is None else f" signed with {key.algorithm}"
        raise _refusal(f"this is no JWT{wanted}: sign in again") from error


def _check_times(claims: _Claims, now: float) -> None:
    if claims.exp is not None and now >= claims.exp:
        raise _refusal("this JWT has expired: sign in again")
    if claims.nbf is not None and now + _SKEW_S < claims.nbf:
        raise _refusal("this JWT is not valid yet: set the clock of the machine that signed it")


def _name(claims: _Claims) -> str | None:
    name = claims.username if claims.sub is None else str(claims.sub)
    return name if name is not None and is_name(name) else None


def _refusal(sentence: str) -> SignalingRefused:
    return SignalingRefused(SignalingCode.NOT_AUTHENTICATED, sentence)
