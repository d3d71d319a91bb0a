"""Packs a folder into a zip archive: the client's package, and the worker's results.

The same files give the same bytes: members are sorted, their times are the format's first, their
modes are fixed (PKWARE APPNOTE 6.3.10; zlib decides the compressed form). Everything is streamed,
and the archive appears under its name only when it is whole. All of it blocks.
"""

import hashlib
import os
import secrets
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from fsm_worker.services.manifest import MANIFEST, LeftOut, Manifest, PackedFile
from fsm_worker.services.member_names import ArchiveRefused, Names, parts_of

OnBytes = Callable[[int, int], None]
Snapshot = Mapping[str, tuple[int, int]]

_CHUNK = 1024 * 1024
_MAX_DEPTH = 32
# Level 1 is several times faster than a data channel, and never packs tighter than 230:1, so
# that a folder full of zeros is not taken for a bomb.
_LEVEL = 1


@dataclass(frozen=True)
class PackedArchive:
    """An archive that was made.

    Args:
        path: where it is.
        size: in bytes.
        root: its SHA-256, hexadecimal.
        files: how many it holds, the manifest not counted.
        left_out: what could not be packed, and why.
    """

    path: Path
    size: int
    root: str
    files: int
    left_out: tuple[LeftOut, ...] = ()


