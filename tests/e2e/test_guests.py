"""Clients of sleap-rtc 0.0.7 at our worker: real connections, real jobs, their words."""

import asyncio
import io
import itertools
import json
import secrets
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fsm_worker.events import Timer
from fsm_worker.examples.digits.package import build_package
from fsm_worker.services.recipe import Runner
from protocol.lifecycle import JobState, Outcome, WorkerState
from protocol.sleap_rtc import auth
from protocol.table import MachineName
from tests.e2e.lab import Lab, open_lab
from tests.e2e.sleap_client import SleapClient

M = MachineName
GOOD = ["TRAIN_JOB_START::digits", "TRAIN_JOB_END::digits", "TRAINING_JOBS_DONE"]
SECRET = "c2VjcmV0LW9mLXRoZS1sYWI"

_TRACK = """
import pathlib, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("reading", words["--data_path"], flush=True)
if "--fail" in words:
    sys.exit(3)
if "-o" in words:
    pathlib.Path(words["-o"]).write_bytes(b"slp" * 50_000)
"""
#: Stands in for `sleap-nn track`: the same options, and a file of predictions.
TRACK = {("sleap-nn", "track"): Runner(
    "sleap-nn-track", (sys.executable, "-c", _TRACK), results=("labels.predictions.slp",)
)}  # fmt: skip


def digits(folder: Path, *, top: str = "", epochs: int = 2, pace: float = 0.0) -> bytes:
    """A package of the example trainer, zipped as clients do."""
    made = build_package(folder / f"digits-{secrets.token_hex(4)}", epochs=epochs, pace=pace)
    return zipped({path.name: path.read_bytes() for path in made.iterdir()}, top)


def zipped(files: dict[str, bytes], top: str = "") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{top}/{name}" if top else name, content)
    return target.getvalue()


def script(text: str, kind: str = "train", **files: bytes) -> bytes:
    named = {name.replace("__", "."): content for name, content in files.items()}
    return zipped({f"{kind}-script.sh": text.encode(), **named})


def spools(lab: Lab) -> list[Path]:
    folder = lab.folder / "worker" / "guests"
    return list(folder.iterdir()) if folder.exists() else []


def jobs(lab: Lab) -> list[tuple[JobState, Outcome]]:
    return [(job.state, job.facts.outcome) for job in lab.worker.world.all(M.JOB)]


async def until(holds: Callable[[], object]) -> None:
    """Waits for what nobody tells: the end of a thread's work, or a machine's state."""
    async with asyncio.timeout(20):
        for _ in itertools.count():
            if holds():
                return
            await asyncio.sleep(0.01)


async def is_available(lab: Lab) -> None:
    worker = lab.worker.world.machines[M.WORKER]["worker"]
    await until(lambda: worker.state is WorkerState.AVAILABLE)


def open_door(folder: Path, **options: object):
    return open_lab(folder, allow_sleap_rtc=True, **options)


@asynccontextmanager
async def a_client(folder: Path, **options: Any) -> AsyncIterator[tuple[Lab, SleapClient]]:
    async with (
        asyncio.timeout(60),
        open_door(folder, **options) as lab,
        SleapClient.open(lab.session) as client,
    ):
        yield lab, client


@pytest.mark.parametrize("top", ["", "digits"], ids=["flat", "with_a_top_folder"])
async def test_a_package_is_trained_and_its_results_come_back(tmp_path: Path, top: str) -> None:
    async with asyncio.timeout(60), open_door(tmp_path) as lab:
        async with SleapClient.open(lab.session) as client:
            await client.submit(digits(tmp_path, top=top), "my_labels.zip")
            await client.gets()
            marks = [text for text in client.texts if text.startswith("TRAIN")]
            assert marks == GOOD
            assert client.folders == ["models"]
            archive = zipfile.ZipFile(io.BytesIO(client.files["trained_my_labels.zip"]))
            assert archive.testzip() is None
            printed = archive.read("output.log").decode()
            said = "".join(client.texts)
            assert printed.splitlines()[-1].strip() in said
            assert client.told("PROGRESS_REPORT") == []  # it did not ask for them
            await until(lambda: not spools(lab))
        assert jobs(lab) == [(JobState.DONE, Outcome.SUCCEEDED)]


