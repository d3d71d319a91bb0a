"""A client's words in a signaling room: its registration, its offers, and what comes back."""

from fsm_worker.effects import SendRegistration
from fsm_worker.events import LinkRefused, RecvAnswer, WorkerRefused
from fsm_worker.machines.world import World
from fsm_worker.runtime import Emit
from fsm_worker.seams.signaling_link import RoomWord, SignalingLink
from protocol.errors import ErrorCode
from protocol.lifecycle import LinkState
from protocol.proof import SessionString
from protocol.signaling import Answer, Error, Offer, Register, SignIn
from protocol.table import MachineName

#: Refusals of a worker that another try will meet again.
_UNWANTED = frozenset({"not_authenticated", "not_authorised"})


class ClientRoom:
    """A client's place in the worker's room.

    Args:
        session: where the room is, and who is in it.
        own: the subject of our session machine.
        world: to find the link that an answer belongs to.
        emit: reports events.
    """

    def __init__(self, session: SessionString, own: str, world: World, emit: Emit) -> None:
        self._session = session
        self._own = own
        self._world = world
        self._emit = emit
        self._who = SignIn(id_token="", username="")
        self.link = SignalingLink(session.url, emit=emit, on_message=self._read)

    def come_as(self, who: SignIn) -> None:
        """Sets our name at the signaling server, and what proves it."""
        self._who = who

    def send_registration(self, effect: SendRegistration) -> None:
        """Joins the room; the same words every time."""
        del effect
        self.link.send(
            Register(
                peer_id=self._who.username,
                room_id=self._session.room,
                token=self._session.token,
                id_token=self._who.id_token,
                role="client",
            )
        )

    def offer(self, link: str, sdp: str) -> None:
        """Sends a link's offer to the worker."""
        self.link.send(
            Offer(sender=self._who.username, target=self._session.peer, sdp=sdp, link=link)
        )

    def _read(self, message: RoomWord) -> None:
        match message:
            case Answer(sender=sender, sdp=str(sdp)) if sender == self._session.peer:
                link = message.link or self._newest()
                self._emit(MachineName.LINK, link, RecvAnswer(sdp=sdp))
            case Error(sender=self._session.peer, code=ErrorCode.ABORTED):
                event = LinkRefused(reason=message.message)
                self._emit(MachineName.SESSION, self._own, event)
            case Error(sender=sender) if sender in {"", self._session.peer}:
                code = message.reason or message.code
                refusal = WorkerRefused(
                    code=ErrorCode.NOT_AUTHENTICATED if code in _UNWANTED else ErrorCode.ABORTED,
                    reason=message.message or code,
                )
                self._emit(MachineName.SESSION, self._own, refusal)

    def _newest(self) -> str:
        """A worker that repeats no name answers the newest offer that has no answer."""
        waiting = [
            link.subject
            for link in self._world.live(MachineName.LINK)
            if link.state is LinkState.NEGOTIATING
        ]
        return waiting[-1] if waiting else ""
