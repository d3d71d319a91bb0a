"""One file on its way in; the same on both sides.

Laws:

- `stored` means: the bytes hash to what was announced, and only then has the file its name.
- Chunks do not pass this table. They go from the lane to the file, which says when it is complete.
- A link that is lost suspends; what has arrived is kept, and only the rest is asked for again.
"""

from fsm_worker.effects import (
    AskMissing,
    ConfirmStored,
    DropIncoming,
    OpenIncoming,
    RefuseIncoming,
    VerifyIncoming,
    arm,
    do,
)
from fsm_worker.events import (
    ChunksCompleted,
    DigestMatched,
    DigestMismatched,
    EffectFailed,
    LinkCut,
    LinkResumed,
    SessionEnded,
    StorageFailed,
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
)
_tried = fold("tries", "tries += 1", lambda facts, _event: facts.tries + 1)
_refuse = do(RefuseIncoming, code=ErrorCode.INPUT_REFUSED)
_unwanted = do(RefuseIncoming, code=ErrorCode.ABORTED)
_OPEN = (S.RECEIVING, S.SUSPENDED, S.VERIFYING)

ROWS = (
    Row("T1", (S.OFFERED,), FileOffer, (), S.RECEIVING,
        _announced, (OpenIncoming, arm(Timer.IDLE))),
    Row("T2", (S.RECEIVING,), ChunksCompleted, (), S.VERIFYING, (), (VerifyIncoming,)),
    Row("T3", (S.RECEIVING,), Timer.IDLE, (), S.RECEIVING, (), (AskMissing, arm(Timer.IDLE))),
    Row("T4", (S.RECEIVING,), LinkCut, (), S.SUSPENDED),
    Row("T5", (S.SUSPENDED,), LinkResumed, (), S.RECEIVING, (), (AskMissing, arm(Timer.IDLE))),
    Row("T6", (S.VERIFYING,), DigestMatched, (), S.STORED, (), (ConfirmStored,)),
    Row("T7", (S.VERIFYING,), DigestMismatched, (tries_left,), S.RECEIVING,
        (_tried,), (AskMissing, arm(Timer.IDLE))),
    Row("T8", (S.VERIFYING,), DigestMismatched, (~tries_left,), S.REFUSED,
        (put("reason", "the bytes do not hash to what was announced"),),
        (do(RefuseIncoming, code=ErrorCode.HASH_MISMATCH),)),
    Row("T9", _OPEN, StorageFailed, (), S.REFUSED, (take("reason"),), (_refuse,)),
    Row("T10", _OPEN, EffectFailed, (), S.REFUSED, (take("reason"),), (_refuse,)),
    Row("T11", _OPEN, FileAbort, (), S.REFUSED,
        (put("reason", "the sender gave up"),), (DropIncoming,)),
    Row("T12", _OPEN, SessionEnded, (), S.REFUSED,
        (put("reason", "the sender has left"),), (DropIncoming,)),
    Row("T13", _OPEN, Unwanted, (), S.REFUSED,
        (put("reason", "the job does not need it any more"),), (_unwanted,)),
)  # fmt: skip

_FINAL = (S.STORED, S.REFUSED)
IGNORED = (
    Ignored((*_OPEN, *_FINAL), (FileOffer,), "an offer that came twice"),
    Ignored((S.SUSPENDED, S.VERIFYING, *_FINAL), (ChunksCompleted, LinkCut), "nothing to do"),
    Ignored((S.RECEIVING, S.VERIFYING, *_FINAL), (LinkResumed,), "nothing to do"),
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
