"""The pages of `diagrams/`, as Markdown, from the tables alone."""

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from fsm_worker.diagram_picture import Picture, pictures
from fsm_worker.effects import Do, effect_names
from fsm_worker.events import On, Timer, event_name
from fsm_worker.machines import defaults
from fsm_worker.machines.coupling import CLIENT_COUPLINGS, WORKER_COUPLINGS
from fsm_worker.machines.engine import Row, Table
from fsm_worker.machines.registry import CLIENT_TABLES, MACHINES, WORKER_TABLES, legal_states
from protocol.table import MESSAGES, Direction, MessageRow, tag_of

#: First line of every generated page.
BANNER = "_Generated from the tables by `make diagrams`; do not edit._"
IGNORED = "·"
ILLEGAL_ELSE = "?"


def render() -> dict[str, str]:
    """Every page: its file name, and its text."""
    pages = {f"{name}.md": machine_page(name) for name in MACHINES}
    return pages | {
        "messages.md": messages_page(),
        "coupling.md": coupling_page(),
        "README.md": readme_page(),
    }


def machine_page(name: str) -> str:
    """The page of one machine: its laws, its picture, its rows, its timers, its grid."""
    table = MACHINES[name]
    return _page(
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
    return _table(
        ("row", "from", "event", "guards", "to", "sets", "effects"),
        (
            (
                row.id,
                _states(table, row.sources),
                event_name(row.on),
                " and ".join(str(guard) for guard in row.guards),
                "stays" if row.to is None else row.to.value,
                "<br>".join(entry.text for entry in row.sets),
                "<br>".join(effect_names(row.effects)),
            )
            for row in table.rows
        ),
    )


def _states(table: Table[Any, Any], some: Iterable[Any]) -> str:
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
    yield _table(
        ("timer", "runs for", "armed by"),
        ((timer.value, _duration(timer), ", ".join(rows)) for timer, rows in sorted(armed.items())),
    )


def _duration(timer: Timer) -> str:
    duration = defaults.SECONDS[timer]
    return "depends on the facts" if callable(duration) else f"{duration:g} s"


def _grid(table: Table[Any, Any]) -> str:
    states = list(table.states.__members__.values())
    reasons = _numbered(table)
    return _table(
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


def messages_page() -> str:
    """The message table, and in which states each message is legal."""
    return _page(
        "Messages",
        "Every message of the native dialect. Its event is `recv_` and its wire name. It is legal"
        " exactly where the machine that hears it has a row for that event; in every other state it"
        " is ignored for a reason, or answered with a typed error.",
        "## What may be said",
        _table(
            ("message", "meaning", "direction", "lane", "right", "replay", "replies"),
            (
                (
                    f"`{row.tag}`",
                    (row.message.__doc__ or "").strip().partition("\n")[0],
                    _direction(row.direction),
                    row.lane.value,
                    row.right.value,
                    row.replay.value,
                    ", ".join(f"`{tag_of(reply)}`" for reply in row.replies),
                )
                for row in MESSAGES
            ),
        ),
        "## Who hears it, and when",
        _table(
            ("message", "event", "machine", "legal at the worker", "legal at the client"),
            (
                (
                    f"`{row.tag}`",
                    row.event,
                    _hearer(row),
                    _legal(row, Direction.TO_WORKER),
                    _legal(row, Direction.TO_CLIENT),
                )
                for row in MESSAGES
            ),
        ),
    )


def _direction(direction: Direction) -> str:
    return {
        Direction.TO_WORKER: "to the worker",
        Direction.TO_CLIENT: "to the client",
    }.get(direction, "both ways")


def _hearer(row: MessageRow) -> str:
    if row.machine is None:
        return "none: answered `not_supported`"
    return f"{row.machine} of `{row.subject}`" if row.subject else row.machine.value


def _legal(row: MessageRow, hearer: Direction) -> str:
    tables = WORKER_TABLES if hearer is Direction.TO_WORKER else CLIENT_TABLES
    states = legal_states(row, hearer)
    if states is None or row.machine is None:
        return "-"
    table = tables[row.machine]
    return _states(table, (table.states(state) for state in states))


def coupling_page() -> str:
    """The coupling table."""
    worker = {coupling.id for coupling in WORKER_COUPLINGS}
    client = {coupling.id for coupling in CLIENT_COUPLINGS}
    known = {coupling.id: coupling for coupling in (*WORKER_COUPLINGS, *CLIENT_COUPLINGS)}
    return _page(
        "Coupling",
        "The only place where one machine knows of another. After every event the rows are applied"
        " from the top, again and again, until none forces anything more. As long as the facts"
        " stand, the event is forced; where the machine ignores it, nothing happens.",
        _table(
            ("row", "while", "forces", "at"),
            (
                (
                    coupling.id,
                    coupling.when,
                    coupling.then,
                    _sides(coupling.id in worker, coupling.id in client),
                )
                for coupling in known.values()
            ),
        ),
    )


def _sides(worker: bool, client: bool) -> str:
    return "worker, client" if worker and client else "worker" if worker else "client"


def readme_page() -> str:
    """How to read the pages, their index, and their counts."""
    counts = [_count(name) for name in MACHINES]
    totals = [str(sum(int(row[column]) for row in counts)) for column in range(2, 8)]
    return _page(
        "Diagrams",
        "What these machines do is said by their tables in `fsm_worker/machines/`; these pages show"
        " the same tables. `make diagrams` writes them, and `make test` fails while they differ.",
        "## Index",
        _table(
            ("machine", "at", "states", "events", "rows", "pairs with a row", "ignored", "illegal"),
            [*counts, ("**all**", "", *totals)],
        ),
        "- [messages](messages.md): what may be said, by whom, and when it is legal"
        f" ({len(MESSAGES)} messages)\n"
        "- [coupling](coupling.md): what one machine forces on another"
        f" ({len(WORKER_COUPLINGS)} rows at the worker, {len(CLIENT_COUPLINGS)} at the client)",
        _HOW,
    )


_HOW = f"""\
## How to read a machine's page

**The picture** shows how states follow each other. The filled dot leads to the initial state, and
final states lead to the ringed dot. Events that lead from one state to another share one arrow; `?`
behind an event means that guards decide whether it leads there. `timer x` is the event
`timer_x_expired`. What several states do alike is drawn once: from the frame around them (_any of
these_), or from a box that names them (_any of_). Rows that lead back to the state they came from
are not drawn. A large machine has two pictures: how it goes, and what else fails or runs out of
time.

**The rows** are the machine: in one of the states _from_, when the _event_ comes and all _guards_
hold, the machine goes _to_ the next state, _sets_ its facts, and asks for its _effects_, in this
order. _stays_ leaves the state's timers running; a row that leads to the state it came from starts
that state again, and its timers end. A timer that has ended is dropped before the machine sees it.

**The grid** has a cell for every state and event:

| cell | means |
|---|---|
| `J10` | this row; its guards, if it has any, decide between the rows named here |
| `{IGNORED}2` | nothing happens, for the reason with this number below the grid |
| `J41 {IGNORED}3` | the row, or nothing where its guards do not hold |
| `L5 {ILLEGAL_ELSE}` | the row, or an illegal event where its guards do not hold |
| (empty) | illegal: the state stays, and an error says what would have been legal |"""


def _count(name: str) -> tuple[str, ...]:
    table = MACHINES[name]
    states, events = len(table.states.__members__), len(table.events())
    ignored = len(set(table.ignored) - set(table.by_pair))
    with_row = len(table.by_pair)
    return (
        f"[{name}]({name}.md)",
        _sides(table in WORKER_TABLES.values(), table in CLIENT_TABLES.values()),
        str(states),
        str(events),
        str(len(table.rows)),
        str(with_row),
        str(ignored),
        str(states * events - with_row - ignored),
    )


def _page(title: str, *blocks: str) -> str:
    return "\n\n".join((BANNER, f"# {title}", *blocks)) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|")
