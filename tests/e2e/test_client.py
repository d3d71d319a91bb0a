"""A client whose server, worker or link does not behave."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from aioice.ice import Connection, StunProtocol
from msgspec import structs

from fsm_worker.client.connection import ConnectionOver, WorkerConnection
from fsm_worker.client.dialler import Dialler
from fsm_worker.effects import HandleConnection, MakeOffer
from fsm_worker.events import IceFailed, RecvOffer, Timer
from fsm_worker.identity import Identity
from fsm_worker.machines.defaults import seconds
from fsm_worker.seams.peer_links import PeerLinks
from fsm_worker.seams.signaling_socket import create_room, sign_in
from fsm_worker.signaling.link import CloseCode, Link
from fsm_worker.signaling.server import SignalingServer
from fsm_worker.worker_class import RTCWorkerClient
from protocol.errors import ErrorCode, ProtocolError
from protocol.proof import SessionString
from protocol.table import MachineName
from tests.e2e.lab import Lab, connected, open_lab
from tests.row_coverage import journals

REDIAL = {Timer.REDIAL: 0.3}


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.load(tmp_path / "client.key")


async def a_session(server: SignalingServer) -> SessionString:
    """The way to a worker that has made a room, and never comes into it."""
    who = await sign_in(server.http_url)
    room = await create_room(server.http_url, who.id_token)
    return SessionString(
        url=server.ws_url, room=room.room_id, token=room.token, peer=who.username, key="k"
    )


async def refusal(
    folder: Path, session: SessionString, identity: Identity
) -> tuple[ConnectionOver, float]:
    """How opening a connection ends, and after how long (seconds)."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionOver) as over:
            async with connected(folder, session, identity, timers={Timer.SESSION: 1.0}):
                pass
    return over.value, loop.time() - begun


# --- servers ----------------------------------------------------------------------------------


def says_nothing(link: Link, data: str | bytes) -> None:
    """Takes a frame, and no more."""


def hangs_up(link: Link, data: str | bytes) -> None:
    link.end(CloseCode.REMOVED, "not now")


@pytest.mark.parametrize("received", [says_nothing, hangs_up])
async def test_a_server_that_lets_nobody_in_ends_the_wait(
    tmp_path: Path, identity: Identity, received: Callable[[Link, str | bytes], None]
) -> None:
    async with SignalingServer() as server:
        session = await a_session(server)
        server._hub.received = received  # of all that a server does, only its answers are gone
        over, took = await refusal(tmp_path, session, identity)
    assert over.code is ErrorCode.ABORTED
    assert "its signaling server lets nobody in" in str(over)
    assert 0.9 < took < 3.0


async def test_a_room_without_its_worker_is_told_at_once(
    tmp_path: Path, identity: Identity
) -> None:
    async with SignalingServer() as server:
        session = await a_session(server)
        over, took = await refusal(tmp_path, session, identity)
    assert over.code is ErrorCode.ABORTED
    assert took < 0.9


async def test_a_server_that_forgot_the_room_while_a_client_dialled_ends_the_wait(
    tmp_path: Path, identity: Identity
) -> None:
    async with SignalingServer() as before:
        session = await a_session(before)
        registered = asyncio.Event()
        before._hub._forward = lambda *_: registered.set()  # the offer reaches nobody
        waiting = asyncio.create_task(refusal(tmp_path, session, identity))
        await registered.wait()
    async with SignalingServer(port=before.port):
        over, _ = await waiting
    assert over.code in {ErrorCode.NOT_AUTHENTICATED, ErrorCode.ABORTED}
    assert str(over)


def sockets() -> set[object]:
    """Where this process listens for ICE."""
    return {place.laddr for place in psutil.Process().net_connections("udp")}


