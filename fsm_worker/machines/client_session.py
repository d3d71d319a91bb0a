"""The worker, seen from a client: the other side of `machines.session`.

Laws:

- What the worker numbers is delivered once and in order to the program that uses the client; of
  what it does not number (progress, telemetry, status), the newest comes again with a new link.
- A link that is lost leaves the session detached: the client dials again, with the next generation,
  and resumes. Attempts come at random moments and do not slow down; the session timer ends them.
- Nobody is dialled while no signaling server carries our offers.
- A worker that is not there or does not want us is not dialled again, unless it once was ours. One
  link that did not come up is no such word: whoever gives up in the end is told why it did not.
- Whoever can't get a link any more, because its signaling server refuses it, is told that at once.
- Who ends the session says why, and the program that uses the client hears it in those words.
"""

from fsm_worker.effects import Deliver, Dial, ForgetSession, HoldOutbox, SendResume, arm
from fsm_worker.events import (
    EffectFailed,
    LinkFar,
    LinkLost,
    LinkNear,
    LinkRefused,
    LinkUp,
    OutboxFilled,
    OutOfStep,
    RoomEntered,
    RoomLeft,
    RoomRefused,
    Started,
    Timer,
    WorkerRefused,
    WorkerStopping,
)
from fsm_worker.facts import SessionFacts
from fsm_worker.machines.engine import Guard, Ignored, Row, Table, fold, put, take
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import SessionState
from protocol.table import MESSAGES, Direction, MachineName

S = SessionState

farewell = Guard("farewell", lambda _facts, event: event.farewell)

welcomed = Guard("welcomed", lambda facts, _event: facts.welcomed)
near = Guard("near", lambda facts, _event: facts.near)
in_room = Guard("in_room", lambda facts, _event: facts.in_room)

#: Everything that the message table addresses to a client's session, but the welcome.
NEWS = tuple(
    row.message
    for row in MESSAGES
    if Direction.TO_CLIENT in row.direction
    and row.machine is MachineName.SESSION
    and row.message is not m.Welcome
)
_HOLD = (take("key"), take("link"), take("generation"), take("peer"))

_dial = fold("dialled", "dialled += 1", lambda facts, _event: facts.dialled + 1)
_unreachable = fold(
    "reason",
    "reason := it can't be reached: reason",
    lambda facts, _event: ": ".join(filter(None, ("the worker can't be reached", facts.reason))),
)
_ended = (
    fold(
        "code",
        "code := the bye's, or aborted",
        lambda _facts, event: event.code or ErrorCode.ABORTED.value,
    ),
    fold(
        "reason",
        "reason := the session has ended: the link's reason",
        lambda _facts, event: ": ".join(filter(None, ("the session has ended", event.reason))),
    ),
)
_AGAIN = (Dial, arm(Timer.REDIAL))

