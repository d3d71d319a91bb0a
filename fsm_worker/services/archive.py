"""Unpacks an archive that somebody else has packed, and finds the script in a package.

Nothing in the archive is believed: names are checked before anything is written, sizes are
counted while they are written, and the folder appears only when it is whole. All of it blocks.
"""

import io
import os
import secrets
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Literal

from fsm_worker.services.manifest import (
    MANIFEST,
    LeftOut,
    Manifest,
    ManifestMismatch,
    read_manifest,
    verify_manifest,
)
from fsm_worker.services.member_names import ArchiveRefused, Names, parts_of
from fsm_worker.services.packing import PackedArchive, choose_results, pack, pack_results, snapshot

__all__ = [
    "MANIFEST",
    "SCRIPTS",
    "ArchiveRefused",
    "LeftOut",
    "Manifest",
    "ManifestMismatch",
    "PackedArchive",
    "UnpackLimits",
    "UnpackStopped",
    "choose_results",
    "find_script",
    "pack",
    "pack_results",
    "package_root",
    "peek",
    "read_manifest",
    "snapshot",
    "unpack",
    "verify_manifest",
]

SCRIPTS = {"train": "train-script.sh", "track": "track-script.sh"}

_CHUNK = 256 * 1024
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # APPNOTE 4.4.4: bits 0, 6 and 13
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_WINDOWS_LINK_OR_DEVICE = 0x400 | 0x40 | 0x8  # reparse point, device, volume label
_LOCAL_HEADER = 30  # bytes, without name and extra
# What zipfile raises on bytes that are not an archive of a kind it knows.
_BROKEN = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error, EOFError),
    *(RuntimeError, ValueError, OverflowError, IndexError, KeyError),
)


@dataclass(frozen=True)
class UnpackLimits:
    """What an archive may become at most.

    Args:
        max_entries: files and folders.
        max_total_bytes: of all files together, unpacked.
        max_ratio: unpacked size to archive size; deflate reaches 1032 at most, `pack` 230.
        ratio_from_bytes: unpacked sizes below this are never too large for their archive.
        max_depth: folders in each other.
    """

    max_entries: int = 20_000
    max_total_bytes: int = 64 * 1024**3
    max_ratio: float = 300.0
    ratio_from_bytes: int = 16 * 1024**2
    max_depth: int = 32

    def bytes_for(self, archive_bytes: int) -> int:
        """Say how much may come out of an archive.

        Args:
            archive_bytes: its size.

        Returns:
            The smaller of the two limits, in bytes.
        """
        by_ratio = max(self.ratio_from_bytes, int(self.max_ratio * archive_bytes))
        return min(self.max_total_bytes, by_ratio)


class UnpackStopped(Exception):
    """Nobody waits for the files any more, and none of them is left: say nothing."""


class _BoundedReads(io.BufferedReader):
    """A file that refuses one huge read: zipfile takes the whole directory in one."""

    def __init__(self, file: Path | int, bound: int) -> None:
        super().__init__(io.FileIO(file))
        self._bound = bound

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self._bound + 1 if size is None or size < 0 else size
        data = super().read(min(wanted, self._bound + 1))
        if len(data) > self._bound:
            raise ArchiveRefused("", "has a larger directory than its entries can need")
        return data


