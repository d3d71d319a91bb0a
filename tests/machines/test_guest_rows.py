"""What the stand-in of a client of sleap-rtc does, row by row."""

from typing import Any

import pytest

from fsm_worker import events as e
from fsm_worker.machines.engine import Instance, Verdict
from fsm_worker.machines.guest import GUEST
from protocol.errors import ErrorCode
from protocol.lifecycle import GuestState, JobState, Outcome
from protocol.messages import Problem, ResultsInfo
from protocol.sleap_rtc.frames import NotPerformed
from tests.machines.scenario import STAYS, Case, case, covered, declared, each, play
from tests.protocol.samples import JOB, RESULTS, ROOT

PROBLEM = Problem(code=ErrorCode.EXITED, sentence="it ended with code 3")
PACKAGE = {"name": "digits.zip", "size": 2048, "gui": True}
#: Of a job that has ended, when the next package comes.
OLD: dict[str, Any] = {
    "job": "job-0ld00ld0", "root": ROOT, "stages": ("digits",), "stage": 0, "log_over": True,
    "outcome": Outcome.FAILED, "problems": (PROBLEM,), "results": RESULTS, "transfer": 3,
    "shared": True,
}  # fmt: skip
NEW: dict[str, Any] = {
    "job": "",
    "root": "",
    "stages": (),
    "stage": -1,
    "log_over": False,
    "outcome": Outcome.NONE,
    "problems": (),
    "results": ResultsInfo(),
    "transfer": 0,
    "shared": False,
}
#: Of a job in the shared storage that can start.
PATHS: dict[str, Any] = {"label": "j-1", "input": "jobs/j-1/in.zip", "output": "jobs/j-1/out"}
ABOUT: dict[str, Any] = {"kind": "track", "stages": ("inference",)}  # fmt: skip
#: It forgets how the job before it ended, and knows the commands from its package.
STARTED = {name: value for name, value in NEW.items() if name != "stages"} | {
    "job": JOB, "shared": True,
}  # fmt: skip
LIVE = "waiting receiving checking submitted returning handing"
BUSY = "receiving checking submitted returning handing"
NONE = ResultsInfo()


def announced(reason: str = "") -> e.Event:
    return e.PackageAnnounced(**PACKAGE, reason=reason)


def running(stage: int) -> e.Event:
    return e.JobTold(state=JobState.RUNNING, stage=stage)


def ended(results: ResultsInfo = RESULTS, outcome: Outcome = Outcome.SUCCEEDED) -> e.Event:
    state = JobState.REJECTED if outcome is Outcome.REJECTED else JobState.DONE
    return e.JobTold(state=state, outcome=outcome, problems=(PROBLEM,), results=results)


def failed(effect: str) -> e.Event:
    return e.EffectFailed(effect=effect, reason="the disk is full")


def how(results: ResultsInfo = RESULTS) -> dict[str, Any]:
    told = {"outcome": Outcome.SUCCEEDED, "problems": (PROBLEM,)}
    return told | ({"results": results} if results.root else {})


DROPPED = "the package is thrown away: it was not submitted yet"

