"""What a link does on either side, row by row."""

from typing import Any

import pytest

from fsm_worker import events as e
from fsm_worker.events import Timer
from fsm_worker.facts import LinkFacts
from fsm_worker.machines.client_link import CLIENT_LINK
from fsm_worker.machines.engine import Instance, Table, Verdict
from fsm_worker.machines.link import LINK
from protocol.errors import ErrorCode
from protocol.lifecycle import LinkState
from protocol.messages import Ack, Bye, Hello, JobsGet, Message, Ping, Pong, Proof
from tests.machines.samples import received
from tests.machines.scenario import STAYS, Case, Says, case, covered, declared, each, play

LinkTable = Table[LinkState, LinkFacts]


def hello(*versions: int, session: str = "s-1") -> e.Event:
    return received(
        Hello(versions=versions, role="client", key="K", nonce="N", session=session, generation=3)
    )


def offer(*, room: bool) -> e.Event:
    return e.RecvOffer(peer="p-1", sdp="v=0", room_for_more=room)


def checked(*, proved: bool, trusted: bool) -> e.Event:
    return e.ProofChecked(
        proved=proved, trusted=trusted, rights=("submit",), reason="this key is not known here"
    )


def frame(number: int, expected: int) -> e.Event:
    return e.FrameArrived(number=number, expected=expected, message=JobsGet())


def refused(strikes: int) -> e.Event:
    return e.FrameRefused(code=ErrorCode.MALFORMED, strikes=strikes)


def foreign(*, secret: bool) -> e.Event:
    return e.ControlOpened(native=False, foreign_allowed=True, secret=secret, session="guest-l-1")


PROOF = received(Proof(signature="S"))
BROKEN = e.EffectFailed(effect="handle_connection", reason="the SDP makes no sense")
NONSENSE = Bye(code=ErrorCode.MALFORMED, reason="x" * 300)
PRE = "negotiating checking securing authenticating"
UP = "up suspect"
ALIVE = "Timer(ping) Timer(quiet)"
FAIL = "ClosePeer ReportLinkFailure(aborted)"
REJECT = "ClosePeer ReportLinkFailure(not_authenticated)"
TURN_AWAY = "TurnAway ReportLinkFailure(not_authenticated)"
GREETED = {"greeted": True}
FOREIGN = {"foreign": True}
#: Its session ends with its link: there is nothing by which it could come back.
GUEST = {
    "foreign": True, "key": "sleap-rtc:p-1", "rights": ("submit",), "session": "guest-l-1",
    "farewell": True,
}  # fmt: skip

WORKERS = (
    # A client's offer is answered, while there is room.
    case("L1", "new", offer(room=True), "negotiating", "HandleConnection Timer(negotiation)",
         peer="p-1"),
    case("L2", "new", offer(room=False), "rejected", "RefuseOffer(overloaded)",
         peer="p-1", reason=Says("too many")),
    case("L4", "negotiating", e.SentAnswer(), "checking", "Timer(ice)"),
    # The client says which session it comes for.
    case("L13", "authenticating", hello(2, 1), STAYS, "SendProof",
         greeted=True, key="K", session="s-1", generation=3),
    case("L59", "authenticating", hello(1, session=""), "rejected", REJECT,
         reason=Says("named no session")),
    # Where the operator allows it, a client of sleap-rtc comes in without a key, or with a proof.
    case("L54", "checking securing", foreign(secret=False), "up", ALIVE, {"peer": "p-1"}, **GUEST),
    case("L55", "checking securing", foreign(secret=True), "authenticating",
         "SendChallenge Timer(auth)", {"peer": "p-1"}, **GUEST),
    case("L56", "authenticating", checked(proved=True, trusted=True), "up", f"AdmitGuest {ALIVE}",
         FOREIGN),
    case("L57", "authenticating", checked(proved=False, trusted=False), "rejected", TURN_AWAY,
         FOREIGN, reason=Says("not known")),
    case("L58", "authenticating", Timer.AUTH, "rejected", TURN_AWAY, FOREIGN,
         reason=Says("in time")),
)  # fmt: skip

CLIENTS = (
    # A client dials for its session, and keeps to it whatever the worker's hello says.
    case("L3", "new", e.DialRequested(peer="w-1", session="s-9", generation=4), "negotiating",
         "MakeOffer Timer(negotiation)", peer="w-1", session="s-9", generation=4),
    case("L5", "negotiating", e.RecvAnswer(sdp="v=0"), "checking", "AcceptAnswer Timer(ice)"),
    case("L14", "authenticating", hello(1), STAYS, "SendProof",
         {"session": "s-9", "generation": 4}, greeted=True, key="K"),
)  # fmt: skip

