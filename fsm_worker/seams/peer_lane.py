"""Clients of sleap-rtc that negotiate through the signaling server, before they have a link.

Translates, and decides nothing. What a peer says is an event of its negotiation; what the table
`talk` asks of the worker takes the native way (the message table names the machine); what the
worker answers comes back as an event, and what is told to a peer is put into its words.

A peer is known by the id that the server has bound to its connection. Its key is the one that its
link will have, when it comes as a guest: so what was kept for the peer is kept for its job.
"""

import logging
import secrets
from collections.abc import Callable
from functools import partial

from fsm_worker.effects import (
    AskSlot,
    Effect,
    GiveSlotBack,
    RefuseWord,
    TellComing,
    TellJob,
    TellKept,
    TellLost,
    TellNotDropped,
    TellRefused,
    TellReleased,
    TellUnknown,
    ThrowJobAway,
)
from fsm_worker.events import (
    DropRefused,
    Event,
    JobAsked,
    JobAssigned,
    JobDropped,
    JobTold,
    Received,
    SlotKept,
    SlotLost,
    SlotRefused,
)
from fsm_worker.machines.link import guest_key
from fsm_worker.machines.routing import route
from fsm_worker.machines.world import World
from fsm_worker.seams import peer_words as words
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import LinkState
from protocol.signaling import FromPeer, PeerMessage
from protocol.sleap_rtc import peer as p
from protocol.table import MachineName, Right

log = logging.getLogger(__name__)

#: Puts an event into the inbox, or what makes it when its turn has come.
Post = Callable[[MachineName, str, Event | Callable[[], Event | None]], None]

_UP = (LinkState.UP, LinkState.SUSPECT)
_UNKNOWN = ProtocolError(ErrorCode.UNKNOWN_JOB, "you have asked for no job of this id here")


