"""What a job does, row by row, from its submission to its one outcome."""

from typing import Any

import pytest
from msgspec import structs

from fsm_worker import events as e
from fsm_worker.events import Event, Timer
from fsm_worker.facts import JobFacts, Why
from fsm_worker.machines.defaults import seconds
from fsm_worker.machines.engine import Instance, Verdict
from fsm_worker.machines.job import JOB, MOST_ALIVE
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome
from protocol.messages import (
    Attach,
    Cancel,
    Explain,
    InputFile,
    JobPolicy,
    JobSpec,
    LogGet,
    Problem,
    ResultsInfo,
    Stop,
    Submit,
)
from tests.machines.samples import received
from tests.machines.scenario import (
    STAYS,
    SUBJECT,
    Case,
    Says,
    case,
    covered,
    declared,
    each,
    play,
)
from tests.protocol.samples import PROBLEM, RESULTS, ROOT

PACKAGE = InputFile(name="package.zip", size=4096, root=ROOT)
PATHS = {"input": "jobs/1/in.zip", "output": "jobs/1/out"}
LABELS = InputFile(name="labels.slp", size=1024, root=ROOT)


def submit(
    *inputs: InputFile,
    kind: str = "package",
    wall_s: float = 60.0,
    key: str = "alice",
    **paths: str,
) -> Event:
    message = Submit(
        job=SUBJECT,
        spec=JobSpec(kind=kind, name="digits", **paths),
        inputs=inputs or (() if kind == "shared" else (PACKAGE,)),
        policy=JobPolicy(wall_s=wall_s, queue_s=30.0),
    )
    return received(message, key=key)


