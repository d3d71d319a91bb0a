"""The journal on disk: what is there when, and what a worker does when it can't be written."""

import asyncio
import contextlib
import resource
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fsm_worker.effects import Effect, Owner
from fsm_worker.events import (
    Event,
    JournalFailed,
    LinkUp,
    ProbeSucceeded,
    Started,
    TerminateRequested,
    Timer,
)
from fsm_worker.facts import WorkerFacts
from fsm_worker.journal import RING, Journal, JournalBroken, read_rows
from fsm_worker.machines.engine import Step, Verdict
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.machines.worlds import worker_world
from fsm_worker.runtime import Runtime
from fsm_worker.services.recipe import Runner
from protocol.lifecycle import JobState, WorkerState
from protocol.messages import Capabilities
from protocol.table import MachineName
from tests.e2e.lab import job_id, open_lab, until_final
from tests.e2e.test_endings import until_log, until_worker
from tests.services import hostile_trainer

WAITING = {("hostile",): Runner("hostile", (sys.executable, str(Path(hostile_trainer.__file__))))}
A_SESSION = LinkUp(link="link-1", generation=1, key="k", peer="p")


def step(number: int, *, before: str = "staging") -> Step:
    """A step of a job, as the engine gives them."""
    return Step(
        MachineName.JOB, f"job-{number}", Started(), Verdict.ROW, "J1",
        before, "validating", WorkerFacts(), (), "",
    )  # fmt: skip


def on_disk(path: Path, column: str = "subject") -> list[str]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        rows = database.execute(f"SELECT {column} FROM transitions ORDER BY id")  # noqa: S608 - our own word
        return [str(value) for (value,) in rows]


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Another program is writing: until the end of the block a commit has to wait."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def dropped(path: Path, *tables: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        for table in tables or ("transitions",):
            other.execute(f"DROP TABLE {table}")


@contextlib.contextmanager
def without_its_table(path: Path) -> Iterator[None]:
    dropped(path)
    yield


