"""Inputs that are small to write and large to read, at every decoder: bounded time and memory."""

import base64
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from tests.fuzz.budget import CASES, CEILING_S
from tests.fuzz.conftest import NAMES
from tests.fuzz.deadline import stopped_after
from tests.fuzz.targets import Target, tried, zipped

pytestmark = pytest.mark.fuzz

#: Bytes that a decoder may hold at most while it reads one of these.
MEMORY = 64 * 1024**2
_KIB = 1024

#: None has more than 200 KiB: what is larger is refused by its size, and is tried below.
BOMBS: dict[str, bytes] = {
    "nothing": b"",
    "arrays in arrays": b"[" * 20_000 + b"]" * 20_000,
    "objects in objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "arrays in a field that is not known": b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "arrays, a few in each other": (b"[" * 10 + b"]" * 10 + b",") * 3_000,
    "a number of many digits": b"9" * 20_000,
    "a number of many digits in a field": b'{"type":' + b"1" * 20_000 + b"}",
    "one long text": b'"' + b"a" * 20_000 + b'"',
    "escapes": b'"' + b"\\u0000" * 10_000 + b'"',
    "an escape that is cut off": b'"' + b"\\" * 19_999,
    "quotation marks": b'"' * 20_000,
    "line ends": b"\n" * 20_000,
    "carriage returns": b"\r" * 20_000,
    "spaces": b" " * 20_000,
    "colons": b"::" * 10_000,
    "commas and equals signs": b"a=1," * 5_000,
    "words": b"a " * 10_000,
    "lines that go on": b"a \\\n" * 5_000,
    "folders": b"a/" * 10_000,
    "combining marks": "e\u0301\u0323".encode() * 12_000,
    "letters that grow when folded": "\ufdfa\u1e9e".encode() * 10_000,
    "control sequences that do not end": b"\x1b[" * 30_000,
    "control strings that do not end": b"\x1b]0;" * 5_000,
    "digits of a control sequence": b"\x1b[" + b"0;" * 30_000,
    "tags found anywhere": b"PROGRESS_REPORT::" * 3_000,
    "keys in keys of TOML": b"a." * 30_000 + b"a = 1\n",
    "many keys in keys of TOML": (b"a." * 90 + b"a%d = 1\n") * 300,
    "headers in headers of TOML": b"[" + b"a." * 30_000 + b"a]\n",
    "tables in tables of TOML": b"a = {" * 10_000 + b"}" * 10_000,
    "lists in lists of TOML": b"a = " + b"[" * 20_000 + b"]" * 20_000,
    "a number of TOML": b"gpu = " + b"9" * 30_000,
    "a number of TOML in hexadecimal": b"gpu = 0x" + b"f" * 30_000,
    "a text of digits in TOML": b'gpu = "' + b"9" * 4_000 * 2 + b'"',
    "a port of many digits in TOML": b'listen = "a:' + b"9" * 8_000 + b'"',
    "zeros in an archive": zipped({"train-script.sh": bytes(4 * 1024**2)}),
    "many files in an archive": zipped({f"{n}": b"" for n in range(1_500)}),
    "folders in an archive": zipped({"a/" * 500 + "a": b""}),
    "an archive whose directory is said to be huge": (
        b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 2**32 - 2, 0, 0)
    ),
    "an archive with a comment that hides another end": zipped({}) + b"PK\x05\x06" * 5_000,
    "a session string": b"fsm-worker:" + base64.urlsafe_b64encode(b'{"x":' + b"[" * 3_000),
    "a JWT's header": base64.urlsafe_b64encode(b'{"alg":' + b"[" * 5_000).rstrip(b"=") + b".e30.",
    "parts of a JWT": b"." * 8_000,
    "a chunk of nothing": struct.pack("!B3sIQII", 1, bytes(3), 1, 2**63, 0, 0),
    "a chunk at the end of any file": struct.pack(
        "!B3sIQII", 1, bytes(3), 1, 2**64 - 1, 1, zlib.crc32(b"x")
    ) + b"x",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_is_small_to_write_and_large_to_read_is_decided_in_bounded_time_and_memory(
    name: str, chosen: Callable[[str], Target]
) -> None:
    target, faults = chosen(name), []
    traced = BOMBS if CASES >= 10_000 else {}  # it makes all of this ten times slower
    for bomb, data in BOMBS.items():
        if bomb in traced:
            tracemalloc.start()
        try:
            with stopped_after(CEILING_S * 3):  # tracing costs that much
                tried(target, data)
            peak = tracemalloc.get_traced_memory()[1]  # 0 without tracing
            assert peak < MEMORY, f"{peak} bytes"
        except Exception as error:  # all of them, and not the first alone
            faults.append(f"{bomb}: {type(error).__name__}: {str(error)[:200]}")
        finally:
            tracemalloc.stop()
    assert not faults


@pytest.mark.parametrize("name", NAMES)
def test_much_more_than_is_ever_sent_is_decided_soon(
    name: str, chosen: Callable[[str], Target]
) -> None:
    target, megabytes = chosen(name), 2
    for piece in (b"a", b"[", b'"', b"\n", b"\x00", b"a.", b"a=1\n", b"9"):
        with stopped_after(CEILING_S * 3):
            tried(target, piece * (megabytes * 1024 * _KIB // len(piece)))
