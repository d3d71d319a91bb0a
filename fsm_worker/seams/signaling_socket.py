"""The connection to a signaling server, for worker and client: HTTP calls and one WebSocket.

Raw frames end here: what comes out are messages and two exceptions. Nothing that travels is ever
logged but its type and length, because tokens and session descriptions are in it.
"""

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from protocol.signaling import (
    MAX_FRAME,
    FromPeer,
    FromServer,
    Room,
    SignalingCode,
    SignalingRefused,
    SignIn,
    decode_from_server,
    encode,
)

logger = logging.getLogger(__name__)

# At DEBUG `websockets` writes frames and headers into its logger. A level of its own keeps tokens
# away from whoever asks for DEBUG in general.
_frame_logger = logging.getLogger("fsm_worker.seams.signaling_socket.frames")
_frame_logger.setLevel(logging.INFO)

_MAX_ANSWER = 64 * 1024  # bytes of an HTTP answer
_PING_S = 20.0  # between WebSocket pings, and for a pong
_CLOSE_S = 2.0  # for the closing handshake
_T = TypeVar("_T")


class SignalingUnreachable(Exception):
    """No signaling server answers there; the sentence says what to check.

    A server that answers with a refusal raises `SignalingRefused` instead, a connection that ends
    later `SignalingClosed`.
    """


class NotASignalingUrl(SignalingUnreachable):
    """The address cannot be one of a signaling server, whatever the network does."""


class SignalingClosed(Exception):
    """The connection ended, by the server or the network: connect again.

    Args:
        sentence: how it ended.
        code: the close code (RFC 6455, 7.4), 1006 if there was no closing handshake.
    """

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.code = code


