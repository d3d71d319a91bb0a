"""The engine: one table in, one decision out.

Laws, for every machine:

1. A machine is a transducer. `step` takes one event and gives the row that fired, the new state and
   facts, and the effects to perform. It awaits nothing, and knows no clock and no socket.
2. Every (state, event) is decided: a row, ignored with a reason, or illegal. An illegal event
   changes nothing and says what would have been legal.
3. For one pair at most one row holds, whatever its guards say; the linter proves it.
4. Facts change only by a row's `sets`.
5. A timer lives as long as the state in which it was armed. Leaving the state disarms it.

`transitions` picks the row: guards are its `conditions`, and its `after` callback adds the row's
facts and effects.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct, structs
from transitions import EventData, Machine, State

from fsm_worker.effects import Do, Effect, StartTimer
from fsm_worker.events import Event, On, Timer, TimerExpired, event_name, key_of
from fsm_worker.machines.rows import Guard as Guard
from fsm_worker.machines.rows import Ignored as Ignored
from fsm_worker.machines.rows import Put as Put
from fsm_worker.machines.rows import Row as Row
from fsm_worker.machines.rows import failure_of as failure_of
from fsm_worker.machines.rows import fold as fold
from fsm_worker.machines.rows import put as put
from fsm_worker.machines.rows import take as take
from protocol.table import MachineName

S = TypeVar("S", bound=StrEnum)
F = TypeVar("F", bound=Struct)


class TableError(TypeError):
    """A table breaks a law; the sentence names the row."""


class Verdict(StrEnum):
    """What a machine made of an event."""

    ROW = "row"
    IGNORED = "ignored"
    ILLEGAL = "illegal"
    STALE = "stale"  # a timer or callback of something that is over


class Step(NamedTuple):
    """The outcome of one event."""

    machine: MachineName
    subject: str
    event: Event
    verdict: Verdict
    row: str  # its id; empty unless verdict is ROW
    before: str
    after: str
    facts: Struct
    effects: tuple[Effect, ...]
    sentence: str  # for ILLEGAL: what happened and what is legal; for IGNORED: the reason
    guards: tuple[tuple[str, bool], ...] = ()  # what was asked to pick the row, and its answers
    facts_changed: bool = False
    coupling: str = ""  # the coupling row that forced the event; empty for one from outside


class Table(Generic[S, F]):
    """One machine as data, checked when it is built."""

    def __init__(
        self,
        name: MachineName,
        states: type[S],
        facts: type[F],
        *,
        initial: S,
        final: Iterable[S],
        rows: Sequence[Row],
        ignored: Sequence[Ignored] = (),
        stale: Callable[[F, Event], bool] = lambda _facts, _event: False,
    ) -> None:
        self.name = name
        self.states = states
        self.facts = facts
        self.initial = initial
        self.final = frozenset(final)
        self.rows = tuple(rows)
        self.stale = stale
        self.by_pair: dict[tuple[S, On], tuple[Row, ...]] = {}
        for row in rows:
            for source in row.sources:
                self.by_pair[source, row.on] = (*self.by_pair.get((source, row.on), ()), row)
        self.ignored: dict[tuple[S, On], str] = {
            (state, on): entry.reason
            for entry in ignored
            for state in entry.states
            for on in entry.on
        }
        lint(self)
        self.engine = self._engine()

    def legal(self, state: S) -> tuple[str, ...]:
        """Names of the events that have a row in this state, sorted."""
        return tuple(sorted(event_name(on) for source, on in self.by_pair if source is state))

    def events(self) -> tuple[On, ...]:
        """The closed set of events, sorted by name."""
        seen = {on for _, on in self.by_pair} | {on for _, on in self.ignored}
        return tuple(sorted(seen, key=event_name))

    def _engine(self) -> Machine:
        return Machine(
            model=None,
            states=[State(state, final=state in self.final) for state in self.states],
            initial=self.initial,
            transitions=[
                {
                    "trigger": event_name(row.on),
                    "source": list(row.sources),
                    "dest": row.to,
                    "conditions": [_condition(guard) for guard in row.guards],
                    "after": [_after(row)],
                }
                for row in self.rows
            ],
            auto_transitions=False,
            send_event=True,
            after_state_change=None,
        )


def _condition(guard: Guard) -> Callable[[EventData], bool]:
    def condition(data: EventData) -> bool:
        model: Any = data.model
        return model.asks(guard, data.kwargs["event"]) is not guard.negated

    return condition


def _after(row: Row) -> Callable[[EventData], None]:
    def after(data: EventData) -> None:
        model: Any = data.model
        model.fire(row, data.kwargs["event"])

    return after


class Instance(Generic[S, F]):
    """One machine at work: a state, its facts, and the serials of its armed timers."""

    __slots__ = (
        "_answers",
        "_before",
        "_changed",
        "_effects",
        "_row",
        "armed",
        "facts",
        "serial",
        "state",
        "subject",
        "table",
    )

    def __init__(self, table: Table[S, F], subject: str, facts: F | None = None) -> None:
        self.table = table
        self.subject = subject
        self.state: S = table.initial
        self.facts: F = facts if facts is not None else table.facts()
        self.armed: dict[Timer, int] = {}
        self.serial = 0
        self._before = ""
        self._row: Row | None = None
        self._effects: list[Effect] = []
        self._answers: dict[str, bool] = {}
        self._changed = False

    @property
    def final(self) -> bool:
        """Whether no row leads anywhere else."""
        return self.state in self.table.final

    def step(self, event: Event) -> Step:
        """Decides one event. Never raises for what a peer or the world did."""
        before, on = self.state, key_of(event)
        self._answers, self._changed = {}, False
        if isinstance(event, TimerExpired) and self.armed.get(event.timer) != event.serial:
            return self._said(event, Verdict.STALE, before, "the timer was disarmed")
        if self.table.stale(self.facts, event):
            return self._said(event, Verdict.STALE, before, "it belongs to something that is over")
        if (before, on) in self.table.by_pair:
            self._row, self._effects, self._before = None, [], before.value
            self.table.engine.events[event_name(on)].trigger(self, event=event)
            fired = self._fired()
            if fired is not None:
                return self._stepped(event, before, fired, tuple(self._effects))
        reason = self.table.ignored.get((before, on))
        if reason is not None:
            return self._said(event, Verdict.IGNORED, before, reason)
        return self._said(event, Verdict.ILLEGAL, before, self._objection(before, on, event))

    def asks(self, guard: Guard, event: Event) -> bool:
        """Called by the engine while it looks for the row; the answer is kept for the journal."""
        answer = guard.test(self.facts, event)
        self._answers[guard.name] = answer
        return answer

    def fire(self, row: Row, event: Event) -> None:
        """Called by the engine when it has picked `row`: facts first, then effects."""
        if row.to is not None:  # also when a row leads back to the state it came from
            self.armed.clear()
        if row.sets:
            changed = {entry.field: entry.value(self.facts, event) for entry in row.sets}
            facts = structs.replace(self.facts, **changed)
            self._changed = facts != self.facts
            self.facts = facts
        self._row = row
        for entry in row.effects:
            kind, params = (
                (entry.effect, dict(entry.params)) if isinstance(entry, Do) else (entry, {})
            )
            if kind is StartTimer:
                self.serial += 1
                self.armed[params["timer"]] = self.serial
                params = params | {"machine": self.table.name, "serial": self.serial}
            self._effects.append(
                kind(
                    subject=self.subject,
                    event=event,
                    facts=self.facts,
                    row=row.id,
                    before=self._before,
                    after=self.state.value,
                    **params,
                )
            )

    def _fired(self) -> Row | None:
        """The row that the engine's callback left here, if any guard held."""
        return self._row

    def _stepped(self, event: Event, before: S, row: Row, effects: tuple[Effect, ...]) -> Step:
        return Step(
            self.table.name, self.subject, event, Verdict.ROW, row.id,
            before.value, self.state.value, self.facts, effects, "",
            tuple(self._answers.items()), self._changed,
        )  # fmt: skip

    def _said(self, event: Event, verdict: Verdict, before: S, sentence: str) -> Step:
        return Step(
            self.table.name, self.subject, event, verdict, "",
            before.value, self.state.value, self.facts, (), sentence,
            tuple(self._answers.items()),
        )  # fmt: skip

    def _objection(self, state: S, on: On, event: Event) -> str:
        legal = ", ".join(self.table.legal(state)) or "nothing"
        name = event_name(on)
        rows = self.table.by_pair.get((state, on), ())
        if rows:
            why = " or ".join(
                " and ".join(str(g) for g in row.guards if not g.holds(self.facts, event))
                for row in rows
            )
            return f"{self.table.name} is {state.value}: {name} asks for {why}"
        return f"{self.table.name} is {state.value}: {name} is not legal here; legal: {legal}"