async def test_a_client_that_is_left_while_it_dials_leaves_no_socket(
    tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    dials, make_offer = asyncio.Event(), Dialler.make_offer

    async def noted(self: Dialler, effect: MakeOffer) -> None:
        dials.set()
        await make_offer(self, effect)

    async def come(session: SessionString) -> None:
        async with connected(tmp_path, session, identity):
            pass

    monkeypatch.setattr(Dialler, "make_offer", noted)
    left = dict[int, set[object]]()
    async with SignalingServer() as server:
        session = await a_session(server)
        for turns in range(12):  # of the loop: somewhere among them it opens its sockets
            before = sockets()
            dials.clear()
            coming = asyncio.create_task(come(session))
            await dials.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            coming.cancel()
            await asyncio.wait({coming})
            await asyncio.sleep(0.01)
            left[turns] = sockets() - before
    assert left == {turns: set() for turns in left}


@pytest.mark.parametrize("side", ["worker", "client"])
async def test_who_ends_while_a_lost_link_is_being_closed_leaves_no_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    close = StunProtocol.close

    async def slowly(self: StunProtocol) -> None:
        await asyncio.sleep(0.2)
        await close(self)

    monkeypatch.setattr(StunProtocol, "close", slowly)
    before = sockets()
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        runtime = lab.worker.runtime if side == "worker" else client._link.runtime
        (link,) = runtime.world.live(MachineName.LINK)
        runtime.post(MachineName.LINK, link.subject, IceFailed())
        await asyncio.sleep(0.1)
        if side == "worker":
            lab.worker.terminate()
    await asyncio.sleep(0.01)  # a socket is closed in the loop's next turn
    assert sockets() == before
    for journal in journals(tmp_path):  # the event came by hand: these rows count for no client's
        journal.rename(journal.with_name("by-hand.sqlite"))


class Relay:
    """A port of its own before a server; the server stays while this is cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ahead, behind = await asyncio.open_connection("127.0.0.1", self._port)
        self._ends |= {writer, behind}
        with contextlib.suppress(ConnectionError, ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass(reader, behind))
                group.create_task(_pass(ahead, writer))
        self._ends -= {writer, behind}

    async def mend(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    def leads_to(self, port: int) -> None:
        """Whoever comes from now on comes to another server."""
        self._port = port

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
    world, moved = client._link.world, client._link._moved
    while len(world.live(MachineName.LINK)) > 1:
        moved.clear()
        await moved.wait()
    (session,) = world.live(MachineName.SESSION)
    return session.facts.dialled


def lose_the_proof_of_the_next_link(links: PeerLinks) -> None:
    """On one more link the proof has to be sent again, and what follows it has to wait."""
    (session,) = links._runtime.world.live(MachineName.SESSION)
    present, take, late = session.facts.link, links._control, set[str]()
    loop = asyncio.get_running_loop()

    def again(link: str, data: str | bytes) -> None:
        if link in links._links:
            take(link, data)

    def slowly(link: str, data: str | bytes) -> None:
        if not late and link != present and '"proof"' in str(data):
            late.add(link)
        if link in late:
            loop.call_later(0.4, again, link, data)
        else:
            take(link, data)

    links._control = slowly


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


async def test_two_stun_servers_that_say_nothing_cost_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides wait for theirs, one after the other; here in a fifth of the time."""
    monkeypatch.setattr(Connection.get_component_candidates, "__defaults__", (1,))
    timers = {
        Timer.NEGOTIATION: seconds(Timer.NEGOTIATION, None, {}) / 5,
        Timer.REDIAL: seconds(Timer.REDIAL, None, {}) / 5,
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        servers = (f"stun:127.0.0.1:{mute.getsockname()[1]}",)
        before = sockets()
        async with (
            asyncio.timeout(40),
            open_lab(tmp_path, ice_servers=servers, timers=timers) as lab,
            lab.client(ice_servers=servers, timers=timers) as client,
        ):
            assert (await client.status()).name == "lab"
        await asyncio.sleep(0.01)  # a socket is closed in the loop's next turn
        assert sockets() == before  # of the attempts that came too late, too


@pytest.mark.parametrize("deaf", ["worker", "client"])
async def test_a_link_that_a_newer_one_replaces_is_no_farewell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaf: str
) -> None:
    """What one side says of the older link may overtake the proof of the newer one."""
    async with (
        asyncio.timeout(10),
        lab_with(Hesitant, tmp_path, monkeypatch) as lab,
        lab.client(timers=REDIAL) as client,
    ):
        lose_the_proof_of_the_next_link(
            lab.worker.links if deaf == "worker" else client._link._links
        )
        for _ in range(2):
            assert (await client.status()).name == "lab"
            await until_settled(client)


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
        relay = Relay(int(lab.session.url.rpartition(":")[2]))
        await relay.mend()
        session = structs.replace(lab.session, url=f"ws://127.0.0.1:{relay.port}")

        async def come() -> str:
            timers = {**REDIAL, Timer.DELAY: 0.1}
            async with connected(tmp_path, session, lab.identity, timers=timers) as client:
                return (await client.status()).name

        async with asyncio.TaskGroup() as group:
            coming = group.create_task(come())
            await Hesitant.offers.get()
            await relay.cut()  # the answer to this offer finds nobody
            await asyncio.sleep(0.3)
            await relay.mend()
            assert await coming == "lab"
            await relay.cut()


async def test_what_a_worker_could_not_read_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with open_lab(tmp_path) as lab, lab.client() as client, asyncio.timeout(5):
        with pytest.raises(ProtocolError, match="job") as refused:
            await client.attach("short")
        assert refused.value.code is ErrorCode.MALFORMED
        assert await client.jobs() is not None, "the link is as it was"
