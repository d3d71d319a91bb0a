"""Sequence numbers, outboxes and replay: what a session owns while links come and go under it.

Both sides use it. It numbers what must arrive, keeps it until the other side has acknowledged it,
and hands what arrives to the machine that the message table names.
"""

import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from fsm_worker.effects import (
    Deliver,
    Dial,
    ForgetSession,
    HoldOutbox,
    NoteError,
    ReadMessage,
    Replay,
    SendResume,
    SendWelcome,
)
from fsm_worker.events import DialRequested, OutboxFilled, OutOfStep, Received
from fsm_worker.machines.engine import Step, Verdict
from fsm_worker.machines.routing import objection, route
from fsm_worker.machines.world import World
from fsm_worker.runtime import Emit
from protocol import messages as m
from protocol.codec import Frame, encode
from protocol.errors import ErrorCode, ProtocolError
from protocol.table import ROW_OF, MachineName, tag_of
from protocol.table import Replay as Again

log = logging.getLogger(__name__)

#: Bytes of numbered messages that wait for an acknowledgement; beyond that the session ends.
OUTBOX = 8 * 1024 * 1024
#: Unnumbered messages of which a new link gets the newest, by kind and job.
NEWEST = 256
#: No number of a session has more digits.
_WIDEST = 10**15


class Wire(Protocol):
    """Sends one control frame by a link, if the link can; never blocks."""

    def __call__(self, link: str, frame: Frame) -> None:
        """Sends it, or drops it if the link is over."""


class Lane(Struct):
    """One session's numbers and outbox."""

    received: int = 0  # highest number from the other side
    sent: int = 0  # highest number given out
    acked: int = 0  # highest number that the other side has said it has
    full: bool = False  # it ends for that
    ready: bool = False  # both sides know what the other has; until then all is held
    outbox: dict[int, tuple[m.Message, int]] = {}  # by number: a message, and its bytes
    waiting: int = 0  # bytes in the outbox
    newest: "OrderedDict[tuple[str, str], m.Message]" = OrderedDict()


