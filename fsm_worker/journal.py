"""The transition journal: what happened, on disk before its effects leave the process.

One SQLite file in the state folder, written by a thread of its own; what comes in while a commit is
under way is committed together with the next (group commit). Rows of the worker, its jobs, their
results and the sessions are kept where they change a state or a fact, and where the worker's life
begins, each with the guards that were asked and their answers, so that `explain` can say why.
Everything else, the rows of links above all, goes to a ring in memory, whose last steps are what a
bug report needs.
"""

import asyncio
import contextlib
import errno
import logging
import queue
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import msgspec

from fsm_worker.events import Started, event_name, key_of
from fsm_worker.machines.engine import Step, Verdict
from protocol.table import MachineName

log = logging.getLogger(__name__)

DURABLE = frozenset({MachineName.WORKER, MachineName.JOB, MachineName.RESULTS, MachineName.SESSION})
RING = 4096
#: Of a worker's journal in its state folder.
FILE_NAME = "journal.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS transitions (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,            -- seconds since 1970-01-01 UTC
    machine TEXT NOT NULL,
    subject TEXT NOT NULL,
    row TEXT NOT NULL,
    event TEXT NOT NULL,
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    facts TEXT NOT NULL,         -- JSON, after the row
    guards TEXT NOT NULL DEFAULT '{}',  -- JSON, the answer of each guard that was asked, by name
    coupling TEXT NOT NULL DEFAULT ''   -- the coupling row that forced the event
) STRICT;
CREATE INDEX IF NOT EXISTS of_subject ON transitions (machine, subject, id);
CREATE TABLE IF NOT EXISTS rows_fired (
    machine TEXT NOT NULL,
    row TEXT NOT NULL,
    times INTEGER NOT NULL,
    PRIMARY KEY (machine, row)
) STRICT;
"""
_INSERT = (
    "INSERT INTO transitions"
    " (at, machine, subject, row, event, before, after, facts, guards, coupling)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_COUNT = (
    "INSERT INTO rows_fired VALUES (?, ?, ?)"
    " ON CONFLICT DO UPDATE SET times = times + excluded.times"
)

#: Columns that a journal of an earlier version lacks, and what its rows have there.
_ADDED = {"guards": "{}", "coupling": ""}

Record = tuple[float, str, str, str, str, str, str, str, str, str]
Batch = tuple[list[Record], "Future[None]"]


class Entry(NamedTuple):
    """One step, as the journal has it."""

    at: float  # seconds since 1970-01-01 UTC
    row: str
    event: str
    before: str
    after: str
    facts: dict[str, Any]  # after the row
    guards: dict[str, bool]
    coupling: str


class JournalBroken(RuntimeError):
    """The journal can't be written: free the disk or repair the state folder, then start again."""


def record_of(step: Step) -> Record:
    """A step as the journal keeps it."""
    return (
        time.time(),
        step.machine,
        step.subject,
        step.row,
        event_name(key_of(step.event)),
        step.before,
        step.after,
        msgspec.json.encode(step.facts).decode(),
        msgspec.json.encode(dict(step.guards)).decode(),
        step.coupling,
    )


class Journal:
    """Appends steps; use as a context manager.

    Args:
        path: of the SQLite file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ring: deque[Step] = deque(maxlen=RING)
        self.fired: Counter[tuple[str, str]] = Counter()
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)

    def __enter__(self) -> "Journal":
        """Opens it.

        Raises:
            JournalBroken: there is a file, but it is no journal, or the disk refuses.
        """
        try:
            with contextlib.closing(self._connect()) as database:
                database.executescript(_SCHEMA)
                for name in _ADDED.keys() - _columns(database):
                    database.execute(
                        f"ALTER TABLE transitions ADD COLUMN {name} TEXT NOT NULL"
                        f" DEFAULT '{_ADDED[name]}'"
                    )
        except sqlite3.Error as error:
            raise JournalBroken(
                f"{self.path} can't be used as a journal ({error}): free the disk, or move that "
                "file away"
            ) from error
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        counts = [(machine, row, times) for (machine, row), times in self.fired.items()]
        try:
            with contextlib.closing(self._connect()) as database, database:
                database.executemany(_COUNT, counts)
        except sqlite3.Error as broken:  # the worker ends as it would have
            log.warning("! %s can't be written: %s", self.path, broken)

    def keep(self, steps: Iterable[Step]) -> "asyncio.Future[None] | None":
        """Notes steps; returns what to wait for before their effects, if anything must be on disk.

        What is returned raises `JournalBroken` when it is awaited, if it could not be written.
        """
        records = []
        for step in steps:
            self.ring.append(step)
            if step.verdict is Verdict.ROW:
                self.fired[step.machine, step.row] += 1
                moved = step.before != step.after or step.facts_changed
                begins = step.machine is MachineName.WORKER and isinstance(step.event, Started)
                if step.machine in DURABLE and (moved or begins):
                    records.append(record_of(step))
        if not records:
            return None
        done: Future[None] = Future()
        self._queue.put((records, done))
        return asyncio.wrap_future(done)

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        return database

    def _write(self) -> None:
        database: sqlite3.Connection | None = None
        ended = False
        while not ended and (first := self._queue.get()) is not None:
            batch = [first]
            while not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    ended = True
                    break
                batch.append(more)
            try:
                database = database or self._connect()
                with database:
                    for records, _ in batch:
                        database.executemany(_INSERT, records)
            except Exception as error:  # whatever it is, whoever waits must hear of it
                log.warning("! %s can't be written: %s", self.path, error)
                # clients hear this, and where the file lies is nobody's business
                why = getattr(error, "strerror", None) or error
                _tell(batch, JournalBroken(f"the journal can't be written: {why}"))
            else:
                _tell(batch, None)
        if database is not None:
            database.close()


def _tell(batch: "list[Batch]", error: JournalBroken | None) -> None:
    for _, done in batch:
        if not done.set_running_or_notify_cancel():
            continue  # whoever waited for it was cancelled meanwhile
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def _columns(database: sqlite3.Connection) -> set[str]:
    return {name for _, name, *_ in database.execute("PRAGMA table_info(transitions)")}


def read_entries(path: Path, machine: MachineName, subject: str, most: int) -> list[Entry]:
    """The newest steps of one machine, oldest first; blocking. A worker may be writing meanwhile.

    Args:
        path: of the journal.
        machine: its name.
        subject: which of them.
        most: so many steps at most.

    Raises:
        FileNotFoundError: there is no journal.
        sqlite3.Error: it is no journal, or can't be read.
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "there is no journal", str(path))
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as it:
        # a journal of an earlier version, which no worker has opened since
        known = _columns(it)
        later = [name if name in known else f"'{empty}'" for name, empty in _ADDED.items()]
        found = it.execute(
            f"SELECT at, row, event, before, after, facts, {', '.join(later)} FROM transitions"  # noqa: S608 - our own words
            " WHERE machine = ? AND subject = ? ORDER BY id DESC LIMIT ?",
            (machine, subject, most),
        )
        return [
            Entry(
                *(at, row, event, before, after),
                msgspec.json.decode(facts),
                msgspec.json.decode(guards),
                coupling,
            )
            for at, row, event, before, after, facts, guards, coupling in found
        ][::-1]


def read_rows(path: Path) -> Counter[tuple[str, str]]:
    """How often each row fired, over the life of a journal: {(machine, row): times}."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return Counter(
            {
                (machine, row): times
                for machine, row, times in database.execute("SELECT * FROM rows_fired")
            }
        )