async def test_a_monitor_window_gets_progress_reports(tmp_path: Path) -> None:
    async with a_client(tmp_path) as (_, client):
        await client.submit(digits(tmp_path), gui="True")
        await client.gets()
        reports = [
            json.loads(text.removeprefix("PROGRESS_REPORT::"))
            for text in client.told("PROGRESS_REPORT::")
        ]
        assert {report["what"] for report in reports} == {"digits"}
        events = [report["event"] for report in reports]
        assert events[0] == "train_begin"
        assert events[-1] == "train_end"
        ends = [report for report in reports if report["event"] == "epoch_end"]
        assert [report["epoch"] for report in ends] == [0, 1]
        assert all(report["logs"] for report in ends)


async def test_predictions_of_a_track_package_come_back_as_they_are(tmp_path: Path) -> None:
    async with a_client(tmp_path, runners=TRACK) as (lab, client):
        text = "sleap-nn track \\\n  --data_path labels.slp \\\n  -o labels.predictions.slp\n"
        data = script(text, "track", labels__slp=b"labels")
        await client.submit(data, "track_package.zip", kind="track", folder=".", gui="false")
        await client.hears("INFERENCE_JOBS_DONE")
        assert client.files == {"labels.predictions.slp": b"slp" * 50_000}
        assert [text for text in client.texts if text.startswith("INFERENCE")] == [
            "INFERENCE_START",
            "INFERENCE_JOB_START::inference",
            "INFERENCE_JOB_END::inference",
            "INFERENCE_JOBS_DONE",
        ]
        assert client.told("TRACK_LOG:reading labels.slp"), client.texts
        await until(lambda: not spools(lab))


async def test_tracking_that_writes_nothing_says_so(tmp_path: Path) -> None:
    async with a_client(tmp_path, runners=TRACK) as (_, client):
        data = script("sleap-nn track --data_path labels.slp\n", "track")
        await client.submit(data, kind="track")
        await client.hears("INFERENCE_JOBS_DONE")
        assert client.told("wrote no predictions")
        assert client.files == {}


async def test_tracking_that_fails_says_its_status_and_not_that_it_is_done(tmp_path: Path) -> None:
    async with a_client(tmp_path, runners=TRACK) as (lab, client):
        data = script("sleap-nn track --data_path labels.slp --fail yes\n", "track")
        await client.submit(data, kind="track")
        await client.hears("INFERENCE_JOB_ERROR::inference::1")
        assert client.told("code 3")
        await is_available(lab)
        await until(lambda: not spools(lab))
        assert client.told("INFERENCE_JOBS_DONE") == []
        assert client.files == {}


@pytest.mark.parametrize(
    "words",
    ['ZMQ_CTRL::{"command": "stop"}', 'CONTROL_COMMAND::{"command": "stop"}', "JOB_STOP"],
)
async def test_stop_in_mid_training_keeps_the_model(tmp_path: Path, words: str) -> None:
    async with asyncio.timeout(60), open_door(tmp_path) as lab:
        async with SleapClient.open(lab.session) as client:
            await client.submit(digits(tmp_path, epochs=1000, pace=0.05), gui="True")
            await client.hears('"epoch_end"')
            client.say(words)
            await client.gets()
            assert client.told("TRAINING_JOBS_DONE")
        assert jobs(lab) == [(JobState.DONE, Outcome.STOPPED_EARLY)]


@pytest.mark.parametrize("words", ['ZMQ_CTRL::{"command": "cancel"}', "JOB_CANCEL"])
async def test_cancel_in_mid_training_throws_away(tmp_path: Path, words: str) -> None:
    async with asyncio.timeout(60), open_door(tmp_path) as lab:
        async with SleapClient.open(lab.session) as client:
            await client.submit(digits(tmp_path, epochs=1000, pace=0.05), gui="True")
            await client.hears('"epoch_end"')
            client.say(words)
            await client.hears("TRAIN_JOB_ERROR::digits::-15")
            assert client.told("TRAINING_JOBS_DONE") == []
            assert client.files == {}
        assert jobs(lab) == [(JobState.DONE, Outcome.CANCELLED)]


# --- what is not as it should be ------------------------------------------------------------------


