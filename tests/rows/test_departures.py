"""A worker that leaves though something of it does not end, is not fetched or can't be written."""

import asyncio
from pathlib import Path

import pytest

from fsm_worker.client.connection import ConnectionOver, WorkerConnection
from fsm_worker.events import Timer
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, WorkerState
from protocol.table import MachineName
from tests.e2e.lab import job_id, open_lab, until_final
from tests.e2e.test_endings import HOSTILE, ours_alive
from tests.rows.faults import BREAKS, HANGS, REFUSES, Undead, Way, fill_disk, refuse_kill
from tests.rows.jobs import Held, served, submitted, until_state
from tests.rows.slot import comes, ends, gate, hears, runs, waits
from tests.rows.steps import Steps

W = WorkerState


async def goodbye(client: WorkerConnection) -> ErrorCode:
    """Why the worker has ended the client's session."""
    with pytest.raises(ConnectionOver) as caught:
        async for _ in client.news():
            pass
    return caught.value.code


# --- something does not end -------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(REFUSES, marks=pytest.mark.drives("worker W27")),
        pytest.param(HANGS, marks=pytest.mark.drives("worker W28")),
        pytest.param(BREAKS, marks=pytest.mark.drives("worker W29")),
    ],
    ids=["refuses", "hangs", "breaks"],
)
async def test_what_is_left_of_a_job_keeps_no_worker_from_leaving_and_the_operator_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    undead = Undead(monkeypatch, way)
    lines: list[str] = []
    timers = {Timer.CLEAN: 0.2} if way is HANGS else {}
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, timers=timers, runners=jobs.runners, say=lines.append)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            job = await runs(client, await waits(lab, client))
            lab.worker.terminate()
            jobs.let_go()
            assert await ends(client, job) is Outcome.SUCCEEDED
            await hears(client, W.STOPPING, way.said)
            undead.dies()
            assert (await client.fetch(job, tmp_path)).is_file()
            assert await goodbye(client) is ErrorCode.WORKER_LEAVING
    assert way.said in lines[-1]


@pytest.mark.drives("worker W24")
async def test_a_worker_that_was_asked_twice_gives_its_jobs_a_minute_and_no_more(
    tmp_path: Path,
) -> None:
    before = set(ours_alive())
    timers = {Timer.STOP: 0.3, Timer.KILL: 30.0}
    async with asyncio.timeout(20):
        async with (
            open_lab(tmp_path, timers=timers, runners=HOSTILE) as lab,
            lab.client() as client,
        ):
            job = job_id()
            await client.submit(job, lab.package("hostile defiant\n"))
            await runs(client, job)
            lab.worker.terminate()
            lab.worker.terminate()
            assert await ends(client, job) is Outcome.WORKER_STOPPED
            assert await goodbye(client) is ErrorCode.WORKER_LEAVING
        assert not set(ours_alive()) - before


@pytest.mark.drives("worker W34")
async def test_a_worker_that_can_not_kill_its_job_says_goodbye_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_kill(monkeypatch)
    lines: list[str] = []
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, runners=jobs.runners, say=lines.append)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            job = await runs(client, await waits(lab, client))
            for _ in range(3):
                lab.worker.terminate()
            assert await ends(client, job) is Outcome.WORKER_STOPPED
            assert await goodbye(client) is ErrorCode.WORKER_LEAVING
    assert "no signal gets there" in lines[-1]


