"""Peers of sleap-rtc 0.0.7 at our server, with the frames that they send."""

from typing import Any

import pytest

from fsm_worker.signaling.server import SignalingServer
from protocol.signaling import Room
from tests.signaling.peer import RawPeer, ask_to_enter, discover, entered, offer

#: The loop of the module's one server.
pytestmark = pytest.mark.asyncio(loop_scope="module")

WORKER: dict[str, Any] = {
    "role": "worker",
    "is_admin": True,
    "metadata": {
        "tags": ["sleap-rtc", "training-worker", "inference-worker"],
        "properties": {
            "gpu_memory_mb": 24000,
            "gpu_model": "some GPU",
            "status": "available",
            "max_concurrent_jobs": 1,
            "supported_models": ["base", "centroid", "topdown"],
            "worker_name": None,
            "mounts": [{"label": "data", "path": "/data"}],
        },
    },
}


async def test_a_track_client_comes_with_a_session_string_and_neither_role_nor_metadata(
    server: SignalingServer, room: Room
) -> None:
    async with await entered(server, room, "w", **WORKER) as worker:
        async with await RawPeer.connect(server) as client:
            frame = ask_to_enter("u", room_id=room.room_id, token=room.token, jwt="x.y.z")
            await client.send(frame)
            await client.send(offer("u", "w"))
            assert (await client.receive())["type"] == "registered_auth"
            assert await worker.receive() == offer("u", "w")
            answer = {"type": "answer", "sender": "w", "target": "u", "sdp": "v=0"}
            await worker.send(answer)
            assert await client.receive() == answer
            listed = (await worker.ask(discover("w")))["peers"][0]
            assert (listed["role"], listed["metadata"]) == ("peer", {"tags": [], "properties": {}})
        assert (await worker.ask(discover("w")))["count"] == 0


async def test_a_client_finds_an_available_worker_by_its_filters(
    server: SignalingServer, room: Room
) -> None:
    async with (
        await entered(server, room, "w", **WORKER) as worker,
        await entered(server, room, "u", role="client") as client,
    ):

        async def found(**properties: Any) -> list[str]:
            answer = await client.ask(
                discover(
                    "u",
                    role="worker",
                    room_id=room.room_id,
                    tags=["other", "training-worker"],
                    properties={"status": "available", **properties},
                )
            )
            assert (answer["type"], answer["to_peer_id"]) == ("peer_list", "u")
            assert answer["count"] == len(answer["peers"])
            return [peer["peer_id"] for peer in answer["peers"]]

        assert await found(gpu_memory_mb={"$gte": 24000}) == ["w"]
        assert await found(gpu_memory_mb={"$gte": 24001}) == []
        assert await found(gpu_memory_mb={"$lte": 24000}) == ["w"]
        assert await found(gpu_model={"$eq": "some GPU"}) == ["w"]
        busy = {"properties": {"status": "busy"}}
        told = await worker.ask({"type": "update_metadata", "peer_id": "w", "metadata": busy})
        # Its own loop reads these two keys of the answer without looking.
        assert told["metadata"]["properties"]["status"] == "busy"
        assert told["metadata"]["properties"]["gpu_memory_mb"] == 24000
        assert await found() == []


async def test_a_worker_that_claims_to_lead_a_mesh_leads_alone(
    server: SignalingServer, room: Room
) -> None:
    """It would take every peer for a worker, ask for `mesh_connect`, and end at the refusal."""
    async with await entered(server, room, "w1", **WORKER), await RawPeer.connect(server) as second:
        frame = ask_to_enter("w2", room_id=room.room_id, token=room.token, **WORKER)
        answer = await second.ask(frame)
        assert answer["admin_peer_id"] == "w2"
        assert (answer["peer_list"], answer["peer_metadata"]) == ([], {})
        # It is no secret who is there: it only is no mesh.
        assert (await second.ask(discover("w2")))["count"] == 1
        assert (await second.ask({"type": "mesh_connect"}))["code"] == "unknown_type"


@pytest.mark.parametrize(
    "last_words",
    [
        {"type": "quit"},
        {"type": "quit", "target": "w", "sender": "u"},
        {"type": "quit", "from_peer_id": "u", "to_peer_id": "w"},
        {"type": "admin_conflict", "target": "w", "current_admin": "u"},
        {"type": "registered_auth", "target": "w", "peer_id": "u"},
        {"type": "ping", "target": "w"},
    ],
    ids=" ".join,
)
async def test_what_only_a_server_says_reaches_nobody_when_a_peer_says_it(
    server: SignalingServer, room: Room, last_words: dict[str, str]
) -> None:
    """sleap-rtc: a `quit` from anyone ended a worker."""
    async with (
        await entered(server, room, "w", **WORKER) as worker,
        await entered(server, room, "u") as client,
    ):
        await client.ask(last_words)
        # The next thing that the worker hears is its own answer.
        assert (await worker.ask(discover("w")))["count"] == 1


async def test_a_busy_worker_is_heard(server: SignalingServer, room: Room) -> None:
    """sleap-rtc: the server answered UNKNOWN_MESSAGE_TYPE to the worker, and the client waited."""
    async with (
        await entered(server, room, "w", **WORKER) as worker,
        await entered(server, room, "u") as client,
        await entered(server, room, "other") as other,
    ):
        busy = {
            "type": "error",
            "target": "u",
            "reason": "worker_busy",
            "message": "Worker is currently busy.",
            "current_status": "busy",
        }
        await worker.send(busy)
        assert await client.receive() == {**busy, "sender": "w"}
        assert (await other.ask({"type": "ping"})) == {"type": "pong"}
        assert (await worker.ask({**busy, "target": "gone"}))["code"] == "no_such_peer"
        assert (await worker.ask({**busy, "target": ""}))["code"] == "no_such_peer"
