"""A client: its session x the links that it dials x its server."""

from collections.abc import Iterator
from typing import Any

from msgspec import structs

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Event, Received
from fsm_worker.machines.link import STRIKES
from fsm_worker.machines.world import THE_SERVER
from fsm_worker.machines.worlds import client_world
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import LinkState, SessionState, SignallingState
from protocol.table import ROW_OF, Direction, MachineName
from tests.exploration import invariants as laws
from tests.exploration import server, sources, two_clients
from tests.exploration.explorer import Kind, Move, Product
from tests.exploration.stage import Frozen, Stage, Task

M = MachineName
SESSION, LINKS, KEY = "s-1", ("l-1", "l-2"), "Kw"
#: A link that has the worker's answer comes up without a server.
ANSWERED = {LinkState.CHECKING, LinkState.SECURING, LinkState.AUTHENTICATING}


# --- laws of a client -----------------------------------------------------------------------------


def who_can_dial_does(_before: Frozen, stage: Stage) -> Iterator[str]:
    """A session that comes into the room, or loses its link there, dials at once."""
    for step in laws.fired(stage, M.SESSION):
        facts: Any = step.facts
        dials = laws.asked(step, f.Dial)
        if step.after == SessionState.DETACHED and facts.in_room:
            entered = isinstance(step.event, e.RoomEntered)
            lost = isinstance(step.event, e.LinkLost) and facts.welcomed
            if (entered or lost) and not dials:
                yield f"{type(step.event).__name__}, and it does not dial"
        if dials and not facts.in_room:
            yield f"{type(step.event).__name__}: it dials where no offer can travel"
        again = isinstance(step.event, e.TimerExpired) and step.event.timer is e.Timer.REDIAL
        if again and not dials:
            yield "it was to dial again, and does not"
        if again and facts.near:
            yield "it dials where a link is about to prove itself"


