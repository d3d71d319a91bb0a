"""What a worker answers to a negotiation of sleap-rtc, and the words in which its peer hears it.

Which of them is said is in the effects of the table `talk`.
"""

from fsm_worker.events import (
    DropRefused,
    Event,
    JobAsked,
    JobDropped,
    JobTold,
    SlotKept,
    SlotRefused,
    SlotReleased,
)
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, Outcome
from protocol.sleap_rtc import peer as p

_ENDED = frozenset({JobState.DONE, JobState.REJECTED})
_WELL = frozenset({Outcome.SUCCEEDED, Outcome.STOPPED_EARLY})


def answer(message: m.Message) -> Event | None:
    """What an answer of the worker is to a negotiation; None where no peer has a word for it."""
    match message:
        case m.Reserved(seconds=seconds):
            return SlotKept(seconds=seconds)
        case m.ReserveRefused(code=code, reasons=reasons):
            return SlotRefused(code=code, reason="; ".join(reasons))
        case m.Released():
            return SlotReleased()
        case m.Error(about="cancel" | "release", code=code):
            return DropRefused(code=code)
        case _:
            return None


def kept(label: str) -> p.PeerWord:
    """The slot is kept."""
    return p.JobResponse(job_id=label, accepted=True, estimated_start_time_sec=0)


def coming(label: str, seconds: float) -> p.PeerWord:
    """The slot is kept a little longer."""
    wait = f"connect and send the package within {seconds:.0f} s"
    return p.JobStatus(job_id=label, status="reserved", message=wait)


def refused(label: str, code: ErrorCode, sentence: str) -> p.PeerWord:
    """The slot is not kept: what is asked for is not here, or not free."""
    reason = "incompatible" if code is ErrorCode.NEED_UNMET else "busy"
    return p.JobResponse(job_id=label, accepted=False, reason=reason, message=sentence)


def cancelled(label: str) -> p.PeerWord:
    """Nothing is kept, and nothing runs."""
    return p.JobCancelled(job_id=label, status="cancelled", cleanup_complete=True)


def not_cancelled(label: str, code: ErrorCode) -> p.PeerWord:
    """There was nothing to throw away, or it is not over yet."""
    return p.JobCancelled(job_id=label, status=code, cleanup_complete=False)


def failed(label: str, code: str, why: str, *, again: bool = False) -> p.PeerWord:
    """The job failed, or can't begin; `again` if it is worth asking anew."""
    failure = p.Failure(code=code.upper(), message=why, recoverable=again)
    return p.JobFailed(job_id=label, status="failed", error=failure)


def report(label: str, told: JobTold) -> p.PeerWord:
    """Where the job stands, or how it ended."""
    if told.state not in _ENDED:
        return p.JobStatus(job_id=label, status=told.state)
    if told.outcome is Outcome.CANCELLED:
        alive = any(problem.code is ErrorCode.UNKILLABLE for problem in told.problems)
        return p.JobCancelled(job_id=label, status="cancelled", cleanup_complete=not alive)
    if told.outcome in _WELL:
        return p.JobComplete(
            job_id=label,
            status="completed",
            result={"outcome": told.outcome, "files": told.results.files},
            ready_for_download=bool(told.results.root),
        )
    why = " ".join(problem.sentence for problem in told.problems) or told.outcome.value
    return failed(label, told.outcome, why)


def refusal(label: str, said: Event, error: ProtocolError) -> p.PeerWord:
    """A word of the peer was not taken."""
    if isinstance(said, JobAsked):
        return p.JobResponse(
            job_id=label, accepted=False, reason="incompatible", message=error.sentence
        )
    if isinstance(said, JobDropped):
        return not_cancelled(label, error.code)
    return failed(label, error.code, error.sentence)