CASES = (
    case("Q1", "new", e.GuestCame(session="guest-l-1"), "waiting", session="guest-l-1"),
    # A package: what it is, its bytes, its end.
    case("Q2", "waiting receiving", e.PackageNamed(kind="track"), STAYS, kind="track"),
    case("Q3", "waiting receiving", e.FolderNamed(folder="models"), STAYS, folder="models"),
    case("Q4", "waiting", announced(), "receiving", "KeepArriving", OLD, **PACKAGE, **NEW),
    case("Q7", "receiving", e.PackageEnded(), "checking", "CheckPackage"),
    case("Q9", "checking", e.PackageChecked(root=ROOT, job=JOB, stages=("digits",)), "submitted",
         "SubmitPackage", root=ROOT, job=JOB, stages=("digits",)),
    # The worker takes it.
    case("Q14", "submitted", e.PackageWanted(ranges=((0, 9),)), STAYS, "FeedPackage"),
    case("Q15", "submitted", e.PackageTaken(), STAYS, "DropPackage"),
    case("Q16", "submitted", e.StopAsked(), STAYS, "AskStop"),
    case("Q17", "submitted", e.CancelAsked(), STAYS, "AskCancel"),
    case("Q18", "submitted", running(0), STAYS, "TellStage", stage=0),
    case("Q18", "submitted", running(1), STAYS, "TellStage", {"stage": 0}, stage=1),
    case("Q19", "submitted", running(1), STAYS, "", {"stage": 1}),
    case("Q19", "submitted", e.JobTold(state=JobState.QUEUED), STAYS),
    # The end is said when everything is said that the job printed.
    case("Q20", "submitted", ended(), STAYS, **how()),
    case("Q21", "submitted", ended(), "returning", "TellEnd FetchResults", {"log_over": True},
         **how()),
    case("Q22", "submitted", ended(NONE), "waiting", "TellEnd DropPackage", {"log_over": True},
         **how(NONE)),
    case("Q22", "submitted", ended(NONE, Outcome.REJECTED), "waiting", "TellEnd DropPackage",
         {"log_over": True}, outcome=Outcome.REJECTED, problems=(PROBLEM,)),
    case("Q23", "submitted", e.LogOver(), STAYS, log_over=True),
    case("Q24", "submitted", e.LogOver(), "returning", "TellEnd FetchResults", how()),
    case("Q25", "submitted", e.LogOver(), "waiting", "TellEnd DropPackage", how(NONE)),
    # Results go through here, whole.
    case("Q26", "returning", e.ResultsOffered(transfer=3, size=2048, root=ROOT), STAYS,
         "TakeResults", transfer=3),
    case("Q27", "returning", e.ChunksCompleted(), "handing", "HandOver"),
    case("Q28", "returning", e.ResultsLost(reason="expired"), "waiting", "DropPackage TellReason"),
    case("Q29", "returning", failed("take_results"), "waiting", "RefuseResults DropPackage"),
    case("Q30", "handing", e.HandedOver(files=1), "waiting", "ConfirmResults DropPackage"),
    case("Q31", "handing", failed("hand_over"), "waiting", "RefuseResults DropPackage"),
    # A job in the shared storage: its name, its paths one by one, its start.
    case("Q37", "waiting", e.SharedJobNamed(label="j-2"), STAYS, "", PATHS,
         label="j-2", input="", output=""),
    case("Q38", "waiting", e.InputNamed(path="x"), STAYS, "CheckInput", PATHS, input=""),
    case("Q39", "waiting", e.OutputNamed(path="x"), STAYS, "CheckOutput", PATHS, output=""),
    case("Q40", "waiting", e.InputChecked(path="in.zip", **ABOUT), STAYS, "AcceptPath(input)",
         input="in.zip", **ABOUT),
    case("Q42", "waiting", e.OutputChecked(path="out"), STAYS, "AcceptPath(output)", output="out"),
    case("Q41", "waiting", e.InputChecked(path="x", reason="not there"), STAYS, "RefusePath"),
    case("Q43", "waiting", e.OutputChecked(path="x", reason="it is full"), STAYS, "RefusePath"),
    case("Q44", "waiting", failed("check_input"), STAYS, "RefusePath"),
    case("Q44", "waiting", failed("check_output"), STAYS, "RefusePath"),
    case("Q50", LIVE, e.PathRefused(reason="it climbs"), STAYS, "RefusePath"),
    case("Q45", "waiting", e.SharedJobAsked(job=JOB), "submitted", "SubmitShared",
         {**OLD, **PATHS, "shared": False}, **STARTED),
    # What is refused leaves it where it was, or waiting for another package.
    case("Q10", "checking", e.PackageChecked(reason="too few bytes"), "waiting",
         "DropPackage TellReason"),
    case("Q11", "checking", failed("check_package"), "waiting", "DropPackage TellReason"),
    case("Q5", "waiting", announced("the disk is full"), STAYS, "DropArriving TellReason"),
    case("Q34", LIVE, e.FlowAsked(frame=NotPerformed(tag="FS_GET_INFO")), STAYS, "RefuseFlow"),
    case("Q35", LIVE, e.GuestRefused(reason="no frame"), STAYS, "TellReason"),
    case("Q36", LIVE, e.GuestLeft(), "gone", "DropPackage"),
)  # fmt: skip