@contextlib.contextmanager
def on_a_full_disk(path: Path) -> Iterator[None]:
    """No file may grow beyond the size that the write-ahead log has now."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    full = Path(f"{path}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


BREAKS = pytest.mark.parametrize("broken", [without_its_table, on_a_full_disk])
Breaks = Callable[[Path], AbstractContextManager[None]]


def commits(path: Path) -> int:
    """Commits in the write-ahead log: a frame's second word is 0 unless it ends one.

    The format is that of sqlite.org/fileformat2.html, section 4.
    """
    data = Path(f"{path}-wal").read_bytes()
    page = int.from_bytes(data[8:12], "big")
    return sum(any(data[at + 4 : at + 8]) for at in range(32, len(data), 24 + page))


class Managers:
    """Performs effects by looking whether the row that asks for them is on disk."""

    def __init__(self, journal: Journal) -> None:
        self.seen: dict[tuple[str, str], bool] = {}
        self.steps: list[Step] = []
        self.path = journal.path
        self.runtime = Runtime(
            worker_world(), journal, overrides={Timer.STOP: 0.01}, watch=self.steps.append
        )
        self.runtime.bind(dict.fromkeys(Owner, self))

    def __getattr__(self, name: str) -> Callable[[Effect], None]:
        def method(effect: Effect) -> None:
            there = self.path.exists() and effect.row in self.rows()
            self.seen[name, effect.row] = there

        return method

    def rows(self) -> list[str]:
        try:
            return on_disk(self.path, "row")
        except sqlite3.OperationalError:  # its table is gone
            return []

    @property
    def worker(self) -> WorkerState:
        worker = self.runtime.world.get(MachineName.WORKER, THE_WORKER)
        assert worker is not None
        return worker.state

    def post(self, *events: Event) -> None:
        for event in events:
            self.runtime.post(MachineName.WORKER, THE_WORKER, event)

    async def until(self, state: WorkerState) -> None:
        async with asyncio.timeout(5):
            await self.runtime.run(until=lambda: self.worker is state)


# --- the file --------------------------------------------------------------------------------


async def test_a_waiter_that_is_cancelled_does_not_stop_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "steps.sqlite"

    async def keep(number: int) -> None:
        written = journal.keep([step(number)])
        assert written is not None
        await written

    with Journal(path) as journal:
        with held(path):
            waiting = [asyncio.create_task(keep(number)) for number in range(4)]
            await asyncio.sleep(0)
            for task in waiting[:3]:
                task.cancel()
            ends = await asyncio.gather(*waiting[:3], return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        async with asyncio.timeout(5):
            await waiting[3]
            await keep(4)
    assert on_disk(path) == [f"job-{number}" for number in range(5)]  # it happened all the same


async def test_a_runtime_that_is_cancelled_while_it_waits_leaves_a_journal_that_works(
    tmp_path: Path,
) -> None:
    path = tmp_path / "steps.sqlite"
    with Journal(path) as journal:
        managers = Managers(journal)
        managers.post(Started(), ProbeSucceeded(capabilities=Capabilities()))
        with held(path), pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await managers.until(WorkerState.AVAILABLE)
        assert journal.ring[-1].row == "W1"  # decided, and not yet written
        assert ("probe_host", "W1") not in managers.seen
        written = journal.keep([step(1)])
        assert written is not None
        async with asyncio.timeout(5):
            await written
    assert on_disk(path) == [THE_WORKER, "job-1"]


async def test_what_comes_while_the_disk_is_busy_is_committed_together(tmp_path: Path) -> None:
    path = tmp_path / "steps.sqlite"
    with Journal(path) as journal:
        first = journal.keep([step(0)])
        assert first is not None
        await first
        before = commits(path)
        with held(path):
            waiting = [journal.keep([step(number)]) for number in range(1, 101)]
        await asyncio.gather(*(future for future in waiting if future is not None))
        assert 1 <= commits(path) - before <= 2  # what the writer had taken, and all the rest
    assert on_disk(path) == [f"job-{number}" for number in range(101)]


async def test_rows_are_counted_over_all_lives_of_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "steps.sqlite"
    for _ in range(2):
        with Journal(path) as journal:
            written = journal.keep([step(1), step(2), step(2, before="validating")])
            assert written is not None  # and nobody waits for it: leaving does
            ignored = journal.keep([step(3)._replace(verdict=Verdict.IGNORED, row="")])
            assert ignored is None
            assert len(journal.ring) == 4 <= RING
    assert read_rows(path) == Counter({(MachineName.JOB, "J1"): 6})
    assert on_disk(path) == ["job-1", "job-2"] * 2  # a row that leads nowhere is only counted


async def test_a_row_is_on_disk_when_its_effects_are_performed(tmp_path: Path) -> None:
    with Journal(tmp_path / "steps.sqlite") as journal:
        managers = Managers(journal)
        managers.post(Started(), ProbeSucceeded(capabilities=Capabilities()), TerminateRequested())
        await managers.until(WorkerState.STOPPED)
    waited = {place: there for place, there in managers.seen.items() if place[1] != "W1"}
    assert waited.pop(("kill_everything", "W23")) is False  # a signal does not wait for the disk
    assert waited == {
        ("publish_status", "W2"): True,
        ("publish_status", "W22"): True,
        ("leave", "W23"): True,
    }


# --- a disk that fails -------------------------------------------------------------------------


@BREAKS
async def test_the_waiter_hears_of_a_write_that_failed_and_later_writes_succeed(
    tmp_path: Path, broken: Breaks, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "steps.sqlite"
    with Journal(path) as journal:
        written = journal.keep([step(0)])
        assert written is not None
        await written
        with broken(path):
            lost = journal.keep([step(1)])
            assert lost is not None
            with pytest.raises(JournalBroken, match="the journal can't be written") as caught:
                await lost
            assert str(tmp_path) not in str(caught.value)  # clients hear it
        if broken is without_its_table:  # as a repair does
            with Journal(path):
                pass
        written = journal.keep([step(2)])
        assert written is not None
        await written
    assert on_disk(path)[-1] == "job-2"
    assert "job-1" not in on_disk(path)
    assert f"{path} can't be written" in caplog.text  # and the operator, where it lies


@BREAKS
async def test_a_free_worker_that_can_write_nothing_down_stops_and_does_what_it_decided(
    tmp_path: Path, broken: Breaks
) -> None:
    path = tmp_path / "steps.sqlite"
    with Journal(path) as journal:
        managers = Managers(journal)
        managers.post(Started(), ProbeSucceeded(capabilities=Capabilities()))
        await managers.until(WorkerState.AVAILABLE)
        with broken(path):
            managers.runtime.post(MachineName.SESSION, "s-1", A_SESSION)
            await managers.until(WorkerState.STOPPED)
    assert managers.seen["send_welcome", "N1"] is False  # performed, though nothing was written
    assert ("leave", "W23") in managers.seen
    failures = [step for step in managers.steps if isinstance(step.event, JournalFailed)]
    assert (failures[0].row, failures[0].after) == ("W32", WorkerState.STOPPING)
    assert "can't be written" in failures[0].event.reason
    assert {step.verdict for step in failures[1:]} <= {Verdict.IGNORED}


async def test_a_busy_worker_that_can_write_nothing_down_ends_its_job_first(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(30), open_lab(tmp_path, runners=WAITING) as lab:
        async with lab.client() as client:
            job = job_id()
            await client.submit(job, lab.package("hostile wait\n"))
            client.follow_log(job)
            await until_log(client, "READY")
            dropped(lab.worker.journal.path)
            async with lab.client() as other:  # its session is the first that can't be written
                assert other.welcome.worker == "lab"
                await until_worker(other, WorkerState.DRAINING)
                status = await other.status()
                assert "can't be written" in status.reason
                assert str(tmp_path) not in status.reason  # it is nobody else's business
                assert (await other.attach(job)).state is JobState.RUNNING
                await other.cancel(job)
                await until_final(other, job)
        worker = lab.worker.world.get(MachineName.WORKER, THE_WORKER)
        assert worker is not None
        assert worker.facts.leaving


async def test_a_journal_that_is_broken_to_its_end_is_left_in_peace(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that drained because of it ends as it would have, and its log says why."""
    path = tmp_path / "steps.sqlite"
    with Journal(path) as journal:
        dropped(path, "transitions", "rows_fired")
        lost = journal.keep([step(1)])
        assert lost is not None
        with pytest.raises(JournalBroken):
            await lost
    assert "steps.sqlite can't be written" in caplog.text


def test_a_file_that_is_no_journal_is_named_before_the_worker_starts(tmp_path: Path) -> None:
    path = tmp_path / "steps.sqlite"
    path.write_bytes(b"no database at all\n" * 64)
    with pytest.raises(JournalBroken, match=r"steps\.sqlite"), Journal(path):
        pass
