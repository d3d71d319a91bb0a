"""What a client's session does at the worker, row by row."""

from fsm_worker import events as e
from fsm_worker.events import Timer
from fsm_worker.machines.engine import Instance, Verdict
from fsm_worker.machines.session import SESSION
from protocol.errors import ErrorCode
from protocol.lifecycle import SessionState
from protocol.messages import Error, ExplainWorker, JobsGet, Resume, WorkerGet
from tests.machines.samples import received
from tests.machines.scenario import STAYS, Case, case, covered, declared, each, play

LINK_2 = e.LinkUp(link="l-2", generation=2, key="alice", peer="p-2")
HELD = {"key": "alice", "link": "l-1", "generation": 1, "peer": "p-1"}

CASES = (
    # It belongs to the key that began it; a newer link of that key takes it over.
    case("N1", "new", LINK_2, "attached", "SendWelcome",
         key="alice", link="l-2", generation=2, peer="p-2"),
    case("N2", "attached detached", LINK_2, "attached", "SendWelcome", HELD,
         link="l-2", generation=2, peer="p-2"),
    # A link that is lost leaves it waiting; a client that says bye ends it.
    case("N3", "attached", e.LinkLost(link="l-1", farewell=False), "detached", "Timer(session)",
         HELD, link=""),
    case("N4", "attached", e.LinkLost(link="l-1", farewell=True), "closed", "ForgetSession",
         HELD, link=""),
    case("N5", "detached", Timer.SESSION, "closed", "ForgetSession"),
    case("N6", "attached detached", e.WorkerStopping(), "closed", "ForgetSession"),
    case("N11", "attached detached", e.OutboxFilled(), "closed", "ForgetSession", HELD, link=""),
    # A worker that has forgotten what the client has of it can't go on from there.
    case("N13", "attached", e.OutOfStep(), "closed", "ForgetSession", HELD, link=""),
    case("N12", "detached", e.Crowded(), "closed", "ForgetSession", HELD),
    # What a client may ask for.
    case("N7", "attached", received(Resume(received=4)), STAYS, "Replay"),
    case("N8", "attached", received(WorkerGet()), STAYS, "SendWorkerStatus"),
    case("N9", "attached", received(JobsGet()), STAYS, "SendJobs"),
    case("N10", "attached", received(Error(code=ErrorCode.TOO_LARGE, message="m")), STAYS,
         "NoteError"),
    case("N20", "attached", received(ExplainWorker()), STAYS, "SendExplanation(worker)"),
)  # fmt: skip


@each(CASES)
def test_row(entry: Case, state: str) -> None:
    play(SESSION, entry, state)


def test_every_row_has_its_case() -> None:
    assert covered(CASES) == declared(SESSION)


def test_neither_another_key_nor_an_older_link_takes_a_session_over() -> None:
    for up in (
        e.LinkUp(link="l-2", generation=2, key="mallory", peer="p-2"),
        e.LinkUp(link="l-2", generation=1, key="alice", peer="p-2"),
        e.LinkUp(link="l-2", generation=0, key="alice", peer="p-2"),
        e.LinkUp(link="l-2", generation=99, key="", peer="p-2"),
    ):
        for state in (SessionState.ATTACHED, SessionState.DETACHED):
            instance = Instance(SESSION, "s-1", SESSION.facts(**HELD))
            instance.state = state
            step = instance.step(up)
            assert step.verdict is Verdict.IGNORED
            assert (instance.state, instance.facts) == (state, SESSION.facts(**HELD))
