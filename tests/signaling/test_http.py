"""The HTTP calls, as sleap-rtc makes them and as an attacker would."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import httpx
import pytest
import pytest_asyncio

from fsm_worker.seams.signaling_socket import sign_in
from fsm_worker.signaling.limits import Limits
from fsm_worker.signaling.server import SignalingServer
from protocol.signaling import Room, SignIn
from tests.signaling.peer import PATIENCE_S, discover, entered, owner_and_room

#: The loop of the module's one server.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: SignalingServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.http_url, trust_env=False) as http:
        yield http


def bearer(who: SignIn) -> dict[str, str]:
    return {"Authorization": f"Bearer {who.id_token}"}


async def test_sign_in_and_room_have_the_fields_of_sleap_rtc(client: httpx.AsyncClient) -> None:
    who = (await client.post("/anonymous-signin")).json()
    assert set(who) == {"id_token", "username"}
    headers = {"Authorization": f"Bearer {who['id_token']}"}
    room = (await client.post("/create-room", headers=headers)).json()
    assert set(room) == {"room_id", "token"}


async def test_a_room_takes_an_identity_of_this_server(client: httpx.AsyncClient) -> None:
    for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer forged.é"}):
        raw = {name: value.encode() for name, value in headers.items()}
        refused = await client.post("/create-room", headers=raw)
        said = refused.json()
        assert (refused.status_code, said["code"]) == (401, "not_authenticated")
        assert said["error"] == said["message"]  # what sleap-rtc's command line shows


async def test_health_and_metrics_say_how_it_is() -> None:
    async with (
        SignalingServer() as server,
        httpx.AsyncClient(base_url=server.http_url, trust_env=False) as client,
    ):
        health = (await client.get("/health")).json()
        assert health["status"] == "ok"
        assert health["version"]
        assert datetime.fromisoformat(health["timestamp"]).tzinfo is not None
        _, room = await owner_and_room(server)
        async with await entered(server, room, "a") as peer:
            await peer.ask("{")
            metrics = await client.get("/metrics")
    assert metrics.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = metrics.text.splitlines()
    assert lines[::2] == [
        "# TYPE fsm_worker_signaling_rooms gauge",
        "# TYPE fsm_worker_signaling_peers gauge",
        "# TYPE fsm_worker_signaling_connections gauge",
        "# TYPE fsm_worker_signaling_messages_total counter",
        "# TYPE fsm_worker_signaling_forwarded_total counter",
        "# TYPE fsm_worker_signaling_refused_total counter",
        "# TYPE fsm_worker_signaling_cut_off_total counter",
    ]
    assert lines[1::2] == [
        "fsm_worker_signaling_rooms 1",
        "fsm_worker_signaling_peers 1",
        "fsm_worker_signaling_connections 1",
        "fsm_worker_signaling_messages_total 2",
        "fsm_worker_signaling_forwarded_total 0",
        "fsm_worker_signaling_refused_total 1",
        "fsm_worker_signaling_cut_off_total 0",
    ]


async def test_a_goodbye_without_credentials_is_answered_and_removes_nobody(
    client: httpx.AsyncClient, server: SignalingServer, room: Room
) -> None:
    """sleap-rtc 0.0.7 says it this way after its socket closed; anybody could in its place."""
    async with await entered(server, room, "w"), await entered(server, room, "c") as other:
        for path in ("/delete-peer", "/delete-peers-and-room"):
            for body in ({"peer_id": "w"}, {"room_id": room.room_id}, {"peer_id": "unknown"}):
                answer = await client.post(path, json=body)
                assert answer.json() == {"status": "ok", "removed": 0}
        assert (await other.ask(discover("c")))["count"] == 1


async def test_a_goodbye_after_the_socket_closed_is_answered_and_finds_the_peer_gone(
    client: httpx.AsyncClient, server: SignalingServer, room: Room
) -> None:
    async with await entered(server, room, "w") as other:
        async with await entered(server, room, "c"):
            pass
        answer = await client.post("/delete-peers-and-room", json={"peer_id": "c"})
        assert (answer.status_code, answer.json()["removed"]) == (200, 0)
        assert (await other.ask(discover("w")))["count"] == 0
        async with await entered(server, room, "c"):  # the room is still there, the name free
            pass


async def test_a_user_removes_its_own_peer_and_no_other(
    client: httpx.AsyncClient, server: SignalingServer, room: Room
) -> None:
    mine, stranger = await sign_in(server.http_url), await sign_in(server.http_url)
    async with (
        await entered(server, room, "w", id_token=mine.id_token) as peer,
        await entered(server, room, "c") as other,
    ):
        body = {"peer_id": "w"}
        refused = await client.post("/delete-peer", json=body, headers=bearer(stranger))
        assert refused.json()["removed"] == 0
        forged = await client.post("/delete-peer", json={**body, "id_token": "w.forged"})
        assert (forged.status_code, forged.json()["code"]) == (401, "not_authenticated")
        done = await client.post("/delete-peer", json={**body, "id_token": mine.id_token})
        assert done.json()["removed"] == 1
        assert (await peer.receive())["type"] == "error"
        assert await peer.close_code() == 4002
        assert (await other.ask(discover("c")))["count"] == 0


async def test_only_its_maker_removes_a_room_with_all_in_it(
    client: httpx.AsyncClient, server: SignalingServer, owner_room: tuple[SignIn, Room]
) -> None:
    owner, room = owner_room
    stranger = await sign_in(server.http_url)
    body = {"room_id": room.room_id}
    async with await entered(server, room, "a") as peer:
        refused = await client.post("/delete-peers-and-room", json=body, headers=bearer(stranger))
        assert (refused.status_code, refused.json()["code"]) == (403, "not_authorised")
        done = await client.post("/delete-peers-and-room", json=body, headers=bearer(owner))
        assert done.json() == {"status": "ok", "removed": 1}
        assert (await peer.receive())["code"] == "room_closed"
        assert await peer.close_code() == 4002
    again = await client.post("/delete-peers-and-room", json=body, headers=bearer(owner))
    assert (again.status_code, again.json()["code"]) == (404, "room_not_found")


async def test_bodies_that_mean_nothing_are_refused(client: httpx.AsyncClient) -> None:
    for body, status in (
        (b"", 400),
        (b"[", 400),
        (b'{"peer_id": 7}', 400),
        (b"\xff", 400),
        (b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
        (b" " * 20_000, 413),
    ):
        refused = await client.post("/delete-peer", content=body)
        assert refused.status_code == status
        assert refused.json()["message"]
    assert (await client.get("/delete-peer")).status_code == 405
    assert (await client.get("/nowhere")).status_code == 404


async def test_a_body_that_never_comes_is_not_awaited() -> None:
    async with SignalingServer(limits=Limits(body_within_s=0.05)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /delete-peer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert b" 400 " in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_what_is_no_http_is_answered_with_400(server: SignalingServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"\x16\x03\x01 this is TLS\r\n\r\n")
    async with asyncio.timeout(PATIENCE_S):
        assert b" 400 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_requests_of_one_address_have_a_rate() -> None:
    limits = Limits(request_rate=0.001, request_burst=2.0)
    async with (
        SignalingServer(limits=limits) as server,
        httpx.AsyncClient(base_url=server.http_url, trust_env=False) as client,
    ):
        statuses = [(await client.post("/anonymous-signin")).status_code for _ in range(3)]
        forwarded = {"X-Forwarded-For": "192.0.2.7"}
        statuses.append((await client.post("/create-room", headers=forwarded)).status_code)
        assert statuses == [200, 200, 429, 429]
        assert (await client.get("/health")).status_code == 200
