"""Laws of the native codec: golden bytes, total decoding, and how messages may evolve."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import messages as m
from protocol.codec import MAX_DEPTH, MAX_FRAME, Frame, decode, encode
from protocol.errors import ErrorCode, ProtocolError
from protocol.table import MESSAGES, ROW_OF, Direction, tag_of
from tests.protocol.samples import FRAMES, JOB, ROOT

GOLDEN = Path(__file__).parent / "golden"
SIDES = (Direction.TO_WORKER, Direction.TO_CLIENT)
PING = '{"seq":0,"ack":0,"msg":{"type":"ping","n":1}}'
#: The same examples in every run.
ordinary = settings(derandomize=True, deadline=None, max_examples=200)


def tag(frame: Frame) -> str:
    return tag_of(type(frame.msg))


def golden(name: str) -> str:
    text = (GOLDEN / f"{name}.json").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text.removesuffix("\n")


def side_of(frame: Frame) -> Direction:
    return next(side for side in SIDES if side in ROW_OF[type(frame.msg)].direction)


def refused(data: str | bytes, side: Direction = Direction.TO_WORKER) -> ErrorCode:
    with pytest.raises(ProtocolError) as caught:
        decode(data, side)
    assert len(caught.value.sentence) > 10
    return caught.value.code


every_frame = pytest.mark.parametrize("frame", FRAMES, ids=tag)

# --- golden files -----------------------------------------------------------------------------


def test_every_message_has_one_golden_file_and_every_golden_file_one_message() -> None:
    tags = [row.tag for row in MESSAGES]
    assert sorted(tag(frame) for frame in FRAMES) == sorted(tags)
    assert sorted(path.stem for path in GOLDEN.glob("*.json")) == sorted(tags)


@every_frame
def test_golden_bytes_are_written(frame: Frame) -> None:
    assert encode(frame) == golden(tag(frame))


@every_frame
def test_golden_bytes_are_read_as_text_and_as_bytes(frame: Frame) -> None:
    text = golden(tag(frame))
    for side in SIDES:
        if side in ROW_OF[type(frame.msg)].direction:
            assert decode(text, side) == frame
            assert decode(text.encode(), side) == frame


@every_frame
def test_a_golden_file_shows_every_field_of_its_message(frame: Frame) -> None:
    shown = set(json.loads(golden(tag(frame)))["msg"]) - {"type"}
    assert shown == set(frame.msg.__struct_fields__)


# --- direction, types, evolution ----------------------------------------------------------------


@every_frame
def test_a_message_that_goes_the_other_way_is_an_unknown_type(frame: Frame) -> None:
    for side in SIDES:
        if side not in ROW_OF[type(frame.msg)].direction:
            assert refused(golden(tag(frame)), side) is ErrorCode.UNKNOWN_TYPE


@pytest.mark.parametrize("kind", ["job_pause", "", "Ping", "x" * 5000])
def test_a_type_that_is_not_known_is_told_so_briefly(kind: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(json.dumps({"msg": {"type": kind}}), Direction.TO_WORKER)
    assert caught.value.code is ErrorCode.UNKNOWN_TYPE
    assert kind[:64] in caught.value.sentence
    assert len(caught.value.sentence) < 200


def strewn(value: Any) -> Any:
    """The same JSON with an unknown field in every object that is a struct."""
    if isinstance(value, dict):
        grown = {key: item if key in {"metrics", "need", "guards"} else strewn(item)
                 for key, item in value.items()}  # fmt: skip
        return grown | {"from_a_newer_peer": [{"deep": 1}]}
    return [strewn(item) for item in value] if isinstance(value, list) else value


@every_frame
def test_fields_of_newer_peers_are_ignored_at_every_level(frame: Frame) -> None:
    text = json.dumps(strewn(json.loads(golden(tag(frame)))))
    assert decode(text, side_of(frame)) == frame


@every_frame
def test_fields_that_older_peers_do_not_send_take_their_defaults(frame: Frame) -> None:
    sent = json.loads(golden(tag(frame)))
    info = msgspec.inspect.type_info(type(frame.msg))
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        if not field.required:
            del sent["msg"][field.encode_name]
    got = decode(json.dumps({"msg": sent["msg"]}), side_of(frame))
    assert (got.seq, got.ack) == (0, 0)
    required = {field.name: getattr(frame.msg, field.name) for field in info.fields
                if field.required}  # fmt: skip
    assert got.msg == type(frame.msg)(**required)


@every_frame
def test_without_a_field_that_it_needs_a_message_is_malformed(frame: Frame) -> None:
    info = msgspec.inspect.type_info(type(frame.msg))
    assert isinstance(info, msgspec.inspect.StructType)
    for field in info.fields:
        if field.required:
            sent = json.loads(golden(tag(frame)))
            del sent["msg"][field.encode_name]
            assert refused(json.dumps(sent), side_of(frame)) is ErrorCode.MALFORMED


# --- fields -------------------------------------------------------------------------------------


def submit(**fields: Any) -> str:
    message: dict[str, Any] = {
        "type": "submit",
        "job": JOB,
        "spec": {},
        "inputs": [{"name": "package.zip", "size": 1, "root": ROOT}],
    }
    return json.dumps({"msg": message | fields})


def about(kind: str, **fields: Any) -> str:
    return json.dumps({"msg": {"type": kind, **fields}})


def offer(**fields: Any) -> str:
    usual = {"transfer": 1, "job": JOB, "name": "a.zip", "size": 1, "root": ROOT}
    return about("file_offer", **usual | fields)


MALFORMED = {
    "a job id with upper case": submit(job="DIGITS-20260801"),
    "a job id with a path in it": submit(job="../../etc/passwd"),
    "a job id that is too short": submit(job="short"),
    "a job id that is too long": submit(job="x" * 65),
    "a job id that begins with a dash": submit(job="-rf-everything"),
    "a job id with a line end": submit(job=JOB + "\n"),
    "a stop of a job id with a line end": about("stop", job=JOB + "\n"),
    "a shared path of 1025 characters": submit(spec={"kind": "shared", "input": "x" * 1025}),
    "a submission with 65 inputs": submit(
        inputs=[{"name": f"{n}", "size": 1, "root": ROOT} for n in range(65)]
    ),
    "an input without a name": submit(inputs=[{"name": "", "size": 1, "root": ROOT}]),
    "an input with an endless name": submit(inputs=[{"name": "x" * 201, "size": 1, "root": ROOT}]),
    "an input of a negative size": submit(inputs=[{"name": "a", "size": -1, "root": ROOT}]),
    "an input with half a hash": submit(inputs=[{"name": "a", "size": 1, "root": ROOT[:32]}]),
    "an input whose hash is upper case": submit(
        inputs=[{"name": "a", "size": 1, "root": ROOT.upper()}]
    ),
    "a job name of 513 characters": submit(spec={"name": "x" * 513}),
    "a negative wall-clock limit": submit(policy={"wall_s": -1}),
    "an infinite wall-clock limit": submit(policy={"wall_s": 0}).replace(": 0}", ": 1e999}"),
    "a wall-clock limit that is no number": submit(policy={"wall_s": float("nan")}),
    "transfer 0": offer(transfer=0),
    "transfer 2**32": offer(transfer=2**32),
    "a file beyond any disk": offer(size=2**53 + 1),
    "chunks of one byte": offer(chunk=1),
    "chunks of one MiB": offer(chunk=2**20),
    "a hash with a line end": about("file_stored", transfer=1, root=ROOT + "\n"),
    "ranges that are no pairs": about("file_need", transfer=1, ranges=[[1, 2, 3]]),
    "a negative range": about("file_need", transfer=1, ranges=[[-1, 2]]),
    "1025 ranges": about("file_need", transfer=1, ranges=[[n, n + 1] for n in range(1025)]),
    "a log from before its start": about("log_get", job=JOB, offset=-1),
    "a number as text": about("ping", n="1"),
    "a number that is true": about("ping", n=True),
    "a session of 513 characters": about(
        "hello", versions=[1], role="client", key="k", nonce="n", session="x" * 513
    ),
    "generation -1": about(
        "hello", versions=[1], role="client", key="k", nonce="n", generation=-1
    ),
    "an error code that nobody knows": about("error", code="whatever", message="m"),
    "a negative seq": PING.replace('"seq":0', '"seq":-1'),
    "a negative ack": PING.replace('"ack":0', '"ack":-1'),
    "a fractional seq": PING.replace('"seq":0', '"seq":0.5'),
    "a message that is null": '{"msg":null}',
    "a type that is a number": '{"msg":{"type":5}}',
    "a list": "[]",
    "nothing": "",
    "half a frame": PING[:-1],
    "two frames": PING * 2,
    "a lone surrogate, escaped": about("bye", reason="") .replace('""', '"\\ud800"'),
    "a lone surrogate, raw": about("bye", reason="").replace('""', '"\ud800"'),
}  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_breaks_a_field_s_promise_is_malformed(text: str) -> None:
    assert refused(text) is ErrorCode.MALFORMED


def test_bytes_that_are_not_utf_8_are_malformed() -> None:
    for raw in (b"\xff", PING.encode("utf-16"), b'{"msg":{"type":"bye","reason":"\xff"}}'):
        assert refused(raw) is ErrorCode.MALFORMED


def test_a_frame_without_a_message_or_a_type_is_malformed() -> None:
    for text in ("{}", '{"msg":{}}', '{"seq":1,"ack":1}'):
        assert refused(text) is ErrorCode.MALFORMED


# --- bounds -------------------------------------------------------------------------------------


def test_a_frame_of_the_largest_size_is_read_and_one_byte_more_is_too_large() -> None:
    padding = MAX_FRAME - len(PING)
    assert decode(PING + " " * padding, Direction.TO_WORKER).msg == m.Ping(n=1)
    assert refused(PING + " " * (padding + 1)) is ErrorCode.TOO_LARGE


def test_size_is_counted_in_bytes_not_in_characters() -> None:
    text = about("bye", reason="").replace('""', f'"{"é" * (MAX_FRAME // 2)}"')
    assert len(text) < MAX_FRAME
    assert refused(text) is ErrorCode.TOO_LARGE


def test_a_frame_that_would_be_too_large_is_not_written() -> None:
    with pytest.raises(ProtocolError) as caught:
        encode(Frame(msg=m.Bye(reason="x" * MAX_FRAME)))
    assert caught.value.code is ErrorCode.TOO_LARGE
    assert "Bye" in caught.value.sentence


def nested(depth: int) -> str:
    return PING.replace('"n":1', '"n":1,"x":' + "[" * depth + "]" * depth)


def test_nesting_is_read_to_its_bound_and_not_deeper() -> None:
    own = 2  # the frame and its message
    assert decode(nested(MAX_DEPTH - own), Direction.TO_WORKER).msg == m.Ping(n=1)
    assert refused(nested(MAX_DEPTH - own + 1)) is ErrorCode.TOO_DEEP
    assert refused("[" * 50_000) is ErrorCode.TOO_DEEP
    assert refused('{"a":' * 10_000) is ErrorCode.TOO_DEEP


def test_brackets_in_texts_are_not_nesting() -> None:
    for text in ("[" * 1000, '\\"[' * 500, "{" * 100 + "\\\\"):
        frame = about("bye", reason=text)
        assert decode(frame, Direction.TO_WORKER).msg == m.Bye(reason=text)


# --- totality -------------------------------------------------------------------------------------


def read(data: str | bytes) -> None:
    """Decodes in both directions: a frame that can be said again, or a typed refusal."""
    for side in SIDES:
        try:
            frame = decode(data, side)
        except ProtocolError as error:
            assert isinstance(error.code, ErrorCode)
            assert 0 < len(error.sentence) < MAX_FRAME
            continue
        assert isinstance(frame.msg, m.Message)
        assert side in ROW_OF[type(frame.msg)].direction
        assert frame.seq >= 0
        assert frame.ack >= 0
        try:
            again = encode(frame)
        except ProtocolError as error:
            assert error.code is ErrorCode.TOO_LARGE  # defaults are written out
            continue
        assert decode(again, side) == frame


@ordinary
@given(st.text() | st.text(st.characters(categories=["Cs"])) | st.binary())
def test_any_text_and_any_bytes_give_a_frame_or_a_refusal(data: str | bytes) -> None:
    read(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@ordinary
@given(json_values)
def test_any_json_gives_a_frame_or_a_refusal(value: Any) -> None:
    read(json.dumps(value))
    read(json.dumps({"seq": 1, "ack": 0, "msg": value}))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside: list[tuple[Any, ...]] = []
    if isinstance(value, dict):
        inside = [place for key, item in value.items() for place in places(item, (*path, key))]
    elif isinstance(value, list):
        inside = [place for at, item in enumerate(value) for place in places(item, (*path, at))]
    return [*([path] if path else []), *inside]


@ordinary
@given(st.sampled_from(FRAMES), st.data())
def test_a_golden_frame_with_any_value_replaced_gives_a_frame_or_a_refusal(
    frame: Frame, data: st.DataObject
) -> None:
    tree = json.loads(golden(tag(frame)))
    *parents, last = data.draw(st.sampled_from(places(tree)))
    holder = tree
    for step in parents:
        holder = holder[step]
    holder[last] = data.draw(json_values)
    read(json.dumps(tree))


@ordinary
@given(st.sampled_from(FRAMES), st.data())
def test_a_golden_frame_with_spoilt_bytes_gives_a_frame_or_a_refusal(
    frame: Frame, data: st.DataObject
) -> None:
    raw = golden(tag(frame)).encode()
    start = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(start, min(len(raw), start + 12)))
    read(raw[:start] + data.draw(st.binary(max_size=12)) + raw[end:])


def test_every_beginning_of_a_golden_frame_is_malformed() -> None:
    for frame in FRAMES:
        text = golden(tag(frame))
        for length in range(0, len(text), 7):
            assert refused(text[:length], side_of(frame)) is ErrorCode.MALFORMED


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_what_is_written_of_a_training_that_diverges_can_be_read(loss: float) -> None:
    """A client counts strikes for frames that it can't read, and leaves."""
    frame = Frame(msg=m.Progress(job=JOB, stage=0, event="batch_end", metrics={"loss": loss}))
    try:
        text = encode(frame)
    except ProtocolError:
        return  # refused where it is said
    decode(text, Direction.TO_CLIENT)
