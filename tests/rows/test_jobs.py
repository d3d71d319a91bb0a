"""A job on its way to its program: what is refused, what waits too long, what is given up."""

import shutil
import threading
from pathlib import Path

import pytest

from fsm_worker.events import Timer
from fsm_worker.machines.job import MOST_ALIVE
from fsm_worker.services import capabilities
from fsm_worker.services.nvml import PynvmlDriver
from fsm_worker.services.recipe import Runner
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, Outcome
from tests.e2e.lab import job_id, until_final
from tests.rows.jobs import AT_ONCE, PATIENCE, WAIT, Held, announced, served, submitted, until_state
from tests.services.test_capabilities import Library


@pytest.mark.drives("job J2 J4")
async def test_a_submission_that_is_no_job_is_rejected_and_has_used_its_id(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        job = job_id()
        none = await client.submit_shared(job, m.JobSpec(), m.JobPolicy())
        assert (none.state, none.outcome) == (JobState.REJECTED, Outcome.REJECTED)
        assert [problem.code for problem in none.problems] == [ErrorCode.NOT_SUPPORTED]
        with pytest.raises(ProtocolError) as refusal:
            await announced(client, job)
        assert refusal.value.code is ErrorCode.JOB_CONFLICT
        assert (await client.attach(job)).state is JobState.REJECTED


@pytest.mark.drives("job J58 J19 J20")
async def test_as_many_jobs_of_a_key_may_wait_and_one_that_is_given_up_makes_room(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as (_, client):
        waiting = [job_id() for _ in range(MOST_ALIVE)]
        for job in waiting:
            assert (await announced(client, job)).state is JobState.STAGING
        refused = await announced(client, job_id())
        assert refused.state is JobState.REJECTED
        assert refused.problems[0].code is ErrorCode.OVERLOADED
        cancelled, stopped, *_ = waiting
        for changed in (await client.cancel(cancelled), await client.stop(stopped)):
            assert (changed.state, changed.outcome) == (JobState.DONE, Outcome.CANCELLED)
        for _ in range(2):
            assert (await announced(client, job_id())).state is JobState.STAGING


@pytest.mark.drives("job J12")
async def test_a_package_that_changes_after_it_was_announced_ends_its_job(tmp_path: Path) -> None:
    async with served(tmp_path) as (lab, client):
        archive = lab.package("digits\n")
        archive.path.write_bytes(archive.path.read_bytes()[:-1])
        job = job_id()
        await client.submit(job, archive)
        last = (await until_final(client, job))[-1]
        assert (last.state, last.outcome) == (JobState.DONE, Outcome.FAILED)
        assert [problem.code for problem in last.problems] == [ErrorCode.INPUT_REFUSED]


@pytest.mark.drives("job J13")
async def test_a_job_whose_package_never_comes_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with served(tmp_path, timers={Timer.STAGING: 0.3}) as (_, client):
        job = job_id()
        await announced(client, job)
        last = (await until_final(client, job))[-1]
        assert last.outcome is Outcome.FAILED
        assert [problem.code for problem in last.problems] == [ErrorCode.INPUTS_NEVER_ARRIVED]


@pytest.mark.drives("job J16")
async def test_a_package_that_takes_too_long_to_read_is_rejected(tmp_path: Path) -> None:
    slow = Held("slow", ("true",), at="check")
    options = {"runners": {("slow",): slow}, "timers": {Timer.PREFLIGHT: 0.3}}
    async with served(tmp_path, **options) as (lab, client):
        job = await submitted(lab, client, "slow\n")
        last = (await until_final(client, job))[-1]
        slow.go.set()
        assert (last.state, last.outcome) == (JobState.REJECTED, Outcome.REJECTED)
        assert [problem.code for problem in last.problems] == [ErrorCode.PREFLIGHT_TIMEOUT]


@pytest.mark.drives("job J19 J20")
async def test_a_job_whose_package_is_being_read_can_be_given_up(tmp_path: Path) -> None:
    slow = Held("slow", ("true",), at="check")
    runners = {("slow",): slow}
    async with served(tmp_path, runners=runners) as (lab, client):
        for give_up in (client.cancel, client.stop):
            job = await submitted(lab, client, "slow\n")
            await until_state(client, job, JobState.VALIDATING)
            changed = await give_up(job)
            assert (changed.state, changed.outcome) == (JobState.DONE, Outcome.CANCELLED)
        slow.go.set()


@pytest.mark.drives("job J22")
async def test_an_id_of_before_the_worker_was_started_again_is_refused(tmp_path: Path) -> None:
    job = job_id()
    async with served(tmp_path) as (_, client):
        await announced(client, job)
        await client.cancel(job)
    async with served(tmp_path) as (_, client):
        await announced(client, job)
        last = (await until_final(client, job))[-1]
        assert (last.state, last.outcome) == (JobState.DONE, Outcome.FAILED)
        assert [problem.code for problem in last.problems] == [ErrorCode.JOB_CONFLICT]


@pytest.mark.drives("job J18 J19 J20")
async def test_a_job_in_the_queue_waits_as_long_as_its_owner_wants(tmp_path: Path) -> None:
    async with served(tmp_path, runners=WAIT) as (lab, client):
        running = await submitted(lab, client, "wait\n")
        await until_state(client, running, JobState.RUNNING)
        briefly = await submitted(lab, client, "wait\n", m.JobPolicy(queue_s=0.2))
        await until_state(client, briefly, JobState.DONE, Outcome.EXPIRED_IN_QUEUE)
        for give_up in (client.cancel, client.stop):
            job = await submitted(lab, client, "wait\n")
            await until_state(client, job, JobState.QUEUED)
            assert (await give_up(job)).outcome is Outcome.CANCELLED
        assert (await client.attach(running)).state is JobState.RUNNING


class HeldLibrary(Library):
    """An NVML library that does not say who computes until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def _processes(self, gpu: object) -> list[object]:
        self.go.wait(PATIENCE)
        return super()._processes(gpu)


def play(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(capabilities, "PynvmlDriver", lambda: PynvmlDriver(library))


@pytest.mark.drives("job J24")
async def test_a_job_is_not_put_beside_a_stranger_on_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library()
    library.gpus[0].pids = [2**31 - 1]  # more than Linux ever gives out
    play(monkeypatch, library)
    async with served(tmp_path, runners=AT_ONCE) as (lab, client):
        job = await submitted(lab, client, "done\n")
        last = (await until_final(client, job))[-1]
        assert last.outcome is Outcome.FAILED
        [problem] = last.problems
        assert problem.code is ErrorCode.GPU_TAKEN
        assert f"in use by process {2**31 - 1}" in problem.sentence


@pytest.mark.drives("job J25")
async def test_a_job_whose_package_is_gone_when_its_turn_comes_fails(tmp_path: Path) -> None:
    async with served(tmp_path, runners=WAIT) as (lab, client):
        running = await submitted(lab, client, "wait\n")
        await until_state(client, running, JobState.RUNNING)
        job = await submitted(lab, client, "wait\n")
        await until_state(client, job, JobState.QUEUED)
        shutil.rmtree(lab.worker.settings.state / "jobs" / job / "unpacked")
        await client.cancel(running)
        last = (await until_final(client, job))[-1]
        assert last.outcome is Outcome.FAILED
        assert [problem.code for problem in last.problems] == [ErrorCode.SETUP_FAILED]


@pytest.mark.drives("job J26")
async def test_a_gpu_that_does_not_answer_holds_no_job_up_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = HeldLibrary()
    play(monkeypatch, library)
    options = {"runners": AT_ONCE, "timers": {Timer.PREPARE: 0.3}}
    async with served(tmp_path, **options) as (lab, client):
        job = await submitted(lab, client, "done\n")
        last = (await until_final(client, job))[-1]
        library.go.set()
        assert last.outcome is Outcome.FAILED
        assert [problem.code for problem in last.problems] == [ErrorCode.SETUP_FAILED]
        assert "took too long" in last.problems[0].sentence


@pytest.mark.drives("job J27 J28 J29")
async def test_a_job_that_is_being_prepared_can_be_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = HeldLibrary()
    play(monkeypatch, library)
    async with served(tmp_path, runners=AT_ONCE) as (lab, client):
        for give_up in (client.cancel, client.stop):
            job = await submitted(lab, client, "done\n")
            await until_state(client, job, JobState.PREPARING)
            changed = await give_up(job)
            assert (changed.state, changed.outcome) == (JobState.COLLECTING, Outcome.CANCELLED)
            await until_state(client, job, JobState.DONE, Outcome.CANCELLED)
        job = await submitted(lab, client, "done\n")
        await until_state(client, job, JobState.PREPARING)
        lab.worker.terminate()
        lab.worker.terminate()
        await until_state(client, job, JobState.DONE, Outcome.WORKER_STOPPED)
        library.go.set()


HUNGRY = Runner("hungry", ("sh", "-c", "echo 'Traceback (most recent call last):'; "
                "echo '  x = numpy.zeros(big)'; echo 'MemoryError: no room'; exit 1"))  # fmt: skip


@pytest.mark.drives("job J31 J33")
async def test_two_commands_run_one_after_the_other_and_one_that_had_no_memory_says_so(
    tmp_path: Path,
) -> None:
    runners = {**AT_ONCE, ("hungry",): HUNGRY}
    async with served(tmp_path, runners=runners) as (lab, client):
        job = await submitted(lab, client, "done\nhungry\n")
        heard = await until_final(client, job)
        stages = [
            (said.stage, said.stages)
            for said in heard
            if isinstance(said, m.JobStateChanged) and said.state is JobState.RUNNING
        ]
        assert stages == [(0, 2), (1, 2)]
        assert heard[-1].outcome is Outcome.OUT_OF_MEMORY
        assert "MemoryError: no room" in heard[-1].problems[0].sentence


@pytest.mark.drives("job J35")
async def test_a_program_that_is_not_installed_is_told_by_its_name(tmp_path: Path) -> None:
    runners = {("train",): Runner("train", ("no-such-trainer",), results=())}
    async with served(tmp_path, runners=runners) as (lab, client):
        job = await submitted(lab, client, "train\n")
        last = (await until_final(client, job))[-1]
        assert last.outcome is Outcome.FAILED
        [problem] = last.problems
        assert problem.code is ErrorCode.SETUP_FAILED
        assert "no-such-trainer" in problem.sentence
