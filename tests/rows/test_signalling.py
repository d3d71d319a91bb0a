"""A signaling server that fails a worker in every way: it comes back by itself, or says why."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect

from fsm_worker.events import Timer
from fsm_worker.machines.world import THE_SERVER
from fsm_worker.signaling.link import CloseCode, Link
from protocol.signaling import MAX_FRAME
from protocol.table import MachineName
from tests.e2e.lab import Lab, open_lab
from tests.rows.native_peer import NativePeer
from tests.rows.steps import Steps

SIGNALLING = MachineName.SIGNALLING
SOON = {Timer.DELAY: 0.05}


async def cut(lab: Lab) -> None:
    """The server ends the worker's connection, and has forgotten it."""
    hub, gone = lab.server._hub, asyncio.Event()
    left = hub.left

    def noted(link: Link) -> None:
        left(link)
        gone.set()

    hub.left = noted
    for registration, link in list(hub._links.items()):
        if registration.peer_id == lab.session.peer:
            link.end(CloseCode.REMOVED, "not now")
    await gone.wait()
    hub.left = left


@contextlib.contextmanager
def deaf(lab: Lab) -> Iterator[None]:
    """The server takes everything and answers nothing."""
    hub = lab.server._hub
    received = hub.received
    hub.received = lambda _link, _data: None
    try:
        yield
    finally:
        hub.received = received


@contextlib.contextmanager
def short(lab: Lab, timer: Timer) -> Iterator[None]:
    """The timer runs for a moment only; what is armed after that runs as long as it should."""
    lab.worker.runtime.overrides[timer] = 0.2
    try:
        yield
    finally:
        lab.worker.runtime.overrides[timer] = 60.0


@contextlib.asynccontextmanager
async def silent_port() -> AsyncIterator[tuple[str, list[asyncio.Event]]]:
    """Takes connections and says nothing; gives its address, and for each the end of it."""
    ends: list[asyncio.Event] = []

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(asyncio.Event())
        number = len(ends) - 1
        await reader.read()
        ends[number].set()
        writer.close()

    async with await asyncio.start_server(held, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", ends


async def is_reached(lab: Lab) -> None:
    """A client finds the worker in its room."""
    async with lab.client() as client:
        assert (await client.status()).name == "lab"


@pytest.mark.drives("signalling S3")
async def test_a_worker_gives_up_a_server_that_does_not_answer_and_finds_the_next_one(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        silent_port() as (url, ends),
        open_lab(tmp_path, timers=SOON) as lab,
    ):
        steps, good = Steps(lab.worker), lab.worker.signaling.url
        lab.worker.signaling.url = url
        with short(lab, Timer.CONNECT):
            await cut(lab)
            await steps.until(SIGNALLING, "S3")
        lab.worker.signaling.url = good
        await steps.until(SIGNALLING, "S17")
        await is_reached(lab)
        for end in ends:  # no half-open connection is left
            await end.wait()


@pytest.mark.drives("signalling S9")
async def test_a_worker_that_is_not_let_in_in_time_knocks_again(tmp_path: Path) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path, timers=SOON) as lab:
        steps = Steps(lab.worker)
        with deaf(lab), short(lab, Timer.REGISTER):
            await cut(lab)
            await steps.until(SIGNALLING, "S9")
        await steps.until(SIGNALLING, "S17")
        await is_reached(lab)


@pytest.mark.drives("signalling S12 S13 S14")
async def test_a_worker_asks_a_silent_server_for_a_sign_of_life_and_leaves_one_that_gives_none(
    tmp_path: Path,
) -> None:
    timers = {**SOON, Timer.SILENCE: 0.2}
    async with asyncio.timeout(20), open_lab(tmp_path, timers=timers) as lab:
        steps = Steps(lab.worker)
        await steps.until(SIGNALLING, "S13")  # nobody had anything to say, but it answers
        await is_reached(lab)
        with deaf(lab), short(lab, Timer.DEAD):
            await steps.until(SIGNALLING, "S14")
        await steps.until(SIGNALLING, "S17")
        await is_reached(lab)


@pytest.mark.drives("signalling S8 S11")
async def test_a_worker_whose_name_somebody_has_taken_waits_for_it_and_forgets_its_failures(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        silent_port() as (url, _),
        open_lab(tmp_path, timers={**SOON, Timer.STABLE: 0.1}) as lab,
    ):
        steps, session, good = Steps(lab.worker), lab.session, lab.worker.signaling.url
        server = lab.worker.world.machines[SIGNALLING][THE_SERVER]
        lab.worker.signaling.url = url
        with short(lab, Timer.CONNECT):
            await cut(lab)
            await steps.until(SIGNALLING, "S3")
        async with connect(session.url, proxy=None) as socket:
            name = {"type": "register", "peer_id": session.peer}
            await socket.send(json.dumps({**name, "room_id": session.room, "token": session.token}))
            assert json.loads(await socket.recv())["type"] == "registered_auth"
            lab.worker.signaling.url = good
            await steps.until(SIGNALLING, "S8", times=2)
            assert "another peer is" in server.facts.reason
            assert server.facts.tries >= 3
        await steps.until(SIGNALLING, "S17")
        await is_reached(lab)
        await steps.until(SIGNALLING, "S11")
        assert server.facts.tries == 0


@pytest.mark.drives("signalling S7", "worker W75")
async def test_a_worker_whose_room_was_removed_tells_its_operator_so_and_leaves(
    tmp_path: Path,
) -> None:
    said: list[str] = []
    async with asyncio.timeout(20), open_lab(tmp_path, timers=SOON, say=said.append) as lab:
        steps = Steps(lab.worker)
        owner = {"Authorization": f"Bearer {lab.worker.state_manager._id_token}"}
        async with httpx.AsyncClient(base_url=lab.server.http_url, headers=owner) as client:
            room = {"room_id": lab.session.room}
            answer = await client.post("/delete-peers-and-room", json=room)
            assert answer.json()["removed"] == 1
        await steps.until(MachineName.WORKER, "W23")
    assert said == [
        "The signaling server refuses this worker: there is no such room (an empty one is kept "
        "for 2 h): ask its owner for a new session string",
        "The worker has stopped.",
    ]


@pytest.mark.drives("signalling S5")
async def test_a_worker_that_can_t_say_its_registration_says_it_again_when_it_can(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path, timers=SOON) as lab:
        steps, manager = Steps(lab.worker), lab.worker.state_manager
        server = lab.worker.world.machines[SIGNALLING][THE_SERVER]
        name, manager._name = manager._name, "n" * MAX_FRAME
        await cut(lab)
        await steps.until(SIGNALLING, "S5")
        assert "too_large" in server.facts.reason
        manager._name = name
        await steps.until(SIGNALLING, "S17")
        await is_reached(lab)


async def test_an_offer_of_any_length_is_refused_and_costs_the_worker_no_connection(
    tmp_path: Path,
) -> None:
    """What is wrong with it is quoted, with escapes: that is longer than a frame may be."""

    def unreadable(sdp: str) -> str:
        return sdp.replace("a=setup:actpass", "a=setup:" + "\u200b" * (MAX_FRAME // 4))

    async with (
        asyncio.timeout(20),
        open_lab(tmp_path, timers=SOON) as lab,
        NativePeer.dials(lab.session, lab.identity, change=unreadable) as peer,
    ):
        assert "200b" in await peer.is_refused()
        await is_reached(lab)
        assert lab.worker.journal.fired[SIGNALLING, "S2"] == 1  # one socket all the time
