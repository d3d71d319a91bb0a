"""The slot is promised to nobody until it is proved: a driver that fails, processes that stay."""

import asyncio
from pathlib import Path

import pytest

from fsm_worker.client.connection import ReservationRefused
from fsm_worker.events import Timer
from fsm_worker.machines.job import WAITING
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import Outcome, WorkerState
from tests.e2e import lab as lab_module
from tests.e2e.lab import open_lab
from tests.rows.faults import BREAKS, HANGS, REFUSES, Undead, Way, played_driver
from tests.rows.slot import ends, gate, hears, is_told, runs, waits

W = WorkerState

#: Of a machine that can't be promised: it is looked at again soon.
AGAIN = {Timer.PROBE: 0.15}


@pytest.mark.drives("worker W3 W43 W79 W80")
async def test_a_worker_whose_driver_fails_says_so_and_promises_its_slot_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played_driver(monkeypatch).fails()
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        assert "nvidia-smi" in (await hears(client, W.DEGRADED)).reason
        with pytest.raises(ReservationRefused) as caught:
            await client.reserve({})
        assert caught.value.code is ErrorCode.WORKER_BUSY
        # a break can be wanted, and taken back: it stays what it is
        assert await client.drain() == m.DrainState(drained=True, state=W.DEGRADED)
        assert await client.undrain() == m.DrainState(drained=False, state=W.DEGRADED)


async def _at_once(_worker: object) -> None:
    """A worker is used before it has looked at its machine."""


@pytest.mark.drives("worker W1")
async def test_whoever_asks_why_a_worker_is_starting_while_its_driver_hangs_hears_since_when(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = played_driver(monkeypatch)
    driver.hangs()
    monkeypatch.setattr(lab_module, "_has_looked", _at_once)
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        explained = await client.explain()
        assert explained.state == W.STARTING
        assert [(step.row, step.event) for step in explained.steps] == [("W1", "started")]
        assert "probe_succeeded" in explained.awaits
        driver.works()
        await hears(client, W.AVAILABLE)


@pytest.mark.drives("worker W4 W17 W18 W20 W19")
async def test_a_driver_that_hangs_then_fails_then_works_is_told_and_a_job_runs_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = played_driver(monkeypatch)
    driver.hangs()
    with gate(tmp_path) as jobs:
        jobs.let_go()
        door = open_lab(tmp_path, timers=AGAIN, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            await hears(client, W.DEGRADED, "the GPU probe hangs")
            driver.fails()
            await hears(client, W.DEGRADED, "answers with an error")
            job = await waits(lab, client)
            await hears(client, W.DEGRADED)
            assert (await client.attach(job)).state in WAITING
            driver.works()
            assert await ends(client, job) is Outcome.SUCCEEDED
            now = await client.status()
            assert [gpu.uuid for gpu in now.capabilities.gpus] == [driver.gpus[0].uuid]


@pytest.mark.drives("worker W5 W62")
async def test_a_driver_that_breaks_in_an_unknown_way_costs_no_worker_and_a_break_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = played_driver(monkeypatch)
    driver.broken = OSError("libnvidia-ml.so.1: file too short")
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path, timers=AGAIN) as lab,
        lab.client() as client,
    ):
        await hears(client, W.DEGRADED, "file too short")
        await client.drain("a new driver")
        assert "file too short" in (await client.status()).reason  # that is worse
        driver.works()
        assert (await hears(client, W.MAINTENANCE)).reason == "a new driver"
        assert (await client.undrain()).drained is False
        await hears(client, W.AVAILABLE)


# --- what a job leaves behind -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "times"),
    [
        pytest.param(REFUSES, 2, marks=pytest.mark.drives("worker W12 W17 W21 W18 W19")),
        pytest.param(HANGS, 1, marks=pytest.mark.drives("worker W13 W17 W18 W19")),
        pytest.param(BREAKS, 2, marks=pytest.mark.drives("worker W14 W17 W5 W18 W19")),
    ],
    ids=["refuses", "hangs", "breaks"],
)
async def test_while_something_of_the_last_job_lives_the_next_one_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way, times: int
) -> None:
    undead = Undead(monkeypatch, way)
    timers = {**AGAIN, **({Timer.CLEAN: 0.15} if way is HANGS else {})}
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, timers=timers, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            first = await runs(client, await waits(lab, client))
            jobs.let_go(2)
            for _ in range(times):  # each attempt that ends is told
                await is_told(client, W.DEGRADED, way.said)
            assert (await client.attach(first)).outcome is Outcome.SUCCEEDED
            second = await waits(lab, client)
            for _ in range(2):
                await undead.attempts.get()
            assert (await client.attach(second)).state in WAITING
            undead.dies()
            assert await ends(client, second) is Outcome.SUCCEEDED
