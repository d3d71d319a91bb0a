r"""A program's output, read from the file it goes to, in pieces that a channel can carry.

Laws:
    A piece says which bytes of the file it stands for, so a reader resumes at any piece's end.
    In a piece's text a carriage return can only come first. It means: replace the current line.
    Anything else is appended to it. The pieces put together, by `coalesce`, are the whole log.
    A million updates of a progress bar that nobody saw in between are one line of one piece.
    No character is split between pieces; bytes that are no UTF-8 become U+FFFD.

What a carriage return does here: it takes the line back to its start, and what comes next on
that line replaces all of it. One with nothing after it on its line does nothing, so `\r\n` is a
newline and a bar that stops at `\r` stays visible.
"""

import asyncio
import codecs
import re
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self

import msgspec

from protocol.errors import ErrorCode, ProtocolError

#: Most bytes that a piece's text takes inside a JSON frame, escapes included.
MAX_TEXT: Final = 32 * 1024
_MIN_TEXT: Final = 256
#: Most bytes of the file that one piece stands for, so that a reader hears something in time.
_MAX_SCANNED: Final = 16 * 1024 * 1024
#: A byte takes at most this many in JSON: a control character as a `\u` escape.
_WORST_ESCAPE: Final = 6

_ESCAPE_SEQUENCES: Final = re.compile(
    # The grammar of ECMA-48 (5.4 control sequences, 5.6 control strings) and ECMA-35 (13 escapes).
    # A string ends with its line at the latest: an unfinished one must not swallow the log.
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\\\|\x9c)"
    "|\x1b[ -/]*[0-~]"
)
_CONTROLS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


class OffsetRefused(ProtocolError):
    """The log does not reach that far, so it is not the log that was read before."""

    def __init__(self, offset: int, size: int) -> None:
        super().__init__(
            ErrorCode.MALFORMED,
            f"The log has {size} bytes, so there is nothing at {offset}; read it from 0.",
        )


class LogPiece(NamedTuple):
    """A stretch of a log.

    Attributes:
        offset: place of its first byte in the file.
        next: where the piece after it begins.
        text: what to show of it; a leading carriage return replaces the current line.
    """

    offset: int
    next: int
    text: str


def coalesce(text: str) -> str:
    """Give what is left to see of a text once every carriage return has acted."""
    if "\r" not in text:
        return text
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def plain(text: str) -> str:
    r"""Take out everything that could command a terminal; keep `\n`, `\t` and `\r`.

    A sequence that is cut off loses its control characters, and its rest stays as plain text.
    """
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", _ESCAPE_SEQUENCES.sub("", text)))


class LogReader:
    """Reads pieces of a log file that another process appends to.

    It keeps nothing open and nothing in mind between two reads.

    Args:
        path: the log; while it does not exist it reads as empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, offset: int, limit: int = MAX_TEXT, *, final: bool = False) -> LogPiece:
        r"""Read the piece that begins at a place of the file; call it in a thread.

        Args:
            offset: 0, or the `next` of an earlier piece, in bytes.
            limit: most bytes that the text may take inside a JSON frame; 256 to `MAX_TEXT`,
                and other values count as the nearer of these.
            final: nothing will be appended any more. Until that is so, a last `\r` or half a
                character is left for the next piece, since what follows decides what it is.

        Returns:
            The piece; its `next` equals `offset` when there is nothing to read yet.

        Raises:
            OffsetRefused: the file is shorter than `offset`, or `offset` is negative.
            OSError: the file cannot be read.
        """
        limit = max(_MIN_TEXT, min(limit, MAX_TEXT))
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            if offset != 0:
                raise OffsetRefused(offset, 0) from None
            return LogPiece(0, 0, "")
        with file:
            size = file.seek(0, 2)
            if not 0 <= offset <= size:
                raise OffsetRefused(offset, size)
            return _read_piece(file, offset, size, limit, final=final)


def _read_piece(file: BinaryIO, offset: int, size: int, limit: int, *, final: bool) -> LogPiece:
    fresh = _at_line_start(file, offset)
    text, at, window = "", offset, limit
    while at < size and at - offset < _MAX_SCANNED:
        file.seek(at)
        raw = file.read(min(window, size - at))
        more, used = _decode(raw, final=final and at + len(raw) == size)
        longer = _merge(text, more, fresh=fresh)
        cost = len(msgspec.json.encode(longer)) - 2
        if cost > limit:
            if text:
                break
            # In proportion, and at least as fast as by a sixteenth, down to what always fits.
            shrunk = min(len(raw) * limit // cost, len(raw) - len(raw) // 16)
            window = max(shrunk, limit // _WORST_ESCAPE)
            continue
        text, at = longer, at + used
        # A nearly full piece goes out: the next window would only be read to be put back.
        if used == 0 or cost > limit // 2:
            break
    return LogPiece(offset, at, text)


def _at_line_start(file: BinaryIO, offset: int) -> bool:
    if offset == 0:
        return True
    file.seek(offset - 1)
    return file.read(1) == b"\n"


def _decode(raw: bytes, *, final: bool) -> tuple[str, int]:
    """Decode what can be judged already; give the text and how many bytes it stands for."""
    text, used = codecs.utf_8_decode(raw, "replace", final)
    bare = text.rstrip("\r")
    if len(bare) < len(text) and not final:
        used -= 1  # one stands for all: it may be half a newline, or replace the line later
    return bare, used


def _merge(text: str, more: str, *, fresh: bool) -> str:
    """Append to a piece, keeping the mark that its first line replaces what was there before."""
    whole = text + more
    replaces = not fresh and "\r" in whole.partition("\n")[0].rstrip("\r")
    return ("\r" if replaces else "") + coalesce(whole)


class LogFeed:
    """Tells any number of readers that a log has grown or is closed; use it on the event loop.

    Attributes:
        closed: nothing will be appended any more.
    """

    def __init__(self) -> None:
        self.closed = False
        self._change = asyncio.Event()

    def grew(self) -> None:
        """Say that bytes were appended."""
        change, self._change = self._change, asyncio.Event()
        change.set()

    def close(self) -> None:
        """Say that nothing will be appended any more."""
        self.closed = True
        self.grew()

    @property
    def next_change(self) -> asyncio.Event:
        """An event of the next growth or close; taken before a read, it misses nothing."""
        return self._change


class LogCursor:
    """One reader's way through a log: an async iterator that ends with the log.

    It reads when it is asked for the next piece, so a slow reader gets fewer and fuller pieces,
    and never those progress updates that were replaced meanwhile: whoever iterates sets the pace.

    Args:
        path: the log.
        offset: 0, or the `next` of the last piece that the reader has, in bytes.
        feed: says when to look again.
        limit: most bytes that a text may take inside a JSON frame.
    """

    def __init__(self, path: Path, offset: int, feed: LogFeed, limit: int = MAX_TEXT) -> None:
        self.offset = offset
        self._reader = LogReader(path)
        self._feed = feed
        self._limit = limit

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogPiece:
        """Wait for the next piece that has text.

        Raises:
            OffsetRefused: the file is shorter than what was read of it.
            OSError: the file cannot be read.
            StopAsyncIteration: the log is closed and everything was read.
            asyncio.CancelledError: at any point; the same piece can be asked for again.
        """
        while True:
            change, closed = self._feed.next_change, self._feed.closed
            piece = await asyncio.to_thread(
                self._reader.read, self.offset, self._limit, final=closed
            )
            moved = piece.next > self.offset
            self.offset = piece.next
            if piece.text:
                return piece
            if moved:
                continue
            if closed:
                raise StopAsyncIteration
            await change.wait()
