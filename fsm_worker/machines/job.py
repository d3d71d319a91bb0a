"""One job, from its submission to its one outcome.

Laws:

- Inputs arrive before validation (a package can be read only then) and need disk, not the GPU; the
  slot is held from `preparing` to the end of the process. Of a job in the shared storage, nothing
  has to arrive.
- Stop and cancel are different: stop ends with the batch and keeps the model, cancel throws away.
  Both escalate by timers until the whole process tree is gone. Nothing else ends a running job but
  its wall-clock limit, an operator's break that it was given time for, and the worker's end; a
  client that leaves does not.
- The outcome is fixed once, on the way into `collecting` (or `done`, or `rejected`), and is never
  read off a return code alone once a signal was sent: `why` decides.
- A job belongs to a key, not to a link or a session.
"""

import hashlib
from typing import Any

import msgspec

from fsm_worker.effects import (
    CloseJob,
    CollectOutputs,
    DiscardOutputs,
    ForgetJob,
    InterruptTree,
    KillTree,
    OpenJob,
    PrepareRun,
    ReplyError,
    ReportState,
    RequestStop,
    SendExplanation,
    SendSnapshot,
    StartStage,
    StreamLog,
    TerminateTree,
    ValidatePackage,
    arm,
    do,
)
from fsm_worker.events import (
    ClientAttached,
    ClientDetached,
    Collected,
    CollectFailed,
    Crowded,
    DrainOverdue,
    EffectFailed,
    Event,
    FileProgressed,
    InputRefused,
    InputStored,
    Prepared,
    ProcessExited,
    SlotGranted,
    Timer,
    TrainerReported,
    ValidationFailed,
    ValidationPassed,
    WorkerLeaving,
    WorkerStopped,
    WorkerStopping,
)
from fsm_worker.facts import JobFacts, Why
from fsm_worker.machines.defaults import STOP_STEPS
from fsm_worker.machines.engine import (
    Guard,
    Ignored,
    Put,
    Row,
    Table,
    failure_of,
    fold,
    put,
    take,
)
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome
from protocol.messages import Attach, Cancel, Explain, LogGet, Problem, Stop, Submit
from protocol.table import MachineName

S, E, O = JobState, ErrorCode, Outcome  # noqa: E741 - the table is read by columns

#: States from which a job needs nothing more than to be read.
FINAL = (S.REJECTED, S.DONE)
#: States in which the job has processes, or is about to have.
ON_GPU = (S.PREPARING, S.RUNNING, S.STOPPING, S.CANCELLING, S.KILLING)
WAITING = (S.STAGING, S.VALIDATING, S.QUEUED)
LIVE = (*WAITING, *ON_GPU, S.COLLECTING)
#: Jobs of one key that may be alive at a time.
MOST_ALIVE = 100
#: Characters of a problem's sentence; all problems of a job travel in one frame.
LONGEST_SENTENCE = 2000

_ENDING = (S.STOPPING, S.CANCELLING, S.KILLING, S.COLLECTING)


def submission_digest(event: Any) -> str:
    """What makes two submissions the same: their content and their owner (SHA-256)."""
    return hashlib.sha256(
        msgspec.json.encode([event.key, event.message], order="deterministic")
    ).hexdigest()


def _shared(event: Any) -> bool:
    spec = event.message.spec
    return bool(spec.kind == "shared" and spec.input and spec.output and not event.message.inputs)


def _packed(event: Any) -> bool:
    spec = event.message.spec
    paths = spec.input or spec.output
    return bool(spec.kind == "package" and len(event.message.inputs) == 1 and not paths)


runnable = Guard("runnable", lambda _facts, event: _packed(event) or _shared(event))
in_shared = Guard("in_shared", lambda _facts, event: _shared(event))
few_alive = Guard("few_alive", lambda _facts, event: event.alive < MOST_ALIVE)
same_submission = Guard(
    "same_submission", lambda facts, event: facts.digest == submission_digest(event)
)
last_input = Guard(
    "last_input", lambda facts, event: {*facts.stored, event.name} >= set(facts.inputs)
)
gpu_free = Guard("gpu_free", lambda _facts, event: event.gpu_free)
exit_ok = Guard("exit_ok", lambda _facts, event: event.ok)
out_of_memory = Guard("out_of_memory", lambda _facts, event: event.out_of_memory)
start_failed = failure_of(StartStage)
more_stages = Guard("more_stages", lambda facts, _event: facts.stage + 1 < facts.stages)
more_steps = Guard("more_steps", lambda facts, _event: facts.step + 1 < len(STOP_STEPS))
throw_away = Guard("throw_away", lambda facts, _event: facts.why in {Why.CANCEL, Why.WORKER})
asking = Guard("asking", lambda facts, _event: facts.step == 0)

