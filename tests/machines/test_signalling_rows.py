"""What the connection to the signaling server does, row by row."""

from fsm_worker import events as e
from fsm_worker.events import Timer
from fsm_worker.machines.client_signalling import CLIENT_SIGNALLING
from fsm_worker.machines.signalling import SIGNALLING
from protocol.errors import ErrorCode
from tests.machines.scenario import STAYS, Case, Says, case, covered, declared, each, play

LOST = e.SocketFailed(reason="connection refused")
BROKEN = e.EffectFailed(effect="open_socket", reason="no such host")
FULL = e.RecvRefusal(final=False, code=ErrorCode.ABORTED, reason="the room is full")
WRONG_TOKEN = e.RecvRefusal(
    final=True, code=ErrorCode.NOT_AUTHENTICATED, reason="the token is wrong"
)
OPEN = "connecting registering registered stale"
RETRY = "CloseSocket Timer(delay)"
ONCE = {"tries": 1}

CASES = (
    case("S1", "down", e.Started(), "connecting", "OpenSocket Timer(connect)"),
    case("S2", "connecting", e.SocketOpened(), "registering",
         "SendRegistration Timer(register)"),
    case("S6", "registering", e.RecvRegistered(room="r-1"), "registered",
         "ReportReady Timer(silence) Timer(stable)", {"reason": "x", "tries": 4},
         room="r-1", reason=""),
    # The operator is told how clients get here once, not at every reconnection.
    case("S17", "registering", e.RecvRegistered(room="r-1"), "registered",
         "Timer(silence) Timer(stable)", {"reason": "x", "room": "r-1", "code": "aborted"},
         reason="", code=""),
    case("S18", "registering registered stale", e.StatusChanged(), STAYS, "AnnounceStatus"),
    # It tries again for ever, ever more slowly; a connection that held starts the count again.
    case("S3", "connecting", Timer.CONNECT, "backoff", RETRY, ONCE,
         tries=2, reason=Says("does not answer")),
    case("S4", OPEN, LOST, "backoff", RETRY, ONCE, tries=2, reason="connection refused"),
    case("S5", OPEN, BROKEN, "backoff", RETRY, ONCE, tries=2, reason="no such host"),
    case("S8", "registering", FULL, "backoff", RETRY, ONCE, tries=2, reason="the room is full",
         code=ErrorCode.ABORTED),
    case("S9", "registering", Timer.REGISTER, "backoff", RETRY, ONCE,
         tries=2, reason=Says("does not register")),
    case("S15", "backoff", Timer.DELAY, "connecting", "OpenSocket Timer(connect)", ONCE),
    case("S11", "registered", Timer.STABLE, STAYS, "", {"tries": 9}, tries=0),
    # Only refused credentials end it.
    case("S7", "registering", WRONG_TOKEN, "refused", "CloseSocket ReportSignalling",
         reason="the token is wrong", code=ErrorCode.NOT_AUTHENTICATED),
    # A silent server is asked, then given up.
    case("S10", "registered", e.SignalArrived(), STAYS, "Timer(silence)"),
    case("S12", "registered", Timer.SILENCE, "stale", "PingServer Timer(dead)"),
    case("S13", "stale", e.SignalArrived(), "registered", "Timer(silence) Timer(stable)"),
    case("S14", "stale", Timer.DEAD, "backoff", RETRY, ONCE, tries=2, reason=Says("silent")),
    case("S16", f"{OPEN} backoff", e.WorkerStopping(), "down", "CloseSocket"),
)  # fmt: skip


@each(CASES)
def test_row(entry: Case, state: str) -> None:
    play(SIGNALLING, entry, state)


def test_every_row_has_its_case() -> None:
    assert covered(CASES) == declared(SIGNALLING)


#: A client publishes nothing, and has no operator to tell.
CLIENT_CASES = (
    *(entry for entry in CASES if entry.row not in {"S6", "S7", "S17", "S18"}),
    case("S19", "registering", e.RecvRegistered(room="r-1"), "registered",
         "Timer(silence) Timer(stable)", {"reason": "x", "code": "aborted"},
         room="r-1", reason="", code=""),
    case("S20", "registering", WRONG_TOKEN, "refused", "CloseSocket",
         reason="the token is wrong", code=ErrorCode.NOT_AUTHENTICATED),
)  # fmt: skip


@each(CLIENT_CASES)
def test_row_of_a_client(entry: Case, state: str) -> None:
    play(CLIENT_SIGNALLING, entry, state)


def test_every_row_of_a_client_has_its_case() -> None:
    assert covered(CLIENT_CASES) == declared(CLIENT_SIGNALLING)
