"""The pages of `diagrams/`, from the tables alone: all of them, and those of no single machine."""

from fsm_worker.diagrams.charts import flows_page
from fsm_worker.diagrams.dialects import dialect_pages, direction
from fsm_worker.diagrams.guide import readme_page
from fsm_worker.diagrams.machine import machine_page, some_states
from fsm_worker.diagrams.page import md_table, page, sides, summary
from fsm_worker.diagrams.schema import schemas
from fsm_worker.diagrams.sources import place_of
from fsm_worker.machines.coupling import CLIENT_COUPLINGS, WORKER_COUPLINGS
from fsm_worker.machines.registry import CLIENT_TABLES, MACHINES, WORKER_TABLES, legal_states
from protocol.table import MESSAGES, Direction, MessageRow, tag_of


def render() -> dict[str, str]:
    """Every file: its name below `diagrams/`, and its text."""
    pages = {f"{name}.md": machine_page(name) for name in MACHINES}
    return (
        pages
        | {
            "messages.md": messages_page(),
            "coupling.md": coupling_page(),
            "flows.md": flows_page(),
            "README.md": readme_page(),
        }
        | dialect_pages()
        | schemas()
    )


def messages_page() -> str:
    """The message table, and in which states each message is legal."""
    return page(
        "Messages",
        "Every message of the native dialect. Its event is `recv_` and its wire name. It is legal"
        " exactly where the machine that hears it has a row for that event; in every other state it"
        " is ignored for a reason, or answered with a typed error.",
        "## What may be said",
        md_table(
            ("message", "meaning", "direction", "lane", "right", "replay", "replies"),
            (
                (
                    f"`{row.tag}`",
                    summary(row.message),
                    direction(row.direction),
                    row.lane.value,
                    row.right.value,
                    row.replay.value,
                    ", ".join(f"`{tag_of(reply)}`" for reply in row.replies),
                )
                for row in MESSAGES
            ),
        ),
        "## Who hears it, and when",
        md_table(
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


def _hearer(row: MessageRow) -> str:
    return f"{row.machine} of `{row.subject}`" if row.subject else row.machine.value


def _legal(row: MessageRow, hearer: Direction) -> str:
    tables = WORKER_TABLES if hearer is Direction.TO_WORKER else CLIENT_TABLES
    states = legal_states(row, hearer)
    if states is None:
        return "-"
    table = tables[row.machine]
    return some_states(table, (table.states(state) for state in states))


def coupling_page() -> str:
    """The coupling table."""
    worker = {coupling.id for coupling in WORKER_COUPLINGS}
    client = {coupling.id for coupling in CLIENT_COUPLINGS}
    known = {coupling.id: coupling for coupling in (*WORKER_COUPLINGS, *CLIENT_COUPLINGS)}
    return page(
        "Coupling",
        "The only place where one machine knows of another. After every event the rows are applied"
        " from the top, again and again, until none forces anything more. As long as the facts"
        " stand, the event is forced; where the machine ignores it, nothing happens.",
        md_table(
            ("row", "while", "forces", "at"),
            (
                (
                    f"[{coupling.id}]({place_of(coupling.id).link})",
                    coupling.when,
                    coupling.then,
                    sides(coupling.id in worker, coupling.id in client),
                )
                for coupling in known.values()
            ),
        ),
    )
