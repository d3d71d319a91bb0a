"""Jobs in a storage that both sides see: paths travel, and no byte of a file does."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiortc import RTCDataChannel

from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.shared import look_at_results
from fsm_worker.client.connection import WorkerConnection
from fsm_worker.examples.digits.package import build_package
from fsm_worker.services import shared_results
from fsm_worker.services.archive import pack, verify_manifest
from protocol import BULK_LABEL
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, Outcome, ResultsState
from protocol.table import MachineName
from tests.e2e.lab import Lab, job_id, open_lab, until_final
from tests.e2e.sleap_client import SleapClient
from tests.e2e.test_commands import Shell, a_worker
from tests.e2e.test_guests import GOOD, TRACK, digits, jobs

M = MachineName


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many frames either side has sent, by the channel's label; keep-alives not counted."""
    counts: Counter[str] = Counter()
    send = RTCDataChannel.send

    def counted(channel: RTCDataChannel, data: str | bytes) -> None:
        if isinstance(data, bytes) and data != b"KEEP_ALIVE":
            counts["bytes"] += 1
        counts[channel.label] += 1
        send(channel, data)

    monkeypatch.setattr(RTCDataChannel, "send", counted)
    return counts


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "storage"
    (root / "jobs").mkdir(parents=True)
    return root


@asynccontextmanager
async def a_lab(root: Path, **options: object) -> AsyncIterator[Lab]:
    async with asyncio.timeout(60), open_lab(root.parent, shared_storage=root, **options) as lab:
        yield lab


async def submit(client: WorkerConnection, job: str, package: str, output: str) -> m.JobSnapshot:
    spec = m.JobSpec(kind="shared", name="digits", input=package, output=output)
    return await client.submit_shared(job, spec, m.JobPolicy())


async def first(client: WorkerConnection, kind: type[m.Message]) -> AsyncIterator[m.Message]:
    """The next of this kind in the news."""
    async for message in client.news():
        if isinstance(message, kind):
            yield message
            return


