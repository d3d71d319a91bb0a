"""Accounts of others at a running server: what a JWT or an API key opens, and what it does not."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fsm_worker.signaling.limits import Limits
from fsm_worker.signaling.server import CannotListen, ListenOnLoopback, SignalingServer
from fsm_worker.signaling.trust import JwtKey, Trust
from protocol.signaling import Room
from tests.signaling.peer import (
    RawPeer,
    ask_to_enter,
    discover,
    entered,
    offer,
    owner_and_room,
    register,
)
from tests.signaling.tokens import FAR, SECRET, jwt, jwt_of

#: The loop of the module's two servers.
pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = 1_800_000_000.0
API_KEY = "slp_acct_of-alice-0123456789"
ALICE = jwt({"sub": "alice", "exp": FAR})
BOB = jwt({"sub": "bob", "exp": FAR})
FORGED = jwt({"sub": "alice", "exp": FAR}, secret=b"a secret of somebody else entirely")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[SignalingServer]:
    """Checks JWTs, and knows one API key."""
    trust = Trust(jwt=JwtKey.of_secret(SECRET), api_keys={API_KEY: "alice"})
    limits = Limits(request_burst=1000.0)
    async with SignalingServer(trust=trust, limits=limits, wall=lambda: NOW) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lenient() -> AsyncIterator[SignalingServer]:
    """Takes any JWT that has not expired."""
    trust = Trust(unchecked=True)
    limits = Limits(request_burst=1000.0)
    async with SignalingServer(trust=trust, limits=limits, wall=lambda: NOW) as running:
        yield running


async def get_rooms(server: SignalingServer, bearer: str, **query: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.http_url, trust_env=False) as http:
        headers = {"Authorization": f"Bearer {bearer}"}
        return await http.get("/api/auth/rooms", headers=headers, params=query)


async def room_of(server: SignalingServer, bearer: str) -> Room:
    async with httpx.AsyncClient(base_url=server.http_url, trust_env=False) as http:
        headers = {"Authorization": f"Bearer {bearer}"}
        answer = await http.post("/create-room", headers=headers)
    return Room(**answer.json())


async def answers(server: SignalingServer, frame: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What a new connection hears when it says this first."""
    async with await RawPeer.connect(server, **options) as peer:
        return await peer.ask(frame)


async def test_a_jwt_opens_a_room_that_an_anonymous_worker_made(
    server: SignalingServer, room: Room
) -> None:
    """sleap-rtc's API names a room and a JWT, and has no token of the room."""
    properties = {"status": "available", "gpu_memory_mb": 8000}
    metadata = {"tags": ["sleap-rtc"], "properties": properties}
    async with (
        await entered(server, room, "w", role="worker", metadata=metadata) as worker,
        await RawPeer.connect(server) as client,
    ):
        frame = ask_to_enter("api-train-1", room_id=room.room_id, role="client", jwt=ALICE)
        answer = await client.ask(frame)
        assert (answer["type"], answer["room_id"]) == ("registered_auth", room.room_id)
        found = await client.ask(
            discover("api-train-1", role="worker", room_id=room.room_id, tags=["sleap-rtc"])
        )
        assert [peer["peer_id"] for peer in found["peers"]] == ["w"]
        await client.send(offer("api-train-1", "w"))
        assert (await worker.receive())["sender"] == "api-train-1"


async def test_an_empty_token_is_none(server: SignalingServer, room: Room) -> None:
    """sleap-rtc's room list probes rooms with an empty token beside its JWT."""
    frame = ask_to_enter("probe", room_id=room.room_id, token="", role="client", jwt=ALICE)
    assert (await answers(server, frame))["type"] == "registered_auth"


@pytest.mark.parametrize(
    ("credentials", "code"),
    [
        ({"jwt": FORGED}, "not_authenticated"),
        ({"jwt": jwt({"sub": "alice", "exp": NOW})}, "not_authenticated"),
        ({"jwt": jwt({"sub": "alice"})}, "not_authenticated"),
        ({"jwt": "x.y.z"}, "not_authenticated"),
        ({"api_key": "slp_acct_of-somebody-else"}, "not_authenticated"),
        ({"jwt": ALICE, "token": "wrong"}, "wrong_token"),
        ({"api_key": API_KEY, "token": "wrong"}, "wrong_token"),
    ],
)
async def test_what_proves_nothing_opens_nothing(
    server: SignalingServer, room: Room, credentials: dict[str, str], code: str
) -> None:
    refused = await answers(server, ask_to_enter("c", room_id=room.room_id, **credentials))
    assert (refused["type"], refused["code"]) == ("error", code)
    assert refused["message"]


async def test_a_jwt_that_is_not_believed_does_not_spoil_a_good_token(
    server: SignalingServer, room: Room
) -> None:
    """sleap-rtc sends the JWT of its own account wherever it goes."""
    for credentials in ({"jwt": FORGED}, {"api_key": "slp_acct_of-somebody-else"}):
        answer = await answers(server, register(room, "c", **credentials))
        assert answer["type"] == "registered_auth"


