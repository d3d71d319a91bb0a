"""The worker's status: one GPU slot of this process.

Laws:

- `busy` and `draining` mean that exactly one job holds the slot, and `slot` names it.
- `available` means that no process of ours is alive on the slot: only a proof (`clean_succeeded`,
  `probe_succeeded`) leads there.
- A request to end never kills a running job: it drains. A second one stops. What else makes the
  worker leave (its journal, its server) is no request.
- A worker that stops waits for results that are being packed: only whoever asked ends that.
- Reservations (`reservation`) and breaks (`draining`) have laws and rows of their own.
- What peers are told is a function of this machine (`published_status`), never stored.
"""

from fsm_worker.effects import (
    CleanSlot,
    KillEverything,
    Leave,
    ProbeHost,
    PublishStatus,
    arm,
)
from fsm_worker.events import (
    AllDone,
    CleanFailed,
    CleanSucceeded,
    EffectFailed,
    EverythingKilled,
    JobLeftGpu,
    JournalFailed,
    NobodyCanCome,
    PackingBegan,
    PackingEnded,
    ProbeFailed,
    ProbeSucceeded,
    SlotRequested,
    Started,
    TerminateRequested,
    Timer,
)
from fsm_worker.facts import WorkerFacts
from fsm_worker.machines import draining, reservation
from fsm_worker.machines.draining import drained, leaving
from fsm_worker.machines.engine import Guard, Ignored, Row, Table, failure_of, put, take
from protocol.lifecycle import WorkerState
from protocol.table import MachineName

S = WorkerState

asked = Guard("asked", lambda facts, _event: facts.asked)
packing = Guard("packing", lambda facts, _event: facts.packing)
look_failed = failure_of(ProbeHost, CleanSlot)
clean_failed = failure_of(CleanSlot)
kill_failed = failure_of(KillEverything)

_PROBE_AGAIN = (PublishStatus, arm(Timer.PROBE))
_LINGER = (PublishStatus, arm(Timer.LINGER))
_UNDEAD = "a process of the last job does not die"
# its jobs get their outcome, and their owners hear it, before it says goodbye
_FORCED = (put("forced", True),)
_GONE = (put("gone", True),)
_ASKED = (put("leaving", True), put("asked", True))
_CLEAN = (PublishStatus, CleanSlot, arm(Timer.CLEAN))

_IDLE = (S.STARTING, S.AVAILABLE, S.MAINTENANCE, S.DEGRADED)