SHARED = (
    # A path, a handshake, a channel: each in its time.
    case("L6", "negotiating", Timer.NEGOTIATION, "failed", FAIL, reason=Says("signaling")),
    case("L7", "checking", e.IceCompleted(), "securing", "Timer(dtls)"),
    case("L8", "checking", e.IceFailed(), "failed", FAIL, reason=Says("no network path")),
    case("L9", "checking", Timer.ICE, "failed", FAIL, reason=Says("in time")),
    case("L10", "checking securing", e.ControlOpened(native=True), "authenticating",
         "SendHello Timer(auth)"),
    case("L11", "checking securing", e.ControlOpened(native=False), "rejected", REJECT,
         reason=Says("allow_sleap_rtc")),
    case("L12", "securing", Timer.DTLS, "failed", FAIL, reason=Says("DTLS")),
    # Nothing but one hello and then a proof of its key lets a peer in.
    case("L15", "authenticating", hello(2), "rejected", REJECT, reason=Says("update")),
    case("L16", "authenticating", hello(1), "rejected", REJECT, GREETED, reason=Says("twice")),
    case("L17", "authenticating", PROOF, STAYS, "CheckProof", GREETED),
    case("L18", "authenticating", PROOF, "rejected", REJECT, reason=Says("not named")),
    case("L19", "authenticating", checked(proved=True, trusted=True), "up", ALIVE,
         rights=("submit",)),
    case("L20", "authenticating", checked(proved=False, trusted=True), "rejected", REJECT,
         reason=Says("not known")),
    case("L21", "authenticating", checked(proved=True, trusted=False), "rejected", REJECT,
         reason=Says("not known")),
    case("L22", "authenticating", frame(1, 1), "rejected", REJECT, reason=Says("before")),
    case("L23", "authenticating", refused(1), "rejected", REJECT, reason=Says("no message")),
    case("L24", "authenticating", Timer.AUTH, "rejected", REJECT, reason=Says("in time")),
    # Up: every frame is read once and in order, and is a sign of life.
    case("L25", UP, frame(0, 5), "up", f"ReadMessage {ALIVE}"),
    case("L26", UP, frame(5, 5), "up", f"ReadMessage SendAck {ALIVE}"),
    case("L27", UP, frame(4, 5), "up", f"SendAck {ALIVE}"),
    case("L28", UP, frame(6, 5), "failed", "ClosePeer", reason=Says("missing")),
    case("L29", UP, received(Ping(n=1)), "up", f"SendPong {ALIVE}"),
    case("L30", UP, received(Pong(n=1)), "up", ALIVE),
    case("L31", UP, received(Ack()), "up", ALIVE),
    # Silence is asked about, then believed.
    case("L32", "up", Timer.PING, STAYS, "KeepIceAlive Timer(ping)"),
    case("L33", "up", Timer.QUIET, "suspect", "KeepIceAlive Timer(lost)"),
    case("L34", "suspect", Timer.LOST, "failed", "ClosePeer", reason=Says("silent")),
    # Two frames without meaning are forgiven.
    case("L35", UP, refused(2), STAYS),
    case("L36", UP, refused(3), "closing", "Farewell(malformed) Timer(close)", farewell=True,
         reason=Says("without meaning")),
    # Ends: on purpose, replaced, or lost.
    case("L37", UP, received(Bye()), "closed", "ClosePeer", farewell=True,
         code=ErrorCode.WORKER_LEAVING, reason=Says("left")),
    case("L37", UP, received(NONSENSE), "closed", "ClosePeer", farewell=True,
         code=ErrorCode.MALFORMED, reason="x" * 200),
    case("L38", f"{PRE} {UP}", e.Superseded(), "closed", "ClosePeer", reason=Says("took over")),
    case("L53", f"{PRE} {UP}", e.SessionEnded(), "closing",
         "Farewell(aborted) Timer(close)", farewell=True, reason=Says("session is over")),
    case("L39", f"{PRE} {UP}", e.WorkerStopping(), "closing",
         "Farewell(worker_leaving) Timer(close)", farewell=True, reason=Says("leaves")),
    case("L40", "closing", e.Flushed(), "closed", "ClosePeer"),
    case("L41", "closing", Timer.CLOSE, "closed", "ClosePeer"),
    case("L42", "closing", e.PeerClosed(), "closed", "ClosePeer"),
    case("L43", "closing", e.ChannelClosed(), "closed", "ClosePeer"),
    case("L44", "closing", BROKEN, "closed", "ClosePeer"),
    case("L45", UP, e.PeerClosed(), "failed", "ClosePeer", reason=Says("closed")),
    case("L46", UP, e.ChannelClosed(), "failed", "ClosePeer", reason=Says("data channel")),
    case("L47", UP, e.IceFailed(), "failed", "ClosePeer", reason=Says("lost")),
    # Before it was up, whoever waits for it hears why.
    case("L48", PRE, e.PeerClosed(), "failed", FAIL, reason=Says("closed")),
    case("L49", PRE, e.ChannelClosed(), "failed", FAIL, reason=Says("data channel")),
    case("L50", "negotiating securing authenticating", e.IceFailed(), "failed", FAIL,
         reason=Says("lost")),
    case("L51", PRE, BROKEN, "failed", FAIL, reason=Says("no sense")),
    case("L52", UP, BROKEN, "failed", "ClosePeer", reason=Says("no sense")),
)  # fmt: skip


