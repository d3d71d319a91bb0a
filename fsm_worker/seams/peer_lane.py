"""Clients of sleap-rtc that negotiate through the signaling server, before they have a link.

What they say becomes the native message that it means, and takes the native way: the message table
names the machine, and the machine's table decides. What is said to them is put into their words.
Nothing past this module knows that there was no session.

A peer is known by the id that the server has bound to its connection. Its key is the one that its
link will have, when it comes as a guest: so what was kept for the peer is kept for its job.
"""

import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from fsm_worker.events import Received
from fsm_worker.machines.link import guest_key
from fsm_worker.machines.routing import route
from fsm_worker.machines.world import World
from fsm_worker.runtime import Emit
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, LinkState, Outcome
from protocol.need import Need
from protocol.signaling import FromPeer, PeerMessage
from protocol.sleap_rtc import peer as p
from protocol.table import MachineName, Right

log = logging.getLogger(__name__)

#: Negotiations that are remembered; the oldest that got no promise goes.
MOST_TALKS = 64

_UP = (LinkState.UP, LinkState.SUSPECT)
_ENDED = frozenset({JobState.DONE, JobState.REJECTED})
_WELL = frozenset({Outcome.SUCCEEDED, Outcome.STOPPED_EARLY})


class _Talk(Struct):
    """What is said between a peer and us."""

    peer: str
    key: str  # of the peer's guest
    job_id: str  # in the peer's words
    need: Need
    older: frozenset[str]  # jobs of this key that are none of this talk
    assigned: bool = False
    promised: bool = False  # the slot is kept for it, or was taken by its job
    job: str = ""  # ours, once there is one


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
        emit: Emit,
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
        self._talks: OrderedDict[str, _Talk] = OrderedDict()  # by the place that answers go to

    # --- what a peer says ----------------------------------------------------------------------

    def hear(self, message: PeerMessage) -> None:
        """Takes what the signaling server brought."""
        peer, key = message.from_peer_id, guest_key(message.from_peer_id)
        try:
            word = p.read_peer(message.payload)
        except ProtocolError as error:
            log.info("! peer %s: %s", peer, error)
            return
        place = f"{self._salt} {word.job_id} {key}"
        try:
            rights = self._rights_of(peer)
            meant = self._meant(peer, key, place, word)
            machine, subject = route(self._world, meant, session=place, key=key, rights=rights)
        except ProtocolError as error:
            self._tell(peer, _refusal(word, error))
            return
        self._emit(machine, subject, Received(message=meant, session=place, key=key))

    def _rights_of(self, peer: str) -> tuple[str, ...]:
        """As of its guest: where a secret is asked for, a link of the peer must have proved it."""
        proved = any(
            link.facts.foreign and link.facts.peer == peer and link.state in _UP
            for link in self._world.live(MachineName.LINK)
        )
        return (Right.SUBMIT.value,) if self._allowed and (proved or not self._locked()) else ()

    def _meant(self, peer: str, key: str, place: str, word: p.PeerWord) -> m.Message:
        if isinstance(word, p.JobRequest):
            need = p.need_of({"job_type": word.job_type, "requirements": word.requirements})
            jobs = self._world.all(MachineName.JOB)
            older = frozenset(job.subject for job in jobs if job.facts.owner == key)
            self._remember(place, _Talk(peer, key, word.job_id, need, older))
            return m.Reserve(need=need)
        talk = self._talks.get(place)
        if talk is None:
            raise ProtocolError(ErrorCode.UNKNOWN_JOB, "you have asked for no job of this id here")
        if isinstance(word, p.JobAssignment):
            talk.assigned = True
            return m.Reserve(need=talk.need)
        return m.Cancel(job=talk.job) if talk.job else m.Release()

    def _remember(self, place: str, talk: _Talk) -> None:
        self._talks.pop(place, None)
        self._talks[place] = talk
        if len(self._talks) > MOST_TALKS:
            idle = (old for old, other in self._talks.items() if not other.promised)
            del self._talks[next(idle, next(iter(self._talks)))]

    # --- what is said to a peer ----------------------------------------------------------------

    def send(self, session: str, message: m.Message) -> None:
        """Sends to a session, or to the peer that stands in its place."""
        talk = self._talks.get(session)
        if talk is None:
            self._send(session, message)
            return
        if isinstance(message, m.Reserved):
            talk.promised = True
        over = isinstance(message, m.Released) or (
            isinstance(message, m.ReserveRefused) and not talk.promised
        )
        self._say(session, talk, message, over=over)

    def tell(self, key: str, message: m.Message) -> None:
        """Tells a peer about the job or the reservation that it has negotiated."""
        job = getattr(message, "job", "")
        for place, talk in list(self._talks.items()):
            if talk.key != key or not talk.promised:
                continue
            if isinstance(message, m.JobStateChanged) and not talk.job and job not in talk.older:
                talk.job = job
            if talk.job == job:  # without a job: word of the reservation
                over = isinstance(message, m.ReservationOver) or (
                    isinstance(message, m.JobStateChanged) and message.state in _ENDED
                )
                self._say(place, talk, message, over=over)
                return

    def _say(self, place: str, talk: _Talk, message: m.Message, *, over: bool) -> None:
        if over:
            del self._talks[place]
        word = _word(talk, message)
        if word is not None:
            self._tell(talk.peer, word)

    def _tell(self, peer: str, word: p.PeerWord) -> None:
        payload = p.peer_payload(word)
        self._signal(PeerMessage(from_peer_id=self.name, to_peer_id=peer, payload=payload))


