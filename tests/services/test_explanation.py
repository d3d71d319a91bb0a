"""Laws of an explanation: it says which rows led there, on which events, by which guards."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import ANY

import msgspec
import pytest

from fsm_worker import events as e
from fsm_worker.events import Event, Received
from fsm_worker.journal import Journal, read_entries
from fsm_worker.machines.job import JOB
from fsm_worker.machines.world import THE_WORKER, World
from fsm_worker.machines.worlds import worker_world
from fsm_worker.services.explanation import MOST_STEPS, NothingKnown, explanation
from protocol import messages as m
from protocol.codec import Frame, encode
from protocol.lifecycle import JobState, WorkerState
from protocol.table import MachineName
from tests.protocol.samples import ROOT

ALICE, BOB = "alice's-key", "bob's-key"
FIRST, SECOND = "job-00000001", "job-00000002"


class Life:
    """A worker's machines, each of whose steps is written down before the next event."""

    def __init__(self, journal: Journal) -> None:
        self.world = worker_world()
        self.journal = journal

    async def tell(self, machine: MachineName, subject: str, *events: Event) -> None:
        for event in events:
            written = self.journal.keep(self.world.feed(machine, subject, event))
            if written is not None:
                await written

    async def submit(self, job: str, key: str) -> None:
        package = m.InputFile(name="package.zip", size=10, root=ROOT)
        submission = m.Submit(job=job, spec=m.JobSpec(name="n"), inputs=(package,))
        await self.tell(
            MachineName.JOB, job,
            Received(message=submission, key=key), e.InputStored(name="package.zip"),
            e.ValidationPassed(stages=2),
        )  # fmt: skip


@contextlib.asynccontextmanager
async def a_life(folder: Path) -> AsyncIterator[tuple[Path, Life]]:
    path = folder / "steps.sqlite"
    with Journal(path) as journal:
        life = Life(journal)
        async with asyncio.timeout(10):
            await life.tell(
                MachineName.WORKER, THE_WORKER,
                e.Started(), e.ProbeSucceeded(capabilities=m.Capabilities()),
            )  # fmt: skip
            yield path, life


async def test_each_row_comes_with_its_event_and_the_answers_of_its_guards(tmp_path: Path) -> None:
    async with a_life(tmp_path) as (path, life):
        await life.submit(FIRST, ALICE)
        found = explanation(path, FIRST)
    told = [(step.row, step.event, step.guards, step.after) for step in found.steps]
    assert told == [
        ("J1", "recv_submit", ANY, "staging"),
        ("J7", "client_detached", {}, "staging"),  # nobody of that key is attached
        ("J10", "input_stored", {"last_input": True}, "validating"),
        ("J14", "validation_passed", {}, "queued"),
        ("J17", "slot_granted", {}, "preparing"),
    ]
    asked = found.steps[0].guards
    assert asked["runnable"] is asked["few_alive"] is True
    assert (found.job, found.state) == (FIRST, "preparing")
    assert "prepared" in found.awaits
    assert "recv_attach" not in found.awaits  # it leads nowhere else


async def test_a_row_that_was_not_taken_is_known_by_the_guard_that_held_it_back(
    tmp_path: Path,
) -> None:
    async with a_life(tmp_path) as (path, life):
        await life.submit(FIRST, ALICE)
        await life.tell(
            MachineName.JOB, FIRST, e.Prepared(gpu_free=False, reason="4 GiB are held by another")
        )
        last = explanation(path, FIRST).steps[-1]
    assert (last.row, last.guards) == ("J24", {"gpu_free": False})


async def test_what_another_machine_forced_names_the_coupling_s_row(tmp_path: Path) -> None:
    async with a_life(tmp_path) as (path, life):
        await life.submit(FIRST, ALICE)
        couplings = {row.id for row in life.world.couplings}
        forced = {step.row: step.coupling for step in explanation(path, FIRST).steps}
    assert forced["J17"] in couplings
    assert forced["J1"] == forced["J10"] == forced["J14"] == ""


async def test_a_row_that_changes_a_fact_and_no_state_is_told_too(tmp_path: Path) -> None:
    async with a_life(tmp_path) as (path, life):
        await life.submit(FIRST, ALICE)
        await life.tell(
            MachineName.JOB, FIRST, e.Prepared(gpu_free=True, reason=""),
            *[e.ClientDetached()] * 50,
            e.ProcessExited(stage=0, ok=True, out_of_memory=False, reason=""),
        )  # fmt: skip
        rows = [step.row for step in explanation(path, FIRST).steps]
    assert rows[-2:] == ["J23", "J31"]  # that nobody is attached was known