class Sha256:
    """Any digest."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and len(other) == 64 and set(other) <= set("0123456789abcdef")

    def __hash__(self) -> int:
        return 0


def problem(code: ErrorCode, words: str) -> tuple[Problem, ...]:
    sentence: Any = Says(words)
    return (Problem(code=code, sentence=sentence),)


def born() -> dict[str, Any]:
    """The facts of a job that alice has submitted."""
    instance = Instance(JOB, SUBJECT)
    instance.step(submit())
    return structs.asdict(instance.facts)


E = ErrorCode
STOP, CANCEL = received(Stop(job=SUBJECT)), received(Cancel(job=SUBJECT))


def broken(effect: str) -> Event:
    return e.EffectFailed(effect=effect, reason="no room", code=E.DISK_FULL)


STORED = e.InputStored(name="package.zip")


def crowded(event: Event) -> Event:
    """The same when the owner has as many live jobs as a key may have."""
    return structs.replace(event, alive=MOST_ALIVE)


def ended(*, stage: int = 0, ok: bool = False, out_of_memory: bool = False) -> Event:
    return e.ProcessExited(stage=stage, ok=ok, out_of_memory=out_of_memory, reason="exit code 1")


WAITING = "staging validating queued"
ON_GPU = "preparing running stopping cancelling killing"
LIVE = f"{WAITING} {ON_GPU} collecting"
FINAL = "rejected done"
ALL = f"{LIVE} {FINAL}"

CLOSE = "CloseJob ReportState"
COLLECT = "ReportState CollectOutputs Timer(collect)"
DISCARD = "ReportState DiscardOutputs Timer(collect)"
ASK = "RequestStop ReportState Timer(step) Timer(repeat)"
TERM = "TerminateTree ReportState Timer(kill)"
KILL = "KillTree ReportState Timer(unkillable)"
ENDED = "ReplyError(already_terminal: fetch its results)"
ENDING = "ReplyError(in_progress: wait)"
LAST = {"stage": 1, "stages": 2}


def why(reason: Why, **more: Any) -> dict[str, Any]:
    return {"why": reason, **more}


CASES = (
    # A submission makes its sender the owner; a worker runs packages only.
    case("J1", "new", submit(), "staging", "OpenJob SendSnapshot Timer(staging)",
         owner="alice", name="digits", digest=Sha256(), inputs=("package.zip",), wall_s=60.0,
         queue_s=30.0),
    # In the shared storage, nothing has to arrive.
    case("J68", "new", submit(kind="shared", **PATHS), "validating",
         "OpenJob SendSnapshot ValidatePackage Timer(preflight)",
         owner="alice", name="digits", digest=Sha256(), wall_s=60.0, queue_s=30.0, shared=True),
    case("J2", "new", submit(PACKAGE, LABELS), "rejected", "SendSnapshot",
         owner="alice", name="digits", digest=Sha256(), inputs=("package.zip", "labels.slp"),
         wall_s=60.0, queue_s=30.0, outcome=Outcome.REJECTED,
         problems=problem(E.NOT_SUPPORTED, "zip archive")),
    case("J58", "new", crowded(submit()), "rejected", "SendSnapshot",
         owner="alice", name="digits", digest=Sha256(), inputs=("package.zip",), wall_s=60.0,
         queue_s=30.0, outcome=Outcome.REJECTED, problems=problem(E.OVERLOADED, "let some end")),
    # The same again changes nothing; other content, or another key, is not the same.
    case("J3", ALL, submit(), STAYS, "SendSnapshot", born()),
    case("J4", ALL, submit(wall_s=61.0), STAYS,
         "ReplyError(job_conflict: another submission)", born()),
    case("J4", "running", submit(key="bob"), STAYS,
         "ReplyError(job_conflict: another submission)", born()),
    # It can be looked at for ever.
    case("J5", ALL, received(Attach(job=SUBJECT)), STAYS, "SendSnapshot"),
    case("J6", ALL, received(LogGet(job=SUBJECT)), STAYS, "StreamLog"),
    case("J70", ALL, received(Explain(job=SUBJECT)), STAYS, "SendExplanation(job)"),
    # An owner who leaves and comes back is noted, and changes nothing else.
    case("J7", LIVE, e.ClientDetached(), STAYS, attached=False),
    case("J8", LIVE, e.ClientAttached(), STAYS, "", {"attached": False}, attached=True),
    # Its inputs arrive, or it ends.
    case("J9", "staging", STORED, STAYS, "", {"inputs": ("package.zip", "labels.slp")},
         stored=("package.zip",)),
    case("J10", "staging", STORED, "validating", "ReportState ValidatePackage Timer(preflight)",
         {"inputs": ("labels.slp", "package.zip"), "stored": ("labels.slp",)},
         stored=("labels.slp", "package.zip")),
    case("J11", "staging", e.FileProgressed(), "staging", "Timer(staging)"),
    case("J12", "staging",
         e.InputRefused(name="package.zip", code=E.DISK_FULL, reason="the disk is full"),
         "done", CLOSE, outcome=Outcome.FAILED, problems=problem(E.DISK_FULL, "disk is full")),
    case("J13", "staging", Timer.STAGING, "done", CLOSE,
         outcome=Outcome.FAILED, problems=problem(E.INPUTS_NEVER_ARRIVED, "no bytes")),
    # Its script is read before it costs a GPU.
    case("J14", "validating", e.ValidationPassed(stages=2), "queued",
         "ReportState Timer(queue)", stages=2),
    case("J15", "validating", e.ValidationFailed(problems=(PROBLEM,)), "rejected", CLOSE,
         outcome=Outcome.REJECTED, problems=(PROBLEM,)),
    case("J16", "validating", Timer.PREFLIGHT, "rejected", CLOSE,
         outcome=Outcome.REJECTED, problems=problem(E.PREFLIGHT_TIMEOUT, "too long")),
    # It waits for the slot.
    case("J17", "queued", e.SlotGranted(), "preparing", "ReportState PrepareRun Timer(prepare)"),
    case("J18", "queued", Timer.QUEUE, "done", CLOSE, outcome=Outcome.EXPIRED_IN_QUEUE),
    # While it waits, nothing has to be stopped.
    case("J19", WAITING, CANCEL, "done", CLOSE, outcome=Outcome.CANCELLED),
    case("J20", WAITING, STOP, "done", CLOSE, outcome=Outcome.CANCELLED),
    case("J21", WAITING, e.WorkerLeaving(), "rejected", CLOSE,
         outcome=Outcome.REJECTED, problems=problem(E.WORKER_LEAVING, "no new jobs")),
    *(case("J22", WAITING, broken(effect), "done", CLOSE,
           outcome=Outcome.FAILED, problems=problem(E.DISK_FULL, "no room"))
      for effect in ("open_job", "validate_package")),
    # It prepares; what fails here has made nothing.
    case("J23", "preparing", e.Prepared(gpu_free=True), "running",
         "ReportState StartStage Timer(wall)"),
    case("J24", "preparing", e.Prepared(gpu_free=False, reason="4 GiB are taken"), "collecting",
         DISCARD, outcome=Outcome.FAILED, problems=problem(E.GPU_TAKEN, "4 GiB are taken")),
    case("J25", "preparing", broken("prepare_run"), "collecting", DISCARD,
         outcome=Outcome.FAILED, problems=problem(E.SETUP_FAILED, "no room")),
    case("J26", "preparing", Timer.PREPARE, "collecting", DISCARD,
         outcome=Outcome.FAILED, problems=problem(E.SETUP_FAILED, "too long")),
    case("J27", "preparing", CANCEL, "collecting", DISCARD, outcome=Outcome.CANCELLED),
    case("J28", "preparing", STOP, "collecting", DISCARD, outcome=Outcome.CANCELLED),
    case("J29", "preparing", e.WorkerStopping(), "collecting", DISCARD,
         outcome=Outcome.WORKER_STOPPED),
    # It runs, stage by stage.
    case("J31", "running", ended(ok=True), STAYS, "ReportState StartStage",
         {"stage": 0, "stages": 2}, stage=1),
    case("J32", "running", ended(stage=1, ok=True), "collecting", COLLECT, LAST,
         outcome=Outcome.SUCCEEDED),
    case("J33", "running", ended(out_of_memory=True), "collecting", COLLECT,
         {"stage": 0, "stages": 2}, outcome=Outcome.OUT_OF_MEMORY,
         problems=problem(E.EXITED, "exit code 1")),
    case("J34", "running", ended(), "collecting", COLLECT,
         {"stage": 0, "stages": 2}, outcome=Outcome.FAILED,
         problems=problem(E.EXITED, "exit code 1")),
    case("J35", "running", broken("start_stage"), "collecting", COLLECT,
         outcome=Outcome.FAILED, problems=problem(E.SETUP_FAILED, "no room")),
    # Stop finishes the batch and keeps the model; so does the wall-clock limit.
    case("J36", "running", STOP, "stopping", ASK, {"step": 2}, why=Why.STOP, step=0),
    case("J37", "running", Timer.WALL, "stopping", ASK, {"step": 2}, why=Why.WALL, step=0),
    # So does a break that an operator wants, once the job has had its time.
    case("J30", "running", e.DrainOverdue(), "stopping", ASK, {"step": 2}, why=Why.DRAIN, step=0),
    # Cancel throws away, also while it stops; so does a worker that ends.
    case("J38", "running", e.WorkerStopping(), "cancelling", TERM, why=Why.WORKER),
    case("J39", "running stopping", CANCEL, "cancelling", TERM, why(Why.STOP), why=Why.CANCEL),
    # A trainer that does not hear is asked every second, then interrupted, terminated, killed.
    case("J41", "stopping", Timer.REPEAT, STAYS, "RequestStop Timer(repeat)"),
    case("J42", "stopping", Timer.STEP, STAYS, "InterruptTree ReportState Timer(step)",
         {"step": 0}, step=1),
    case("J43", "stopping", Timer.STEP, STAYS, "TerminateTree ReportState Timer(step)",
         {"step": 1}, step=2),
    case("J44", "stopping", Timer.STEP, "killing", KILL, {"step": 2}),
    case("J46", "cancelling", Timer.KILL, "killing", KILL),
    # A worker that ends hastens a stop; what is not over then is ended, with the outcome it has.
    *(case("J59", "stopping", e.WorkerStopping(), STAYS, "TerminateTree ReportState Timer(step)",
           {"step": step}, step=2) for step in (0, 1)),
    case("J60", f"{WAITING} {ON_GPU}", e.WorkerStopped(), "done", CLOSE,
         outcome=Outcome.WORKER_STOPPED),
    case("J61", "collecting", e.WorkerStopped(), "done", CLOSE, {"outcome": Outcome.SUCCEEDED},
         problems=problem(E.RESULTS_PARTIAL, "before the results")),
    case("J62", FINAL, e.Crowded(), STAYS, "ForgetJob", forgotten=True),
    # However the process ends then, why it was ended is the outcome.
    case("J40", "stopping", ended(), "collecting", COLLECT, why(Why.STOP),
         outcome=Outcome.STOPPED_EARLY),
    case("J40", "stopping", ended(ok=True), "collecting", COLLECT, why(Why.WALL),
         outcome=Outcome.TIMED_OUT),
    case("J45", "cancelling", ended(ok=True), "collecting", DISCARD, why(Why.CANCEL),
         outcome=Outcome.CANCELLED),
    case("J45", "cancelling", ended(), "collecting", DISCARD, why(Why.WORKER),
         outcome=Outcome.WORKER_STOPPED),
    case("J47", "killing", ended(), "collecting", COLLECT, why(Why.STOP),
         outcome=Outcome.STOPPED_EARLY),
    case("J47", "killing", ended(), "collecting", COLLECT, why(Why.WALL),
         outcome=Outcome.TIMED_OUT),
    case("J57", "killing", ended(ok=True), "collecting", DISCARD, why(Why.CANCEL),
         outcome=Outcome.CANCELLED),
    case("J57", "killing", ended(), "collecting", DISCARD, why(Why.WORKER),
         outcome=Outcome.WORKER_STOPPED),
    case("J48", "killing", Timer.UNKILLABLE, "done", CLOSE, why(Why.CANCEL),
         outcome=Outcome.CANCELLED, problems=problem(E.UNKILLABLE, "does not die")),
    # A program that never started does not have to be waited for.
    case("J63", "stopping", broken("start_stage"), "collecting", COLLECT, why(Why.STOP),
         outcome=Outcome.STOPPED_EARLY),
    case("J64", "cancelling", broken("start_stage"), "collecting", DISCARD, why(Why.CANCEL),
         outcome=Outcome.CANCELLED),
    case("J65", "killing", broken("start_stage"), "collecting", COLLECT, why(Why.WALL),
         outcome=Outcome.TIMED_OUT),
    case("J66", "killing", broken("start_stage"), "collecting", DISCARD, why(Why.CANCEL),
         outcome=Outcome.CANCELLED),
    # Its outputs are packed; that they can't be does not change the outcome.
    case("J49", "collecting", e.Collected(results=RESULTS), "done", CLOSE, results=RESULTS),
    case("J49", "collecting", e.Collected(results=RESULTS, problems=(PROBLEM,)), "done", CLOSE,
         results=RESULTS, problems=(PROBLEM,)),
    case("J50", "collecting", e.CollectFailed(reason="no room"), "done", CLOSE,
         problems=problem(E.RESULTS_PARTIAL, "no room")),
    case("J51", "collecting", Timer.COLLECT, "done", CLOSE,
         problems=problem(E.RESULTS_PARTIAL, "too long")),
    *(case("J52", "collecting", broken(effect), "done", CLOSE,
           problems=problem(E.RESULTS_PARTIAL, "no room"))
      for effect in ("collect_outputs", "discard_outputs")),
    # Asked again, it says how far it is.
    case("J53", "stopping cancelling killing collecting", STOP, STAYS, ENDING),
    case("J54", "cancelling killing collecting", CANCEL, STAYS, ENDING),
    case("J55", FINAL, STOP, STAYS, ENDED),
    case("J56", FINAL, CANCEL, STAYS, ENDED),
)  # fmt: skip


@each(CASES)
def test_row(entry: Case, state: str) -> None:
    play(JOB, entry, state)


def test_every_row_has_its_case() -> None:
    assert covered(CASES) == declared(JOB)


@pytest.mark.parametrize("effect", ["send_snapshot", "report_state", "reply_error", "stream_log"])
@pytest.mark.parametrize("state", LIVE.split())
def test_a_word_that_could_not_be_sent_ends_no_job(effect: str, state: str) -> None:
    instance = Instance(JOB, SUBJECT)
    instance.state = JobState(state)
    step = instance.step(broken(effect))
    assert (step.verdict, step.after) == (Verdict.IGNORED, state)


# --- laws that no single row shows --------------------------------------------------------------


def at(state: JobState, **facts: Any) -> Instance[JobState, JobFacts]:
    instance = Instance(JOB, SUBJECT, JobFacts(**facts))
    instance.state = state
    return instance


@pytest.mark.parametrize("kind", ["script", "", "PACKAGE"])
def test_what_is_no_package_is_rejected(kind: str) -> None:
    instance = Instance(JOB, SUBJECT)
    assert instance.step(submit(kind=kind)).row == "J2"


@pytest.mark.parametrize(
    "half",
    [
        received(Submit(job=SUBJECT, spec=JobSpec())),
        submit(kind="shared"),
        submit(kind="shared", input="in.zip"),
        submit(kind="shared", output="out"),
        submit(PACKAGE, kind="shared", **PATHS),
        submit(**PATHS),
        submit(output="out"),
    ],
)
def test_what_is_neither_quite_a_package_nor_quite_two_paths_is_rejected(half: Event) -> None:
    assert Instance(JOB, SUBJECT).step(half).row == "J2"


def test_a_package_in_the_shared_storage_has_the_time_that_copying_takes() -> None:
    times = [seconds(Timer.PREFLIGHT, JobFacts(shared=shared), {}) for shared in (False, True)]
    assert times == [60.0, 1800.0]


@pytest.mark.parametrize(
    "other",
    [
        submit(key="bob"),
        submit(wall_s=61.0),
        submit(structs.replace(PACKAGE, size=1)),
        submit(structs.replace(PACKAGE, root="0" * 64)),
        submit(structs.replace(PACKAGE, name="other.zip")),
    ],
)
def test_a_submission_is_the_same_only_with_owner_content_and_limits(other: Event) -> None:
    instance = Instance(JOB, SUBJECT)
    instance.step(submit())
    facts = instance.facts
    assert instance.step(other).row == "J4"
    assert instance.facts == facts
    assert instance.step(submit()).row == "J3"


def test_a_stop_that_is_not_heard_escalates_to_the_end_of_the_whole_tree() -> None:
    instance = at(JobState.RUNNING, stages=1)
    instance.step(STOP)
    asked = []
    while instance.state is not JobState.DONE:
        timer = Timer.STEP if Timer.STEP in instance.armed else Timer.UNKILLABLE
        step = instance.step(e.TimerExpired(timer=timer, serial=instance.armed[timer]))
        asked += [type(effect).__name__ for effect in step.effects]
    assert [name for name in asked if name.endswith("Tree")] == [
        "InterruptTree",
        "TerminateTree",
        "KillTree",
    ]
    assert instance.facts.outcome is Outcome.STOPPED_EARLY


def test_the_trainer_is_asked_again_only_until_signals_take_over() -> None:
    instance = at(JobState.RUNNING, stages=1)
    instance.step(STOP)
    for _ in range(3):
        repeat = e.TimerExpired(timer=Timer.REPEAT, serial=instance.armed[Timer.REPEAT])
        assert instance.step(repeat).row == "J41"
        assert instance.step(repeat).verdict is Verdict.STALE
    repeat = e.TimerExpired(timer=Timer.REPEAT, serial=instance.armed[Timer.REPEAT])
    instance.step(e.TimerExpired(timer=Timer.STEP, serial=instance.armed[Timer.STEP]))
    assert instance.step(repeat).verdict is Verdict.IGNORED


def test_the_wall_clock_limit_spans_all_stages() -> None:
    instance = at(JobState.PREPARING, stages=3, wall_s=60.0)
    instance.step(e.Prepared(gpu_free=True))
    wall = e.TimerExpired(timer=Timer.WALL, serial=instance.armed[Timer.WALL])
    instance.step(ended(stage=0, ok=True))
    instance.step(ended(stage=1, ok=True))
    assert instance.facts.stage == 2
    assert instance.step(wall).row == "J37"


@pytest.mark.parametrize("stage", [0, 2, 7])
def test_the_exit_of_another_stage_says_nothing(stage: int) -> None:
    instance = at(JobState.RUNNING, stage=1, stages=3)
    step = instance.step(ended(stage=stage, ok=True))
    assert (step.verdict, instance.facts.stage) == (Verdict.STALE, 1)


@pytest.mark.parametrize("state", [JobState.STOPPING, JobState.CANCELLING, JobState.KILLING])
def test_a_stop_or_a_cancel_ends_the_job_and_not_only_its_stage(state: JobState) -> None:
    instance = at(state, stage=0, stages=3, why=Why.STOP)
    instance.step(ended(ok=True))
    assert instance.state is JobState.COLLECTING


def test_a_client_that_leaves_ends_no_job() -> None:
    for state in JobState:
        if state not in {JobState.NEW, *JOB.final}:
            instance = at(state)
            assert instance.step(e.ClientDetached()).effects == ()
            assert instance.state is state


def test_nothing_but_its_own_events_ends_a_running_job() -> None:
    ends = {row.on for (state, _), rows in JOB.by_pair.items() if state is JobState.RUNNING
            for row in rows if row.to is not None}  # fmt: skip
    assert ends == {
        e.ProcessExited, e.EffectFailed, e.WorkerStopping, e.WorkerStopped, Stop, Cancel,
        Timer.WALL, e.DrainOverdue,
    }  # fmt: skip


def test_an_outcome_is_fixed_by_the_row_that_ends_the_work_and_by_no_later_one() -> None:
    """Every way into `collecting`, `done` or `rejected` from work; none out of `collecting`."""
    for (state, _), rows in JOB.by_pair.items():
        for row in rows:
            fixes = any(entry.field == "outcome" for entry in row.sets)
            ends = row.to in {JobState.COLLECTING, *JOB.final} and state not in {
                JobState.COLLECTING,
                *JOB.final,
            }
            assert fixes is ends, f"{row.id} in {state}"


def test_results_are_nothing_until_they_are_packed() -> None:
    assert JobFacts().results == ResultsInfo()