async def test_a_name_that_leads_out_of_its_folder_is_refused_and_the_client_goes_on(
    tmp_path: Path,
) -> None:
    async with a_client(tmp_path) as (lab, client):
        data = digits(tmp_path)
        await client.submit(data, "../../outside.zip")
        assert "without any folder" in await client.hears("plain file name")
        await client.hears("no file was taken")
        assert jobs(lab) == []
        assert spools(lab) == []
        await client.submit(data)
        await client.gets()


async def test_bytes_before_the_file_is_announced_are_told_once(tmp_path: Path) -> None:
    async with a_client(tmp_path) as (_, client):
        client.say(*[b"x" * 1000] * 20)
        await client.hears("no announced file")
        await client.submit(digits(tmp_path))
        await client.gets()
        assert len(client.told("no announced file")) == 1


@pytest.mark.parametrize("more", [1, -1, 10_000])
async def test_a_size_that_does_not_match_is_told_and_nothing_runs(
    tmp_path: Path, more: int
) -> None:
    async with a_client(tmp_path) as (lab, client):
        data = digits(tmp_path)
        await client.submit(data, size=len(data) + more)
        said = await client.hears("were announced")
        assert f"{len(data)} bytes came and {len(data) + more} were announced" in said
        await until(lambda: not spools(lab))
        assert jobs(lab) == []
        await client.submit(data)
        await client.gets()


async def test_a_package_larger_than_the_disk_is_refused_before_its_bytes(tmp_path: Path) -> None:
    async with a_client(tmp_path) as (lab, client):
        await client.submit(b"PK", size=2**62)
        await client.hears("bytes of disk are needed")
        assert spools(lab) == []


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"this is no zip file", "train", "not a zip file"),
        (zipped({"readme.txt": b"hello"}), "train", "no train-script.sh"),
        (zipped({"train-script.sh": b"digits train\n"}), "track", "no track-script.sh"),
        (zipped({"train-script.sh": b"rm -rf /\n"}), "train", "is not run by this worker"),
        (zipped({"../train-script.sh": b"digits train\n"}), "train", "the package"),
        (b"", "train", "0 bytes came"),
    ],
)
async def test_a_package_that_can_not_be_run_is_refused_in_words(
    tmp_path: Path, data: bytes, kind: str, words: str
) -> None:
    async with a_client(tmp_path) as (lab, client):
        await client.submit(data, kind=kind)
        await client.hears(words)
        if kind == "track":
            await client.hears("INFERENCE_ERROR::")
        assert client.told("_DONE") == []
        await until(lambda: not spools(lab))
        await client.submit(digits(tmp_path))
        await client.gets()


async def test_one_package_at_a_time(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_door(tmp_path) as lab:
        async with SleapClient.open(lab.session) as client:
            await client.submit(digits(tmp_path, epochs=1000, pace=0.05), gui="True")
            await client.hears('"epoch_end"')
            await client.submit(digits(tmp_path))
            await client.hears("one package at a time")
            client.say("JOB_STOP")
            await client.gets()
            assert len(jobs(lab)) == 1
            await client.submit(digits(tmp_path), "second.zip")
            await client.gets(2)
        assert [outcome for _, outcome in jobs(lab)] == [Outcome.STOPPED_EARLY, Outcome.SUCCEEDED]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("FS_GET_MOUNTS", "FS_ERROR::INVALID_REQUEST::"),
        ("USE_WORKER_PATH::/data/x.slp", "WORKER_PATH_ERROR::"),
        ('JOB_SUBMIT::j-1::{"type": "train"}', "JOB_REJECTED::j-1::"),
        ("FILE_UPLOAD_CHECK::00::x.slp", "FILE_UPLOAD_ERROR::"),
        ("SHARED_INPUT_PATH::x/y", "PATH_ERROR::"),
        ("SHARED_OUTPUT_PATH::x/y", "PATH_ERROR::"),
        ("SHARED_STORAGE_JOB::start", "PATH_ERROR::"),
        ('ZMQ_CTRL::{"command": "dance"}', "send stop or cancel"),
        ("JOB_STOP", "no job of yours"),
        ("END_OF_FILE", "no file was taken"),
        ("HELLO::you", "no frame of this dialect"),
    ],
)
async def test_what_is_not_performed_is_answered_in_the_client_s_words(
    tmp_path: Path, words: str, answer: str
) -> None:
    async with a_client(tmp_path) as (_, client):
        client.say(words)
        await client.hears(answer)


