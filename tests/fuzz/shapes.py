"""Hypothesis strategies for inputs that have a decoder's own shape, or nearly."""

import base64
import json
import struct
import zipfile
import zlib
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect as mi

from fsm_worker.client import remembered
from fsm_worker.services import manifest
from fsm_worker.services.launch import ExitRecord
from protocol import codec
from protocol.need import READERS
from protocol.proof import SessionString
from protocol.signaling import FromPeer, FromServer
from protocol.sleap_rtc import ROWS
from protocol.sleap_rtc.peer import PeerWord
from protocol.table import Direction
from protocol.trainer import TrainerMessage
from tests.fuzz.of_types import Bytes, as_json, sound
from tests.fuzz.setting_kinds import toml_lines, toml_value
from tests.fuzz.targets import zipped

_ODD_TEXTS = st.sampled_from(
    ("", ".", "..", "../x", "a/b", "a:b", "C:\\x", "/etc/passwd", "NaN", "\x00", "\x1b[2J", "é")
)
TEXTS = st.text(max_size=12) | _ODD_TEXTS
NUMBERS = st.integers(-(2**66), 2**66) | st.sampled_from(
    (0, 1, -1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64)
)
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


# --- JSON of a struct's shape -----------------------------------------------------------------


def _of_type(kind: Any) -> st.SearchStrategy[Any]:
    """Values that the type takes, with some in any place that it may not take."""
    match kind:
        case mi.StructType():
            return _of_struct(kind)
        case mi.UnionType(types=kinds):
            return st.one_of([_of_type(one) for one in kinds])
        case mi.ListType(item_type=item) | mi.VarTupleType(item_type=item):
            return st.lists(_of_type(item), max_size=3)
        case mi.TupleType(item_types=items):
            return st.tuples(*map(_of_type, items)).map(list)
        case mi.DictType(value_type=value):
            return st.dictionaries(TEXTS, _of_type(value), max_size=3)
        case mi.EnumType() | mi.LiteralType() | mi.StrType():
            return _mostly(sound(kind), TEXTS)
        case mi.IntType():
            return _mostly(sound(kind), NUMBERS)
        case mi.FloatType():
            return _mostly(sound(kind), st.floats() | NUMBERS)
        case mi.BoolType() | mi.NoneType():
            return sound(kind)
        case _:
            return ANYTHING


