"""Puts a job's results into the shared storage: a whole folder at once, or nothing.

The folder is made under a name of its own beside its place, and then renamed (`renameat`,
POSIX.1-2008), which replaces an empty folder and nothing else. What somebody has put there is never
overwritten. All of it blocks.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from fsm_worker.services.archive import MANIFEST, LeftOut, Manifest
from fsm_worker.services.disk import NotEnoughDisk
from fsm_worker.services.incoming_file import RESERVE
from fsm_worker.services.manifest import PackedFile
from fsm_worker.services.packing import OnBytes
from fsm_worker.services.shared_storage import (
    FOLDER,
    PathRefused,
    SharedStorage,
    open_below,
)
from protocol.lifecycle import ResultsState
from protocol.messages import ResultsInfo

_CHUNK = 1024 * 1024
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
#: What a rename says of a place where something is.
_TAKEN = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR})


def place_results(
    storage: SharedStorage,
    path: str,
    job: str,
    members: Mapping[str, Path],
    left_out: Sequence[LeftOut] = (),
    *,
    on_bytes: OnBytes = lambda _done, _total: None,
) -> ResultsInfo:
    """Copy results into a folder of the shared storage, with a `manifest.json` of hashes.

    Args:
        storage: where to.
        path: of the folder, relative to the root. If something came into it since it was checked,
            the folder gets `-` and the job's id after its name.
        job: the id.
        members: from `choose_results`: files, and empty folders with `/` at the end.
        left_out: for the manifest.
        on_bytes: told the bytes copied so far and all there are, from this thread; an exception
            from it ends the copying and leaves nothing behind.

    Returns:
        Where they lie, and the manifest's hash.

    Raises:
        ProtocolError: `path_error`, `not_supported` or `disk_full`; nothing is left there.
        OSError: a disk fails.
    """
    total = sum(file.stat().st_size for name, file in members.items() if not name.endswith("/"))
    with storage.parent_of(path) as (parent, name):
        disk = os.fstatvfs(parent)
        free = disk.f_bavail * disk.f_frsize
        if free < total + RESERVE:
            raise NotEnoughDisk(total + RESERVE, free)
        partial = f".{secrets.token_hex(8)}.partial"
        os.mkdir(partial, dir_fd=parent)
        try:
            folder = open_below(parent, partial, FOLDER)
            try:
                missing = [*left_out]
                files = _fill(folder, members, total, on_bytes, missing)
                manifest = _write_manifest(folder, files, missing)
                _as_before(parent, name, folder)
            finally:
                os.close(folder)
            final = _publish(parent, partial, name, job, path)
        except BaseException:
            shutil.rmtree(partial, dir_fd=parent, ignore_errors=True)
            raise
    return ResultsInfo(
        state=ResultsState.SHARED,
        size=sum(file.size for file in files),
        files=len(files),
        folder=f"{path.removesuffix('/').removesuffix(name)}{final}",
        manifest=manifest,
    )


def _fill(
    folder: int,
    members: Mapping[str, Path],
    total: int,
    on_bytes: OnBytes,
    missing: list[LeftOut],
) -> list[PackedFile]:
    files, done = [], 0
    on_bytes(0, total)
    for name in sorted(members):
        *above, last = name.removesuffix("/").split("/")
        with _Below(folder, above) as inner:
            if name.endswith("/"):
                inner.into(last)
                continue
            digest, size = hashlib.sha256(), 0
            try:
                source = members[name].open("rb")
            except OSError as error:
                missing.append(LeftOut(path=name, why=f"can't be read: {error.strerror}"))
                continue
            with (
                source,
                os.fdopen(open_below(inner.folder, last, _NEW), "wb") as copy,
            ):
                while block := source.read(_CHUNK):
                    copy.write(block)
                    digest.update(block)
                    size += len(block)
                    on_bytes(done + size, max(total, done + size))
        done += size
        files.append(PackedFile(path=name, size=size, sha256=digest.hexdigest()))
    return files


class _Below:
    """A folder under the one that is filled, made as it is entered."""

    def __init__(self, folder: int, above: Sequence[str]) -> None:
        self.folder = os.dup(folder)
        for part in above:
            self.into(part)

    def into(self, part: str) -> None:
        """Goes one folder down."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, dir_fd=self.folder)
        inner = open_below(self.folder, part, FOLDER)
        os.close(self.folder)
        self.folder = inner

    def __enter__(self) -> "_Below":
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.folder)


def _write_manifest(folder: int, files: Sequence[PackedFile], left_out: Sequence[LeftOut]) -> str:
    manifest = Manifest(files=tuple(files), left_out=tuple(left_out))
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    with os.fdopen(open_below(folder, MANIFEST, _NEW), "wb") as file:
        file.write(data)
    return hashlib.sha256(data).hexdigest()


def _as_before(parent: int, name: str, folder: int) -> None:
    """Gives the folder owner and permissions of the empty one that it replaces."""
    try:
        before = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(before.st_mode):
        for owner, group in ((-1, before.st_gid), (before.st_uid, -1)):
            with contextlib.suppress(PermissionError):  # most workers may not give files away
                os.fchown(folder, owner, group)
        os.fchmod(folder, stat.S_IMODE(before.st_mode))


def _publish(parent: int, partial: str, name: str, job: str, path: str) -> str:
    for final in (name, f"{name}-{job}"):
        try:
            os.rename(partial, final, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        else:
            return final
    raise PathRefused(path, "holds something by now, and so does the folder beside it")
