"""A chunk of a file as one frame of the bulk lane, and the byte ranges that chunks add up to.

A frame is a 24-byte header in network byte order, then the payload::

    version:u8 = 1 | zero:3 bytes | transfer:u32 | offset:u64 | length:u32 | crc32:u32

`crc32` is that of the payload (zlib's, the polynomial of ISO 3309 and RFC 1952). It finds the
frame that a faulty machine spoilt while it can still be asked for again; that the whole file is
the announced one is decided by its SHA-256 alone.

Decoding is total: a frame gives a `Chunk` or raises `ChunkRefused`.
"""

import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from operator import itemgetter
from typing import Final

import msgspec

from protocol.errors import ErrorCode, ProtocolError

_HEADER: Final = struct.Struct("!B3sIQII")
_ZEROS: Final = b"\0\0\0"

CHUNK_VERSION: Final = 1
HEADER_SIZE: Final = _HEADER.size
#: Bounds of a frame, header included, in bytes; the size is agreed for each transfer. The upper
#: one is the largest message that both Chromium and aiortc take.
MIN_CHUNK: Final = 4 * 1024
DEFAULT_CHUNK: Final = 64 * 1024
MAX_CHUNK: Final = 256 * 1024
#: The largest file: the offsets of POSIX and Windows files are signed 64-bit numbers.
MAX_FILE: Final = 2**63 - 1
MAX_TRANSFER: Final = 2**32 - 1
#: Ranges that one `Ranges` holds at most: as many as one JSON control frame can ask for.
MAX_SPANS: Final = 1024

Span = tuple[int, int]


class ChunkRefused(ProtocolError):
    """The frame is no chunk of this transfer: drop it; its bytes will be asked for again."""

    def __init__(self, sentence: str, code: ErrorCode = ErrorCode.MALFORMED) -> None:
        super().__init__(code, sentence)


class RangesRefused(ProtocolError):
    """The byte ranges make no sense for this file: ask with ranges inside it."""

    def __init__(self, sentence: str) -> None:
        super().__init__(ErrorCode.MALFORMED, sentence)


class TooScattered(RangesRefused):
    """The ranges have more gaps than are kept track of: fill the earlier gaps first."""

    def __init__(self) -> None:
        super().__init__(
            f"That would leave more than {MAX_SPANS} separate ranges; send the missing bytes"
            " in the order of the file."
        )


class Chunk(msgspec.Struct, frozen=True):
    """A piece of a file.

    Args:
        transfer: number of the transfer that it belongs to.
        offset: place of its first byte in the file, in bytes.
        payload: a view into the frame that it was decoded from.
    """

    transfer: int
    offset: int
    payload: memoryview


def encode_chunk(
    transfer: int, offset: int, payload: bytes | memoryview, *, limit: int = DEFAULT_CHUNK
) -> bytes:
    """Write one frame.

    Args:
        transfer: number of the transfer, 0 to `MAX_TRANSFER`.
        offset: place of the payload's first byte in the file, in bytes.
        payload: 1 to `limit - HEADER_SIZE` bytes.
        limit: the agreed size of a frame, header included, in bytes.

    Raises:
        ChunkRefused: what was asked for would not decode.
    """
    if not 0 <= transfer <= MAX_TRANSFER:
        raise ChunkRefused(f"Transfer {transfer} does not fit into 32 bits; use a smaller number.")
    if offset < 0:
        raise ChunkRefused(f"Offset {offset} is negative; count from the start of the file.")
    _check_sizes(HEADER_SIZE + len(payload), offset, limit)
    head = _HEADER.pack(CHUNK_VERSION, _ZEROS, transfer, offset, len(payload), zlib.crc32(payload))
    return b"".join((head, payload))


