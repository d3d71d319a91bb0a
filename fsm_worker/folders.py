"""Where this program keeps its state, on each operating system, and who may use it at a time."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import platformdirs

#: In a worker's folder: its key, and the line by which a client on this machine gets to it.
WORKER_KEY = "worker.key"
SESSION_FILE = "session"


class StateInUse(RuntimeError):
    """Another process works with this state folder: stop it, or name another folder."""


def state_folder(role: str) -> Path:
    """The folder of a role ("worker" or "client"); `FSM_WORKER_STATE` moves both.

    Args:
        role: names the folder inside.
    """
    chosen = os.environ.get("FSM_WORKER_STATE")
    base = Path(chosen) if chosen else platformdirs.user_state_path("fsm-worker", appauthor=False)
    return base / role


def make_private(folder: Path) -> None:
    """Makes a folder that only its owner can enter; keys, journal and jobs are in it."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.name == "posix":
        folder.chmod(0o700)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Holds a state folder while a worker runs; the operating system lets go of it with us.

    Raises:
        StateInUse: another process holds it.
    """
    if sys.platform == "win32":  # a worker runs on POSIX
        yield
        return
    import fcntl  # noqa: PLC0415 - POSIX only

    with (folder / "in-use").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateInUse(
                f"another worker uses {folder}: stop it, or give this one another --state"
            ) from error
        yield