@pytest.mark.drives("worker W27 W36")
async def test_what_can_neither_be_killed_nor_be_signalled_keeps_no_client_from_a_goodbye(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undead = Undead(monkeypatch, REFUSES)
    refuse_kill(monkeypatch)
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            job = await runs(client, await waits(lab, client))
            lab.worker.terminate()
            jobs.let_go()
            assert await ends(client, job) is Outcome.SUCCEEDED
            await hears(client, W.STOPPING, REFUSES.said)
            undead.dies()
            assert (await client.fetch(job, tmp_path)).is_file()
            assert await goodbye(client) is ErrorCode.WORKER_LEAVING


# --- something is not fetched -----------------------------------------------------------------


@pytest.mark.drives("worker W25")
async def test_a_worker_that_leaves_waits_for_its_clients_to_fetch_and_not_for_ever(
    tmp_path: Path,
) -> None:
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, timers={Timer.LINGER: 0.3}, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            job = await waits(lab, client)
            jobs.let_go()
            assert await ends(client, job) is Outcome.SUCCEEDED
            await hears(client, W.AVAILABLE)
            lab.worker.terminate()
            assert await goodbye(client) is ErrorCode.WORKER_LEAVING
            results = lab.folder / "worker" / "jobs" / job
            assert list(results.glob("*.zip"))  # they are the operator's now


@pytest.mark.drives("worker W76 W77 W78")
async def test_results_that_take_longer_to_pack_than_clients_have_are_not_lost_with_the_worker(
    tmp_path: Path,
) -> None:
    slow = Held("slow", ("true",), at="outputs")
    timers = {Timer.LINGER: 0.1}
    async with served(tmp_path, runners={("slow",): slow}, timers=timers) as (lab, client):
        job = await submitted(lab, client, "slow\n")
        await until_state(client, job, JobState.COLLECTING)
        await hears(client, W.AVAILABLE)
        steps = Steps(lab.worker)
        lab.worker.terminate()
        await steps.until(MachineName.WORKER, "W78", times=3)
        slow.go.set()
        last = (await until_final(client, job))[-1]
        assert isinstance(last, m.JobStateChanged)
        assert (last.outcome, last.problems) == (Outcome.SUCCEEDED, ())
        assert last.results.root


# --- something can't be written ---------------------------------------------------------------


@pytest.mark.drives("worker W32")
async def test_a_worker_that_can_not_write_down_what_it_promises_takes_no_job_and_leaves(
    tmp_path: Path,
) -> None:
    lines: list[str] = []
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path, say=lines.append) as lab,
        lab.client() as client,
    ):
        fill_disk(lab)
        job = await comes(client)
        assert await ends(client, job) is Outcome.REJECTED
        assert await goodbye(client) is ErrorCode.WORKER_LEAVING
    assert "disk is full" in lines[-1]


@pytest.mark.drives("worker W30 W70")
async def test_a_full_disk_is_no_request_to_end_and_one_request_ends_no_job(
    tmp_path: Path,
) -> None:
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            job = await runs(client, await waits(lab, client))
            fill_disk(lab)
            await comes(client)
            reason = (await hears(client, W.DRAINING, "disk is full")).reason
            assert str(tmp_path) not in reason
            await client.drain("a new disk")
            lab.worker.terminate()
            assert (await client.status()).reason == reason  # that is why it leaves
            jobs.let_go()
            assert await ends(client, job) is Outcome.SUCCEEDED
            assert (await client.fetch(job, tmp_path)).is_file()
            assert await goodbye(client) is ErrorCode.WORKER_LEAVING


@pytest.mark.drives("worker W32 W74")
async def test_a_worker_that_leaves_for_its_disk_is_asked_once_and_results_can_still_be_fetched(
    tmp_path: Path,
) -> None:
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            job = await waits(lab, client)
            jobs.let_go()
            assert await ends(client, job) is Outcome.SUCCEEDED
            await hears(client, W.AVAILABLE)
            fill_disk(lab)
            await comes(client)
            await hears(client, W.STOPPING)
            lab.worker.terminate()
            assert (await client.fetch(job, tmp_path)).is_file()
            assert await goodbye(client) is ErrorCode.WORKER_LEAVING


@pytest.mark.drives("worker W31")
async def test_a_break_that_can_not_be_written_down_ends_with_the_worker_and_its_job_finishes(
    tmp_path: Path,
) -> None:
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            job = await runs(client, await waits(lab, client))
            await client.drain("a new disk")
            fill_disk(lab)
            await client.drain("a newer disk")
            late = await comes(client)
            assert await ends(client, late) is Outcome.REJECTED
            jobs.let_go()
            assert await ends(client, job) is Outcome.SUCCEEDED
            assert (await client.fetch(job, tmp_path)).is_file()
            assert await goodbye(client) is ErrorCode.WORKER_LEAVING