class _Refusal(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


_SIGN_IN: msgspec.json.Decoder[SignIn] = msgspec.json.Decoder(SignIn)
_ROOM: msgspec.json.Decoder[Room] = msgspec.json.Decoder(Room)
_REFUSAL: msgspec.json.Decoder[_Refusal] = msgspec.json.Decoder(_Refusal)


def http_url_for(ws_url: str) -> str:
    """The HTTP base URL of the server behind a WebSocket URL: same host, same port.

    Raises:
        NotASignalingUrl: it is not `ws://HOST[:PORT]` or `wss://HOST[:PORT]`.
    """
    scheme = _checked(ws_url, ("ws", "wss"))
    parts = urlsplit(ws_url)
    return f"{'https' if scheme == 'wss' else 'http'}://{parts.netloc.rpartition('@')[2]}"


async def sign_in(http_url: str, *, timeout_s: float = 10.0) -> SignIn:
    """Gets a name on a signaling server, and the token that proves it.

    Args:
        http_url: base URL, as from `http_url_for`.
        timeout_s: for everything until the whole answer is there, in seconds.

    Raises:
        SignalingUnreachable: no signaling server answers there.
        SignalingRefused: it answers, but gives out no name now.
    """
    return await _post(http_url, "/anonymous-signin", _SIGN_IN, {}, timeout_s)


async def create_room(http_url: str, id_token: str, *, timeout_s: float = 10.0) -> Room:
    """Makes a room on a signaling server.

    Args:
        http_url: base URL, as from `http_url_for`.
        id_token: from `sign_in` on the same server.
        timeout_s: for everything until the whole answer is there, in seconds.

    Raises:
        SignalingUnreachable: no signaling server answers there.
        SignalingRefused: the token is not of this server, or it has no room to give.
    """
    bearer = {"Authorization": f"Bearer {id_token}"}
    return await _post(http_url, "/create-room", _ROOM, bearer, timeout_s)


class SignalingSocket:
    """One WebSocket to a signaling server; made by `connect`, also an async context manager.

    Attributes:
        undecodable: how many frames were skipped because they mean nothing here.
    """

    def __init__(self, connection: ClientConnection, url: str) -> None:
        self._connection = connection
        self._url = url
        self._closed_by_us = False
        self.undecodable = 0

    @classmethod
    async def connect(cls, ws_url: str, *, timeout_s: float = 10.0) -> Self:
        """Opens the connection.

        Args:
            ws_url: `ws://HOST[:PORT]` or `wss://…`, used as it is.
            timeout_s: for everything until the connection is open, in seconds.

        Raises:
            SignalingUnreachable: no signaling server answers there.
        """
        _checked(ws_url, ("ws", "wss"))
        try:
            connection = await connect(
                ws_url,
                open_timeout=timeout_s,
                ping_interval=_PING_S,
                ping_timeout=_PING_S,
                close_timeout=_CLOSE_S,
                compression=None,
                # A frame above our own bound is skipped; beyond this the connection is failed.
                max_size=4 * MAX_FRAME,
                proxy=None if _is_loopback(ws_url) else True,
                logger=_frame_logger,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            raise SignalingUnreachable(
                f"{_place(ws_url)} answers HTTP {status} to a WebSocket: check that it is the "
                "address of a signaling server, without a path, and that a proxy before it lets "
                "WebSockets pass"
            ) from error
        except (OSError, TimeoutError, WebSocketException, EOFError, ImportError) as error:
            raise _unreachable(ws_url, error) from error
        return cls(connection, ws_url)

    async def send(self, message: FromPeer) -> None:
        """Sends a message.

        Raises:
            SignalingClosed: the connection has ended.
            SignalingRefused: `too_large` or `malformed`; the message cannot travel.
        """
        text = encode(message)
        try:
            await self._connection.send(text)
        except ConnectionClosed as closed:
            raise self._closed(closed) from closed
        logger.debug("> %s, length %d", type(message).__name__, len(text))

    def messages(self) -> AsyncIterator[FromServer]:
        """What the server sends, until `close` is called; one reader at a time.

        The iteration raises `SignalingClosed` if the connection ends in another way. A frame that
        cannot be decoded is counted and skipped.
        """
        return _Messages(self)

    async def close(self) -> None:
        """Closes the connection; takes at most 2 s, and may be called again."""
        self._closed_by_us = True
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._connection.close()
        except TimeoutError:  # a peer that reads nothing never takes the closing frame
            self._connection.transport.abort()

    async def __aenter__(self) -> Self:
        """Gives the socket itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the connection."""
        await self.close()

    async def _next(self) -> FromServer:
        while True:
            try:
                data = await self._connection.recv()
            except ConnectionClosed as closed:
                if self._closed_by_us:
                    raise StopAsyncIteration from None
                raise self._closed(closed) from closed
            try:
                message = decode_from_server(data)
            except SignalingRefused as refusal:
                self.undecodable += 1
                logger.info("< skipped a frame of length %d: %s", len(data), refusal.code)
            else:
                logger.debug("< %s, length %d", type(message).__name__, len(data))
                return message

    def _closed(self, closed: ConnectionClosed) -> SignalingClosed:
        if closed.rcvd is None:
            return SignalingClosed(f"the connection to {_place(self._url)} broke", 1006)
        why = f": {closed.rcvd.reason}" if closed.rcvd.reason else ""
        return SignalingClosed(
            f"{_place(self._url)} closed the connection (code {closed.rcvd.code}{why})",
            closed.rcvd.code,
        )


class _Messages(AsyncIterator[FromServer]):
    """Not a generator: one that is left halfway would be closed later by a task nobody owns."""

    def __init__(self, socket: SignalingSocket) -> None:
        self._socket = socket

    async def __anext__(self) -> FromServer:
        return await self._socket._next()


async def _post(
    http_url: str,
    path: str,
    decoder: "msgspec.json.Decoder[_T]",
    headers: dict[str, str],
    timeout_s: float,
) -> _T:
    scheme = _checked(http_url, ("http", "https"))
    url = http_url.rstrip("/") + path
    try:
        async with (
            asyncio.timeout(timeout_s),
            # Without TLS there is no reason to read the machine's certificates on the loop.
            httpx.AsyncClient(
                timeout=timeout_s, trust_env=not _is_loopback(url), verify=scheme == "https"
            ) as client,
            client.stream("POST", url, headers=headers) as response,
        ):
            body = await _bounded_body(response)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ImportError, ValueError) as error:
        raise _unreachable(http_url, error) from error
    if response.status_code != 200:
        raise _refusal(http_url, response.status_code, body)
    try:
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise _not_a_server(http_url, response.status_code) from error


async def _bounded_body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MAX_ANSWER:
            raise ValueError(f"an answer of more than {_MAX_ANSWER} bytes")
    return bytes(body)


def _refusal(http_url: str, status: int, body: bytes) -> SignalingRefused | SignalingUnreachable:
    try:
        said = _REFUSAL.decode(body)
        return SignalingRefused(SignalingCode(said.code), said.message)
    except (ValueError, RecursionError):
        return _not_a_server(http_url, status)


def _not_a_server(url: str, status: int) -> SignalingUnreachable:
    return SignalingUnreachable(
        f"{_place(url)} answers HTTP {status}, but not as a signaling server: check the address "
        "and the port"
    )


def _unreachable(url: str, error: Exception) -> SignalingUnreachable:
    said = str(error) or type(error).__name__
    return SignalingUnreachable(
        f"no signaling server answers at {_place(url)} ({said}): check that it runs, that the "
        "address and port are right, and that a firewall lets the connection pass"
    )


def _checked(url: str, schemes: tuple[str, str]) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port  # raises if it is no port number
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise NotASignalingUrl(
            f"{url[:200]!r} is no signaling address: write {schemes[0]}://HOST:PORT"
        )
    return parts.scheme


def _place(url: str) -> str:
    """The address without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