class Sessions:
    """All sessions of this process.

    Args:
        world: to look a session's link up.
        emit: puts an event into the inbox.
        wire: sends a control frame.
        name: of this worker, for its welcome; of the worker's peer, for a client.
        deliver: takes what a client's session delivers.
    """

    def __init__(
        self,
        world: World,
        emit: Emit,
        wire: Wire,
        *,
        name: str = "",
        deliver: Callable[[m.Message], None] = lambda _message: None,
    ) -> None:
        self._world = world
        self._emit = emit
        self._wire = wire
        self._name = name
        self._deliver = deliver
        self._lanes: dict[str, Lane] = {}

    def lane(self, session: str) -> Lane:
        """The session's numbers; made when first asked for."""
        if session not in self._lanes:
            self._lanes[session] = Lane(outbox={}, newest=OrderedDict())
        return self._lanes[session]

    def expected(self, session: str) -> int:
        """The next number that the other side should use."""
        lane = self._lanes.get(session)
        return lane.received + 1 if lane is not None else 1

    def acknowledged(self, session: str, number: int) -> None:
        """The other side has everything up to `number`."""
        lane = self._lanes.get(session)
        if lane is not None and number <= lane.sent:
            lane.acked = max(lane.acked, number)
            for seq in [seq for seq in lane.outbox if seq <= number]:
                lane.waiting -= lane.outbox.pop(seq)[1]

    def send(self, session: str, message: m.Message) -> None:
        """Sends a message in the way its row in the message table says.

        A session that is over is not written to; nobody can read it.

        Raises:
            ProtocolError: `too_large`; it can't be sent as one frame.
        """
        instance = self._world.get(MachineName.SESSION, session)
        if instance is None or instance.final:
            return
        lane, again = self.lane(session), ROW_OF[type(message)].replay
        # before it is promised, and as long as it can become when it is sent again
        size = len(encode(Frame(seq=_WIDEST, ack=_WIDEST, msg=message)))
        if again is Again.ALL:
            if lane.full:
                return
            lane.sent += 1
            lane.outbox[lane.sent] = message, size
            lane.waiting += size
            if lane.waiting > OUTBOX:
                lane.full = True
                self._emit(MachineName.SESSION, session, OutboxFilled())
            self._write(session, lane, lane.sent, message)
        elif again is Again.NEWEST:
            # there is one worker, whichever job it has
            one = isinstance(message, m.WorkerStatus)
            key = (tag_of(type(message)), "" if one else str(getattr(message, "job", "")))
            lane.newest.pop(key, None)
            lane.newest[key] = message
            if len(lane.newest) > NEWEST:
                lane.newest.popitem(last=False)
            self._write(session, lane, 0, message)
        else:
            self._write(session, lane, 0, message)

    def refuse(self, session: str, message: m.Message, error: ProtocolError, row: str = "") -> None:
        """Answers a message with a typed error."""
        self.send(
            session,
            m.Error(
                code=error.code,
                message=error.sentence,
                about=tag_of(type(message)),
                job=str(getattr(message, "job", "")),
                transfer=int(getattr(message, "transfer", 0)),
                row=row,
            ),
        )

    def answer_refusals(self, step: Step) -> None:
        """Tells a peer that its message was not taken; for `Runtime`'s `watch`."""
        if not isinstance(step.event, Received) or not step.event.session:
            return
        error = objection(step)
        if error is not None:
            self.refuse(step.event.session, step.event.message, error)
        elif step.verdict is Verdict.STALE:
            self.refuse(
                step.event.session,
                step.event.message,
                ProtocolError(ErrorCode.UNKNOWN_JOB, step.sentence),
            )

    # --- effects ---------------------------------------------------------------------------

    def read_message(self, effect: ReadMessage) -> None:
        """Hands a frame's message on; counts it if it is numbered."""
        event, facts = effect.event, effect.facts
        message, number = getattr(event, "message", None), getattr(event, "number", 0)
        if number:
            self.lane(facts.session).received = number
        if message is None:
            return
        try:
            machine, subject = route(
                self._world,
                message,
                link=effect.subject,
                session=facts.session,
                key=facts.key,
                rights=facts.rights,
            )
        except ProtocolError as error:
            self.refuse(facts.session, message, error)
            return
        alive = sum(job.facts.owner == facts.key for job in self._world.live(MachineName.JOB))
        received = Received(
            message=message,
            link=effect.subject,
            session=facts.session,
            key=facts.key,
            alive=alive,
        )
        self._emit(machine, subject, received)

    def send_welcome(self, effect: SendWelcome) -> None:
        """Opens the session on a new link; everything else waits for the client's resume."""
        lane = self.lane(effect.subject)
        lane.ready = False
        link = self._world.get(MachineName.LINK, effect.facts.link)
        welcome = m.Welcome(
            session=effect.subject,
            received=lane.received,
            rights=link.facts.rights if link is not None else (),
            worker=self._name,
        )
        self._put(effect.facts.link, lane, 0, welcome)

    def replay(self, effect: Replay) -> None:
        """The client has told what it has: the rest goes out again."""
        if not isinstance(effect.event, Received):
            return
        received = effect.event.message.received
        if received > self.lane(effect.subject).sent:
            self._emit(MachineName.SESSION, effect.subject, OutOfStep())
        else:
            self._resume(effect.subject, received)

    def send_resume(self, effect: SendResume) -> None:
        """The client's side: tells the worker what it has, and sends the rest of its own again."""
        if isinstance(effect.event, Received):
            lane, received = self.lane(effect.subject), effect.event.message.received
            if received < lane.acked:  # it had more of us once
                self._emit(MachineName.SESSION, effect.subject, OutOfStep())
                return
            self._put(effect.facts.link, lane, 0, m.Resume(received=lane.received))
            self._resume(effect.subject, received)

    def hold_outbox(self, effect: HoldOutbox) -> None:
        """A client's link is new: nothing is sent on it before the worker's welcome."""
        self.lane(effect.subject).ready = False

    def dial(self, effect: Dial) -> None:
        """Asks for a link of the next generation."""
        self._emit(
            MachineName.LINK,
            f"link-{secrets.token_hex(6)}",
            DialRequested(peer=self._name, session=effect.subject, generation=effect.facts.dialled),
        )

    def deliver(self, effect: Deliver) -> None:
        """Hands a message to the program that uses the client."""
        if isinstance(effect.event, Received):
            self._deliver(effect.event.message)

    def note_error(self, effect: NoteError) -> None:
        """Writes down what a peer refused."""
        if isinstance(effect.event, Received):
            error = effect.event.message
            log.info("< %s refuses %s: %s", effect.subject, error.about, error.message)

    def forget_session(self, effect: ForgetSession) -> None:
        """Drops the outbox of a session that is over."""
        self._lanes.pop(effect.subject, None)

    # --- inside ----------------------------------------------------------------------------

    def _resume(self, session: str, received: int) -> None:
        lane = self.lane(session)
        self.acknowledged(session, received)
        lane.ready = True
        for seq, (message, _) in list(lane.outbox.items()):
            self._write(session, lane, seq, message)
        for message in list(lane.newest.values()):
            self._write(session, lane, 0, message)

    def _write(self, session: str, lane: Lane, seq: int, message: m.Message) -> None:
        instance = self._world.get(MachineName.SESSION, session)
        if instance is not None and instance.facts.link and lane.ready:
            self._put(instance.facts.link, lane, seq, message)

    def _put(self, link: str, lane: Lane, seq: int, message: m.Message) -> None:
        self._wire(link, Frame(seq=seq, ack=lane.received, msg=message))
