"""Reservations, breaks, and the negotiation of sleap-rtc's clients: real workers, real peers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from fsm_worker.client.connection import ReservationRefused, WorkerConnection
from fsm_worker.events import Timer
from fsm_worker.examples.digits.package import build_package
from fsm_worker.identity import Identity
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.services.archive import PackedArchive, pack
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, Outcome, WorkerState
from protocol.table import MachineName
from tests.e2e.lab import Lab, job_id, open_lab, until_final

M, W = MachineName, WorkerState


async def told(connection: WorkerConnection, kind: type[m.Message]) -> m.Message:
    async for message in connection.news():
        if isinstance(message, kind):
            return message
    raise AssertionError(f"the news ended without {kind.__name__}")


def state(lab: Lab) -> Any:
    worker = lab.worker.world.get(M.WORKER, THE_WORKER)
    assert worker is not None
    return worker.state


def digits(lab: Lab, epochs: int, pace: float) -> PackedArchive:
    folder = build_package(lab.folder / job_id(), epochs=epochs, pace=pace)
    return pack(folder, folder.with_suffix(".zip"))


# --- natively -------------------------------------------------------------------------------------


async def test_a_reserved_slot_waits_for_its_holder_s_job(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path) as lab, lab.client() as client:
        kept = await client.reserve({"runner": "digits", "cpus": "1"})
        assert (kept.seconds, kept.renewals, state(lab)) == (30.0, 3, W.RESERVED)
        assert (await client.reserve({})).renewals == 2
        package = digits(lab, 2, 0)
        job = job_id()
        await client.submit(job, package)
        heard = await until_final(client, job)
        assert heard[-1].outcome is Outcome.SUCCEEDED


async def test_what_is_not_here_is_refused_with_every_reason(tmp_path: Path) -> None:
    async with asyncio.timeout(30), open_lab(tmp_path) as lab, lab.client() as client:
        with pytest.raises(ReservationRefused) as caught:
            await client.reserve({"gpu": "8", "runner": "alphafold", "cpus": "1", "nose": "2"})
        assert caught.value.code is ErrorCode.NEED_UNMET
        gpu, runner, unknown = caught.value.reasons
        assert "gpu=8" in gpu
        assert "alphafold" in runner
        assert "nose" in unknown
        assert state(lab) is W.AVAILABLE
        with pytest.raises(ProtocolError) as refused:
            await client.release()
        assert refused.value.code is ErrorCode.NOT_HOLDER


async def test_a_forgotten_reservation_runs_out_and_its_holder_hears_so(tmp_path: Path) -> None:
    lease = {Timer.LEASE: 0.5}
    async with asyncio.timeout(30), open_lab(tmp_path, timers=lease) as lab, lab.client() as client:
        await client.reserve({})
        over = await told(client, m.ReservationOver)
        assert over.code is ErrorCode.RESERVATION_EXPIRED
        assert state(lab) is W.AVAILABLE


async def test_a_break_lets_a_job_finish_and_the_next_one_wait(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path) as lab, lab.client() as client:
        assert client.welcome.rights == ("submit", "operate")
        first, second = job_id(), job_id()
        await client.submit(first, digits(lab, 20, 0.05))
        await told(client, m.Progress)
        drained = await client.drain("a new driver")
        assert (drained.drained, drained.state) == (True, W.DRAINING)
        assert (await client.status()).reason == "a new driver"
        await client.submit(second, digits(lab, 1, 0))
        heard = await until_final(client, first)
        assert heard[-1].outcome is Outcome.SUCCEEDED
        async for message in client.news():
            if isinstance(message, m.WorkerStatus) and message.state is W.MAINTENANCE:
                break
        assert (await client.attach(second)).state is JobState.QUEUED
        assert (await client.undrain()).drained is False
        heard = await until_final(client, second)
        assert heard[-1].outcome is Outcome.SUCCEEDED


async def test_a_job_that_outlasts_its_time_before_a_break_keeps_its_model(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path) as lab, lab.client() as client:
        job = job_id()
        await client.submit(job, digits(lab, 2000, 0.05))
        await told(client, m.Progress)
        await client.drain(deadline_s=0.2)
        heard = await until_final(client, job)
        assert heard[-1].outcome is Outcome.STOPPED_EARLY
        assert heard[-1].results.root


async def test_whoever_can_read_the_worker_s_key_is_an_operator_and_others_are_not(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(30), open_lab(tmp_path) as lab:
        lab.worker.clients._keys[Identity.load(tmp_path / "guest.key").key] = ("submit",)
        async with lab.client(Identity.load(tmp_path / "guest.key")) as guest:
            for ask in (guest.drain, guest.undrain):
                with pytest.raises(ProtocolError) as caught:
                    await ask()
                assert caught.value.code is ErrorCode.NOT_AUTHORISED
        assert state(lab) is W.AVAILABLE
        async with lab.client(lab.worker.identity) as operator:
            assert (await operator.drain()).state is W.MAINTENANCE
            assert (await operator.undrain()).state is W.STARTING


# --- as sleap-rtc's clients do --------------------------------------------------------------------


@contextlib.asynccontextmanager
async def a_peer(lab: Lab, name: str = "user") -> AsyncIterator[ClientConnection]:
    """Registers in the worker's room as `RTCClient` does."""
    async with connect(lab.session.url, proxy=None) as socket:
        register = {"type": "register", "peer_id": name, "room_id": lab.session.room,
                    "token": lab.session.token, "jwt": "x.y.z", "role": "client"}  # fmt: skip
        await socket.send(json.dumps(register))
        await heard(socket, "registered_auth")
        yield socket