#: What is answered with a sentence: the row, where, what was said, and words of the answer.
SENTENCES = (
    ("Q6", BUSY, announced(), "", "one package at a time"),
    ("Q46", "waiting", e.SharedJobAsked(job=JOB), "", "until both paths are validated"),
    ("Q47", BUSY, e.InputNamed(path="x"), "", "one job at a time"),
    ("Q48", BUSY, e.OutputNamed(path="x"), "", "one job at a time"),
    ("Q49", BUSY, e.SharedJobAsked(job=JOB), "", "one job at a time"),
    ("Q8", "waiting", e.PackageEnded(), "", "FILE_META"),
    ("Q12", "receiving checking", e.StopAsked(), "waiting", DROPPED),
    ("Q13", "receiving checking", e.CancelAsked(), "waiting", DROPPED),
    ("Q32", "waiting returning handing", e.StopAsked(), "", "no job of yours"),
    ("Q33", "waiting returning handing", e.CancelAsked(), "", "no job of yours"),
)


@pytest.mark.parametrize("lacks", sorted(PATHS))
def test_a_shared_job_does_not_start_without_its_name_and_both_paths(lacks: str) -> None:
    guest = at(GuestState.WAITING, **PATHS | {lacks: ""})
    assert guest.step(e.SharedJobAsked(job=JOB)).row == "Q46"


@each(CASES)
def test_row(entry: Case, state: str) -> None:
    play(GUEST, entry, state)


def at(state: GuestState, **facts: Any) -> Instance[Any, Any]:
    instance = Instance(GUEST, "l-1", GUEST.facts(**facts))
    instance.state = state
    return instance


@pytest.mark.parametrize(
    ("row", "state", "event", "then", "words"),
    [(row, state, *rest) for row, states, *rest in SENTENCES for state in states.split()],
)
def test_row_with_a_sentence(row: str, state: str, event: e.Event, then: str, words: str) -> None:
    guest = at(GuestState(state), job=JOB)
    facts = guest.facts
    step = guest.step(event)
    assert (step.row, step.after, guest.facts) == (row, then or state, facts)
    *others, told = step.effects
    assert words in told.sentence
    dropped = {"Q6": ["DropArriving"]}.get(row, ["DropPackage"] if then else [])
    assert [type(effect).__name__ for effect in others] == dropped


def test_every_row_has_its_case() -> None:
    spoken = {(row, state) for row, states, *_ in SENTENCES for state in states.split()}
    assert covered(CASES) | spoken == declared(GUEST)


# --- laws that no single row shows --------------------------------------------------------------


@pytest.mark.parametrize("log_first", [True, False])
def test_the_end_is_said_once_whatever_comes_first(log_first: bool) -> None:
    guest = at(GuestState.SUBMITTED, job=JOB)
    pair = (e.LogOver(), ended()) if log_first else (ended(), e.LogOver())
    said = [
        type(effect).__name__ for event in (*pair, *pair) for effect in guest.step(event).effects
    ]
    assert said == ["TellEnd", "FetchResults"]


def test_what_belongs_to_an_earlier_job_changes_nothing() -> None:
    late = (
        e.PackageWanted(ranges=()), e.PackageTaken(), running(3), ended(), e.LogOver(),
        e.ResultsOffered(transfer=1, size=1, root=ROOT), e.ChunksCompleted(),
        e.ResultsLost(reason="late"), e.HandedOver(files=1),
        e.PackageChecked(root=ROOT, job=JOB),
    )  # fmt: skip
    for state in (GuestState.WAITING, GuestState.RECEIVING):
        for event in late:
            guest = at(state)
            step = guest.step(event)
            assert step.verdict is Verdict.IGNORED, event
            assert (guest.state, guest.facts) == (state, GUEST.facts())


def test_nothing_is_done_for_a_client_that_has_gone() -> None:
    for on in GUEST.events():
        if (GuestState.GONE, on) in GUEST.ignored:
            assert not GUEST.by_pair.get((GuestState.GONE, on))
    assert not GUEST.legal(GuestState.GONE)
