"""The server comes up, goes down, and notices who is gone; nothing stays behind."""

import asyncio
import contextlib
import signal
import socket

import httpx
import pytest

from fsm_worker.seams.signaling_socket import SignalingSocket, SignalingUnreachable, sign_in
from fsm_worker.signaling.limits import Limits
from fsm_worker.signaling.server import CannotListen, PortTaken, SignalingServer
from tests.signaling.peer import (
    RawPeer,
    deaf_peer,
    discover,
    entered,
    offer,
    owner_and_room,
    read_to_the_end,
    register,
)


async def test_http_and_websocket_share_the_port_that_is_named(free_port: int) -> None:
    async with SignalingServer(port=free_port) as server:
        assert server.port == free_port
        assert server.http_url == f"http://127.0.0.1:{free_port}"
        assert server.ws_url == f"ws://127.0.0.1:{free_port}"
        await sign_in(server.http_url)
        async with await SignalingSocket.connect(server.ws_url):
            pass


@pytest.fixture
def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def test_a_taken_port_is_said_and_the_other_server_lives_on() -> None:
    async with SignalingServer() as first:
        second = SignalingServer(port=first.port)
        with pytest.raises(PortTaken, match="choose another port"):
            await second.__aenter__()
        await sign_in(first.http_url)


async def test_the_port_is_free_again_afterwards() -> None:
    async with SignalingServer() as first:
        _, room = await owner_and_room(first)
        await entered(first, room, "a")
    async with SignalingServer(port=first.port) as second:
        await sign_in(second.http_url)


async def test_a_number_that_is_no_port_is_refused_in_words() -> None:
    with pytest.raises(CannotListen, match="port"):
        await SignalingServer(port=70_000).__aenter__()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "x" * 80])
async def test_an_address_of_another_machine_is_refused_in_words(host: str) -> None:
    with pytest.raises(CannotListen, match="address"):
        await SignalingServer(host).__aenter__()


