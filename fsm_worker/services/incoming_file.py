"""A file that arrives in chunks, in any order, and appears whole or not at all.

Laws:
    A file gets its final name only after its bytes hashed to the announced SHA-256.
    Until then it is `.ROOT.part` beside it, and `.ROOT.ranges` says which of its bytes are there.
    That record is replaced only after the bytes it claims were synced, so it survives a crash.
    Memory does not grow with the file, nor with what a hostile sender sends.
"""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self

import msgspec

from fsm_worker.services.disk import (
    DISK_IS_FULL,
    AlreadyArriving,
    AnnouncementRefused,
    NotEnoughDisk,
    check_name,
    free_bytes,
    hash_file,
    open_alone,
    sync_directory,
    write_at,
)
from protocol.bulk import MAX_FILE, ChunkRefused, Ranges, RangesRefused, Span, TooScattered
from protocol.errors import ErrorCode, ProtocolError

#: Bytes to leave free on the disk, for logs and for whoever else uses it.
RESERVE: Final = 256 * 1024 * 1024
#: Bytes after which `IncomingFile.save_due` asks for a save in a thread ...
SAVE_EVERY: Final = 8 * 1024 * 1024
#: ... and after which `write` saves by itself, so that a crash never costs more than this.
SAVE_AT_LATEST: Final = 4 * SAVE_EVERY

_HEX_SHA256: Final = re.compile(r"[0-9a-f]{64}")
#: A sidecar of `MAX_SPANS` ranges is below this; a longer one is none of ours.
_LONGEST_SIDECAR: Final = 64 * 1024


class NotVerified(ProtocolError):
    """The bytes were not shown to hash to what was announced: the file stays unpublished."""

    def __init__(self, name: str) -> None:
        super().__init__(
            ErrorCode.HASH_MISMATCH,
            f"{name} did not hash to what was announced; send the file again from the start.",
        )


class _Saved(msgspec.Struct, frozen=True):
    """The sidecar: which bytes of the partial file are known to be on disk."""

    size: int
    spans: tuple[Span, ...]


