"""Why a job, or the worker, is in its state: the rows that led there, from the journal."""

from pathlib import Path

from fsm_worker.events import Started, event_name
from fsm_worker.journal import Entry, read_entries
from fsm_worker.machines.registry import WORKER_TABLES
from fsm_worker.machines.world import THE_WORKER
from protocol.messages import Explained, ExplainedStep
from protocol.table import MachineName

#: Steps of one explanation; so many fit into a control frame.
MOST_STEPS = 100
_MOST_READ = 10 * MOST_STEPS


class NothingKnown(LookupError):
    """The journal has no row of this job, or of a worker: check the id and the state folder."""


def explanation(journal: Path, job: str) -> Explained:
    """Reads the journal, backwards to where this life of the machine began; blocking.

    Args:
        journal: of a worker that runs, or that has ended.
        job: its id; empty for the worker itself.

    Returns:
        The steps without any facts: whoever owns the job that a worker holds stays unknown.

    Raises:
        NothingKnown: no row of it was ever written.
        FileNotFoundError: there is no journal.
        sqlite3.Error: it can't be read.
    """
    machine = MachineName.JOB if job else MachineName.WORKER
    table = WORKER_TABLES[machine]
    entries = read_entries(journal, machine, job or THE_WORKER, _MOST_READ)
    if not entries:
        raise NothingKnown(f"there is no row of {job or 'a worker'}")
    lives = [n for n, entry in enumerate(entries) if n == 0 or _begins(entries[n - 1], entry)]
    state = entries[-1].after
    leading_on = {
        event_name(row.on)
        for row in table.rows
        if row.to not in {None, state} and state in row.sources
    }
    return Explained(
        job=job,
        state=state,
        steps=tuple(map(_told, _telling(entries[lives[-1] :]))),
        awaits=tuple(sorted(leading_on)),
    )


def _begins(last: Entry, entry: Entry) -> bool:
    """Whether it is the first of a life: whoever was killed left its last state behind."""
    return entry.event == event_name(Started) or last.after != entry.before


def _telling(entries: list[Entry]) -> list[Entry]:
    """As many as are told: those that changed the state first, then the newest others."""
    newest = sorted(range(len(entries)), key=lambda n: (entries[n].before == entries[n].after, -n))
    return [entries[n] for n in sorted(newest[:MOST_STEPS])]


def _told(entry: Entry) -> ExplainedStep:
    """The entry without its facts."""
    return ExplainedStep(
        at=entry.at,
        row=entry.row,
        event=entry.event,
        before=entry.before,
        after=entry.after,
        guards=entry.guards,
        coupling=entry.coupling,
    )
