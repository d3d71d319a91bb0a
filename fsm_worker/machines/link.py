"""One RTCPeerConnection of a worker, which answers; `client_link` has the side that dials.

Laws:

- Nothing but hello and proof has an effect before `up`.
- `up` is reached by one row: the peer's key is proved for this very connection, and trusted.
  Where the operator allows sleap-rtc, a channel without the sub-protocol is a second way: its
  peer has no key, and proves the room secret if there is one.
- aiortc restarts nothing: a link that has failed is over, and recovery is a new link of the same
  session. A path that dies raises no event, so our own silence timers decide.
- A late callback of an old connection finds a final state and changes nothing.
"""

from fsm_worker.effects import (
    AdmitGuest,
    CheckProof,
    ClosePeer,
    Farewell,
    HandleConnection,
    KeepIceAlive,
    ReadMessage,
    RefuseOffer,
    ReportLinkFailure,
    SendAck,
    SendChallenge,
    SendHello,
    SendPong,
    SendProof,
    TurnAway,
    arm,
    do,
)
from fsm_worker.events import (
    ChannelClosed,
    ControlOpened,
    EffectFailed,
    Flushed,
    FrameArrived,
    FrameRefused,
    IceCompleted,
    IceFailed,
    PeerClosed,
    ProofChecked,
    RecvOffer,
    SentAnswer,
    SessionEnded,
    Superseded,
    Timer,
    WorkerStopping,
)
from fsm_worker.facts import LinkFacts
from fsm_worker.machines.engine import Guard, Ignored, Row, Table, fold, put, take
from protocol import NATIVE_VERSION
from protocol.errors import ErrorCode
from protocol.lifecycle import LinkState
from protocol.messages import Ack, Bye, Hello, Ping, Pong, Proof
from protocol.table import MachineName, Right

S = LinkState
#: Refused frames that a link survives; a peer that goes on is broken or hostile.
STRIKES = 3

room_for_more = Guard("room_for_more", lambda _facts, event: event.room_for_more)
native = Guard("native", lambda _facts, event: event.native)
foreign_allowed = Guard("foreign_allowed", lambda _facts, event: event.foreign_allowed)
secret = Guard("secret", lambda _facts, event: event.secret)
foreign = Guard("foreign", lambda facts, _event: facts.foreign)
greeted = Guard("greeted", lambda facts, _event: facts.greeted)
version_common = Guard(
    "version_common", lambda _facts, event: NATIVE_VERSION in event.message.versions
)
named = Guard("named", lambda _facts, event: bool(event.message.session))
proved = Guard("proved", lambda _facts, event: event.proved)
trusted = Guard("trusted", lambda _facts, event: event.trusted)
numbered = Guard("numbered", lambda _facts, event: event.number > 0)
is_next = Guard("is_next", lambda _facts, event: event.number == event.expected)
is_old = Guard("is_old", lambda _facts, event: event.number < event.expected)
few_strikes = Guard("few_strikes", lambda _facts, event: event.strikes < STRIKES)


def guest_key(peer: str) -> str:
    """What stands for the key of a client of sleap-rtc: whom the signaling server says it is."""
    return f"sleap-rtc:{peer}"


_PRE = (S.NEGOTIATING, S.CHECKING, S.SECURING, S.AUTHENTICATING)
_UP = (S.UP, S.SUSPECT)
_ALIVE = (arm(Timer.PING), arm(Timer.QUIET))
#: Characters of a peer's words that are kept.
_WORDS = 200
_FAIL = (ClosePeer, do(ReportLinkFailure, code=ErrorCode.ABORTED))
_REJECT = (ClosePeer, do(ReportLinkFailure, code=ErrorCode.NOT_AUTHENTICATED))
_TURN_AWAY = (TurnAway, do(ReportLinkFailure, code=ErrorCode.NOT_AUTHENTICATED))
#: Whoever speaks sleap-rtc has no key, and nothing to resume a session by: it ends with its link.
_GUEST = (
    put("foreign", True),
    fold("key", "key := sleap-rtc:peer", lambda facts, _event: guest_key(facts.peer)),
    put("rights", (Right.SUBMIT.value,)),
    take("session"),
    put("farewell", True),
)
#: What the peer says of its bye.
_WHY = (
    take("code"),
    fold(
        "reason",
        "reason := the bye's, or that the peer left",
        lambda _facts, event: event.message.reason[:_WORDS] or "the peer left",
    ),
)