ROWS = (
    Row("K0", (S.NEW,), Started, (), S.DETACHED, (), (arm(Timer.SESSION),)),
    Row("K34", (S.DETACHED,), RoomEntered, (), None, (put("in_room", True), _dial), _AGAIN),
    Row("K35", (S.ATTACHED,), RoomEntered, (), None, (put("in_room", True),)),
    Row("K36", (S.DETACHED, S.ATTACHED), RoomLeft, (), None, (put("in_room", False),)),
    Row("K1", (S.DETACHED, S.ATTACHED), LinkUp, (), S.ATTACHED,
        (*_HOLD, put("reason", "")), (HoldOutbox,)),
    Row("K41", (S.DETACHED,), LinkRefused, (), None, (take("reason"),)),
    Row("K2", (S.ATTACHED,), m.Welcome, (), None,
        (put("welcomed", True),), (SendResume, Deliver)),
    Row("K3", (S.ATTACHED,), LinkLost, (~farewell, welcomed, in_room), S.DETACHED,
        (put("link", ""), _dial), (*_AGAIN, arm(Timer.SESSION))),
    Row("K43", (S.ATTACHED,), LinkLost, (~farewell, welcomed, ~in_room), S.DETACHED,
        (put("link", ""),), (arm(Timer.SESSION),)),
    Row("K33", (S.ATTACHED,), LinkLost, (~farewell, ~welcomed), S.DETACHED,
        (put("link", ""),), (arm(Timer.REDIAL), arm(Timer.SESSION))),
    Row("K4", (S.ATTACHED,), LinkLost, (farewell,), S.CLOSED,
        (put("link", ""), *_ended), (ForgetSession,)),
    Row("K30", (S.DETACHED,), Timer.REDIAL, (in_room, ~near), None, (_dial,), _AGAIN),
    Row("K37", (S.DETACHED, S.ATTACHED), LinkNear, (), None, (put("near", True),)),
    Row("K38", (S.DETACHED,), LinkFar, (), None, (put("near", False),), (arm(Timer.REDIAL),)),
    Row("K39", (S.ATTACHED,), LinkFar, (), None, (put("near", False),)),
    Row("K31", (S.DETACHED,), Timer.SESSION, (in_room,), S.CLOSED,
        (put("code", ErrorCode.UNREACHABLE), _unreachable), (ForgetSession,)),
    Row("K42", (S.DETACHED,), Timer.SESSION, (~in_room,), S.CLOSED,
        (put("code", ErrorCode.ABORTED),
         put("reason", "the worker can't be reached: its signaling server lets nobody in")),
        (ForgetSession,)),
    Row("K32", (S.ATTACHED, S.DETACHED), WorkerRefused, (~welcomed,), S.CLOSED,
        (take("code"), take("reason")), (ForgetSession,)),
    Row("K44", (S.DETACHED,), RoomRefused, (), S.CLOSED,
        (take("code"), take("reason")), (ForgetSession,)),
    Row("K5", (S.ATTACHED, S.DETACHED), WorkerStopping, (), S.CLOSED,
        (put("link", ""), put("code", ErrorCode.ABORTED),
         put("reason", "this client has left")), (ForgetSession,)),
    Row("K40", (S.ATTACHED,), OutOfStep, (), S.CLOSED,
        (put("link", ""), put("code", ErrorCode.ABORTED),
         put("reason", "the worker has forgotten this session: attach again")),
        (ForgetSession,)),
    Row("K6", (S.ATTACHED, S.DETACHED), OutboxFilled, (), S.CLOSED,
        (put("link", ""), put("code", ErrorCode.OVERLOADED),
         put("reason", "too much waits for the worker: attach again, and ask for less at once")),
        (ForgetSession,)),
    *(Row(f"K{7 + index}", (S.ATTACHED,), kind, (), None, (), (Deliver,))
      for index, kind in enumerate(NEWS)),
)  # fmt: skip

IGNORED = (
    Ignored((S.DETACHED, S.CLOSED), (m.Welcome, *NEWS), "it comes again with the next link"),
    Ignored((S.DETACHED,), (LinkLost,), "a late callback of an old link"),
    Ignored((S.DETACHED, S.ATTACHED, S.CLOSED), (WorkerRefused,),
            "it was ours once and may come back"),
    Ignored((S.DETACHED,), (Timer.REDIAL,), "entering the room dials, or a link is near"),
    Ignored((S.ATTACHED,), (LinkRefused,), "another link is up"),
    Ignored((S.CLOSED,), (LinkUp, LinkLost, LinkNear, LinkFar, LinkRefused, RoomEntered, RoomLeft,
                          OutboxFilled, WorkerStopping),
            "it is over"),
    Ignored((S.ATTACHED, S.DETACHED, S.CLOSED), (EffectFailed,),
            "what could not be sent is in the outbox"),
)  # fmt: skip

CLIENT_SESSION = Table(
    MachineName.SESSION,
    SessionState,
    SessionFacts,
    initial=S.NEW,
    final=(S.CLOSED,),
    rows=ROWS,
    ignored=IGNORED,
)