_OUTCOME_BY_WHY = {
    Why.STOP: O.STOPPED_EARLY,
    Why.CANCEL: O.CANCELLED,
    Why.WALL: O.TIMED_OUT,
    Why.WORKER: O.WORKER_STOPPED,
    Why.DRAIN: O.STOPPED_EARLY,
}


def _ends(outcome: Outcome) -> Put:
    return put("outcome", outcome)


def _problem(code: ErrorCode, sentence: str = "") -> Put:
    """Adds a problem; without a sentence, the event's reason."""
    return fold(
        "problems",
        f"problems += {code.value}",
        lambda facts, event: (
            *facts.problems,
            Problem(code=code, sentence=(sentence or event.reason)[:LONGEST_SENTENCE]),
        ),
    )


_by_why = fold(
    "outcome", "outcome := by why", lambda facts, _event: _OUTCOME_BY_WHY.get(facts.why, O.FAILED)
)
_born = (
    take("owner", "key"),
    fold("name", "name := spec.name", lambda _facts, event: event.message.spec.name),
    fold("digest", "digest := sha256(submission)", lambda _facts, event: submission_digest(event)),
    fold(
        "inputs",
        "inputs := announced names",
        lambda _facts, event: tuple(file.name for file in event.message.inputs),
    ),
    fold("wall_s", "wall_s := policy", lambda _facts, event: event.message.policy.wall_s),
    fold("queue_s", "queue_s := policy", lambda _facts, event: event.message.policy.queue_s),
    fold("shared", "shared := in shared storage", lambda _facts, event: _shared(event)),
)
_store = fold("stored", "stored += name", lambda facts, event: (*facts.stored, event.name))
_noted = fold(
    "problems",
    "problems += event.problems",
    lambda facts, event: (*facts.problems, *event.problems),
)
_next_stage = fold("stage", "stage += 1", lambda facts, _event: facts.stage + 1)
_next_step = fold("step", "step += 1", lambda facts, _event: facts.step + 1)
_refused = fold(
    "problems",
    "problems += event.code",
    lambda facts, event: (
        *facts.problems,
        Problem(code=event.code, sentence=event.reason[:LONGEST_SENTENCE]),
    ),
)

_DONE = (CloseJob, ReportState)
_COLLECT = (ReportState, CollectOutputs, arm(Timer.COLLECT))
_DISCARD = (ReportState, DiscardOutputs, arm(Timer.COLLECT))
_STOP = (RequestStop, ReportState, arm(Timer.STEP), arm(Timer.REPEAT))
_CANCEL = (TerminateTree, ReportState, arm(Timer.KILL))
_KILL = (KillTree, ReportState, arm(Timer.UNKILLABLE))
_already = do(ReplyError, code=E.ALREADY_TERMINAL, sentence="the job has ended: fetch its results")
_under_way = do(ReplyError, code=E.IN_PROGRESS, sentence="the job is ending already: wait for it")

