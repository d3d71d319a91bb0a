"""All machines of one process, and the one way to move them.

`feed` gives an event to one machine, then applies the coupling table until nothing more is forced.
The world is pure: it returns what happened and what is to be done, and does nothing itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fsm_worker.events import Event
from fsm_worker.machines.engine import Instance, Step, Table, Verdict
from protocol.table import MachineName

#: Subjects of the machines that a worker has one of.
THE_WORKER = "worker"
THE_SERVER = "signalling"
#: Machines that are forgotten once they have ended and everything coupled to them has moved.
_FORGOTTEN = (
    MachineName.LINK,
    MachineName.SESSION,
    MachineName.RECEIVING,
    MachineName.SENDING,
    MachineName.GUEST,
    MachineName.TALK,
)
_BOUND = 10_000


class CouplingError(RuntimeError):
    """The coupling table has no fixed point: two of its rows undo each other."""


class Forced(NamedTuple):
    """An event that joint facts force on one machine."""

    machine: MachineName
    subject: str
    event: Event


class Coupling(NamedTuple):
    """One row of the coupling table: while `find` yields, the events are forced."""

    id: str
    when: str
    then: str
    find: "Callable[[World], Iterator[Forced]]"


class World:
    """The machines of one worker, or of one client.

    Args:
        tables: the table of each machine that this process has.
        couplings: the coupling table.
    """

    def __init__(
        self, tables: Mapping[MachineName, Table[Any, Any]], couplings: Sequence[Coupling]
    ) -> None:
        self.tables = tables
        self.couplings = tuple(couplings)
        self.machines: dict[MachineName, dict[str, Instance[Any, Any]]] = {
            name: {} for name in tables
        }
        #: Ended jobs and their ended results, aside from what still moves.
        self.ended: dict[MachineName, dict[str, Instance[Any, Any]]] = {
            MachineName.JOB: {},
            MachineName.RESULTS: {},
        }
        self.transfers = 0  # the last transfer number that this side gave out

    def get(self, name: MachineName, subject: str) -> Instance[Any, Any] | None:
        """The machine of that name and subject, if there is one."""
        found = self.machines[name].get(subject)
        if found is None and name in self.ended:
            return self.ended[name].get(subject)
        return found

    def all(self, name: MachineName) -> list[Instance[Any, Any]]:
        """All machines of that name, those that ended first."""
        return [*self.ended.get(name, {}).values(), *self.machines.get(name, {}).values()]

    def moving(self, name: MachineName) -> list[Instance[Any, Any]]:
        """Those that have not ended, or that others may not have noticed the end of."""
        return list(self.machines.get(name, {}).values())

    def live(self, name: MachineName) -> list[Instance[Any, Any]]:
        """Those that have not ended."""
        machines = self.machines.get(name)  # most couplings ask after machines that are not there
        if not machines:
            return []
        return [one for one in machines.values() if one.state not in one.table.final]

    def feed(self, name: MachineName, subject: str, event: Event) -> list[Step]:
        """One event, and everything that it forces.

        Returns:
            The steps in order; the first one is of the event itself.

        Raises:
            CouplingError: the coupling table does not come to rest (a bug of ours).
        """
        steps = [self._step(name, subject, event)]
        if steps[0].verdict is Verdict.ROW:
            self._couple(steps)
            self._put_away(steps)
        return steps

    def _step(self, name: MachineName, subject: str, event: Event) -> Step:
        instance = self.get(name, subject)
        if instance is not None:
            return instance.step(event)
        table = self.tables[name]
        instance = Instance(table, subject)
        step = instance.step(event)
        if step.verdict is Verdict.ROW:
            self.machines[name][subject] = instance
            return step
        return step._replace(verdict=Verdict.STALE, sentence=f"there is no such {name}")

    def _couple(self, steps: list[Step]) -> None:
        moved = True
        while moved:
            moved = False
            for coupling in self.couplings:
                for forced in list(coupling.find(self)):
                    step = self._step(*forced)._replace(coupling=coupling.id)
                    steps.append(step)
                    moved = moved or step.verdict is Verdict.ROW
            if len(steps) > _BOUND:
                raise CouplingError(f"no fixed point after {steps[0].event!r}")

    def _put_away(self, steps: Sequence[Step]) -> None:
        """Everything coupled to what has ended has moved: it is forgotten, or kept aside."""
        for name, subject in dict.fromkeys((step.machine, step.subject) for step in steps):
            ended = self.ended.get(name, {}).get(subject)
            if ended is not None and getattr(ended.facts, "forgotten", False):
                for kept in self.ended.values():
                    kept.pop(subject, None)
            instance = self.machines[name].get(subject)
            if instance is None or not instance.final:
                continue
            if name in _FORGOTTEN:
                del self.machines[name][subject]
            elif name in self.ended:
                self.ended[name][subject] = self.machines[name].pop(subject)
