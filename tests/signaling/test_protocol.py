"""Signaling frames: decoding is total, what comes out is what went in, secrets do not show."""

import json
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.signaling import (
    MAX_DEPTH,
    MAX_FRAME,
    Answer,
    Candidate,
    DiscoverPeers,
    Error,
    Filters,
    FromPeer,
    FromServer,
    IceServer,
    Metadata,
    MetadataUpdated,
    Offer,
    PeerInfo,
    PeerList,
    PeerMessage,
    Ping,
    Pong,
    Register,
    RegisteredAuth,
    Room,
    SignalingCode,
    SignalingRefused,
    SignIn,
    UpdateMetadata,
    canonical,
    decode_from_peer,
    decode_from_server,
    encode,
)

METADATA = Metadata(tags=("a", "b"), properties={"status": "available", "gpu_memory_mb": 1})
FROM_PEER = [
    Register(peer_id="w", room_id="r", token="t", id_token="i", role="worker", metadata=METADATA),
    UpdateMetadata(peer_id="w", metadata=METADATA),
    DiscoverPeers(from_peer_id="c", filters=Filters(role="worker", properties={"x": {"$gte": 2}})),
    Offer(sender="c", target="w", sdp="v=0\r\n"),
    Answer(sender="w", target="c", sdp={"type": "answer", "sdp": "v=0\r\n"}),
    Candidate(sender="c", target="w", candidate={"candidate": "candidate:1 1 udp"}),
    PeerMessage(from_peer_id="c", to_peer_id="w", payload={"app_message_type": "job_request"}),
    Error(target="c", reason="worker_busy", message="later", current_status="busy"),
    Ping(),
    Pong(),
]
FROM_SERVER = [
    RegisteredAuth(
        room_id="r",
        token="t",
        peer_id="w",
        peer_list=("c",),
        peer_metadata={"c": METADATA},
        ice_servers=(IceServer(urls="stun:127.0.0.1"), IceServer(urls=("turn:x",), username="u")),
    ),
    MetadataUpdated(metadata=METADATA),
    PeerList(
        to_peer_id="c",
        peers=(PeerInfo(peer_id="w", role="worker", metadata=METADATA, connected_at=1.5),),
        count=1,
    ),
    *FROM_PEER[3:],
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TAGS = sorted(
    str(kind.__struct_config__.tag) for kind in {*get_args(FromPeer), *get_args(FromServer)}
)


@pytest.mark.parametrize("message", FROM_PEER, ids=lambda m: type(m).__name__)
def test_what_a_peer_says_arrives_as_it_was_said(message: FromPeer) -> None:
    assert decode_from_peer(encode(message)) == message
    assert decode_from_peer(encode(message).encode()) == message


@pytest.mark.parametrize("message", FROM_SERVER, ids=lambda m: type(m).__name__)
def test_what_a_server_says_arrives_as_it_was_said(message: FromServer) -> None:
    assert decode_from_server(encode(message)) == message


def test_the_samples_hold_every_message() -> None:
    assert {type(m) for m in FROM_PEER} == set(get_args(FromPeer))
    assert {type(m) for m in FROM_SERVER} == set(get_args(FromServer))


@settings(deadline=None)  # a busy machine is no finding
@given(st.binary() | st.text())
def test_decoding_arbitrary_input_gives_a_message_or_a_refusal(data: str | bytes) -> None:
    assert_total(data)


@settings(deadline=None)  # a busy machine is no finding
@given(
    st.sampled_from(TAGS),
    st.dictionaries(
        st.text()
        | st.sampled_from(
            [
                "peer_id",
                "sender",
                "target",
                "sdp",
                "payload",
                "metadata",
                "filters",
                "peers",
                "token",
            ]
        ),
        JSON_VALUES,
        max_size=6,
    ),
)
def test_decoding_known_types_with_arbitrary_fields_gives_a_message_or_a_refusal(
    tag: str, fields: dict[str, Any]
) -> None:
    assert_total(json.dumps({"type": tag, **fields}))
    assert_total(json.dumps({**fields, "type": tag}, ensure_ascii=False))


def assert_total(data: str | bytes) -> None:
    for decode in (decode_from_peer, decode_from_server):
        try:
            message = decode(data)
        except SignalingRefused as refusal:
            assert refusal.code in {
                SignalingCode.MALFORMED,
                SignalingCode.UNKNOWN_TYPE,
                SignalingCode.TOO_DEEP,
            }
        else:
            assert decode(encode(message)) == message


@settings(deadline=None)  # a busy machine is no finding
@given(JSON_VALUES)
def test_the_canonical_form_is_the_same_value_and_final(value: Any) -> None:
    text = json.dumps(value)
    try:
        once = canonical(text)
    except SignalingRefused as refusal:
        assert refusal.code is SignalingCode.MALFORMED
    else:
        assert json.loads(once) == value
        assert canonical(once) == once


def test_a_repeated_key_has_one_meaning_after_canonical() -> None:
    twice = '{"type":"offer","sender":"me","target":"w","sdp":"x","sender":"victim"}'
    assert canonical(twice).count('"sender"') == 1
    assert decode_from_peer(canonical(twice)) == Offer(sender="victim", target="w", sdp="x")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("", "malformed"),
        ("[]", "malformed"),
        ("null", "malformed"),
        ("{}", "malformed"),
        ('{"type":7}', "malformed"),
        ('{"type":"offer"}', "malformed"),
        ('{"type":"offer","sender":1,"target":"w","sdp":""}', "malformed"),
        (b"\xff\xfe", "malformed"),
        ('{"type":"offer","sender":"\ud800","target":"w","sdp":""}', "malformed"),
        ('{"type":"quit"}', "unknown_type"),
        ('{"type":"mesh_offer","offer":{}}', "unknown_type"),
        ("x" * (MAX_FRAME + 1), "too_large"),
        ("é" * (MAX_FRAME // 2 + 1), "too_large"),
        (b" " * (MAX_FRAME + 1), "too_large"),
        ("[" * (MAX_DEPTH + 1), "too_deep"),
        ("[" * 100_000, "too_deep"),
    ],
)
def test_what_means_nothing_is_refused_with_its_code(data: str | bytes, code: str) -> None:
    for decode in (decode_from_peer, decode_from_server):
        with pytest.raises(SignalingRefused) as refused:
            decode(data)
        assert refused.value.code == code
        assert len(refused.value.sentence) < 300


def test_a_type_of_the_other_direction_is_unknown() -> None:
    with pytest.raises(SignalingRefused) as refused:
        decode_from_peer('{"type":"registered_auth"}')
    assert refused.value.code is SignalingCode.UNKNOWN_TYPE


def test_depth_is_counted_outside_strings_only() -> None:
    brackets = "[{" * 500 + '\\"' * 50 + "\\\\"
    frame = {"type": "offer", "sender": brackets, "target": "w", "sdp": brackets}
    assert decode_from_peer(json.dumps(frame)) == Offer(sender=brackets, target="w", sdp=brackets)


def test_the_deepest_allowed_frame_is_read() -> None:
    levels = MAX_DEPTH - 2  # the frame itself and its payload
    inner: Any = []
    for _ in range(levels - 1):
        inner = [inner]
    frame = {
        "type": "peer_message",
        "from_peer_id": "a",
        "to_peer_id": "b",
        "payload": {"x": inner},
    }
    decode_from_peer(json.dumps(frame))
    frame["payload"] = {"x": [inner]}
    with pytest.raises(SignalingRefused, match="too_deep"):
        decode_from_peer(json.dumps(frame))


@pytest.mark.parametrize("hostile", ['\\"', '"', "\\", '"\\', '[""'])
def test_bounding_the_depth_takes_time_linear_in_the_frame(hostile: str) -> None:
    """A quadratic scan would take minutes here."""
    frame = "[" * (MAX_DEPTH - 1) + "{}" * 2 + hostile * ((MAX_FRAME - 100) // len(hostile))
    with pytest.raises(SignalingRefused):
        decode_from_peer(frame)


def test_unknown_fields_are_ignored() -> None:
    frame = {"type": "ping", "sent_at": 12, "nested": {"x": [1]}}
    assert decode_from_peer(json.dumps(frame)) == Ping()


def test_a_message_beyond_the_bound_is_not_encoded() -> None:
    with pytest.raises(SignalingRefused, match="too_large"):
        encode(Offer(sender="c", target="w", sdp="x" * MAX_FRAME))


@pytest.mark.parametrize("value", ["\ud800", 2**64])
def test_a_value_that_json_cannot_carry_is_refused_or_carried_whole(value: Any) -> None:
    message = PeerMessage(from_peer_id="a", to_peer_id="b", payload={"x": value})
    try:
        assert decode_from_peer(encode(message)) == message
    except SignalingRefused as refusal:
        assert refusal.code is SignalingCode.MALFORMED


@pytest.mark.parametrize(
    "secretive",
    [
        *FROM_PEER,
        *FROM_SERVER,
        SignIn(id_token="secret", username="u"),
        Room(room_id="r", token="secret"),
        IceServer(urls="turn:x", username="u", credential="secret"),
    ],
    ids=lambda m: type(m).__name__,
)
def test_no_message_shows_its_contents_in_its_repr(secretive: object) -> None:
    assert len(repr(secretive)) < 30
    assert "secret" not in repr(secretive)


def test_sleap_rtc_frames_are_read() -> None:
    """The fields that version 0.0.7 sends, nulls and unknown ones included."""
    frames: list[dict[str, Any]] = [
        {"type": "register", "peer_id": "u", "room_id": "r", "token": None, "jwt": "j"},
        {"type": "register", "peer_id": "w", "api_key": "slp_x", "role": "worker",
         "is_admin": True, "metadata": {"tags": ["sleap-rtc"], "properties": {"mounts": []}}},
        {"type": "offer", "sender": "u", "target": "w", "sdp": "v=0", "role": "client"},
        {"type": "discover_peers", "from_peer_id": "u", "filters": {
            "role": "worker", "room_id": "r", "tags": ["sleap-rtc"],
            "properties": {"status": "available", "gpu_memory_mb": {"$gte": 8000}}}},
    ]  # fmt: skip
    for frame in frames:
        assert decode_from_peer(json.dumps(frame))
