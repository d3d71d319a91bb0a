"""A client whose server, worker or link does not behave."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from fsm_worker.client.connection import ConnectionOver, WorkerConnection
from fsm_worker.effects import HandleConnection
from fsm_worker.events import RecvOffer, Timer
from fsm_worker.identity import Identity
from fsm_worker.seams.signaling_socket import create_room, sign_in
from fsm_worker.services.recipe import Runner
from fsm_worker.signaling.link import CloseCode, Link
from fsm_worker.signaling.server import SignalingServer
from fsm_worker.worker_class import RTCWorkerClient
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.proof import SessionString
from protocol.signaling import SignIn
from protocol.table import MachineName
from tests.e2e.lab import Lab, job_id, open_lab, until_final

REDIAL = {Timer.REDIAL: 0.3}


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.load(tmp_path / "client.key")


async def a_session(server: SignalingServer) -> tuple[SignIn, SessionString]:
    """The way to a worker that has made a room, and never comes into it."""
    who = await sign_in(server.http_url)
    room = await create_room(server.http_url, who.id_token)
    return who, SessionString(
        url=server.ws_url, room=room.room_id, token=room.token, peer=who.username, key="k"
    )


async def refusal(session: SessionString, identity: Identity) -> tuple[ConnectionOver, float]:
    """How opening a connection ends, and after how long (seconds)."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionOver) as over:
            async with WorkerConnection.open(session, identity, timers={Timer.SESSION: 1.0}):
                pass
    return over.value, loop.time() - begun


# --- servers ----------------------------------------------------------------------------------


def says_nothing(link: Link, data: str | bytes) -> None:
    """Takes a frame, and no more."""


def hangs_up(link: Link, data: str | bytes) -> None:
    link.end(CloseCode.REMOVED, "not now")


@pytest.mark.parametrize("received", [says_nothing, hangs_up])
async def test_a_server_that_lets_nobody_in_ends_the_wait(
    identity: Identity, received: Callable[[Link, str | bytes], None]
) -> None:
    async with SignalingServer() as server:
        _, session = await a_session(server)
        server._hub.received = received  # of all that a server does, only its answers are gone
        over, took = await refusal(session, identity)
    assert (over.code, str(over)) == (ErrorCode.ABORTED, "the worker can't be reached")
    assert 0.9 < took < 3.0


async def test_a_room_without_its_worker_is_told_at_once(identity: Identity) -> None:
    async with SignalingServer() as server:
        _, session = await a_session(server)
        over, took = await refusal(session, identity)
    assert over.code is ErrorCode.ABORTED
    assert took < 0.9


async def test_a_server_that_forgot_the_room_while_a_client_dialled_ends_the_wait(
    identity: Identity,
) -> None:
    async with SignalingServer() as before:
        _, session = await a_session(before)
        registered = asyncio.Event()
        before._hub._forward = lambda *_: registered.set()  # the offer reaches nobody
        waiting = asyncio.create_task(refusal(session, identity))
        await registered.wait()
    async with SignalingServer(port=before.port):
        over, _ = await waiting
    assert over.code in {ErrorCode.NOT_AUTHENTICATED, ErrorCode.ABORTED}
    assert str(over)


