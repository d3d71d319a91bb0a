"""What peers on real sockets get from a running server."""

import json
import logging

import pytest

from fsm_worker.seams.signaling_socket import SignalingSocket, SignalingUnreachable, sign_in
from fsm_worker.signaling.limits import Limits
from fsm_worker.signaling.server import SignalingServer
from protocol.signaling import MAX_FRAME, IceServer, Room, SignIn
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

#: The loop of the module's one server.
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_offer_answer_and_messages_arrive_unchanged(
    server: SignalingServer, room: Room
) -> None:
    """Fields that this server does not know included: sleap-rtc puts a `role` into its offer."""
    async with (
        await entered(server, room, "worker-1", role="worker") as worker,
        await entered(server, room, "client-1", role="client") as client,
    ):
        for frame in (
            {**offer("client-1", "worker-1", 'v=0\r\na=é😀 \\ "\r\n'), "role": "client"},
            offer("client-1", "worker-1", {"type": "offer", "sdp": "v=0"}),
            {
                "type": "candidate",
                "sender": "client-1",
                "target": "worker-1",
                "candidate": {"candidate": "candidate:1", "sdpMLineIndex": 0},
            },
            {
                "type": "peer_message",
                "from_peer_id": "client-1",
                "to_peer_id": "worker-1",
                "payload": {"app_message_type": "job_request", "n": [1, 2.5, None, True]},
            },
        ):
            await client.send(frame)
            assert await worker.receive() == frame
        answer = {"type": "answer", "sender": "worker-1", "target": "client-1", "sdp": "v=0"}
        await worker.send(answer)
        assert await client.receive() == answer


async def test_a_refusal_of_a_worker_reaches_the_client_with_its_true_sender(
    server: SignalingServer, room: Room
) -> None:
    """sleap-rtc: the client never heard "busy", the server knew no such message."""
    async with (
        await entered(server, room, "worker-1", role="worker") as worker,
        await entered(server, room, "client-1") as client,
    ):
        busy = {
            "type": "error",
            "target": "client-1",
            "reason": "worker_busy",
            "message": "later",
            "current_status": "busy",
        }
        await worker.send(busy)
        assert await client.receive() == {**busy, "sender": "worker-1"}
        forged = await worker.ask({**busy, "sender": "somebody"})
        assert forged["code"] == "forged_sender"


@pytest.mark.parametrize(
    "frame",
    [
        offer("worker-1", "client-2"),
        offer("", "client-2"),
        {"type": "answer", "sender": "worker-1", "target": "client-2", "sdp": ""},
        {"type": "candidate", "target": "client-2", "candidate": {}},
        {
            "type": "peer_message",
            "from_peer_id": "worker-1",
            "to_peer_id": "client-2",
            "payload": {},
        },
        {"type": "update_metadata", "peer_id": "worker-1", "metadata": {"properties": {"x": 1}}},
        discover("worker-1"),
    ],
    ids=lambda frame: frame["type"],
)
async def test_a_claimed_name_that_is_not_the_connections_own_has_no_effect(
    server: SignalingServer, room: Room, frame: dict[str, object]
) -> None:
    """sleap-rtc: any peer could mark another one busy, or speak for it."""
    async with (
        await entered(server, room, "worker-1", metadata={"properties": {"x": 0}}),
        await entered(server, room, "client-2") as victim,
        await entered(server, room, "client-1") as forger,
    ):
        refused = await forger.ask(frame)
        assert (refused["type"], refused["code"]) == ("error", "forged_sender")
        # The next thing that the victim hears is its own answer: nothing was forwarded.
        listed = await victim.ask(discover("client-2", role="peer"))
        assert listed["type"] == "peer_list"
        assert listed["peers"][0]["metadata"]["properties"] == {"x": 0}


async def test_a_second_meaning_of_a_repeated_key_is_not_forwarded(
    server: SignalingServer, room: Room
) -> None:
    """A parser that takes the first of two keys must not read another sender than was checked."""
    async with (
        await entered(server, room, "a") as target,
        await entered(server, room, "b") as forger,
    ):
        await forger.send('{"type":"offer","sender":"x","target":"a","sdp":"","sender":"b"}')
        pairs = json.loads(await target.connection.recv(), object_pairs_hook=list)
        assert [value for key, value in pairs if key == "sender"] == ["b"]


