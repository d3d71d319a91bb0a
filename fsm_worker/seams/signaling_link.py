"""The websocket to the signaling server, of a worker and of a client: frames to events.

Which message is legal when is decided by the tables `signalling` and `link`. What is sent while the
socket is down is dropped: registration says everything again.
"""

import asyncio
import logging
from collections.abc import Callable

from fsm_worker.effects import CloseSocket, OpenSocket, PingServer
from fsm_worker.events import (
    Event,
    RecvRefusal,
    RecvRegistered,
    SignalArrived,
    SocketFailed,
    SocketOpened,
)
from fsm_worker.machines.world import THE_SERVER
from fsm_worker.runtime import Emit
from fsm_worker.seams.signaling_socket import (
    SignalingClosed,
    SignalingSocket,
    SignalingUnreachable,
)
from protocol.errors import ErrorCode
from protocol.signaling import (
    CREDENTIALS_REFUSED,
    Answer,
    Error,
    FromPeer,
    FromServer,
    Offer,
    PeerMessage,
    Ping,
    Pong,
    Register,
    RegisteredAuth,
    SignalingCode,
    SignalingRefused,
)
from protocol.table import MachineName

#: What a room brings from a peer, or about one.
RoomWord = Offer | Answer | PeerMessage | Error

log = logging.getLogger(__name__)

#: Frames that wait for the socket; a server that takes nothing is dropped by the ping anyway.
_WAITING = 256
#: Characters of a refusal: what went wrong may quote an offer of any length.
_SENTENCE = 1024
#: Refusals of who we are, and not of what is there.
_UNKNOWN_US = CREDENTIALS_REFUSED - {SignalingCode.ROOM_NOT_FOUND}


class SignalingLink:
    """The connection to one signaling server.

    Args:
        url: of its websocket.
        emit: reports events.
        on_message: takes what is from a peer, or about one.
    """

    def __init__(self, url: str, *, emit: Emit, on_message: Callable[[RoomWord], None]) -> None:
        self.url = url
        self._emit = emit
        self._on_message = on_message
        self._outgoing: asyncio.Queue[FromPeer] | None = None
        self._reader: asyncio.Task[None] | None = None

    def send(self, message: FromPeer) -> None:
        """Sends a message soon, or drops it if there is no connection."""
        if self._outgoing is None:
            return
        try:
            self._outgoing.put_nowait(message)
        except asyncio.QueueFull:
            log.warning("! the signaling server takes nothing: a message was dropped")

    def refuse(self, peer: str, code: ErrorCode, text: str) -> None:
        """Tells a peer that has no link why it gets none."""
        self.send(Error(target=peer, reason=code, code=code, message=text[:_SENTENCE]))

    async def open_socket(self, effect: OpenSocket) -> None:
        """Connects, and reads until the connection ends."""
        del effect
        outgoing: asyncio.Queue[FromPeer] = asyncio.Queue(_WAITING)
        self._reader = asyncio.current_task()
        try:
            async with await SignalingSocket.connect(self.url) as socket:
                self._outgoing = outgoing
                self._say(SocketOpened())
                async with asyncio.TaskGroup() as group:
                    writer = group.create_task(self._write(socket, outgoing))
                    async for message in socket.messages():
                        self._read(message)
                    writer.cancel()
        except* (SignalingUnreachable, SignalingClosed, OSError) as errors:
            self._say(SocketFailed(reason=str(errors.exceptions[0])))
        finally:
            if self._outgoing is outgoing:  # a newer socket may have taken over
                self._outgoing = None

    def close_socket(self, effect: CloseSocket) -> None:
        """Says goodbye by closing; the reader of this socket ends with it."""
        del effect
        try:
            if self._outgoing is not None:
                self._outgoing.put_nowait(_GOODBYE)
                return
        except asyncio.QueueFull:
            log.warning("! the signaling server takes nothing: the connection is cut")
        if self._reader is not None:
            self._reader.cancel()  # it connects, or waits for a server that takes nothing

    def ping_server(self, effect: PingServer) -> None:
        """Asks for a sign of life."""
        del effect
        self.send(Ping())

    def _say(self, event: Event) -> None:
        self._emit(MachineName.SIGNALLING, THE_SERVER, event)

    @staticmethod
    async def _write(socket: SignalingSocket, outgoing: "asyncio.Queue[FromPeer]") -> None:
        while (message := await outgoing.get()) is not _GOODBYE:
            try:
                await socket.send(message)
            except SignalingRefused as refusal:
                if isinstance(message, Register):
                    raise  # nobody finds us, and the operator is to know why
                log.warning("! a message that can't travel was dropped: %s", refusal)
        await socket.close()

    def _read(self, message: FromServer) -> None:
        self._say(SignalArrived())
        match message:
            case RegisteredAuth():
                self._say(RecvRegistered(room=message.room_id))
            case Ping():
                self.send(Pong())
            case Error(sender="", code=code) if code != SignalingCode.NO_SUCH_PEER:
                self._say(
                    RecvRefusal(
                        final=code in CREDENTIALS_REFUSED,
                        code=(
                            ErrorCode.NOT_AUTHENTICATED
                            if code in _UNKNOWN_US
                            else ErrorCode.ABORTED
                        ),
                        reason=message.message or message.reason or code,
                    )
                )
            case Offer() | Answer() | PeerMessage() | Error():
                self._on_message(message)
            case _:
                log.debug("< %s from the signaling server", type(message).__name__)


_GOODBYE: FromPeer = Pong()