class Wire:
    """A port of its own before a server; the server stays while this is cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ahead, behind = await asyncio.open_connection("127.0.0.1", self._port)
        self._ends |= {writer, behind}
        with contextlib.suppress(*(ConnectionError, ExceptionGroup)):
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass(reader, behind))
                group.create_task(_pass(ahead, writer))
        self._ends -= {writer, behind}

    async def mend(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._listener is not None
        self._listener.close()
        for end in self._ends:
            end.transport.abort()
        await self._listener.wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


# --- workers ----------------------------------------------------------------------------------


class Hesitant(RTCWorkerClient):
    """Answers every offer a second late."""

    offers: asyncio.Queue[str]

    async def handle_connection(self, effect: HandleConnection) -> None:
        self.offers.put_nowait(effect.subject)
        await asyncio.sleep(1.0)
        await super().handle_connection(effect)


class Forgetful(RTCWorkerClient):
    """Answers as sleap-rtc does: nothing tells which offer it was; and only the second one."""

    offers: asyncio.Queue[str]

    async def handle_connection(self, effect: HandleConnection) -> None:
        self.offers.put_nowait(effect.subject)
        if self.offers.qsize() == 2:
            assert isinstance(effect.event, RecvOffer)
            bare = structs.replace(effect.event, about="")
            await super().handle_connection(structs.replace(effect, event=bare))


@contextlib.asynccontextmanager
async def lab_with(
    kind: type[Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Lab]:
    monkeypatch.setattr(kind, "offers", asyncio.Queue(), raising=False)
    monkeypatch.setattr("tests.e2e.lab.RTCWorkerClient", kind)
    async with open_lab(folder) as lab:
        yield lab


async def until_settled(client: WorkerConnection) -> int:
    """Waits until one link is left; how many were dialled."""
    world, moved = client._link.world, client._link._link_moved
    while len(world.live(MachineName.LINK)) > 1:
        moved.clear()
        await moved.wait()
    (session,) = world.live(MachineName.SESSION)
    return session.facts.dialled


async def test_a_worker_that_answers_each_offer_late_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        asyncio.timeout(20),
        lab_with(Hesitant, tmp_path, monkeypatch) as lab,
        lab.client(timers=REDIAL) as client,
    ):
        assert (await client.status()).name == "lab"
        assert await until_settled(client) >= 3  # an answer that is late is not a wrong one
        assert (await client.status()).name == "lab"


async def test_an_answer_that_names_no_offer_goes_to_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        asyncio.timeout(20),
        lab_with(Forgetful, tmp_path, monkeypatch) as lab,
        lab.client(timers={Timer.REDIAL: 0.5, Timer.NEGOTIATION: 2.0}) as client,
    ):
        assert (await client.status()).name == "lab"
        assert await until_settled(client) >= 2


async def test_a_server_that_is_away_while_a_client_dials_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asyncio.timeout(20), lab_with(Hesitant, tmp_path, monkeypatch) as lab:
        wire = Wire(int(lab.session.url.rpartition(":")[2]))
        await wire.mend()
        session = structs.replace(lab.session, url=f"ws://127.0.0.1:{wire.port}")

        async def come() -> str:
            timers = {**REDIAL, Timer.DELAY: 0.1}
            async with WorkerConnection.open(session, lab.identity, timers=timers) as client:
                return (await client.status()).name

        async with asyncio.TaskGroup() as group:
            coming = group.create_task(come())
            await Hesitant.offers.get()
            await wire.cut()  # the answer to this offer finds nobody
            await asyncio.sleep(0.3)
            await wire.mend()
            assert await coming == "lab"
            await wire.cut()


# --- logs -------------------------------------------------------------------------------------

TALKER = """
import sys, time
number = 0
for words in open(sys.argv[1]):
    for _ in range(int(words)):
        print(f"line {number}", flush=True)
        number += 1
        time.sleep(0.001)
"""


class Talk:
    """A job that prints as many lines as it is told to, a millisecond apart."""

    def __init__(self, folder: Path) -> None:
        self._pipe = folder / "talk"
        os.mkfifo(self._pipe)
        self._end = os.open(self._pipe, os.O_RDWR)
        self.runners = {("talk",): Runner("talk", (sys.executable, "-c", TALKER, str(self._pipe)))}

    def say(self, lines: int) -> None:
        os.write(self._end, f"{lines}\n".encode())

    def end(self) -> None:
        os.close(self._end)


class Reader:
    """Follows a job's log, and holds what it hears to the laws of a log."""

    def __init__(self, client: WorkerConnection, job: str) -> None:
        self.text = ""
        self._at = 0
        self._job = job
        self._client = client
        client.follow_log(job)

    async def until(self, text: str) -> None:
        """Reads until the log holds `text`, or has ended."""
        async for message in self._client.news():
            if isinstance(message, m.LogEnd):
                assert message.size == self._at
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


class LateRequests:
    """A path on which what the client asks for takes its time, from now on."""

    def __init__(self, client: WorkerConnection) -> None:
        self.asked = asyncio.Event()
        self._held: list[m.Message] = []
        self._send = client._link.send
        client._link.send = self._later

    def _later(self, message: m.Message) -> None:
        self._held.append(message)
        self.asked.set()

    def arrive(self) -> None:
        for message in self._held:
            self._send(message)


async def test_a_log_is_whole_and_in_order_though_the_link_is_cut_again_and_again(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), a_talk(tmp_path) as (lab, _, talk, reader):
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
    async with asyncio.timeout(20), a_talk(tmp_path) as (lab, client, talk, reader):
        send = lab.worker.job_coordinator._send_log

        async def slowly(session: str, message: m.Message) -> None:
            await asyncio.sleep(0.1)  # so that the log is longer by then
            await send(session, message)

        lab.worker.job_coordinator._send_log = slowly
        late = LateRequests(client)
        await cut(lab)
        await late.asked.wait()  # there was nothing to say meanwhile
        talk.say(600)
        await reader.until("line 200\n")
        late.arrive()
        talk.end()
        await reader.until("the end")
        assert reader.text == lines(601)


async def test_a_log_whose_end_overtakes_a_piece_that_was_lost_is_read_to_its_end(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), a_talk(tmp_path) as (lab, client, talk, reader):
        lost = asyncio.Event()
        (channels,) = client._link._links._links.values()
        channels.by_label["log"].remove_all_listeners("message")
        channels.by_label["log"].on("message", lambda _data: lost.set())
        talk.say(1)
        await lost.wait()  # the worker has sent it, and the path had died
        late = LateRequests(client)
        await cut(lab)
        await late.asked.wait()
        talk.end()
        await until_final(client, reader._job)
        late.arrive()
        await reader.until("the end")
        assert reader.text == lines(2)
