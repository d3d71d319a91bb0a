"""A world with everything around it played, that can be frozen, compared and thawed.

What grows without end is made finite where a state is frozen: serials of timers are counted anew,
and each product renames what it numbers (links, generations, transfers).
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fsm_worker import effects as f
from fsm_worker.effects import Effect
from fsm_worker.events import Event, Received, Timer, TimerExpired
from fsm_worker.machines.defaults import seconds
from fsm_worker.machines.engine import Instance, Step, Verdict
from fsm_worker.machines.routing import route
from fsm_worker.machines.world import THE_WORKER, World
from protocol import messages as m
from protocol.errors import ProtocolError
from protocol.table import MachineName

M = MachineName
Task = tuple[MachineName, str, type[Effect]]
Address = tuple[MachineName, str]

#: Effects that take time: whoever performs them answers later, or never.
TASKS: tuple[type[Effect], ...] = (
    f.ProbeHost,
    f.CleanSlot,
    f.KillEverything,
    f.HandleConnection,
    f.Farewell,
    f.CheckProof,
    f.ValidatePackage,
    f.PrepareRun,
    f.StartStage,
    f.CollectOutputs,
    f.DiscardOutputs,
    f.VerifyIncoming,
    f.SendRanges,
    f.OpenSocket,
    f.CheckPackage,
    f.CheckInput,
    f.CheckOutput,
    f.FeedPackage,
    f.HandOver,
    f.MakeOffer,
    f.Dial,
    f.AskSlot,
)
#: What else an effect ends, beside what it says.
ENDS: dict[type[Effect], tuple[type[Effect], ...]] = {
    f.StopSending: (f.SendRanges,),
    f.AbortOutgoing: (f.SendRanges,),
    f.DropPackage: (f.CheckPackage, f.FeedPackage, f.HandOver),
    f.ClosePeer: (f.HandleConnection, f.Farewell, f.CheckProof, f.MakeOffer),
    f.TurnAway: (f.HandleConnection, f.Farewell, f.CheckProof),
    f.CloseSocket: (f.OpenSocket,),
}
#: How hard a job's process was asked to end; a harder way is not taken back.
ASKED: dict[type[Effect], int] = {
    f.RequestStop: 1,
    f.InterruptTree: 2,
    f.TerminateTree: 3,
    f.KillTree: 4,
}


class Process(NamedTuple):
    """The process tree of a job."""

    mortal: bool = True  # it ends when it is killed
    asked: int = 0  # see ASKED


class Kept(NamedTuple):
    """One machine, frozen."""

    name: MachineName
    subject: str
    state: Any
    facts: Any
    armed: tuple[Timer, ...]


class Frozen(NamedTuple):
    """Everything that can make a difference later."""

    moving: tuple[Kept, ...]
    ended: tuple[Kept, ...]
    transfers: int
    tasks: frozenset[Task]
    processes: tuple[tuple[str, Process], ...]
    open: frozenset[Address]  # peer connections and sockets that nobody has closed
    peers: Any  # what a product keeps beside


#: Machines whose order says who came first.
_ORDERED = {M.JOB, M.RECEIVING}


class Stage:
    """A world at work.

    Args:
        world: the machines.
        peers: what a product keeps of those who talk to the worker; hashable.
    """

    def __init__(self, world: World, peers: Any = ()) -> None:
        self.world = world
        self.tasks: set[Task] = set()
        self.processes: dict[str, Process] = {}
        self.open: set[Address] = set()
        self.peers = peers
        self.steps: list[Step] = []
        self.effects: list[Effect] = []
        self.fired: dict[MachineName, list[Step]] = {}  # those of rows
        self.objections: list[str] = []  # what was said against the move that was made
        self.lapsed = False  # a timer has run out, and no row has fired
        self.react: Callable[[Stage, Effect], None] | None = None
        self._reactions: deque[tuple[MachineName, str, Event]] = deque()

    # --- freezing --------------------------------------------------------------------------------

    def freeze(self) -> Frozen:
        """The state as a value."""
        moving: list[Kept] = []
        for name, machines in self.world.machines.items():
            subjects = list(machines) if name in _ORDERED else sorted(machines)
            moving += [_kept(name, machines[subject]) for subject in subjects]
        ended = [
            _kept(name, machines[subject])
            for name, machines in self.world.ended.items()
            for subject in sorted(machines)
        ]
        return Frozen(
            tuple(moving),
            tuple(ended),
            self.world.transfers,
            frozenset(self.tasks),
            tuple(sorted(self.processes.items())),
            frozenset(self.open),
            self.peers,
        )

    def is_as(self, before: Frozen) -> bool:
        """Whether nothing has happened since: what is frozen need not be frozen again."""
        return (
            not self.fired
            and not self.lapsed
            and self.peers == before.peers
            and self.world.transfers == before.transfers
            and self.tasks == before.tasks
            and self.processes == dict(before.processes)
            and self.open == before.open
        )

    @classmethod
    def thaw(cls, frozen: Frozen, world: World) -> "Stage":
        """A stage in this state; `world` is empty, or is overwritten."""
        stage = cls(world, frozen.peers)
        for machines in (*world.machines.values(), *world.ended.values()):
            machines.clear()
        for kept, into in (
            *((kept, world.machines) for kept in frozen.moving),
            *((kept, world.ended) for kept in frozen.ended),
        ):
            instance: Instance[Any, Any] = Instance(
                world.tables[kept.name], kept.subject, kept.facts
            )
            instance.state = kept.state
            instance.armed = {timer: number + 1 for number, timer in enumerate(kept.armed)}
            instance.serial = len(kept.armed)
            into[kept.name][kept.subject] = instance
        world.transfers = frozen.transfers
        stage.tasks = set(frozen.tasks)
        stage.processes = dict(frozen.processes)
        stage.open = set(frozen.open)
        return stage

    # --- events in -------------------------------------------------------------------------------

    def feed(self, machine: MachineName, subject: str, event: Event) -> list[Step]:
        """One event, everything it forces, and all reactions to that."""
        self._reactions.append((machine, subject, event))
        first: list[Step] = []
        while self._reactions:
            steps = self.world.feed(*self._reactions.popleft())
            first = first or steps
            self.steps += steps
            for step in steps:
                if step.verdict is Verdict.ROW:
                    self.fired.setdefault(step.machine, []).append(step)
                for effect in step.effects:
                    self._perform(step, effect)
        return first

    def soon(self, machine: MachineName, subject: str, event: Event) -> None:
        """An event that comes before any other from outside."""
        self._reactions.append((machine, subject, event))

    def expire(self, address: Address, timer: Timer) -> None:
        """An armed timer runs out."""
        instance = self.world.get(*address)
        if instance is not None and timer in instance.armed:
            serial = instance.armed[timer]
            self.feed(*address, TimerExpired(timer=timer, serial=serial))
            if instance.armed.get(timer) == serial:  # it ran, and nobody has armed it again
                del instance.armed[timer]
                self.lapsed = True

    def answer(self, task: Task, event: Event) -> None:
        """A task ends with this event."""
        self.tasks.discard(task)
        self.feed(task[0], task[1], event)

    def say(
        self, message: m.Message, link: str, session: str, key: str, *, operates: bool = False
    ) -> list[Step]:
        """A message of a peer, by the real routing; nothing, where its right is missing."""
        rights = ("submit", "operate") if operates else ("submit",)
        try:
            machine, subject = route(
                self.world, message, link=link, session=session, key=key, rights=rights
            )
        except ProtocolError:
            return []
        alive = sum(job.facts.owner == key for job in self.world.live(M.JOB))
        return self.feed(
            machine,
            subject,
            Received(message=message, link=link, session=session, key=key, alive=alive),
        )

    # --- looking ---------------------------------------------------------------------------------

    def timers(self) -> Iterator[tuple[MachineName, str, Timer]]:
        """Timers that run."""
        for name, machines in self.world.machines.items():
            for subject, instance in machines.items():
                for timer in instance.armed:
                    if seconds(timer, instance.facts, {}) is not None:
                        yield name, subject, timer

    def state(self, machine: MachineName, subject: str) -> Any:
        """A machine's state, or None if there is none."""
        instance = self.world.get(machine, subject)
        return instance.state if instance is not None else None

    def facts(self, machine: MachineName, subject: str) -> Any:
        """A machine's facts, or None."""
        instance = self.world.get(machine, subject)
        return instance.facts if instance is not None else None

    @property
    def status(self) -> Any:
        """The worker's state."""
        return self.state(M.WORKER, THE_WORKER)

    # --- effects out -----------------------------------------------------------------------------

    def _perform(self, step: Step, effect: Effect) -> None:
        kind = type(effect)
        address = (step.machine, step.subject)
        self.effects.append(effect)
        if kind in TASKS:
            self.tasks.add((*address, kind))
        for ended in ENDS.get(kind, ()):
            self.tasks.discard((*address, ended))
        match effect:
            case f.StartStage():
                if effect.subject in self.processes:
                    self.objections.append(f"{effect.subject} has a process already")
                self.processes[effect.subject] = Process()
            case f.RequestStop() | f.InterruptTree() | f.TerminateTree() | f.KillTree():
                process = self.processes.get(effect.subject)
                if process is not None:
                    level = max(process.asked, ASKED[kind])
                    self.processes[effect.subject] = process._replace(asked=level)
            case f.HandleConnection() | f.OpenSocket() | f.MakeOffer():
                self.open.add(address)
            case f.ClosePeer() | f.TurnAway() | f.CloseSocket():
                self.open.discard(address)
            case _:
                pass
        if self.react is not None:
            self.react(self, effect)


def _kept(name: MachineName, instance: Instance[Any, Any]) -> Kept:
    return Kept(
        name, instance.subject, instance.state, instance.facts, tuple(sorted(instance.armed))
    )
