"""Clients of sleap-rtc that negotiate through the signaling server, before they have a link.

What they say becomes the native message that it means, and takes the native way: the message table
names the machine, and the machine's table decides. What is said to them is put into their words.
Nothing past this module knows that there was no session.

A peer is known by the id that the server has bound to its connection. Its key is the one that its
link will have, when it comes as a guest: so what was kept for the peer is kept for its job.
"""

import logging
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
from protocol.lifecycle import JobState, Outcome
from protocol.need import Need
from protocol.signaling import FromPeer, PeerMessage
from protocol.sleap_rtc import peer as p
from protocol.table import MachineName, Right

log = logging.getLogger(__name__)

#: Peers whose negotiation is remembered; the oldest goes.
MOST_PEERS = 64

_NOT_ALLOWED = ProtocolError(
    ErrorCode.NOT_AUTHORISED,
    "clients of sleap-rtc may not come in: the worker's operator can set allow_sleap_rtc",
)
_ENDED = frozenset({JobState.DONE, JobState.REJECTED})
_WELL = frozenset({Outcome.SUCCEEDED, Outcome.STOPPED_EARLY})


class _Talk(Struct):
    """What is said between a peer and us."""

    peer: str
    job_id: str  # in the peer's words
    need: Need
    assigned: bool = False
    job: str = ""  # ours, once there is one


class PeerLane:
    """Speaks with peers that have no session.

    Args:
        world: to find whom a message is for.
        emit: puts an event into the inbox.
        send: sends to a session.
        signal: sends to the signaling server.
        allowed: the operator lets clients of sleap-rtc in.

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
    ) -> None:
        self._world = world
        self._emit = emit
        self._send = send
        self._signal = signal
        self.name = ""
        self._rights = (Right.SUBMIT.value,) if allowed else ()
        self._talks: OrderedDict[str, _Talk] = OrderedDict()  # by the key of the peer's guest

    # --- what a peer says ----------------------------------------------------------------------

    def hear(self, message: PeerMessage) -> None:
        """Takes what the signaling server brought."""
        peer, key = message.from_peer_id, guest_key(message.from_peer_id)
        try:
            word = p.read_peer(message.payload)
        except ProtocolError as error:
            log.info("! peer %s: %s", peer, error)
            return
        try:
            if not self._rights:
                raise _NOT_ALLOWED
            meant = self._meant(peer, key, word)
            machine, subject = route(self._world, meant, session=key, key=key, rights=self._rights)
        except ProtocolError as error:
            self._tell(peer, _refusal(word, error))
            return
        self._emit(machine, subject, Received(message=meant, session=key, key=key))

    def _meant(self, peer: str, key: str, word: p.PeerWord) -> m.Message:
        match word:
            case p.JobRequest(job_id=job_id):
                need = p.need_of({"job_type": word.job_type, "requirements": word.requirements})
                self._remember(key, _Talk(peer, job_id, need))
                return m.Reserve(need=need)
            case p.JobAssignment(job_id=job_id):
                talk = self._talk(key, job_id)
                talk.assigned = True
                return m.Reserve(need=talk.need)
            case p.JobCancel(job_id=job_id):
                self._talk(key, job_id)
                for job in self._world.live(MachineName.JOB):
                    if job.facts.owner == key:
                        return m.Cancel(job=job.subject)
        return m.Release()

    def _talk(self, key: str, job_id: str) -> _Talk:
        talk = self._talks.get(key)
        if talk is None or talk.job_id != job_id:
            raise ProtocolError(ErrorCode.UNKNOWN_JOB, "you have asked for no job of this id here")
        return talk

    def _remember(self, key: str, talk: _Talk) -> None:
        self._talks.pop(key, None)
        self._talks[key] = talk
        if len(self._talks) > MOST_PEERS:
            self._talks.popitem(last=False)

    # --- what is said to a peer ----------------------------------------------------------------

    def send(self, session: str, message: m.Message) -> None:
        """Sends to a session, or to the peer that stands in its place."""
        if session in self._talks and self._world.get(MachineName.SESSION, session) is None:
            self.tell(session, message)
        else:
            self._send(session, message)

    def tell(self, key: str, message: m.Message) -> None:
        """Tells the peer of this key, if one has negotiated, what there is a word for."""
        talk = self._talks.get(key)
        if talk is None:
            return
        if isinstance(message, m.JobStateChanged):
            talk.job = talk.job or message.job
            if message.job != talk.job:
                return  # another one, that was not negotiated
            if message.state in _ENDED:
                del self._talks[key]
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
