"""Signalling x worker, with one client and one job, so that a lost server can disturb somebody."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from msgspec import structs

from fsm_worker import events as e
from fsm_worker.machines.world import THE_SERVER, THE_WORKER
from fsm_worker.machines.worlds import worker_world
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, SignallingState, WorkerState
from protocol.table import MachineName
from tests.exploration import alice, jobs, sources
from tests.exploration import invariants as laws
from tests.exploration.explorer import Kind, Move, Product
from tests.exploration.stage import Stage

M, W, S = MachineName, WorkerState, SignallingState

#: What the server can say and do while the socket is open, and what is heard late.
SAYS = (
    ("registers the worker in r-1", e.RecvRegistered(room="r-1")),
    ("registers the worker in r-2", e.RecvRegistered(room="r-2")),
    ("is full", e.RecvRefusal(final=False, code=ErrorCode.ABORTED, reason="full")),
    (
        "refuses the token",
        e.RecvRefusal(final=True, code=ErrorCode.NOT_AUTHENTICATED, reason="token"),
    ),
    ("speaks", e.SignalArrived()),
    ("is lost", e.SocketFailed(reason="lost")),
)


def words(stage: Stage) -> Iterator[Move]:
    """What the server does; a word of a room is an answer to a registration."""
    state = stage.state(M.SIGNALLING, THE_SERVER)
    for name, event in SAYS:
        answer = isinstance(event, e.RecvRegistered)
        if not answer or state is not S.CONNECTING:
            if state is not S.CONNECTING or not isinstance(event, e.RecvRefusal):
                yield sources.fact(
                    f"the server {name}", Kind.SERVER, M.SIGNALLING, THE_SERVER, event
                )
    if state in {S.BACKOFF, S.DOWN, S.REFUSED}:
        yield sources.fact(
            "the socket opens late", Kind.SERVER, M.SIGNALLING, THE_SERVER, e.SocketOpened()
        )
    if state is S.DOWN and M.WORKER in stage.world.tables and not _gone(stage):
        yield sources.fact(
            "the worker looks for its server", Kind.OPERATOR, M.SIGNALLING, THE_SERVER, e.Started()
        )


def _gone(stage: Stage) -> bool:
    return bool(stage.facts(M.WORKER, THE_WORKER).gone)


def settle_server(stage: Stage) -> None:
    """Attempts are counted no further than to one; reasons are for people."""
    server = stage.world.machines[M.SIGNALLING][THE_SERVER]
    server.facts = structs.replace(server.facts, tries=min(server.facts.tries, 1), reason="")


def settle(stage: Stage) -> None:
    """The same, and what `jobs` forgets."""
    jobs.settle(stage)
    settle_server(stage)
    server = stage.world.machines[M.SIGNALLING][THE_SERVER]
    server.facts = structs.replace(server.facts, code="")  # only a client asks for it
    stage.tasks |= {
        (M.SIGNALLING, THE_SERVER, kind)
        for kind in laws.WORK.get((M.SIGNALLING, stage.state(M.SIGNALLING, THE_SERVER)), ())
        if (M.SIGNALLING, THE_SERVER) in stage.open
    }


#: The job has its ordinary course here.
_OF_THE_JOB = (
    "prepared 0", "exits well", "collected 0", "timer collect", "timer retention", "timer prepare",
)  # fmt: skip


def moves(stage: Stage) -> Iterator[Move]:
    """The server in full; of the rest so much as is needed to see what it disturbs."""
    for move in (*sources.time_moves(stage, jobs.not_a_link), *sources.manager_moves(stage)):
        if alice.JOB not in move.name or any(word in move.name for word in _OF_THE_JOB):
            yield move
    yield from sources.failure_moves(stage, (M.SIGNALLING,))
    yield from words(stage)
    changed = sources.fact(
        "the status changes", Kind.MANAGER, M.SIGNALLING, THE_SERVER, e.StatusChanged()
    )
    yield changed
    if stage.status is not W.STARTING and not stage.world.all(M.JOB):
        yield from alice.presence(stage)
    if stage.status is W.AVAILABLE and stage.world.get(M.JOB, alice.JOB) is None:
        if stage.world.get(M.SESSION, alice.SESSION) is None:
            yield Move("a job is handed in", Kind.PEER, partial(alice.hand_in, job=alice.JOB))
    if stage.status is not W.STOPPED:
        yield from list(sources.worker_facts())[:1]


def at_rest(stage: Stage) -> bool:
    """Whatever the server does: the worker and all else are at rest."""
    return jobs.at_rest(stage)


def _reached(state: Any) -> Any:
    return lambda stage: stage.state(M.SIGNALLING, THE_SERVER) is state


SERVER = Product(
    name="signalling, worker",
    world=worker_world,
    first=jobs.first,
    moves=moves,
    everywhere=laws.EVERYBODY,
    always=(*laws.SERVER_LAWS, *laws.WORKER_LAWS, *laws.JOB_LAWS),
    sometimes={
        **{f"signalling is {state}": _reached(state) for state in S},
        "a refused worker finishes its job, and leaves": lambda stage: (
            stage.status is W.STOPPED
            and stage.state(M.SIGNALLING, THE_SERVER) is S.REFUSED
            and stage.state(M.JOB, alice.JOB) is JobState.DONE
        ),
        "a job runs without a server": lambda stage: (
            stage.state(M.JOB, alice.JOB) is JobState.RUNNING
            and stage.state(M.SIGNALLING, THE_SERVER) is S.BACKOFF
        ),
    },
    at_rest=at_rest,
    settle=settle,
)