def _word(talk: _Talk, message: m.Message) -> p.PeerWord | None:
    job_id = talk.job_id
    word: p.PeerWord | None = None
    match message:
        case m.Reserved(seconds=seconds) if talk.assigned:
            wait = f"connect and send the package within {seconds:.0f} s"
            word = p.JobStatus(job_id=job_id, status="reserved", message=wait)
        case m.Reserved():
            word = p.JobResponse(job_id=job_id, accepted=True, estimated_start_time_sec=0)
        case m.ReserveRefused(code=code, reasons=reasons):
            reason = "incompatible" if code is ErrorCode.NEED_UNMET else "busy"
            text = "; ".join(reasons)
            word = p.JobResponse(job_id=job_id, accepted=False, reason=reason, message=text)
        case m.Released():
            word = p.JobCancelled(job_id=job_id, status="cancelled", cleanup_complete=True)
        case m.ReservationOver(code=code, reason=reason):
            failure = p.Failure(code=code.value.upper(), message=reason, recoverable=True)
            word = p.JobFailed(job_id=job_id, status="failed", error=failure)
        case m.Error(about="cancel" | "release"):
            word = p.JobCancelled(job_id=job_id, status=message.code, cleanup_complete=False)
        case m.JobStateChanged():
            word = _report(job_id, message)
    return word


def _report(job_id: str, told: m.JobStateChanged) -> p.PeerWord:
    if told.state not in _ENDED:
        return p.JobStatus(job_id=job_id, status=told.state)
    alive = any(problem.code is ErrorCode.UNKILLABLE for problem in told.problems)
    if told.outcome is Outcome.CANCELLED:
        return p.JobCancelled(job_id=job_id, status="cancelled", cleanup_complete=not alive)
    if told.outcome in _WELL:
        return p.JobComplete(
            job_id=job_id,
            status="completed",
            result={"outcome": told.outcome, "files": told.results.files},
            ready_for_download=bool(told.results.root),
        )
    why = " ".join(problem.sentence for problem in told.problems) or told.outcome.value
    failure = p.Failure(code=told.outcome.value.upper(), message=why)
    return p.JobFailed(job_id=job_id, status="failed", error=failure)


def _refusal(word: p.PeerWord, error: ProtocolError) -> p.PeerWord:
    job_id = str(getattr(word, "job_id", ""))
    if isinstance(word, p.JobRequest):
        return p.JobResponse(
            job_id=job_id, accepted=False, reason="incompatible", message=error.sentence
        )
    if isinstance(word, p.JobCancel):
        return p.JobCancelled(job_id=job_id, status=error.code, cleanup_complete=False)
    failure = p.Failure(code=error.code.value.upper(), message=error.sentence)
    return p.JobFailed(job_id=job_id, status="failed", error=failure)
