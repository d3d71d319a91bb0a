"""Clients of sleap-rtc whose package, log, results or paths meet with an accident."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fsm_worker.machines.engine import Step
from fsm_worker.services import spool
from fsm_worker.services.incoming_file import RESERVE
from fsm_worker.services.spool import SharedPackages
from protocol.lifecycle import JobState, Outcome, ResultsState
from protocol.table import MachineName
from tests.e2e.lab import Lab
from tests.e2e.sleap_client import SleapClient
from tests.e2e.test_guests import TRACK, jobs, open_door, script, spools
from tests.e2e.test_links import Talk
from tests.e2e.test_transfers import COPY

M = MachineName
PACKAGE = script("copy data.bin copy.bin\n", data__bin=b"data")


@asynccontextmanager
async def a_client(folder: Path, **options: Any) -> AsyncIterator[tuple[Lab, SleapClient]]:
    options["runners"] = {**COPY, **options.get("runners", {})}
    async with (
        asyncio.timeout(30),
        open_door(folder, **options) as lab,
        SleapClient.open(lab.session) as client,
    ):
        yield lab, client


@asynccontextmanager
async def a_talk(folder: Path, **options: Any) -> AsyncIterator[tuple[Lab, SleapClient, Talk]]:
    """A client whose job runs, and prints what it is told to."""
    talk = Talk(folder)
    async with a_client(folder, runners=talk.runners, **options) as (lab, client):
        await client.submit(script("talk\n"), "talk.zip")
        talk.say("what was said before\n")
        await client.hears("what was said before")  # so it listens, and hears the end, too
        yield lab, client, talk


def when_fired(lab: Lab, row: str, do: Callable[[], object]) -> None:
    """Does something each time a row of the worker fires, before anything else happens there."""
    watch = lab.worker.runtime._watch

    def watching(step: Step) -> None:
        if watch is not None:
            watch(step)
        if step.row == row:
            do()

    lab.worker.runtime._watch = watching


def fired(lab: Lab, row: str) -> asyncio.Event:
    """Set when a row has fired: for what the client is not told."""
    event = asyncio.Event()
    when_fired(lab, row, event.set)
    return event


async def is_served(client: SleapClient) -> None:
    """The next package is taken, run, and its results are handed over."""
    await client.submit(PACKAGE, "next.zip")
    await client.until(lambda client: "trained_next.zip" in client.files)


# --- packages -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        pytest.param("JOB_STOP", marks=pytest.mark.drives("guest Q12 Q33")),
        pytest.param("JOB_CANCEL", marks=pytest.mark.drives("guest Q13 Q33")),
    ],
)
async def test_a_package_that_is_called_off_before_it_is_whole_is_thrown_away(
    tmp_path: Path, word: str
) -> None:
    async with a_client(tmp_path) as (lab, client):
        client.say("FILE_META::digits.zip:1000:False", b"x" * 500, word)
        await client.hears("the package is thrown away: it was not submitted yet")
        client.say("JOB_CANCEL")
        await client.hears("there is no job of yours that runs")
        await is_served(client)
        assert jobs(lab) == [(JobState.DONE, Outcome.SUCCEEDED)]


@pytest.mark.drives("guest Q11")
async def test_a_package_that_is_deleted_here_before_it_is_read_is_asked_for_again_without_a_path(
    tmp_path: Path,
) -> None:
    async with a_client(tmp_path) as (lab, client):
        kept = fired(lab, "Q4")
        client.say(f"FILE_META::lost.zip:{len(PACKAGE)}:False", PACKAGE)
        await kept.wait()
        [file] = spools(lab)
        file.unlink()
        client.say("END_OF_FILE")
        told = await client.hears("No such file or directory")
        assert str(tmp_path) not in told
        await is_served(client)
        assert jobs(lab) == [(JobState.DONE, Outcome.SUCCEEDED)]


# --- jobs whose log can't be read on --------------------------------------------------------------


async def loses_its_log(lab: Lab, talk: Talk) -> None:
    """Somebody empties the log of the running job, of which the client has heard something."""
    over = fired(lab, "Q23")
    [job] = lab.worker.world.all(M.JOB)
    os.truncate(lab.folder / "worker" / "jobs" / job.subject / "output.log", 0)
    talk.say("afterwards\n")
    await over.wait()


@pytest.mark.drives("guest Q23 Q21")
async def test_a_job_whose_log_was_emptied_still_ends_well_and_hands_its_results_over(
    tmp_path: Path,
) -> None:
    async with a_talk(tmp_path) as (lab, client, talk):
        await loses_its_log(lab, talk)
        assert client.told("TRAIN_JOB_END") == []
        talk.end()
        await client.gets()
        assert list(client.files) == ["trained_talk.zip"]
        assert client.told("TRAIN_JOB_END") == ["TRAIN_JOB_END::talk"]
        assert client.told("TRAINING_JOBS_DONE")


@pytest.mark.drives("guest Q23 Q22")
async def test_a_job_whose_log_was_emptied_can_be_cancelled_and_its_client_goes_on(
    tmp_path: Path,
) -> None:
    async with a_talk(tmp_path) as (lab, client, talk):
        await loses_its_log(lab, talk)
        client.say("JOB_CANCEL")
        await client.hears("TRAIN_JOB_ERROR::talk::-15")
        assert client.files == {}
        await is_served(client)
        assert len(client.told("TRAIN_JOB_ERROR")) == 1
        talk.end()


# --- results that do not get to the client --------------------------------------------------------


@pytest.mark.drives("guest Q28", "sending D7")
async def test_results_that_were_deleted_here_are_said_to_be_lost_and_the_client_goes_on(
    tmp_path: Path,
) -> None:
    async with a_talk(tmp_path) as (lab, client, talk):
        [job] = lab.worker.world.all(M.JOB)
        archive = lab.folder / "worker" / "jobs" / job.subject / "results.zip"
        when_fired(lab, "J49", lambda: archive.unlink(missing_ok=True))
        talk.end()
        told = await client.hears("can't be read: No such file or directory")
        assert str(tmp_path) not in told
        assert client.files == {}
        assert client.told("TRAIN_JOB_END") == ["TRAIN_JOB_END::talk"]
        await is_served(client)
        assert list(client.files) == ["trained_next.zip"]


@pytest.mark.drives("guest Q29", "sending D6")
async def test_results_that_find_a_full_disk_are_kept_and_the_client_is_told_how_much_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_talk(tmp_path) as (lab, client, talk):
        with monkeypatch.context() as disk:
            disk.setattr(spool, "free_bytes", lambda _folder: RESERVE)
            talk.end()
            told = await client.hears("the results could not be sent")
        assert "bytes of disk are needed" in told
        assert "the worker keeps them for a while" in told
        await is_served(client)
        assert list(client.files) == ["trained_next.zip"]
        first, _ = lab.worker.world.all(M.RESULTS)
        assert first.state is ResultsState.HELD


@pytest.mark.drives("guest Q31")
async def test_predictions_that_do_not_fit_on_the_disk_once_unpacked_are_kept_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "free_bytes", lambda _folder: RESERVE + 100_000)
    async with a_client(tmp_path, runners=TRACK) as (lab, client):
        text = "sleap-nn track --data_path labels.slp -o labels.predictions.slp\n"
        await client.submit(script(text, "track", labels__slp=b"labels"), kind="track")
        told = await client.hears("INFERENCE_ERROR::the results could not be sent")
        assert "bytes of disk are needed" in told
        assert client.files == {}
        assert client.told("INFERENCE_JOBS_DONE") == []
        await is_served(client)
        first, _ = lab.worker.world.all(M.RESULTS)
        assert first.state is ResultsState.HELD


# --- the shared storage ---------------------------------------------------------------------------


@pytest.mark.drives("guest Q44")
async def test_paths_that_could_not_be_looked_at_are_refused_and_good_when_named_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object) -> None:
        raise RuntimeError("can't start new thread")  # as Python does, at a limit of the system

    storage = tmp_path / "storage"
    (storage / "in").mkdir(parents=True)
    (storage / "in" / "train-script.sh").write_text("copy train-script.sh copy.bin\n")
    async with a_client(tmp_path, shared_storage=storage) as (_, client):
        client.say("JOB_ID::job_1")
        with monkeypatch.context() as system:
            system.setattr(SharedPackages, "check_input", busy)
            system.setattr(SharedPackages, "check_output", busy)
            client.say("SHARED_INPUT_PATH::in", "SHARED_OUTPUT_PATH::out")
            assert "can't start new thread" in await client.hears("PATH_ERROR::", times=2)
        assert client.told("PATH_VALIDATED") == []
        client.say("SHARED_INPUT_PATH::in", "SHARED_OUTPUT_PATH::out")
        await client.hears("PATH_VALIDATED::", times=2)
        client.say("SHARED_STORAGE_JOB::start")
        await client.hears("JOB_COMPLETE::job_1::out")
    assert (storage / "out" / "copy.bin").exists()


@pytest.mark.drives("guest Q48")
async def test_a_folder_for_results_that_is_named_while_a_job_runs_is_refused_and_the_job_goes_on(
    tmp_path: Path,
) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    async with a_talk(tmp_path, shared_storage=storage) as (_, client, talk):
        client.say("SHARED_OUTPUT_PATH::out")
        await client.hears("PATH_ERROR::one job at a time")
        talk.end()
        await client.gets()
        assert list(client.files) == ["trained_talk.zip"]
