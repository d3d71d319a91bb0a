"""What a job's results do, row by row."""

from fsm_worker import events as e
from fsm_worker.events import Timer
from fsm_worker.machines.results import RESULTS
from protocol.lifecycle import ResultsState
from protocol.messages import Fetch, ResultsInfo
from tests.machines.samples import received
from tests.machines.scenario import STAYS, SUBJECT, Case, case, covered, declared, each, play
from tests.protocol.samples import RESULTS as PACKED
from tests.protocol.samples import ROOT

FETCH = received(Fetch(job=SUBJECT))
BROKEN_OFF = e.DeliveryFailed()
SHARED = ResultsInfo(
    state=ResultsState.SHARED, size=2048, files=4, folder="jobs/1/out", manifest=ROOT
)
LATE = {"session": "s-1"}

CASES = (
    # What the job made is kept, whoever is connected; what made nothing has nothing to keep.
    case("R1", "none", e.JobDone(results=PACKED, owner="alice"), "held", "Timer(retention)",
         owner="alice", size=2048, root=ROOT),
    case("R2", "none", e.JobDone(results=ResultsInfo(), owner="alice"), "expired", "",
         owner="alice"),
    # What lies in the shared storage is not kept here.
    case("R13", "none", e.JobDone(results=SHARED, owner="alice"), "shared", "",
         owner="alice", size=2048, folder="jobs/1/out"),
    case("R14", "shared", FETCH, STAYS, "ReplyError(results_shared: shared storage)"),
    # Asked for too early, in time, again, and too late.
    case("R3", "none", FETCH, STAYS, "ReplyError(results_not_ready: not ended)"),
    case("R4", "held delivered", FETCH, "delivering", "Timer(delivery)", session="s-1"),
    # While they are on their way, another session of the owner may have them instead.
    case("R11", "delivering", FETCH, "delivering", "Timer(delivery)", {"session": "s-2"},
         session="s-1"),
    case("R12", "delivering", FETCH, STAYS, "ReplyError(in_progress: on their way)", LATE),
    case("R10", "expired", FETCH, STAYS, "ReplyError(results_expired: log)"),
    # A delivery lives as long as bytes move, and ends with the receiver's word.
    case("R5", "delivering", e.FileProgressed(), "delivering", "Timer(delivery)", LATE),
    case("R6", "delivering", e.ResultsAcknowledged(), "delivered", "Timer(retention)", LATE),
    case("R7", "delivering", BROKEN_OFF, "held", "Timer(retention)", LATE),
    case("R8", "delivering", Timer.DELIVERY, "held", "Timer(retention)", LATE),
    case("R9", "held delivered", Timer.RETENTION, "expired", "DeleteResults"),
)  # fmt: skip


@each(CASES)
def test_row(entry: Case, state: str) -> None:
    play(RESULTS, entry, state)


def test_every_row_has_its_case() -> None:
    assert covered(CASES) == declared(RESULTS)
