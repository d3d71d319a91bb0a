"""Worker x reservation x a negotiation through the signaling server x the job that comes for it.

The worker is asked for the slot some time after the peer has asked, so that everything can happen
meanwhile; what it answers is heard at once, but for what it says of the job: that may be lost.
"""

from collections.abc import Iterator
from functools import partial

from msgspec import structs

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.effects import Effect
from fsm_worker.events import Event, Received
from fsm_worker.machines.engine import Verdict
from fsm_worker.machines.reservation import RENEWALS
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.machines.worlds import worker_world
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, TalkState, WorkerState
from protocol.table import MachineName
from tests.exploration import invariants as laws
from tests.exploration import shared, slot, sources
from tests.exploration.alice import JOB
from tests.exploration.explorer import Kind, Move, Product
from tests.exploration.stage import Stage
from tests.exploration.talk_laws import PLACE, TALK_EVERYWHERE, TALK_LAWS
from tests.machines.puppet import submission

M, W, J, T = MachineName, WorkerState, JobState, TalkState
PEER, KEY, LABEL = "p-1", "sleap-rtc:p-1", "7f2c"
NEED, IN_VAIN = (("cpus", "2"),), (("vram", "80GiB"),)
MAY_NOT = "it may submit no job here"
ASK = (M.TALK, PLACE, f.AskSlot)

#: What reaches a negotiation late, or is the worker's word of a job.
HEARS: tuple[Event, ...] = (
    e.SlotKept(seconds=30.0),
    e.SlotReleased(),
    e.SlotLost(code=ErrorCode.RESERVATION_EXPIRED, reason="late"),
    e.DropRefused(code=ErrorCode.NOT_HOLDER),
    e.JobTold(state=J.RUNNING),
    e.JobTold(state=J.DONE, outcome=Outcome.SUCCEEDED),
    sources.failed(f.TellKept),
)


def _asks(stage: Stage, need: tuple[tuple[str, str], ...], reason: str = "") -> None:
    jobs = stage.world.moving(M.JOB)
    stage.feed(M.TALK, PLACE, e.JobAsked(
        peer=PEER, key=KEY, label=LABEL, need=need, reason=reason,
        older=tuple(job.subject for job in jobs),
    ))  # fmt: skip


def _is_asked(stage: Stage) -> None:
    """The worker hears the question."""
    stage.tasks.discard(ASK)
    facts = stage.facts(M.TALK, PLACE)
    message = m.Reserve(need=dict(facts.need if facts is not None else NEED))
    stage.feed(M.WORKER, THE_WORKER, Received(message=message, session=PLACE, key=KEY))


def _says_of_its_job(stage: Stage, message: m.Message) -> None:
    stage.say(message, "l-1", "guest-l-1", KEY)


def react(stage: Stage, effect: Effect) -> None:
    """What the lane and the coordinator do at once."""
    slot.react(stage, effect)
    event, talk = effect.event, (M.TALK, PLACE)
    match effect:
        case f.CheckNeed(event=Received(message=m.Reserve(need=need)) as asker):
            unmet = tuple(f"{name} is not met" for name in need if name != "cpus")
            compared = e.NeedChecked(key=asker.key, session=asker.session, unmet=unmet)
            stage.soon(M.WORKER, THE_WORKER, compared)
        case f.GiveSlotBack() | f.ThrowJobAway():
            job = effect.facts.job
            message: m.Message = m.Cancel(job=job) if job else m.Release()
            to = (M.JOB, job) if job else (M.WORKER, THE_WORKER)
            stage.soon(*to, Received(message=message, session=PLACE, key=KEY))
        case f.GrantReservation():
            stage.soon(*talk, e.SlotKept(seconds=30.0))
        case f.RefuseReservation(code=code):
            stage.soon(*talk, e.SlotRefused(code=code, reason="no"))
        case f.EndReservation(code=code):
            stage.soon(*talk, e.SlotLost(code=code, reason="over"))
        case f.ConfirmRelease():
            stage.soon(*talk, e.SlotReleased())
        case f.ReplyError(code=code) if getattr(event, "session", "") == PLACE:
            stage.soon(*talk, e.DropRefused(code=code))
        case f.CleanSlot():
            stage.soon(M.WORKER, THE_WORKER, e.CleanSucceeded())
        case _:
            pass


