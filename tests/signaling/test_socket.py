"""The worker's and the client's end, against our server and against what is none."""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.server import ServerConnection, serve

from fsm_worker.seams.signaling_socket import (
    NotASignalingUrl,
    SignalingClosed,
    SignalingSocket,
    SignalingUnreachable,
    create_room,
    http_url_for,
    sign_in,
)
from fsm_worker.signaling.limits import Limits
from fsm_worker.signaling.server import SignalingServer
from protocol.signaling import (
    MAX_FRAME,
    Error,
    Offer,
    Ping,
    Pong,
    Register,
    RegisteredAuth,
    Room,
    SignalingCode,
    SignalingRefused,
)

#: The loop of the module's one server.
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_two_sockets_exchange_an_offer(server: SignalingServer, room: Room) -> None:
    async with (
        await SignalingSocket.connect(server.ws_url) as worker,
        await SignalingSocket.connect(server.ws_url) as client,
    ):
        heard, said = worker.messages(), client.messages()
        for name, end, answers in (("w", worker, heard), ("c", client, said)):
            await end.send(Register(peer_id=name, room_id=room.room_id, token=room.token))
            answer = await anext(answers)
            assert isinstance(answer, RegisteredAuth)
            assert answer.peer_id == name
        offer = Offer(sender="c", target="w", sdp="v=0")
        await client.send(offer)
        assert await anext(heard) == offer
        await client.send(Offer(sender="w", target="c", sdp=""))
        refused = await anext(said)
        assert isinstance(refused, Error)
        assert SignalingCode(refused.code) is SignalingCode.FORGED_SENDER


async def test_the_messages_end_when_we_close(server: SignalingServer) -> None:
    ready = asyncio.Event()

    async def read() -> list[object]:
        ready.set()
        return [message async for message in end.messages()]

    end = await SignalingSocket.connect(server.ws_url)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        await ready.wait()
        await end.close()
    assert reading.result() == []
    await end.close()
    with pytest.raises(SignalingClosed):
        await end.send(Ping())


async def test_the_messages_end_with_an_error_when_the_server_closes() -> None:
    async with SignalingServer() as server:
        end = await SignalingSocket.connect(server.ws_url)
    with pytest.raises(SignalingClosed, match="1012") as closed:
        await anext(end.messages())
    assert closed.value.code == 1012
    with pytest.raises(SignalingClosed, match="1012"):
        await end.send(Ping())
    await end.close()


async def test_a_connection_that_breaks_says_so() -> None:
    async def break_off(connection: ServerConnection) -> None:
        connection.transport.abort()

    async with (
        serve(break_off, "127.0.0.1", 0) as server,
        await SignalingSocket.connect(_url(server.sockets)) as end,
    ):
        with pytest.raises(SignalingClosed, match="broke") as closed:
            await anext(end.messages())
        assert closed.value.code == 1006


async def test_what_cannot_be_decoded_is_skipped_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """sleap-rtc: an unknown or broken frame ended the worker."""
    caplog.set_level(logging.DEBUG, logger="fsm_worker")
    frames: list[str | bytes] = [
        "not json, secret-1",
        b"\xff",
        '{"type":"quit","token":"secret-2"}',
        '{"type":"error","message":7}',
        "x" * (MAX_FRAME + 1),
        json.dumps({"type": "offer", "sender": "a", "target": "b", "sdp": "secret-3"}),
    ]

    async def talk(connection: ServerConnection) -> None:
        for frame in frames:
            await connection.send(frame)
        await connection.wait_closed()

    async with (
        serve(talk, "127.0.0.1", 0) as server,
        await SignalingSocket.connect(_url(server.sockets)) as end,
    ):
        assert await anext(end.messages()) == Offer(sender="a", target="b", sdp="secret-3")
        assert end.undecodable == 5
    assert caplog.text.count("skipped") == 5
    assert "secret" not in caplog.text


