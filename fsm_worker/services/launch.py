"""What it takes to bring a stage to life, wherever it runs: the words every launcher shares."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec


class LaunchFailed(Exception):
    """Nothing runs: the message is a sentence that names the program and says what to do."""


@dataclass(frozen=True)
class LaunchSpec:
    """One stage of a job, as a runner made it.

    Args:
        argv: the program, found through PATH of `env`, and its arguments; no shell sees them.
        env: the whole environment of the program; the launcher adds its marker.
        cwd: the working folder of the program; it must exist.
        log_path: where standard output and error are appended, byte for byte.
        record_dir: where the supervisor's records go; made if missing, readable by us only.
        stage: the number of the stage in the job, in the records' names.
        log_limit: bytes of output that this stage may put into the log; further output is
            read and dropped, and the log's last line says so.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log_path: Path
    record_dir: Path
    stage: int
    log_limit: int = 1 << 30


class ExitRecord(msgspec.Struct, frozen=True):
    """How a program ended, as its supervisor wrote it down.

    Args:
        code: the exit code; None if a signal ended it, or nobody saw its end.
        signal: the number of the signal that ended it, if one did.
        started: when it was started, in seconds since the epoch.
        ended: when its end was seen, in seconds since the epoch.
        pid: its process id.
        max_rss_kib: the most memory that it held at once, in KiB; None if nobody saw its end.
        output_bytes: how much it had written when it ended, kept in the log or not.
        log_cut: the log does not hold all of that.
    """

    code: int | None
    signal: int | None
    started: float
    ended: float
    pid: int
    max_rss_kib: int | None = None
    output_bytes: int = 0
    log_cut: bool = False

    @property
    def ok(self) -> bool:
        """Whether the program ended by itself with code 0."""
        return self.code == 0

    @property
    def lost(self) -> bool:
        """Whether nobody saw the end: the supervisor was killed, the program may be alive."""
        return self.code is None and self.signal is None


class Process(Protocol):
    """A stage that was started, wherever it runs."""

    @property
    def pid(self) -> int:
        """The process id of the program."""

    async def wait_exit(self) -> ExitRecord:
        """Wait until the program itself ended. Cancelling is safe."""

    def signal(self, signum: int) -> None:
        """Send a signal to the whole tree; never blocks, never raises if nothing is left."""

    async def wait_gone(self) -> None:
        """Wait until nothing of the stage is left. Cancelling is safe."""

    async def kill_leftovers(self) -> tuple[int, ...]:
        """Kill all that is left, and return the ids of the processes that would not die."""


class Launcher(Protocol):
    """A place where stages can be started."""

    async def start(
        self, spec: LaunchSpec, *, on_output: Callable[[], None] | None = None
    ) -> Process:
        """Start a stage; `on_output` is called, on the loop, after the log grew.

        Raises:
            LaunchFailed: the program could not be started.
        """
