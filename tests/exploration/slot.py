"""Worker x reservation x break x a job of each of two keys.

Alice operates the worker, and hands a job in step by step; bob's comes at once. Both speak whenever
they like, and what they need is compared at any time later, or in vain: their links are explored
by themselves in `links`.
"""

from collections.abc import Iterator
from functools import partial

from msgspec import structs

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.effects import Effect
from fsm_worker.events import Event
from fsm_worker.machines.reservation import HOLDS, RENEWALS
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.machines.worlds import worker_world
from protocol import messages as m
from protocol.lifecycle import JobState, WorkerState
from protocol.table import MachineName
from tests.exploration import invariants as laws
from tests.exploration import jobs, sources
from tests.exploration.alice import ALICE, JOB, OTHER
from tests.exploration.explorer import Kind, Move, Product
from tests.exploration.stage import Stage
from tests.machines.puppet import submission

M, W, J = MachineName, WorkerState, JobState
BOB = "bob"
OWNERS = {JOB: ALICE, OTHER: BOB}
#: Why alice wants a break.
WHY = "a new fan"
#: What else can become of a job is explored in `jobs`.
_OF_A_JOB = ("prepared 0", "exits well", "timer")
ASKS: tuple[tuple[str, m.Message], ...] = (
    ("reserves", m.Reserve(need={"cpus": "2"})),
    ("releases", m.Release()),
)
OPERATES: tuple[tuple[str, m.Message], ...] = (
    ("drains", m.Drain(reason=WHY)),
    ("drains, with a deadline", m.Drain(reason=WHY, deadline_s=60.0)),
    ("undrains", m.Undrain()),
)


def compared(key: str) -> Iterator[Move]:
    """What was asked for at some time is answered now."""
    answers: dict[str, Event] = {
        "is met": e.NeedChecked(key=key, session=f"s-{key}"),
        "can't be compared": e.NeedCheckFailed(key=key, session=f"s-{key}"),
    }
    if key == ALICE:
        unmet = ("vram is not met",)
        answers["is not met"] = e.NeedChecked(key=key, session=f"s-{key}", unmet=unmet)
    for name, event in answers.items():
        yield sources.fact(f"what {key} needs {name}", Kind.MANAGER, M.WORKER, THE_WORKER, event)


def says(stage: Stage, key: str, message: m.Message) -> None:
    stage.say(message, f"l-{key}", f"s-{key}", key, operates=key == ALICE)


def submits(stage: Stage, job: str) -> None:
    says(stage, OWNERS[job], submission(job))


def package_comes(stage: Stage, job: str) -> None:
    if stage.state(M.JOB, job) is J.STAGING:
        stage.feed(M.JOB, job, e.InputStored(name="package.zip"))


def hands_in(stage: Stage, job: str) -> None:
    submits(stage, job)
    package_comes(stage, job)


def react(stage: Stage, effect: Effect) -> None:
    """Packages are read at once, and outputs packed: there are none."""
    match effect:
        case f.ValidatePackage():
            stage.soon(M.JOB, effect.subject, e.ValidationPassed(stages=1))
        case f.CollectOutputs() | f.DiscardOutputs():
            stage.soon(M.JOB, effect.subject, e.Collected(results=m.ResultsInfo()))
        case _:
            pass


