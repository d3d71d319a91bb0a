"""One RTCPeerConnection of a client, which dials; everything else is as on the worker's side.

Laws: those of `link`. A client names the session and the generation that its link is for.
"""

from fsm_worker.effects import AcceptAnswer, MakeOffer, SendProof, arm
from fsm_worker.events import DialRequested, RecvAnswer, Timer
from fsm_worker.facts import LinkFacts
from fsm_worker.machines.engine import Ignored, Row, Table, put, take
from fsm_worker.machines.link import (
    FINAL,
    IGNORED,
    OVER,
    SHARED,
    S,
    greeted,
    version_common,
)
from protocol.lifecycle import LinkState
from protocol.messages import Hello
from protocol.table import MachineName

DIALLING = (
    Row("L3", (S.NEW,), DialRequested, (), S.NEGOTIATING,
        (take("peer"), take("session"), take("generation")),
        (MakeOffer, arm(Timer.NEGOTIATION))),
    Row("L5", (S.NEGOTIATING,), RecvAnswer, (), S.CHECKING,
        (), (AcceptAnswer, arm(Timer.ICE))),
    Row("L14", (S.AUTHENTICATING,), Hello, (~greeted, version_common), None,
        (put("greeted", True), take("key")), (SendProof,)),
)  # fmt: skip

CLIENT_LINK = Table(
    MachineName.LINK,
    LinkState,
    LinkFacts,
    initial=S.NEW,
    final=FINAL,
    rows=(*DIALLING, *SHARED),
    ignored=(
        *IGNORED,
        Ignored(
            (S.CHECKING, S.SECURING, S.AUTHENTICATING, S.UP, S.SUSPECT, *OVER),
            (RecvAnswer,),
            "an answer to another offer of ours",
        ),
    ),
)
