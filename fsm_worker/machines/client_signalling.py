"""A client's websocket to the signaling server: the way that its offers take.

Laws: those of `signalling`. A client publishes nothing; what the server has against it is told to
its session by the coupling table.
"""

from fsm_worker.effects import CloseSocket
from fsm_worker.events import RecvRefusal, RecvRegistered
from fsm_worker.facts import SignallingFacts
from fsm_worker.machines.engine import Row, Table, take
from fsm_worker.machines.signalling import (
    IGNORED,
    LISTEN,
    SHARED,
    S,
    final,
    refused,
    welcome,
)
from protocol.lifecycle import SignallingState
from protocol.table import MachineName

OWN = (
    Row("S19", (S.REGISTERING,), RecvRegistered, (), S.REGISTERED,
        (take("room"), *welcome), LISTEN),
    Row("S20", (S.REGISTERING,), RecvRefusal, (final,), S.REFUSED,
        (take("reason"), refused), (CloseSocket,)),
)  # fmt: skip

CLIENT_SIGNALLING = Table(
    MachineName.SIGNALLING,
    SignallingState,
    SignallingFacts,
    initial=S.DOWN,
    final=(S.REFUSED,),
    rows=(*OWN, *SHARED),
    ignored=IGNORED,
)