def moves(stage: Stage) -> Iterator[Move]:
    """Everything that can happen to the free slot."""
    for move in (*sources.time_moves(stage), *sources.manager_moves(stage)):
        of_a_job = JOB in move.name or OTHER in move.name
        if not of_a_job or any(word in move.name for word in _OF_A_JOB):
            yield move
    if stage.status is W.STOPPED:
        return
    yield from sources.worker_facts()
    for key in (ALICE, BOB):
        yield from compared(key)
        for name, message in (*ASKS, *(OPERATES if key == ALICE else ())):
            yield Move(f"{key} {name}", Kind.PEER, partial(says, key=key, message=message))
    if stage.status is not W.STOPPING:
        if stage.world.get(M.JOB, JOB) is None:
            yield Move("alice submits", Kind.PEER, partial(submits, job=JOB))
        if stage.world.get(M.JOB, OTHER) is None:
            yield Move("bob hands in", Kind.PEER, partial(hands_in, job=OTHER))
    if stage.state(M.JOB, JOB) is J.STAGING:
        yield Move("alice's package comes", Kind.PEER, partial(package_comes, job=JOB))
    if stage.world.live(M.JOB) and stage.world.get(M.JOB, JOB) is not None:
        cancel = m.Cancel(job=JOB)
        yield Move("alice cancels", Kind.PEER, partial(says, key=ALICE, message=cancel))


def settle(stage: Stage) -> None:
    """A reservation that was held or renewed once is near its end; an old one is forgotten."""
    worker = stage.world.machines[M.WORKER][THE_WORKER]
    told = worker.facts.reason == WHY and not worker.facts.leaving
    jobs.settle(stage)
    facts = worker.facts
    if told and worker.state not in {W.STOPPING, W.STOPPED}:
        facts = structs.replace(facts, reason=WHY)
    if worker.state is W.RESERVED:
        if 0 < facts.holds < HOLDS - 1:
            facts = structs.replace(facts, holds=HOLDS - 1)
        if 0 < facts.renewals < RENEWALS - 1:
            facts = structs.replace(facts, renewals=RENEWALS - 1)
    else:
        facts = structs.replace(facts, holder="", renewals=0, holds=0, claimed=False)
    if worker.state is not W.DRAINING:
        facts = structs.replace(facts, grace_s=0.0)
    worker.facts = facts


def _leaves_reserved(event: type, code: str = "") -> object:
    def seen(stage: Stage) -> bool:
        return any(
            step.machine is M.WORKER and step.before == W.RESERVED and isinstance(step.event, event)
            and (not code or any(getattr(one, "code", "") == code for one in step.effects))
            for step in stage.steps
        )  # fmt: skip

    return seen


SLOT = Product(
    name="worker, reservation, break, two keys",
    world=worker_world,
    first=jobs.first,
    moves=moves,
    everywhere=laws.EVERYBODY,
    always=(*laws.WORKER_LAWS, *laws.SLOT_LAWS, *laws.JOB_LAWS),
    sometimes={
        **{
            f"the worker is {state}": lambda stage, state=state: stage.status is state
            for state in W
        },
        "a reservation is claimed": _leaves_reserved(e.ReservationClaimed),
        "a reservation is not claimed any more": _leaves_reserved(e.ReservationUnclaimed),
        "a reservation is held to its limit": lambda stage: (
            stage.status is W.RESERVED and stage.facts(M.WORKER, THE_WORKER).holds == HOLDS
        ),
        "a reservation is renewed to its limit": lambda stage: (
            stage.status is W.RESERVED and stage.facts(M.WORKER, THE_WORKER).renewals == RENEWALS
        ),
        "bob waits for alice's reservation": lambda stage: (
            stage.status is W.RESERVED
            and stage.facts(M.WORKER, THE_WORKER).holder == ALICE
            and stage.state(M.JOB, OTHER) is J.QUEUED
        ),
        "a job gets the slot that was kept for it": _leaves_reserved(e.SlotRequested),
        "a job is stopped for a break": lambda stage: any(
            isinstance(step.event, e.DrainOverdue) and step.after == J.STOPPING
            for step in stage.steps
        ),
        "a job finishes before a break": lambda stage: (
            stage.status is W.MAINTENANCE and stage.state(M.JOB, JOB) is J.DONE
        ),
        "jobs wait for the end of a break": lambda stage: (
            stage.status is W.MAINTENANCE and stage.state(M.JOB, OTHER) is J.QUEUED
        ),
    },
    at_rest=jobs.at_rest,
    settle=settle,
    react=react,
)
