"""Chunks of files, names, archives and manifests that are in order, and that are not."""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from protocol.bulk import DEFAULT_CHUNK, MAX_FILE
from tests.fuzz.kinds import Kind, Kinds, of_json, of_text
from tests.fuzz.of_types import WORDS, Values
from tests.fuzz.targets import zipped

# --- Bytes --------------------------------------------------------------------------------------


def _header(payload: bytes, *, version: int = 1, zeros: bytes = bytes(3), offset: int = 0,
            length: int | None = None, crc: int | None = None) -> bytes:  # fmt: skip
    size = len(payload) if length is None else length
    check = zlib.crc32(payload) if crc is None else crc
    return struct.pack("!B3sIQII", version, zeros, 7, offset, size, check) + payload


@st.composite
def _chunk(draw: st.DrawFn) -> bytes:
    payload = draw(st.binary(min_size=1, max_size=40))
    last = MAX_FILE - len(payload)
    return _header(payload, offset=draw(st.integers(0, last) | st.sampled_from((0, last))))


@st.composite
def _no_chunk(draw: st.DrawFn) -> bytes:
    payload = draw(st.binary(min_size=1, max_size=40))
    fault: Mapping[str, Any] = draw(
        st.sampled_from(
            (
                {"version": 0}, {"version": 2}, {"zeros": b"\0\0\1"}, {"zeros": b"\1\0\0"},
                {"offset": MAX_FILE}, {"offset": 2**64 - 1}, {"length": 0},
                {"length": len(payload) + 1}, {"length": 2**32 - 1},
                {"crc": zlib.crc32(payload) ^ 1},
            )
        )
    )  # fmt: skip
    whole = _header(payload, **fault)
    others = (whole[:-1], _header(b""), _header(bytes(DEFAULT_CHUNK)), whole[:23])
    return draw(st.sampled_from((whole, whole, whole, *others)))


def _numbers(spans: list[tuple[int, int]]) -> bytes:
    return b"".join(number.to_bytes(8, "big", signed=True) for span in spans for number in span)


_SPAN = st.tuples(*(st.integers(0, 99) | st.integers(0, 2**63 - 1),) * 2).map(sorted).map(tuple)
_NO_SPAN = st.sampled_from(((1, 0), (-1, 0), (-(2**63), 2**63 - 1), (5, 4), (2**63 - 1, 0)))
_SPANS = st.lists(_SPAN, max_size=20)

# --- Names and archives -------------------------------------------------------------------------

# The first letter is of no device's name; what is lower and normal is folded to itself.
STEM = st.from_regex(r"\A[bd-kq-zé日][a-z0-9_é]{0,6}\Z")
FILE = st.lists(STEM, min_size=1, max_size=4).map(lambda parts: "/".join(parts) + ".dat")
_FOLDER = st.lists(STEM, min_size=1, max_size=4).map(lambda parts: "/".join(parts) + "/")
_NO_NAMES = (
    "../x", "/x", "d/../x", "d//x", "d/./x", ".", "..", "C:x", "C:\\x", "d\\x", "con", "d/aux.txt",
    "lpt1.b", "x ", "d./x", "\x01", "d/\x9b", "e" * 256, "/".join("e" * 80), "é" * 128,
)  # fmt: skip
#: Two that are one somewhere, or a file where a folder is needed.
_PAIRS = (("d/e", "D/f"), ("é", "e\u0301"), ("straße", "STRASSE"), ("d", "d/e"), ("x/", "x"))


@st.composite
def _names(draw: st.DrawFn) -> str:
    return "\n".join(draw(st.lists(FILE | _FOLDER, min_size=1, max_size=5, unique=True)))


@st.composite
def _no_names(draw: st.DrawFn) -> str:
    good = draw(st.lists(FILE, max_size=3, unique=True))
    twice = ("w.dat", "w.dat")
    bad = draw(st.sampled_from([*((name,) for name in _NO_NAMES), *_PAIRS, twice, ("",)]))
    return "\n".join((*good, *bad))


