"""Who can say what: the sources of every event that a product feeds.

Messages come from the message table, timers from what is armed, failures of effects from the rows
that ask for them, forced events from the coupling table. Answers of managers are listed here, in
every kind that a guard tells apart. A test proves that no event of any table is without a source.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any

from msgspec import structs

from fsm_worker import effects as f
from fsm_worker import events as e
from fsm_worker.effects import Do, Effect
from fsm_worker.events import EffectFailed, Event, Timer, event_name
from fsm_worker.machines.engine import Table
from fsm_worker.machines.job import ON_GPU
from fsm_worker.machines.world import THE_WORKER
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import (
    JobState,
    ReceivingState,
    ResultsState,
    SendingState,
    WorkerState,
)
from protocol.table import MESSAGES, Direction, MachineName, Right
from tests.exploration.explorer import Kind, Move, exit_of, name_of
from tests.exploration.stage import TASKS, Stage, Task
from tests.machines.puppet import SIZE
from tests.protocol import samples
from tests.protocol.samples import ROOT

M = MachineName
PACKED = m.ResultsInfo(state=ResultsState.HELD, size=SIZE, root=ROOT, files=2)
IN_SHARED = m.ResultsInfo(
    state=ResultsState.SHARED, size=SIZE, files=2, folder="out", manifest=ROOT
)
PROBLEM = m.Problem(code=ErrorCode.SCRIPT_REFUSED, sentence="rm is no runner", line=1)
WRONG = "0" * 64

#: How the effects that take time end, where nothing fails that an exception would say.
ANSWERS: dict[type[Effect], tuple[Event, ...]] = {
    f.ProbeHost: (e.ProbeSucceeded(capabilities=m.Capabilities()), e.ProbeFailed(reason="driver")),
    f.KillEverything: (e.EverythingKilled(),),
    f.HandleConnection: (e.SentAnswer(),),
    f.Farewell: (e.Flushed(),),
    f.CheckProof: (
        e.ProofChecked(proved=True, trusted=True, rights=("submit",)),
        e.ProofChecked(proved=False, trusted=False, reason="not proved"),
        e.ProofChecked(proved=True, trusted=False, reason="not known"),
    ),
    f.ValidatePackage: (
        e.ValidationPassed(stages=1),
        e.ValidationPassed(stages=2),
        e.ValidationFailed(problems=(PROBLEM,)),
    ),
    f.PrepareRun: (e.Prepared(gpu_free=True), e.Prepared(gpu_free=False, reason="taken")),
    f.CollectOutputs: (e.Collected(results=PACKED), e.CollectFailed(reason="disk")),
    f.DiscardOutputs: (e.Collected(results=m.ResultsInfo()),),
    f.VerifyIncoming: (e.DigestMatched(), e.DigestMismatched()),
    f.SendRanges: (e.SourceFailed(reason="changed"),),
    f.OpenSocket: (e.SocketOpened(), e.SocketFailed(reason="refused")),
    f.CheckPackage: (
        e.PackageChecked(root=ROOT, job="job-of-a-guest", stages=("digits",)),
        e.PackageChecked(reason="too few bytes"),
    ),
    f.CheckInput: (
        e.InputChecked(path="in", stages=("digits",)),
        e.InputChecked(path="in", reason="it is not there"),
    ),
    f.CheckOutput: (
        e.OutputChecked(path="out"),
        e.OutputChecked(path="out", reason="it is not a folder"),
    ),
    f.FeedPackage: (),
    f.HandOver: (e.HandedOver(files=1),),
}
#: What comes of bytes that arrive.
ARRIVING: tuple[Event, ...] = (
    e.ChunksCompleted(),
    e.FileProgressed(),
    e.StorageFailed(code=ErrorCode.DISK_FULL, reason="full"),
)
#: Answers of tasks that nobody waits for any more, by where they come too late.
LATE: tuple[tuple[MachineName, frozenset[Any], tuple[Event, ...]], ...] = (
    (
        M.WORKER,
        frozenset(WorkerState) - {WorkerState.STARTING, WorkerState.DEGRADED},
        ANSWERS[f.ProbeHost],
    ),
    (
        M.WORKER,
        frozenset(WorkerState) - {WorkerState.CLEANING, WorkerState.DEGRADED},
        (e.CleanSucceeded(), e.CleanFailed(reason="late")),
    ),
    (M.JOB, frozenset({JobState.COLLECTING}), ANSWERS[f.PrepareRun]),
    (M.RECEIVING, frozenset({ReceivingState.SUSPENDED}), ARRIVING),
    (M.RECEIVING, frozenset({ReceivingState.VERIFYING}), ARRIVING),
    (M.RECEIVING, frozenset({ReceivingState.RECEIVING}), ANSWERS[f.VerifyIncoming]),
    (M.SENDING, frozenset({SendingState.SUSPENDED}), ANSWERS[f.SendRanges]),
)


def time_moves(
    stage: Stage, skip: Callable[[MachineName], bool] = lambda _: False
) -> Iterator[Move]:
    """Every timer that runs can run out."""
    for machine, subject, timer in stage.timers():
        if not skip(machine):
            yield Move(
                name_of(machine, subject, timer), Kind.TIME,
                partial(_expire, machine=machine, subject=subject, timer=timer),
            )  # fmt: skip


def _expire(stage: Stage, machine: MachineName, subject: str, timer: Timer) -> None:
    stage.expire((machine, subject), timer)


def manager_moves(stage: Stage) -> Iterator[Move]:
    """Every task that is under way can end in each of its ways, or fail."""
    for task in sorted(stage.tasks, key=str):
        machine, subject, kind = task
        where = f"{kind.method()} of {machine} {subject}"
        if kind is f.StartStage:
            yield from _process(stage, task)
            continue
        if kind is f.CleanSlot:
            yield from _cleaning(stage, task)
        answers = ANSWERS.get(kind, ())
        if kind is f.CollectOutputs and stage.facts(machine, subject).shared:
            answers = (e.Collected(results=IN_SHARED), *answers[1:])
        for number, event in enumerate(answers):
            name = f"{where}: {event_name(type(event))} {number}"
            by_itself = Kind.PROCESS if kind is f.KillEverything else Kind.MANAGER
            yield Move(name, by_itself, partial(_answers, task=task, event=event))
        yield Move(f"{where} fails", Kind.MANAGER, partial(_answers, task=task, event=failed(kind)))


def _answers(stage: Stage, task: Task, event: Event) -> None:
    if isinstance(event, e.EverythingKilled):
        _kill(stage, every=True)
    stage.answer(task, event)


def _kill(stage: Stage, *, every: bool) -> None:
    """What can be killed is dead."""
    for job, process in list(stage.processes.items()):
        if process.mortal and (every or stage.state(M.JOB, job) not in ON_GPU):
            del stage.processes[job]
            stage.tasks.discard((M.JOB, job, f.StartStage))


def _cleaning(stage: Stage, task: Task) -> Iterator[Move]:
    """Proof that no process is left is given only where none is."""

    def clean(stage: Stage) -> None:
        _kill(stage, every=False)
        stage.answer(task, e.CleanSucceeded())

    left = [job for job, process in stage.processes.items() if not process.mortal]
    if not left:
        yield Move(f"clean_slot of {task[1]} succeeds", Kind.MANAGER, clean)
    yield Move(
        f"clean_slot of {task[1]} finds something", Kind.MANAGER,
        partial(_answers, task=task, event=e.CleanFailed(reason="it is there")),
    )  # fmt: skip


def _process(stage: Stage, task: Task) -> Iterator[Move]:
    """A process ends, by itself or because it was asked to; some cannot be killed."""
    machine, job, _ = task
    process = stage.processes.get(job)
    if process is None:
        return
    stage_number = stage.facts(machine, job).stage

    def exits(stage: Stage, *, ok: bool, out_of_memory: bool = False) -> None:
        del stage.processes[job]
        stage.answer(
            task,
            e.ProcessExited(
                stage=stage_number, ok=ok, out_of_memory=out_of_memory, reason="it ended"
            ),
        )

    def fails(stage: Stage) -> None:
        del stage.processes[job]
        stage.answer(task, failed(f.StartStage))

    def hangs(stage: Stage) -> None:
        stage.processes[job] = process._replace(mortal=False)

    if process.mortal:
        yield Move(exit_of(job), Kind.PROCESS, partial(exits, ok=True))
        yield Move(f"{job} exits badly", Kind.PROCESS, partial(exits, ok=False))
        yield Move(
            f"{job} runs out of memory", Kind.PROCESS, partial(exits, ok=False, out_of_memory=True)
        )
        yield Move(f"{job} does not start", Kind.MANAGER, fails)
        yield Move(f"{job} hangs in the kernel", Kind.MANAGER, hangs)
    else:
        yield Move(f"{job} dies after all", Kind.MANAGER, partial(exits, ok=False))


def failed(kind: type[Effect]) -> EffectFailed:
    """What the runtime says of an effect that raised."""
    return EffectFailed(effect=kind.method(), reason="it broke", code=ErrorCode.INTERNAL)


@cache
def _asked_in(table: Table[Any, Any], state: Any) -> tuple[type[Effect], ...]:
    """Effects that a row asks for on its way into this state, one of each that guards tell apart.

    A worker that is asked for an effect can fail at it, and says so while the machine is still
    where the row has led it.
    """
    guards = {g for row in table.rows if row.on is EffectFailed for g in row.guards}
    kinds: dict[tuple[bool, ...], type[Effect]] = {}
    for row in table.rows:
        if row.to is not None and row.to is not state:
            continue
        if row.to is None and state not in row.sources:
            continue
        for entry in row.effects:
            kind = entry.effect if isinstance(entry, Do) else entry
            if kind is not f.StartTimer and kind not in TASKS:
                facts = table.facts()
                told = tuple(
                    guard.test(facts, failed(kind))
                    for guard in sorted(guards, key=str)
                    if guard.name.endswith("_failed")
                )
                kinds.setdefault(told, kind)
    return tuple(kinds.values())


def arriving_moves(stage: Stage) -> Iterator[Move]:
    """Bytes of a file arrive."""
    for file in stage.world.live(M.RECEIVING):
        if file.state is ReceivingState.RECEIVING:
            for event in ARRIVING:
                name = f"{file.subject}: {event_name(type(event))}"
                yield fact(name, Kind.MANAGER, M.RECEIVING, file.subject, event)


def late_moves(stage: Stage) -> Iterator[Move]:
    """Answers that come when nobody waits for them any more."""
    for name, states, events in LATE:
        for instance in stage.world.moving(name):
            if instance.state in states:
                for number, event in enumerate(events):
                    what = f"{event_name(type(event))} {number} of {name} {instance.subject}"
                    yield fact(f"late {what}", Kind.MANAGER, name, instance.subject, event)


def failure_moves(stage: Stage, machines: Iterable[MachineName]) -> Iterator[Move]:
    """An effect that is performed at once can fail."""
    for name in machines:
        for instance in stage.world.live(name):
            for kind in _asked_in(stage.world.tables[name], instance.state):
                what = f"{kind.method()} of {name} {instance.subject} fails"
                yield fact(what, Kind.MANAGER, name, instance.subject, failed(kind))


def _feed(stage: Stage, address: tuple[MachineName, str], event: Event) -> None:
    stage.feed(*address, event)


def fact(name: str, kind: Kind, machine: MachineName, subject: str, event: Event) -> Move:
    """A move that is one event."""
    return Move(name, kind, partial(_feed, address=(machine, subject), event=event))


def worker_facts() -> Iterator[Move]:
    """The operator, and the disk that the journal is on."""
    yield fact("SIGTERM", Kind.OPERATOR, M.WORKER, THE_WORKER, e.TerminateRequested())
    yield fact(
        "the journal breaks", Kind.OPERATOR, M.WORKER, THE_WORKER, e.JournalFailed(reason="full")
    )


# --- messages -------------------------------------------------------------------------------------


def messages(machines: Iterable[MachineName], direction: Direction) -> Iterator[m.Message]:
    """One of every message that these machines hear, from the message table."""
    wanted = set(machines)
    for row in MESSAGES:
        if row.machine in wanted and direction in row.direction:
            yield samples.BY_TYPE[row.message]


def about(message: m.Message, *, job: str, transfer: int, session: str = "") -> m.Message:
    """The same message of this job and transfer, with a root that is right."""
    fields = set(message.__struct_fields__)
    changed: dict[str, Any] = {}
    for field, value in (("job", job), ("transfer", transfer), ("root", ROOT)):
        if field in fields:
            changed[field] = value
    if session and "session" in fields:
        changed["session"] = session
    return structs.replace(message, **changed)


def belongs_to_transfer(message: m.Message) -> bool:
    """Whether it is of a file that is on its way already."""
    return any(row.right is Right.OWN_TRANSFER for row in MESSAGES if row.message is type(message))
