"""Stop, cancel, refusal and a client that dies: the ends of a job that users meet."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from fsm_worker.client.connection import ConnectionOver, WorkerConnection
from fsm_worker.events import Timer
from fsm_worker.examples.digits.package import build_package
from fsm_worker.identity import Identity
from fsm_worker.services.archive import pack, unpack
from fsm_worker.services.launcher import MARKER
from fsm_worker.services.recipe import Runner
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, Outcome, WorkerState
from tests.conftest import RUN
from tests.e2e.lab import Lab, job_id, open_lab, until_final
from tests.services import hostile_trainer

HOSTILE = {("hostile",): Runner("hostile", (sys.executable, str(Path(hostile_trainer.__file__))))}


async def until_progress(client: WorkerConnection, event: str) -> m.Progress:
    async for message in client.news():
        if isinstance(message, m.Progress) and message.event == event:
            return message
    raise AssertionError("the news ended")


async def until_log(client: WorkerConnection, text: str) -> None:
    heard = ""
    async for message in client.news():
        if isinstance(message, m.Log):
            heard += message.text
            if text in heard:
                return
    raise AssertionError("the news ended")


async def until_worker(client: WorkerConnection, state: WorkerState) -> None:
    while (await client.status()).state is not state:
        async for message in client.news():
            if isinstance(message, m.WorkerStatus) and message.state is state:
                return


def ours_alive() -> list[psutil.Process]:
    """Processes of this run with the launcher's marker."""
    found = []
    for process in psutil.process_iter():
        try:
            environ = process.environ()
            if MARKER in environ and environ.get(RUN) == os.environ[RUN]:
                found.append(process)
        except psutil.Error:
            continue
    return found


async def slow_digits(lab: Lab, client: WorkerConnection) -> str:
    archive = pack(
        build_package(lab.folder / "slow", epochs=1000, pace=0.05), lab.folder / "slow.zip"
    )
    job = job_id()
    await client.submit(job, archive)
    await until_progress(client, "epoch_end")
    return job


