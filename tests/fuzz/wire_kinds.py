"""The kinds of message of every dialect, from the tables of the dialects."""

import json
import re
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect as mi

from protocol import messages as m
from protocol.bulk import MAX_CHUNK
from protocol.need import READERS
from protocol.signaling import FromPeer, FromServer
from protocol.sleap_rtc import MAX_TEXT, ROWS, Row, fields
from protocol.sleap_rtc import frames as f
from protocol.sleap_rtc.peer import PEER_WORDS
from protocol.table import MESSAGES, Direction
from protocol.trainer import KINDS as TRAINER
from tests.fuzz.kinds import Kind, Kinds, of_json, of_struct
from tests.fuzz.of_types import JSON, WORDS, Bytes, Values, sound, unsound

# --- Native -------------------------------------------------------------------------------------

_COUNT = st.integers(0, 2**63 - 1)
_NO_COUNT = st.sampled_from((-1, -(2**63), 0.5, "1", None, [1], True))


def _frame(message: Values) -> Values:
    return st.fixed_dictionaries({"msg": message}, optional={"seq": _COUNT, "ack": _COUNT})


def _of_message(cls: type[m.Message]) -> Kind:
    info = mi.type_info(cls)
    good = _frame(sound(info))
    number = st.sampled_from(("seq", "ack"))
    miscounted = st.builds(lambda one, name, n: {**one, name: n}, good, number, _NO_COUNT)
    bad = st.one_of(_frame(unsound(info)), _frame(unsound(info)), miscounted)
    return of_json(good, bad, lambda got: type(got.msg) is cls)


def _native(direction: Direction) -> Kinds:
    return {row.tag: _of_message(row.message) for row in MESSAGES if direction in row.direction}


# --- sleap-rtc ----------------------------------------------------------------------------------

_LINE = st.text(st.characters(codec="utf-8", exclude_characters=":"), max_size=12)
_PLAIN = st.from_regex(r"\A[A-Za-z0-9é日][A-Za-z0-9é日 ._-]{0,20}\Z")
_ID = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_PATH = st.lists(_PLAIN, min_size=1, max_size=4).map("/".join)
_NO_PATH = st.sampled_from(
    ("", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", "C:\\x", "c:x", "a\\b", "a\x00b",
     "a\nb", "a\x7f", "x" * 4097, "é" * 2049)
)  # fmt: skip
_NO_NAME = st.sampled_from(
    ("", ".", "..", "a/b", "a\\b", "../x", "a\x00", "\x1b[2J", "a\n", "x" * 256, "é" * 128)
)


def _words(options: Any) -> tuple[Values, Values]:
    good = [option.value for option in options]
    return st.sampled_from(good), st.sampled_from(("", "no", good[0].upper(), good[0] + " "))


