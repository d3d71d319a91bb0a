"""A package in the shared storage: its script is read, and it is copied to where the job runs.

A copy, not a link: a job writes into the folder in which it runs, and what it reads must not change
under it. The rules for what may be in it are those for an archive. All of it blocks.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from fsm_worker.services.archive import (
    SCRIPTS,
    ArchiveRefused,
    UnpackLimits,
    UnpackStopped,
    peek,
    unpack,
)
from fsm_worker.services.disk import NotEnoughDisk, free_bytes
from fsm_worker.services.incoming_file import RESERVE
from fsm_worker.services.member_names import Names, parts_of
from fsm_worker.services.script import MAX_SCRIPT_BYTES
from fsm_worker.services.shared_storage import FILE, FOLDER, SharedStorage, open_below

_CHUNK = 1024 * 1024


def take_package(
    storage: SharedStorage,
    path: str,
    dest: Path,
    limits: UnpackLimits,
    *,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Bring a package into a new folder; all of it, or nothing.

    Args:
        storage: where it lies.
        path: of a zip archive or of a folder, relative to the root.
        dest: the folder to make; its parent must exist.
        limits: what the package may become; the free space of the disk limits it, too.
        stopped: asked before each file and each block of one, in the thread that copies.

    Raises:
        ProtocolError: `path_error` or `not_supported`, from the storage; `disk_full`.
        ArchiveRefused: if it is no package, or has something in it that is not let through.
        UnpackStopped: if `stopped` said yes.
        OSError: if a disk fails.
    """
    with storage.package(path) as package:
        free = free_bytes(dest.parent)
        if free <= RESERVE:
            raise NotEnoughDisk(RESERVE, free)
        room = min(limits.max_total_bytes, free - RESERVE)
        if stat.S_ISDIR(os.fstat(package).st_mode):
            _copy(package, dest, replace(limits, max_total_bytes=room), stopped)
        else:
            unpack(os.dup(package), dest, replace(limits, max_total_bytes=room), stopped=stopped)


def read_commands(storage: SharedStorage, path: str, kind: str) -> str:
    """Read the script of a package where it lies.

    Args:
        storage: where that is.
        path: of a zip archive or of a folder, relative to the root.
        kind: which script, "train" or "track".

    Returns:
        Its text, as far as a script may go.

    Raises:
        ProtocolError: `path_error` or `not_supported`, from the storage.
        ArchiveRefused: if there is none.
        OSError: if the storage fails.
    """
    name = SCRIPTS[kind]
    with storage.package(path) as package:
        if not stat.S_ISDIR(os.fstat(package).st_mode):
            return peek(os.dup(package), name, MAX_SCRIPT_BYTES).decode(errors="replace")
        for folder in ("", *_only_folder(package)):
            text = _read(package, folder, name)
            if text is not None:
                return text.decode(errors="replace")
    raise ArchiveRefused("", f"holds no {name}, at its top or in its only folder: add it")


def _read(package: int, folder: str, name: str) -> bytes | None:
    above = open_below(package, folder or ".", FOLDER)
    try:
        file = os.fdopen(open_below(above, name, FILE), "rb")
    except OSError:
        return None
    finally:
        os.close(above)
    with file:
        regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        return file.read(MAX_SCRIPT_BYTES + 1) if regular else None


@dataclass
class _Copying:
    """How far a copy has come."""

    limits: UnpackLimits
    stopped: Callable[[], bool]
    room: int
    entries: int = 0
    names: Names = field(default_factory=Names)

    def take(self, name: str, size: int) -> None:
        """Counts bytes of a file before they are written."""
        if self.stopped():
            raise UnpackStopped
        self.room -= size
        if self.room < 0:
            limit = self.limits.max_total_bytes
            raise ArchiveRefused(name, f"does not fit into the {limit} bytes left for the package")


def _copy(package: int, dest: Path, limits: UnpackLimits, stopped: Callable[[], bool]) -> None:
    if os.path.lexists(dest):
        raise FileExistsError(f"{dest} exists: copy into a new folder")
    partial = dest.with_name(f".{dest.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    try:
        _copy_folder(package, (), partial, _Copying(limits, stopped, limits.max_total_bytes))
        partial.rename(dest)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _copy_folder(source: int, above: tuple[str, ...], dest: Path, copying: _Copying) -> None:
    for entry in _entries(source, copying):
        name = "/".join((*above, entry.name))
        parts = parts_of(name, max_depth=copying.limits.max_depth)
        is_folder = entry.is_dir(follow_symlinks=False)
        copying.names.add(parts, folder=is_folder)
        copying.take(name, 0)
        if is_folder:
            inner = open_below(source, entry.name, FOLDER)
            try:
                (dest / entry.name).mkdir()
                _copy_folder(inner, parts, dest / entry.name, copying)
            finally:
                os.close(inner)
        elif entry.is_file(follow_symlinks=False):
            _copy_file(source, entry.name, name, dest, copying)
        else:
            raise ArchiveRefused(name, "is a link or a device: put the file itself there")


def _copy_file(source: int, name: str, whole: str, dest: Path, copying: _Copying) -> None:
    with (
        os.fdopen(open_below(source, name, FILE), "rb", buffering=0) as file,
        (dest / name).open("xb") as copy,
    ):
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ArchiveRefused(whole, "changes while it is read: submit it again")
        while block := file.read(_CHUNK):
            copying.take(whole, len(block))
            copy.write(block)


def _entries(folder: int, copying: _Copying) -> list[os.DirEntry[str]]:
    """In the order of their names; no more of them are read than a package may have."""
    most = copying.limits.max_entries
    with os.scandir(folder) as found:
        entries = list(islice(found, most - copying.entries + 1))
    copying.entries += len(entries)
    if copying.entries > most:
        raise ArchiveRefused("", f"has more than {most} entries: put fewer files there")
    return sorted(entries, key=lambda entry: entry.name)


def _only_folder(package: int) -> Sequence[str]:
    """The name of the one folder that is there; nothing, where there is none or another."""
    with os.scandir(package) as found:
        folders = (entry.name for entry in found if entry.is_dir(follow_symlinks=False))
        some = list(islice(folders, 2))
    return some if len(some) == 1 else ()
