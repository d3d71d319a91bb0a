"""A worker's websocket to the signaling server; `client_signalling` has a client's.

Laws:

- Losing the server disturbs no link, no session and no job.
- Trying again has full jitter and no end; only refused credentials end it.
- Registering again says the same words as the first time.
"""

from fsm_worker.effects import (
    AnnounceStatus,
    CloseSocket,
    OpenSocket,
    PingServer,
    ReportReady,
    ReportSignalling,
    SendRegistration,
    arm,
)
from fsm_worker.events import (
    EffectFailed,
    RecvRefusal,
    RecvRegistered,
    SignalArrived,
    SocketFailed,
    SocketOpened,
    Started,
    StatusChanged,
    Timer,
    WorkerStopping,
)
from fsm_worker.facts import SignallingFacts
from fsm_worker.machines.engine import Guard, Ignored, Row, Table, fold, put, take
from protocol.lifecycle import SignallingState
from protocol.table import MachineName

S = SignallingState

been_here = Guard("been_here", lambda facts, event: facts.room == event.room)
final = Guard("final", lambda _facts, event: event.final)

_tried = fold("tries", "tries += 1", lambda facts, _event: facts.tries + 1)
_RETRY = (CloseSocket, arm(Timer.DELAY))
LISTEN = (arm(Timer.SILENCE), arm(Timer.STABLE))
_OPEN = (S.CONNECTING, S.REGISTERING, S.REGISTERED, S.STALE)

refused = take("code")
welcome = (put("code", ""), put("reason", ""))

#: What only a worker does: it publishes its status, and tells its operator how clients get here.
PUBLISHING = (
    Row("S6", (S.REGISTERING,), RecvRegistered, (~been_here,), S.REGISTERED,
        (take("room"), *welcome), (ReportReady, *LISTEN)),
    Row("S17", (S.REGISTERING,), RecvRegistered, (been_here,), S.REGISTERED,
        welcome, LISTEN),
    # a registration that is on its way says what was so when it left
    Row("S18", (S.REGISTERING, S.REGISTERED, S.STALE), StatusChanged, (), None,
        (), (AnnounceStatus,)),
    Row("S7", (S.REGISTERING,), RecvRefusal, (final,), S.REFUSED,
        (take("reason"), refused), (CloseSocket, ReportSignalling)),
)  # fmt: skip

#: What both sides do.
SHARED = (
    Row("S1", (S.DOWN,), Started, (), S.CONNECTING, (), (OpenSocket, arm(Timer.CONNECT))),
    Row("S2", (S.CONNECTING,), SocketOpened, (), S.REGISTERING,
        (), (SendRegistration, arm(Timer.REGISTER))),
    Row("S3", (S.CONNECTING,), Timer.CONNECT, (), S.BACKOFF,
        (_tried, put("reason", "the server does not answer")), _RETRY),
    Row("S4", _OPEN, SocketFailed, (), S.BACKOFF, (_tried, take("reason")), _RETRY),
    Row("S5", _OPEN, EffectFailed, (), S.BACKOFF, (_tried, take("reason")), _RETRY),
    Row("S8", (S.REGISTERING,), RecvRefusal, (~final,), S.BACKOFF,
        (_tried, take("reason"), refused), _RETRY),
    Row("S9", (S.REGISTERING,), Timer.REGISTER, (), S.BACKOFF,
        (_tried, put("reason", "the server does not register this worker")), _RETRY),
    Row("S10", (S.REGISTERED,), SignalArrived, (), None, (), (arm(Timer.SILENCE),)),
    Row("S11", (S.REGISTERED,), Timer.STABLE, (), None, (put("tries", 0),)),
    Row("S12", (S.REGISTERED,), Timer.SILENCE, (), S.STALE, (), (PingServer, arm(Timer.DEAD))),
    Row("S13", (S.STALE,), SignalArrived, (), S.REGISTERED, (), LISTEN),
    Row("S14", (S.STALE,), Timer.DEAD, (), S.BACKOFF,
        (_tried, put("reason", "the server has gone silent")), _RETRY),
    Row("S15", (S.BACKOFF,), Timer.DELAY, (), S.CONNECTING,
        (), (OpenSocket, arm(Timer.CONNECT))),
    Row("S16", (*_OPEN, S.BACKOFF), WorkerStopping, (), S.DOWN, (), (CloseSocket,)),
)  # fmt: skip

IGNORED = (
    Ignored((S.BACKOFF, S.DOWN, S.REFUSED), (SocketFailed, SocketOpened, EffectFailed),
            "a late callback of a socket that was given up"),
    Ignored((S.CONNECTING, S.REGISTERING, S.BACKOFF, S.DOWN, S.REFUSED), (SignalArrived,),
            "only a registered worker counts silence"),
    Ignored((S.REGISTERED, S.STALE), (RecvRefusal, RecvRegistered),
            "one message of ours was refused; the registration stands"),
    Ignored((S.BACKOFF, S.DOWN, S.REFUSED), (RecvRefusal, RecvRegistered), "late words"),
    Ignored((S.DOWN, S.REFUSED), (WorkerStopping,), "there is nothing to close"),
)  # fmt: skip

_SAID_LATER = Ignored(
    (S.CONNECTING, S.BACKOFF, S.DOWN, S.REFUSED),
    (StatusChanged,),
    "the next registration says it",
)

SIGNALLING = Table(
    MachineName.SIGNALLING,
    SignallingState,
    SignallingFacts,
    initial=S.DOWN,
    final=(S.REFUSED,),
    rows=(*SHARED, *PUBLISHING),
    ignored=(*IGNORED, _SAID_LATER),
)
