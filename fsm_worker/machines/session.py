"""One client, seen from the worker; links come and go under it.

Laws:

- A session belongs to one key for ever. Only a link that has proved that key, of a newer generation
  than the present one, takes it over; so a stolen session name alone is worth nothing.
- The session owns sequence numbers and outbox: what a lost link had not delivered, the next one
  replays.
- A session that ends ends no job.
"""

from fsm_worker.effects import (
    ForgetSession,
    NoteError,
    Replay,
    SendExplanation,
    SendJobs,
    SendWelcome,
    SendWorkerStatus,
    arm,
    do,
)
from fsm_worker.events import (
    Crowded,
    EffectFailed,
    LinkLost,
    LinkUp,
    OutboxFilled,
    OutOfStep,
    Timer,
    WorkerStopping,
)
from fsm_worker.facts import SessionFacts
from fsm_worker.machines.engine import Guard, Ignored, Row, Table, put, take
from protocol.lifecycle import SessionState
from protocol.messages import Error, ExplainWorker, JobsGet, Resume, WorkerGet
from protocol.table import MachineName

S = SessionState

same_key = Guard("same_key", lambda facts, event: facts.key == event.key)
newer = Guard("newer", lambda facts, event: event.generation > facts.generation)
farewell = Guard("farewell", lambda _facts, event: event.farewell)

_HOLD = (take("link"), take("generation"), take("peer"))

ROWS = (
    Row("N1", (S.NEW,), LinkUp, (), S.ATTACHED, (take("key"), *_HOLD), (SendWelcome,)),
    Row("N2", (S.ATTACHED, S.DETACHED), LinkUp, (same_key, newer), S.ATTACHED,
        _HOLD, (SendWelcome,)),
    Row("N3", (S.ATTACHED,), LinkLost, (~farewell,), S.DETACHED,
        (put("link", ""),), (arm(Timer.SESSION),)),
    Row("N4", (S.ATTACHED,), LinkLost, (farewell,), S.CLOSED,
        (put("link", ""),), (ForgetSession,)),
    Row("N5", (S.DETACHED,), Timer.SESSION, (), S.CLOSED, (), (ForgetSession,)),
    Row("N6", (S.ATTACHED, S.DETACHED), WorkerStopping, (), S.CLOSED, (), (ForgetSession,)),
    Row("N11", (S.ATTACHED, S.DETACHED), OutboxFilled, (), S.CLOSED,
        (put("link", ""),), (ForgetSession,)),
    Row("N13", (S.ATTACHED,), OutOfStep, (), S.CLOSED, (put("link", ""),), (ForgetSession,)),
    Row("N12", (S.DETACHED,), Crowded, (), S.CLOSED, (), (ForgetSession,)),
    # what a client may ask for
    Row("N7", (S.ATTACHED,), Resume, (), None, (), (Replay,)),
    Row("N8", (S.ATTACHED,), WorkerGet, (), None, (), (SendWorkerStatus,)),
    Row("N9", (S.ATTACHED,), JobsGet, (), None, (), (SendJobs,)),
    Row("N10", (S.ATTACHED,), Error, (), None, (), (NoteError,)),
    Row("N20", (S.ATTACHED,), ExplainWorker, (), None, (),
        (do(SendExplanation, of=MachineName.WORKER),)),
)  # fmt: skip

IGNORED = (
    Ignored((S.ATTACHED, S.DETACHED), (LinkUp,),
            "another key, or an older link: the coupling closes that link"),
    Ignored((S.CLOSED,), (LinkUp, LinkLost, OutboxFilled, WorkerStopping), "it is over"),
    Ignored((S.DETACHED,), (LinkLost,), "a late callback of an old link"),
    Ignored((S.ATTACHED, S.DETACHED, S.CLOSED), (EffectFailed,),
            "what could not be sent is in the outbox"),
    Ignored((S.DETACHED, S.CLOSED), (Resume, WorkerGet, JobsGet, ExplainWorker, Error),
            "the asker has gone, and asks again when it is back"),
)  # fmt: skip

SESSION = Table(
    MachineName.SESSION,
    SessionState,
    SessionFacts,
    initial=S.NEW,
    final=(S.CLOSED,),
    rows=ROWS,
    ignored=IGNORED,
)
