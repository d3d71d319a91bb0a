"""The packed outputs of one job, after its outcome.

Laws:

- Undelivered results are kept until their retention ends, whoever disconnects.
- `delivered` is the client's word that it has stored the archive with the right hash.
- What lies in the shared storage is not kept here, and never expires here.
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
in_shared = Guard("in_shared", lambda _facts, event: bool(event.results.folder))

_described = (
    take("owner"),
    fold("size", "size := results.size", lambda _facts, event: event.results.size),
    fold("root", "root := results.root", lambda _facts, event: event.results.root),
)

ROWS = (
    Row("R1", (S.NONE,), JobDone, (has_outputs,), S.HELD, _described, (arm(Timer.RETENTION),)),
    Row("R2", (S.NONE,), JobDone, (~has_outputs, ~in_shared), S.EXPIRED, (take("owner"),)),
    Row("R13", (S.NONE,), JobDone, (~has_outputs, in_shared), S.SHARED,
        (*_described,
         fold("folder", "folder := results.folder", lambda _facts, event: event.results.folder))),
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
    Row("R14", (S.SHARED,), Fetch, (), None, (),
        (do(ReplyError, code=ErrorCode.RESULTS_SHARED,
            sentence="they lie in the shared storage: the job's snapshot names the folder"),)),
)  # fmt: skip

IGNORED = (
    Ignored((S.NONE, S.HELD, S.DELIVERED, S.SHARED, S.EXPIRED), (FileProgressed,), "late bytes"),
    Ignored((S.HELD, S.DELIVERED, S.SHARED, S.EXPIRED),
            (JobDone, ResultsAcknowledged, DeliveryFailed), "late word of an earlier delivery"),
    Ignored((S.NONE, S.HELD, S.DELIVERING, S.DELIVERED, S.SHARED, S.EXPIRED), (EffectFailed,),
            "what could not be deleted stays until the operator deletes it"),
)  # fmt: skip

RESULTS = Table(
    MachineName.RESULTS,
    ResultsState,
    ResultsFacts,
    initial=S.NONE,
    final=(S.SHARED, S.EXPIRED),
    rows=ROWS,
    ignored=IGNORED,
)
