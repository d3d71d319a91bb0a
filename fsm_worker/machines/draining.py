"""Rows of the worker's table: an operator wants no further job to start, and takes that back.

Laws:

- A drain never kills: the running job finishes, or, after the time that the operator gave it, is
  stopped and keeps its model.
- A break's reason is told while there is a break, and no longer; where something worse is to be
  told (what is broken, why the worker leaves), that comes first.
- What waits goes on waiting; `undrain` looks at the machine again before anything starts.
- A worker that leaves can't be called back: whoever ended it may start another.
"""

from fsm_worker.effects import (
    ConfirmDrain,
    EndReservation,
    ProbeHost,
    PublishStatus,
    ReplyError,
    arm,
    do,
)
from fsm_worker.events import CleanSucceeded, ProbeSucceeded, Timer
from fsm_worker.machines.engine import Guard, Row, fold, put, take
from protocol.errors import ErrorCode
from protocol.lifecycle import WorkerState
from protocol.messages import Drain, Undrain

S, E = WorkerState, ErrorCode

leaving = Guard("leaving", lambda facts, _event: facts.leaving)
drained = Guard("drained", lambda facts, _event: facts.drained)

_note = (put("drained", True), take("why_drained", "reason"))
_drain = (
    *_note,
    fold(
        "reason",
        "reason := event.reason, unless it leaves",
        lambda facts, event: facts.reason if facts.leaving else event.message.reason,
    ),
)
_forget = (put("drained", False), put("why_drained", ""))
_undrain = (*_forget, put("overdue", False), put("reason", ""))
_WAIT = (take("grace_s", "deadline_s"), put("overdue", False))
_NO_JOBS, _JOBS = do(ConfirmDrain, drained=True), do(ConfirmDrain, drained=False)
_BREAK, _BACK = (_NO_JOBS, PublishStatus), (_JOBS, PublishStatus)

ROWS = (
    Row("W54", (S.AVAILABLE,), Drain, (), S.MAINTENANCE, _drain, _BREAK),
    Row("W55", (S.RESERVED,), Drain, (), S.MAINTENANCE, _drain,
        (do(EndReservation, code=E.WORKER_DRAINED, sentence="the worker takes a break"),
         *_BREAK)),
    Row("W56", (S.BUSY,), Drain, (), S.DRAINING, (*_drain, *_WAIT), (*_BREAK, arm(Timer.DRAIN))),
    Row("W57", (S.DRAINING,), Drain, (), S.DRAINING, (*_drain, *_WAIT),
        (*_BREAK, arm(Timer.DRAIN))),
    Row("W58", (S.STARTING, S.CLEANING, S.MAINTENANCE), Drain, (), None, _drain, _BREAK),
    # degraded, it stays so: that its slot is clean is proved before anything else
    Row("W79", (S.DEGRADED,), Drain, (), None, _note, _BREAK),
    Row("W59", (S.DRAINING,), Timer.DRAIN, (), None, (put("overdue", True),)),
    Row("W60", (S.CLEANING,), CleanSucceeded, (~leaving, drained), S.MAINTENANCE,
        (put("slot", ""),), (PublishStatus,)),
    Row("W61", (S.STARTING,), ProbeSucceeded, (drained,), S.MAINTENANCE, (), (PublishStatus,)),
    Row("W62", (S.DEGRADED,), ProbeSucceeded, (drained,), S.MAINTENANCE,
        (fold("reason", "reason := why_drained", lambda facts, _event: facts.why_drained),),
        (PublishStatus,)),
    # taken back
    Row("W63", (S.MAINTENANCE,), Undrain, (), S.STARTING, _undrain,
        (*_BACK, ProbeHost, arm(Timer.PROBE))),
    Row("W64", (S.DRAINING,), Undrain, (~leaving,), S.BUSY, _undrain, _BACK),
    Row("W65", (S.STARTING, S.CLEANING), Undrain, (~leaving,), None, _undrain, _BACK),
    Row("W80", (S.DEGRADED,), Undrain, (), None, _forget, _BACK),
    Row("W66", (S.AVAILABLE, S.RESERVED, S.BUSY), Undrain, (), None, (), (_JOBS,)),
    # it leaves
    Row("W67", (S.DRAINING, S.CLEANING), Undrain, (leaving,), None, (),
        (do(ReplyError, code=E.WORKER_LEAVING,
            sentence="the worker leaves when its job has ended: start another"),)),
    Row("W68", (S.STOPPING,), Undrain, (), None, (),
        (do(ReplyError, code=E.WORKER_LEAVING, sentence="the worker leaves: start another"),)),
    Row("W69", (S.STOPPING,), Drain, (), None, (), (_NO_JOBS,)),
)  # fmt: skip