async def test_a_public_key_of_the_operator_checks_the_jwts() -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    trust = Trust(jwt=JwtKey("EdDSA", key.public_key(), None))
    async with SignalingServer(trust=trust) as server:
        _, room = await owner_and_room(server)
        for signer, answered in ((other, "error"), (key, "registered_auth")):
            token = jwt_of(signer, {"sub": "alice", "exp": FAR})
            frame = ask_to_enter("c", room_id=room.room_id, jwt=token)
            assert (await answers(server, frame))["type"] == answered


async def test_a_room_of_an_account_opens_for_it_and_for_whom_the_token_let_in_before(
    server: SignalingServer,
) -> None:
    room = await room_of(server, ALICE)
    for name, credentials in (("a", {"jwt": ALICE}), ("k", {"api_key": API_KEY})):
        answer = await answers(server, ask_to_enter(name, room_id=room.room_id, **credentials))
        assert answer["token"] == room.token
    alone = ask_to_enter("b", room_id=room.room_id, jwt=BOB)
    assert (await answers(server, alone))["code"] == "wrong_token"
    assert (await answers(server, {**alone, "token": room.token}))["type"] == "registered_auth"
    assert (await answers(server, alone))["type"] == "registered_auth"


async def test_a_worker_with_an_api_key_alone_is_told_its_room(server: SignalingServer) -> None:
    """sleap-rtc's worker; it says the same again, on new connections, and finds its room."""
    rooms = set()
    frame = ask_to_enter(
        "w", api_key=API_KEY, role="worker", is_admin=True, metadata={"tags": ["sleap-rtc"]}
    )
    for _ in range(2):
        answer = await answers(server, frame)
        assert (answer["type"], answer["peer_id"]) == ("registered_auth", "w")
        rooms.add(answer["room_id"])
    assert len(rooms) == 1
    assert (await answers(server, ask_to_enter("c", jwt=ALICE)))["code"] == "room_not_found"


async def test_the_credentials_of_a_peer_are_shown_to_no_other(
    server: SignalingServer, room: Room
) -> None:
    """sleap-rtc: the key that a worker registered with was returned to every peer."""
    heard = []
    async with (
        await RawPeer.connect(server) as worker,
        await RawPeer.connect(server) as client,
    ):
        frame = ask_to_enter(
            "w", room_id=room.room_id, api_key=API_KEY, metadata={"properties": {"x": 1}}
        )
        heard.append(await worker.ask(frame))
        heard.append(await client.ask(register(room, "c", jwt=BOB)))
        heard.append(await client.ask(discover("c")))
        heard.append(await worker.ask(discover("w")))
        await worker.send(offer("w", "c"))
        heard.append(await client.receive())
    heard.append((await get_rooms(server, BOB)).json())
    assert heard[1]["peer_metadata"] == {"w": {"tags": [], "properties": {"x": 1}}}
    assert API_KEY not in json.dumps(heard)
    assert BOB not in json.dumps(heard)
    assert room.token not in json.dumps(heard[2:])


async def test_an_account_takes_over_its_own_registration_and_no_other(
    server: SignalingServer, room: Room
) -> None:
    """sleap-rtc's client has its user's name as its peer id, so a second one is the same peer."""
    async with (
        await entered(server, room, "w") as worker,
        await entered(server, room, "alice", jwt=ALICE) as old,
    ):
        for thief in ({"jwt": BOB}, {"jwt": FORGED}, {}):
            refused = await answers(server, register(room, "alice", **thief))
            assert refused["code"] == "peer_id_taken"
        async with await entered(server, room, "alice", jwt=ALICE) as new:
            assert (await old.receive())["code"] == "superseded"
            assert await old.close_code() == 4001
            await worker.send(offer("w", "alice"))
            assert (await new.receive())["type"] == "offer"
            found = await worker.ask(discover("w"))
            assert [peer["peer_id"] for peer in found["peers"]] == ["alice"]


async def test_a_caller_is_told_its_rooms_and_no_others(server: SignalingServer) -> None:
    carol, dave = (jwt({"sub": name, "exp": FAR}) for name in ("carol", "dave"))
    own = await room_of(server, carol)
    _, joined = await owner_and_room(server)
    _, foreign = await owner_and_room(server)
    async with await entered(server, joined, "c", jwt=carol):
        answer = await get_rooms(server, carol, sort_by="role", sort_order="desc")
        assert answer.status_code == 200
        assert answer.json() == {
            "rooms": [
                {
                    "room_id": own.room_id,
                    "name": own.room_id,
                    "role": "owner",
                    "created_by": "carol",
                    "joined_at": NOW,
                    "expires_at": pytest.approx(NOW + 7200.0, abs=60.0),
                },
                {
                    "room_id": joined.room_id,
                    "name": joined.room_id,
                    "role": "member",
                    "created_by": answer.json()["rooms"][1]["created_by"],
                    "joined_at": NOW,
                    "expires_at": None,
                },
            ]
        }
        assert answer.json()["rooms"][1]["created_by"].startswith("anonymous-")
    for room in (own, joined, foreign):
        assert room.token not in answer.text
    assert (await get_rooms(server, dave)).json() == {"rooms": []}


