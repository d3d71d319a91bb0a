"""What a client makes of its worker, row by row."""

import pytest

from fsm_worker import events as e
from fsm_worker.events import Timer
from fsm_worker.machines.client_session import CLIENT_SESSION
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.table import MESSAGES, Direction, MachineName
from tests.machines.samples import received
from tests.machines.scenario import STAYS, Case, Says, case, covered, declared, each, play
from tests.protocol.samples import BY_TYPE

LINK_2 = e.LinkUp(link="l-2", generation=2, key="Kw", peer="w-1")
REFUSED = e.WorkerRefused(code=ErrorCode.NOT_AUTHENTICATED, reason="this key is not known here")
NO_ROOM = e.RoomRefused(code=ErrorCode.NOT_AUTHENTICATED, reason="the token is wrong")
BYE = e.LinkLost(
    link="l-1", farewell=True, code=ErrorCode.WORKER_LEAVING, reason="the worker leaves"
)
HELD = {"key": "Kw", "link": "l-1", "generation": 1, "peer": "w-1", "dialled": 1}
DIALS = "Dial Timer(redial)"

CASES = (
    # It dials until a link is up, and again whenever one is lost.
    case("K0", "new", e.Started(), "detached", "Timer(session)"),
    case("K34", "detached", e.RoomEntered(), STAYS, DIALS, dialled=1, in_room=True),
    case("K35", "attached", e.RoomEntered(), STAYS, in_room=True),
    case("K36", "detached attached", e.RoomLeft(), STAYS, "", {"in_room": True}, in_room=False),
    case("K1", "detached attached", LINK_2, "attached", "HoldOutbox",
         {"link": "l-1", "reason": "no way"},
         key="Kw", link="l-2", generation=2, peer="w-1", reason=""),
    case("K3", "attached", e.LinkLost(link="l-1", farewell=False), "detached",
         f"{DIALS} Timer(session)", {**HELD, "welcomed": True, "in_room": True},
         link="", dialled=2),
    case("K43", "attached", e.LinkLost(link="l-1", farewell=False), "detached",
         "Timer(session)", {**HELD, "welcomed": True}, link=""),
    # One that was never let in waits before it tries again: the worker may be refusing it.
    case("K33", "attached", e.LinkLost(link="l-1", farewell=False), "detached",
         "Timer(redial) Timer(session)", HELD, link=""),
    case("K30", "detached", Timer.REDIAL, STAYS, DIALS, {**HELD, "in_room": True}, dialled=2),
    # While one is about to prove itself, another would only take over.
    case("K37", "detached attached", e.LinkNear(), STAYS, near=True),
    case("K38", "detached", e.LinkFar(), STAYS, "Timer(redial)", {"near": True}, near=False),
    case("K39", "attached", e.LinkFar(), STAYS, "", {"near": True}, near=False),
    case("K40", "attached", e.OutOfStep(), "closed", "ForgetSession", HELD, link="",
         code=ErrorCode.ABORTED, reason=Says("forgotten")),
    # It ends when the worker leaves, can't be reached, or does not want it.
    case("K4", "attached", BYE, "closed", "ForgetSession",
         HELD, link="", code=ErrorCode.WORKER_LEAVING, reason=Says("ended: the worker leaves")),
    case("K4", "attached", e.LinkLost(link="l-1", farewell=True), "closed", "ForgetSession",
         HELD, link="", code=ErrorCode.ABORTED, reason=Says("has ended")),
    case("K31", "detached", Timer.SESSION, "closed", "ForgetSession", {"in_room": True},
         code=ErrorCode.UNREACHABLE, reason=Says("reached")),
    case("K42", "detached", Timer.SESSION, "closed", "ForgetSession",
         code=ErrorCode.ABORTED, reason=Says("signaling server")),
    case("K31", "detached", Timer.SESSION, "closed", "ForgetSession",
         {"reason": "no way", "in_room": True},
         code=ErrorCode.UNREACHABLE, reason=Says("reached: no way")),
    case("K41", "detached", e.LinkRefused(reason="no way"), STAYS, reason="no way"),
    case("K32", "attached detached", REFUSED, "closed", "ForgetSession",
         code=ErrorCode.NOT_AUTHENTICATED, reason=Says("not known")),
    case("K44", "detached", NO_ROOM, "closed", "ForgetSession", {"welcomed": True},
         code=ErrorCode.NOT_AUTHENTICATED, reason=Says("token")),
    case("K5", "attached detached", e.WorkerStopping(), "closed", "ForgetSession", HELD, link="",
         code=ErrorCode.ABORTED, reason=Says("has left")),
    case("K6", "attached detached", e.OutboxFilled(), "closed", "ForgetSession", HELD, link="",
         code=ErrorCode.OVERLOADED, reason=Says("too much")),
    # After a welcome it says what it has; everything that it is told is handed on.
    case("K2", "attached", received(BY_TYPE[m.Welcome]), STAYS, "SendResume Deliver",
         welcomed=True),
    *(case(row, "attached", received(BY_TYPE[kind]), STAYS, "Deliver")
      for row, kind in (
          ("K7", m.Error), ("K8", m.WorkerStatus), ("K9", m.Reserved), ("K10", m.ReserveRefused),
          ("K11", m.Released), ("K12", m.ReservationOver), ("K13", m.DrainState),
          ("K14", m.Jobs), ("K15", m.JobSnapshot), ("K16", m.JobStateChanged),
          ("K17", m.Progress), ("K18", m.Telemetry), ("K19", m.Log), ("K20", m.LogEnd),
          ("K21", m.Explained))),
)  # fmt: skip


@each(CASES)
def test_row(entry: Case, state: str) -> None:
    play(CLIENT_SESSION, entry, state)


def test_every_row_has_its_case() -> None:
    assert covered(CASES) == declared(CLIENT_SESSION)


@pytest.mark.parametrize(
    "kind",
    [row.message for row in MESSAGES
     if Direction.TO_CLIENT in row.direction and row.machine is MachineName.SESSION],
    ids=lambda kind: kind.__name__,
)  # fmt: skip
def test_nothing_that_a_worker_says_is_kept_from_the_program(kind: type[m.Message]) -> None:
    told = {type(entry.when.message) for entry in CASES if isinstance(entry.when, e.Received)}
    assert kind in told