class IncomingFile:
    """One file on its way in; make one with `IncomingFile.open(...)`.

    `write`, `missing`, `received`, `complete` and `save_due` may be used on the event loop;
    `open`, `save`, `verify`, `publish`, `discard` and `close` wait for the disk and belong in a
    thread. `save` may run beside `write`.

    Attributes:
        name: the final name.
        size: announced size in bytes.
        root: announced SHA-256, hexadecimal.
        received: number of bytes that are there.
        dropped: chunks left out because they would have scattered the file too much; their
            bytes are still `missing()`.
    """

    def __init__(
        self, directory: Path, name: str, size: int, root: str, *, free: Callable[[Path], int]
    ) -> None:
        self.name = name
        self.size = size
        self.root = root
        self.dropped = 0
        self._directory = directory
        self._part = directory / f".{root}.part"
        self._sidecar = directory / f".{root}.ranges"
        self._free = free
        self._lock = threading.RLock()
        self._verified = False
        self._published = False
        self._file = open_alone(self._part)
        try:
            self._ranges = self._load()
        except BaseException:
            self._file.close()
            raise
        self.received = self._saved = self._ranges.total

    @classmethod
    def open(
        cls,
        directory: Path,
        name: str,
        size: int,
        root: str,
        *,
        reserve: int = RESERVE,
        free: Callable[[Path], int] = free_bytes,
    ) -> Self:
        """Begin to receive a file, or go on where an earlier process stopped.

        Args:
            directory: where it goes; it must exist.
            name: its final name, one plain component.
            size: announced size in bytes.
            root: announced SHA-256, 64 lower-case hexadecimal digits.
            reserve: bytes of the disk to leave free.
            free: gives the free bytes of the disk that holds a directory.

        Raises:
            AnnouncementRefused: the name, size or hash cannot be.
            NotEnoughDisk: the missing bytes and the reserve do not fit.
            AlreadyArriving: the same content is being received into the same directory.
            OSError: the directory cannot be written to.
        """
        check_name(name)
        if not 0 <= size <= MAX_FILE:
            raise AnnouncementRefused(f"A file cannot have {size} bytes; announce its real size.")
        if not _HEX_SHA256.fullmatch(root):
            raise AnnouncementRefused("The root must be a SHA-256 of 64 lower-case hex digits.")
        if (directory / name).is_dir():
            raise AnnouncementRefused(
                f"{name} is a directory there; give the file another name.", ErrorCode.PATH_ERROR
            )
        incoming = cls(directory, name, size, root, free=free)
        try:
            incoming._check_disk(reserve)
        except BaseException:
            if incoming.received:
                incoming.close()
            else:
                incoming.discard()
            raise
        return incoming

    @property
    def complete(self) -> bool:
        """Whether every byte is there; whether they are the right ones, `verify` says."""
        return self._ranges.covers(0, self.size)

    @property
    def save_due(self) -> bool:
        """Whether enough has arrived since the last save to call `save` in a thread."""
        return self.received - self._saved >= SAVE_EVERY

    def missing(self) -> tuple[Span, ...]:
        """The half-open byte ranges to ask for, in order; at most `MAX_SPANS` + 1."""
        return self._ranges.missing(self.size)

    def write(self, offset: int, payload: bytes | memoryview) -> None:
        """Store a chunk; bytes that are there already change nothing.

        Args:
            offset: place of its first byte in the file, in bytes.
            payload: its bytes.

        Raises:
            ChunkRefused: it lies outside the file, or the file is closed.
            NotEnoughDisk: the disk is full; what was stored before is kept.
        """
        end = offset + len(payload)
        if not 0 <= offset <= end <= self.size:
            raise ChunkRefused(
                f"Bytes {offset} to {end} are outside {self.name}, which has {self.size};"
                " send only what was announced."
            )
        if self._file.closed and not self._published:
            raise ChunkRefused(
                f"{self.name} is not being received; offer it again.", ErrorCode.UNKNOWN_TRANSFER
            )
        if self._ranges.covers(offset, end):
            return
        try:
            ranges = self._ranges.add(offset, end)
        except TooScattered:
            self.dropped += 1
            return
        with self._full_disk_named():
            write_at(self._file, offset, payload)
        self._ranges = ranges
        self.received = ranges.total
        if self.received - self._saved >= SAVE_AT_LATEST:
            self.save()

    def save(self) -> None:
        """Make what has arrived so far survive a crash of the process or of the machine.

        Raises:
            NotEnoughDisk: the disk is full; an earlier save still holds.
        """
        with self._lock, self._full_disk_named():
            ranges = self._ranges
            if self._file.closed or ranges.total == self._saved:
                return
            # The order is the law: claimed is only what was written before this sync.
            os.fsync(self._file.fileno())
            fresh = self._fresh_sidecar
            with fresh.open("wb") as file:
                file.write(msgspec.json.encode(_Saved(self.size, ranges.spans)))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._sidecar)
            self._saved = ranges.total

    def verify(self) -> bool:
        """Whether all bytes are there and hash to the announced root; reads the whole file.

        Raises:
            OSError: the partial file cannot be read.
        """
        if self._published:
            return True
        # A complete file takes no more writes, so what is hashed here is what gets published.
        self._verified = self.complete and hash_file(self._part) == (self.size, self.root)
        return self._verified

    def publish(self) -> Path:
        """Give the verified file its final name, replacing a file of that name.

        Returns:
            The path under which it can now be seen.

        Raises:
            NotVerified: `verify` did not say yes.
            NotEnoughDisk: the disk is full, as some file systems say only now.
            OSError: the name cannot be taken; the partial file stays.
        """
        if not self._verified:
            raise NotVerified(self.name)
        target = self._directory / self.name
        with self._lock, self._full_disk_named():
            if self._published:
                return target
            if not self._file.closed:
                os.fsync(self._file.fileno())
            if sys.platform == "win32":
                self._file.close()  # an open file cannot be renamed there
            self._part.replace(target)
            self._published = True
            # Closed after the rename, so that no other transfer gets the lock of what is visible.
            self._file.close()
            self._forget()
            sync_directory(self._directory)
        return target

    def discard(self) -> None:
        """Remove what arrived, unless it is published or another transfer goes on with it."""
        with self._lock:
            if self._published:
                return
            if self._file.closed:
                try:
                    self._file = open_alone(self._part)
                except AlreadyArriving:
                    return
            self._forget()
            if sys.platform == "win32":
                self._file.close()
            self._part.unlink(missing_ok=True)
            self._file.close()

    def close(self) -> None:
        """Keep what arrived for a later `open`, and let go of the file.

        Raises:
            NotEnoughDisk: what arrived since the last save could not be recorded.
        """
        with self._lock:
            try:
                self.save()
            finally:
                self._file.close()

    @property
    def _fresh_sidecar(self) -> Path:
        return self._sidecar.with_suffix(".ranges-new")

    def _forget(self) -> None:
        """Remove the record; before the bytes that it claims, never after them."""
        self._sidecar.unlink(missing_ok=True)
        self._fresh_sidecar.unlink(missing_ok=True)

    def _load(self) -> Ranges:
        """Read what an earlier process left, believing no byte beyond the partial file's end."""
        there = os.fstat(self._file.fileno()).st_size
        try:
            with self._sidecar.open("rb") as file:
                saved = msgspec.json.decode(file.read(_LONGEST_SIDECAR), type=_Saved)
            ranges = Ranges.of(saved.spans) if saved.size == self.size else Ranges()
        except (FileNotFoundError, ValueError, RecursionError, RangesRefused):
            ranges = Ranges()
        ranges = ranges.below(min(there, self.size))
        if not ranges.spans:
            # A record that is kept would claim the holes of a partial file that grows again.
            self._forget()
            self._file.truncate(0)
        return ranges

    def _check_disk(self, reserve: int) -> None:
        needed, free = self.size - self.received + reserve, self._free(self._directory)
        if needed > free:
            raise NotEnoughDisk(needed, free)

    @contextlib.contextmanager
    def _full_disk_named(self) -> Iterator[None]:
        """Say how much room is missing when the operating system says that there is none."""
        try:
            yield
        except OSError as error:
            if error.errno not in DISK_IS_FULL:
                raise
            needed = max(self.size - self.received, 1)
            raise NotEnoughDisk(needed, self._free(self._directory)) from error
