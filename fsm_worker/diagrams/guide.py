"""How to read the pages, their index, and their counts."""

from fsm_worker.diagrams.machine import IGNORED, ILLEGAL_ELSE
from fsm_worker.diagrams.page import md_table, page, sides
from fsm_worker.diagrams.schema import FOLDER
from fsm_worker.machines.coupling import CLIENT_COUPLINGS, WORKER_COUPLINGS
from fsm_worker.machines.registry import CLIENT_TABLES, MACHINES, WORKER_TABLES
from protocol.registry import DIALECTS, Dialect
from protocol.table import MESSAGES


def readme_page() -> str:
    """How to read the pages, their index, and their counts."""
    counts = [_count(name) for name in MACHINES]
    totals = [str(sum(int(row[column]) for row in counts)) for column in range(2, 8)]
    return page(
        "Diagrams",
        "What these machines do is said by their tables in `fsm_worker/machines/`; these pages show"
        " the same tables. `make diagrams` writes them, and `make test` fails while they differ.",
        "## Index",
        md_table(
            ("machine", "at", "states", "events", "rows", "pairs with a row", "ignored", "illegal"),
            [*counts, ("**all**", "", *totals)],
        ),
        "- [messages](messages.md): what may be said, by whom, and when it is legal"
        f" ({len(MESSAGES)} messages)\n"
        "- [coupling](coupling.md): what one machine forces on another"
        f" ({len(WORKER_COUPLINGS)} rows at the worker, {len(CLIENT_COUPLINGS)} at the client)\n"
        + "\n".join(map(_dialect, DIALECTS[1:]))
        + "\n- [flows](flows.md): sequence charts of real runs\n"
        "- [survivors](SURVIVORS.md): small changes of these tables that no law and no exploration"
        " notices, and why; `make mutate` writes it\n"
        "- [driven](DRIVEN.md): the rows that workers fire which really run, in every run of all"
        " tests",
        "Every message that travels as JSON has a JSON Schema too: "
        + ", ".join(
            f"[{dialect.name}]({FOLDER}/{dialect.name}.json)"
            for dialect in DIALECTS
            if dialect.is_json
        )
        + ".",
        _HOW,
    )


_HOW = f"""\
## How to read a machine's page

**The picture** shows how states follow each other. The filled dot leads to the initial state, and
final states lead to the ringed dot. Events that lead from one state to another share one arrow; `?`
behind an event means that guards decide whether it leads there. `timer x` is the event
`timer_x_expired`. What several states do alike is drawn once: from the frame around them (_any of
these_), or from a box that names them (_any of_). Rows that lead back to the state they came from
are not drawn. A large machine has several pictures: how it goes, and what else fails or runs out of
time; _new to preparing_ above a picture names the states from which its arrows start.

**The rows** are the machine: in one of the states _from_, when the _event_ comes and all _guards_
hold, the machine goes _to_ the next state, _sets_ its facts, and asks for its _effects_, in this
order. _stays_ leaves the state's timers running; a row that leads to the state it came from starts
that state again, and its timers end. A timer that has ended is dropped before the machine sees it.
A row's number leads to its line in the source.

**The grid** has a cell for every state and event:

| cell | means |
|---|---|
| `J10` | this row; its guards, if it has any, decide between the rows named here |
| `{IGNORED}2` | nothing happens, for the reason with this number below the grid |
| `J41 {IGNORED}3` | the row, or nothing where its guards do not hold |
| `L5 {ILLEGAL_ELSE}` | the row, or an illegal event where its guards do not hold |
| (empty) | illegal: the state stays, and an error says what would have been legal |"""


def _dialect(dialect: Dialect) -> str:
    shown = dialect.about[0].lower() + dialect.about[1:].removesuffix(".")
    return f"- [{dialect.name}]({dialect.name}.md): {shown} ({len(dialect.kinds)} messages)"


def _count(name: str) -> tuple[str, ...]:
    table = MACHINES[name]
    states, events = len(table.states.__members__), len(table.events())
    ignored = len(set(table.ignored) - set(table.by_pair))
    with_row = len(table.by_pair)
    return (
        f"[{name}]({name}.md)",
        sides(table in WORKER_TABLES.values(), table in CLIENT_TABLES.values()),
        str(states),
        str(events),
        str(len(table.rows)),
        str(with_row),
        str(ignored),
        str(states * events - with_row - ignored),
    )
