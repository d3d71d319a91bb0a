"""Worker x one job x results x attachment; the files of a job; and worker x two jobs."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from msgspec import structs

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.events import Received
from fsm_worker.facts import Why
from fsm_worker.machines.job import ON_GPU
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.machines.worlds import worker_world
from protocol import messages as m
from protocol.lifecycle import (
    JobState,
    Outcome,
    ReceivingState,
    ResultsState,
    WorkerState,
)
from protocol.table import MachineName
from tests.exploration import invariants as laws
from tests.exploration import sources
from tests.exploration.alice import (
    ALICE,
    JOB,
    OTHER,
    UPLOADS_TO,
    comes,
    hand_in,
    is_here,
    presence,
    say,
    talk,
    uploads,
)
from tests.exploration.explorer import Kind, Move, Product
from tests.exploration.stage import Stage, Task
from tests.machines.puppet import submission

M, W, J = MachineName, WorkerState, JobState

#: Whatever it is.
BROKEN = "it is broken"

LAWS = (*laws.WORKER_LAWS, *laws.JOB_LAWS, *laws.FILE_LAWS)


def progress(stage: Stage, job: str) -> Iterator[Move]:
    """Bytes move, and the trainer speaks."""
    for machine, event in ((M.JOB, e.FileProgressed()), (M.RESULTS, e.FileProgressed())):
        if stage.world.get(machine, job) is not None:
            yield sources.fact(f"bytes of {machine} {job}", Kind.MANAGER, machine, job, event)
    if job in stage.processes:
        event = e.TrainerReported(event="epoch_end")
        yield sources.fact(f"the trainer of {job} speaks", Kind.MANAGER, M.JOB, job, event)


def not_a_link(machine: MachineName) -> bool:
    """Links have a product of their own."""
    return machine is M.LINK


def settle(stage: Stage) -> None:
    """What can make no difference any more is forgotten."""
    machines, ended = stage.world.machines, stage.world.ended
    for session in machines[M.SESSION].values():
        generation = session.facts.generation
        if generation > 1:
            session.facts = structs.replace(session.facts, generation=1)
            for link in machines[M.LINK].values():
                link.facts = structs.replace(link.facts, generation=1)
    for link in machines[M.LINK].values():
        link.armed = dict.fromkeys(link.armed, 1)
    for job in ended[M.JOB].values():
        outcome = job.facts.outcome
        job.facts = structs.replace(
            job.facts, why=Why.NONE, step=0, stage=0, stages=0, problems=(),
            attached=False, stored=(),
            outcome=outcome if outcome is Outcome.REJECTED else Outcome.FAILED,
        )  # fmt: skip
    for results in (*machines[M.RESULTS].values(), *ended[M.RESULTS].values()):
        if results.state is not ResultsState.DELIVERING and results.facts.session:
            results.facts = structs.replace(results.facts, session="")
    if not machines[M.SENDING]:
        stage.world.transfers = 0
    for job in machines[M.JOB].values():
        if job.state is J.COLLECTING:  # the outcome is fixed, whatever it is
            job.facts = structs.replace(
                job.facts, why=Why.NONE, step=0, stage=0, stages=0, problems=(),
                outcome=Outcome.SUCCEEDED,
            )  # fmt: skip
    for subject, process in stage.processes.items():
        if stage.state(M.JOB, subject) not in ON_GPU:
            stage.processes[subject] = process._replace(asked=0)
    # answers that nobody waits for are in `sources.LATE`
    stage.tasks = {task for task in stage.tasks if _is_waited_for(stage, task)}
    worker = stage.world.machines[M.WORKER][THE_WORKER]
    facts = structs.replace(worker.facts, reason=BROKEN if worker.state is W.DEGRADED else "")
    if worker.state is W.STOPPED or facts.forced:  # what is asked now comes too late
        facts = structs.replace(facts, asked=False, packing=False)
    worker.facts = facts


def _is_waited_for(stage: Stage, task: Task) -> bool:
    machine, subject, kind = task
    if kind in {f.StartStage, f.KillEverything}:
        return True
    state = stage.state(machine, subject)
    if machine is M.WORKER:
        looks = {W.DEGRADED, W.STARTING if kind is f.ProbeHost else W.CLEANING}
        newer = kind is f.ProbeHost and (machine, subject, f.CleanSlot) in stage.tasks
        return state in looks and not newer
    return kind in laws.WORK.get((machine, state), ())


def first() -> Stage:
    """A worker that was started."""
    stage = Stage(worker_world())
    stage.feed(M.WORKER, THE_WORKER, e.Started())
    return stage


def one_job(stage: Stage) -> Iterator[Move]:
    """Everything that can happen to a worker with one job."""
    yield from sources.time_moves(stage, not_a_link)
    yield from sources.manager_moves(stage)
    yield from sources.failure_moves(stage, (M.WORKER, M.JOB, M.RESULTS, M.SENDING))
    if stage.status is not W.STARTING:
        yield from presence(stage)
    yield from talk(stage, JOB)
    yield from uploads(stage, JOB)
    yield from progress(stage, JOB)
    if stage.state(M.RESULTS, JOB) is ResultsState.DELIVERING:
        said = Received(message=m.Fetch(job=JOB), link="l-b", session="s-b", key=ALICE)
        yield sources.fact("another session fetches", Kind.PEER, M.RESULTS, JOB, said)
    if not stage.world.live(M.JOB) or stage.state(M.JOB, JOB) is J.COLLECTING:
        yield from sources.late_moves(stage)
    if stage.status is not W.STOPPED:
        yield from sources.worker_facts()


REST = {W.AVAILABLE, W.MAINTENANCE, W.DEGRADED, W.STOPPED}


def at_rest(stage: Stage) -> bool:
    """No job is alive, nothing is on its way, and the worker waits or is gone."""
    if stage.status is W.STOPPED and not stage.facts(M.WORKER, THE_WORKER).gone:
        return False  # its sessions wait to be told
    return stage.status in REST and not any(
        stage.world.live(name)
        for name in (M.JOB, M.RESULTS, M.LINK, M.SESSION, M.RECEIVING, M.SENDING, M.GUEST)
        if name in stage.world.machines
    )


def _state(machine: MachineName, subject: str, *states: Any) -> Any:
    return lambda stage: stage.state(machine, subject) in states


def _ended(outcome: Outcome) -> Any:
    return lambda stage: any(
        step.machine is M.JOB and getattr(step.facts, "outcome", None) is outcome
        for step in stage.steps
    )


SOMETIMES = {
    **{
        f"the worker is {state}": _state(M.WORKER, THE_WORKER, state)
        for state in W
        if state not in {W.RESERVED, W.MAINTENANCE}  # see `slot`
    },
    **{f"a job is {state}": _state(M.JOB, JOB, state) for state in J if state is not J.NEW},
    **{f"results are {state}": _state(M.RESULTS, JOB, state) for state in ResultsState
       if state is not ResultsState.SHARED},
    **{
        f"a job ends as {outcome}": _ended(outcome)
        for outcome in Outcome
        if outcome not in {Outcome.NONE, Outcome.REJECTED}
    },
    "a job runs on while its owner is away": lambda stage: (
        stage.state(M.JOB, JOB) is J.RUNNING and not is_here(stage)
    ),
    "a draining worker finishes its job": lambda stage: (
        stage.status is W.DRAINING and stage.state(M.JOB, JOB) is J.RUNNING
    ),
    "a process can't be killed": lambda stage: (
        stage.state(M.JOB, JOB) is J.DONE and bool(stage.processes)
    ),
    "the second stage runs": lambda stage: (
        stage.state(M.JOB, JOB) is J.RUNNING and stage.facts(M.JOB, JOB).stage == 1
    ),
}  # fmt: skip

ONE_JOB = Product(
    name="worker, job, results, attachment",
    world=worker_world,
    first=first,
    moves=one_job,
    everywhere=laws.EVERYBODY,
    always=LAWS,
    sometimes=SOMETIMES,
    at_rest=at_rest,
    settle=settle,
)


def a_worker_that_is_available() -> Stage:
    """The worker is available, and alice has submitted."""
    stage = first()
    stage.answer(
        (M.WORKER, THE_WORKER, f.ProbeHost), e.ProbeSucceeded(capabilities=m.Capabilities())
    )
    comes(stage)
    say(stage, submission(JOB))
    return stage


def files(stage: Stage) -> Iterator[Move]:
    """Everything that can happen to the input of a job that waits for it."""
    yield from sources.time_moves(stage, not_a_link)
    yield from presence(stage)
    if stage.state(M.JOB, JOB) is not J.STAGING:
        return
    yield from (move for move in sources.manager_moves(stage))
    yield from sources.arriving_moves(stage)
    yield from sources.late_moves(stage)
    yield from sources.failure_moves(stage, (M.RECEIVING,))
    yield from talk(stage, JOB, UPLOADS_TO)
    yield from progress(stage, JOB)
    yield from sources.worker_facts()


FILES = Product(
    name="files of a job, attachment",
    world=worker_world,
    first=a_worker_that_is_available,
    moves=files,
    everywhere=laws.EVERYBODY,
    always=LAWS,
    sometimes={
        **{
            f"a file is {state}": lambda stage, state=state: any(
                step.machine is M.RECEIVING and step.after == state for step in stage.steps
            )
            for state in ReceivingState
            if state is not ReceivingState.OFFERED
        },
        "an upload waits for its sender": lambda stage: any(
            file.state is ReceivingState.SUSPENDED for file in stage.world.moving(M.RECEIVING)
        ),
        "an upload takes over from another": lambda stage: any(
            isinstance(step.event, e.Superseded) and bool(step.row) for step in stage.steps
        ),
        "a file is refused, and the job fails": lambda stage: any(
            isinstance(step.event, e.InputRefused) and step.after == J.DONE for step in stage.steps
        ),
    },
    at_rest=lambda stage: (
        not stage.world.live(M.RECEIVING)
        and not stage.world.live(M.SESSION)
        and stage.state(M.JOB, JOB) is not J.STAGING
    ),
    settle=settle,
)


# --- two jobs -------------------------------------------------------------------------------------


def two_jobs(stage: Stage) -> Iterator[Move]:
    """Two jobs of one owner, who is away, on one slot; only processes and the worker fail."""
    yield from sources.time_moves(stage, not_a_link)
    for move in sources.manager_moves(stage):
        if not any(word in move.name for word in ("fails", "out of memory", "not start", "late")):
            yield move
    if stage.status is not W.STOPPED:
        yield from sources.worker_facts()
    for job in (JOB, OTHER):
        if stage.world.get(M.JOB, job) is None:
            if stage.status not in {W.STARTING, W.STOPPED, W.STOPPING}:
                yield Move(f"{job} is handed in", Kind.PEER, partial(hand_in, job=job))
        elif stage.world.live(M.JOB):
            words = {"cancelled": m.Cancel(job=job), "stopped": m.Stop(job=job)}
            for name, word in words.items():
                yield Move(f"{job} is {name}", Kind.PEER, partial(say, message=word))


TWO_JOBS = Product(
    name="worker, two jobs",
    world=worker_world,
    first=first,
    moves=two_jobs,
    everywhere=laws.EVERYBODY,
    always=LAWS,
    sometimes={
        "one runs, and the other waits": lambda stage: (
            stage.state(M.JOB, JOB) is J.RUNNING and stage.state(M.JOB, OTHER) is J.QUEUED
        ),
        "the other runs while the first is packed": lambda stage: (
            stage.state(M.JOB, JOB) is J.COLLECTING and stage.state(M.JOB, OTHER) is J.RUNNING
        ),
        "both have ended": lambda stage: (
            {stage.state(M.JOB, job) for job in (JOB, OTHER)} == {J.DONE}
        ),
        "one runs where the other could not be killed": lambda stage: any(
            not process.mortal and stage.state(M.JOB, job) is J.DONE
            for job, process in stage.processes.items()
        ),
    },
    at_rest=at_rest,
    settle=settle,
)
