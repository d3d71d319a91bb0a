"""The page of one machine: its laws, its pictures, its rows, its timers, its grid."""

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from fsm_worker.diagrams.page import md_table, page
from fsm_worker.diagrams.picture import Picture, pictures
from fsm_worker.diagrams.sources import place_of
from fsm_worker.effects import Do, effect_names
from fsm_worker.events import On, Timer, event_name
from fsm_worker.machines import defaults
from fsm_worker.machines.engine import Row, Table
from fsm_worker.machines.registry import MACHINES

IGNORED = "·"
ILLEGAL_ELSE = "?"


def machine_page(name: str) -> str:
    """The page of one machine: its laws, its picture, its rows, its timers, its grid."""
    table = MACHINES[name]
    return page(
        f"Machine: {name}",
        _laws(name),
        *(_shown(picture) for picture in pictures(table)),
        "## Rows",
        _rows(table),
        *_timers(table),
        "## Grid",
        _grid(table),
        *_reasons(table),
    )


def _laws(name: str) -> str:
    """What the module of the table says of itself."""
    return (importlib.import_module(f"fsm_worker.machines.{name}").__doc__ or "").strip()


def _shown(picture: Picture) -> str:
    title = f"## {picture.title}" if picture.title else "## Picture"
    return f"{title}\n\n```mermaid\n{picture.mermaid}```"


def _rows(table: Table[Any, Any]) -> str:
    return md_table(
        ("row", "from", "event", "guards", "to", "sets", "effects"),
        (
            (
                f"[{row.id}]({place_of(row.id).link})",
                some_states(table, row.sources),
                event_name(row.on),
                " and ".join(str(guard) for guard in row.guards),
                "stays" if row.to is None else row.to.value,
                "<br>".join(entry.text for entry in row.sets),
                "<br>".join(effect_names(row.effects)),
            )
            for row in table.rows
        ),
    )


def some_states(table: Table[Any, Any], some: Iterable[Any]) -> str:
    """The states by name, or what is missing where that is shorter."""
    wanted = set(some)
    members = list(table.states.__members__.values())
    missing = [state.value for state in members if state not in wanted]
    if len(members) > 3 and len(missing) <= 1:
        return f"any but {missing[0]}" if missing else "any"
    return ", ".join(state.value for state in members if state in wanted)


def _timers(table: Table[Any, Any]) -> Iterator[str]:
    armed: dict[Timer, list[str]] = {}
    for row in table.rows:
        for entry in row.effects:
            if isinstance(entry, Do) and "timer" in (params := dict(entry.params)):
                armed.setdefault(params["timer"], []).append(row.id)
    if not armed:
        return
    yield "## Timers"
    yield md_table(
        ("timer", "runs for", "armed by"),
        ((timer.value, _duration(timer), ", ".join(rows)) for timer, rows in sorted(armed.items())),
    )


def _duration(timer: Timer) -> str:
    duration = defaults.SECONDS[timer]
    return "depends on the facts" if callable(duration) else f"{duration:g} s"


def _grid(table: Table[Any, Any]) -> str:
    states = list(table.states.__members__.values())
    reasons = _numbered(table)
    return md_table(
        ("event", *(state.value for state in states)),
        (
            (event_name(on), *(_cell(table, state, on, reasons) for state in states))
            for on in table.events()
        ),
    )


def _cell(table: Table[Any, Any], state: Any, on: On, reasons: Mapping[str, int]) -> str:
    rows = table.by_pair.get((state, on), ())
    words = [row.id for row in rows]
    reason = table.ignored.get((state, on))
    if reason is not None:
        words.append(f"{IGNORED}{reasons[reason]}")
    elif rows and not _decides(rows):
        words.append(ILLEGAL_ELSE)
    return " ".join(words)


def _decides(rows: Sequence[Row]) -> bool:
    """Whether one of the rows holds, whatever their guards say."""
    names = sorted({guard.name for row in rows for guard in row.guards})
    return all(
        any(all(truth[guard.name] is not guard.negated for guard in row.guards) for row in rows)
        for values in product((False, True), repeat=len(names))
        for truth in [dict(zip(names, values, strict=True))]
    )


def _numbered(table: Table[Any, Any]) -> dict[str, int]:
    return {reason: n for n, reason in enumerate(dict.fromkeys(table.ignored.values()), 1)}


def _reasons(table: Table[Any, Any]) -> Iterator[str]:
    if reasons := _numbered(table):
        yield "Ignored, because:"
        yield "\n".join(f"{number}. {reason}" for reason, number in reasons.items())
