"""The websocket to the signaling server as worker and client use it: sockets that come and go."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from fsm_worker.effects import CloseSocket, OpenSocket, PingServer
from fsm_worker.events import (
    Event,
    RecvRefusal,
    RecvRegistered,
    SignalArrived,
    SocketFailed,
    SocketOpened,
    Started,
)
from fsm_worker.facts import SignallingFacts
from fsm_worker.machines.world import THE_SERVER
from fsm_worker.seams.signaling_link import SignalingLink
from fsm_worker.seams.signaling_socket import create_room, sign_in
from fsm_worker.signaling.limits import Limits
from fsm_worker.signaling.server import SignalingServer
from protocol.errors import ErrorCode
from protocol.signaling import (
    Answer,
    DiscoverPeers,
    Error,
    FromPeer,
    Offer,
    Ping,
    Register,
    Room,
    SignalingCode,
    SignIn,
)
from protocol.table import MachineName

PATIENCE = 5.0  # only a failing test waits that long
_EFFECT = {
    "subject": THE_SERVER, "event": Started(), "facts": SignallingFacts(),
    "row": "S1", "before": "down", "after": "connecting",
}  # fmt: skip
OPEN, CLOSE, PING = OpenSocket(**_EFFECT), CloseSocket(**_EFFECT), PingServer(**_EFFECT)


class Ends:
    """A link, and everything that it told: to the machine, and to who takes messages."""

    def __init__(self, url: str) -> None:
        self.events: list[Event] = []
        self.messages: list[Offer | Answer | Error] = []
        self._told = asyncio.Event()
        self.link = SignalingLink(url, emit=self._emit, on_message=self._take)

    def _emit(self, machine: MachineName, subject: str, event: Event) -> None:
        assert (machine, subject) == (MachineName.SIGNALLING, THE_SERVER)
        self.events.append(event)
        self._told.set()

    def _take(self, message: Offer | Answer | Error) -> None:
        self.messages.append(message)
        self._told.set()

    def of(self, kind: type[Any]) -> list[Any]:
        return [told for told in (*self.events, *self.messages) if isinstance(told, kind)]

    async def until(self, kind: type[Any], count: int = 1) -> Any:
        async with asyncio.timeout(PATIENCE):
            while len(self.of(kind)) < count:
                self._told.clear()
                await self._told.wait()
        return self.of(kind)[-1]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Task[None]]:
        """One more socket, open until the block ends."""
        opened = len(self.of(SocketOpened))
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            task = group.create_task(self.link.open_socket(OPEN))
            await self.until(SocketOpened, opened + 1)
            yield task
            task.cancel()


class Listener:
    """A server that says nothing of its own; a test speaks by its connections."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []
        self.url = ""
        self._deaf = asyncio.Event()
        self._deaf.set()

    async def _serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        await connection.wait_closed()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Listener"]:
        async with serve(self._serve, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            self.url = f"ws://127.0.0.1:{port}"
            yield self

    async def hear(self, number: int) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            heard = json.loads(await self.connections[number].recv())
        assert isinstance(heard, dict)
        return heard


@contextlib.asynccontextmanager
async def two_sockets() -> AsyncIterator[tuple[Listener, Ends, asyncio.Task[None]]]:
    """A link that opened a second socket while it had one; gives the first one's task."""
    async with Listener().running() as server:
        ends = Ends(server.url)
        async with ends.open() as first, ends.open():
            yield server, ends, first


def offer(target: str = "w", sdp: str = "v=0") -> Offer:
    return Offer(sender="c", target=target, sdp=sdp)


# --- two sockets at a time -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed by the server", "cut", "cancelled"])
async def test_an_old_socket_that_ends_late_does_not_mute_the_newer_one(how: str) -> None:
    async with two_sockets() as (server, ends, first):
        match how:
            case "closed by the server":
                await server.connections[0].close()
            case "cut":
                server.connections[0].transport.abort()
            case _:
                first.cancel()
        await asyncio.wait({first})
        ends.link.send(offer())
        assert (await server.hear(1))["type"] == "offer"


async def test_while_two_sockets_are_open_the_newer_one_carries_everything() -> None:
    async with two_sockets() as (server, ends, _):
        ends.link.send(offer(sdp="one"))
        ends.link.ping_server(PING)
        assert [(await server.hear(1))["type"] for _ in range(2)] == ["offer", "ping"]
        ends.link.close_socket(CLOSE)
        async with asyncio.timeout(PATIENCE):
            await server.connections[1].wait_closed()
        assert server.connections[1].close_code == 1000


async def test_an_old_socket_that_was_replaced_is_no_failure_of_the_newer_one() -> None:
    """Replacing cancels it; what it says then would end a connection that works."""
    async with two_sockets() as (server, ends, first):
        first.cancel()
        await asyncio.wait({first})
        await server.connections[0].wait_closed()
        assert ends.of(SocketFailed) == []


# --- one socket ----------------------------------------------------------------------------------


async def test_what_is_sent_without_a_socket_is_dropped_and_does_not_come_later() -> None:
    async with Listener().running() as server:
        ends = Ends(server.url)
        ends.link.send(offer(sdp="too early"))
        async with ends.open():
            ends.link.send(offer(sdp="in time"))
            assert (await server.hear(0))["sdp"] == "in time"
            await server.connections[0].close()
            await ends.until(SocketFailed)
            ends.link.send(offer(sdp="too late"))
        async with ends.open():
            ends.link.send(offer(sdp="again"))
            assert (await server.hear(1))["sdp"] == "again"


async def test_no_server_is_an_event_with_a_sentence() -> None:
    async with Listener().running() as server:
        ends = Ends(server.url)
    async with asyncio.timeout(PATIENCE):
        await ends.link.open_socket(OPEN)
    assert "no signaling server answers" in (await ends.until(SocketFailed)).reason
    assert ends.of(SocketOpened) == []


async def test_a_ping_is_answered_and_every_frame_is_a_sign_of_life() -> None:
    async with Listener().running() as server:
        ends = Ends(server.url)
        async with ends.open():
            await server.connections[0].send('{"type": "ping"}')
            assert await server.hear(0) == {"type": "pong"}  # and not the goodbye, which is one too
            await server.connections[0].send('{"type": "metadata_updated", "metadata": {}}')
            await ends.until(SignalArrived, 2)
            ends.link.send(offer())
            assert (await server.hear(0))["type"] == "offer"


async def test_a_full_queue_drops_with_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with Listener().running() as server:
        ends = Ends(server.url)
        async with ends.open():
            with caplog.at_level(logging.WARNING):
                for number in range(300):  # without a pause, so that nothing can leave
                    ends.link.send(offer(sdp=f"{number}"))
            dropped = [line for line in caplog.messages if "a message was dropped" in line]
            kept = [(await server.hear(0))["sdp"] for _ in range(300 - len(dropped))]
            assert kept == [f"{number}" for number in range(len(kept))]  # the oldest, in order
            ends.link.send(offer(sdp="afterwards"))
            assert (await server.hear(0))["sdp"] == "afterwards"
    assert 0 < len(dropped) < 300


async def test_a_server_that_takes_nothing_does_not_hold_up_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Listener().running() as server:
        ends = Ends(server.url)
        async with ends.open() as task:
            server.connections[0].transport.pause_reading()
            try:
                with caplog.at_level(logging.WARNING):
                    while not caplog.messages:  # the buffers of both kernels first, then the queue
                        ends.link.send(offer(sdp="x" * 200_000))
                        await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait({task}, timeout=PATIENCE - 1.0)
            finally:
                server.connections[0].transport.abort()
        assert done


# --- what the server has against us --------------------------------------------------------------


async def refused(ends: Ends, message: FromPeer) -> RecvRefusal:
    async with ends.open():
        ends.link.send(message)
        refusal = await ends.until(RecvRefusal)
    assert isinstance(refusal, RecvRefusal)
    assert refusal.reason  # a sentence for people
    assert ends.messages == []
    return refusal


async def place(server: SignalingServer) -> tuple[SignIn, Room]:
    who = await sign_in(server.http_url)
    return who, await create_room(server.http_url, who.id_token)


def registration(who: SignIn, room: Room, **fields: str) -> Register:
    words = {
        "peer_id": who.username, "room_id": room.room_id, "token": room.token,
        "id_token": who.id_token,
    }  # fmt: skip
    return Register(**{**words, **fields})


@pytest.mark.parametrize(
    ("wrong", "final", "code"),
    [
        ({"id_token": "nobody's"}, True, ErrorCode.NOT_AUTHENTICATED),
        ({"token": "of another room"}, True, ErrorCode.NOT_AUTHENTICATED),
        ({"room_id": "no-such-room"}, True, ErrorCode.ABORTED),
    ],
)
async def test_a_refusal_says_whether_the_same_words_can_ever_be_right(
    wrong: dict[str, str], final: bool, code: ErrorCode
) -> None:
    async with SignalingServer() as server:
        _, room = await place(server)
        stranger = await sign_in(server.http_url)  # the room is somebody else's
        refusal = await refused(Ends(server.ws_url), registration(stranger, room, **wrong))
    assert (refusal.final, refusal.code) == (final, code)


async def test_a_room_that_is_full_now_is_tried_again() -> None:
    async with SignalingServer(limits=Limits(peers_per_room=1)) as server:
        who, room = await place(server)
        inside = Ends(server.ws_url)
        async with inside.open():
            inside.link.send(registration(who, room))
            registered = await inside.until(RecvRegistered)
            assert registered.room == room.room_id
            late = await sign_in(server.http_url)
            refusal = await refused(Ends(server.ws_url), registration(late, room))
        assert (refusal.final, refusal.code) == (False, ErrorCode.ABORTED)
        outside = Ends(server.ws_url)
        async with outside.open():
            outside.link.send(registration(late, room))
            await outside.until(RecvRegistered)


async def test_a_peer_that_is_not_there_is_told_to_who_asked_and_not_to_the_machine() -> None:
    async with SignalingServer() as server:
        who, room = await place(server)
        ends = Ends(server.ws_url)
        async with ends.open():
            ends.link.send(registration(who, room))
            await ends.until(RecvRegistered)
            ends.link.send(Offer(sender=who.username, target="nobody", sdp="v=0"))
            error = await ends.until(Error)
            assert error.code == SignalingCode.NO_SUCH_PEER
            assert ends.of(RecvRefusal) == []
            ends.link.send(DiscoverPeers(from_peer_id=who.username))  # it is still connected
            await ends.until(SignalArrived, len(ends.of(SignalArrived)) + 1)


async def test_words_of_a_peer_go_to_who_takes_messages() -> None:
    async with SignalingServer() as server:
        who, room = await place(server)
        worker, client = Ends(server.ws_url), Ends(server.ws_url)
        caller = await sign_in(server.http_url)
        async with worker.open(), client.open():
            worker.link.send(registration(who, room, role="worker"))
            client.link.send(registration(caller, room, role="client"))
            await worker.until(RecvRegistered)
            await client.until(RecvRegistered)
            client.link.send(
                Offer(sender=caller.username, target=who.username, sdp="v=0", link="link-7")
            )
            heard = await worker.until(Offer)
            assert (heard.sender, heard.link) == (caller.username, "link-7")
            worker.link.send(
                Answer(sender=who.username, target=caller.username, sdp="v=0", link=heard.link)
            )
            assert (await client.until(Answer)).link == "link-7"
            worker.link.send(Error(target=caller.username, reason="overloaded", message="full"))
            assert (await client.until(Error)).sender == who.username
            assert client.of(RecvRefusal) == []  # it came from a peer, not from the server
            client.link.send(Ping())
            await client.until(SignalArrived, 4)
