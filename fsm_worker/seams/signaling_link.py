"""The worker's websocket to its signaling server: frames to events, and the port that sends.

Which message is legal when is decided by the tables `signalling` and `link`. What is sent while the
socket is down is dropped: registration says everything again.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable

from fsm_worker.effects import CloseSocket, OpenSocket, PingServer
from fsm_worker.events import (
    Event,
    RecvOffer,
    RecvRefusal,
    RecvRegistered,
    SignalArrived,
    SocketFailed,
    SocketOpened,
)
from fsm_worker.seams.signaling_socket import (
    SignalingClosed,
    SignalingSocket,
    SignalingUnreachable,
)
from protocol.signaling import (
    CREDENTIALS_REFUSED,
    Error,
    FromPeer,
    FromServer,
    Offer,
    Ping,
    Pong,
    RegisteredAuth,
)
from protocol.table import MachineName

log = logging.getLogger(__name__)

#: Frames that wait for the socket; a server that takes nothing is dropped by the ping anyway.
_WAITING = 256
_SUBJECT = "signalling"


class SignalingLink:
    """The connection to one signaling server.

    Args:
        url: of its websocket.
        emit: reports events.
        room_for_more: says whether another link may begin.
    """

    def __init__(
        self,
        url: str,
        *,
        emit: Callable[[MachineName, str, Event], None],
        room_for_more: Callable[[], bool],
    ) -> None:
        self.url = url
        self._emit = emit
        self._room_for_more = room_for_more
        self._outgoing: asyncio.Queue[FromPeer] | None = None

    def send(self, message: FromPeer) -> None:
        """Sends a message soon, or drops it if there is no connection."""
        if self._outgoing is None:
            return
        try:
            self._outgoing.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("! the signaling server takes nothing: a message was dropped")

    async def open_socket(self, effect: OpenSocket) -> None:
        """Connects, and reads until the connection ends."""
        del effect
        try:
            async with await SignalingSocket.connect(self.url) as socket:
                self._outgoing = asyncio.Queue(_WAITING)
                self._say(SocketOpened())
                async with asyncio.TaskGroup() as group:
                    writer = group.create_task(self._write(socket, self._outgoing))
                    async for message in socket.messages():
                        self._read(message)
                    writer.cancel()
        except* (SignalingUnreachable, SignalingClosed, OSError) as errors:
            self._say(SocketFailed(reason=str(errors.exceptions[0])))
        finally:
            self._outgoing = None

    def close_socket(self, effect: CloseSocket) -> None:
        """Says goodbye by closing; the reader of this socket ends with it."""
        del effect
        if self._outgoing is not None:
            with contextlib.suppress(asyncio.QueueFull):
                self._outgoing.put_nowait(_GOODBYE)

    def ping_server(self, effect: PingServer) -> None:
        """Asks for a sign of life."""
        del effect
        self.send(Ping())

    def _say(self, event: Event) -> None:
        self._emit(MachineName.SIGNALLING, _SUBJECT, event)

    @staticmethod
    async def _write(socket: SignalingSocket, outgoing: "asyncio.Queue[FromPeer]") -> None:
        while (message := await outgoing.get()) is not _GOODBYE:
            await socket.send(message)
        await socket.close()

    def _read(self, message: FromServer) -> None:
        self._say(SignalArrived())
        match message:
            case RegisteredAuth():
                self._say(RecvRegistered(room=message.room_id))
            case Error(sender=""):
                self._say(
                    RecvRefusal(
                        final=message.code in {str(code) for code in CREDENTIALS_REFUSED},
                        reason=message.message or message.reason or message.code,
                    )
                )
            case Offer(sdp=str(sdp)):
                self._emit(
                    MachineName.LINK,
                    f"link-{secrets.token_hex(6)}",
                    RecvOffer(peer=message.sender, sdp=sdp, room_for_more=self._room_for_more()),
                )
            case Ping():
                self.send(Pong())
            case _:
                log.debug("< %s from the signaling server", type(message).__name__)


_GOODBYE: FromPeer = Pong()