async def test_registering_takes_the_rooms_token(server: SignalingServer, room: Room) -> None:
    other = await owner_and_room(server)
    stranger = await sign_in(server.http_url)
    async with await RawPeer.connect(server) as peer:
        for change, code in (
            ({"token": "wrong"}, "wrong_token"),
            ({"token": other[1].token}, "wrong_token"),
            ({"token": None, "id_token": stranger.id_token}, "wrong_token"),
            ({"token": None}, "not_authenticated"),
            ({"token": None, "jwt": "x.y.z"}, "not_authenticated"),
            ({"token": None, "api_key": "slp_x"}, "not_authenticated"),
            ({"id_token": "forged"}, "not_authenticated"),
            ({"room_id": "nowhere"}, "room_not_found"),
            ({"room_id": None}, "room_not_found"),
            ({"peer_id": ""}, "malformed"),
        ):
            refused = await peer.ask({**register(room, "a"), **change})
            assert (refused["type"], refused["code"]) == ("error", code), change
            assert refused["reason"] == code
        assert (await peer.ask(offer("a", "b")))["code"] == "not_registered"
        assert (await peer.ask(register(room, "a")))["type"] == "registered_auth"


async def test_who_made_the_room_registers_with_the_id_token_alone(
    server: SignalingServer, owner_room: tuple[SignIn, Room]
) -> None:
    owner, room = owner_room
    async with await RawPeer.connect(server) as peer:
        answer = await peer.ask(register(room, "w", token=None, id_token=owner.id_token))
    assert (answer["type"], answer["token"]) == ("registered_auth", room.token)


async def test_registering_tells_who_is_there_and_the_ice_servers_but_no_credentials() -> None:
    """sleap-rtc: the key that a worker registered with was returned to every peer."""
    turn = IceServer(urls=("turn:127.0.0.1",), username="u", credential="p")
    async with SignalingServer(ice_servers=[turn]) as server:
        owner, room = await owner_and_room(server)
        published = {"tags": ["sleap-rtc"], "properties": {"status": "available"}}
        async with (
            await entered(server, room, "w", id_token=owner.id_token, metadata=published),
            await RawPeer.connect(server) as client,
        ):
            answer = await client.ask(register(room, "c"))
            listed = await client.ask(discover("c"))
    assert answer == {
        "type": "registered_auth",
        "room_id": room.room_id,
        "token": room.token,
        "peer_id": "c",
        "admin_peer_id": None,
        "peer_list": ["w"],
        "peer_metadata": {"w": published},
        "ice_servers": [{"urls": ["turn:127.0.0.1"], "username": "u", "credential": "p"}],
        "mesh_ice_servers": [],
    }
    assert owner.id_token not in json.dumps([answer, listed])
    assert room.token not in json.dumps(listed)


async def test_discovery_lists_the_others_that_the_filters_let_pass(
    server: SignalingServer, room: Room
) -> None:
    worker = {"tags": ["sleap-rtc"], "properties": {"status": "available", "gpu_memory_mb": 8000}}
    async with (
        await entered(server, room, "w", role="worker", metadata=worker),
        await entered(server, room, "c", role="client") as client,
    ):
        wanted = {
            "role": "worker",
            "room_id": room.room_id,
            "tags": ["sleap-rtc"],
            "properties": {"status": "available", "gpu_memory_mb": {"$gte": 8000}},
        }
        found = await client.ask(discover("c", **wanted))
        peer = found["peers"][0]
        assert isinstance(peer.pop("connected_at"), float)
        assert found == {
            "type": "peer_list",
            "to_peer_id": "c",
            "peers": [{"peer_id": "w", "role": "worker", "metadata": worker}],
            "count": 1,
        }
        wanted["properties"] = {"gpu_memory_mb": {"$gte": 8001}}
        assert (await client.ask(discover("c", **wanted)))["count"] == 0
        assert (await client.ask(discover("c", room_id="other")))["code"] == "not_in_room"


async def test_metadata_is_merged_and_seen_by_others(server: SignalingServer, room: Room) -> None:
    first = {"tags": ["a"], "properties": {"status": "available", "x": 1}}
    async with (
        await entered(server, room, "w", metadata=first) as worker,
        await entered(server, room, "c") as client,
    ):
        change = {"tags": ["b"], "properties": {"status": "busy"}}
        updated = await worker.ask({"type": "update_metadata", "peer_id": "w", "metadata": change})
        merged = {"tags": ["a", "b"], "properties": {"status": "busy", "x": 1}}
        assert updated == {"type": "metadata_updated", "metadata": merged}
        assert (await client.ask(discover("c")))["peers"][0]["metadata"] == merged


