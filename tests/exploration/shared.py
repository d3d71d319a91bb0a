"""A job in the shared storage x its results, which stay there."""

from collections.abc import Iterator
from functools import partial

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.machines.worlds import worker_world
from protocol import messages as m
from protocol.lifecycle import JobState, ResultsState, WorkerState
from protocol.table import MachineName
from tests.exploration import invariants as laws
from tests.exploration import jobs, sources
from tests.exploration.alice import JOB, say, words
from tests.exploration.explorer import Kind, Move, Product
from tests.exploration.stage import Stage
from tests.machines.puppet import submission

M, W, J = MachineName, WorkerState, JobState


def first() -> Stage:
    """A worker that is available."""
    stage = jobs.first()
    stage.answer(
        (M.WORKER, THE_WORKER, f.ProbeHost), e.ProbeSucceeded(capabilities=m.Capabilities())
    )
    return stage


def moves(stage: Stage) -> Iterator[Move]:
    """The whole course of the job; its owner can speak at any time."""
    yield from sources.time_moves(stage)
    for move in sources.manager_moves(stage):
        if JOB in move.name or "fails" not in move.name:
            yield move
    yield from sources.failure_moves(stage, (M.JOB, M.RESULTS))
    if stage.status is W.STOPPED:
        return
    yield from sources.worker_facts()
    if stage.world.get(M.JOB, JOB) is None:
        if stage.status is W.AVAILABLE:
            message = submission(JOB, wall_s=60.0, shared=True)
            yield Move("alice: Submit (shared)", Kind.PEER, partial(say, message=message))
        return
    for name, message in words(stage, JOB, (M.JOB, M.RESULTS)):
        yield Move(f"alice: {name}", Kind.PEER, partial(say, message=message))


SHARED = Product(
    name="worker, job in the shared storage, results",
    world=worker_world,
    first=first,
    moves=moves,
    everywhere=laws.EVERYBODY,
    always=jobs.LAWS,
    sometimes={
        **{
            f"the job is {state}": lambda stage, state=state: stage.state(M.JOB, JOB) is state
            for state in J
            if state not in {J.NEW, J.STAGING, J.QUEUED}
        },
        "its results are in the shared storage": lambda stage: (
            stage.state(M.RESULTS, JOB) is ResultsState.SHARED
        ),
        "it has no results": lambda stage: stage.state(M.RESULTS, JOB) is ResultsState.EXPIRED,
    },
    at_rest=jobs.at_rest,
    settle=jobs.settle,
)