# --- clients come and go --------------------------------------------------------------------------


async def test_keep_alives_go_both_ways_and_hold_the_link(tmp_path: Path) -> None:
    timers = {Timer.PING: 0.1, Timer.QUIET: 2.0, Timer.LOST: 0.5}
    async with asyncio.timeout(30), open_door(tmp_path, timers=timers) as lab:
        async with SleapClient.open(lab.session) as client:
            for _ in range(30):
                client.say(b"KEEP_ALIVE")
                await asyncio.sleep(0.1)
            assert client.keep_alives >= 5
            assert not client.closed.is_set()
            client.keep_alives = 0
            await client.closed.wait()  # and silence ends it
        await until(lambda: not lab.worker.world.live(M.GUEST))


async def test_a_client_that_goes_leaves_its_job_which_goes_on_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(60), open_door(tmp_path) as lab:
        async with SleapClient.open(lab.session) as client:
            await client.submit(digits(tmp_path, epochs=40, pace=0.05), gui="True")
            await client.hears('"epoch_end"')
        world = lab.worker.world
        await until(lambda: not world.live(M.GUEST) and not world.live(M.SESSION))
        assert jobs(lab) == [(JobState.RUNNING, Outcome.NONE)]
        await is_available(lab)
        assert jobs(lab) == [(JobState.DONE, Outcome.SUCCEEDED)]
        assert spools(lab) == []
        async with SleapClient.open(lab.session) as second:
            await second.submit(digits(tmp_path), "second.zip")
            await second.gets()
            assert second.told("TRAIN_JOB_START") == ["TRAIN_JOB_START::digits"]


async def test_a_client_that_goes_in_mid_package_leaves_nothing(tmp_path: Path) -> None:
    async with asyncio.timeout(30), open_door(tmp_path) as lab:
        async with SleapClient.open(lab.session) as client:
            client.say("PACKAGE_TYPE::train", "FILE_META::digits.zip:1000000:False", b"x" * 1000)
            await until(lambda: spools(lab))
        await until(lambda: not spools(lab) and not lab.worker.world.live(M.GUEST))
        assert jobs(lab) == []


