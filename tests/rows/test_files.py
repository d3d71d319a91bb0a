"""Files that go wrong on their way: a lane, a disk or a peer that does what it should not."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from fsm_worker.client.connection import WorkerConnection
from fsm_worker.events import Timer
from fsm_worker.services.archive import PackedArchive, unpack, verify_manifest
from protocol import messages as m
from protocol.bulk import Chunk, decode_chunk, encode_chunk
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import Outcome, ResultsState
from tests.e2e.lab import Lab, job_id, open_lab, until_final
from tests.e2e.test_transfers import COPY

CONTENT = os.urandom(100_000)  # two chunks of a package


@asynccontextmanager
async def a_client(folder: Path, **options: object) -> AsyncIterator[tuple[Lab, WorkerConnection]]:
    async with (
        asyncio.timeout(30),
        open_lab(folder, runners=COPY, **options) as lab,
        lab.client() as client,
    ):
        yield lab, client


def a_package(lab: Lab) -> PackedArchive:
    return lab.package("copy data.bin copy.bin\n", data__bin=CONTENT)


async def ends(client: WorkerConnection, job: str) -> m.JobStateChanged:
    last = (await until_final(client, job))[-1]
    assert isinstance(last, m.JobStateChanged)
    return last


async def fetched(client: WorkerConnection, job: str, into: Path) -> bytes:
    """What the job made, once it is unpacked and every hash is right."""
    unpack(await client.fetch(job, into), into / "results")
    verify_manifest(into / "results")
    return (into / "results" / "copy.bin").read_bytes()


# --- on their way in ------------------------------------------------------------------------------


class Lane:
    """A client's bulk lane that does something to the first chunks of what it sends.

    Args:
        client: whose lane it is.
        do: gives what goes out instead of a chunk; None sends nothing.
        times: to how many chunks; None means all.
    """

    def __init__(
        self, client: WorkerConnection, do: Callable[[Chunk], bytes | None], times: int | None = 1
    ) -> None:
        self.offsets: list[int] = []
        self._do, self._left = do, times
        self._send = client._link.files._send_bulk
        client._link.files._send_bulk = self._spoilt

    async def _spoilt(self, session: str, frame: bytes) -> None:
        chunk = decode_chunk(frame)
        self.offsets.append(chunk.offset)
        if self._left is None or len(self.offsets) <= self._left:
            frame = self._do(chunk) or b""
        if frame:
            await self._send(session, frame)


def lost(_chunk: Chunk) -> None:
    return None


def damaged(chunk: Chunk) -> bytes:
    """Other bytes in a sound frame: only the hash of the whole file finds them."""
    return encode_chunk(chunk.transfer, chunk.offset, bytes(len(chunk.payload)))


def beyond_the_end(chunk: Chunk) -> bytes:
    return encode_chunk(chunk.transfer, 2**40, chunk.payload)


@pytest.mark.drives("receiving T3")
async def test_bytes_that_never_came_are_asked_for_again(tmp_path: Path) -> None:
    async with a_client(tmp_path, timers={Timer.IDLE: 0.3}) as (lab, client):
        lane, job = Lane(client, lost), job_id()
        await client.submit(job, a_package(lab))
        assert (await ends(client, job)).outcome is Outcome.SUCCEEDED
        assert lane.offsets.count(0) >= 2
        assert await fetched(client, job, tmp_path) == CONTENT


@pytest.mark.drives("receiving T7")
async def test_a_package_that_was_damaged_on_its_way_is_sent_again_and_runs(
    tmp_path: Path,
) -> None:
    async with a_client(tmp_path) as (lab, client):
        lane, job = Lane(client, damaged), job_id()
        await client.submit(job, a_package(lab))
        assert (await ends(client, job)).outcome is Outcome.SUCCEEDED
        assert lane.offsets.count(0) == 2
        assert await fetched(client, job, tmp_path) == CONTENT


@pytest.mark.drives("receiving T7 T8")
async def test_a_package_that_comes_damaged_every_time_is_refused_after_three_times(
    tmp_path: Path,
) -> None:
    async with a_client(tmp_path) as (lab, client):
        lane, job = Lane(client, damaged, times=None), job_id()
        await client.submit(job, a_package(lab))
        last = await ends(client, job)
        assert last.outcome is Outcome.FAILED
        assert [problem.code for problem in last.problems] == [ErrorCode.HASH_MISMATCH]
        assert lane.offsets.count(0) == 3


@pytest.mark.drives("receiving T9")
async def test_bytes_beyond_the_announced_size_end_the_job_with_a_sentence(tmp_path: Path) -> None:
    async with a_client(tmp_path) as (lab, client):
        Lane(client, beyond_the_end)
        job = job_id()
        await client.submit(job, a_package(lab))
        last = await ends(client, job)
        assert last.outcome is Outcome.FAILED
        [problem] = last.problems
        assert problem.code is ErrorCode.MALFORMED
        assert "outside package.zip" in problem.sentence


@pytest.mark.drives("receiving T10")
async def test_a_folder_that_is_deleted_under_a_package_ends_the_job_and_no_path_is_told(
    tmp_path: Path,
) -> None:
    async with a_client(tmp_path) as (lab, client):
        job = job_id()

        def after_a_clean_up(chunk: Chunk) -> bytes:
            shutil.rmtree(lab.folder / "worker" / "jobs" / job / "inputs")
            return encode_chunk(chunk.transfer, chunk.offset, chunk.payload)

        Lane(client, after_a_clean_up)
        await client.submit(job, a_package(lab))
        last = await ends(client, job)
        assert last.outcome is Outcome.FAILED
        [problem] = last.problems
        assert "No such file or directory" in problem.sentence
        assert str(tmp_path) not in problem.sentence
        again = job_id()
        await client.submit(again, a_package(lab))
        assert (await ends(client, again)).outcome is Outcome.SUCCEEDED


@pytest.mark.drives("receiving T11")
async def test_a_package_that_the_client_can_not_read_any_more_ends_the_job(tmp_path: Path) -> None:
    async with a_client(tmp_path) as (lab, client):
        archive, job = a_package(lab), job_id()
        archive.path.unlink()
        await client.submit(job, archive)
        last = await ends(client, job)
        assert last.outcome is Outcome.FAILED
        [problem] = last.problems
        assert problem.code is ErrorCode.INPUT_REFUSED
        assert "the sender gave up" in problem.sentence


# --- on their way out -----------------------------------------------------------------------------


async def a_job_that_is_done(lab: Lab, client: WorkerConnection) -> str:
    job = job_id()
    await client.submit(job, a_package(lab))
    assert (await ends(client, job)).outcome is Outcome.SUCCEEDED
    return job


@pytest.mark.drives("job J50")
async def test_results_that_can_not_be_packed_are_a_problem_of_the_job_and_no_path_is_told(
    tmp_path: Path,
) -> None:
    async with a_client(tmp_path) as (lab, client):
        job = job_id()

        def after_somebody_took_the_name(chunk: Chunk) -> bytes:
            (lab.folder / "worker" / "jobs" / job / "results.zip").mkdir()
            return encode_chunk(chunk.transfer, chunk.offset, chunk.payload)

        Lane(client, after_somebody_took_the_name)
        await client.submit(job, a_package(lab))
        last = await ends(client, job)
        assert last.outcome is Outcome.SUCCEEDED
        [problem] = last.problems
        assert problem.code is ErrorCode.RESULTS_PARTIAL
        assert "directory" in problem.sentence
        assert str(tmp_path) not in problem.sentence


async def results(client: WorkerConnection, job: str) -> ResultsState:
    """What the worker says of them."""
    return (await client.attach(job)).results.state


def said_instead(
    client: WorkerConnection, kind: type[m.Message], change: Callable[[m.Message], m.Message | None]
) -> None:
    """What the client says of files is changed, where it is of this kind; None is not said."""
    files, send = client._link.files, client._link.files._send

    def changed(session: str, message: m.Message) -> None:
        said = change(message) if isinstance(message, kind) else message
        if said is not None:
            send(session, said)

    files._send = changed


@pytest.mark.drives("sending D5", "results R7")
async def test_results_that_a_client_stored_with_another_hash_are_not_taken_for_delivered(
    tmp_path: Path,
) -> None:
    async with a_client(tmp_path) as (lab, client):
        job = await a_job_that_is_done(lab, client)
        said_instead(
            client, m.FileStored, lambda said: msgspec.structs.replace(said, root="0" * 64)
        )
        await client.fetch(job, tmp_path)
        assert await results(client, job) is ResultsState.HELD


@pytest.mark.drives("sending D6", "results R7")
async def test_results_that_the_client_could_not_store_are_kept_and_come_when_asked_again(
    tmp_path: Path,
) -> None:
    async with a_client(tmp_path) as (lab, client):
        job = await a_job_that_is_done(lab, client)
        with pytest.raises(ProtocolError, match="the disk refused"):
            await client.fetch(job, tmp_path / "no" / "such" / "folder")
        assert await results(client, job) is ResultsState.HELD
        assert await fetched(client, job, tmp_path) == CONTENT
        assert await results(client, job) is ResultsState.DELIVERED


@pytest.mark.parametrize(
    "is_there",
    [
        pytest.param(lambda path: None, marks=pytest.mark.drives("sending D7"), id="nothing"),
        pytest.param(Path.mkdir, marks=pytest.mark.drives("sending D8"), id="a_folder"),
    ],
)
async def test_results_that_the_worker_can_not_read_are_kept_and_come_when_it_can(
    tmp_path: Path, is_there: Callable[[Path], None]
) -> None:
    async with a_client(tmp_path) as (lab, client):
        job = await a_job_that_is_done(lab, client)
        archive = lab.folder / "worker" / "jobs" / job / "results.zip"
        elsewhere = archive.rename(tmp_path / "elsewhere.zip")
        is_there(archive)
        with pytest.raises(ProtocolError, match="the sender gave up"):
            await client.fetch(job, tmp_path)
        assert await results(client, job) is ResultsState.HELD
        with suppress(FileNotFoundError):
            archive.rmdir()
        elsewhere.rename(archive)
        assert await fetched(client, job, tmp_path) == CONTENT


@pytest.mark.drives("sending D10", "results R11")
async def test_results_go_to_the_window_that_asked_last_and_the_other_hears_that_they_do_not_come(
    tmp_path: Path,
) -> None:
    async with a_client(tmp_path) as (lab, first), lab.client() as second:
        job = await a_job_that_is_done(lab, first)
        offered = asyncio.Event()
        said_instead(first, m.FileNeed, lambda _: offered.set())  # it asks for no byte

        async def is_told_that_they_do_not_come() -> None:
            with pytest.raises(ProtocolError, match="the sender gave up"):
                await first.fetch(job, tmp_path)

        async with asyncio.TaskGroup() as group:
            group.create_task(is_told_that_they_do_not_come())
            await offered.wait()
            (tmp_path / "second").mkdir()
            assert await fetched(second, job, tmp_path / "second") == CONTENT
        assert await results(second, job) is ResultsState.DELIVERED
