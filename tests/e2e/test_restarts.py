"""A signaling server that restarts, and connections that are cut: no job and no worker minds."""

import asyncio
from pathlib import Path

from fsm_worker.client.discovery import workers_in_room
from fsm_worker.events import Timer
from fsm_worker.examples.digits.package import build_package
from fsm_worker.identity import Identity
from fsm_worker.machines.world import THE_SERVER
from fsm_worker.services.archive import PackedArchive, pack
from fsm_worker.signaling.server import SignalingServer
from protocol.lifecycle import Outcome, SignallingState, WorkerState
from protocol.messages import Progress, WorkerStatus
from protocol.table import MachineName
from tests.e2e.lab import Lab, job_id, open_lab, until_final

SOON = {Timer.DELAY: 0.1}


def digits(folder: Path, epochs: int = 2, pace: float = 0.0) -> PackedArchive:
    made = build_package(folder / job_id(), epochs=epochs, pace=pace)
    return pack(made, made.with_suffix(".zip"))


async def registered(lab: Lab) -> None:
    """Waits for what the server tells the worker's machine, and nobody else."""
    async with asyncio.timeout(20):
        while True:
            server = lab.worker.world.get(MachineName.SIGNALLING, THE_SERVER)
            if server is not None and server.state is SignallingState.REGISTERED:
                return
            await asyncio.sleep(0.02)


async def test_after_a_restart_of_the_server_the_worker_says_the_same_and_takes_the_next_job(
    tmp_path: Path,
) -> None:
    key = b"k" * 32
    async with asyncio.timeout(90), open_lab(tmp_path, timers=SOON, key=key) as lab:
        port = lab.server.port
        async with lab.client() as client:
            assert (await client.status()).state is WorkerState.AVAILABLE
            [before] = await workers_in_room(lab.session)
            job = job_id()
            await client.submit(job, digits(tmp_path, epochs=60, pace=0.05))
            async for message in client.news():
                if isinstance(message, Progress):
                    break
            await lab.server.__aexit__(None, None, None)
            async with SignalingServer("127.0.0.1", port, key=key):
                await registered(lab)
                heard = await until_final(client, job)
                assert heard[-1].outcome is Outcome.SUCCEEDED, "the job did not notice"
                async for message in client.news():
                    if isinstance(message, WorkerStatus) and message.state is WorkerState.AVAILABLE:
                        break
                [after] = await workers_in_room(lab.session)
                assert (after.peer_id, after.metadata) == (before.peer_id, before.metadata)
                # a second client comes after the first, by the very line of before
                async with lab.client(Identity.load(tmp_path / "client.key")) as other:
                    job = job_id()
                    await other.submit(job, digits(tmp_path))
                    heard = await until_final(other, job)
                    assert heard[-1].outcome is Outcome.SUCCEEDED


async def test_a_websocket_that_is_cut_costs_no_job_and_no_later_client(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path, timers=SOON) as lab:
        async with lab.client() as client:
            job = job_id()
            await client.submit(job, digits(tmp_path, epochs=40, pace=0.05))
            lab.server._cut_all()
            heard = await until_final(client, job)
            assert heard[-1].outcome is Outcome.SUCCEEDED
        await registered(lab)
        async with lab.client() as client:
            job = job_id()
            await client.submit(job, digits(tmp_path))
            heard = await until_final(client, job)
            assert heard[-1].outcome is Outcome.SUCCEEDED
