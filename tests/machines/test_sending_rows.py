"""What a file on its way out does, row by row."""

from fsm_worker import events as e
from fsm_worker.machines.sending import SENDING
from protocol.errors import ErrorCode
from protocol.messages import FileNeed, FileRefused, FileStored
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
from tests.protocol.samples import ROOT

REQUEST = e.SendRequested(
    session="s-1", transfer=3, job=SUBJECT, path="/tmp/a", name="a.zip", size=9, root=ROOT
)
NEED = received(FileNeed(transfer=3, ranges=((0, 9),), chunk=8192))
STORED = received(FileStored(transfer=3, root=ROOT))
FULL = received(FileRefused(transfer=3, code=ErrorCode.DISK_FULL, message="no room"))
BROKEN = e.EffectFailed(effect="send_ranges", reason="no such file")
OPEN = "offered sending suspended"
RIGHT, WRONG = {"root": ROOT}, {"root": "0" * 64}

CASES = (
    case("D1", "offered", REQUEST, STAYS, "OfferFile", session="s-1", transfer=3, job=SUBJECT,
         path="/tmp/a", name="a.zip", size=9, root=ROOT),
    # The receiver says what it needs, and says it again after a lost link.
    case("D2", OPEN, NEED, "sending", "SendRanges", chunk=8192),
    case("D2", OPEN, NEED, "sending", "SendRanges", {"chunk": 4096}),
    case("D3", "sending", e.LinkCut(), "suspended", "StopSending"),
    # Only the receiver's word for these very bytes counts as delivered.
    case("D4", OPEN, STORED, "acknowledged", "StopSending", RIGHT),
    case("D5", OPEN, STORED, "refused", "StopSending", WRONG, reason=Says("something else")),
    case("D6", OPEN, FULL, "refused", "StopSending", reason=Says("disk_full: no room")),
    # A file that can't be sent as it was offered is taken back.
    case("D7", OPEN, e.SourceFailed(reason="it changed"), "refused", "AbortOutgoing",
         reason="it changed"),
    case("D8", OPEN, BROKEN, "refused", "AbortOutgoing", reason="no such file"),
    case("D9", OPEN, e.SessionEnded(), "refused", "StopSending", reason=Says("left")),
    case("D10", OPEN, e.Unwanted(), "refused", "AbortOutgoing", reason=Says("nobody waits")),
)  # fmt: skip


@each(CASES)
def test_row(entry: Case, state: str) -> None:
    play(SENDING, entry, state)


def test_every_row_has_its_case() -> None:
    assert covered(CASES) == declared(SENDING)
