"""The packed outputs of one job, after its outcome.

Laws:

- Undelivered results are kept until their retention ends, whoever disconnects.
- `delivered` is the client's word that it has stored the archive with the right hash.
"""

from fsm_worker.effects import DeleteResults, ReplyError, arm, do
from fsm_worker.events import (
    DeliveryFailed,
    EffectFailed,
    FileProgressed,
    JobDone,
    ResultsAcknowledged,
    Timer,
)
from fsm_worker.facts import ResultsFacts
from fsm_worker.machines.engine import Guard, Ignored, Row, Table, fold, take
from protocol.errors import ErrorCode
from protocol.lifecycle import ResultsState
from protocol.messages import Fetch
from protocol.table import MachineName

S = ResultsState

elsewhere = Guard("elsewhere", lambda facts, event: event.session != facts.session)
has_outputs = Guard("has_outputs", lambda _facts, event: bool(event.results.root))

_described = (
    take("owner"),
    fold("size", "size := results.size", lambda _facts, event: event.results.size),
    fold("root", "root := results.root", lambda _facts, event: event.results.root),
)

ROWS = (
    Row("R1", (S.NONE,), JobDone, (has_outputs,), S.HELD, _described, (arm(Timer.RETENTION),)),
    Row("R2", (S.NONE,), JobDone, (~has_outputs,), S.EXPIRED, (take("owner"),)),
    Row("R3", (S.NONE,), Fetch, (), None, (),
        (do(ReplyError, code=ErrorCode.RESULTS_NOT_READY, sentence="the job has not ended yet"),)),
    Row("R4", (S.HELD, S.DELIVERED), Fetch, (), S.DELIVERING,
        (take("session"),), (arm(Timer.DELIVERY),)),
    Row("R11", (S.DELIVERING,), Fetch, (elsewhere,), S.DELIVERING,
        (take("session"),), (arm(Timer.DELIVERY),)),
    Row("R12", (S.DELIVERING,), Fetch, (~elsewhere,), None, (),
        (do(ReplyError, code=ErrorCode.IN_PROGRESS, sentence="they are on their way to you"),)),
    Row("R5", (S.DELIVERING,), FileProgressed, (), S.DELIVERING, (), (arm(Timer.DELIVERY),)),
    Row("R6", (S.DELIVERING,), ResultsAcknowledged, (), S.DELIVERED, (), (arm(Timer.RETENTION),)),
    Row("R7", (S.DELIVERING,), DeliveryFailed, (), S.HELD, (), (arm(Timer.RETENTION),)),
    Row("R8", (S.DELIVERING,), Timer.DELIVERY, (), S.HELD, (), (arm(Timer.RETENTION),)),
    Row("R9", (S.HELD, S.DELIVERED), Timer.RETENTION, (), S.EXPIRED, (), (DeleteResults,)),
    Row("R10", (S.EXPIRED,), Fetch, (), None, (),
        (do(ReplyError, code=ErrorCode.RESULTS_EXPIRED, sentence="only its log is kept"),)),
)  # fmt: skip

IGNORED = (
    Ignored((S.NONE, S.HELD, S.DELIVERED, S.EXPIRED), (FileProgressed,), "late bytes"),
    Ignored((S.HELD, S.DELIVERED, S.EXPIRED), (JobDone, ResultsAcknowledged, DeliveryFailed),
            "late word of an earlier delivery"),
    Ignored((S.NONE, S.HELD, S.DELIVERING, S.DELIVERED, S.EXPIRED), (EffectFailed,),
            "what could not be deleted stays until the operator deletes it"),
)  # fmt: skip

RESULTS = Table(
    MachineName.RESULTS,
    ResultsState,
    ResultsFacts,
    initial=S.NONE,
    final=(S.EXPIRED,),
    rows=ROWS,
    ignored=IGNORED,
)