async def test_registering_again_on_the_same_connection_replaces_the_metadata(
    server: SignalingServer, room: Room
) -> None:
    """sleap-rtc's worker does so when it is free again, without room and token."""
    async with (
        await entered(server, room, "w", metadata={"tags": ["a"]}) as worker,
        await entered(server, room, "c") as client,
    ):
        again = {"type": "register", "peer_id": "w", "role": "worker", "metadata": {"tags": ["b"]}}
        assert (await worker.ask(again))["room_id"] == room.room_id
        seen = (await client.ask(discover("c")))["peers"]
        assert [(p["role"], p["metadata"]["tags"]) for p in seen] == [("worker", ["b"])]
        for other in ({"peer_id": "x"}, {"room_id": "elsewhere"}):
            refused = await worker.ask({**again, **other})
            assert refused["code"] == "already_registered"


async def test_a_peer_id_is_not_taken_over_by_another(server: SignalingServer, room: Room) -> None:
    thief = await sign_in(server.http_url)
    async with (
        await entered(server, room, "w") as worker,
        await RawPeer.connect(server) as other,
        await entered(server, room, "c") as client,
    ):
        for identity in ({}, {"id_token": thief.id_token}):
            refused = await other.ask(register(room, "w", **identity))
            assert refused["code"] == "peer_id_taken"
        await client.send(offer("c", "w"))
        assert (await worker.receive())["sender"] == "c"


async def test_the_same_user_takes_over_and_the_late_close_of_the_old_socket_removes_nothing(
    server: SignalingServer, room: Room
) -> None:
    """sleap-rtc: the late close of an old socket deleted the new registration."""
    user = await sign_in(server.http_url)
    async with (
        await entered(server, room, "w", id_token=user.id_token) as old,
        await entered(server, room, "c") as client,
        await entered(server, room, "w", id_token=user.id_token) as new,
    ):
        assert (await old.receive())["code"] == "superseded"
        assert await old.close_code() == 4001
        await client.send(offer("c", "w"))
        assert (await new.receive())["type"] == "offer"
        assert [p["peer_id"] for p in (await client.ask(discover("c")))["peers"]] == ["w"]


async def test_an_offer_may_follow_the_registration_without_waiting(
    server: SignalingServer, room: Room
) -> None:
    """sleap-rtc's track client does so, and names neither a role nor metadata."""
    async with await entered(server, room, "w") as worker, await RawPeer.connect(server) as client:
        await client.send(register(room, "c", jwt="x.y.z"))
        await client.send(offer("c", "w"))
        assert await worker.receive() == offer("c", "w")
        assert (await client.receive())["type"] == "registered_auth"


async def test_a_peer_that_left_is_gone_and_its_name_free(
    server: SignalingServer, room: Room
) -> None:
    async with await entered(server, room, "c") as client:
        async with await entered(server, room, "w"):
            pass
        assert (await client.ask(offer("c", "w")))["code"] == "no_such_peer"
        async with await entered(server, room, "w"):
            assert (await client.ask(discover("c")))["count"] == 1


async def test_what_means_nothing_is_answered_and_the_connection_lives_on(
    server: SignalingServer, room: Room
) -> None:
    """sleap-rtc: one bad frame ended the loop of the server for that peer."""
    async with await entered(server, room, "a") as peer:
        for frame, code in (
            ("", "malformed"),
            ("{", "malformed"),
            (b"\xff\x00", "malformed"),
            ("[" * 5000, "too_deep"),
            ('{"type":"quit"}', "unknown_type"),
            ('{"type":"registered_auth"}', "unknown_type"),
            ("x" * (MAX_FRAME + 1), "too_large"),
        ):
            assert (await peer.ask(frame))["code"] == code
        assert await peer.ask(json.dumps({"type": "ping"}).encode()) == {"type": "pong"}
        await peer.send({"type": "pong"})
        assert await peer.ask({"type": "ping"}) == {"type": "pong"}


async def test_a_frame_beyond_all_bounds_ends_its_own_connection_only(
    server: SignalingServer, room: Room
) -> None:
    async with (
        await entered(server, room, "a") as rude,
        await entered(server, room, "b") as other,
    ):
        await rude.send("x" * (5 * MAX_FRAME))
        assert await rude.close_code() == 1009
        assert await other.ask({"type": "ping"}) == {"type": "pong"}


async def test_too_many_messages_are_refused_not_forwarded() -> None:
    async with SignalingServer(limits=Limits(message_rate=0.001, message_burst=3.0)) as server:
        _, room = await owner_and_room(server)
        async with await entered(server, room, "a") as peer:
            answers = [await peer.ask({"type": "ping"}) for _ in range(4)]
    assert [a.get("code", "pong") for a in answers] == ["pong"] * 2 + ["rate_limited"] * 2


