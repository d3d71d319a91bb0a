"""Files on their way in and out: bytes on disk on one side, chunk frames on the other.

Nothing here speaks to a network: a lane is anything that can send a frame. The receiving side
is in `incoming_file`, and what both need of the operating system in `disk`; all names that a
manager or a client needs can be imported from here.
"""

import asyncio
import os
import stat
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol, Self

from msgspec import Struct

from fsm_worker.services.disk import (
    AlreadyArriving,
    AnnouncementRefused,
    NotEnoughDisk,
    hash_file,
)
from fsm_worker.services.incoming_file import IncomingFile, NotVerified
from fsm_worker.work_threads import InThread
from protocol.bulk import (
    DEFAULT_CHUNK,
    HEADER_SIZE,
    MAX_CHUNK,
    MIN_CHUNK,
    Ranges,
    RangesRefused,
    Span,
    encode_chunk,
)
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages import Message

__all__ = [
    "AlreadyArriving",
    "AnnouncementRefused",
    "BulkLane",
    "IncomingFile",
    "Moved",
    "NotEnoughDisk",
    "NotVerified",
    "OutgoingFile",
    "Ranges",
    "RangesRefused",
    "Sender",
    "SessionLane",
    "SourceChanged",
    "hash_file",
    "pump",
]

#: Bytes that `pump` reads from disk at a time.
BATCH: Final = 1024 * 1024


class SourceChanged(ProtocolError):
    """The file is not the one that was announced any more: announce it anew."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            ErrorCode.SOURCE_CHANGED, f"{path.name} {what} while it was sent; send it again."
        )


class BulkLane(Protocol):
    """Where chunk frames go."""

    async def send(self, frame: bytes) -> None:
        """Send one frame, waiting until there is room for it."""


class Sender(Protocol):
    """Sends a control message to a session."""

    def __call__(self, session: str, message: Message) -> None:
        """Sends it, now or with the session's next link."""


class Moved(Struct, frozen=True, kw_only=True):
    """How far a file has come."""

    job: str
    name: str
    done: int  # bytes
    size: int  # bytes
    incoming: bool


class SessionLane:
    """The bulk lane of one session.

    Args:
        session: whose lane it is.
        send: sends a frame to a session when there is room.
    """

    def __init__(self, session: str, send: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._session = session
        self._send = send

    async def send(self, frame: bytes) -> None:
        """Waits for room, then sends."""
        await self._send(self._session, frame)


class OutgoingFile:
    """One file on its way out; make one with `await OutgoingFile.open(...)`.

    Attributes:
        path: where it is.
        transfer: number of the transfer, as its chunks carry it.
        chunk: size of a frame, header included, in bytes.
        size: its size in bytes.
        root: its SHA-256, hexadecimal.
    """

    def __init__(
        self, path: Path, transfer: int, chunk: int, *, size: int, root: str, modified_ns: int
    ) -> None:
        self.path = path
        self.transfer = transfer
        self.chunk = chunk
        self.size = size
        self.root = root
        self._modified_ns = modified_ns

    @classmethod
    async def open(
        cls,
        path: Path,
        transfer: int,
        chunk: int = DEFAULT_CHUNK,
        *,
        in_thread: InThread = asyncio.to_thread,
    ) -> Self:
        """Measure and hash a file in a thread.

        Args:
            path: a regular file.
            transfer: number of the transfer.
            chunk: agreed size of a frame, header included, in bytes.
            in_thread: where.

        Raises:
            AnnouncementRefused: it is no regular file, or the frame size is out of bounds.
            SourceChanged: it is still being written to.
            OSError: it cannot be read.
        """
        if not MIN_CHUNK <= chunk <= MAX_CHUNK:
            raise AnnouncementRefused(
                f"Chunks of {chunk} bytes are not sent; choose {MIN_CHUNK} to {MAX_CHUNK}."
            )
        return await in_thread(cls._measured, path, transfer, chunk)

    @classmethod
    def _measured(cls, path: Path, transfer: int, chunk: int) -> Self:
        before = path.stat()
        if not stat.S_ISREG(before.st_mode):
            raise AnnouncementRefused(
                f"{path.name} is no regular file; pack it into an archive first.",
                ErrorCode.PATH_ERROR,
            )
        size, root = hash_file(path)
        after = path.stat()
        if (size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise SourceChanged(path, "changed")
        return cls(path, transfer, chunk, size=size, root=root, modified_ns=after.st_mtime_ns)

    def chunks(self, ranges: Iterable[Span]) -> Iterator[bytes]:
        """Give the frames of some byte ranges, reading the file as they are taken.

        Args:
            ranges: what the receiver asks for, in any order; overlaps are sent once.

        Returns:
            An iterator to be consumed in a thread (`pump` does). It raises `SourceChanged` when
            the file is not as it was announced.

        Raises:
            RangesRefused: a range is not one of this file.
        """
        wanted = Ranges.of(ranges)
        if wanted != wanted.below(self.size):
            raise RangesRefused(f"{self.path.name} has {self.size} bytes; ask for no more.")
        return self._frames(wanted)

    def _frames(self, wanted: Ranges) -> Iterator[bytes]:
        room = self.chunk - HEADER_SIZE
        try:
            source = self.path.open("rb")
        except FileNotFoundError as error:
            raise SourceChanged(self.path, "was removed") from error
        with source:
            for start, end in wanted.spans:
                source.seek(start)
                for offset in range(start, end, room):
                    payload = source.read(min(room, end - offset))
                    # Looked at after the read: what was read is then what was announced.
                    self._check_unchanged(source)
                    yield encode_chunk(self.transfer, offset, payload, limit=self.chunk)

    def _check_unchanged(self, source: BinaryIO) -> None:
        now = os.fstat(source.fileno())
        if (now.st_size, now.st_mtime_ns) != (self.size, self._modified_ns):
            raise SourceChanged(self.path, "changed")


class _Reader:
    """Takes frames off an iterator in threads; a close waits for a read that is under way."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._lock = threading.Lock()

    def take(self, most: int) -> list[bytes]:
        """Read frames of `most` bytes together, or what is left."""
        frames: list[bytes] = []
        with self._lock:
            while most > 0 and (frame := next(self._chunks, None)) is not None:
                frames.append(frame)
                most -= len(frame)
        return frames

    def close(self) -> None:
        """Close the file behind a generator now, not when it is collected."""
        with self._lock:
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()


async def pump(
    chunks: Iterator[bytes], lane: BulkLane, on_sent: Callable[[int], None] | None = None
) -> None:
    """Send frames as fast as the lane takes them, holding about `BATCH` bytes at most.

    Args:
        chunks: the frames; read in a thread, and closed at the end.
        lane: where they go; its `send` waits for room.
        on_sent: told the file's bytes in each frame, once the lane has taken it.

    Raises:
        SourceChanged: the file changed under way.
        asyncio.CancelledError: at any point; the file is closed all the same.
    """
    reader = _Reader(chunks)
    try:
        while frames := await asyncio.to_thread(reader.take, BATCH):
            for frame in frames:
                await lane.send(frame)
                if on_sent is not None:
                    on_sent(len(frame) - HEADER_SIZE)
    finally:
        # In a thread, since a read that was cancelled goes on there until its batch is full.
        await asyncio.to_thread(reader.close)
