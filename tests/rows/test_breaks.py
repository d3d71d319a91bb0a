"""A break that an operator wants, changes and takes back, while a job runs or the machine is looked
at.
"""

import asyncio
from pathlib import Path

import pytest

from fsm_worker.services.launcher import LocalProcess
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import Outcome, WorkerState
from protocol.table import MachineName
from tests.e2e.lab import open_lab
from tests.rows.faults import played_driver
from tests.rows.slot import ends, gate, hears, runs, waits
from tests.rows.steps import Steps

W = WorkerState


@pytest.mark.drives("worker W57 W64 W66")
async def test_a_break_that_is_taken_back_in_time_costs_nobody_anything(tmp_path: Path) -> None:
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            first = await runs(client, await waits(lab, client))
            second = await waits(lab, client)
            await client.drain("a new driver")
            await client.drain("a new disk")  # the newer word counts
            assert (await client.status()).reason == "a new disk"
            assert await client.undrain() == m.DrainState(drained=False, state=W.BUSY)
            assert (await client.status()).reason == ""
            assert await client.undrain() == m.DrainState(drained=False, state=W.BUSY)
            jobs.let_go(2)
            assert await ends(client, first) is Outcome.SUCCEEDED
            assert await ends(client, second) is Outcome.SUCCEEDED


@pytest.mark.drives("worker W58 W61 W65")
async def test_a_break_that_is_wanted_while_the_machine_is_looked_at_begins_when_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = played_driver(monkeypatch)
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        assert (await client.drain()).state is W.MAINTENANCE
        assert (await client.drain()).state is W.MAINTENANCE
        driver.hangs()
        assert (await client.undrain()).state is W.STARTING
        assert await client.drain() == m.DrainState(drained=True, state=W.STARTING)
        assert await client.undrain() == m.DrainState(drained=False, state=W.STARTING)
        assert (await client.status()).reason == ""
        await client.drain("a new fan")
        assert (await client.status()).reason == "a new fan"
        driver.works()
        await hears(client, W.MAINTENANCE, "a new fan")


@pytest.mark.drives("worker W58 W65")
async def test_a_break_that_is_taken_back_while_the_slot_is_cleaned_is_not_told_of_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills, may_die = LocalProcess.kill_leftovers, asyncio.Event()

    async def slowly(process: LocalProcess, *, grace: float = 5.0) -> tuple[int, ...]:
        await may_die.wait()
        return await kills(process, grace=grace)

    monkeypatch.setattr(LocalProcess, "kill_leftovers", slowly)
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            await runs(client, await waits(lab, client))
            jobs.let_go()
            await hears(client, W.CLEANING)
            assert (await client.drain("a new fan")).state is W.CLEANING
            assert (await client.status()).reason == "a new fan"
            assert (await client.undrain()).state is W.CLEANING
            steps = Steps(lab.worker)
            may_die.set()
            await steps.until(MachineName.WORKER, "W10")
            now = await client.status()
            assert (now.state, now.reason) == (W.AVAILABLE, "")


@pytest.mark.drives("worker W70 W67")
async def test_a_worker_that_leaves_after_its_job_can_not_be_called_back(tmp_path: Path) -> None:
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            running = await runs(client, await waits(lab, client))
            await client.drain()
            waiting = await waits(lab, client)
            lab.worker.terminate()
            with pytest.raises(ProtocolError) as caught:
                await client.undrain()
            assert caught.value.code is ErrorCode.WORKER_LEAVING
            assert await ends(client, waiting) is Outcome.REJECTED
            jobs.let_go()
            assert await ends(client, running) is Outcome.SUCCEEDED
            assert (await client.fetch(running, tmp_path)).is_file()


@pytest.mark.drives("worker W68 W69 W73")
async def test_a_worker_that_waits_for_nothing_but_a_fetch_says_to_everything_that_it_leaves(
    tmp_path: Path,
) -> None:
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            job = await waits(lab, client)
            jobs.let_go()
            assert await ends(client, job) is Outcome.SUCCEEDED
            await hears(client, W.AVAILABLE)
            lab.worker.terminate()
            await hears(client, W.STOPPING)
            # no job will start: that is what a break asks for
            assert await client.drain() == m.DrainState(drained=True, state=W.STOPPING)
            for ask in (client.undrain(), client.reserve({})):
                with pytest.raises(Exception) as caught:
                    await ask
                assert caught.value.code is ErrorCode.WORKER_LEAVING
            assert (await client.fetch(job, tmp_path)).is_file()