def _mostly(good: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> Any:
    """One in ten is another: a message has many fields, and most should get past the first."""
    return st.integers(0, 9).flatmap(lambda number: other if number == 9 else good)


def _of_struct(kind: mi.StructType) -> st.SearchStrategy[dict[str, Any]]:
    needed = {field.encode_name: _of_type(field.type) for field in kind.fields if field.required}
    left = {field.encode_name: _of_type(field.type) for field in kind.fields if not field.required}
    tag = {kind.tag_field: st.just(kind.tag)} if kind.tag_field else {}
    return st.fixed_dictionaries({**tag, **needed}, optional=left)


@st.composite
def _spoilt(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> Any:
    """Most are left alone; some lose a field, gain one, or have one of another type."""
    value = draw(values)
    if isinstance(value, dict) and draw(st.integers(0, 9)) == 9:
        name = draw(st.sampled_from(sorted(value)) if value else TEXTS)
        if draw(st.booleans()):
            value = {key: one for key, one in value.items() if key != name}
        else:
            value = {**value, name: draw(ANYTHING)}
    return value


def _json_of(*kinds: Any) -> Bytes:
    return _spoilt(st.one_of([_of_type(mi.type_info(kind)) for kind in kinds])).map(as_json)


def _leaves(base: type) -> list[type]:
    return [one for kind in base.__subclasses__() for one in (_leaves(kind) or [kind])]


def _native(direction: Direction) -> Bytes:
    frame = _of_type(mi.type_info(codec._frame_type(direction)))  # the one that it decodes by
    return _spoilt(frame).map(as_json)


def _peer_message() -> Bytes:
    words = st.one_of([_spoilt(_of_type(mi.type_info(kind))) for kind in _leaves(PeerWord)])
    return words.map(
        lambda word: as_json(
            {"type": "peer_message", "from_peer_id": "c", "to_peer_id": "w", "payload": word}
        )
    )


# --- Texts ------------------------------------------------------------------------------------


@st.composite
def _dialect(draw: st.DrawFn) -> bytes:
    row = draw(st.sampled_from(ROWS))
    fields = draw(st.lists(TEXTS | NUMBERS.map(str) | ANYTHING.map(json.dumps), max_size=4))
    text = row.tag + draw(st.sampled_from((row.separator, ":", ""))) + ":".join(fields)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def _need(draw: st.DrawFn) -> bytes:
    value = st.sampled_from(("1", "16GiB", "8.0", "A100", "-1", "1e9", "٣", "0.1 mib")) | TEXTS
    part = st.builds("{}={}".format, st.sampled_from(list(READERS)) | TEXTS, value)
    parts = draw(st.lists(part, max_size=5))
    return draw(st.sampled_from((",", " , ", ";"))).join(parts).encode()


_NAMES = st.sampled_from(
    ("a", "B", "b", "é", "e\u0301", "con", "CON.txt", "..", "", "x ", "y.", "a\\b")
)


@st.composite
def _names(draw: st.DrawFn) -> bytes:
    name = st.lists(_NAMES | st.text(max_size=3), min_size=1, max_size=4).map("/".join)
    return "\n".join(draw(st.lists(name, max_size=5))).encode()


@st.composite
def _script(draw: st.DrawFn) -> bytes:
    word = st.sampled_from(
        ("digits", "train", "sleap-nn", "track", "python", "train.py", "--data", "d.npz", "#", "\\",
         "--config-name", "a=b", "'x y'", '"$HOME"', "a;b", "[x]", "\t", "trainer_config.x=[1]",
         "--epochs", "-3", "../up", "-o", "\r", "\x00")
    ) | st.text(max_size=4)  # fmt: skip
    good = st.sampled_from(("digits train --data d.npz", "python train.py", "# nothing", ""))
    lines = good | st.lists(word, max_size=7).map(" ".join)
    ends = draw(st.sampled_from(("\n", "\r\n", "\\\n")))
    return ends.join(draw(st.lists(lines, max_size=4))).encode()


@st.composite
def _log(draw: st.DrawFn) -> bytes:
    piece = st.sampled_from(
        ("\r", "\n", "\x1b[", "0;1", "m", "\x1b]0;t", "\x07", "\x9b", "PROGRESS_REPORT::", "FS_",
         "JOB_", "END_OF_FILE", "FILE_META::", "a")
    ).map(str.encode) | st.binary(max_size=4)  # fmt: skip
    return b"".join(draw(st.lists(piece, max_size=12)))


# --- Bytes ------------------------------------------------------------------------------------


@st.composite
def _chunk(draw: st.DrawFn) -> bytes:
    payload = draw(st.binary(max_size=40))
    version = draw(st.sampled_from((1, 1, 1, 0, 2, 255)))
    transfer, length = draw(st.tuples(*(st.integers(0, 2**32 - 1),) * 2))
    offset = draw(st.integers(0, 2**64 - 1))
    length = draw(st.sampled_from((len(payload), length)))
    crc = draw(st.sampled_from((zlib.crc32(payload), transfer)))
    zeros = draw(st.sampled_from((bytes(3), b"\0\0\1")))
    return struct.pack("!B3sIQII", version, zeros, transfer, offset, length, crc) + payload


@st.composite
def _archive(draw: st.DrawFn) -> bytes:
    name = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
    script = st.sampled_from(("train-script.sh", "p/track-script.sh", "p/"))
    content = st.sampled_from((b"", b"digits train --data d\n", bytes(200_000))) | st.binary(
        max_size=9
    )
    members = draw(st.dictionaries(name | script, content, max_size=4))
    method = draw(st.sampled_from((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2)))
    data = bytearray(zipped(members, method))
    for _ in range(draw(st.integers(0, 2))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


# --- Files ------------------------------------------------------------------------------------


_RUNNER = st.fixed_dictionaries(
    {"argv": st.lists(st.sampled_from(("sh", "-c", "./x", "a.py", "~no/x")) | TEXTS, max_size=3)},
    optional={
        "args": st.booleans(), "outputs": st.lists(TEXTS, max_size=2), "x": ANYTHING,
        "env": st.dictionaries(st.sampled_from(("A", "CUDA_VISIBLE_DEVICES")), TEXTS, max_size=2),
    },
)  # fmt: skip
_DECLARE = st.fixed_dictionaries(
    {},
    optional={
        "gpu_model": TEXTS, "gpu_memory_mb": NUMBERS, "gpu_compute": TEXTS, "gpu_count": NUMBERS,
        "tags": st.lists(TEXTS, max_size=3), "runners": ANYTHING,
    },
)  # fmt: skip
_TABLES = st.dictionaries(
    st.sampled_from(("mine", "digits", "b")) | TEXTS,
    st.just({"argv": ["true"]}) | _spoilt(_RUNNER),
    max_size=2,
)


@st.composite
def _tables(draw: st.DrawFn) -> bytes:
    declare = draw(st.none() | _spoilt(_DECLARE))
    return as_json(draw(_TABLES) | ({"declare": declare} if declare is not None else {}))


@st.composite
def _toml(draw: st.DrawFn) -> bytes:
    key = st.sampled_from(
        ("gpu", "listen", "signaling", "name", "stun", "jwt_key", "allow_sleap_rtc", "rom")
    )
    lines = [
        f"{name} = {toml_value(value)}"
        for name, value in draw(
            st.dictionaries(key, ANYTHING | TEXTS | NUMBERS, max_size=3)
        ).items()
    ]
    for name, table in draw(_TABLES).items():
        lines += [f"[runners.{json.dumps(name)}]", *toml_lines(table)]
    if draw(st.booleans()):
        lines += ["[declare]", *toml_lines(draw(_spoilt(_DECLARE)))]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _under_base64(inside: Bytes) -> Bytes:
    return inside.map(lambda data: b"fsm-worker:" + base64.urlsafe_b64encode(data))


@st.composite
def _jwt(draw: st.DrawFn) -> bytes:
    parts = st.one_of(
        st.fixed_dictionaries({"alg": st.sampled_from(("HS256", "none", "x")) | ANYTHING}),
        st.fixed_dictionaries(
            {}, optional={"sub": ANYTHING, "exp": ANYTHING, "username": ANYTHING}
        ),
        ANYTHING,
    ).map(lambda value: base64.urlsafe_b64encode(as_json(value)).rstrip(b"="))
    return b".".join(draw(st.lists(parts, min_size=1, max_size=4)))


def _claims() -> Bytes:
    names = st.sampled_from(("sub", "username", "exp", "nbf", "aud"))
    good = st.just({"sub": "u", "exp": 9e9})
    spoilt = st.dictionaries(names, ANYTHING | NUMBERS | TEXTS, max_size=4)
    return st.one_of(good, spoilt, st.builds(dict.__or__, good, spoilt)).map(as_json)


_LINES = st.lists(TEXTS | st.just("lab " + "k" * 40), max_size=3).map(
    lambda lines: "\n".join(lines).encode()
)
_SESSIONS = _json_of(SessionString)

#: What each target of `tests.fuzz.targets` is given, by its name.
SHAPES: dict[str, Bytes] = {
    "native to a worker": _native(Direction.TO_WORKER),
    "native to a client": _native(Direction.TO_CLIENT),
    "native, as text": _native(Direction.TO_WORKER),
    "a need on the wire": st.dictionaries(
        st.sampled_from(list(READERS)) | TEXTS, TEXTS, max_size=4
    ).map(lambda need: as_json({"msg": {"type": "reserve", "need": need}})),
    "sleap-rtc to a worker": _dialect(),
    "sleap-rtc to a client": _dialect(),
    "sleap-rtc, bytes": _log(),
    "a peer's payload": _peer_message(),
    "signaling to a server": _json_of(FromPeer),
    "signaling to a peer": _json_of(FromServer),
    "a canonical frame": ANYTHING.map(as_json),
    "a chunk": _chunk(),
    "byte ranges": st.lists(st.integers(0, 99) | st.integers(-(2**63), 2**63 - 1), max_size=8).map(
        lambda numbers: b"".join(number.to_bytes(8, "big", signed=True) for number in numbers)
    ),
    "a trainer's message": _json_of(*_leaves(TrainerMessage)),
    "a need in words": _need(),
    "a session string": _under_base64(_SESSIONS),
    "a session string, inside": _SESSIONS,
    "names in an archive": _names(),
    "a script": _script(),
    "output for sleap-rtc": _log(),
    "output for a terminal": _log(),
    "a JWT": _jwt(),
    "a signed JWT": _claims(),
    "an archive": _archive(),
    "a manifest": _json_of(manifest.Manifest),
    "a script's file": _script(),
    "a log's file": _log(),
    "worker.toml": _toml(),
    "tables": _tables(),
    "remembered jobs": _json_of(remembered._File),
    "known clients": st.dictionaries(TEXTS, st.lists(TEXTS) | ANYTHING, max_size=2).map(as_json),
    "an exit record": _json_of(ExitRecord),
    "API keys": _LINES,
}  # fmt: skip
