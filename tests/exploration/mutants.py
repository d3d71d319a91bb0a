"""Mutants of the tables: each row dropped, guard negated, target redirected, effect dropped."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from fsm_worker.effects import Do
from fsm_worker.machines.engine import Guard, Ignored, Row, Table, TableError
from fsm_worker.machines.registry import MACHINES
from tests.exploration.explorer import Pair

AnyTable = Table[Any, Any]


class Mutant(NamedTuple):
    """One change of one table."""

    table: str  # its name in the registry
    kind: str  # row, guard, target or effect
    name: str  # what was changed, for people; unique
    rows: tuple[Row, ...]

    @property
    def original(self) -> AnyTable:
        """The table that it was made from."""
        return MACHINES[self.table]

    def build(self) -> AnyTable:
        """The mutated table.

        Raises:
            TableError: the linter refuses it.
        """
        table = self.original
        return Table(
            table.name,
            table.states,
            table.facts,
            initial=table.initial,
            final=table.final,
            rows=self.rows,
            ignored=[Ignored((state,), (on,), reason)
                     for (state, on), reason in table.ignored.items()],
            stale=table.stale,
        )  # fmt: skip

    def pairs(self) -> frozenset[Pair]:
        """The pairs that are decided differently, as the explorer knows them."""
        before, after = set(self.original.rows), set(self.rows)
        return frozenset(
            (self.original.name, source.value, row.on)
            for row in before ^ after
            for source in row.sources
        )


def mutants(name: str) -> Iterator[Mutant]:
    """All mutants of one table, in the order of its rows."""
    rows = MACHINES[name].rows
    for place, row in enumerate(rows):

        def changed(kind: str, what: str, *instead: Row, at: int = place) -> Mutant:
            mutated = (*rows[:at], *instead, *rows[at + 1 :])
            return Mutant(name, kind, f"{name} {rows[at].id}: {what}", mutated)

        yield changed("row", "dropped")
        for number, guard in enumerate(row.guards):
            guards = (*row.guards[:number], ~guard, *row.guards[number + 1 :])
            yield changed("guard", f"{guard} negated", row._replace(guards=guards))
            yield Mutant(
                name, "guard", f"{name} {row.id}: {guard} negated in every row of its event",
                tuple(_turned(entry, row, guard) for entry in rows),
            )  # fmt: skip
        for target in _targets(MACHINES[name], row):
            yield changed("target", f"leads to {target.value}", row._replace(to=target))
        for number, effect in enumerate(row.effects):
            effects = (*row.effects[:number], *row.effects[number + 1 :])
            said = str(effect) if isinstance(effect, Do) else effect.__name__
            yield changed("effect", f"{said} dropped", row._replace(effects=effects))


def _turned(entry: Row, row: Row, guard: Guard) -> Row:
    """The predicate itself is wrong: every row that asks for it hears the opposite."""
    if entry.on is not row.on or not set(entry.sources) & set(row.sources):
        return entry
    guards = tuple(~one if one.name == guard.name else one for one in entry.guards)
    return entry._replace(guards=guards)


def _targets(table: AnyTable, row: Row) -> Iterator[Any]:
    """The next state but the right one and the initial one; and no other state at all."""
    if row.to is None:
        return
    states = [state for state in table.states if state not in {row.to, table.initial}]
    following = [
        s for s in states if list(table.states).index(s) > list(table.states).index(row.to)
    ]
    yield (following or states)[0]
    if row.to not in row.sources and len(row.sources) == 1:
        yield row.sources[0]


def unique(name: str) -> list[Mutant]:
    """The mutants of one table without those that are the same table twice."""
    seen: dict[frozenset[Row], Mutant] = {}
    for mutant in mutants(name):
        seen.setdefault(frozenset(mutant.rows), mutant)
    return list(seen.values())


@contextmanager
def swapped(original: AnyTable, mutated: AnyTable) -> Iterator[None]:
    """Puts the mutated rows into the table itself, so that whoever holds it holds the mutant."""
    kept = dict(vars(original))
    vars(original).update(vars(mutated))
    try:
        yield
    finally:
        vars(original).clear()
        vars(original).update(kept)


__all__ = ["Mutant", "TableError", "mutants", "swapped", "unique"]