def _url(sockets: object) -> str:
    assert isinstance(sockets, tuple | list)
    return f"ws://127.0.0.1:{sockets[0].getsockname()[1]}"


async def test_too_large_a_message_is_refused_before_it_is_sent(server: SignalingServer) -> None:
    async with await SignalingSocket.connect(server.ws_url) as end:
        with pytest.raises(SignalingRefused, match="too_large"):
            await end.send(Offer(sender="a", target="b", sdp="x" * MAX_FRAME))
        await end.send(Ping())
        assert await anext(end.messages()) == Pong()


async def test_where_nobody_listens_the_error_says_what_to_check() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: sign_in(f"http://127.0.0.1:{port}"),
        lambda: create_room(f"http://127.0.0.1:{port}", "x"),
        lambda: SignalingSocket.connect(f"ws://127.0.0.1:{port}"),
    ]
    for call in calls:
        with pytest.raises(SignalingUnreachable, match=f"127.0.0.1:{port}.*check"):
            await call()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        b'HTTP/1.1 403 Forbidden\r\nContent-Length: 16\r\n\r\n{"code":"other"}',
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhome",
        b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000,
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"",
    ],
    ids=["404", "a refusal of others", "a page", "endless", "ssh", "closed"],
)
async def test_another_server_is_told_from_a_signaling_server(answer: bytes) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SignalingUnreachable, match="check"):
            await sign_in(f"http://127.0.0.1:{port}")
        with pytest.raises(SignalingUnreachable, match="check"):
            await SignalingSocket.connect(f"ws://127.0.0.1:{port}")


async def test_a_server_that_never_answers_is_given_up_on() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(SignalingUnreachable):
            await sign_in(f"http://127.0.0.1:{port}", timeout_s=0.05)
        with pytest.raises(SignalingUnreachable):
            await SignalingSocket.connect(f"ws://127.0.0.1:{port}", timeout_s=0.05)


async def test_a_refusal_keeps_its_code_and_sentence() -> None:
    async with SignalingServer(limits=Limits(request_rate=0.001, request_burst=1.0)) as server:
        who = await sign_in(server.http_url)
        with pytest.raises(SignalingRefused) as refused:
            await create_room(server.http_url, who.id_token)
        assert refused.value.code is SignalingCode.RATE_LIMITED
        assert "wait" in refused.value.sentence
    async with SignalingServer() as restarted:
        with pytest.raises(SignalingRefused, match="not_authenticated"):
            await create_room(restarted.http_url, who.id_token)


async def test_proxies_of_the_environment_are_not_used_on_loopback(
    server: SignalingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for host in ("127.0.0.1", "localhost"):
        await sign_in(f"http://{host}:{server.port}")
        async with await SignalingSocket.connect(f"ws://{host}:{server.port}"):
            pass


@pytest.mark.parametrize(
    ("ws_url", "http_url"),
    [
        ("ws://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("ws://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("wss://signal.example.org", "https://signal.example.org"),
        ("wss://user:secret@signal.example.org/path?x=y", "https://signal.example.org"),
        ("ws://[::1]:9000", "http://[::1]:9000"),
    ],
)
async def test_the_http_calls_go_to_the_host_and_port_of_the_websocket(
    ws_url: str, http_url: str
) -> None:
    assert http_url_for(ws_url) == http_url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "127.0.0.1:8080",
        "http://127.0.0.1",
        "ws://",
        "ws://x:port",
        "ws://x:99999",
        "ws://[",
    ],
)
async def test_an_address_that_cannot_be_one_is_refused_in_words(url: str) -> None:
    with pytest.raises(NotASignalingUrl, match="ws://HOST:PORT"):
        http_url_for(url)
    with pytest.raises(SignalingUnreachable):
        await SignalingSocket.connect(url)
    with pytest.raises(SignalingUnreachable):
        await sign_in(url if not url.startswith("http") else "ws://x")
