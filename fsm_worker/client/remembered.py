"""Which jobs were submitted from here, and where: so that a job's id alone leads back to it.

One JSON file, readable by its owner only. It is a convenience: whatever happens to it, nothing but
the convenience is lost.
"""

import contextlib
import os
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Entries that are kept, the newest.
MOST = 200
_MAX_BYTES = 4 * 1024 * 1024


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A job, or a worker that no job was submitted to yet."""

    session: str  # the session string
    job: str = ""
    name: str = ""
    at: float = 0.0  # seconds since 1970-01-01 UTC


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: int = 1
    jobs: tuple[Entry, ...] = ()


class Remembered:
    """The file, read once.

    Args:
        path: need not exist.

    Attributes:
        entries: oldest first.
        complaint: says what is wrong with the file; empty if nothing is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries, self.complaint = _read(path)

    def last(self) -> Entry | None:
        """The newest entry."""
        return self.entries[-1] if self.entries else None

    def job(self, job: str) -> Entry | None:
        """The entry of a job."""
        return next((entry for entry in reversed(self.entries) if entry.job == job), None)

    def last_job(self, session: str) -> Entry | None:
        """The newest job at a worker."""
        return next(
            (entry for entry in reversed(self.entries) if entry.job and entry.session == session),
            None,
        )

    def remember(self, session: str, job: str = "", name: str = "") -> None:
        """Writes a job down, or that a worker was used; blocking.

        A damaged file is put aside under the name `….damaged` first.

        Args:
            session: the session string.
            job: its id; empty for the worker alone.
            name: of the job, for people.

        Raises:
            OSError: the disk refuses.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.path.with_suffix(".lock")):
            entries, complaint = _read(self.path)
            if complaint:
                with contextlib.suppress(OSError):
                    self.path.replace(self.path.with_suffix(".json.damaged"))
            if not job and entries and entries[-1].session == session:
                return
            kept = [entry for entry in entries if (entry.job, entry.session) != (job, session)]
            kept.append(Entry(session=session, job=job, name=name, at=time.time()))
            self.entries = kept[-MOST:]
            _write(self.path, msgspec.json.encode(_File(jobs=tuple(self.entries))))


def _read(path: Path) -> tuple[list[Entry], str]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        # what is cut here can't be decoded, and so is refused as damaged
        return list(msgspec.json.decode(raw[:_MAX_BYTES], type=_File).jobs), ""
    except FileNotFoundError:
        return [], ""
    except (OSError, ValueError, RecursionError) as error:
        return [], (
            f"{path} can't be read ({error}): jobs that were submitted earlier need --session"
        )


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keeps other processes out: two commands may end in one moment."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        else:
            # Some file systems know no locks; there, the later of two writers wins.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
