"""Who a caller is: names that this server gave out, and names that its operator lets it believe."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from enum import Enum, auto

from msgspec import Struct

from fsm_worker.signaling.jwt_names import checked_name, unchecked_name
from fsm_worker.signaling.trust import Trust
from protocol.signaling import SignalingCode, SignalingRefused, SignIn


class Standing(Enum):
    """How a name was proved; the same name in two standings is two callers."""

    ANONYMOUS = auto()  # this server gave it out
    ACCOUNT = auto()  # a checked JWT or an API key
    UNCHECKED = auto()  # a JWT that anybody on this machine can have written


class Caller(Struct, frozen=True):
    """Somebody, told apart from everybody else."""

    name: str
    standing: Standing = Standing.ANONYMOUS


class Identities:
    """Signs names in and checks them.

    An `id_token` is the name and its HMAC-SHA256 under the server's key. So nothing is kept for
    each sign-in, and no number of them fills the memory. A server with the same key again takes
    the same names again.

    Args:
        trust: whom the operator lets us believe besides.
        wall: seconds since 1970, for the expiry of JWTs.
        key: of the server, 32 bytes; none makes one that ends with us.
    """

    def __init__(
        self,
        trust: Trust | None = None,
        wall: Callable[[], float] = time.time,
        key: bytes | None = None,
    ) -> None:
        self._key = key or secrets.token_bytes(32)
        self._trust = trust or Trust()
        self._wall = wall

    def sign_in(self) -> SignIn:
        """A fresh name, and the token that proves it."""
        username = f"anonymous-{secrets.token_hex(8)}"
        return SignIn(id_token=f"{username}.{self._proof(username)}", username=username)

    def of_id_token(self, id_token: str) -> Caller:
        """Who a token of this server was given to.

        Raises:
            SignalingRefused: `not_authenticated` if this server did not give out the token.
        """
        username, _, proof = id_token.rpartition(".")
        # As bytes: compare_digest takes only ASCII in text, and this came from a stranger.
        given = proof.encode("utf-8", "surrogatepass")
        expected = self._proof(username).encode()
        if not hmac.compare_digest(given, expected):
            raise SignalingRefused(
                SignalingCode.NOT_AUTHENTICATED,
                "this id_token is not from this server (it may have restarted): "
                "POST /anonymous-signin and use the new one",
            )
        return Caller(username)

    def of_jwt(self, jwt: str, *, direct: bool) -> Caller:
        """Whom a JWT names.

        Args:
            jwt: in compact form.
            direct: it came from a program on this machine, as far as one can see.

        Raises:
            SignalingRefused: `not_authenticated`.
        """
        if self._trust.jwt is not None:
            return Caller(checked_name(jwt, self._trust.jwt, self._wall()), Standing.ACCOUNT)
        if not self._trust.unchecked:
            raise SignalingRefused(
                SignalingCode.NOT_AUTHENTICATED,
                "this server takes no JWT: bring the room's token (it is in the session string), "
                "or ask its operator to name the key that JWTs are signed with",
            )
        if not direct:
            raise SignalingRefused(
                SignalingCode.NOT_AUTHENTICATED,
                "this server takes unchecked JWTs from programs on its own machine only, and this "
                "one came by a browser or a proxy: bring the room's token",
            )
        return Caller(unchecked_name(jwt, self._wall()), Standing.UNCHECKED)

    def of_api_key(self, api_key: str) -> Caller:
        """Whose API key this is.

        Raises:
            SignalingRefused: `not_authenticated`.
        """
        name = self._trust.account(api_key)
        if name is None:
            raise SignalingRefused(
                SignalingCode.NOT_AUTHENTICATED,
                "this server does not know this API key: ask its operator to enter it, or bring "
                "the room's token",
            )
        return Caller(name, Standing.ACCOUNT)

    def of_bearer(self, token: str, *, direct: bool) -> Caller:
        """Who sends one of the three in an `Authorization` header (RFC 6750, 2.1).

        Args:
            token: what stands after `Bearer`.
            direct: as of `of_jwt`.

        Raises:
            SignalingRefused: `not_authenticated`.
        """
        if self._trust.account(token) is not None:
            return self.of_api_key(token)
        if token.count(".") == 2:  # a JWT has three parts, an id_token two
            return self.of_jwt(token, direct=direct)
        return self.of_id_token(token)

    def _proof(self, username: str) -> str:
        name = username.encode("utf-8", "surrogatepass")
        return hmac.new(self._key, name, hashlib.sha256).hexdigest()