def lint(table: Table[Any, Any]) -> None:
    """Checks the laws of a table.

    Raises:
        TableError: with the machine, the row and what is wrong with it.
    """
    ids = [row.id for row in table.rows]
    _need(len(ids) == len(set(ids)), table, "two rows have one id")
    members: set[Any] = {*table.states.__members__.values()}
    fields = set(table.facts.__struct_fields__)
    for row in table.rows:
        _need(set(row.sources) <= members, table, f"{row.id} starts in an unknown state")
        _need(row.to is None or row.to in members, table, f"{row.id} leads to an unknown state")
        _need(bool(row.sources), table, f"{row.id} starts nowhere")
        unknown = {entry.field for entry in row.sets} - fields
        _need(not unknown, table, f"{row.id} sets unknown facts {sorted(unknown)}")
    for (state, on), rows in table.by_pair.items():
        for index, one in enumerate(rows):
            for other in rows[index + 1 :]:
                _need(
                    _exclusive(one, other),
                    table,
                    f"{one.id} and {other.id} can both hold for ({state.value}, {event_name(on)})",
                )
    for state, on in table.ignored:
        bare = any(not row.guards for row in table.by_pair.get((state, on), ()))
        _need(not bare, table, f"({state.value}, {event_name(on)}) has a row and is ignored")
    reached = {table.initial}
    while (
        more := {row.to for row in table.rows if row.to is not None and reached & set(row.sources)}
        - reached
    ):
        reached |= more
    lost = sorted(state.value for state in members - reached)
    _need(not lost, table, f"no rows lead to {lost}: {_leading(table, reached)}{_gaps(ids)}")
    leaving = {
        source
        for row in table.rows
        for source in row.sources
        if row.to is not None and row.to is not source
    }
    ends = members - leaving
    _need(
        table.final == ends,
        table,
        f"declared final {sorted(table.final)}, but no row leaves {sorted(ends)}: "
        f"{_leading(table, table.final ^ ends)}{_gaps(ids)}",
    )


def _leading(table: Table[Any, Any], sources: AbstractSet[Any]) -> str:
    """Where rows lead from these states: one of them is the wrong one, if none is missing."""
    rows = (row for row in table.rows if sources & set(row.sources))
    ways = [f"{row.id} leads to {row.to.value}" for row in rows if row.to is not None]
    return ", ".join(ways) or "no row leads on"


def _gaps(ids: Sequence[str]) -> str:
    """Which numbers the rows' ids skip: the first thing to look at when a state is out of reach."""
    prefix = ids[0].rstrip("0123456789")
    numbers = {int(row.removeprefix(prefix)) for row in ids}
    skipped = [f"{prefix}{n}" for n in range(1, max(numbers)) if n not in numbers]
    return f"; there is no row {', '.join(skipped)}" if skipped else ""


def _exclusive(one: Row, other: Row) -> bool:
    """Some guard stands in both rows with opposite signs."""
    signs: Mapping[str, bool] = {guard.name: guard.negated for guard in one.guards}
    return any(signs.get(g.name, g.negated) is not g.negated for g in other.guards)


def _need(true: bool, table: Table[Any, Any], sentence: str) -> None:
    if not true:
        raise TableError(f"machine {table.name}: {sentence}")
