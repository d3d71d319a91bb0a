"""A slot that is kept for somebody: how long, for whom, and who hears that it is over."""

import asyncio
import errno
from pathlib import Path

import pytest

from fsm_worker.client.connection import ReservationRefused, WorkerConnection
from fsm_worker.events import Timer
from fsm_worker.identity import Identity
from fsm_worker.services import capabilities
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, Outcome, WorkerState
from tests.e2e.lab import Lab, open_lab
from tests.rows.faults import fill_disk
from tests.rows.slot import comes, ends, gate, hears, runs, waits

W = WorkerState


async def over(client: WorkerConnection) -> m.ReservationOver:
    """How the client is told that its reservation is over."""
    async for message in client.news():
        if isinstance(message, m.ReservationOver):
            return message
    raise AssertionError("the news ended")


async def refused(client: WorkerConnection) -> ErrorCode:
    """Why the slot is not kept for this client."""
    with pytest.raises(ReservationRefused) as caught:
        await client.reserve({})
    return caught.value.code


def somebody_else(lab: Lab) -> Identity:
    """Another key that the worker lets in."""
    identity = Identity.load(lab.folder / "other.key")
    lab.worker.clients._keys[identity.key] = ("submit",)
    return identity


@pytest.mark.drives("worker W81")
async def test_whoever_asks_hears_of_a_worker_that_can_not_look_at_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_facts: object) -> tuple[str, ...]:
        raise OSError(errno.EIO, "Input/output error", "/sys/class")

    monkeypatch.setattr(capabilities, "unmet", breaks)
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        with pytest.raises(ReservationRefused) as caught:
            await client.reserve({"cpus": "2"})
        assert caught.value.code is ErrorCode.INTERNAL
        assert "ask again" in str(caught.value)
        await hears(client, W.AVAILABLE)


@pytest.mark.drives("worker W41")
async def test_a_reservation_is_renewed_three_times_and_then_a_job_has_to_come(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        assert [(await client.reserve({})).renewals for _ in range(4)] == [3, 2, 1, 0]
        assert await refused(client) is ErrorCode.IN_PROGRESS
        await hears(client, W.RESERVED)  # it is not lost by asking


@pytest.mark.drives("worker W47 W71")
async def test_a_slot_is_kept_for_a_job_that_is_being_uploaded_but_not_for_ever(
    tmp_path: Path,
) -> None:
    lease = {Timer.LEASE: 0.03}
    async with asyncio.timeout(20), open_lab(tmp_path, timers=lease) as lab, lab.client() as client:
        job = await comes(client)
        await client.reserve({})
        told = await over(client)
        assert (told.code, "queue" in told.reason) == (ErrorCode.RESERVATION_EXPIRED, True)
        await hears(client, W.AVAILABLE)
        assert (await client.attach(job)).state is JobState.STAGING


@pytest.mark.drives("worker W49")
async def test_whoever_cancels_the_job_that_was_to_come_keeps_the_slot_no_longer_than_others(
    tmp_path: Path,
) -> None:
    lease = {Timer.LEASE: 0.3}
    async with asyncio.timeout(20), open_lab(tmp_path, timers=lease) as lab, lab.client() as client:
        job = await comes(client)
        await client.reserve({})
        await client.cancel(job)
        told = await over(client)
        assert (told.code, told.reason) == (
            ErrorCode.RESERVATION_EXPIRED,
            "no job of yours came in time: reserve again",
        )


@pytest.mark.drives("worker W52")
async def test_nobody_gives_back_what_is_kept_for_somebody_else(tmp_path: Path) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        await client.reserve({})
        async with lab.client(somebody_else(lab)) as other:
            with pytest.raises(ProtocolError) as caught:
                await other.release()
            assert caught.value.code is ErrorCode.NOT_HOLDER
            assert (await other.status()).state is W.RESERVED
        await client.release()
        await hears(client, W.AVAILABLE)


@pytest.mark.drives("worker W43 W72")
async def test_a_slot_that_is_taken_is_kept_for_nobody_and_one_that_will_be_gone_neither(
    tmp_path: Path,
) -> None:
    with gate(tmp_path) as jobs:
        door = open_lab(tmp_path, runners=jobs.runners)
        async with asyncio.timeout(20), door as lab, lab.client() as client:
            job = await runs(client, await waits(lab, client))
            assert await refused(client) is ErrorCode.WORKER_BUSY
            lab.worker.terminate()
            assert await refused(client) is ErrorCode.WORKER_LEAVING
            jobs.let_go()
            assert await ends(client, job) is Outcome.SUCCEEDED


@pytest.mark.drives("worker W55")
async def test_the_holder_hears_that_a_break_has_ended_its_reservation(tmp_path: Path) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        await client.reserve({})
        async with lab.client(lab.worker.identity) as operator:
            assert (await operator.drain("a new fan")).state is W.MAINTENANCE
        assert (await over(client)).code is ErrorCode.WORKER_DRAINED
        assert (await client.status()).reason == "a new fan"


@pytest.mark.drives("worker W50")
async def test_the_holder_hears_that_the_worker_leaves(tmp_path: Path) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        await client.reserve({})
        lab.worker.terminate()
        assert (await over(client)).code is ErrorCode.WORKER_LEAVING


@pytest.mark.drives("worker W51")
async def test_a_reservation_that_can_not_be_written_down_is_over(tmp_path: Path) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        await client.reserve({})
        fill_disk(lab)
        await client.reserve({})
        assert (await over(client)).code is ErrorCode.WORKER_LEAVING