async def test_stop_in_mid_training_keeps_the_model(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path) as lab, lab.client() as client:
        job = await slow_digits(lab, client)
        changed = await client.stop(job)
        assert changed.state is JobState.STOPPING
        last = (await until_final(client, job))[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.outcome is Outcome.STOPPED_EARLY
        unpack(await client.fetch(job, tmp_path), tmp_path / "results")
        assert list((tmp_path / "results").rglob("model.npz"))
        with pytest.raises(ProtocolError) as refusal:
            await client.stop(job)
        assert refusal.value.code is ErrorCode.ALREADY_TERMINAL


async def test_cancel_of_a_defiant_tree_leaves_no_process(tmp_path: Path) -> None:
    before = set(ours_alive())
    async with (
        asyncio.timeout(60),
        open_lab(tmp_path, runners=HOSTILE, timers={Timer.KILL: 0.5}) as lab,
        lab.client() as client,
    ):
        job = job_id()
        await client.submit(job, lab.package("hostile defiant\n"))
        client.follow_log(job)
        await until_log(client, "READY")
        assert len(set(ours_alive()) - before) >= 3  # the trainer, its child, its daemon
        await client.cancel(job)
        last = (await until_final(client, job))[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.outcome is Outcome.CANCELLED
        await until_worker(client, WorkerState.AVAILABLE)
        assert not set(ours_alive()) - before
        mine = psutil.Process().children(recursive=True)
        assert not [p for p in mine if p.status() == psutil.STATUS_ZOMBIE]
        with pytest.raises(ProtocolError) as refusal:
            await client.fetch(job, tmp_path)
        assert refusal.value.code is ErrorCode.RESULTS_NOT_READY


async def test_a_stop_that_nobody_heeds_ends_by_signals(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(60),
        open_lab(tmp_path, runners=HOSTILE, timers={Timer.STEP: 0.3}) as lab,
        lab.client() as client,
    ):
        job = job_id()
        await client.submit(job, lab.package("hostile defiant\n"))
        client.follow_log(job)
        await until_log(client, "READY")
        await client.stop(job)
        heard = await until_final(client, job)
        rows = [n.row for n in heard if isinstance(n, m.JobStateChanged)]
        assert rows[-5:] == ["J42", "J43", "J44", "J47", "J49"]
        assert heard[-1].outcome is Outcome.STOPPED_EARLY


@pytest.mark.parametrize(
    "line",
    ["rm -rf x", "sleap-nn train a; curl b", "digits train `id`", "digits train --data $(id)"],
)
async def test_anything_but_known_commands_is_rejected_with_its_line(
    tmp_path: Path, line: str
) -> None:
    async with asyncio.timeout(30), open_lab(tmp_path) as lab, lab.client() as client:
        job = job_id()
        await client.submit(job, lab.package(f"#!/bin/bash\n\n{line}\n"))
        last = (await until_final(client, job))[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.state is JobState.REJECTED
        assert last.outcome is Outcome.REJECTED
        assert last.problems[0].code is ErrorCode.SCRIPT_REFUSED
        assert last.problems[0].line == 3
        record = lab.worker.settings.state / "jobs" / job / "record"
        assert not record.exists()  # nothing ran


async def test_a_client_that_dies_costs_nothing(tmp_path: Path) -> None:
    """kill -9 of the client's process; another process attaches and gets everything."""
    program = Path(__file__).with_name("dying_client.py")
    async with asyncio.timeout(90), open_lab(tmp_path) as lab:
        archive = pack(
            build_package(tmp_path / "slow", epochs=60, pace=0.05), tmp_path / "slow.zip"
        )
        job = job_id()
        dying = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.e2e.dying_client",
            lab.session.encode(), str(tmp_path / "client.key"), str(archive.path), job,
            stdout=asyncio.subprocess.PIPE, cwd=program.parents[2],
        )  # fmt: skip
        assert dying.stdout is not None
        assert (await dying.stdout.readline()).strip() == b"epoch_end"
        dying.send_signal(signal.SIGKILL)
        assert await dying.wait() == -signal.SIGKILL
        async with lab.client() as client:
            snapshot = await client.attach(job)
            assert snapshot.state in {JobState.RUNNING, JobState.COLLECTING, JobState.DONE}
            client.follow_log(job, 0)
            log = ""
            async for message in client.news():
                if isinstance(message, m.Log):
                    assert message.offset == len(log.encode())
                    log += message.text
                elif isinstance(message, m.LogEnd):
                    break
            first = (lab.worker.settings.state / "jobs" / job / "output.log").read_text()
            assert log == first
            assert (await client.attach(job)).outcome is Outcome.SUCCEEDED
            assert (await client.fetch(job, tmp_path)).is_file()


async def test_two_jobs_queue_for_the_slot(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path) as lab, lab.client() as client:
        archive = pack(build_package(tmp_path / "digits", epochs=3), tmp_path / "digits.zip")
        jobs = [job_id(), job_id()]
        for job in jobs:
            await client.submit(job, archive)
        ends: dict[str, Outcome] = {}
        async for message in client.news():  # the one whose package was read first goes first
            if isinstance(message, m.JobStateChanged) and message.state is JobState.DONE:
                ends[message.job] = message.outcome
            if len(ends) == len(jobs):
                break
        assert ends == dict.fromkeys(jobs, Outcome.SUCCEEDED)
        assert {snapshot.job for snapshot in await client.jobs()} == set(jobs)


async def test_a_stranger_is_not_let_in_and_sees_no_job(tmp_path: Path) -> None:
    async with asyncio.timeout(30), open_lab(tmp_path) as lab:
        async with lab.client():
            pass  # the invitation is spent on the first key
        stranger = Identity.load(tmp_path / "stranger.key")
        with pytest.raises(ConnectionOver) as refusal:
            async with lab.client(stranger):
                pass
        assert refusal.value.code is ErrorCode.NOT_AUTHENTICATED


async def test_a_lost_link_is_dialled_again_and_loses_nothing(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path) as lab, lab.client() as client:
        archive = pack(
            build_package(tmp_path / "slow", epochs=40, pace=0.05), tmp_path / "slow.zip"
        )
        job = job_id()
        await client.submit(job, archive)
        client.follow_log(job)
        await until_progress(client, "epoch_end")
        for pc in list(lab.worker._peers.values()):
            await pc.close()  # as consent loss does: no farewell
        heard = await until_final(client, job)
        assert heard[-1].outcome is Outcome.SUCCEEDED
        states = [n.state for n in heard if isinstance(n, m.JobStateChanged)]
        assert states == [JobState.COLLECTING, JobState.DONE]
        assert (await client.fetch(job, tmp_path)).is_file()