ROWS = (
    # new
    Row("J1", (S.NEW,), Submit, (runnable, ~in_shared, few_alive), S.STAGING,
        _born, (OpenJob, SendSnapshot, arm(Timer.STAGING))),
    Row("J68", (S.NEW,), Submit, (runnable, in_shared, few_alive), S.VALIDATING,
        _born, (OpenJob, SendSnapshot, ValidatePackage, arm(Timer.PREFLIGHT))),
    Row("J2", (S.NEW,), Submit, (~runnable,), S.REJECTED,
        (*_born, _ends(O.REJECTED),
         _problem(E.NOT_SUPPORTED, "a job is one package (a zip archive with a script), or two"
                  " paths in the shared storage: of a package and of a folder for results")),
        (SendSnapshot,)),
    Row("J58", (S.NEW,), Submit, (runnable, ~few_alive), S.REJECTED,
        (*_born, _ends(O.REJECTED),
         _problem(E.OVERLOADED, f"{MOST_ALIVE} jobs of yours are waiting: let some end first")),
        (SendSnapshot,)),
    # a submission that is repeated, a job that is looked at: answered in every state
    Row("J3", (*LIVE, *FINAL), Submit, (same_submission,), None, (), (SendSnapshot,)),
    Row("J4", (*LIVE, *FINAL), Submit, (~same_submission,), None, (),
        (do(ReplyError, code=E.JOB_CONFLICT, sentence="this id was used for another submission"),)),
    Row("J5", (*LIVE, *FINAL), Attach, (), None, (), (SendSnapshot,)),
    Row("J6", (*LIVE, *FINAL), LogGet, (), None, (), (StreamLog,)),
    Row("J70", (*LIVE, *FINAL), Explain, (), None, (),
        (do(SendExplanation, of=MachineName.JOB),)),
    Row("J7", LIVE, ClientDetached, (), None, (put("attached", False),)),
    Row("J8", LIVE, ClientAttached, (), None, (put("attached", True),)),
    # staging
    Row("J9", (S.STAGING,), InputStored, (~last_input,), None, (_store,)),
    Row("J10", (S.STAGING,), InputStored, (last_input,), S.VALIDATING,
        (_store,), (ReportState, ValidatePackage, arm(Timer.PREFLIGHT))),
    Row("J11", (S.STAGING,), FileProgressed, (), S.STAGING, (), (arm(Timer.STAGING),)),
    Row("J12", (S.STAGING,), InputRefused, (), S.DONE, (_ends(O.FAILED), _refused), _DONE),
    Row("J13", (S.STAGING,), Timer.STAGING, (), S.DONE,
        (_ends(O.FAILED), _problem(E.INPUTS_NEVER_ARRIVED, "no bytes came for half an hour")),
        _DONE),
    # validating
    Row("J14", (S.VALIDATING,), ValidationPassed, (), S.QUEUED,
        (take("stages"),), (ReportState, arm(Timer.QUEUE))),
    Row("J15", (S.VALIDATING,), ValidationFailed, (), S.REJECTED,
        (_ends(O.REJECTED), take("problems")), _DONE),
    Row("J16", (S.VALIDATING,), Timer.PREFLIGHT, (), S.REJECTED,
        (_ends(O.REJECTED), _problem(E.PREFLIGHT_TIMEOUT, "reading the package took too long")),
        _DONE),
    # queued
    Row("J17", (S.QUEUED,), SlotGranted, (), S.PREPARING,
        (), (ReportState, PrepareRun, arm(Timer.PREPARE))),
    Row("J18", (S.QUEUED,), Timer.QUEUE, (), S.DONE, (_ends(O.EXPIRED_IN_QUEUE),), _DONE),
    # waiting states end without a process
    Row("J19", WAITING, Cancel, (), S.DONE, (_ends(O.CANCELLED),), _DONE),
    Row("J20", WAITING, Stop, (), S.DONE, (_ends(O.CANCELLED),), _DONE),
    Row("J21", WAITING, WorkerLeaving, (), S.REJECTED,
        (_ends(O.REJECTED), _problem(E.WORKER_LEAVING, "the worker takes no new jobs")),
        _DONE),
    Row("J22", WAITING, EffectFailed, (failure_of(OpenJob, ValidatePackage),), S.DONE,
        (_ends(O.FAILED), _refused), _DONE),
    # preparing
    Row("J23", (S.PREPARING,), Prepared, (gpu_free,), S.RUNNING,
        (), (ReportState, StartStage, arm(Timer.WALL))),
    Row("J24", (S.PREPARING,), Prepared, (~gpu_free,), S.COLLECTING,
        (_ends(O.FAILED), _problem(E.GPU_TAKEN)), _DISCARD),
    Row("J25", (S.PREPARING,), EffectFailed, (failure_of(PrepareRun),), S.COLLECTING,
        (_ends(O.FAILED), _problem(E.SETUP_FAILED)), _DISCARD),
    Row("J26", (S.PREPARING,), Timer.PREPARE, (), S.COLLECTING,
        (_ends(O.FAILED), _problem(E.SETUP_FAILED, "preparing the run took too long")), _DISCARD),
    Row("J27", (S.PREPARING,), Cancel, (), S.COLLECTING, (_ends(O.CANCELLED),), _DISCARD),
    Row("J28", (S.PREPARING,), Stop, (), S.COLLECTING, (_ends(O.CANCELLED),), _DISCARD),
    Row("J29", (S.PREPARING,), WorkerStopping, (), S.COLLECTING,
        (_ends(O.WORKER_STOPPED),), _DISCARD),
    # running
    Row("J31", (S.RUNNING,), ProcessExited, (exit_ok, more_stages), None,
        (_next_stage,), (ReportState, StartStage)),
    Row("J32", (S.RUNNING,), ProcessExited, (exit_ok, ~more_stages), S.COLLECTING,
        (_ends(O.SUCCEEDED),), _COLLECT),
    Row("J33", (S.RUNNING,), ProcessExited, (~exit_ok, out_of_memory), S.COLLECTING,
        (_ends(O.OUT_OF_MEMORY), _problem(E.EXITED)), _COLLECT),
    Row("J34", (S.RUNNING,), ProcessExited, (~exit_ok, ~out_of_memory), S.COLLECTING,
        (_ends(O.FAILED), _problem(E.EXITED)), _COLLECT),
    Row("J35", (S.RUNNING,), EffectFailed, (start_failed,), S.COLLECTING,
        (_ends(O.FAILED), _problem(E.SETUP_FAILED)), _COLLECT),
    Row("J36", (S.RUNNING,), Stop, (), S.STOPPING, (put("why", Why.STOP), put("step", 0)), _STOP),
    Row("J37", (S.RUNNING,), Timer.WALL, (), S.STOPPING,
        (put("why", Why.WALL), put("step", 0)), _STOP),
    Row("J30", (S.RUNNING,), DrainOverdue, (), S.STOPPING,
        (put("why", Why.DRAIN), put("step", 0)), _STOP),
    Row("J38", (S.RUNNING,), WorkerStopping, (), S.CANCELLING,
        (put("why", Why.WORKER),), _CANCEL),
    Row("J39", (S.RUNNING, S.STOPPING), Cancel, (), S.CANCELLING,
        (put("why", Why.CANCEL),), _CANCEL),
    # stopping: ZMQ, repeated until it acts; then SIGINT, SIGTERM, SIGKILL
    Row("J40", (S.STOPPING,), ProcessExited, (), S.COLLECTING, (_by_why,), _COLLECT),
    Row("J41", (S.STOPPING,), Timer.REPEAT, (asking,), None,
        (), (RequestStop, arm(Timer.REPEAT))),
    Row("J42", (S.STOPPING,), Timer.STEP, (more_steps, asking), None,
        (_next_step,), (InterruptTree, ReportState, arm(Timer.STEP))),
    Row("J43", (S.STOPPING,), Timer.STEP, (more_steps, ~asking), None,
        (_next_step,), (TerminateTree, ReportState, arm(Timer.STEP))),
    Row("J44", (S.STOPPING,), Timer.STEP, (~more_steps,), S.KILLING, (), _KILL),
    Row("J59", (S.STOPPING,), WorkerStopping, (more_steps,), None,
        (fold("step", "step := last", lambda _facts, _event: len(STOP_STEPS) - 1),),
        (TerminateTree, ReportState, arm(Timer.STEP))),
    # cancelling, killing
    Row("J45", (S.CANCELLING,), ProcessExited, (), S.COLLECTING, (_by_why,), _DISCARD),
    Row("J46", (S.CANCELLING,), Timer.KILL, (), S.KILLING, (), _KILL),
    Row("J47", (S.KILLING,), ProcessExited, (~throw_away,), S.COLLECTING, (_by_why,), _COLLECT),
    Row("J57", (S.KILLING,), ProcessExited, (throw_away,), S.COLLECTING, (_by_why,), _DISCARD),
    Row("J48", (S.KILLING,), Timer.UNKILLABLE, (), S.DONE,
        (_by_why, _problem(E.UNKILLABLE, "a process does not die: the worker looks after it")),
        _DONE),
    # what was asked to end had not begun
    Row("J63", (S.STOPPING,), EffectFailed, (start_failed,), S.COLLECTING,
        (_by_why,), _COLLECT),
    Row("J64", (S.CANCELLING,), EffectFailed, (start_failed,), S.COLLECTING,
        (_by_why,), _DISCARD),
    Row("J65", (S.KILLING,), EffectFailed, (start_failed, ~throw_away), S.COLLECTING,
        (_by_why,), _COLLECT),
    Row("J66", (S.KILLING,), EffectFailed, (start_failed, throw_away), S.COLLECTING,
        (_by_why,), _DISCARD),
    # collecting
    Row("J49", (S.COLLECTING,), Collected, (), S.DONE, (take("results"), _noted), _DONE),
    Row("J50", (S.COLLECTING,), CollectFailed, (), S.DONE, (_problem(E.RESULTS_PARTIAL),), _DONE),
    Row("J51", (S.COLLECTING,), Timer.COLLECT, (), S.DONE,
        (_problem(E.RESULTS_PARTIAL, "packing the results took too long"),), _DONE),
    Row("J52", (S.COLLECTING,), EffectFailed, (failure_of(CollectOutputs, DiscardOutputs),), S.DONE,
        (_problem(E.RESULTS_PARTIAL),), _DONE),
    # the worker ends before the job could
    Row("J60", (*WAITING, *ON_GPU), WorkerStopped, (), S.DONE, (_ends(O.WORKER_STOPPED),), _DONE),
    Row("J61", (S.COLLECTING,), WorkerStopped, (), S.DONE,
        (_problem(E.RESULTS_PARTIAL, "the worker ended before the results were packed"),), _DONE),
    Row("J62", FINAL, Crowded, (), None, (put("forgotten", True),), (ForgetJob,)),
    # asked again
    Row("J53", _ENDING, Stop, (), None, (), (_under_way,)),
    Row("J54", (S.CANCELLING, S.KILLING, S.COLLECTING), Cancel, (), None, (), (_under_way,)),
    Row("J55", FINAL, Stop, (), None, (), (_already,)),
    Row("J56", FINAL, Cancel, (), None, (), (_already,)),
)  # fmt: skip

