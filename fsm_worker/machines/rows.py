"""The words that a table is written in: guards, assignments, rows, and what is ignored."""

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from msgspec import Struct

from fsm_worker.effects import Do, Effect
from fsm_worker.events import EffectFailed, Event, On


class Guard(NamedTuple):
    """A named predicate over facts and event, or its negation."""

    name: str
    test: Callable[[Any, Any], bool]
    negated: bool = False

    def __invert__(self) -> "Guard":
        return self._replace(negated=not self.negated)

    def __str__(self) -> str:
        return f"not {self.name}" if self.negated else self.name

    def holds(self, facts: Struct, event: Event) -> bool:
        """Whether the row may fire as far as this guard goes."""
        return self.test(facts, event) is not self.negated


def failure_of(*effects: type[Effect]) -> Guard:
    """Whether the failed effect is one of these: a word that was not sent fails no job."""
    names = frozenset(effect.method() for effect in effects)
    words = "_or_".join(effect.method() for effect in effects)

    def failed(_facts: Any, event: Any) -> bool:
        return isinstance(event, EffectFailed) and event.effect in names

    return Guard(f"{words}_failed", failed)


class Put(NamedTuple):
    """One assignment of a row: `field := value`, as it reads in the grid."""

    field: str
    text: str
    value: Callable[[Any, Any], Any]


def put(field: str, value: object) -> Put:
    """A constant."""
    return Put(
        field,
        f"{field} := {value.value if isinstance(value, Enum) else value}",
        lambda _f, _e: value,
    )


def take(field: str, source: str = "") -> Put:
    """The event's field of the same (or the given) name; a received message's field first."""
    name = source or field

    def read(_facts: Any, event: Any) -> Any:
        message = getattr(event, "message", None)
        return getattr(message if hasattr(message, name) else event, name)

    return Put(field, f"{field} := event.{name}", read)


def fold(field: str, text: str, value: Callable[[Any, Any], Any]) -> Put:
    """Anything else, with the words that the grid shows."""
    return Put(field, text, value)


class Row(NamedTuple):
    """One row of a table. `to` None means: stay."""

    id: str
    sources: tuple[Any, ...]
    on: On
    guards: tuple[Guard, ...]
    to: Any | None
    sets: tuple[Put, ...] = ()
    effects: tuple[type[Effect] | Do, ...] = ()

    def holds(self, facts: Struct, event: Event) -> bool:
        """Whether all guards hold."""
        return all(guard.holds(facts, event) for guard in self.guards)


class Ignored(NamedTuple):
    """Pairs that change nothing, and why."""

    states: tuple[Any, ...]
    on: tuple[On, ...]
    reason: str