#: How a worker's link begins.
ANSWERING = (
    Row("L1", (S.NEW,), RecvOffer, (room_for_more,), S.NEGOTIATING,
        (take("peer"),), (HandleConnection, arm(Timer.NEGOTIATION))),
    Row("L2", (S.NEW,), RecvOffer, (~room_for_more,), S.REJECTED,
        (take("peer"), put("reason", "too many links")),
        (do(RefuseOffer, code=ErrorCode.OVERLOADED),)),
    Row("L4", (S.NEGOTIATING,), SentAnswer, (), S.CHECKING, (), (arm(Timer.ICE),)),
    Row("L13", (S.AUTHENTICATING,), Hello, (~greeted, version_common, named), None,
        (put("greeted", True), take("key"), take("session"), take("generation")), (SendProof,)),
    Row("L59", (S.AUTHENTICATING,), Hello, (~greeted, version_common, ~named), S.REJECTED,
        (put("reason", "the client named no session: two of that kind would be one"),), _REJECT),
    # a client of sleap-rtc, where the operator allows it
    Row("L54", (S.CHECKING, S.SECURING), ControlOpened, (~native, foreign_allowed, ~secret), S.UP,
        _GUEST, _ALIVE),
    Row("L55", (S.CHECKING, S.SECURING), ControlOpened, (~native, foreign_allowed, secret),
        S.AUTHENTICATING, _GUEST, (SendChallenge, arm(Timer.AUTH))),
    Row("L56", (S.AUTHENTICATING,), ProofChecked, (proved, trusted, foreign), S.UP,
        (), (AdmitGuest, *_ALIVE)),
    Row("L57", (S.AUTHENTICATING,), ProofChecked, (~proved, foreign), S.REJECTED,
        (take("reason"),), _TURN_AWAY),
    Row("L58", (S.AUTHENTICATING,), Timer.AUTH, (foreign,), S.REJECTED,
        (put("reason", "the peer did not prove the room secret in time"),), _TURN_AWAY),
)  # fmt: skip

