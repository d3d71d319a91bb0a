"""A client's place in a signaling room: the way that offers and answers travel."""

import asyncio
import logging
import random
from collections.abc import Callable

from fsm_worker.seams.signaling_socket import (
    SignalingClosed,
    SignalingSocket,
    SignalingUnreachable,
)
from protocol.errors import ErrorCode
from protocol.proof import SessionString
from protocol.signaling import (
    Answer,
    Error,
    FromPeer,
    FromServer,
    Offer,
    Ping,
    Pong,
    Register,
    RegisteredAuth,
    SignIn,
)

log = logging.getLogger(__name__)

#: Seconds before a lost websocket is opened again: random, up to this.
JITTER = 2.0
#: Refusals that the same session string will meet again.
_UNWANTED = frozenset(
    {"not_authenticated", "not_authorised", "wrong_token", "forged_sender", "peer_id_taken"}
)


class ClientRoom:
    """Keeps a client's websocket open.

    Args:
        session: where the room is, and who is in it.
        who: our name at the signaling server.
        on_entered: we are in the room (again).
        on_answer: takes the SDP of an answer.
        on_refusal: takes what the server or the worker says against us.
    """

    def __init__(
        self,
        session: SessionString,
        who: SignIn,
        *,
        on_entered: Callable[[], None],
        on_answer: Callable[[str], None],
        on_refusal: Callable[[ErrorCode, str], None],
    ) -> None:
        self._session = session
        self._who = who
        self._on_entered = on_entered
        self._on_answer = on_answer
        self._on_refusal = on_refusal
        self._outgoing: asyncio.Queue[FromPeer] = asyncio.Queue()

    def offer(self, sdp: str) -> None:
        """Sends an offer to the worker."""
        message = Offer(sender=self._who.username, target=self._session.peer, sdp=sdp)
        self._outgoing.put_nowait(message)

    async def stay(self) -> None:
        """Registers and reads until cancelled; a lost websocket is opened again."""
        register = Register(
            peer_id=self._who.username,
            room_id=self._session.room,
            token=self._session.token,
            id_token=self._who.id_token,
            role="client",
        )
        while True:
            try:
                async with await SignalingSocket.connect(self._session.url) as socket:
                    await socket.send(register)
                    async with asyncio.TaskGroup() as group:
                        writer = group.create_task(self._write(socket))
                        async for message in socket.messages():
                            self._read(message)
                        writer.cancel()
            except* (SignalingClosed, SignalingUnreachable, OSError) as errors:
                log.info("- signaling: %s", errors.exceptions[0])
            # not a wait for something: clients must not come back all at once
            await asyncio.sleep(random.uniform(0.0, JITTER))  # noqa: S311 - not a secret

    async def _write(self, socket: SignalingSocket) -> None:
        while True:
            await socket.send(await self._outgoing.get())

    def _read(self, message: FromServer) -> None:
        match message:
            case RegisteredAuth():
                self._on_entered()
            case Answer(sender=sender, sdp=str(sdp)) if sender == self._session.peer:
                self._on_answer(sdp)
            case Error(sender=sender) if sender in {"", self._session.peer}:
                unwanted = message.reason in _UNWANTED
                code = ErrorCode.NOT_AUTHENTICATED if unwanted else ErrorCode.ABORTED
                self._on_refusal(code, message.message or message.reason)
            case Ping():
                self._outgoing.put_nowait(Pong())
            case _:
                log.debug("< %s from the signaling server", type(message).__name__)