class _Sink:
    """Counts and hashes what is written; as it can't seek, zipfile never goes back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.flush()

    @property
    def root(self) -> str:
        return self._hash.hexdigest()


def pack(folder: Path, dest: Path, *, on_bytes: OnBytes | None = None) -> PackedArchive:
    """Pack a whole folder, as a client does with its package.

    Args:
        folder: what to pack; the members' names are relative to it.
        dest: the archive to make, replaced if it exists; may lie in the folder.
        on_bytes: told the bytes packed so far and all there are, from this thread; an exception
            from it ends the packing and leaves nothing behind.

    Returns:
        The archive.

    Raises:
        ArchiveRefused: if something in the folder can't be packed for every system: a link to
            outside, a device, an unreadable file, a name that one of them does not allow.
        OSError: if the folder is missing or the disk fails.
    """

    def refuse(fault: ArchiveRefused) -> None:
        raise fault

    members = dict(_walk(folder, ".", refuse, skip=dest))
    _check_names(members, refuse)
    with _archive(dest) as (archive, sink):
        packed = _write(archive, members, on_bytes, refuse)
    return PackedArchive(dest, sink.size, sink.root, len(packed))


def pack_results(
    folder: Path,
    outputs: Sequence[str],
    dest: Path,
    *,
    log: Path | None = None,
    inputs: Snapshot | None = None,
    on_bytes: OnBytes | None = None,
) -> PackedArchive:
    """Pack what a job has made, with a `manifest.json` of hashes; nothing of it stops the rest.

    Args:
        folder: where the job ran; the members' names are relative to it.
        outputs: files and folders in it, from `Runner.outputs`.
        dest: the archive to make, replaced if it exists.
        log: the job's output, packed beside them under its own name.
        inputs: from `snapshot` before the job ran; what is still the same is no result.
        on_bytes: as for `pack`.

    Returns:
        The archive; what could not be packed is in `left_out`, and in the manifest.

    Raises:
        OSError: if the disk fails.
    """
    members, left_out = choose_results(folder, outputs, log=log, inputs=inputs, skip=dest)
    with _archive(dest) as (archive, sink):
        packed = _write(archive, members, on_bytes, lambda fault: left_out.append(_left_out(fault)))
        manifest = Manifest(files=tuple(packed), left_out=tuple(left_out))
        with archive.open(MANIFEST, "w") as member:
            member.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    return PackedArchive(dest, sink.size, sink.root, len(packed), tuple(left_out))


def choose_results(
    folder: Path,
    outputs: Sequence[str],
    *,
    log: Path | None = None,
    inputs: Snapshot | None = None,
    skip: Path | None = None,
) -> tuple[dict[str, Path], list[LeftOut]]:
    """Find what of a folder is a job's results.

    Args:
        folder: where the job ran; the members' names are relative to it.
        outputs: files and folders in it, from `Runner.outputs`.
        log: the job's output, which goes beside them under its own name.
        inputs: from `snapshot` before the job ran; what is still the same is no result.
        skip: a file that is none.

    Returns:
        Files by their names, empty folders with `/` at the end; and what can't be among them.
    """
    left_out: list[LeftOut] = []

    def leave_out(fault: ArchiveRefused) -> None:
        left_out.append(_left_out(fault))

    members: dict[str, Path] = {}
    for output in outputs:
        members.update(_walk(folder, output, leave_out, skip=skip))
    for name, before in (inputs or {}).items():
        if name in members and _fingerprint(members[name]) == before:
            del members[name]
    if members.pop(MANIFEST, None) is not None:
        leave_out(ArchiveRefused(MANIFEST, "has the name of the manifest itself"))
    if log is not None and log.is_file():
        name = log.name
        while name in members:
            name = f"job-{name}"
        members[name] = log
    _check_names(members, leave_out)
    return members, left_out


def _left_out(fault: ArchiveRefused) -> LeftOut:
    name = fault.member.encode(errors="backslashreplace").decode()
    return LeftOut(path=name, why=fault.sentence)


def snapshot(folder: Path) -> Snapshot:
    """Note what is in a folder, to tell results from inputs later.

    Args:
        folder: where a job will run.

    Returns:
        Each file's size in bytes and time in nanoseconds, by its name relative to the folder.
    """
    members = _walk(folder, ".", lambda _: None)
    return {name: _fingerprint(path) for name, path in members if not name.endswith("/")}


def _fingerprint(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _walk(
    folder: Path,
    output: str,
    fault: Callable[[ArchiveRefused], None],
    skip: Path | None = None,
) -> Iterator[tuple[str, Path]]:
    """Find the files and empty folders under one output, by the name they will have."""
    root = folder.resolve(strict=True)
    start = folder / output
    if not start.exists():
        fault(ArchiveRefused(output, "was not written"))
        return
    if not start.resolve().is_relative_to(root):
        fault(ArchiveRefused(output, "lies outside the folder: write it inside"))
        return
    if start.is_file():
        yield Path(os.path.relpath(start, folder)).as_posix(), start
        return
    pending = [start]
    while pending:
        parent = pending.pop()
        name = Path(os.path.relpath(parent, folder)).as_posix()
        try:
            entries = [(path, path.lstat().st_mode) for path in parent.iterdir()]
        except OSError as error:
            fault(ArchiveRefused(name, f"can't be read: {error.strerror}"))
            continue
        if not entries and parent != folder:
            yield f"{name}/", parent
        for path, mode in entries:
            name = Path(os.path.relpath(path, folder)).as_posix()
            if stat.S_ISDIR(mode):
                pending.append(path)
            elif not stat.S_ISREG(_linked(path, root) if stat.S_ISLNK(mode) else mode):
                fault(ArchiveRefused(name, "is no file, or a link to none inside: copy it there"))
            elif not (skip and path.name == skip.name and path.resolve() == skip.resolve()):
                yield name, path


def _linked(path: Path, root: Path) -> int:
    """Give the mode of the file that a link inside the root leads to, or 0."""
    try:
        target = path.resolve(strict=True)
        if target.is_relative_to(root) and target.is_file():
            return target.stat().st_mode
    except (OSError, RuntimeError):  # broken, or a circle
        pass
    return 0


def _check_names(members: dict[str, Path], fault: Callable[[ArchiveRefused], None]) -> None:
    """Drop the members whose names mean something else, or another member, somewhere."""
    names = Names()
    for name in sorted(members):
        try:
            names.add(parts_of(name, max_depth=_MAX_DEPTH), folder=name.endswith("/"))
        except ArchiveRefused as refusal:
            fault(refusal)
            del members[name]


@contextmanager
def _archive(dest: Path) -> Iterator[tuple[zipfile.ZipFile, _Sink]]:
    """Open an archive that takes its name when it is whole, and vanishes if it never is."""
    partial = dest.with_name(f".{dest.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            sink = _Sink(file)
            with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
                yield archive, sink
        partial.replace(dest)
    finally:
        partial.unlink(missing_ok=True)


def _write(
    archive: zipfile.ZipFile,
    members: Mapping[str, Path],
    on_bytes: OnBytes | None,
    fault: Callable[[ArchiveRefused], None],
) -> list[PackedFile]:
    """Stream the members into the archive, in order."""
    total = sum(path.stat().st_size for name, path in members.items() if not name.endswith("/"))
    told, packed, done = on_bytes or (lambda _done, _total: None), [], 0
    told(0, total)
    for name in sorted(members):
        if name.endswith("/"):
            archive.mkdir(name)
            continue
        try:
            source = members[name].open("rb")
        except OSError as error:
            fault(ArchiveRefused(name, f"can't be read: {error.strerror}"))
            continue
        digest, size = hashlib.sha256(), 0
        # Zip64 from the start: the size is known only when the last byte is read.
        with source, archive.open(name, "w", force_zip64=True) as member:
            while chunk := source.read(_CHUNK):
                member.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                told(done + size, max(total, done + size))
        done += size
        packed.append(PackedFile(path=name, size=size, sha256=digest.hexdigest()))
    return packed