#: What both sides of a link have in common.
SHARED = (
    Row("L6", (S.NEGOTIATING,), Timer.NEGOTIATION, (), S.FAILED,
        (put("reason", "no answer came through signaling"),), _FAIL),
    # checking
    Row("L7", (S.CHECKING,), IceCompleted, (), S.SECURING, (), (arm(Timer.DTLS),)),
    Row("L8", (S.CHECKING,), IceFailed, (), S.FAILED,
        (put("reason", "no network path between the two sides"),), _FAIL),
    Row("L9", (S.CHECKING,), Timer.ICE, (), S.FAILED,
        (put("reason", "no network path was found in time"),), _FAIL),
    # securing (callbacks may overtake each other: the channel can open while still checking)
    Row("L10", (S.CHECKING, S.SECURING), ControlOpened, (native,), S.AUTHENTICATING,
        (), (SendHello, arm(Timer.AUTH))),
    Row("L11", (S.CHECKING, S.SECURING), ControlOpened, (~native, ~foreign_allowed), S.REJECTED,
        (put("reason", "the channel does not speak fsm-worker.v1, and clients of sleap-rtc may"
             " not come in: the worker's operator can set allow_sleap_rtc"),), _REJECT),
    Row("L12", (S.SECURING,), Timer.DTLS, (), S.FAILED,
        (put("reason", "the DTLS handshake took too long"),), _FAIL),
    # authenticating
    Row("L15", (S.AUTHENTICATING,), Hello, (~greeted, ~version_common), S.REJECTED,
        (put("reason", "no protocol version in common: update the older side"),), _REJECT),
    Row("L16", (S.AUTHENTICATING,), Hello, (greeted,), S.REJECTED,
        (put("reason", "the peer said hello twice"),), _REJECT),
    Row("L17", (S.AUTHENTICATING,), Proof, (greeted,), None, (), (CheckProof,)),
    Row("L18", (S.AUTHENTICATING,), Proof, (~greeted,), S.REJECTED,
        (put("reason", "the peer proved a key that it had not named"),), _REJECT),
    Row("L19", (S.AUTHENTICATING,), ProofChecked, (proved, trusted, ~foreign), S.UP,
        (take("rights"),), _ALIVE),
    Row("L20", (S.AUTHENTICATING,), ProofChecked, (~proved, ~foreign), S.REJECTED,
        (take("reason"),), _REJECT),
    Row("L21", (S.AUTHENTICATING,), ProofChecked, (proved, ~trusted), S.REJECTED,
        (take("reason"),), _REJECT),
    Row("L22", (S.AUTHENTICATING,), FrameArrived, (), S.REJECTED,
        (put("reason", "the peer spoke before it had proved its key"),), _REJECT),
    Row("L23", (S.AUTHENTICATING,), FrameRefused, (), S.REJECTED,
        (put("reason", "the peer sent what is no message"),), _REJECT),
    Row("L24", (S.AUTHENTICATING,), Timer.AUTH, (~foreign,), S.REJECTED,
        (put("reason", "the peer did not prove its key in time"),), _REJECT),
    # up, suspect: any valid frame is a sign of life
    Row("L25", _UP, FrameArrived, (~numbered,), S.UP, (), (ReadMessage, *_ALIVE)),
    Row("L26", _UP, FrameArrived, (numbered, is_next), S.UP, (), (ReadMessage, SendAck, *_ALIVE)),
    Row("L27", _UP, FrameArrived, (numbered, ~is_next, is_old), S.UP, (), (SendAck, *_ALIVE)),
    Row("L28", _UP, FrameArrived, (numbered, ~is_next, ~is_old), S.FAILED,
        (put("reason", "a message is missing: resume repairs it"),), (ClosePeer,)),
    Row("L29", _UP, Ping, (), S.UP, (), (SendPong, *_ALIVE)),
    Row("L30", _UP, Pong, (), S.UP, (), _ALIVE),
    Row("L31", _UP, Ack, (), S.UP, (), _ALIVE),
    Row("L32", (S.UP,), Timer.PING, (), None, (), (KeepIceAlive, arm(Timer.PING))),
    Row("L33", (S.UP,), Timer.QUIET, (), S.SUSPECT, (), (KeepIceAlive, arm(Timer.LOST))),
    Row("L34", (S.SUSPECT,), Timer.LOST, (), S.FAILED,
        (put("reason", "the peer has gone silent"),), (ClosePeer,)),
    Row("L35", _UP, FrameRefused, (few_strikes,), None),
    Row("L36", _UP, FrameRefused, (~few_strikes,), S.CLOSING,
        (put("farewell", True), put("reason", "too many frames without meaning")),
        (do(Farewell, code=ErrorCode.MALFORMED), arm(Timer.CLOSE))),
    Row("L37", _UP, Bye, (), S.CLOSED, (put("farewell", True), *_WHY), (ClosePeer,)),
    # ends
    # no farewell: the peer would take it for the end of the session, which goes on
    Row("L38", (*_PRE, *_UP), Superseded, (), S.CLOSED,
        (put("reason", "a newer link took over"),), (ClosePeer,)),
    Row("L53", (*_PRE, *_UP), SessionEnded, (), S.CLOSING,
        (put("farewell", True), put("reason", "this session is over, or somebody else's")),
        (do(Farewell, code=ErrorCode.ABORTED), arm(Timer.CLOSE))),
    Row("L39", (*_PRE, *_UP), WorkerStopping, (), S.CLOSING,
        (put("farewell", True), put("reason", "the worker leaves")),
        (do(Farewell, code=ErrorCode.WORKER_LEAVING), arm(Timer.CLOSE))),
    Row("L40", (S.CLOSING,), Flushed, (), S.CLOSED, (), (ClosePeer,)),
    Row("L41", (S.CLOSING,), Timer.CLOSE, (), S.CLOSED, (), (ClosePeer,)),
    Row("L42", (S.CLOSING,), PeerClosed, (), S.CLOSED, (), (ClosePeer,)),
    Row("L43", (S.CLOSING,), ChannelClosed, (), S.CLOSED, (), (ClosePeer,)),
    Row("L44", (S.CLOSING,), EffectFailed, (), S.CLOSED, (), (ClosePeer,)),
    Row("L45", _UP, PeerClosed, (), S.FAILED,
        (put("reason", "the connection was closed"),), (ClosePeer,)),
    Row("L46", _UP, ChannelClosed, (), S.FAILED,
        (put("reason", "a data channel was closed"),), (ClosePeer,)),
    Row("L47", _UP, IceFailed, (), S.FAILED,
        (put("reason", "the network path was lost"),), (ClosePeer,)),
    Row("L48", _PRE, PeerClosed, (), S.FAILED,
        (put("reason", "the connection was closed"),), _FAIL),
    Row("L49", _PRE, ChannelClosed, (), S.FAILED,
        (put("reason", "a data channel was closed"),), _FAIL),
    Row("L50", (S.NEGOTIATING, S.SECURING, S.AUTHENTICATING), IceFailed, (), S.FAILED,
        (put("reason", "the network path was lost"),), _FAIL),
    Row("L51", _PRE, EffectFailed, (), S.FAILED, (take("reason"),), _FAIL),
    Row("L52", _UP, EffectFailed, (), S.FAILED, (take("reason"),), (ClosePeer,)),
)  # fmt: skip

OVER = (S.CLOSING, S.CLOSED, S.FAILED, S.REJECTED)
FINAL = (S.CLOSED, S.FAILED, S.REJECTED)
_CALLBACKS = (PeerClosed, ChannelClosed)
IGNORED = (
    Ignored(OVER, (ControlOpened, IceCompleted, IceFailed, ProofChecked),
            "a late callback of a connection that is over"),
    Ignored(FINAL, (*_CALLBACKS, EffectFailed, Flushed), "closing it makes these"),
    Ignored(OVER, (FrameArrived, FrameRefused, Hello, Proof, Ping, Pong, Ack, Bye),
            "the peer had not yet heard that it is over"),
    Ignored((S.SECURING, S.AUTHENTICATING, *_UP), (IceCompleted,), "ICE repeats itself"),
    Ignored(OVER, (Superseded, SessionEnded, WorkerStopping), "it is over"),
)  # fmt: skip

_LATE_ANSWER = Ignored(OVER, (SentAnswer,), "the offer's link is over")

LINK = Table(
    MachineName.LINK,
    LinkState,
    LinkFacts,
    initial=S.NEW,
    final=FINAL,
    rows=(*ANSWERING, *SHARED),
    ignored=(*IGNORED, _LATE_ANSWER),
)
