"""Links under load; uploads and logs that a lost link or another session interrupts."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiortc import RTCDataChannel

from fsm_worker.client.connection import ConnectionOver, WorkerConnection
from fsm_worker.seams.peer_links import MOST_WAITING
from fsm_worker.seams.room import MOST_LINKS
from fsm_worker.services.archive import PackedArchive
from fsm_worker.services.recipe import Runner
from protocol import messages as m
from protocol.bulk import HEADER_SIZE
from protocol.codec import Frame, encode
from protocol.errors import ErrorCode
from protocol.lifecycle import JobState, Outcome, WorkerState
from protocol.signaling import Offer
from protocol.table import MachineName
from tests.e2e.lab import Lab, job_id, open_lab, until_final
from tests.e2e.test_transfers import COPY
from tests.test_journal import held

BURST = 3000
#: Events that may wait in the inbox beside the frames of one link.
OTHERS = 100
SIZE = 12 * 1024 * 1024


class Inbox:
    """Measures how many events wait in the worker's inbox at most."""

    def __init__(self, lab: Lab) -> None:
        self.most = 0
        self._runtime = lab.worker.runtime
        self._post = self._runtime.post
        self._runtime.post = self._measured

    def _measured(self, *event: object) -> None:
        self._post(*event)
        self.most = max(self.most, len(self._runtime._inbox))


def control(client: WorkerConnection) -> RTCDataChannel:
    (channels,) = client._link._links._links.values()
    return channels.by_label["control"]


def numbered(client: WorkerConnection) -> None:
    for _ in range(BURST):
        client._link.send(m.Error(code=ErrorCode.INTERNAL, message="a note, which has no answer"))


def pings(client: WorkerConnection) -> None:
    for number in range(BURST):
        control(client).send(encode(Frame(msg=m.Ping(n=number))))


def nonsense(client: WorkerConnection) -> None:
    for number in range(BURST):
        control(client).send(f'{{"msg": {{"type": "nonsense", "n": {number}}}}}')