def _long(limit: int) -> Values:
    return st.sampled_from(("x" * (limit + 1), "é" * (limit // 2 + 1)))


def _json_field(good: Values, *bad: object) -> tuple[Values, Values]:
    wrong = ({}, [], None, "stop", *bad)
    texts = st.sampled_from([*map(json.dumps, wrong), "", "{", "[" * 2000])
    return good.map(json.dumps), texts


#: What stands in a field of each kind, and what does not; None where everything does.
_FIELDS: dict[fields.Kind, tuple[Values, Values | None]] = {
    fields.NAME: (_PLAIN | _PLAIN.map("a:{}".format), _NO_NAME),
    fields.NAME_FOR_CLIENT: (_PLAIN, _NO_NAME),
    fields.FOLDER: (_LINE.filter(lambda t: not re.search(r"[\x00-\x1f\x7f]", t)) | _PATH
                    | st.sampled_from(("", "C:\\out", "/tmp/x", "~/y")),
                    st.sampled_from(("a\x00", "\x1b[2J", "x\n", "x" * 4097))),
    fields.FOLDER_FOR_CLIENT: (_PATH | st.just(""), st.sampled_from(("a\x00", "x" * 4097))),
    fields.RELATIVE: (_PATH, _NO_PATH),
    fields.SIZE: (st.integers(0, 2**63 - 1).map(str) | st.sampled_from(("0", str(2**63 - 1))),
                  st.sampled_from(("", "-1", "1.5", "٣", "0x1", str(2**63), "9" * 5000, " 1"))),
    fields.STATUS: (st.integers(-(10**10) + 1, 10**10 - 1).map(str),
                    st.sampled_from(("", "x", "1.5", "٣", "--1", "1" * 11))),
    fields.ID: (_ID, st.sampled_from(("", ".", "-a", "a b", "é", "a\n", "x" * 129))),
    fields.GUI: (st.sampled_from(("True", "False", "true", "")) | _LINE, None),
    fields.PACKAGE_KIND: _words(f.PackageKind),
    fields.ACTION: _words(f.SharedAction),
    fields.SIDE: _words(f.SharedSide),
    fields.REASON: _words(f.AuthReason),
    fields.PROOF: (WORDS, _long(fields.MAX_PROOF)),
    fields.MESSAGE: (WORDS, _long(fields.MAX_MESSAGE)),
    fields.JOB_NAME: (WORDS, _long(fields.MAX_NAME)),
    fields.COMMAND: _json_field(
        st.fixed_dictionaries({"command": WORDS}, optional={"py/object": JSON}),
        {"command": 1}, {"command": "x" * 65},
    ),
    fields.FAULT: _json_field(st.fixed_dictionaries({"error": WORDS}), {"error": None}),
    fields.FAULTS: _json_field(
        st.fixed_dictionaries({"errors": st.lists(sound(mi.type_info(f.Fault)), max_size=3)}),
        {"errors": 1}, {"errors": [1]}, {"errors": [{"field": "a"}]},
    ),
    fields.TEXT: (WORDS, None),
    fields.REPORT: (JSON.map(json.dumps), None),
}  # fmt: skip


@st.composite
def _row_text(draw: st.DrawFn, row: Row, *, spoilt: bool) -> bytes:
    """A text of a row; a spoilt one has one field that does not belong there, or too few."""
    if not row.fields:
        return row.tag.encode() + (draw(st.sampled_from((b"::", b"::x", b":: "))) * spoilt)
    parts = [draw(_FIELDS[kind][0]) for _, kind in row.fields]
    faults = [(at, _FIELDS[kind][1]) for at, (_, kind) in enumerate(row.fields)]
    if spoilt:
        at, fault = draw(st.sampled_from([one for one in faults if one[1] is not None]))
        few = len(parts) > 1 and draw(st.integers(0, 3)) == 0
        parts = parts[:1] if few else [*parts[:at], draw(fault), *parts[at + 1 :]]
    return (row.head + row.between.join(parts)).encode()


@st.composite
def _body(draw: st.DrawFn, row: Row) -> bytes:
    """A text of a flow that is not performed: whatever follows the tag is kept as it is."""
    return (row.tag + draw(st.just("") | WORDS.map(row.separator.__add__))).encode()


def _too_much(good: Bytes) -> Bytes:
    """What no text of this dialect holds, whatever its tag: too many bytes, or no UTF-8."""
    return good.map(lambda data: data + b"::" + b"x" * MAX_TEXT) | good.map(
        lambda data: data + b"::\xff"
    )


def _of_row(row: Row) -> Kind:
    if row.frame is f.NotPerformed:
        good = _body(row)
        return Kind(good, _too_much(good), lambda got: got.tag == row.tag)
    if row.frame is f.LogText:
        good = WORDS.map(lambda text: f"log {text}".encode())
        return Kind(good, _too_much(good), lambda got: type(got) is f.LogText)
    good, bad = _row_text(row, spoilt=False), _too_much(_row_text(row, spoilt=False))
    if not row.fields or any(_FIELDS[kind][1] is not None for _, kind in row.fields):
        bad = bad | _row_text(row, spoilt=True)
    return Kind(good, bad, lambda got: type(got) is row.frame)


def _dialect(direction: Direction) -> Kinds:
    rows = [row for row in ROWS if direction in row.direction and row.frame is not f.Chunk]
    return {row.tag or row.frame.__name__: _of_row(row) for row in rows}


_BYTES: Kinds = {
    "Chunk": Kind(
        st.binary(max_size=60),
        st.integers(1, 9).map(lambda more: bytes(MAX_CHUNK + more)),
        lambda got: type(got) is f.Chunk,
    ),
    # other bytes are a chunk's, so that there is nothing to refuse
    "KEEP_ALIVE": Kind(st.just(b"KEEP_ALIVE"), None, lambda got: type(got) is f.KeepAlive),
}

# --- Through the signaling server ---------------------------------------------------------------


def _from_peer(payload: Values) -> Values:
    peers = {"from_peer_id": WORDS, "to_peer_id": WORDS}
    return st.fixed_dictionaries({"type": st.just("peer_message"), **peers, "payload": payload})


def _of_word(cls: type) -> Kind:
    info = mi.type_info(cls)
    return of_json(_from_peer(sound(info)), _from_peer(unsound(info)), lambda got: type(got) is cls)


def _peer_words() -> Kinds:
    return {
        row.word.__struct_config__.tag: _of_word(row.word)
        for row in PEER_WORDS
        if row.direction is Direction.TO_WORKER
    }


def _signaling(union: Any) -> Kinds:
    return {cls.__struct_config__.tag: of_struct(cls) for cls in union.__args__}


# --- Others -------------------------------------------------------------------------------------


def _of_trainer(cls: type) -> Kind:
    """Of most fields, one that makes no sense is left out; of these, the message is refused."""
    tag = {"event": st.just(cls.__struct_config__.tag)}
    good = sound(mi.type_info(cls))
    count = st.sampled_from((-1, 0.5, 2**53 + 1, "1", [], {}, True))
    bad = st.one_of(
        st.fixed_dictionaries({**tag, "epoch": count}),
        st.fixed_dictionaries({**tag, "batch": count}),
        st.fixed_dictionaries({**tag, "logs": st.sampled_from((1, "x", [], True))}),
        good.map(lambda value: {**value, "event": f"{value['event']}s"}),
    )
    return of_json(good, bad, lambda got: type(got) is cls)


def _wire_need() -> Kind:
    need = st.dictionaries(st.sampled_from(list(READERS)) | WORDS, WORDS, max_size=4)
    worse = st.dictionaries(WORDS, st.sampled_from((1, None, ["1"])), min_size=1, max_size=2)

    def saying(one: Values) -> Values:
        return _frame(st.fixed_dictionaries({"type": st.just("reserve"), "need": one}))

    return of_json(saying(need), saying(worse), lambda got: type(got.msg) is m.Reserve)


def _canonical() -> Kind:
    good = st.fixed_dictionaries({"x": JSON})
    numbers = st.sampled_from((float("nan"), float("inf"), -float("inf")))
    deep = st.just(0)
    for _ in range(40):
        deep = deep.map(lambda value: [value])
    return of_json(good, st.fixed_dictionaries({"x": numbers | deep}))


WIRE: dict[str, Kinds] = {
    "native to a worker": _native(Direction.TO_WORKER),
    "native to a client": _native(Direction.TO_CLIENT),
    "native, as text": {"submit": _of_message(m.Submit), "log_get": _of_message(m.LogGet)},
    "a need on the wire": {"reserve": _wire_need()},
    "sleap-rtc to a worker": _dialect(Direction.TO_WORKER),
    "sleap-rtc to a client": _dialect(Direction.TO_CLIENT),
    "sleap-rtc, bytes": _BYTES,
    "a peer's payload": _peer_words(),
    "signaling to a server": _signaling(FromPeer),
    "signaling to a peer": _signaling(FromServer),
    "a canonical frame": {"": _canonical()},
    "a trainer's message": {str(cls.__struct_config__.tag): _of_trainer(cls) for cls in TRAINER},
}