class PeerLane:
    """Speaks with peers that have no session.

    Args:
        world: to find whom a message is for.
        emit: puts an event into the inbox.
        send: sends to a session.
        signal: sends to the signaling server.
        allowed: the operator lets clients of sleap-rtc in.
        locked: says whether they have to prove to hold a secret; then only those negotiate whose
            link has proved it.

    Attributes:
        name: our own peer id.
    """

    def __init__(
        self,
        world: World,
        *,
        emit: Post,
        send: Callable[[str, m.Message], None],
        signal: Callable[[FromPeer], None],
        allowed: bool,
        locked: Callable[[], bool] = lambda: False,
    ) -> None:
        self._world = world
        self._emit = emit
        self._send = send
        self._signal = signal
        self.name = ""
        self._allowed = allowed
        self._locked = locked
        self._salt = secrets.token_hex(8)  # no session can have the name of a peer's place

    # --- what a peer says ----------------------------------------------------------------------

    def hear(self, message: PeerMessage) -> None:
        """Takes what the signaling server brought."""
        peer = message.from_peer_id
        try:
            word = p.read_peer(message.payload)
        except ProtocolError as error:
            log.info("! peer %s: %s", peer, error)
            return
        place = f"{self._salt} {word.job_id} {guest_key(peer)}"
        # what the peer may do, and which jobs it has, is looked at when it is decided
        self._emit(MachineName.TALK, place, partial(self._meant, peer, word))

    def _meant(self, peer: str, word: p.FromClient) -> Event:
        key, label = guest_key(peer), word.job_id
        code, reason = ErrorCode.NOT_AUTHORISED, ""
        try:
            route(self._world, m.Reserve(), session="", key=key, rights=self._rights_of(peer))
        except ProtocolError as error:
            code, reason = error.code, error.sentence
        if isinstance(word, p.JobRequest):
            need = p.need_of({"job_type": word.job_type, "requirements": word.requirements})
            jobs = self._world.moving(MachineName.JOB)
            return JobAsked(
                peer=peer, key=key, label=label, need=tuple(sorted(need.items())),
                older=tuple(job.subject for job in jobs if job.facts.owner == key),
                code=code, reason=reason,
            )  # fmt: skip
        said = JobAssigned if isinstance(word, p.JobAssignment) else JobDropped
        return said(peer=peer, label=label, code=code, reason=reason)

    def _rights_of(self, peer: str) -> tuple[str, ...]:
        """As of its guest: where a secret is asked for, a link of the peer must have proved it."""
        proved = any(
            link.facts.foreign and link.facts.peer == peer and link.state in _UP
            for link in self._world.live(MachineName.LINK)
        )
        return (Right.SUBMIT.value,) if self._allowed and (proved or not self._locked()) else ()

    # --- what the worker says ------------------------------------------------------------------

    def send(self, session: str, message: m.Message) -> None:
        """Sends to a session, or to the peer that stands in its place."""
        if not session.startswith(self._salt):
            self._send(session, message)
            return
        event = words.answer(message)
        if event is not None:
            self._emit(MachineName.TALK, session, event)

    def tell(self, key: str, message: m.Message) -> None:
        """Tells a peer about the job or the reservation that it has negotiated."""
        for talk in self._world.live(MachineName.TALK):
            match message:
                case m.JobStateChanged(job=job) if job == talk.facts.job:
                    event: Event = JobTold(
                        state=message.state, stage=message.stage, outcome=message.outcome,
                        problems=message.problems, results=message.results,
                    )  # fmt: skip
                case m.ReservationOver(code=code, reason=reason) if key == talk.facts.key:
                    event = SlotLost(code=code, reason=reason)
                case _:
                    continue
            self._emit(MachineName.TALK, talk.subject, event)

    # --- what is asked of the worker -----------------------------------------------------------

    def ask_slot(self, effect: AskSlot) -> None:
        """Reserves, or renews."""
        self._ask(effect, m.Reserve(need=dict(effect.facts.need)))

    def give_slot_back(self, effect: GiveSlotBack) -> None:
        """Releases."""
        self._ask(effect, m.Release())

    def throw_job_away(self, effect: ThrowJobAway) -> None:
        """Cancels the job."""
        self._ask(effect, m.Cancel(job=effect.facts.job))

    def _ask(self, effect: Effect, message: m.Message) -> None:
        place, key = effect.subject, effect.facts.key
        rights = (Right.SUBMIT.value,)  # they were looked at when the peer spoke
        machine, subject = route(self._world, message, session=place, key=key, rights=rights)
        self._emit(machine, subject, Received(message=message, session=place, key=key))

    # --- what a peer is told -------------------------------------------------------------------

    def refuse_word(self, effect: RefuseWord) -> None:
        """Says why a word is not taken."""
        event = effect.event
        if isinstance(event, JobAsked | JobAssigned | JobDropped):
            error = ProtocolError(event.code, event.reason)
            self._say(effect, words.refusal(effect.facts.label, event, error))

    def tell_unknown(self, effect: TellUnknown) -> None:
        """Says that there is no such negotiation."""
        self._say(effect, words.refusal(effect.facts.label, effect.event, _UNKNOWN))

    def tell_kept(self, effect: TellKept) -> None:
        """Says that the slot is kept."""
        self._say(effect, words.kept(effect.facts.label))

    def tell_coming(self, effect: TellComing) -> None:
        """Says how long."""
        if isinstance(effect.event, SlotKept):
            self._say(effect, words.coming(effect.facts.label, effect.event.seconds))

    def tell_refused(self, effect: TellRefused) -> None:
        """Says that it is not."""
        if isinstance(effect.event, SlotRefused):
            event = effect.event
            self._say(effect, words.refused(effect.facts.label, event.code, event.reason))

    def tell_released(self, effect: TellReleased) -> None:
        """Says that it is given back."""
        self._say(effect, words.cancelled(effect.facts.label))

    def tell_lost(self, effect: TellLost) -> None:
        """Says that it is kept no longer."""
        if isinstance(effect.event, SlotLost):
            code, why = effect.event.code, effect.event.reason
            self._say(effect, words.failed(effect.facts.label, code, why, again=True))

    def tell_not_dropped(self, effect: TellNotDropped) -> None:
        """Says why nothing was thrown away."""
        if isinstance(effect.event, DropRefused):
            self._say(effect, words.not_cancelled(effect.facts.label, effect.event.code))

    def tell_job(self, effect: TellJob) -> None:
        """Says where the job stands."""
        if isinstance(effect.event, JobTold):
            self._say(effect, words.report(effect.facts.label, effect.event))

    def _say(self, effect: Effect, word: p.PeerWord) -> None:
        payload, peer = p.peer_payload(word), effect.facts.peer
        self._signal(PeerMessage(from_peer_id=self.name, to_peer_id=peer, payload=payload))