@pytest.mark.parametrize(
    ("host", "reached"),
    [("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("localhost", "localhost")],  # noqa: S104 - what this law is about
)
async def test_the_urls_lead_to_the_server_whatever_it_listens_on(host: str, reached: str) -> None:
    try:
        async with SignalingServer(host) as server:
            assert server.http_url == f"http://{reached}:{server.port}"
            await sign_in(server.http_url)
            async with await SignalingSocket.connect(server.ws_url):
                pass
    except CannotListen:
        if host != "::1":  # a machine without IPv6
            raise


async def test_a_server_is_entered_once() -> None:
    async with SignalingServer() as server:
        with pytest.raises(RuntimeError, match="make a new one"):
            await server.__aenter__()
        await sign_in(server.http_url)


async def test_leaving_closes_every_connection_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with SignalingServer() as server:
        _, room = await owner_and_room(server)
        registered = await entered(server, room, "a")
        unregistered = await RawPeer.connect(server)
        _, idle = await asyncio.open_connection("127.0.0.1", server.port)
    assert await registered.close_code() == 1012
    assert await unregistered.close_code() == 1012
    idle.close()
    with contextlib.suppress(ConnectionError):
        await idle.wait_closed()
    for peer in (registered, unregistered):
        await peer.connection.close()
    assert asyncio.all_tasks() == before
    with pytest.raises(SignalingUnreachable):
        await sign_in(server.http_url)


async def test_an_error_in_the_body_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with SignalingServer():
            _ = 1 / 0


@pytest.mark.parametrize("cancels", [1, 2])
async def test_a_cancelled_server_leaves_no_task_and_no_socket(cancels: int) -> None:
    before = asyncio.all_tasks()
    running: asyncio.Future[SignalingServer] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with SignalingServer() as server:
            running.set_result(server)
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    server = await running
    _, room = await owner_and_room(server)
    peer = await entered(server, room, "a")
    task.cancel()
    if cancels == 2:
        await peer.close_code()  # the server is closing now, and still waits for its connections
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await peer.close_code() in (1006, 1012)
    await peer.connection.close()
    assert asyncio.all_tasks() == before
    with pytest.raises(SignalingUnreachable):
        await sign_in(server.http_url)


async def test_a_peer_that_does_not_read_does_not_hold_up_the_end() -> None:
    async with SignalingServer(limits=Limits(outgoing_length=100_000_000)) as server:
        _, room = await owner_and_room(server)
        async with await entered(server, room, "a") as sender:
            _, writer = await deaf_peer(server, register(room, "deaf"))
            for _ in range(60):
                await sender.send(offer("a", "deaf", "x" * 200_000))
            assert await sender.ask({"type": "ping"}) == {"type": "pong"}
            started = asyncio.get_running_loop().time()
            await server.__aexit__(None, None, None)
            assert asyncio.get_running_loop().time() - started < 3.0
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_request_that_is_never_finished_does_not_hold_up_the_end() -> None:
    async with SignalingServer(limits=Limits(shutdown_s=0.1)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /delete-peer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        await writer.drain()
        await sign_in(server.http_url)  # by now the server has seen the other request
    await read_to_the_end(reader)
    writer.close()


async def test_every_peer_is_pinged() -> None:
    async with SignalingServer(limits=Limits(ping_every_s=0.05)) as server:
        _, room = await owner_and_room(server)
        async with await entered(server, room, "a") as a, await entered(server, room, "b") as b:
            for peer in (a, b, a):
                assert await peer.receive() == {"type": "ping"}


async def test_who_has_just_come_is_not_pinged_between_its_question_and_the_answer() -> None:
    """sleap-rtc's browsing clients take the next frame for the answer, whatever it is."""
    now = asyncio.get_running_loop().time
    async with SignalingServer(limits=Limits(ping_every_s=0.2)) as server:
        _, room = await owner_and_room(server)
        came = now()
        async with await entered(server, room, "new") as new:
            assert await new.receive() == {"type": "ping"}
            assert now() - came > 0.2  # so the first one that was due did not go to it


async def test_rooms_expire_without_anybody_asking_for_one() -> None:
    now = 1000.0
    async with SignalingServer(limits=Limits(ping_every_s=0.05), clock=lambda: now) as server:
        _, room = await owner_and_room(server)
        await owner_and_room(server)
        async with await entered(server, room, "a") as peer:
            now += 7200.0
            await peer.receive()
            async with httpx.AsyncClient(trust_env=False) as client:
                metrics = (await client.get(f"{server.http_url}/metrics")).text
    assert "\nfsm_worker_signaling_rooms 1\n" in metrics


async def test_a_dead_socket_is_noticed() -> None:
    """It is open, but nobody behind it answers the pings of the WebSocket."""
    async with SignalingServer(limits=Limits(socket_ping_s=0.25)) as server:
        _, room = await owner_and_room(server)
        async with await entered(server, room, "a") as observer:
            reader, writer = await deaf_peer(server, register(room, "dead"))
            assert (await observer.ask(discover("a")))["count"] == 1
            await read_to_the_end(reader)
            assert (await observer.ask(discover("a")))["count"] == 0
            writer.close()


async def test_who_begins_no_request_does_not_stay() -> None:
    async with SignalingServer(limits=Limits(request_within_s=0.05)) as server:
        whole = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        for before, begun in ((b"", b""), (b"", whole[:-2]), (whole, whole[:8])):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(before)
            if before:
                await reader.readuntil(b"}")
            writer.write(begun)
            async with asyncio.timeout(2.0):  # less than uvicorn's own idle time
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()


async def test_a_websocket_outlives_the_time_for_requests() -> None:
    async with SignalingServer(limits=Limits(request_within_s=0.05, ping_every_s=0.2)) as server:
        _, room = await owner_and_room(server)
        async with await entered(server, room, "a") as peer:
            assert await peer.receive() == {"type": "ping"}


async def test_signals_stay_with_the_program_that_embeds_the_server() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with SignalingServer() as server:
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{server.http_url}/health")).status_code == 200