def everything(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def zipped(root: Path) -> str:
    (root / "jobs" / "in.zip").write_bytes(digits(root.parent))
    return "jobs/in.zip"


def a_folder(root: Path) -> str:
    build_package(root / "jobs" / "digits", epochs=2)
    return "jobs/digits"


# --- native clients -------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [zipped, a_folder])
async def test_a_job_trains_and_returns_through_the_storage_and_no_byte_of_a_file_travels(
    root: Path, sent: Counter[str], make
) -> None:
    package = make(root)
    before = times(root)
    async with a_lab(root) as lab, lab.client() as client:
        assert (await client.status()).capabilities.shared_storage
        job = job_id()
        snapshot = await submit(client, job, package, "out/one")
        assert snapshot.state is JobState.VALIDATING
        news = await until_final(client, job)
        last = news[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.outcome is Outcome.SUCCEEDED, last.problems
        assert any(isinstance(one, m.Progress) and one.event == "epoch_end" for one in news)
        results = (await client.attach(job)).results
        assert (results.state, results.folder, results.root) == (
            ResultsState.SHARED, "out/one", "",
        )  # fmt: skip
        verify_manifest(root / "out" / "one", results.manifest)
        assert list((root / "out" / "one").rglob("model.npz"))
        assert (root / "out" / "one" / "output.log").stat().st_size
        with pytest.raises(ProtocolError, match="out/one") as told:
            await client.fetch(job, root.parent)
        assert told.value.code is ErrorCode.RESULTS_SHARED
        client._link.send(m.Fetch(job=job))  # a client that asks all the same is told by the table
        refusals = [one async for one in first(client, m.Error)]
        assert [one.code for one in refusals] == [ErrorCode.RESULTS_SHARED]
    assert sent[BULK_LABEL] == 0
    assert sent["bytes"] == 0
    assert sent["control"] > 0, "what is counted are the frames of both sides"
    left = {path.name for path in (root.parent / "worker" / "jobs" / job).iterdir()}
    assert left == {"output.log", "record"}
    assert before.items() <= times(root).items(), "inputs are only read"


async def test_a_package_that_is_sent_does_travel(root: Path, sent: Counter[str]) -> None:
    """So that the test above counts what it says it counts."""
    async with a_lab(root) as lab, lab.client() as client:
        job = job_id()
        archive = pack(root / a_folder(root), root.parent / "sent.zip")
        await client.submit(job, archive)
        await until_final(client, job)
    assert sent[BULK_LABEL] > 0


REFUSED = (
    (("../secret", "out"), ErrorCode.PATH_ERROR, "`..`"),
    (("/etc", "out"), ErrorCode.PATH_ERROR, "absolute"),
    (("jobs/link", "out"), ErrorCode.PATH_ERROR, "link"),
    (("jobs/nothing", "out"), ErrorCode.PATH_ERROR, "not there"),
    (("jobs/in.zip", "../out"), ErrorCode.PATH_ERROR, "`..`"),
    (("jobs/in.zip", "jobs/link/out"), ErrorCode.PATH_ERROR, "link"),
    (("jobs/in.zip", "jobs"), ErrorCode.PATH_ERROR, "holds something"),
    (("jobs/in.zip", "jobs\\out"), ErrorCode.PATH_ERROR, "backslash"),
    (("jobs/bad.zip", "out"), ErrorCode.PACKAGE_REFUSED, "not a zip file"),
    (("jobs/shell", "out"), ErrorCode.SCRIPT_REFUSED, "rm"),
)


async def test_paths_that_can_not_be_used_reject_the_job_with_a_sentence(root: Path) -> None:
    zipped(root)
    (root / "jobs" / "link").symlink_to("../..")
    (root / "jobs" / "bad.zip").write_text("no archive")
    (root / "jobs" / "shell").mkdir()
    (root / "jobs" / "shell" / "train-script.sh").write_text("rm x\n")
    async with a_lab(root) as lab, lab.client() as client:
        for paths, code, words in REFUSED:
            job = job_id()
            await submit(client, job, *paths)
            last = (await until_final(client, job))[-1]
            assert isinstance(last, m.JobStateChanged)
            assert (last.state, last.outcome) == (JobState.REJECTED, Outcome.REJECTED)
            assert last.problems[0].code is code, paths
            assert words in last.problems[0].sentence
            assert str(root.parent) not in last.problems[0].sentence
        assert not (root / "out").exists()


async def test_a_worker_without_a_storage_rejects_the_job(tmp_path: Path) -> None:
    async with asyncio.timeout(30), open_lab(tmp_path) as lab, lab.client() as client:
        assert not (await client.status()).capabilities.shared_storage
        job = job_id()
        await submit(client, job, "in.zip", "out")
        last = (await until_final(client, job))[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.problems[0].code is ErrorCode.NOT_SUPPORTED


async def test_results_that_do_not_fit_there_are_kept_and_can_be_fetched(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_results, "RESERVE", 2**62)
    async with a_lab(root) as lab, lab.client() as client:
        job = job_id()
        await submit(client, job, zipped(root), "out")
        last = (await until_final(client, job))[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.outcome is Outcome.SUCCEEDED
        assert last.problems[0].code is ErrorCode.DISK_FULL
        assert "fetch them" in last.problems[0].sentence
        assert (await client.fetch(job, root.parent)).stat().st_size
        assert everything(root) == [root / "jobs"]


async def test_nothing_is_put_there_of_a_cancelled_job(root: Path) -> None:
    build_package(root / "jobs" / "slow", epochs=1000, pace=0.05)
    async with a_lab(root) as lab, lab.client() as client:
        job = job_id()
        await submit(client, job, "jobs/slow", "out")
        async for message in client.news():
            if isinstance(message, m.Progress) and message.event == "epoch_end":
                break
        await client.cancel(job)
        last = (await until_final(client, job))[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.outcome is Outcome.CANCELLED
    assert everything(root) == [root / "jobs"]


# --- the command line -----------------------------------------------------------------------------


@asynccontextmanager
async def a_shell(root: Path) -> AsyncIterator[tuple[Shell, list[str]]]:
    (root.parent / "state").mkdir()
    (root.parent / "state" / "worker.toml").write_text(f'shared_storage = "{root}"\n')
    config = ("--config", str(root.parent / "state" / "worker.toml"))
    async with asyncio.timeout(60), a_worker(root.parent, *config) as (shell, words):
        yield shell, words[1:3]


async def test_submit_verifies_the_results_where_they_lie_and_fetch_says_where(
    root: Path,
) -> None:
    package = root / a_folder(root)
    async with a_shell(root) as (shell, session):
        words = ("submit", "--shared-root", str(root), str(package), *session, "--json")
        code, out, err = await shell.run(*words)
        assert (code, err) == (0, "")
        ended = json.loads(out.splitlines()[-1])
        assert ended["verified"]
        assert ended["shared"] == f"results/{ended['job']}"
        assert Path(ended["results"]) == root / ended["shared"]
        code, _, err = await shell.run("fetch")
        assert code == 2
        assert ended["shared"] in err


async def test_a_machine_without_the_storage_is_told_where_the_results_lie(root: Path) -> None:
    a_folder(root)
    async with a_shell(root) as (shell, session):
        there = ("submit", "--shared-root", "/mnt/no/such", "/mnt/no/such/jobs/digits", *session)
        code, out, err = await shell.run(*there, "--output", "/mnt/no/such/far")
        assert (code, err) == (0, "")
        assert "results: far in the shared storage" in out
        assert (root / "far" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--example", "digits"), 2, "give a PATH"),
        (("outside",), 2, "is not under"),
        (("storage/jobs/link",), 2, "is not under"),
        (("storage/jobs/none",), 2, "is not there"),
        (("storage",), 2, "is not under"),
        (("storage/jobs/digits", "--output", "results"), 2, "is not under"),
        (("storage/jobs/digits", "--output", "storage/jobs"), 2, "not an empty folder"),
        (("storage/jobs/empty",), 3, "can't be submitted"),
        (("storage/jobs/text",), 2, "neither a folder nor a zip"),
    ],
)
async def test_what_can_not_be_sent_is_refused_here(
    root: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    a_folder(root)
    (root.parent / "outside").mkdir()
    (root / "jobs" / "link").symlink_to("../../outside")
    (root / "jobs" / "empty").mkdir()
    (root / "jobs" / "text").write_text("text")
    shell = Shell(root.parent)
    got, _, err = await shell.run("submit", "--shared-root", "storage", *words, "--session", "x")
    assert (got, told in err) == (code, True), err


async def test_results_that_somebody_has_changed_are_refused(root: Path) -> None:
    placed = shared_results.place_results(
        shared_results.SharedStorage(root), "out", "job-1", {"log": Path(__file__)}
    )
    fetched = await look_at_results(root, placed)
    assert fetched is not None
    assert fetched.files == 1
    (root / "out" / "log").write_text("changed")
    with pytest.raises(CommandFailed) as failed:
        await look_at_results(root, placed)
    assert failed.value.exit_code is ExitCode.FAILED
    assert await look_at_results(root / "elsewhere", placed) is None


# --- clients of sleap-rtc -------------------------------------------------------------------------


@asynccontextmanager
async def a_client(root: Path, **options: object) -> AsyncIterator[tuple[Lab, SleapClient]]:
    async with (
        a_lab(root, allow_sleap_rtc=True, **options) as lab,
        SleapClient.open(lab.session) as client,
    ):
        yield lab, client


async def describe(client: SleapClient, package: str, output: str, label: str = "job_1") -> None:
    """What sleap-rtc's client says, and what it waits for."""
    again = len(client.told("PATH_VALIDATED::output")) + 1
    client.say(f"JOB_ID::{label}", f"SHARED_INPUT_PATH::{package}")
    await client.hears("PATH_VALIDATED::input", again)
    client.say(f"SHARED_OUTPUT_PATH::{output}")
    await client.hears("PATH_VALIDATED::output", again)


async def test_sleap_rtc_s_flow_trains_through_the_storage_and_no_byte_of_a_file_travels(
    root: Path, sent: Counter[str]
) -> None:
    (root / "jobs" / "job_1" / "output").mkdir(parents=True)  # as its client does
    (root / "jobs" / "job_1" / "training.zip").write_bytes(digits(root.parent, top="training"))
    async with a_client(root) as (lab, client):
        await describe(client, "jobs/job_1/training.zip", "jobs/job_1/output")
        client.say("SHARED_STORAGE_JOB::start")
        await client.hears("JOB_COMPLETE::")
        words = [one for one in client.texts if one.startswith(("PATH", "TRAIN", "JOB"))]
        assert words == [
            "PATH_VALIDATED::input",
            "PATH_VALIDATED::output",
            *GOOD,
            "JOB_COMPLETE::job_1::jobs/job_1/output",
        ]
        assert client.told("epoch"), "it printed, and that was shown"
        assert client.files == {}
        [job] = lab.worker.world.all(M.JOB)
        verify_manifest(root / "jobs" / "job_1" / "output", job.facts.results.manifest)
    assert sent["bytes"] == 0
    assert sent["my-data-channel"] > 0


async def test_sleap_rtc_s_flow_tracks_a_folder(root: Path) -> None:
    (root / "jobs" / "in").mkdir()
    text = "sleap-nn track --data_path labels.slp -o labels.predictions.slp\n"
    (root / "jobs" / "in" / "track-script.sh").write_text(text)
    (root / "jobs" / "in" / "labels.slp").write_bytes(b"labels")
    async with a_client(root, runners=TRACK) as (_, client):
        await describe(client, "jobs/in", "jobs/out")
        client.say("SHARED_STORAGE_JOB::start")
        await client.hears("JOB_COMPLETE::job_1::jobs/out")
        assert [one for one in client.texts if one.startswith("INFERENCE")] == [
            "INFERENCE_START",
            "INFERENCE_JOB_START::inference",
            "INFERENCE_JOB_END::inference",
            "INFERENCE_JOBS_DONE",
        ]
    predictions = root / "jobs" / "out" / "labels.predictions.slp"
    assert predictions.read_bytes() == b"slp" * 50_000


#: Out of the root, or nowhere, in every way that the wire lets through and that it does not.
OUTSIDE = (
    "../outside", "/etc/passwd", "jobs/../../outside", "jobs/link", "jobs/link/x", "jobs\\x",
    "C:/x", "jobs/x\x00", "jobs/nul", "jobs/file/x", "\uff0e\uff0e/\x01", ".", "jobs//x", "jobs/x ",
)  # fmt: skip


async def test_a_path_out_of_the_root_gets_path_error_and_the_client_goes_on(root: Path) -> None:
    zipped(root)
    (root.parent / "outside").mkdir()
    (root / "jobs" / "link").symlink_to("../../outside")
    (root / "jobs" / "file").touch()
    async with a_client(root) as (lab, client):
        client.say("JOB_ID::job_1")
        for number, (side, path) in enumerate(itertools.product(("INPUT", "OUTPUT"), OUTSIDE), 1):
            client.say(f"SHARED_{side}_PATH::{path}")
            told = await client.hears("PATH_ERROR::", number)
            assert str(root.parent) not in told
        client.say("SHARED_STORAGE_JOB::start")
        assert "validated" in await client.hears("PATH_ERROR::", number + 1)
        assert client.told("PATH_VALIDATED") == []
        assert jobs(lab) == []
        await describe(client, "jobs/in.zip", "jobs/out")
        client.say("SHARED_STORAGE_JOB::start")
        await client.hears("JOB_COMPLETE::job_1::jobs/out")
    assert everything(root.parent / "outside") == []


async def test_a_job_that_is_refused_or_ends_badly_is_said_to_have_failed(root: Path) -> None:
    (root / "jobs" / "in").mkdir()
    (root / "jobs" / "in" / "train-script.sh").write_text("rm -rf x\n")
    async with a_client(root) as (_, client):
        await describe(client, "jobs/in", "jobs/out")
        client.say("SHARED_STORAGE_JOB::start")
        assert "rm" in await client.hears("JOB_FAILED::job_1::")
        await describe(client, zipped(root), "jobs/out", "job_2")
        client.say("SHARED_STORAGE_JOB::start")
        await client.hears("JOB_COMPLETE::job_2::")
        client.say("SHARED_STORAGE_JOB::start")  # once more: the folder is not empty any more
        assert "holds something" in await client.hears("JOB_FAILED::job_2::")


async def test_one_job_at_a_time_and_it_can_be_stopped(root: Path) -> None:
    build_package(root / "jobs" / "slow", epochs=1000, pace=0.05)
    async with a_client(root) as (lab, client):
        await describe(client, "jobs/slow", "jobs/out")
        client.say("SHARED_STORAGE_JOB::start")
        await client.hears("TRAIN_JOB_START::digits")
        client.say("JOB_ID::job_2", "SHARED_INPUT_PATH::jobs/slow", "SHARED_STORAGE_JOB::start")
        await client.hears("PATH_ERROR::one job at a time", times=2)
        await client.hears("epoch")
        client.say("JOB_STOP")
        await client.hears("JOB_COMPLETE::job_1::jobs/out")
        assert jobs(lab) == [(JobState.DONE, Outcome.STOPPED_EARLY)]
    assert list((root / "jobs" / "out").rglob("model.npz"))


async def test_a_worker_without_a_storage_says_path_error(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(30),
        open_lab(tmp_path, allow_sleap_rtc=True) as lab,
        SleapClient.open(lab.session) as client,
    ):
        client.say("JOB_ID::job_1", "SHARED_INPUT_PATH::jobs/in.zip")
        assert "no shared storage" in await client.hears("PATH_ERROR::")
        assert jobs(lab) == []