ROWS = (
    # starting
    Row("W1", (S.STARTING,), Started, (), S.STARTING, (), (ProbeHost, arm(Timer.PROBE))),
    Row("W2", (S.STARTING,), ProbeSucceeded, (~drained,), S.AVAILABLE, (), (PublishStatus,)),
    Row("W3", (S.STARTING,), ProbeFailed, (), S.DEGRADED, (take("reason"),), _PROBE_AGAIN),
    Row("W4", (S.STARTING,), Timer.PROBE, (), S.DEGRADED,
        (put("reason", "the GPU probe hangs"),), _PROBE_AGAIN),
    Row("W5", (S.STARTING, S.DEGRADED), EffectFailed, (look_failed,), S.DEGRADED,
        (take("reason"),), _PROBE_AGAIN),
    # available
    Row("W6", (S.AVAILABLE,), SlotRequested, (), S.BUSY, (take("slot", "job"),), (PublishStatus,)),
    # busy, draining
    Row("W7", (S.BUSY, S.DRAINING), JobLeftGpu, (), S.CLEANING, (put("overdue", False),), _CLEAN),
    Row("W8", (S.BUSY,), TerminateRequested, (), S.DRAINING, _ASKED, (PublishStatus,)),
    Row("W70", (S.DRAINING,), TerminateRequested, (~asked,), None, _ASKED, (PublishStatus,)),
    Row("W9", (S.DRAINING,), TerminateRequested, (asked,), S.STOPPING,
        (put("reason", "asked twice to stop"),), (PublishStatus, arm(Timer.STOP))),
    # cleaning
    Row("W10", (S.CLEANING,), CleanSucceeded, (~leaving, ~drained), S.AVAILABLE,
        (put("slot", ""),), (PublishStatus,)),
    Row("W11", (S.CLEANING,), CleanSucceeded, (leaving,), S.STOPPING,
        (put("slot", ""),), _LINGER),
    Row("W12", (S.CLEANING,), CleanFailed, (~leaving,), S.DEGRADED,
        (put("slot", ""), take("reason")), _PROBE_AGAIN),
    Row("W13", (S.CLEANING,), Timer.CLEAN, (~leaving,), S.DEGRADED,
        (put("slot", ""), put("reason", _UNDEAD)), _PROBE_AGAIN),
    Row("W14", (S.CLEANING,), EffectFailed, (clean_failed, ~leaving), S.DEGRADED,
        (put("slot", ""), take("reason")), _PROBE_AGAIN),
    Row("W27", (S.CLEANING,), CleanFailed, (leaving,), S.STOPPING,
        (put("slot", ""), take("reason")), _LINGER),
    Row("W28", (S.CLEANING,), Timer.CLEAN, (leaving,), S.STOPPING,
        (put("slot", ""), put("reason", _UNDEAD)), _LINGER),
    Row("W29", (S.CLEANING,), EffectFailed, (clean_failed, leaving), S.STOPPING,
        (put("slot", ""), take("reason")), _LINGER),
    Row("W15", (S.CLEANING,), TerminateRequested, (~asked,), None, _ASKED),
    Row("W16", (S.CLEANING,), TerminateRequested, (asked,), S.STOPPING,
        (put("slot", ""),), (PublishStatus, arm(Timer.STOP))),
    # degraded: clean first, so that nothing of ours is left, then probe
    Row("W17", (S.DEGRADED,), Timer.PROBE, (), S.DEGRADED, (), (CleanSlot, arm(Timer.PROBE))),
    Row("W18", (S.DEGRADED,), CleanSucceeded, (), S.DEGRADED, (), (ProbeHost, arm(Timer.PROBE))),
    Row("W19", (S.DEGRADED,), ProbeSucceeded, (~drained,), S.AVAILABLE,
        (put("reason", ""),), (PublishStatus,)),
    Row("W20", (S.DEGRADED,), ProbeFailed, (), S.DEGRADED, (take("reason"),), _PROBE_AGAIN),
    Row("W21", (S.DEGRADED,), CleanFailed, (), S.DEGRADED, (take("reason"),), _PROBE_AGAIN),
    # leaving
    Row("W22", _IDLE, TerminateRequested, (), S.STOPPING, (put("asked", True),), _LINGER),
    Row("W75", (S.AVAILABLE, S.MAINTENANCE, S.DEGRADED), NobodyCanCome, (), S.STOPPING,
        (), _LINGER),
    # what can't be written down can't be promised: no new jobs, and the running one ends by itself
    Row("W30", (S.BUSY,), JournalFailed, (), S.DRAINING,
        (put("leaving", True), take("reason")), (PublishStatus,)),
    Row("W31", (S.CLEANING, S.DRAINING), JournalFailed, (~leaving,), None,
        (put("leaving", True), take("reason"))),
    Row("W32", _IDLE, JournalFailed, (), S.STOPPING,
        (take("reason"),), _LINGER),
    Row("W23", (S.STOPPING,), AllDone, (), S.STOPPED, (), (KillEverything, Leave)),
    Row("W24", (S.STOPPING,), Timer.STOP, (), S.STOPPING, _FORCED, (KillEverything,)),
    # clients have their time from when their results are there
    Row("W76", (S.STOPPING,), PackingBegan, (), None, (put("packing", True),)),
    Row("W77", (S.STOPPING,), PackingEnded, (), None,
        (put("packing", False),), (arm(Timer.LINGER),)),
    Row("W78", (S.STOPPING,), Timer.LINGER, (packing,), None, (), (arm(Timer.LINGER),)),
    Row("W25", (S.STOPPING,), Timer.LINGER, (~packing,), S.STOPPING, _FORCED, (KillEverything,)),
    Row("W74", (S.STOPPING,), TerminateRequested, (~asked,), None, (put("asked", True),)),
    Row("W26", (S.STOPPING,), TerminateRequested, (asked,), S.STOPPING,
        _FORCED, (KillEverything,)),
    Row("W33", (S.STOPPING,), EverythingKilled, (), S.STOPPED, _GONE, (Leave,)),
    Row("W34", (S.STOPPING,), EffectFailed, (kill_failed,), S.STOPPED,
        (take("reason"), *_GONE), (Leave,)),
    Row("W35", (S.STOPPED,), EverythingKilled, (), None, _GONE),
    Row("W36", (S.STOPPED,), EffectFailed, (kill_failed,), None, _GONE),
    *reservation.ROWS,
    *draining.ROWS,
)  # fmt: skip

_HELD = (S.AVAILABLE, S.RESERVED, S.BUSY, S.DRAINING, S.MAINTENANCE, S.STOPPING, S.STOPPED)
_PROBED = (ProbeSucceeded, ProbeFailed)
_CLEANED = (CleanSucceeded, CleanFailed)
IGNORED = (
    Ignored((*_HELD, S.CLEANING), _PROBED, "a probe that was asked for earlier"),
    Ignored((S.STARTING, *_HELD), _CLEANED, "a cleaning that was asked for earlier"),
    Ignored(tuple(S), (EffectFailed,), "publishing is tried again with the next change"),
    Ignored((S.DRAINING, S.CLEANING, S.STOPPING, S.STOPPED), (JournalFailed,),
            "it is leaving already"),
    Ignored((S.STOPPED,), (TerminateRequested,), "it has stopped"),
    *reservation.IGNORED,
)  # fmt: skip

WORKER = Table(
    MachineName.WORKER,
    WorkerState,
    WorkerFacts,
    initial=S.STARTING,
    final=(S.STOPPED,),
    rows=ROWS,
    ignored=IGNORED,
)


def published_status(state: WorkerState) -> str:
    """The worker's status in sleap-rtc's four words (sleap-rtc 0.0.7, `worker/state_manager`)."""
    return {
        S.AVAILABLE: "available",
        S.RESERVED: "reserved",
        S.BUSY: "busy",
        S.CLEANING: "busy",
    }.get(state, "maintenance")
