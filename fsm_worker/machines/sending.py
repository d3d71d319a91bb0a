"""One file on its way out; the same on both sides.

Laws:

- The receiver says which ranges it needs, in chunks of what size; a newer request replaces the
  older one.
- `acknowledged` is the receiver's word that it has stored the bytes under the announced hash.
- The file must not change while it is sent.
"""

from fsm_worker.effects import AbortOutgoing, OfferFile, SendRanges, StopSending
from fsm_worker.events import (
    EffectFailed,
    LinkCut,
    SendRequested,
    SessionEnded,
    SourceFailed,
    Unwanted,
)
from fsm_worker.facts import FileFacts
from fsm_worker.machines.engine import Guard, Ignored, Row, Table, fold, put, take
from protocol.lifecycle import SendingState
from protocol.messages import FileNeed, FileRefused, FileStored
from protocol.table import MachineName

S = SendingState

root_right = Guard("root_right", lambda facts, event: event.message.root == facts.root)

_described = (
    take("session"),
    take("transfer"),
    take("job"),
    take("path"),
    take("name"),
    take("size"),
    take("root"),
)
_answer = fold(
    "reason",
    "reason := message",
    lambda _facts, event: f"{event.message.code}: {event.message.message}",
)
_agree = fold(
    "chunk",
    "chunk := the smaller of both sides'",
    lambda facts, event: min(facts.chunk, event.message.chunk),
)
_OPEN = (S.OFFERED, S.SENDING, S.SUSPENDED)

ROWS = (
    Row("D1", (S.OFFERED,), SendRequested, (), None, _described, (OfferFile,)),
    Row("D2", _OPEN, FileNeed, (), S.SENDING, (_agree,), (SendRanges,)),
    Row("D3", (S.SENDING,), LinkCut, (), S.SUSPENDED, (), (StopSending,)),
    Row("D4", _OPEN, FileStored, (root_right,), S.ACKNOWLEDGED, (), (StopSending,)),
    Row("D5", _OPEN, FileStored, (~root_right,), S.REFUSED,
        (put("reason", "the receiver stored something else"),), (StopSending,)),
    Row("D6", _OPEN, FileRefused, (), S.REFUSED, (_answer,), (StopSending,)),
    Row("D7", _OPEN, SourceFailed, (), S.REFUSED, (take("reason"),), (AbortOutgoing,)),
    Row("D8", _OPEN, EffectFailed, (), S.REFUSED, (take("reason"),), (AbortOutgoing,)),
    Row("D9", _OPEN, SessionEnded, (), S.REFUSED,
        (put("reason", "the receiver has left"),), (StopSending,)),
    Row("D10", _OPEN, Unwanted, (), S.REFUSED,
        (put("reason", "nobody waits for it any more"),), (AbortOutgoing,)),
)  # fmt: skip

_FINAL = (S.ACKNOWLEDGED, S.REFUSED)
IGNORED = (
    Ignored((S.OFFERED, S.SUSPENDED, *_FINAL), (LinkCut,), "nothing is being sent"),
    Ignored(_FINAL, (FileNeed, FileStored, FileRefused, SourceFailed, EffectFailed, SessionEnded,
                     Unwanted, SendRequested), "it is over"),
)  # fmt: skip

SENDING = Table(
    MachineName.SENDING,
    SendingState,
    FileFacts,
    initial=S.OFFERED,
    final=_FINAL,
    rows=ROWS,
    ignored=IGNORED,
)
