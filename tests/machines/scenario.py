"""One case for one row: given a state, when an event comes, then exactly this happens.

A module of cases says what should happen, in its own words, and never reads the table's columns.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import pytest
from msgspec import structs

from fsm_worker.effects import Effect, StartTimer
from fsm_worker.events import Event, Timer, TimerExpired
from fsm_worker.machines.engine import Instance, Table, Verdict

#: The machine does not leave its state: timers go on.
STAYS = ""
SUBJECT = "digits-20260801-1"
_SERIAL = 7


class Says:
    """A text for people that has these words in it."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.words in other

    def __hash__(self) -> int:
        return hash(self.words)

    def __repr__(self) -> str:
        return f"…{self.words}…"


class Case(NamedTuple):
    """A row's id and what it does."""

    row: str
    given: str  # the states in which it does so
    when: Event | Timer
    then: str  # the state afterwards, or STAYS
    #: As `Name` or `Name(parameter)`, with spaces between. One that says a sentence is given by its
    #: code and words in it, `Name(code: words)`; then ` | ` stands between.
    effects: str
    having: dict[str, Any]  # facts before, where they matter
    changed: dict[str, Any]  # facts that are different afterwards


def case(
    row: str,
    given: str,
    when: Event | Timer,
    then: str,
    effects: str = "",
    having: dict[str, Any] | None = None,
    **changed: Any,
) -> Case:
    """A case; the keywords are the facts that change, and no other may."""
    return Case(row, given, when, then, effects, having or {}, changed)


def each(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Runs a test once for every case and starting state; the id names the row."""
    pairs = [(entry, state) for entry in cases for state in entry.given.split()]
    return pytest.mark.parametrize(
        ("entry", "state"), pairs, ids=[f"{entry.row}-{state}" for entry, state in pairs]
    )


def play(table: Table[Any, Any], entry: Case, state: str) -> None:
    """Puts a machine into the state, lets the event come, and compares everything."""
    instance = Instance(table, SUBJECT, structs.replace(table.facts(), **entry.having))
    instance.state = table.states(state)
    instance.serial = _SERIAL
    other = Timer.CLEAN if "clean" not in f"{entry.effects} {entry.when}" else Timer.DELAY
    instance.armed = {other: 1}
    event = entry.when
    if isinstance(event, Timer):
        instance.armed[event] = _SERIAL
        event = TimerExpired(timer=event, serial=_SERIAL)
    before = structs.asdict(instance.facts)

    step = instance.step(event)

    assert step.verdict is Verdict.ROW, step.sentence
    assert step.row == entry.row
    assert step.after == (entry.then or state)
    after = structs.asdict(instance.facts)
    assert {name: value for name, value in after.items() if value != before[name]} == entry.changed
    assert [_shown(effect) for effect in step.effects] == _listed(entry.effects)
    assert (other in instance.armed) is (entry.then == STAYS), "a state's timers end with it"


def _shown(effect: Effect) -> str:
    own = [
        name
        for name in type(effect).__struct_fields__
        if name not in {*Effect.__struct_fields__, "serial", "machine"}
    ]
    assert isinstance(effect, StartTimer) or effect.subject == SUBJECT
    values = [str(getattr(effect, name)) for name in own]
    return f"{type(effect).__name__}({', '.join(values)})" if values else type(effect).__name__


class _Said:
    """`Name(code: words)`."""

    def __init__(self, name: str, code: str, words: str) -> None:
        self.start, self.words = f"{name}({code}, ", words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and other.startswith(self.start) and self.words in other

    def __hash__(self) -> int:
        return hash(self.start)

    def __repr__(self) -> str:
        return f"{self.start}…{self.words}…)"


_SAYS = re.compile(r"(\w+)\((\w+): (.*)\)")


def _listed(effects: str) -> list[object]:
    listed: list[object] = []
    for part in effects.split(" | "):
        said = _SAYS.fullmatch(part)
        listed += [_Said(*said.groups())] if said else part.replace("Timer(", "StartTimer(").split()
    return listed


def covered(cases: Iterable[Case]) -> set[tuple[str, str]]:
    """The (row, state) pairs that have a case."""
    return {(entry.row, state) for entry in cases for state in entry.given.split()}


def declared(table: Table[Any, Any]) -> set[tuple[str, str]]:
    """The (row, state) pairs of a table."""
    return {(row.id, source.value) for row in table.rows for source in row.sources}