def moves(stage: Stage) -> Iterator[Move]:
    """Everything that can happen."""
    yield from sources.time_moves(stage)
    for move in sources.manager_moves(stage):
        if any(word in move.name for word in ("prepared 0", "exits well")):
            yield move
    if stage.status in {W.STOPPING, W.STOPPED}:
        return
    if stage.status is W.RESERVED and stage.world.get(M.JOB, JOB) is None:
        yield sources.fact("SIGTERM", Kind.OPERATOR, M.WORKER, THE_WORKER, e.TerminateRequested())
    if ASK in stage.tasks:
        yield Move("the worker is asked", Kind.MANAGER, _is_asked)
    for need in (NEED, IN_VAIN):
        yield Move(f"asks for {need[0][0]}", Kind.PEER, partial(_asks, need=need))
    yield Move("asks, and may not", Kind.PEER, partial(_asks, need=NEED, reason=MAY_NOT))
    for reason in ("", MAY_NOT):
        for kind in (e.JobAssigned, e.JobDropped):
            said = kind(peer=PEER, label=LABEL, reason=reason)
            name = f"{kind.__name__}{reason and ', and may not'}"
            yield sources.fact(name, Kind.PEER, M.TALK, PLACE, said)
    for number, event in enumerate(HEARS):
        name = f"{type(event).__name__} {number}"
        yield sources.fact(name, Kind.MANAGER, M.TALK, PLACE, event)
    yield from _its_job(stage)


def _its_job(stage: Stage) -> Iterator[Move]:
    """A job of the peer comes, ready or not."""
    state = stage.state(M.JOB, JOB)
    if state is None and stage.status in {W.AVAILABLE, W.RESERVED}:
        said = partial(_says_of_its_job, message=submission(JOB))
        yield Move("its job comes", Kind.PEER, said)
    if state is J.STAGING:
        refused = e.InputRefused(name="package.zip", code=ErrorCode.DISK_FULL, reason="full")
        yield sources.fact(
            "its package comes", Kind.PEER, M.JOB, JOB, e.InputStored(name="package.zip")
        )
        yield sources.fact("its package is refused", Kind.PEER, M.JOB, JOB, refused)
        stop = partial(_says_of_its_job, message=m.Cancel(job=JOB))
        yield Move("its guest cancels", Kind.PEER, stop)


def settle(stage: Stage) -> None:
    """As for the slot; and what a negotiation needs is of no matter once it was asked for."""
    asked = ASK in stage.tasks and stage.state(M.TALK, PLACE) is not None
    slot.settle(stage)
    stage.tasks |= {ASK} if asked else set()
    worker = stage.world.machines[M.WORKER][THE_WORKER]
    if worker.facts.holds or worker.facts.renewals:
        worker.facts = structs.replace(
            worker.facts, holds=0, renewals=RENEWALS if worker.facts.renewals else 0
        )
    for job in stage.world.ended[M.JOB].values():
        job.facts = type(job.facts)(owner=KEY, outcome=Outcome.FAILED)
    for results in stage.world.ended[M.RESULTS].values():
        results.facts = type(results.facts)()


TALKS = Product(
    name="worker, negotiation, its job",
    world=worker_world,
    first=shared.first,
    moves=moves,
    everywhere=(*laws.EVERYBODY, *TALK_EVERYWHERE),
    always=(*TALK_LAWS, *laws.SLOT_LAWS),
    sometimes={
        **{
            f"a negotiation is {state}": lambda stage, state=state: any(
                step.machine is M.TALK and step.after == state and step.verdict is Verdict.ROW
                for step in stage.steps
            )
            for state in T
            if state is not T.NEW
        },
        "a job that was there before is none of it": lambda stage: (
            stage.state(M.TALK, PLACE) is T.KEPT and stage.state(M.JOB, JOB) is J.STAGING
        ),
        "its job is at work": lambda stage: (
            stage.state(M.TALK, PLACE) is T.WORKING and stage.status is W.BUSY
        ),
        "the word of its end is lost": lambda stage: any(
            step.machine is M.TALK and step.before == T.ENDING
            and isinstance(step.event, e.TimerExpired) for step in stage.steps
        ),
    },
    at_rest=lambda stage: stage.status in shared.jobs.REST and not stage.world.live(M.TALK)
    and not stage.world.live(M.JOB),
    settle=settle,
    react=react,
)  # fmt: skip