async def test_the_list_of_rooms_is_filtered_and_sorted_in_sleap_rtcs_words(
    server: SignalingServer,
) -> None:
    erin = jwt({"sub": "erin", "exp": FAR})
    own = {(await room_of(server, erin)).room_id for _ in range(3)}

    async def ids(**query: str) -> list[str]:
        return [
            room["room_id"] for room in (await get_rooms(server, erin, **query)).json()["rooms"]
        ]

    assert await ids(sort_by="name", sort_order="asc") == sorted(own)
    assert await ids(sort_by="name", sort_order="desc") == sorted(own, reverse=True)
    assert set(await ids(role="owner", sort_by="expires_at")) == own
    assert await ids(role="member") == []
    first = min(own)
    assert await ids(search=first[2:].upper()) == [first]
    for query in ({"role": "king"}, {"sort_by": "token"}, {"sort_order": "up"}):
        refused = await get_rooms(server, erin, **query)
        assert (refused.status_code, refused.json()["code"]) == (400, "malformed")


async def test_the_list_of_rooms_takes_a_proof(server: SignalingServer) -> None:
    for bearer in (FORGED, "x", "anonymous-1.0000", "slp_acct_of-somebody-else"):
        refused = await get_rooms(server, bearer)
        assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
        assert refused.json()["error"]
    assert (await get_rooms(server, API_KEY)).status_code == 200  # its command line sends this one


async def test_any_unexpired_jwt_opens_a_room_where_the_operator_says_so(
    lenient: SignalingServer,
) -> None:
    _, room = await owner_and_room(lenient)
    for token in (ALICE, FORGED, jwt({"username": "u"})):
        frame = ask_to_enter("c", room_id=room.room_id, jwt=token)
        assert (await answers(lenient, frame))["type"] == "registered_auth"
    for token in ("x.y.z", jwt({"sub": "alice", "exp": NOW})):
        frame = ask_to_enter("c", room_id=room.room_id, jwt=token)
        assert (await answers(lenient, frame))["code"] == "not_authenticated"
    listed = (await get_rooms(lenient, FORGED)).json()["rooms"]
    assert [(entry["room_id"], entry["role"]) for entry in listed] == [(room.room_id, "member")]


@pytest.mark.parametrize(
    "header", [{"Origin": "https://evil.example"}, {"X-Forwarded-For": "192.0.2.1"}]
)
async def test_an_unchecked_jwt_by_a_browser_or_a_proxy_opens_nothing(
    lenient: SignalingServer, header: dict[str, str]
) -> None:
    """A web page reaches every port of this machine, and writes itself a JWT."""
    _, room = await owner_and_room(lenient)
    frame = ask_to_enter("c", room_id=room.room_id, jwt=ALICE)
    refused = await answers(lenient, frame, additional_headers=header)
    assert refused["code"] == "not_authenticated"
    assert "browser" in refused["message"]
    with_token = await answers(lenient, register(room, "c", jwt=ALICE), additional_headers=header)
    assert with_token["type"] == "registered_auth"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - refused, which is the law
async def test_unchecked_jwts_and_other_machines_do_not_go_together(host: str) -> None:
    with pytest.raises(ListenOnLoopback, match=r"listen on 127\.0\.0\.1, or name the key"):
        try:
            await SignalingServer(host, trust=Trust(unchecked=True)).__aenter__()
        except CannotListen as error:
            if host != "::" or isinstance(error, ListenOnLoopback):
                raise
            pytest.skip("this machine has no IPv6")


async def test_a_server_without_the_setting_takes_no_jwt_and_no_api_key_and_says_so() -> None:
    async with SignalingServer() as server:
        _, room = await owner_and_room(server)
        for credentials in ({"jwt": ALICE}, {"api_key": API_KEY}):
            frame = ask_to_enter("c", room_id=room.room_id, **credentials)
            refused = await answers(server, frame)
            assert refused["code"] == "not_authenticated"
            assert "operator" in refused["message"]
        assert (await get_rooms(server, ALICE)).status_code == 401


async def test_no_credential_of_an_account_is_logged_at_any_level(
    server: SignalingServer, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (None, "uvicorn", "uvicorn.error", "fsm_worker"):
        caplog.set_level("DEBUG", logger=name)
    async with await entered(server, room, "alice", jwt=ALICE):
        frame = ask_to_enter("w", room_id=room.room_id, api_key=API_KEY)
        assert (await answers(server, frame))["type"] == "registered_auth"
    await answers(server, ask_to_enter("c", room_id=room.room_id, jwt=FORGED))
    await get_rooms(server, ALICE)
    mine = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("fsm_worker"))
    assert "registered in room" in mine
    for secret in (ALICE, FORGED, API_KEY, room.token):
        assert secret not in mine
        assert secret.rpartition(".")[2] not in mine