async def test_of_the_worker_nobody_s_job_and_no_owner_is_told(tmp_path: Path) -> None:
    async with a_life(tmp_path) as (path, life):
        await life.submit(FIRST, ALICE)
        found = explanation(path, "")
    assert [step.row for step in found.steps] == ["W1", "W2", "W6"]
    assert found.state == WorkerState.BUSY
    told = msgspec.json.encode(found).decode()
    assert FIRST not in told
    assert ALICE not in told
    facts = read_entries(path, MachineName.WORKER, THE_WORKER, 10)[-1].facts
    assert facts["slot"] == FIRST  # the journal knows; who may read the state folder may too


async def test_two_jobs_are_two_stories(tmp_path: Path) -> None:
    async with a_life(tmp_path) as (path, life):
        await life.submit(FIRST, ALICE)
        await life.submit(SECOND, BOB)
        assert explanation(path, FIRST).state == JobState.PREPARING
        assert explanation(path, SECOND).state == JobState.QUEUED


async def test_a_worker_s_new_life_begins_where_the_chain_of_states_breaks(tmp_path: Path) -> None:
    async with a_life(tmp_path) as (path, life):
        await life.submit(FIRST, ALICE)
    async with a_life(tmp_path) as (path, _):  # the first one was killed while it was busy
        assert [step.row for step in explanation(path, "").steps] == ["W1", "W2"]
    assert len(read_entries(path, MachineName.WORKER, THE_WORKER, 10)) == 5


async def test_a_worker_that_only_just_began_is_explained_and_not_by_its_last_life(
    tmp_path: Path,
) -> None:
    path = tmp_path / "steps.sqlite"
    for _ in range(2):
        with Journal(path) as journal:
            life = Life(journal)
            async with asyncio.timeout(10):
                await life.tell(MachineName.WORKER, THE_WORKER, e.Started())
            found = explanation(path, "")
            assert [step.row for step in found.steps] == ["W1"]
            assert (found.state, "probe_succeeded" in found.awaits) == (WorkerState.STARTING, True)


async def test_an_explanation_fits_into_a_frame_however_long_the_story_is(tmp_path: Path) -> None:
    async with a_life(tmp_path) as (path, life):
        await life.submit(FIRST, ALICE)
        for _ in range(MOST_STEPS):
            await life.tell(MachineName.JOB, FIRST, e.ClientDetached(), e.ClientAttached())
        found = explanation(path, FIRST)
    assert len(found.steps) == MOST_STEPS
    rows = [step.row for step in found.steps]
    assert [row for row in rows if row not in {"J7", "J8"}] == ["J1", "J10", "J14", "J17"]
    longest = max((row.id for row in JOB.rows), key=len)
    name = {"a_guard_of_a_long_name_that_is_asked_for": False}
    wide = [msgspec.structs.replace(step, row=longest, guards=name) for step in found.steps]
    encode(Frame(seq=1, msg=msgspec.structs.replace(found, steps=tuple(wide))))


async def test_what_was_never_written_is_not_explained(tmp_path: Path) -> None:
    async with a_life(tmp_path) as (path, _):
        with pytest.raises(NothingKnown, match=SECOND) as caught:
            explanation(path, SECOND)
        assert str(tmp_path) not in str(caught.value)  # a client may hear it
    with pytest.raises(FileNotFoundError):
        explanation(tmp_path / "elsewhere.sqlite", "")
    (tmp_path / "torn.sqlite").write_bytes(b"no database, " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        explanation(tmp_path / "torn.sqlite", "")


_OF_BEFORE = """
CREATE TABLE transitions (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, machine TEXT NOT NULL, subject TEXT NOT NULL,
    row TEXT NOT NULL, event TEXT NOT NULL, before TEXT NOT NULL, after TEXT NOT NULL,
    facts TEXT NOT NULL
) STRICT;
INSERT INTO transitions VALUES
    (1, 5.0, 'worker', 'worker', 'W2', 'probe_succeeded', 'starting', 'available', '{}');
"""


async def test_a_journal_from_before_guards_were_kept_is_read_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "steps.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as old:
        old.executescript(_OF_BEFORE)
    (step,) = explanation(path, "").steps
    assert (step.row, step.guards, step.coupling) == ("W2", {}, "")
    async with a_life(tmp_path) as (_, life):
        await life.submit(FIRST, ALICE)
        assert explanation(path, FIRST).steps[0].guards
    assert [entry.row for entry in read_entries(path, MachineName.WORKER, THE_WORKER, 10)] == [
        "W2", "W1", "W2", "W6",
    ]  # fmt: skip


def test_a_refused_event_leaves_the_answers_of_the_guards_in_its_step() -> None:
    world: World = worker_world()
    world.feed(MachineName.JOB, FIRST, Received(message=m.Submit(
        job=FIRST, spec=m.JobSpec(), inputs=(m.InputFile(name="a", size=1, root=ROOT),)
    )))  # fmt: skip
    (step,) = world.feed(MachineName.JOB, FIRST, e.EffectFailed(effect="send_snapshot", reason=""))
    assert dict(step.guards) == {"open_job_or_validate_package_failed": False}
