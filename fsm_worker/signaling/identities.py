"""Who a caller is: names that this server gave out and recognises again without storing them."""

import hashlib
import hmac
import secrets

from protocol.signaling import SignalingCode, SignalingRefused, SignIn


class Identities:
    """Signs names in and checks them.

    An `id_token` is the name and its HMAC-SHA256 under a key that lives as long as the server. So
    nothing is kept for each sign-in, and no number of them fills the memory; after a restart
    everybody signs in again, and all rooms are new then anyway.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def sign_in(self) -> SignIn:
        """A fresh name, and the token that proves it."""
        username = f"anonymous-{secrets.token_hex(8)}"
        return SignIn(id_token=f"{username}.{self._proof(username)}", username=username)

    def username(self, id_token: str) -> str:
        """The name that a token proves.

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
        return username

    def _proof(self, username: str) -> str:
        name = username.encode("utf-8", "surrogatepass")
        return hmac.new(self._key, name, hashlib.sha256).hexdigest()