@each(WORKERS)
def test_row_of_a_worker_s_link(entry: Case, state: str) -> None:
    play(LINK, entry, state)


@each(CLIENTS)
def test_row_of_a_client_s_link(entry: Case, state: str) -> None:
    play(CLIENT_LINK, entry, state)


both_sides = pytest.mark.parametrize("table", [LINK, CLIENT_LINK], ids=["worker", "client"])


@both_sides
@each(SHARED)
def test_row_of_both_sides(table: LinkTable, entry: Case, state: str) -> None:
    play(table, entry, state)


def test_every_row_has_its_case() -> None:
    assert covered((*WORKERS, *SHARED)) == declared(LINK)
    assert covered((*CLIENTS, *SHARED)) == declared(CLIENT_LINK)


# --- laws that no single row shows --------------------------------------------------------------

UNPROVED = (LinkState.NEW, *map(LinkState, PRE.split()))
#: Everything that a peer may say.
WORDS: tuple[Message, ...] = (Ping(n=1), Pong(n=1), Ack(), Bye(), JobsGet())


def at(table: LinkTable, state: LinkState, **facts: Any) -> Instance[LinkState, LinkFacts]:
    instance = Instance(table, "l-1", LinkFacts(**facts))
    instance.state = state
    return instance


@both_sides
def test_a_proof_alone_leads_up_from_below_and_at_a_worker_what_its_operator_allows(
    table: LinkTable,
) -> None:
    rows = {row.id for row in table.rows if row.to is LinkState.UP
            and set(row.sources) & set(UNPROVED)}  # fmt: skip
    assert rows == ({"L19", "L54", "L56"} if table is LINK else {"L19"})


@both_sides
@pytest.mark.parametrize("state", UNPROVED)
def test_no_word_of_a_peer_that_has_proved_nothing_is_read_or_answered(
    table: LinkTable, state: LinkState
) -> None:
    for word in WORDS:
        for event in (received(word), e.FrameArrived(number=1, expected=1, message=word)):
            step = at(table, state).step(event)
            done = {type(effect).__name__ for effect in step.effects}
            assert done <= {"ClosePeer", "ReportLinkFailure"}
            assert step.after in {state, LinkState.REJECTED}


@both_sides
def test_hello_and_proof_mean_nothing_outside_the_handshake(table: LinkTable) -> None:
    for state in LinkState:
        if state is not LinkState.AUTHENTICATING:
            for event in (hello(1), PROOF, checked(proved=True, trusted=True)):
                step = at(table, state, greeted=True).step(event)
                assert step.verdict in {Verdict.ILLEGAL, Verdict.IGNORED}


@pytest.mark.parametrize("state", [LinkState.CHECKING, LinkState.SECURING])
def test_a_channel_without_the_sub_protocol_leads_nowhere_unless_it_is_allowed(
    state: LinkState,
) -> None:
    opened = e.ControlOpened(native=False, session="guest-l-1")
    for table in (LINK, CLIENT_LINK):
        assert at(table, state).step(opened).after == "rejected"
    assert at(CLIENT_LINK, state).step(foreign(secret=False)).verdict is Verdict.ILLEGAL
    assert at(LINK, state).step(foreign(secret=True)).after == "authenticating"


@both_sides
def test_a_peer_that_stays_silent_is_lost_by_its_timers(table: LinkTable) -> None:
    link = at(table, LinkState.AUTHENTICATING, greeted=True)
    link.step(checked(proved=True, trusted=True))
    for timer in (Timer.PING, Timer.PING, Timer.QUIET, Timer.LOST):
        assert link.step(e.TimerExpired(timer=timer, serial=link.armed[timer])).row
    assert link.final
    assert not link.armed


@both_sides
@pytest.mark.parametrize("state", [LinkState.UP, LinkState.SUSPECT])
def test_any_frame_is_a_sign_of_life(table: LinkTable, state: LinkState) -> None:
    for event in (*map(received, (Ping(n=1), Pong(n=1), Ack())), frame(0, 1), frame(1, 2)):
        link = at(table, state)
        link.armed = {Timer.QUIET: 1, Timer.LOST: 1}
        link.step(event)
        assert link.state is LinkState.UP
        assert link.armed.keys() == {Timer.PING, Timer.QUIET}
        assert link.armed[Timer.QUIET] != 1