@pytest.mark.parametrize(
    ("burst", "stuck"),
    [(pings, 0.0), (pings, 1.5), (numbered, 1.5), (nonsense, 1.5)],
)
async def test_a_burst_is_answered_or_its_link_closed_and_others_are_served(
    tmp_path: Path, burst: Callable[[WorkerConnection], None], stuck: float
) -> None:
    """What waits in memory is bounded, also while the disk is stuck for so many seconds."""
    async with asyncio.timeout(60), open_lab(tmp_path) as lab:
        inbox = Inbox(lab)
        async with lab.client() as client:
            file = m.InputFile(name="package.zip", size=1, root="0" * 64)
            with held(lab.worker.journal.path) if stuck else contextlib.nullcontext():
                client._link.send(m.Submit(job=job_id(), spec=m.JobSpec(), inputs=(file,)))
                burst(client)  # the worker writes the job down before it looks at this
                await asyncio.sleep(stuck)
            try:
                await client.jobs()  # answered after all that was sent before it
            except ConnectionOver:
                said = set[str]()
                with contextlib.suppress(ConnectionOver):
                    async for message in client.news():
                        said.add(getattr(message, "code", ""))
                assert said & {ErrorCode.OVERLOADED, ErrorCode.UNKNOWN_TYPE}
        async with asyncio.timeout(4), lab.client() as other:
            assert (await other.status()).state is WorkerState.AVAILABLE
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
    with contextlib.suppress(asyncio.CancelledError):
        async with lab.client() as client:
            await client.submit(job, archive)
            await wire.more(archive.size // 4)
            if killed:
                raise asyncio.CancelledError  # its connection is closed, and it says no bye


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
    async with asyncio.timeout(60), open_lab(tmp_path, runners=COPY) as lab:
        wire, archive, job = Wire(lab), to_copy(lab), job_id()
        await part_of_an_upload(lab, wire, job, archive, killed=killed)
        assert archive.size // 4 <= wire.bytes < archive.size
        await finish(lab, job, archive)
        assert wire.bytes == archive.size  # no byte came twice


async def test_a_session_takes_an_upload_over_while_the_older_one_still_sends(
    tmp_path: Path,
) -> None:
    """As a user does who submits again in another window; either of them can end it."""
    async with asyncio.timeout(60), open_lab(tmp_path, runners=COPY) as lab:
        wire, archive, job = Wire(lab), to_copy(lab), job_id()
        async with lab.client() as first:
            await first.submit(job, archive)
            await wire.more(archive.size // 4)
            await finish(lab, job, archive)
            last = (await until_final(first, job))[-1]
            assert isinstance(last, m.JobStateChanged)
            assert last.outcome is Outcome.SUCCEEDED
        assert wire.bytes < 2 * archive.size


# --- logs across links --------------------------------------------------------------------------

TALKER = """
import json, sys, time
number = 0
for order in map(json.loads, open(sys.argv[1])):
    for _ in range(order if isinstance(order, int) else 0):
        print(f"line {number}", flush=True)
        number += 1
        time.sleep(0.001)
    if isinstance(order, str):
        print(order, end="", flush=True)
"""


class Talk:
    """A job that prints what it is told to: a text, or so many lines, a millisecond apart."""

    def __init__(self, folder: Path) -> None:
        pipe = folder / "talk"
        os.mkfifo(pipe)
        self._end = os.open(pipe, os.O_RDWR)
        self.runners = {("talk",): Runner("talk", (sys.executable, "-c", TALKER, str(pipe)))}

    def say(self, order: int | str) -> None:
        os.write(self._end, f"{json.dumps(order)}\n".encode())

    def end(self) -> None:
        os.close(self._end)


class Reader:
    """Follows a job's log; every piece must begin where the one before it ended."""

    def __init__(self, client: WorkerConnection, job: str) -> None:
        self.text = ""
        self.job = job
        self._at = 0
        self._client = client
        client.follow_log(job)

    async def until(self, text: str) -> None:
        """Reads until the log holds `text`, or has ended."""
        async for message in self._client.news():
            if isinstance(message, m.LogEnd):
                return
            if isinstance(message, m.Log):
                assert message.offset == self._at
                self._at = message.next
                self.text += message.text
                if text in self.text:
                    return
        raise AssertionError("the news ended")


@contextlib.asynccontextmanager
async def a_talk(folder: Path) -> AsyncIterator[tuple[Lab, WorkerConnection, Talk, Reader]]:
    talk = Talk(folder)
    async with open_lab(folder, runners=talk.runners) as lab, lab.client() as client:
        job = job_id()
        await client.submit(job, lab.package("talk\n"))
        reader = Reader(client, job)
        talk.say(1)
        await reader.until("line 0\n")
        yield lab, client, talk, reader


async def cut(lab: Lab) -> None:
    for pc in list(lab.worker._peers.values()):
        await pc.close()  # as consent loss does: no farewell


def lines(count: int) -> str:
    return "".join(f"line {number}\n" for number in range(count))


def requests_are_late(client: WorkerConnection) -> tuple[asyncio.Event, Callable[[], None]]:
    """What the client asks for logs from now on is under way, until the function lets it arrive."""
    asked, held, logs, send = asyncio.Event(), list[m.Message](), client._logs, client._logs._send

    def under_way(message: m.Message) -> None:
        held.append(message)
        asked.set()

    def arrive() -> None:
        logs._send = send
        for message in held:
            send(message)

    logs._send = under_way
    return asked, arrive


def coming(
    client: WorkerConnection, kind: type[m.Message], *, lost: bool, to: int = 0
) -> asyncio.Event:
    """Set when a message of this kind comes on the log lane, there to be heard or to be lost.

    A line may come in two pieces: all are lost that lead to the byte `to`.
    """
    came, links = asyncio.Event(), client._link._links
    hear = links._on_log

    def hearing(message: m.Message) -> None:
        if isinstance(message, kind):
            if getattr(message, "next", to) >= to:
                came.set()
                links._on_log = hear
            if lost:
                return
        hear(message)

    links._on_log = hearing
    return came


async def test_a_log_is_whole_and_in_order_though_the_link_is_cut_again_and_again(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(10), a_talk(tmp_path) as (lab, _, talk, reader):
        talk.say(1500)
        for place in (100, 400, 700):
            await reader.until(f"line {place}\n")
            await cut(lab)
        await reader.until("line 1500\n")
        talk.end()
        await reader.until("the end")
        assert reader.text == lines(1501)


async def test_a_log_is_whole_though_its_pieces_overtake_the_request_for_them(
    tmp_path: Path,
) -> None:
    """The worker's earlier stream goes on with the new link before the client asks again."""
    async with asyncio.timeout(10), a_talk(tmp_path) as (lab, client, talk, reader):
        send = lab.worker.job_coordinator._send_log

        async def slowly(session: str, message: m.Message) -> None:
            await asyncio.sleep(0.1)  # so that the log is longer by then
            await send(session, message)

        lab.worker.job_coordinator._send_log = slowly
        asked, arrive = requests_are_late(client)
        await cut(lab)
        await asked.wait()  # there was nothing to say meanwhile
        talk.say(600)
        await reader.until("line 200\n")
        arrive()
        talk.end()
        await reader.until("the end")
        assert reader.text == lines(601)


async def test_a_log_whose_end_overtakes_a_piece_that_was_lost_is_read_to_its_end(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(10), a_talk(tmp_path) as (lab, client, talk, reader):
        lost = coming(client, m.Log, lost=True, to=len(lines(2)))
        talk.say(1)
        await lost.wait()
        asked, arrive = requests_are_late(client)
        await cut(lab)
        await asked.wait()
        ended = coming(client, m.LogEnd, lost=False)
        talk.end()
        await ended.wait()
        arrive()
        await reader.until("the end")
        assert reader.text == lines(2)


async def test_a_log_goes_on_after_bytes_that_show_nothing(tmp_path: Path) -> None:
    async with asyncio.timeout(10), a_talk(tmp_path) as (_, _, talk, reader):
        talk.say("\r\r\r")  # a progress bar that clears its line
        await asyncio.sleep(0.3)  # so that the worker reads these alone
        talk.say("afterwards\n")
        await reader.until("afterwards\n")
        talk.say("\r\r\r")
        talk.end()
        await reader.until("the end")
        assert reader.text.endswith("afterwards\n")


async def test_of_too_many_offers_at_once_no_more_are_taken_than_there_may_be_links(
    tmp_path: Path,
) -> None:
    """They are counted when their turn has come; when they came, none of them was a link yet."""
    async with asyncio.timeout(30), open_lab(tmp_path) as lab, lab.client() as client:
        for _ in range(MOST_LINKS + 8):
            offer = Offer(sender="a-flood", target=lab.session.peer, sdp="v=0", link="l")
            lab.worker.signaling._on_message(offer)
        assert (await client.status()).name == "lab"
        fired = lab.worker.journal.fired
        assert fired[MachineName.LINK, "L1"] == MOST_LINKS  # the client's own is one of them
        assert fired[MachineName.LINK, "L2"] == 9