def decode_chunk(
    frame: bytes | bytearray | memoryview | str, *, limit: int = DEFAULT_CHUNK
) -> Chunk:
    """Read one frame without copying its payload.

    Args:
        frame: what arrived on the bulk lane, text included (which is refused).
        limit: the agreed size of a frame, header included, in bytes.

    Raises:
        ChunkRefused: the frame is text, too short or too long, of another version, has reserved
            bytes set, a length that is not its payload's, an offset beyond what a file can have,
            or a payload that does not match its checksum.
    """
    if isinstance(frame, str):
        raise ChunkRefused("A text frame came on the bulk lane; send binary chunks only.")
    view = memoryview(frame)
    if len(view) < HEADER_SIZE:
        raise ChunkRefused(f"A chunk has a header of {HEADER_SIZE} bytes; this had {len(view)}.")
    version, zeros, transfer, offset, length, checksum = _HEADER.unpack_from(view)
    if version != CHUNK_VERSION:
        raise ChunkRefused(
            f"Chunks of version {version} are not known; send version {CHUNK_VERSION}.",
            ErrorCode.VERSION_UNKNOWN,
        )
    if zeros != _ZEROS:
        raise ChunkRefused("The reserved bytes 1 to 3 of a chunk must be zero.")
    _check_sizes(len(view), offset, limit)
    payload = view[HEADER_SIZE:]
    if length != len(payload):
        raise ChunkRefused(f"The chunk announces {length} bytes but carries {len(payload)}.")
    if zlib.crc32(payload) != checksum:
        raise ChunkRefused(
            f"The chunk at offset {offset} was spoilt on its way; send it again.",
            ErrorCode.HASH_MISMATCH,
        )
    return Chunk(transfer, offset, payload)


def _check_sizes(frame_size: int, offset: int, limit: int) -> None:
    """Refuse an empty, an overlong or an unreachable payload, in either direction."""
    if frame_size == HEADER_SIZE:
        raise ChunkRefused("A chunk carries at least one byte; leave empty ones out.")
    if frame_size > limit:
        raise ChunkRefused(
            f"A chunk of {frame_size} bytes is over the agreed {limit}; send smaller ones.",
            ErrorCode.TOO_LARGE,
        )
    if offset + frame_size - HEADER_SIZE > MAX_FILE:
        raise ChunkRefused(f"Offset {offset} is beyond the end of any file.")


class Ranges(msgspec.Struct, frozen=True):
    """A set of bytes as sorted half-open ranges that neither overlap nor touch.

    It never changes: adding gives another one, so a snapshot is free and can go to a thread.

    Args:
        spans: the ranges, already in that order; `Ranges.of` takes them in any.
    """

    spans: tuple[Span, ...] = ()

    @classmethod
    def of(cls, spans: Iterable[Span]) -> "Ranges":
        """Make a set from ranges in any order, overlapping or not.

        Raises:
            RangesRefused: a range is backwards or negative, or there are too many gaps.
        """
        ranges = cls()
        for start, end in spans:
            ranges = ranges.add(start, end)
        return ranges

    @property
    def total(self) -> int:
        """Number of bytes in the set."""
        return sum(end - start for start, end in self.spans)

    def add(self, start: int, end: int) -> "Ranges":
        """Give the set that also has the bytes from `start` up to but not including `end`.

        Raises:
            TooScattered: the result would have more than `MAX_SPANS` ranges.
            RangesRefused: the range is backwards or negative.
        """
        if not 0 <= start <= end:
            raise RangesRefused(f"{start} to {end} is not a range; give 0 <= start <= end.")
        if start == end:
            return self
        first = bisect_left(self.spans, start, key=itemgetter(1))
        after = bisect_right(self.spans, end, key=itemgetter(0))
        if first < after:
            start = min(start, self.spans[first][0])
            end = max(end, self.spans[after - 1][1])
        spans = (*self.spans[:first], (start, end), *self.spans[after:])
        if len(spans) > MAX_SPANS:
            raise TooScattered
        return Ranges(spans)

    def covers(self, start: int, end: int) -> bool:
        """Whether every byte from `start` up to but not including `end` is in the set."""
        if start >= end:
            return True
        at = bisect_right(self.spans, start, key=itemgetter(0)) - 1
        return at >= 0 and end <= self.spans[at][1]

    def missing(self, size: int) -> tuple[Span, ...]:
        """The ranges of a file of `size` bytes that are not in the set, in order."""
        gaps: list[Span] = []
        at = 0
        for start, end in self.spans:
            if start >= size:
                break
            if at < start:
                gaps.append((at, start))
            at = end
        if at < size:
            gaps.append((at, size))
        return tuple(gaps)

    def below(self, size: int) -> "Ranges":
        """The part of the set that lies in the first `size` bytes."""
        return Ranges(tuple((start, min(end, size)) for start, end in self.spans if start < size))
