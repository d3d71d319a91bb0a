"""A worker that is asked to end: once, twice, three times."""

import asyncio
from pathlib import Path

from fsm_worker.events import Timer
from fsm_worker.examples.digits.package import build_package
from fsm_worker.services.archive import pack
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, WorkerState
from tests.e2e.lab import Lab, job_id, open_lab, until_final
from tests.e2e.test_endings import HOSTILE, ours_alive, until_log, until_progress, until_worker


def outcome(heard: list[m.Message]) -> Outcome:
    last = heard[-1]
    assert isinstance(last, m.JobStateChanged)
    return last.outcome


def work_folders(lab: Lab) -> list[Path]:
    """What a job leaves behind that is neither log, nor record, nor results."""
    jobs = lab.folder / "worker" / "jobs"
    return [path for name in ("inputs", "unpacked") for path in jobs.glob(f"*/{name}")]


async def test_asked_once_it_finishes_its_job_takes_no_other_and_hands_over_the_results(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path) as lab, lab.client() as client:
        folder = build_package(tmp_path / "digits", epochs=20, pace=0.1)
        job = job_id()
        await client.submit(job, pack(folder, tmp_path / "digits.zip"))
        await until_progress(client, "epoch_end")
        lab.worker.terminate()
        await until_worker(client, WorkerState.DRAINING)
        late = job_id()
        await client.submit(late, lab.package("digits\n"))
        refused = (await until_final(client, late))[-1]
        assert isinstance(refused, m.JobStateChanged)
        assert (refused.state, refused.problems[0].code) == (
            JobState.REJECTED,
            ErrorCode.WORKER_LEAVING,
        )
        assert outcome(await until_final(client, job)) is Outcome.SUCCEEDED
        assert (await client.fetch(job, tmp_path)).stat().st_size > 0


async def test_asked_twice_it_ends_its_job_and_says_so(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path) as lab, lab.client() as client:
        folder = build_package(tmp_path / "digits", epochs=1000, pace=0.1)
        job = job_id()
        await client.submit(job, pack(folder, tmp_path / "digits.zip"))
        await until_progress(client, "epoch_end")
        lab.worker.terminate()
        lab.worker.terminate()
        assert outcome(await until_final(client, job)) is Outcome.WORKER_STOPPED


async def test_asked_three_times_a_defiant_job_is_killed_and_its_owner_hears_the_outcome(
    tmp_path: Path,
) -> None:
    before = set(ours_alive())
    async with asyncio.timeout(60):
        async with (
            open_lab(tmp_path, runners=HOSTILE, timers={Timer.KILL: 30.0}) as lab,
            lab.client() as client,
        ):
            job = job_id()
            await client.submit(job, lab.package("hostile defiant\n"))
            client.follow_log(job)
            await until_log(client, "READY")
            for _ in range(3):
                lab.worker.terminate()
            assert outcome(await until_final(client, job)) is Outcome.WORKER_STOPPED
        assert not set(ours_alive()) - before
        assert work_folders(lab) == []
