"""What a file on its way in does, row by row."""

from fsm_worker import events as e
from fsm_worker.events import Timer
from fsm_worker.machines.receiving import RECEIVING
from protocol.errors import ErrorCode
from protocol.messages import FileAbort, FileOffer
from tests.machines.samples import received
from tests.machines.scenario import SUBJECT, Case, Says, case, covered, declared, each, play
from tests.protocol.samples import ROOT

OFFER = received(
    FileOffer(transfer=3, job=SUBJECT, name="package.zip", size=4096, root=ROOT, chunk=8192)
)
FULL = e.StorageFailed(code=ErrorCode.DISK_FULL, reason="the disk is full")
BROKEN = e.EffectFailed(effect="open_incoming", reason="no such folder")
OPEN = "receiving suspended verifying"
ASK = "AskMissing Timer(idle)"

CASES = (
    case("T1", "offered", OFFER, "receiving", "OpenIncoming Timer(idle)",
         session="s-1", transfer=3, job=SUBJECT, name="package.zip", size=4096, root=ROOT,
         chunk=8192),
    # It has its name only when its bytes hash to what was announced.
    case("T2", "receiving", e.ChunksCompleted(), "verifying", "VerifyIncoming"),
    case("T6", "verifying", e.DigestMatched(), "stored", "ConfirmStored"),
    case("T7", "verifying", e.DigestMismatched(), "receiving", ASK, {"tries": 1}, tries=2),
    case("T8", "verifying", e.DigestMismatched(), "refused", "RefuseIncoming(hash_mismatch)",
         {"tries": 2}, reason=Says("do not hash")),
    # What got lost is asked for again, after silence and after a lost link.
    case("T3", "receiving", Timer.IDLE, "receiving", ASK),
    case("T4", "receiving", e.LinkCut(), "suspended"),
    case("T5", "suspended", e.LinkResumed(), "receiving", ASK),
    # Whatever ends it, the sender hears it if it can.
    case("T9", OPEN, FULL, "refused", "RefuseIncoming(input_refused)", reason="the disk is full"),
    case("T10", OPEN, BROKEN, "refused", "RefuseIncoming(input_refused)",
         reason="no such folder"),
    case("T11", OPEN, received(FileAbort(transfer=3)), "refused", "DropIncoming",
         reason=Says("gave up")),
    case("T12", OPEN, e.SessionEnded(), "refused", "DropIncoming", reason=Says("left")),
    case("T13", OPEN, e.Unwanted(), "refused", "RefuseIncoming(aborted)",
         reason=Says("not need it")),
)  # fmt: skip


@each(CASES)
def test_row(entry: Case, state: str) -> None:
    play(RECEIVING, entry, state)


def test_every_row_has_its_case() -> None:
    assert covered(CASES) == declared(RECEIVING)


def test_a_file_that_never_hashes_right_is_asked_for_again_twice() -> None:
    wrong = [entry for entry in CASES if entry.row in {"T7", "T8"}]
    for tries, (entry, then) in enumerate([(wrong[0], "T7"), (wrong[0], "T7"), (wrong[1], "T8")]):
        changed = {"tries": tries + 1} if then == "T7" else entry.changed
        play(RECEIVING, entry._replace(having={"tries": tries}, changed=changed), "verifying")
