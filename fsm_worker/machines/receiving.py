"""One file on its way in; the same on both sides.

Laws:

- `stored` means: the bytes hash to what was announced, and only then has the file its name.
- Chunks do not pass this table. They go from the lane to the file, which says when it is complete.
- A link that is lost suspends; what has arrived is kept, and only the rest is asked for again.
- A sender that leaves, or offers the file again in another session, loses nothing: what has arrived
  is there for the next offer of the same content.
"""

from fsm_worker.effects import (
    AskMissing,
    ConfirmStored,
    DropIncoming,
    KeepIncoming,
    OpenIncoming,
    RefuseIncoming,
    VerifyIncoming,
    arm,
)
from fsm_worker.events import (
    ChunksCompleted,
    DigestMatched,
    DigestMismatched,
    EffectFailed,
    FileProgressed,
    LinkCut,
    LinkResumed,
    SessionEnded,
    StorageFailed,
    Superseded,
    Timer,
    Unwanted,
)
from fsm_worker.facts import FileFacts
from fsm_worker.machines.engine import Guard, Ignored, Row, Table, fold, put, take
from protocol.errors import ErrorCode
from protocol.lifecycle import ReceivingState
from protocol.messages import FileAbort, FileOffer
from protocol.table import MachineName

S = ReceivingState
#: How often a file that came with a wrong hash is asked for again.
TRIES = 2

tries_left = Guard("tries_left", lambda facts, _event: facts.tries < TRIES)

_announced = (
    take("session"),
    take("transfer"),
    take("job"),
    take("name"),
    take("size"),
    take("root"),
    take("chunk"),
    take("link"),
)
_tried = fold("tries", "tries += 1", lambda facts, _event: facts.tries + 1)
_aborted = put("code", ErrorCode.ABORTED)
_given_up = fold(
    "reason",
    "reason := the sender gave up: message",
    lambda _facts, event: ": ".join(filter(None, ("the sender gave up", event.message.message))),
)
_ASK = (AskMissing, arm(Timer.IDLE))
_ARRIVING = (S.RECEIVING, S.SUSPENDED)
_OPEN = (*_ARRIVING, S.VERIFYING)

ROWS = (
    Row("T1", (S.OFFERED,), FileOffer, (), S.RECEIVING,
        _announced, (OpenIncoming, arm(Timer.IDLE))),
    Row("T2", (S.RECEIVING,), ChunksCompleted, (), S.VERIFYING, (), (VerifyIncoming,)),
    Row("T3", (S.RECEIVING,), Timer.IDLE, (), S.RECEIVING, (), _ASK),
    Row("T14", (S.RECEIVING,), FileProgressed, (), S.RECEIVING, (), (arm(Timer.IDLE),)),
    Row("T4", (S.RECEIVING,), LinkCut, (), S.SUSPENDED),
    Row("T5", _ARRIVING, LinkResumed, (), S.RECEIVING, (take("link"),), _ASK),
    Row("T6", (S.VERIFYING,), DigestMatched, (), S.STORED, (), (ConfirmStored,)),
    Row("T7", (S.VERIFYING,), DigestMismatched, (tries_left,), S.RECEIVING,
        (_tried,), _ASK),
    Row("T8", (S.VERIFYING,), DigestMismatched, (~tries_left,), S.REFUSED,
        (put("code", ErrorCode.HASH_MISMATCH),
         put("reason", "the bytes do not hash to what was announced")), (RefuseIncoming,)),
    Row("T9", _ARRIVING, StorageFailed, (), S.REFUSED,
        (take("code"), take("reason")), (RefuseIncoming,)),
    Row("T10", _OPEN, EffectFailed, (), S.REFUSED,
        (take("code"), take("reason")), (RefuseIncoming,)),
    Row("T11", _OPEN, FileAbort, (), S.REFUSED,
        (_given_up,), (DropIncoming,)),
    Row("T12", _OPEN, SessionEnded, (), S.REFUSED,
        (_aborted, put("reason", "the sender has left")), (KeepIncoming,)),
    Row("T13", _OPEN, Unwanted, (), S.REFUSED,
        (_aborted, put("reason", "nobody needs it any more")), (RefuseIncoming,)),
    Row("T15", _ARRIVING, Superseded, (), S.REFUSED,
        (_aborted, put("reason", "it is sent in another session now")), (KeepIncoming,)),
)  # fmt: skip

_FINAL = (S.STORED, S.REFUSED)
IGNORED = (
    Ignored((*_OPEN, *_FINAL), (FileOffer,), "an offer that came twice"),
    Ignored((S.SUSPENDED, S.VERIFYING, *_FINAL), (ChunksCompleted, LinkCut), "nothing to do"),
    Ignored((S.VERIFYING, *_FINAL), (LinkResumed,), "nothing to do"),
    Ignored((S.SUSPENDED, S.VERIFYING, *_FINAL), (FileProgressed,), "late word of bytes"),
    Ignored((S.VERIFYING,), (StorageFailed,), "a chunk that came twice"),
    Ignored(_FINAL, (FileAbort, SessionEnded, Unwanted, StorageFailed, EffectFailed),
            "it is over"),
    Ignored((S.RECEIVING, S.SUSPENDED, *_FINAL), (DigestMatched, DigestMismatched),
            "a late answer"),
)  # fmt: skip

RECEIVING = Table(
    MachineName.RECEIVING,
    ReceivingState,
    FileFacts,
    initial=S.OFFERED,
    final=_FINAL,
    rows=ROWS,
    ignored=IGNORED,
)
