"""A storage that clients and this worker both see: which paths in it a client may name.

A path from the wire is taken apart by the rules for an archive's members, and then walked part by
part through descriptors (`openat`, POSIX.1-2008) that follow no link. So it can't leave the root,
whatever it says, and whatever somebody else does to the folders meanwhile. POSIX only; all of it
blocks.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from fsm_worker.services.member_names import ArchiveRefused, parts_of
from protocol.errors import ErrorCode, ProtocolError

MAX_DEPTH: Final = 32
# Windows has none of these; a client there has this module, and no storage in it.
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_ANY_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)
#: Opens a folder and nothing else.
FOLDER: Final = _ANY_FOLDER | _NOFOLLOW
#: Opens a file; a pipe without a writer would hold an ordinary open up.
FILE: Final = os.O_RDONLY | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0)

_NO_STORAGE: Final = (
    "this worker has no shared storage: send the package itself, or ask its operator to name a"
    " root with --shared-storage"
)
_LINK: Final = "is a link, and none is followed: name the folder that it leads to"
_WHY: Final = {
    errno.ENOENT: "is not there: check the path, and that both sides have the same storage",
    errno.ELOOP: _LINK,
    errno.ENOTDIR: "is no folder: check the path",
    errno.EACCES: "may not be read by the worker: check its permissions",
    errno.ENAMETOOLONG: "has a name that is too long",
}


class PathRefused(ProtocolError):
    """A path in the shared storage can't be used: name another.

    Args:
        path: as it was named.
        why: what is wrong with it, and what to do.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(ErrorCode.PATH_ERROR, f"{path[:200]!a} {why}")


class SharedStorage:
    """The storage under one root.

    Args:
        root: a folder; it need not be mounted yet. None where the worker has no such storage.

    Attributes:
        root: the same.
    """

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root).expanduser().absolute() if root else None

    def is_there(self) -> bool:
        """Whether there is a storage, and its root is a folder now."""
        try:
            return self.root is not None and self.root.is_dir()
        except OSError:  # a mount that is stale, say
            return False

    # --- packages ------------------------------------------------------------------------------

    @contextmanager
    def package(self, path: str) -> Iterator[int]:
        """Opens what a client names as its package.

        Args:
            path: relative to the root, `/` between its parts.

        Yields:
            A descriptor of a file or of a folder, open until the block ends.

        Raises:
            PathRefused: the path leads nowhere, out of the root, through a link, or to a device.
            ProtocolError: `not_supported`, there is no shared storage.
        """
        *above, name = self._parts(path)
        with self._folder(above, path) as parent, _told(path):
            kind = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if stat.S_ISLNK(kind):
                raise PathRefused(path, _LINK)
            if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
                raise PathRefused(path, "is neither a file nor a folder: name a package")
            found = os.open(name, FOLDER if stat.S_ISDIR(kind) else FILE, dir_fd=parent)
        try:
            if stat.S_IFMT(os.fstat(found).st_mode) != stat.S_IFMT(kind):
                raise PathRefused(path, "changes while it is read: name it again")
            yield found
        finally:
            os.close(found)

    # --- results -------------------------------------------------------------------------------

    def check_output(self, path: str) -> None:
        """Finds out whether results can go into a folder, before anybody works for them.

        Args:
            path: of the folder; it, and folders above it, need not exist.

        Raises:
            PathRefused: it leads out of the root or through a link, holds something already, or
                may not be written to.
            ProtocolError: `not_supported`, there is no shared storage.
        """
        parts = self._parts(path)
        for end in range(len(parts)):
            with self._folder(parts[:end], path) as parent, _told(path):
                kind = _kind_of(parts[end], parent)
                # the last folder is replaced, the first that is missing is made
                if (not kind or end == len(parts) - 1) and not _may_write(parent):
                    why = "can't be made: the folder above it may not be written by the worker"
                    raise PathRefused(path, why)
                if not kind:
                    return
                if stat.S_ISLNK(kind):
                    raise PathRefused(path, _LINK)
        with self._folder(parts, path) as folder, _told(path):
            if os.listdir(folder):  # noqa: PTH208 - of a descriptor
                raise PathRefused(path, "holds something already: name a new or an empty folder")

    @contextmanager
    def parent_of(self, path: str) -> Iterator[tuple[int, str]]:
        """Opens the folder above one for results; what is missing of it is made.

        Args:
            path: of the folder for results.

        Yields:
            A descriptor of the folder above it, open until the block ends, and the last name.

        Raises:
            PathRefused: as `check_output`, but the folder itself is not looked at.
            ProtocolError: `not_supported`, there is no shared storage.
        """
        *above, name = self._parts(path)
        with self._folder(above, path, make=True) as parent:
            yield parent, name

    # --- inside --------------------------------------------------------------------------------

    def _parts(self, path: str) -> tuple[str, ...]:
        if self.root is None:
            raise ProtocolError(ErrorCode.NOT_SUPPORTED, _NO_STORAGE)
        try:
            return parts_of(path, max_depth=MAX_DEPTH, windows=False)
        except ArchiveRefused as refusal:
            why = refusal.sentence.removesuffix(": rename it")
            raise PathRefused(path, f"{why}: name a path relative to the root") from None

    @contextmanager
    def _folder(self, parts: Sequence[str], path: str, *, make: bool = False) -> Iterator[int]:
        """Opens a folder under the root, part by part."""
        try:
            folder = os.open(str(self.root), _ANY_FOLDER)
        except OSError as error:
            why = f"can't be looked for: the shared storage is not there now ({error.strerror})"
            raise PathRefused(path, why) from None
        try:
            with _told(path):
                for part in parts:
                    folder = _step_into(folder, part, make=make)
            yield folder
        finally:
            os.close(folder)


def open_below(folder: int, name: str, flags: int, mode: int = 0o666) -> int:
    """Open what is in an open folder.

    Args:
        folder: its descriptor.
        name: without a separator.
        flags: with `O_NOFOLLOW`, so that a link is an error.
        mode: of what is made.

    Returns:
        A descriptor.

    Raises:
        OSError: it can't be opened; ELOOP or ENOTDIR if it is a link.
    """
    return os.open(name, flags | _NOFOLLOW, mode, dir_fd=folder)


def _may_write(folder: int) -> bool:
    return os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True)


def _kind_of(name: str, folder: int) -> int:
    """The mode of what has a name in a folder; 0 if nothing has."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _step_into(folder: int, part: str, *, make: bool) -> int:
    """Opens a folder in a folder, and closes the outer one; nothing is closed if it can't."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=folder)
    kind = os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode
    if stat.S_ISLNK(kind):
        raise OSError(errno.ELOOP, "a link")
    inner = os.open(part, FOLDER, dir_fd=folder)
    os.close(folder)
    return inner


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Says what the system refuses in words, and without the root, which is nobody's business."""
    try:
        yield
    except OSError as error:
        why = _WHY.get(error.errno or 0, f"can't be used: {error.strerror}")
        raise PathRefused(path, why) from None
