"""What a job has made: packed or not, fetched, kept for a while; and jobs of long ago."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsm_worker.client.connection import WorkerConnection
from fsm_worker.effects import OpenIncoming
from fsm_worker.events import Timer
from fsm_worker.machines import coupled_jobs
from fsm_worker.services.archive import unpack
from fsm_worker.services.recipe import Runner, Stage
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, Outcome, ResultsState
from tests.e2e.lab import Lab, job_id, until_final
from tests.rows.jobs import WAIT, Held, served, submitted, until_state

WRITE = {("write",): Runner("write", ("sh", "-c", "mkdir results; echo 42 > results/answer"))}


def partial(last: m.Message) -> str:
    """Why there are no results of a job whose program has succeeded."""
    assert isinstance(last, m.JobStateChanged)
    assert (last.state, last.outcome) == (JobState.DONE, Outcome.SUCCEEDED)
    [problem] = last.problems
    assert problem.code is ErrorCode.RESULTS_PARTIAL
    assert not last.results.root
    return problem.sentence


@pytest.mark.drives("job J50")
async def test_a_job_that_deletes_its_folder_has_no_results_and_is_told_why(tmp_path: Path) -> None:
    runners = {("vandal",): Runner("vandal", ("sh", "-c", "rm -rf ../unpacked"))}
    async with served(tmp_path, runners=runners) as (lab, client):
        job = await submitted(lab, client, "vandal\n")
        assert "No such file" in partial((await until_final(client, job))[-1])


@pytest.mark.drives("job J51")
async def test_results_that_take_too_long_to_pack_are_given_up(tmp_path: Path) -> None:
    slow = Held("slow", ("true",), at="outputs")
    options = {"runners": {("slow",): slow}, "timers": {Timer.COLLECT: 0.3}}
    async with served(tmp_path, **options) as (lab, client):
        job = await submitted(lab, client, "slow\n")
        last = (await until_final(client, job))[-1]
        slow.go.set()
        assert "too long" in partial(last)


@dataclass(frozen=True)
class Broken(Runner):
    """A runner that has a bug."""

    def outputs(self, stage: Stage, folder: Path | None = None) -> tuple[str, ...]:
        raise KeyError("save_dir")


@pytest.mark.drives("job J52")
async def test_a_runner_that_can_not_say_where_results_are_costs_the_results_alone(
    tmp_path: Path,
) -> None:
    runners = {("broken",): Broken("broken", ("true",)), **WRITE}
    async with served(tmp_path, runners=runners) as (lab, client):
        job = await submitted(lab, client, "broken\n")
        assert "save_dir" in partial((await until_final(client, job))[-1])
        job = await submitted(lab, client, "write\n")
        await until_state(client, job, JobState.DONE, Outcome.SUCCEEDED)
        assert (await client.fetch(job, tmp_path)).is_file()


@pytest.mark.drives("job J61")
async def test_a_worker_that_is_forced_to_go_says_that_the_results_are_not_packed(
    tmp_path: Path,
) -> None:
    slow = Held("slow", ("true",), at="outputs")
    async with served(tmp_path, runners={("slow",): slow}) as (lab, client):
        job = await submitted(lab, client, "slow\n")
        await until_state(client, job, JobState.COLLECTING)
        for _ in range(3):
            lab.worker.terminate()
        last = (await until_final(client, job))[-1]
        slow.go.set()
        assert "before the results were packed" in partial(last)


@pytest.mark.drives("job J62")
async def test_of_too_many_jobs_without_results_the_oldest_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coupled_jobs, "KEEP_JOBS", 20)  # each job is written to the disk
    async with served(tmp_path) as (_, client):
        jobs = [job_id() for _ in range(coupled_jobs.KEEP_JOBS + 1)]
        for job in jobs:
            await client.submit_shared(job, m.JobSpec(), m.JobPolicy())  # of no paths: rejected
        with pytest.raises(ProtocolError) as refusal:
            await client.attach(jobs[0])
        assert refusal.value.code is ErrorCode.UNKNOWN_JOB
        assert {kept.job for kept in await client.jobs()} == set(jobs[1:])


@pytest.mark.drives("results R3")
async def test_there_is_nothing_to_fetch_before_a_job_has_ended(tmp_path: Path) -> None:
    async with served(tmp_path, runners=WAIT) as (lab, client):
        job = await submitted(lab, client, "wait\n")
        with pytest.raises(ProtocolError) as refusal:
            await client._ask(m.Fetch(job=job), m.FileOffer)
        assert refusal.value.code is ErrorCode.RESULTS_NOT_READY


async def written(lab: Lab, client: WorkerConnection) -> str:
    """A job that has results."""
    job = await submitted(lab, client, "write\n")
    await until_state(client, job, JobState.DONE, Outcome.SUCCEEDED)
    return job


async def offered(client: WorkerConnection, job: str, folder: Path) -> "asyncio.Task[Path]":
    """A fetch of a client whose disk hangs: the results are offered, and it does not answer."""
    asked = asyncio.Event()
    client._link.runtime.bindings[OpenIncoming] = lambda _effect: asked.set()
    fetching = asyncio.get_running_loop().create_task(client.fetch(job, folder))
    await asked.wait()
    return fetching


def check_answer(archive: Path) -> None:
    unpack(archive, archive.with_suffix(""))
    assert (archive.with_suffix("") / "results" / "answer").read_text() == "42\n"


@pytest.mark.drives("results R11")
async def test_results_go_to_the_machine_that_asked_last(tmp_path: Path) -> None:
    async with served(tmp_path, runners=WRITE) as (lab, client), lab.client() as other:
        job = await written(lab, client)
        fetching = await offered(other, job, tmp_path)
        check_answer(await client.fetch(job, tmp_path))
        with pytest.raises(ProtocolError) as refusal:
            await fetching
        assert refusal.value.code is ErrorCode.ABORTED


@pytest.mark.drives("results R8")
async def test_results_that_nobody_takes_are_kept_for_whoever_asks_again(tmp_path: Path) -> None:
    options = {"runners": WRITE, "timers": {Timer.DELIVERY: 0.3}}
    async with served(tmp_path, **options) as (lab, client), lab.client() as other:
        job = await written(lab, client)
        fetching = await offered(other, job, tmp_path)
        with pytest.raises(ProtocolError) as refusal:
            await fetching
        assert refusal.value.code is ErrorCode.ABORTED
        assert (await client.attach(job)).results.state is ResultsState.HELD
        lab.worker.runtime.overrides.clear()  # this one may take its time
        check_answer(await client.fetch(job, tmp_path))


@pytest.mark.drives("results R9 R10")
async def test_results_are_kept_as_long_as_the_operator_says(tmp_path: Path) -> None:
    options = {"runners": WRITE, "timers": {Timer.RETENTION: 0.2}}
    async with served(tmp_path, **options) as (lab, client):
        job = await written(lab, client)
        while (await client.attach(job)).results.state is not ResultsState.EXPIRED:
            pass  # nobody is told: a client asks
        with pytest.raises(ProtocolError) as refusal:
            await client.fetch(job, tmp_path)
        assert refusal.value.code is ErrorCode.RESULTS_EXPIRED
