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
         chunk=8192, link="l-1"),
    # It has its name only when its bytes hash to what was announced.
    case("T2", "receiving", e.ChunksCompleted(), "verifying", "VerifyIncoming"),
    case("T6", "verifying", e.DigestMatched(), "stored", "ConfirmStored"),
    case("T7", "verifying", e.DigestMismatched(), "receiving", ASK, {"tries": 1}, tries=2),
    case("T8", "verifying", e.DigestMismatched(), "refused", "RefuseIncoming",
         {"tries": 2}, reason=Says("do not hash"), code=ErrorCode.HASH_MISMATCH),
    # What got lost is asked for again, after silence and after a lost link.
    case("T3", "receiving", Timer.IDLE, "receiving", ASK),
    case("T4", "receiving", e.LinkCut(), "suspended"),
    case("T5", "suspended receiving", e.LinkResumed(link="l-2"), "receiving", ASK,
         {"link": "l-1"}, link="l-2"),
    case("T14", "receiving", e.FileProgressed(), "receiving", "Timer(idle)"),
    # Whatever ends it, the sender hears it if it can.
    case("T9", "receiving suspended", FULL, "refused", "RefuseIncoming",
         reason="the disk is full", code=ErrorCode.DISK_FULL),
    case("T10", OPEN, BROKEN, "refused", "RefuseIncoming",
         reason="no such folder", code=ErrorCode.INTERNAL),
    case("T11", OPEN, received(FileAbort(transfer=3)), "refused", "DropIncoming",
         reason=Says("gave up")),
    case("T11", OPEN, received(FileAbort(transfer=3, message="the package is gone")), "refused",
         "DropIncoming", reason=Says("gave up: the package is gone")),
    case("T13", OPEN, e.Unwanted(), "refused", "RefuseIncoming",
         reason=Says("nobody needs it"), code=ErrorCode.ABORTED),
    # A sender that left may come back: what has arrived waits for it.
    case("T12", OPEN, e.SessionEnded(), "refused", "KeepIncoming", reason=Says("left"),
         code=ErrorCode.ABORTED),
    case("T15", "receiving suspended", e.Superseded(), "refused", "KeepIncoming",
         reason=Says("another session"), code=ErrorCode.ABORTED),
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
