"""What an arriving file asks of a disk on every platform: a plain name, room, and to be alone."""

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import Final

from protocol.errors import ErrorCode, ProtocolError

if sys.platform != "win32":
    import fcntl

#: What the operating system says when a write or a sync finds no room.
DISK_IS_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_BLOCK: Final = 1024 * 1024
_NO_LOCKS_HERE: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP})
_FORBIDDEN: Final = frozenset('/\\:*?"<>|')
_WINDOWS_DEVICE: Final = re.compile(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])\s*(\.|$)")
_OWN_FILES: Final = (".part", ".ranges", ".ranges-new")


class AnnouncementRefused(ProtocolError):
    """The name, size or hash of an offered file cannot be: offer it again, corrected."""

    def __init__(self, sentence: str, code: ErrorCode = ErrorCode.MALFORMED) -> None:
        super().__init__(code, sentence)


class NotEnoughDisk(ProtocolError):
    """The disk has no room for the file: free some, or store it elsewhere.

    Args:
        needed: bytes that must be free, the reserve included.
        free: bytes that are.
    """

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(
            ErrorCode.DISK_FULL,
            f"{needed} bytes of disk are needed and {free} are free;"
            " free some space there, or choose another directory.",
        )
        self.needed = needed
        self.free = free


class AlreadyArriving(ProtocolError):
    """Another transfer writes the same content to the same directory: wait for that one."""

    def __init__(self, part: Path) -> None:
        super().__init__(
            ErrorCode.IN_PROGRESS,
            f"The content {part.name[1:13]}… is already on its way into {part.parent};"
            " wait until that transfer has ended.",
        )


def hash_file(path: Path) -> tuple[int, str]:
    """Give the size in bytes and the hexadecimal SHA-256 of a file; call it in a thread.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    block = memoryview(bytearray(_BLOCK))
    size = 0
    with path.open("rb", buffering=0) as source:
        while got := source.readinto(block):
            digest.update(block[:got])
            size += got
    return size, digest.hexdigest()


def check_name(name: str) -> None:
    """Refuse a name that is not one plain component on every platform.

    Raises:
        AnnouncementRefused: it has a separator, a control character, a trailing dot or space, is
            a device of Windows, is too long, or is one that partial files use.
    """
    if (
        not name
        or name != name.rstrip(" .")  # Windows drops these, and `..` is made of them
        or _FORBIDDEN.intersection(name)
        or any(unicodedata.category(character) in {"Cc", "Cs"} for character in name)
        or len(name.encode()) > 255
        or _WINDOWS_DEVICE.match(name)
        or (name.startswith(".") and name.endswith(_OWN_FILES))
    ):
        raise AnnouncementRefused(
            f"{name[:80]!r} cannot be stored as a file; give it one plain name without"
            " separators, control characters or a trailing dot or space.",
            ErrorCode.PATH_ERROR,
        )


def free_bytes(directory: Path) -> int:
    """Bytes that this user may still write to the disk that holds a directory."""
    return shutil.disk_usage(directory).free


def open_alone(part: Path) -> io.FileIO:
    """Open or make a file for writing that no other transfer has open.

    Two writers would spoil what one of them has published. The lock goes with the handle, so a
    killed process leaves none. Windows refuses to rename an open file, which is protection enough
    there; a disk without locks (some network disks) is used without.

    Raises:
        AlreadyArriving: another handle, of this process or another, holds it.
        OSError: it cannot be opened, or it is a symbolic link.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    while True:
        file = io.FileIO(os.open(part, flags, 0o666), "r+b")
        try:
            _lock(file)
            # Whoever held the lock before may have published or removed what we had opened.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                    return file
        except BlockingIOError as error:
            file.close()
            raise AlreadyArriving(part) from error
        except BaseException:
            file.close()
            raise
        file.close()


def write_at(file: io.FileIO, offset: int, payload: bytes | memoryview) -> None:
    """Write all of a payload at a place of a file.

    Raises:
        OSError: the disk is full or fails; part of it may have been written.
    """
    file.seek(offset)
    rest = memoryview(payload)
    while rest:
        rest = rest[file.write(rest) :]


def sync_directory(directory: Path) -> None:
    """Make a rename survive a power cut; Windows has no such call and needs none."""
    if sys.platform != "win32":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _lock(file: io.FileIO) -> None:
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _NO_LOCKS_HERE:
                raise