def unpack(
    archive: Path | int,
    dest: Path,
    limits: UnpackLimits | None = None,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """Unpack an archive into a new folder; all of it, or nothing.

    Args:
        archive: a zip file, from anybody; or its descriptor, which is closed.
        dest: the folder to make; its parent must exist.
        limits: what the archive may become; None for the defaults.
        stopped: asked before each member and each block of one, in the thread that unpacks.

    Returns:
        The files, under `dest`, in the archive's order.

    Raises:
        ArchiveRefused: if it is no readable zip archive, or a member has a name that is not
            plain, is neither file nor folder, is encrypted, is there twice, does not match its
            checksum, or goes over a limit.
        UnpackStopped: if `stopped` said yes.
        FileExistsError: if `dest` exists.
        OSError: if the archive can't be opened or the disk fails.
    """
    limits = limits or UnpackLimits()
    if os.path.lexists(dest):
        raise FileExistsError(f"{dest} exists: unpack into a new folder")
    bound = max(_CHUNK, 65_557, limits.max_entries * 512)
    partial = dest.with_name(f".{dest.name}.{secrets.token_hex(4)}.partial")
    with _BoundedReads(archive, bound) as file, _open(file) as opened:
        partial.mkdir()
        try:
            room = limits.bytes_for(os.fstat(file.fileno()).st_size)
            members = _checked_members(opened, limits, room)
            files = _unpack_members(opened, members, partial, room, stopped)
            partial.rename(dest)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return [dest / name for name in files]


def package_root(folder: Path) -> Path:
    """Find the folder of a package that holds its script.

    Args:
        folder: an unpacked package, flat or with one folder at its top.

    Returns:
        The folder itself, or the one in it.

    Raises:
        ArchiveRefused: if neither holds a script.
    """
    inner = [p for p in folder.iterdir() if p.is_dir() and p.name != "__MACOSX"]
    for candidate in [folder, *inner] if len(inner) == 1 else [folder]:
        if any((candidate / name).is_file() for name in SCRIPTS.values()):
            return candidate
    raise ArchiveRefused(
        "", f"holds no {' or '.join(SCRIPTS.values())}, at its top or in its only folder: add one"
    )


def find_script(folder: Path, kind: Literal["train", "track"] | None = None) -> Path:
    """Find the script of a package.

    Args:
        folder: an unpacked package, flat or with one folder at its top.
        kind: which script, where the client said it.

    Returns:
        The script.

    Raises:
        ArchiveRefused: if there is none of that kind, or no kind was said and there are both.
    """
    root = package_root(folder)
    names = [SCRIPTS[kind]] if kind else list(SCRIPTS.values())
    found = [root / name for name in names if (root / name).is_file()]
    if not found:
        raise ArchiveRefused("", f"holds no {names[0]}: add it")
    if len(found) > 1:
        raise ArchiveRefused("", f"holds {' and '.join(names)}: leave one of them out")
    return found[0]


def peek(archive: Path | int, name: str, most: int, limits: UnpackLimits | None = None) -> bytes:
    """Read one file of a package, flat or with one folder at its top, without unpacking it.

    Args:
        archive: a zip file, from anybody; or its descriptor, which is closed.
        name: of the file.
        most: bytes to read of it.
        limits: what the archive may hold; None for the defaults.

    Returns:
        Its first bytes, at most one more than `most`.

    Raises:
        ArchiveRefused: if it is no readable zip archive, or holds no such file.
        OSError: if the archive can't be opened.
    """
    limits = limits or UnpackLimits()
    bound = max(_CHUNK, 65_557, limits.max_entries * 512)
    with _BoundedReads(archive, bound) as file, _open(file) as opened:
        room = limits.bytes_for(os.fstat(file.fileno()).st_size)
        members = _checked_members(opened, limits, room)
        for member, parts in members:
            if parts[-1] == name and len(parts) <= 2 and not member.is_dir():
                found = b""
                for chunk in _chunks(opened, member):
                    found += chunk[: most + 1 - len(found)]
                    if len(found) > most:
                        break
                return found
    raise ArchiveRefused("", f"holds no {name}, at its top or in its only folder: add it")


def _open(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except ArchiveRefused:
        raise
    except (*_BROKEN, OSError) as error:
        raise ArchiveRefused("", f"is not a zip file that can be read: {error}") from None


def _checked_members(
    opened: zipfile.ZipFile, limits: UnpackLimits, room: int
) -> list[tuple[zipfile.ZipInfo, tuple[str, ...]]]:
    """Give the members with the parts of their names; all of them can be unpacked, or none."""
    members = opened.infolist()
    if len(members) > limits.max_entries:
        raise ArchiveRefused("", f"has more than {limits.max_entries} entries: pack fewer files")
    if sum(member.file_size for member in members) > room:
        raise _too_large("", room)
    _refuse_overlaps(members)
    names = Names()
    found = []
    for member in members:
        _refuse_kind(member)
        parts = parts_of(member.orig_filename, max_depth=limits.max_depth)
        names.add(parts, folder=member.is_dir())
        found.append((member, parts))
    return found


def _unpack_members(
    opened: zipfile.ZipFile,
    members: Sequence[tuple[zipfile.ZipInfo, tuple[str, ...]]],
    partial: Path,
    room: int,
    stopped: Callable[[], bool],
) -> list[str]:
    files = []
    for member, parts in members:
        path = partial.joinpath(*parts)
        if stopped():
            raise UnpackStopped
        if member.is_dir():
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        room -= _unpack_file(opened, member, path, room, stopped)
        files.append("/".join(parts))
    return files


def _unpack_file(
    opened: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    path: Path,
    room: int,
    stopped: Callable[[], bool],
) -> int:
    """Write one file and give its size; the size in its header is not believed."""
    size = 0
    with path.open("xb") as out:
        for chunk in _chunks(opened, member):
            size += len(chunk)
            if size > room:
                raise _too_large(member.orig_filename, room)
            if stopped():
                raise UnpackStopped
            out.write(chunk)
    if size != member.file_size:
        raise ArchiveRefused(member.orig_filename, "is cut short: send the archive again")
    return size


def _chunks(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with opened.open(member) as source:
            while chunk := source.read(_CHUNK):
                yield chunk
    except (*_BROKEN, OSError) as error:
        raise ArchiveRefused(
            member.orig_filename, f"can't be unpacked, send the archive again: {error}"
        ) from None


def _refuse_kind(member: zipfile.ZipInfo) -> None:
    """Refuse what is neither a plain file nor a folder, or can't be read."""
    name = member.orig_filename
    mode = member.external_attr >> 16
    expected = stat.S_IFDIR if name.endswith("/") else stat.S_IFREG
    if stat.S_IFMT(mode) not in (0, expected) or member.external_attr & _WINDOWS_LINK_OR_DEVICE:
        raise ArchiveRefused(name, "is a link or a device: put the file itself in")
    if member.flag_bits & _ENCRYPTED:
        raise ArchiveRefused(name, "is encrypted: pack it without a password")
    if member.compress_type not in _METHODS:
        raise ArchiveRefused(name, "is compressed in another way than deflate: pack it again")
    if member.filename != name:
        raise ArchiveRefused(name, "has a second name: pack it again")


def _refuse_overlaps(members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse members that share bytes, the trick that makes small archives unpack to terabytes."""
    spans = sorted((m.header_offset, m.compress_size, m.orig_filename) for m in members)
    for (start, size, _), (following, _, name) in pairwise(spans):
        if start + _LOCAL_HEADER + size > following:
            raise ArchiveRefused(name, "shares its bytes with another: pack it again")


def _too_large(name: str, room: int) -> ArchiveRefused:
    return ArchiveRefused(name, f"does not fit into the {room} bytes left for it when unpacked")