async def test_two_clients_of_one_name_hear_of_their_own_jobs(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_door(tmp_path) as lab:
        async with SleapClient.open(lab.session) as first:
            await first.submit(digits(tmp_path, epochs=30, pace=0.05), gui="True")
            await first.hears('"epoch_end"')
        async with SleapClient.open(lab.session) as second:
            await second.submit(digits(tmp_path), "second.zip")
            await second.gets()
            assert [text for text in second.texts if text.startswith("TRAIN")] == GOOD
            assert list(second.files) == ["trained_second.zip"]


async def test_a_worker_that_leaves_lets_the_job_end_and_hands_its_results_over(
    tmp_path: Path,
) -> None:
    async with a_client(tmp_path) as (lab, client):
        await client.submit(digits(tmp_path, epochs=20, pace=0.05), gui="True")
        await client.hears('"epoch_end"')
        lab.worker.terminate()
        await client.gets()
        assert client.told("TRAINING_JOBS_DONE")
        await client.closed.wait()


# --- the door -------------------------------------------------------------------------------------


async def test_a_worker_that_does_not_allow_the_dialect_says_so_through_signaling(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(30),
        open_lab(tmp_path) as lab,
        SleapClient.open(lab.session, answered=False) as client,
    ):
        await client.until(lambda client: bool(client.server_errors))
        assert "allow_sleap_rtc" in client.server_errors[0]["message"]
        assert client.texts == []
        assert not lab.worker.world.live(M.GUEST)


async def challenged(client: SleapClient) -> str:
    return (await client.hears("AUTH_CHALLENGE::")).removeprefix("AUTH_CHALLENGE::")


async def test_a_client_that_holds_the_room_secret_comes_in(tmp_path: Path) -> None:
    async with a_client(tmp_path, sleap_rtc_secret=SECRET) as (_, client):
        nonce = await challenged(client)
        client.say(f"AUTH_RESPONSE::{auth.hmac_proof(SECRET, nonce)}")
        await client.hears("AUTH_SUCCESS")
        await client.submit(digits(tmp_path))
        await client.gets()
        assert client.texts[:2] == [f"AUTH_CHALLENGE::{nonce}", "AUTH_SUCCESS"]


@pytest.mark.parametrize(
    ("proof", "reason"), [("missing", "missing"), ("AAAA", "invalid"), ("", "timeout")]
)
async def test_a_client_that_does_not_is_told_why_and_nothing_of_it_is_read(
    tmp_path: Path, proof: str, reason: str
) -> None:
    door = open_door(tmp_path, sleap_rtc_secret=SECRET, timers={Timer.AUTH: 1.0})
    async with asyncio.timeout(30), door as lab, SleapClient.open(lab.session) as client:
        await challenged(client)
        await client.submit(digits(tmp_path))
        client.say("JOB_STOP", "nonsense", b"KEEP_ALIVE")
        if proof:
            client.say(f"AUTH_RESPONSE::{proof}")
        await client.hears(f"AUTH_FAILURE::{reason}")
        await client.closed.wait()
        assert len(client.texts) == 2
        assert spools(lab) == []
        assert jobs(lab) == []


async def test_no_second_guess_at_the_secret(tmp_path: Path) -> None:
    async with a_client(tmp_path, sleap_rtc_secret=SECRET) as (_, client):
        nonce = await challenged(client)
        client.say("AUTH_RESPONSE::AAAA", f"AUTH_RESPONSE::{auth.hmac_proof(SECRET, nonce)}")
        await client.hears("AUTH_FAILURE::invalid")
        await client.closed.wait()
        assert client.told("AUTH_SUCCESS") == []


async def test_native_clients_come_in_beside_guests(tmp_path: Path) -> None:
    async with a_client(tmp_path, sleap_rtc_secret=SECRET) as (lab, _), lab.client() as native:
        assert (await native.status()).state is WorkerState.AVAILABLE


# --- what a program prints, and what a file is called ---------------------------------------------

_SPOOF = """
import sys
for line in (
    "JOB_COMPLETE::{}", "FILE_META::evil.zip:3:.", "see FILE_META::evil.zip:3:. here",
    "END_OF_FILE", "TRAIN_JOB_END::digits", "TRAINING_JOBS_DONE", "KEEP_ALIVE",
    "PROGRESS_REPORT::{}", "so PROGRESS_REPORT::{}", "AUTH_SUCCESS", "TRACK_LOG:x", "ok",
):
    print(line, flush=True)
sys.stdout.write("half of a line: ")
sys.stdout.flush()
print("END_OF_FILE")
sys.exit(7)
"""
SPOOF = {("spoof",): Runner("spoof", (sys.executable, "-c", _SPOOF))}


async def test_nothing_that_a_program_prints_is_taken_for_a_word_of_the_worker(
    tmp_path: Path,
) -> None:
    async with a_client(tmp_path, runners=SPOOF) as (_, client):
        await client.submit(script("spoof\n"))
        await client.gets()
        assert list(client.files) == ["trained_digits.zip"]  # and it came whole
        heads = ("JOB_", "TRAIN", "PROGRESS_REPORT", "AUTH_", "INFERENCE_", "FS_")
        words = [text.strip() for text in client.texts if text.startswith(heads)]
        assert words == ["TRAIN_JOB_START::spoof", "TRAIN_JOB_ERROR::spoof::1"]
        for mark in ("FILE_META::", "PROGRESS_REPORT::", "TRAIN_JOB_END::", "TRACK_LOG:"):
            assert client.told(mark) == []
        assert client.told("half of a line: END_OF_FILE")


async def test_a_colon_in_the_name_of_a_package_is_no_end_of_it(tmp_path: Path) -> None:
    async with a_client(tmp_path) as (_, client):
        await client.submit(digits(tmp_path), "labels v1:2.zip", folder="C:\\models")
        await client.gets()
        assert list(client.files) == ["trained_labels_v1_2.zip"]
        assert client.folders == [""]  # the client's own, where it has no colon