async def test_a_peer_that_does_not_read_is_cut_off_and_nobody_waits_for_it() -> None:
    async with SignalingServer(limits=Limits(outgoing_length=500_000)) as server:
        _, room = await owner_and_room(server)
        reader, writer = await deaf_peer(server, register(room, "deaf"))
        async with await entered(server, room, "b") as other:
            listed = 1
            for _ in range(150):
                await other.send(offer("b", "deaf", "x" * 200_000))
                listed = (await other.ask(discover("b")))["count"]
                if not listed:
                    break
            assert listed == 0
            assert (await other.ask(offer("b", "deaf")))["code"] == "no_such_peer"
            await read_to_the_end(reader)
            assert await other.ask({"type": "ping"}) == {"type": "pong"}
        writer.close()


async def test_a_peer_that_does_not_read_its_own_replies_is_cut_off() -> None:
    async with SignalingServer(limits=Limits(outgoing_length=2000)) as server:
        _, room = await owner_and_room(server)
        large = {"properties": {"x": "y" * 4000}}
        async with (
            await entered(server, room, "a") as asker,
            await entered(server, room, "b", metadata=large) as other,
        ):
            await asker.send(discover("a"))
            assert await asker.close_code() == 1006
            assert (await other.ask(discover("b")))["count"] == 0


async def test_a_burst_in_one_piece_does_not_cut_off_a_peer_that_reads() -> None:
    """Frames that arrive together are handled without a pause, faster than any queue drains."""
    limits = Limits(outgoing_messages=4)
    async with SignalingServer(limits=limits) as server:
        _, room = await owner_and_room(server)
        async with (
            await entered(server, room, "a") as reader,
            await entered(server, room, "b") as sender,
        ):
            for number in range(100):
                await sender.send(offer("b", "a", str(number)))
            assert [(await reader.receive())["sdp"] for _ in range(100)] == [
                str(number) for number in range(100)
            ]


async def test_who_never_registers_does_not_stay() -> None:
    async with (
        SignalingServer(limits=Limits(register_within_s=0.05)) as server,
        await RawPeer.connect(server) as peer,
    ):
        assert (await peer.receive())["code"] == "not_registered"
        assert await peer.close_code() == 4003


async def test_who_registered_stays_beyond_the_time_to_register() -> None:
    limits = Limits(register_within_s=0.2, ping_every_s=0.3)
    async with SignalingServer(limits=limits) as server:
        _, room = await owner_and_room(server)
        async with await entered(server, room, "a") as peer:
            assert await peer.receive() == {"type": "ping"}
            assert await peer.ask({"type": "ping"}) == {"type": "pong"}


async def test_connections_are_bounded() -> None:
    async with (
        SignalingServer(limits=Limits(connections=1)) as server,
        await RawPeer.connect(server),
    ):
        with pytest.raises(SignalingUnreachable, match="503"):
            await SignalingSocket.connect(server.ws_url)


async def test_no_secret_and_no_payload_is_logged_at_any_level(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in (None, "uvicorn", "uvicorn.error", "websockets", "httpx", "httpcore", "fsm_worker"):
        caplog.set_level(logging.DEBUG, logger=name)
    bearer = {"Authorization": "Bearer jwt-in-a-header"}
    async with SignalingServer() as server:
        owner, room = await owner_and_room(server)
        async with (
            await RawPeer.connect(server, additional_headers=bearer, logger=_silent()) as worker,
            await SignalingSocket.connect(server.ws_url) as client,
        ):
            await worker.ask(register(room, "w", id_token=owner.id_token, jwt="jwt-in-a-frame"))
            await worker.ask({**register(room, "w"), "token": 7, "id_token": "in-a-bad-frame"})
            await worker.ask(register(room, "x", token="a-wrong-token"))
            await worker.ask("no-json-at-all")
            await worker.send({"type": "error", "target": "w", "message": "said-in-an-error"})
            await worker.receive()
            await worker.ask(offer("w", "w", "an-sdp"))
            payload = {"x": "a-payload"}
            await worker.ask(
                {"type": "peer_message", "from_peer_id": "w", "to_peer_id": "w", "payload": payload}
            )
            await client.close()
    assert "registered in room" in caplog.text
    for secret in (
        owner.id_token,
        room.token,
        "jwt-in-a-header",
        "jwt-in-a-frame",
        "in-a-bad-frame",
        "a-wrong-token",
        "no-json-at-all",
        "said-in-an-error",
        "an-sdp",
        "a-payload",
    ):
        assert secret not in caplog.text


def _silent() -> logging.Logger:
    """For the test's own client, whose log is not the product's."""
    logger = logging.getLogger("tests.signaling.silent")
    logger.setLevel(logging.CRITICAL)
    return logger


async def test_a_mistake_that_is_repeated_is_logged_once(
    server: SignalingServer, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with await entered(server, room, "a") as peer:
        for _ in range(20):
            await peer.ask("{")
    assert caplog.text.count("malformed") == 1