async def heard(socket: ClientConnection, kind: str) -> dict[str, Any]:
    async for frame in socket:
        said = json.loads(frame)
        assert said["type"] != "error", said
        if said["type"] == kind:
            return dict(said)
    raise AssertionError("the server closed the connection")


async def say(socket: ClientConnection, lab: Lab, name: str = "user", **payload: Any) -> None:
    message = {"type": "peer_message", "from_peer_id": name, "to_peer_id": lab.session.peer}
    await socket.send(json.dumps({**message, "payload": payload}))


async def answer(socket: ClientConnection) -> dict[str, Any]:
    payload: dict[str, Any] = (await heard(socket, "peer_message"))["payload"]
    return payload


def request(job_id: str, **requirements: Any) -> dict[str, Any]:
    return {"app_message_type": "job_request", "job_id": job_id, "job_type": "",
            "config": {"epochs": 3}, "requirements": requirements}  # fmt: skip


async def test_a_job_is_negotiated_and_cancelled_through_the_signaling_server(
    tmp_path: Path,
) -> None:
    door = open_lab(tmp_path, allow_sleap_rtc=True, timers={Timer.LEASE: 20.0})
    async with asyncio.timeout(30), door as lab, a_peer(lab) as socket:
        await say(socket, lab, **request("j-1"))
        said = await answer(socket)
        assert (said["app_message_type"], said["job_id"], said["accepted"]) == (
            "job_response", "j-1", True,
        )  # fmt: skip
        assert state(lab) is W.RESERVED
        await say(socket, lab, app_message_type="job_assignment", job_id="j-1")
        assert (await answer(socket))["status"] == "reserved"
        async with a_peer(lab, "other") as second:
            await say(second, lab, "other", **request("j-2"))
            said = await answer(second)
            assert (said["accepted"], said["reason"]) == (False, "busy")
        await say(socket, lab, app_message_type="job_cancel", job_id="j-1", reason="user")
        said = await answer(socket)
        assert (said["app_message_type"], said["cleanup_complete"]) == ("job_cancelled", True)
        assert state(lab) is W.AVAILABLE
        await say(socket, lab, **request("j-3", min_gpu_memory_mb=10**6))
        said = await answer(socket)
        assert (said["accepted"], said["reason"]) == (False, "incompatible")


async def test_a_client_of_sleap_rtc_finds_a_worker_that_lets_it_in(tmp_path: Path) -> None:
    door = open_lab(tmp_path, allow_sleap_rtc=True)
    async with asyncio.timeout(30), door as lab, a_peer(lab) as socket:
        filters = {"role": "worker", "room_id": lab.session.room, "tags": ["sleap-rtc"],
                   "properties": {"status": "available", "gpu_memory_mb": {"$gte": 0}}}  # fmt: skip
        ask = json.dumps({"type": "discover_peers", "from_peer_id": "user", "filters": filters})
        found: dict[str, Any] = {"peers": []}
        while not found["peers"]:  # it looks at its machine first
            await socket.send(ask)
            found = await heard(socket, "peer_list")
            await asyncio.sleep(0.1)
        [worker] = found["peers"]
        assert worker["peer_id"] == lab.session.peer
        assert worker["metadata"]["properties"]["max_concurrent_jobs"] == 1