def an_answer_is_taken(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in laws.fired(stage, M.LINK):
        if isinstance(step.event, e.RecvAnswer) and not laws.asked(step, f.AcceptAnswer):
            yield "the worker's answer is not given to the connection"


def who_waits_for_a_link_dials_again(_before: Frozen, stage: Stage) -> Iterator[str]:
    refused = stage.state(M.SIGNALLING, THE_SERVER) is SignallingState.REFUSED
    comes = any(link.state in ANSWERED for link in stage.world.live(M.LINK))
    for session in stage.world.live(M.SESSION):
        if session.state is SessionState.DETACHED and refused and not comes:
            yield "it waits for a server that has refused it for good"
        waits = session.state is SessionState.DETACHED and session.facts.in_room
        if waits and not session.facts.near and e.Timer.REDIAL not in session.armed:
            yield "it waits for a link that nobody dials"
        if session.state is SessionState.DETACHED and e.Timer.SESSION not in session.armed:
            yield "it waits for its worker for ever"


def what_the_worker_says_reaches_the_program(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in laws.fired(stage, M.SESSION):
        event = step.event
        if isinstance(event, Received) and step.before == SessionState.ATTACHED:
            if not laws.asked(step, f.Deliver):
                yield f"{type(event.message).__name__} is heard by nobody"
            welcome = isinstance(event.message, m.Welcome)
            if welcome and not laws.asked(step, f.SendResume):
                yield "the worker waits for a resume"
    for step in laws.fired(stage, M.SESSION):
        if isinstance(step.event, e.LinkUp) and not laws.asked(step, f.HoldOutbox):
            yield "it speaks before the worker has said how far it is"


def a_session_that_ends_says_why(_before: Frozen, stage: Stage) -> Iterator[str]:
    for step in laws.fired(stage, M.SESSION):
        facts: Any = step.facts
        if step.after == SessionState.CLOSED and not (facts.code and facts.reason):
            yield f"{type(step.event).__name__} ends it without a reason"
        if isinstance(step.event, e.LinkRefused) and step.after == SessionState.CLOSED:
            yield "one link that did not come up ends it"
        refused = isinstance(step.event, e.WorkerRefused)
        if refused and step.after != SessionState.CLOSED:
            yield "the worker does not want it, and it goes on"


def who_ends_a_session_is_quoted(_before: Frozen, stage: Stage) -> Iterator[str]:
    """In its own words, and with its own code."""
    for step in laws.fired(stage, M.SESSION):
        facts: Any = step.facts
        if isinstance(step.event, e.LinkLost) and step.after == SessionState.CLOSED:
            byes = [
                one.event.message
                for one in laws.fired(stage, M.LINK)
                if isinstance(one.event, Received) and isinstance(one.event.message, m.Bye)
            ]
            for bye in byes:
                if facts.code != bye.code or bye.reason not in facts.reason:
                    yield f"it said {bye}, and the program hears {facts.code}: {facts.reason}"
            if not byes and facts.code == ErrorCode.WORKER_LEAVING:
                yield "this side has said goodbye, and the worker is said to leave"
        if isinstance(step.event, e.RoomRefused | e.WorkerRefused):
            if (facts.code, facts.reason) != (step.event.code, step.event.reason):
                yield f"it was refused with {step.event.code}, and the program hears {facts.code}"


def one_link_is_kept(_before: Frozen, stage: Stage) -> Iterator[str]:
    session = stage.world.get(M.SESSION, SESSION)
    if session is not None and session.state is SessionState.ATTACHED:
        alive = [link.subject for link in stage.world.live(M.LINK)
                 if link.state is not LinkState.CLOSING]  # fmt: skip
        if alive != [session.facts.link]:
            yield f"it has {session.facts.link}, and keeps {alive}"


def it_knows_where_it_stands(_before: Frozen, stage: Stage) -> Iterator[str]:
    inside = stage.state(M.SIGNALLING, THE_SERVER) in {
        SignallingState.REGISTERED,
        SignallingState.STALE,
    }
    near = any(
        link.state in {LinkState.SECURING, LinkState.AUTHENTICATING}
        for link in stage.world.moving(M.LINK)
    )
    for session in stage.world.live(M.SESSION):
        if (session.facts.in_room, session.facts.near) != (inside, near):
            yield f"in the room: {inside}, near: {near}; it believes {session.facts}"


# --- what can happen ------------------------------------------------------------------------------


def _made(stage: Stage) -> None:
    """`Sessions.dial` has asked for a link."""
    stage.tasks.discard((M.SESSION, SESSION, f.Dial))
    free = [link for link in LINKS if stage.world.get(M.LINK, link) is None]
    if free:
        generation = stage.facts(M.SESSION, SESSION).dialled
        event = e.DialRequested(peer="w-1", session=SESSION, generation=generation)
        stage.feed(M.LINK, free[0], event)


def _hello(link: str, key: str = KEY, version: int = 1) -> Received:
    message = m.Hello(versions=(version,), role="worker", key=key, nonce="N")
    return Received(message=message, link=link)


def _link(stage: Stage, link: str) -> Iterator[tuple[str, Event]]:
    instance = stage.world.get(M.LINK, link)
    if instance is None:
        return
    yield from two_clients.PATH.get(instance.state, ())
    if instance.state is not LinkState.CLOSING:
        yield "is answered", e.RecvAnswer(sdp="v=0")
    if instance.state is LinkState.AUTHENTICATING:
        yield "says hello", _hello(link)
        yield "says hello of another version", _hello(link, version=7)
        yield "says hello with another key", _hello(link, key="Kx")
        yield "proves", Received(message=m.Proof(signature="S"), link=link)
        yield "speaks", e.FrameArrived(number=1, expected=1, message=m.Jobs(jobs=()))
        yield "says nonsense", e.FrameRefused(code=ErrorCode.MALFORMED, strikes=1)
    if instance.state in laws.UP:
        for word in two_clients.LIFE:
            yield type(word).__name__, Received(message=word, link=link)
        sent_away = m.Bye(code=ErrorCode.MALFORMED, reason="nonsense")
        yield "says why it sends us away", Received(message=sent_away, link=link)
        for number, expected in ((0, 1), (1, 1), (1, 2), (2, 1)):
            frame = e.FrameArrived(number=number, expected=expected)
            yield f"sends number {number} of {expected}", frame
        yield "says nonsense", e.FrameRefused(code=ErrorCode.MALFORMED, strikes=1)
        yield "says nonsense again", e.FrameRefused(code=ErrorCode.MALFORMED, strikes=STRIKES)
    if instance.state is LinkState.CLOSING:
        yield from (pair for pair in two_clients.LATE if not isinstance(pair[1], e.SentAnswer))
        yield "is answered late", e.RecvAnswer(sdp="v=0")
    else:
        yield "is left by the program", e.WorkerStopping()
    if instance.state is not LinkState.CHECKING:  # there it finds none
        yield "loses its path", e.IceFailed()
    yield from two_clients.BREAKS


def moves(stage: Stage) -> Iterator[Move]:
    """Everything that can happen."""
    session = stage.world.get(M.SESSION, SESSION)
    if (M.SESSION, SESSION, f.Dial) in stage.tasks:
        yield Move("the link is made", Kind.MANAGER, _made)
    yield from sources.time_moves(stage)
    yield from sources.manager_moves(stage)
    second = stage.state(M.LINK, LINKS[1])
    alone = [link.subject for link in stage.world.moving(M.LINK)][:1]
    for link in alone:
        for name, event in _link(stage, link) if second is None else two_clients.BREAKS:
            yield sources.fact(f"{link} {name}", Kind.PEER, M.LINK, link, event)
    if second is LinkState.NEGOTIATING:
        yield Move("the second link proves itself", Kind.PEER, _second)
        yield sources.fact("the second link fails", Kind.PEER, M.LINK, LINKS[1], e.PeerClosed())
    if second is None:
        yield from sources.failure_moves(stage, (M.SESSION, M.LINK, M.SIGNALLING))
    # while a link is made, only the loss of the server matters, and that it refuses us for good
    quiet = bool(alone) and (session is None or session.state is not SessionState.ATTACHED)
    proves = any(link.state is LinkState.AUTHENTICATING for link in stage.world.live(M.LINK))
    heard = ("is lost", "refuses the token") if proves else ("is lost",)
    for move in server.words(stage):
        if "r-2" not in move.name and (not quiet or any(word in move.name for word in heard)):
            yield move
    if session is not None and session.state is SessionState.ATTACHED:
        for message in sources.messages((M.SESSION,), Direction.TO_CLIENT):
            if Direction.TO_CLIENT in ROW_OF[type(message)].direction:
                said = Received(message=message, link=session.facts.link, session=SESSION, key=KEY)
                name = f"the worker: {type(message).__name__}"
                yield sources.fact(name, Kind.PEER, M.SESSION, SESSION, said)
        facts: tuple[Event, ...] = (e.OutOfStep(), e.OutboxFilled(), e.WorkerStopping())
    elif session is not None:
        facts = (e.OutboxFilled(), e.WorkerStopping())
    else:
        facts = ()
        for event in (e.PeerClosed(), e.FrameArrived()):
            yield sources.fact(f"l-0 {type(event).__name__}", Kind.PEER, M.LINK, "l-0", event)
    for event in facts:
        yield sources.fact(type(event).__name__, Kind.OPERATOR, M.SESSION, SESSION, event)
    if session is not None:
        refusal = e.WorkerRefused(code=ErrorCode.NOT_AUTHENTICATED, reason="it is not there")
        yield sources.fact("the worker is not there", Kind.SERVER, M.SESSION, SESSION, refusal)
        given_up = e.LinkRefused(reason="no network path")
        yield sources.fact("the worker gives a link up", Kind.PEER, M.SESSION, SESSION, given_up)
    elif stage.state(M.SIGNALLING, THE_SERVER) is not SignallingState.DOWN:
        yield sources.fact(
            "the client ends", Kind.OPERATOR, M.SIGNALLING, THE_SERVER, e.WorkerStopping()
        )


def _second(stage: Stage) -> None:
    link = LINKS[1]
    for event in (
        e.RecvAnswer(sdp="v=0"),
        e.IceCompleted(),
        e.ControlOpened(native=True),
        _hello(link),
        Received(message=m.Proof(signature="S"), link=link),
        e.ProofChecked(proved=True, trusted=True, rights=("submit",)),
    ):
        if stage.world.get(M.LINK, link) is not None:
            stage.feed(M.LINK, link, event)


def first() -> Stage:
    """A client that was started."""
    stage = Stage(client_world())
    stage.feed(M.SIGNALLING, THE_SERVER, e.Started())
    stage.feed(M.SESSION, SESSION, e.Started())
    return stage


def settle(stage: Stage) -> None:
    """Generations are counted from one; reasons are for people, but a server's last one."""
    last = stage.facts(M.SIGNALLING, THE_SERVER).reason
    server.settle_server(stage)
    if stage.state(M.SIGNALLING, THE_SERVER) is SignallingState.REFUSED:  # it is told later
        room = stage.world.machines[M.SIGNALLING][THE_SERVER]
        room.facts = structs.replace(room.facts, reason=last)
    alive = stage.world.machines[M.LINK]
    if LINKS[0] not in alive and LINKS[1] in alive:
        instance = alive.pop(LINKS[1])
        instance.subject = LINKS[0]
        alive[LINKS[0]] = instance
        names = {LINKS[1]: LINKS[0]}
        stage.tasks = {(a, names.get(b, b), c) for a, b, c in stage.tasks}
        stage.open = {(a, names.get(b, b)) for a, b in stage.open}
        for session in stage.world.moving(M.SESSION):
            facts = session.facts
            session.facts = structs.replace(facts, link=names.get(facts.link, facts.link))
    session = stage.world.get(M.SESSION, SESSION)
    numbers = {link.facts.generation for link in alive.values()}
    if session is not None:
        numbers |= {session.facts.generation, session.facts.dialled}
    rank = {number: place for place, number in enumerate(sorted({0, *numbers}))}
    for link in alive.values():
        link.facts = structs.replace(link.facts, reason="", generation=rank[link.facts.generation])
    if session is not None:
        session.facts = structs.replace(
            session.facts, generation=rank[session.facts.generation],
            dialled=rank[session.facts.dialled], reason="",
        )  # fmt: skip
    stage.tasks = {task for task in stage.tasks if _is_waited_for(stage, task)}


def _is_waited_for(stage: Stage, task: Task) -> bool:
    machine, subject, kind = task
    state = stage.state(machine, subject)
    if kind is f.Dial:
        return state is SessionState.DETACHED
    if kind is f.CheckProof:
        return state is LinkState.AUTHENTICATING
    return kind in laws.WORK.get((machine, state), ())


CLIENT = Product(
    name="a client: session, links, signalling",
    world=client_world,
    first=first,
    moves=moves,
    everywhere=(*laws.EVERYBODY, who_waits_for_a_link_dials_again),
    always=(
        who_can_dial_does,
        an_answer_is_taken,
        what_the_worker_says_reaches_the_program,
        a_session_that_ends_says_why,
        who_ends_a_session_is_quoted,
        one_link_is_kept,
        it_knows_where_it_stands,
        *laws.LINK_LAWS,
        laws.a_socket_that_is_not_used_is_closed,
        laws.who_waits_to_be_registered_has_asked,
    ),
    sometimes={
        **{
            f"a link is {state}": lambda stage, state=state: any(
                step.machine is M.LINK and step.after == state for step in stage.steps
            )
            for state in LinkState
            if state is not LinkState.NEW
        },
        **{
            f"the session is {state}": lambda stage, state=state: any(
                step.machine is M.SESSION and step.after == state for step in stage.steps
            )
            for state in SessionState
            if state is not SessionState.NEW
        },
        "a session is resumed": lambda stage: any(
            step.machine is M.SESSION and step.before == SessionState.DETACHED
            and step.after == SessionState.ATTACHED
            and getattr(step.facts, "welcomed", False) for step in stage.steps
        ),
        "a client that was welcomed hears that its server refuses it": lambda stage: any(
            isinstance(step.event, e.RoomRefused) and bool(step.row) for step in stage.steps
        ),
        "a link that has its answer comes up after the server's refusal": lambda stage: any(
            isinstance(step.event, e.LinkUp) and bool(step.row) for step in stage.steps
        ) and stage.state(M.SIGNALLING, THE_SERVER) is SignallingState.REFUSED,
        "another worker's key does not resume it": lambda stage: any(
            isinstance(step.event, e.SessionEnded) and bool(step.row) for step in stage.steps
        ),
    },
    at_rest=lambda stage: not any(stage.world.live(name) for name in (M.LINK, M.SESSION)),
    settle=settle,
)  # fmt: skip