_CONTENT = st.one_of(
    st.binary(max_size=60),
    st.binary(min_size=1, max_size=3).map(lambda piece: piece * 9_000),
    st.just(b""),
)


@st.composite
def _members(draw: st.DrawFn) -> dict[str, bytes]:
    folder = draw(st.just("") | STEM.map("{}/".format))
    script = {f"{folder}train-script.sh": draw(st.just(b"digits train --data d\n") | _CONTENT)}
    files = draw(st.dictionaries(FILE, _CONTENT, max_size=4))
    folders = draw(st.lists(_FOLDER, max_size=2))
    return {**dict.fromkeys(folders, b""), **script, **files}


_METHOD = st.sampled_from((zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED))


@st.composite
def _no_archive(draw: st.DrawFn) -> bytes:
    members, method = draw(_members()), draw(_METHOD)
    fault = draw(st.integers(0, 8))
    if fault == 0:
        members |= dict.fromkeys(draw(st.sampled_from(_PAIRS)), b"")
    elif fault == 1:
        members[draw(st.sampled_from(_NO_NAMES))] = b"x"
    elif fault == 2:
        method = draw(st.sampled_from((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    elif fault == 3:
        members = {name: one for name, one in members.items() if "train-script.sh" not in name}
    elif fault == 4:  # more than the archive's size allows, and more than there is room for
        members["w"], method = bytes(draw(st.sampled_from((2**19, 2**21)))), zipfile.ZIP_DEFLATED
    elif fault == 5:
        members |= {f"w{number}": b"" for number in range(70)}
    data = zipped(members, method)
    if fault == 6:
        return data[: draw(st.integers(0, len(data) - 1))]
    if fault == 7:
        return _with_link(data, draw(st.sampled_from((stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO))))
    if fault == 8:  # a byte of a member's content, which its checksum does not have
        data = zipped(members | {"w.dat": b"content"}, zipfile.ZIP_STORED)
        return data.replace(b"w.datcontent", b"w.datcontenT")
    return data


def _with_link(data: bytes, mode: int) -> bytes:
    out = io.BytesIO(data)
    with zipfile.ZipFile(out, "a") as archive:
        info = zipfile.ZipInfo("w.link")
        info.external_attr = (mode | 0o777) << 16
        archive.writestr(info, b"/etc/passwd")
    return out.getvalue()


_ARCHIVE = Kind(st.builds(zipped, _members(), _METHOD), _no_archive())


_ONE = st.just(1)


def _manifest(files: Values, version: Values = _ONE) -> Values:
    left_out = st.just([{"path": "a\\b", "why": "a link"}])
    return st.fixed_dictionaries(
        {"version": version, "files": files}, optional={"left_out": left_out}
    )


def _packed(path: Values, least: int = 0) -> Values:
    entry = {"path": path, "size": st.integers(0, 2**53), "sha256": WORDS}
    return st.lists(st.fixed_dictionaries(entry), min_size=least, max_size=3)


_MANIFEST = of_json(
    _manifest(_packed(FILE)),
    st.one_of(
        _manifest(_packed(st.sampled_from(_NO_NAMES), least=1)),
        _manifest(_packed(_ONE, least=1)),
        _manifest(_packed(FILE), version=st.sampled_from((0, 2, -1, 2**63, "1", None, 1.5))),
        _manifest(st.sampled_from((None, {}, [1], [{}], "x"))),
        st.just({"version": 1}),
    ),
)

ARCHIVES: dict[str, Kinds] = {
    "a chunk": {"": Kind(_chunk(), _no_chunk())},
    "byte ranges": {
        "": Kind(
            _SPANS.map(_numbers),
            st.builds(lambda spans, bad: _numbers([*spans, bad]), _SPANS, _NO_SPAN),
        )
    },
    "names in an archive": {"": of_text(_names(), _no_names())},
    "an archive": {"": _ARCHIVE},
    "a manifest": {"": _MANIFEST},
}