IGNORED = (
    Ignored((S.RUNNING, S.STOPPING, S.CANCELLING, S.KILLING, S.COLLECTING, *FINAL),
            (TrainerReported,), "shown to the client; a trainer's words decide nothing"),
    Ignored((*ON_GPU, S.VALIDATING, S.QUEUED, S.COLLECTING, *FINAL),
            (FileProgressed, InputStored, InputRefused), "the inputs are complete, or given up"),
    Ignored((S.STOPPING,), (Timer.REPEAT,), "signals have taken over"),
    Ignored((*LIVE, *FINAL), (EffectFailed,),
            "a word that was not sent, or a signal: the timers escalate, whatever fails"),
    Ignored((S.COLLECTING, *FINAL), (ProcessExited, Prepared),
            "the outcome is fixed; the worker proves that the process is gone"),
    Ignored((*WAITING, S.STOPPING, S.CANCELLING, S.KILLING, S.COLLECTING, *FINAL),
            (WorkerStopping,), "it holds no process, or is ending already"),
    Ignored((*ON_GPU, S.COLLECTING, *FINAL), (WorkerLeaving,), "it has the slot: it may finish"),
    Ignored(FINAL, (Collected, CollectFailed, ValidationPassed, ValidationFailed),
            "a late answer"),
    Ignored(FINAL, (ClientAttached, ClientDetached, WorkerStopped), "it has ended"),
)  # fmt: skip


def _stale(facts: JobFacts, event: Event) -> bool:
    """The exit of an earlier stage says nothing about this one."""
    return isinstance(event, ProcessExited) and event.stage != facts.stage


JOB = Table(
    MachineName.JOB,
    JobState,
    JobFacts,
    initial=S.NEW,
    final=FINAL,
    rows=ROWS,
    ignored=IGNORED,
    stale=_stale,
)
