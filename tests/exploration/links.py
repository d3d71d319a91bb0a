"""Link x session x two clients x a queue of two frames that loses, doubles and reorders.

Alice is honest: she dials a link of her session, and a second one once the first is about to prove
itself or is up; she numbers what she says, and says again what the worker has not read when she is
welcomed. Mallory has another key; he comes for her session and for his own.
The worker's side of the numbers is as in `seams.sessions`: what is read is counted by session.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import structs

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Event
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.machines.worlds import worker_world
from protocol import messages as m
from protocol.lifecycle import LinkState, SessionState
from tests.exploration import invariants as laws
from tests.exploration import sources
from tests.exploration.explorer import Kind, Move, Product
from tests.exploration.stage import Stage, Task
from tests.exploration.two_clients import (
    BREAKS,
    GONE,
    HIS_LINK,
    LINKS,
    MOST,
    SESSION,
    M,
    Peers,
    dials,
    handshake,
    mallory,
    react,
    talks,
    wire,
)


def moves(stage: Stage) -> Iterator[Move]:
    """Everything that can happen."""
    for move in sources.time_moves(stage):
        if HIS_LINK not in move.name:
            yield move
    for move in sources.manager_moves(stage):
        if HIS_LINK not in move.name:
            yield move
    if stage.world.get(M.LINK, HIS_LINK) is None and not stage.peers.sent:
        yield from sources.failure_moves(stage, (M.LINK, M.SESSION))
    for link, generation in stage.peers.dialled:
        yield from handshake(stage, link, generation)
        yield from talks(stage, link)
    if not stage.peers.dialled:
        for name, event in (*BREAKS, ("speaks", e.FrameArrived()), ("has left", e.Flushed())):
            yield sources.fact(f"{GONE} {name}", Kind.PEER, M.LINK, GONE, event)
    yield from dials(stage)
    yield from wire(stage)
    yield from mallory(stage)
    if stage.state(M.SESSION, SESSION) is SessionState.ATTACHED:
        for name, fact in (("is out of step", e.OutOfStep()), ("reads nothing", e.OutboxFilled())):
            yield sources.fact(f"alice {name}", Kind.PEER, M.SESSION, SESSION, fact)
    if not stage.facts(M.WORKER, THE_WORKER).gone:
        yield sources.fact("SIGTERM", Kind.OPERATOR, M.WORKER, THE_WORKER, e.TerminateRequested())


def settle(stage: Stage) -> None:
    """Her older link is the first, links that are over are one, generations count from one."""
    links = stage.world.machines[M.LINK]
    peers: Peers = stage.peers
    dialled = sorted((number, link) for link, number in peers.dialled if link in links)
    names = {link: LINKS[place] for place, (_, link) in enumerate(dialled)}
    for link in links.values():
        link.facts = structs.replace(link.facts, reason="")
    _rename(stage, names)
    session = stage.world.get(M.SESSION, SESSION)
    numbers = {number for number, _ in dialled}
    if session is not None:
        numbers.add(session.facts.generation)
        session.facts = structs.replace(
            session.facts, link=names.get(session.facts.link, session.facts.link)
        )
    rank = {number: place for place, number in enumerate(sorted(numbers), 1)}
    for number, link in dialled:
        instance = links[names[link]]
        if instance.facts.greeted:
            instance.facts = structs.replace(instance.facts, generation=rank[number])
    if session is not None:
        session.facts = structs.replace(session.facts, generation=rank[session.facts.generation])
    wire = [(names[link], number) for link, number in peers.wire if link in names]
    late = [(GONE, 1)] if any(link not in names for link, _ in peers.wire) else []
    stage.peers = stage.peers._replace(
        dialled=tuple((names[link], rank[number]) for number, link in dialled),
        wire=tuple(sorted([*wire, *late])),
    )
    stage.tasks = {task for task in stage.tasks if _is_waited_for(stage, task)}


def _rename(stage: Stage, names: dict[str, str]) -> None:
    links = stage.world.machines[M.LINK]
    there = {names.get(subject, subject): instance for subject, instance in links.items()}
    links.clear()
    for subject, instance in there.items():
        instance.subject = subject
        links[subject] = instance
    stage.tasks = {
        (machine, names.get(subject, subject) if machine is M.LINK else subject, kind)
        for machine, subject, kind in stage.tasks
    }
    stage.open = {(machine, names.get(subject, subject)) for machine, subject in stage.open}


def _is_waited_for(stage: Stage, task: Task) -> bool:
    machine, subject, kind = task
    if machine is not M.LINK:
        return kind is f.KillEverything
    state = stage.state(machine, subject)
    if kind is f.CheckProof:
        return state is LinkState.AUTHENTICATING
    return kind in laws.WORK.get((machine, state), ())


def first() -> Stage:
    """A worker that is available."""
    stage = Stage(worker_world(), Peers())
    stage.feed(M.WORKER, THE_WORKER, e.Started())
    stage.answer(
        (M.WORKER, THE_WORKER, f.ProbeHost), e.ProbeSucceeded(capabilities=m.Capabilities())
    )
    return stage


def at_rest(stage: Stage) -> bool:
    """Nobody is here, and nobody is waited for."""
    return not any(stage.world.live(name) for name in (M.LINK, M.SESSION))


def _fired(row_event: type[Event], after: str) -> Any:
    return lambda stage: any(
        isinstance(step.event, row_event) and step.after == after and step.row
        for step in stage.steps
    )


LINKS_PRODUCT = Product(
    name="link, session, two clients, a bad wire",
    world=worker_world,
    first=first,
    moves=moves,
    everywhere=laws.EVERYBODY,
    always=(*laws.WORKER_LAWS, *laws.LINK_LAWS),
    sometimes={
        **{
            f"a link is {state}": lambda stage, state=state: any(
                step.machine is M.LINK and step.after == state for step in stage.steps
            )
            for state in LinkState
            if state is not LinkState.NEW
        },
        "both messages are read": lambda stage: stage.peers.read == MOST,
        "a message is read by a later link": lambda stage: (
            stage.peers.read == MOST and GONE in {link for link, _ in stage.peers.wire}
        ),
        "a newer link takes over": _fired(e.Superseded, LinkState.CLOSED),
        "mallory is turned away": _fired(e.SessionEnded, LinkState.CLOSING),
        "a session is resumed": lambda stage: any(
            step.machine is M.SESSION and step.before == SessionState.DETACHED
            and step.after == SessionState.ATTACHED for step in stage.steps
        ),
        "a session ends by its clock": _fired(e.TimerExpired, SessionState.CLOSED),
        "a late frame finds no link": lambda stage: any(
            step.subject == GONE for step in stage.steps
        ),
    },
    at_rest=at_rest,
    settle=settle,
    react=react,
)  # fmt: skip
