"""Links under load, and uploads that another session goes on with."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from aiortc import RTCDataChannel

from fsm_worker.client.connection import ConnectionOver, WorkerConnection
from fsm_worker.seams.peer_links import MOST_WAITING
from fsm_worker.services.archive import PackedArchive
from protocol import messages as m
from protocol.bulk import HEADER_SIZE
from protocol.codec import Frame, encode
from protocol.lifecycle import JobState, Outcome, WorkerState
from tests.e2e.lab import Lab, job_id, open_lab, until_final
from tests.e2e.test_transfers import COPY
from tests.test_journal import held

BURST = 3000
#: Events that may wait in the worker's inbox beside the frames of one link.
OTHERS = 100
SIZE = 12 * 1024 * 1024


class Inbox:
    """Measures how many events wait in the worker's inbox."""

    def __init__(self, lab: Lab) -> None:
        self.most = 0
        self.full = asyncio.Event()  # beyond what one link may have there
        self._runtime = lab.worker.runtime
        self._post = self._runtime.post
        self._runtime.post = self._measured

    def _measured(self, *event: object) -> None:
        self._post(*event)
        self.most = max(self.most, len(self._runtime._inbox))
        if self.most > MOST_WAITING + OTHERS:
            self.full.set()


def control(client: WorkerConnection) -> RTCDataChannel:
    (channels,) = client._link._links._links.values()
    return channels.by_label["control"]


def requests(client: WorkerConnection) -> None:
    for _ in range(BURST):
        client._link.send(m.WorkerGet())


def pings(client: WorkerConnection) -> None:
    for number in range(BURST):
        control(client).send(encode(Frame(msg=m.Ping(n=number))))


def nonsense(client: WorkerConnection) -> None:
    for number in range(BURST):
        control(client).send(f'{{"msg": {{"type": "nonsense", "n": {number}}}}}')


async def serves_another(lab: Lab) -> None:
    async with asyncio.timeout(4), lab.client() as other:
        assert (await other.status()).state is WorkerState.AVAILABLE


async def test_a_burst_of_control_frames_is_answered_before_what_comes_after_it(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab:
        inbox = Inbox(lab)
        async with lab.client() as client:
            pings(client)
            assert (await client.status()).state is WorkerState.AVAILABLE
            await serves_another(lab)
        assert inbox.most <= MOST_WAITING + OTHERS


@pytest.mark.parametrize("burst", [requests, pings, nonsense])
async def test_a_burst_while_the_disk_is_stuck_is_answered_or_its_link_is_closed(
    tmp_path: Path, burst: Callable[[WorkerConnection], None]
) -> None:
    """What waits in memory meanwhile is bounded, whatever it is."""
    async with asyncio.timeout(20), open_lab(tmp_path) as lab:
        inbox = Inbox(lab)
        async with lab.client() as client:
            file = m.InputFile(name="package.zip", size=1, root="0" * 64)
            with held(lab.worker.journal.path):
                client._link.send(m.Submit(job=job_id(), spec=m.JobSpec(), inputs=(file,)))
                burst(client)  # the worker writes the job down before it looks at this
                await asyncio.wait([asyncio.create_task(inbox.full.wait())], timeout=1.5)
            with contextlib.suppress(ConnectionOver):
                await client.jobs()  # answered after all that was sent before it
        await serves_another(lab)
        assert inbox.most <= MOST_WAITING + OTHERS


# --- uploads that another session goes on with ------------------------------------------------


class Wire:
    """Counts the bytes of files that reach the worker."""

    def __init__(self, lab: Lab) -> None:
        self.bytes = 0
        self._came = asyncio.Event()
        self._take = lab.worker.file_manager.take_chunk
        lab.worker.file_manager.take_chunk = self._counted

    def _counted(self, session: str, frame: bytes) -> None:
        self.bytes += len(frame) - HEADER_SIZE
        self._take(session, frame)
        self._came.set()

    async def more(self, count: int) -> None:
        """Waits until so many more bytes have come."""
        enough = self.bytes + count
        while self.bytes < enough:
            self._came.clear()
            await self._came.wait()


async def part_of_an_upload(
    lab: Lab, wire: Wire, job: str, archive: PackedArchive, *, killed: bool
) -> None:
    """A client that goes when a quarter of its package has come."""
    going = asyncio.Event()

    async def begin() -> None:
        async with lab.client() as client:
            await client.submit(job, archive)
            await going.wait()
            if killed:
                await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        beginning = group.create_task(begin())
        await wire.more(archive.size // 4)
        going.set()
        if killed:
            beginning.cancel()  # its connection is closed, and it says no bye


async def finish(lab: Lab, job: str, archive: PackedArchive) -> None:
    async with lab.client() as client:
        assert (await client.attach(job)).state is JobState.STAGING
        await client.submit(job, archive)
        last = (await until_final(client, job))[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.outcome is Outcome.SUCCEEDED, last.problems


def to_copy(lab: Lab) -> PackedArchive:
    return lab.package("copy data.bin copy.bin\n", data__bin=os.urandom(SIZE))


@pytest.mark.parametrize("killed", [True, False], ids=["was_killed", "said_bye"])
async def test_a_second_session_sends_only_what_a_client_that_went_had_not_sent(
    tmp_path: Path, killed: bool
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path, runners=COPY) as lab:
        wire, archive, job = Wire(lab), to_copy(lab), job_id()
        await part_of_an_upload(lab, wire, job, archive, killed=killed)
        assert archive.size // 4 <= wire.bytes < archive.size
        await finish(lab, job, archive)
        assert wire.bytes == archive.size  # no byte came twice


async def test_an_upload_that_is_begun_by_one_session_after_another_comes_to_its_end(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path, runners=COPY) as lab:
        wire, archive, job = Wire(lab), to_copy(lab), job_id()
        await part_of_an_upload(lab, wire, job, archive, killed=True)
        await part_of_an_upload(lab, wire, job, archive, killed=False)
        await part_of_an_upload(lab, wire, job, archive, killed=True)
        await finish(lab, job, archive)
        assert wire.bytes == archive.size


async def test_a_session_takes_an_upload_over_while_the_older_one_still_sends(
    tmp_path: Path,
) -> None:
    """As a user does who submits again in another window; either of them can end it."""
    async with asyncio.timeout(20), open_lab(tmp_path, runners=COPY) as lab:
        wire, archive, job = Wire(lab), to_copy(lab), job_id()
        async with lab.client() as first:
            await first.submit(job, archive)
            await wire.more(archive.size // 4)
            await finish(lab, job, archive)
            last = (await until_final(first, job))[-1]
            assert isinstance(last, m.JobStateChanged)
            assert last.outcome is Outcome.SUCCEEDED
        assert wire.bytes < 2 * archive.size
