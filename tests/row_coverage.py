"""Which rows real runs have driven, read from the journals that they left behind."""

import sqlite3
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from fsm_worker.journal import read_rows
from fsm_worker.machines.registry import CLIENT_TABLES, WORKER_TABLES

#: The name of a worker's journal in its state folder; a test that only tries a journal out gives
#: its file another name, and is not counted.
JOURNAL = "journal.sqlite"
#: Rows of a worker that no real run drives, and why; where it is there, a whole run is measured
#: by it.
EXCUSED = Path(__file__).with_name("undriven_rows.toml")


def journals(folder: Path) -> list[Path]:
    """The journals of all workers that ran below a folder."""
    return sorted(folder.rglob(JOURNAL))


def fired(paths: Iterable[Path]) -> tuple[Counter[tuple[str, str]], list[Path]]:
    """How often each (machine, row) fired, and the journals that can't be read."""
    times: Counter[tuple[str, str]] = Counter()
    unreadable = []
    for path in paths:
        try:
            times += read_rows(path)
        except sqlite3.Error:
            unreadable.append(path)
    return times, unreadable


def report(times: Counter[tuple[str, str]]) -> Iterator[str]:
    """A line for each machine: how many of its rows were driven, and which were not.

    A client writes no journal, so its own rows are asked for only where one did.
    """
    rows: dict[str, list[str]] = {table.name: [] for table in WORKER_TABLES.values()}
    for table in (*WORKER_TABLES.values(), *CLIENT_TABLES.values()):
        more = [row.id for row in table.rows if row.id not in rows[table.name]]
        if table in WORKER_TABLES.values() or any(times[table.name, row] for row in more):
            rows[table.name] += more
    for machine, known in rows.items():
        missing = [row for row in known if not times[machine, row]]
        line = f"{machine:<11} {len(known) - len(missing):>3}/{len(known)}"
        yield f"{line}  (missing: {', '.join(missing)})" if missing else line
    if unknown := sorted(set(times) - {(m, row) for m in rows for row in rows[m]}):
        yield f"no table has: {', '.join(f'{machine} {row}' for machine, row in unknown)}"


def undriven(times: Counter[tuple[str, str]]) -> set[str]:
    """The rows of a worker that no real run has driven, as `machine row`."""
    return {
        f"{table.name} {row.id}"
        for table in WORKER_TABLES.values()
        for row in table.rows
        if not times[table.name, row.id]
    }


def excused() -> dict[str, str] | None:
    """The rows that need not be driven, with the reasons; None where nobody has listed them."""
    if not EXCUSED.exists():
        return None
    reasons: dict[str, str] = tomllib.loads(EXCUSED.read_text())
    return reasons


def objections(times: Counter[tuple[str, str]], reasons: dict[str, str]) -> Iterator[str]:
    """What a whole run has against a list of excuses."""
    missing = undriven(times)
    for row in sorted(missing - set(reasons)):
        yield f"no real run drives {row}: write one, or say in {EXCUSED.name} why there is none"
    for row in sorted(set(reasons) - missing):
        yield f"{row} is driven now, or is no row any more: take it out of {EXCUSED.name}"
