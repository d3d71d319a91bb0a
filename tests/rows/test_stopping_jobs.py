"""A running job that is asked to end: by its owner, by its limit, by a worker that leaves."""

import os
import signal
import sys
from pathlib import Path

import pytest

from fsm_worker.client.connection import WorkerConnection
from fsm_worker.events import Timer
from fsm_worker.services.recipe import Runner
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, Outcome, WorkerState
from tests.e2e.lab import until_final
from tests.e2e.test_endings import until_worker
from tests.rows.jobs import WAIT, Held, served, submitted, until_state

#: Ends when it has been told so twice.
DULL = """
import os, zmq
control = zmq.Context().socket(zmq.SUB)
control.subscribe(b"")
control.connect(os.environ["FSM_WORKER_CONTROL"])
for number in (1, 2):
    control.recv_multipart()
    print("told", number)
"""


async def until_line(client: WorkerConnection, job: str, start: str) -> str:
    """The first line of a job's output that starts so."""
    client.follow_log(job)
    heard = ""
    async for said in client.news():
        if isinstance(said, m.Log) and said.job == job:
            heard += said.text
            for line in heard.splitlines(keepends=True):
                if line.startswith(start) and line.endswith("\n"):
                    return line.strip()
    raise AssertionError("the news ended")


@pytest.mark.drives("job J37")
async def test_a_job_runs_no_longer_than_its_owner_allows(tmp_path: Path) -> None:
    options = {"runners": WAIT, "timers": {Timer.STEP: 0.1}}
    async with served(tmp_path, **options) as (lab, client):
        job = await submitted(lab, client, "wait\n", m.JobPolicy(wall_s=0.3))
        stopping = await until_state(client, job, JobState.STOPPING)
        assert stopping.event == "timer_wall_expired"
        await until_state(client, job, JobState.DONE, Outcome.TIMED_OUT)


@pytest.mark.drives("job J41")
async def test_a_stop_is_said_again_to_a_trainer_that_has_not_acted_on_it(tmp_path: Path) -> None:
    runners = {("dull",): Runner("dull", (sys.executable, "-c", DULL), results=())}
    options = {"runners": runners, "timers": {Timer.REPEAT: 0.05}}
    async with served(tmp_path, **options) as (lab, client):
        job = await submitted(lab, client, "dull\n")
        await until_state(client, job, JobState.RUNNING)
        await client.stop(job)
        await until_state(client, job, JobState.DONE, Outcome.STOPPED_EARLY)
        log = lab.worker.settings.state / "jobs" / job / "output.log"
        assert log.read_text() == "told 1\ntold 2\n"


@pytest.mark.drives("job J59 J40")
async def test_a_worker_that_must_go_does_not_wait_for_a_stop_to_be_heard(tmp_path: Path) -> None:
    async with served(tmp_path, runners=WAIT) as (lab, client):
        job = await submitted(lab, client, "wait\n")
        await until_line(client, job, "READY")
        await client.stop(job)
        lab.worker.terminate()
        lab.worker.terminate()
        heard = await until_final(client, job)
        assert heard[-1].outcome is Outcome.STOPPED_EARLY, "it was stopped before"
        rows = [said.row for said in heard if isinstance(said, m.JobStateChanged)]
        assert rows == ["J36", "J59", "J40", "J49"]


@pytest.mark.drives("job J48")
async def test_a_program_that_can_not_be_killed_does_not_keep_its_owner_waiting(
    tmp_path: Path,
) -> None:
    options = {"runners": WAIT, "timers": {Timer.KILL: 0.1, Timer.UNKILLABLE: 0.2}}
    async with served(tmp_path, **options) as (lab, client):
        job = await submitted(lab, client, "wait\n")
        _, supervisor = (await until_line(client, job, "READY")).split()
        os.kill(int(supervisor), signal.SIGSTOP)  # nobody passes the signals on
        await client.cancel(job)
        last = (await until_final(client, job))[-1]
        os.kill(int(supervisor), signal.SIGCONT)
        assert last.outcome is Outcome.CANCELLED
        assert [problem.code for problem in last.problems] == [ErrorCode.UNKILLABLE]
        await until_worker(client, WorkerState.AVAILABLE)


def late(name: str = "late") -> Held:
    """A runner whose program turns out to be missing, when it is let go."""
    return Held(name, ("no-such-trainer",), at="max_epochs")


@pytest.mark.drives("job J53 J63")
async def test_a_job_that_is_stopped_before_its_program_starts_was_stopped_early(
    tmp_path: Path,
) -> None:
    runner = late()
    async with served(tmp_path, runners={("late",): runner}) as (lab, client):
        job = await submitted(lab, client, "late\n")
        await until_state(client, job, JobState.RUNNING)
        assert (await client.stop(job)).state is JobState.STOPPING
        with pytest.raises(ProtocolError) as refusal:
            await client.stop(job)
        assert refusal.value.code is ErrorCode.IN_PROGRESS
        runner.go.set()
        last = await until_state(client, job, JobState.DONE, Outcome.STOPPED_EARLY)
        assert last.problems == ()


@pytest.mark.drives("job J54 J64")
async def test_a_job_that_is_cancelled_before_its_program_starts_was_cancelled(
    tmp_path: Path,
) -> None:
    runner = late()
    async with served(tmp_path, runners={("late",): runner}) as (lab, client):
        job = await submitted(lab, client, "late\n")
        await until_state(client, job, JobState.RUNNING)
        assert (await client.cancel(job)).state is JobState.CANCELLING
        with pytest.raises(ProtocolError) as refusal:
            await client.cancel(job)
        assert refusal.value.code is ErrorCode.IN_PROGRESS
        runner.go.set()
        last = await until_state(client, job, JobState.DONE, Outcome.CANCELLED)
        assert last.problems == ()


@pytest.mark.drives("job J65 J66")
async def test_a_program_that_is_missing_after_all_patience_changes_no_outcome(
    tmp_path: Path,
) -> None:
    runners = {(name,): late(name) for name in ("late", "later")}
    options = {"runners": runners, "timers": {Timer.STEP: 0.1, Timer.KILL: 0.1}}
    ends = (Outcome.STOPPED_EARLY, Outcome.CANCELLED)
    async with served(tmp_path, **options) as (lab, client):
        for runner, outcome in zip(runners.values(), ends, strict=True):
            job = await submitted(lab, client, f"{runner.name}\n")
            await until_state(client, job, JobState.RUNNING)
            await (client.stop if outcome is Outcome.STOPPED_EARLY else client.cancel)(job)
            await until_state(client, job, JobState.KILLING)
            runner.go.set()
            last = await until_state(client, job, JobState.DONE, outcome)
            assert last.problems == ()
