"""Faults of a machine that a test can't have otherwise: of its driver, processes and disk."""

import asyncio
import contextlib
import signal
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import pynvml
import pytest

from fsm_worker.services import capabilities
from fsm_worker.services.launcher import LocalProcess
from fsm_worker.services.nvml import PynvmlDriver
from tests.e2e.lab import Lab
from tests.services.test_capabilities import PATIENCE, Library


class Driver(Library):
    """The library of a driver with one GPU, which nobody uses.

    Attributes:
        broken: what it raises, instead of an error of its own kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gpus = self.gpus[:1]
        self.gpus[0].pids = []
        self.broken: Exception | None = None
        self._answering = threading.Event()
        self._answering.set()

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        self._answering.wait(PATIENCE)
        if self.broken is not None:
            raise self.broken
        super().nvmlInit()

    def fails(self) -> None:
        """From now on it answers with an error."""
        self.errors = {"nvmlInit": pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH}
        self._answering.set()

    def hangs(self) -> None:
        """From now on it does not answer."""
        self._answering.clear()

    def works(self) -> None:
        """From now on it answers."""
        self.errors, self.broken = {}, None
        self._answering.set()


def played_driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """The driver of all workers that are made after this."""
    library = Driver()
    monkeypatch.setattr(capabilities, "PynvmlDriver", lambda: PynvmlDriver(library))
    return library


async def _refuses(process: LocalProcess) -> tuple[int, ...]:
    return (process.pid,)


async def _hangs(process: LocalProcess) -> tuple[int, ...]:
    await asyncio.Event().wait()
    return (process.pid,)


async def _breaks(_process: LocalProcess) -> tuple[int, ...]:
    raise OSError("/proc can't be read")


class Way(NamedTuple):
    """What becomes of an attempt to kill what is left of a job, and what is said of it."""

    kill: Callable[[LocalProcess], Awaitable[tuple[int, ...]]]
    said: str


REFUSES = Way(_refuses, "of the last job do not die")
HANGS = Way(_hangs, "a process of the last job does not die")
BREAKS = Way(_breaks, "/proc can't be read")


class Undead:
    """What is left of a job does not die until the test says so.

    Args:
        way: how.

    Attributes:
        attempts: one for each time that somebody tries to kill it.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
        self.attempts: asyncio.Queue[int] = asyncio.Queue()
        self._dead = False
        kills = LocalProcess.kill_leftovers

        async def kill_leftovers(process: LocalProcess, *, grace: float = 5.0) -> tuple[int, ...]:
            self.attempts.put_nowait(process.pid)
            return await (kills(process, grace=grace) if self._dead else way.kill(process))

        monkeypatch.setattr(LocalProcess, "kill_leftovers", kill_leftovers)

    def dies(self) -> None:
        """From now on it can be killed."""
        self._dead = True


def refuse_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first SIGKILL of all raises."""
    signals, refused = LocalProcess.signal, []

    def send(process: LocalProcess, number: int) -> None:
        if number == signal.SIGKILL and not refused:
            refused.append(process)
            raise PermissionError("no signal gets there")
        signals(process, number)

    monkeypatch.setattr(LocalProcess, "signal", send)


def fill_disk(lab: Lab) -> None:
    """From now on SQLite says of each step that the disk is full."""
    with contextlib.closing(sqlite3.connect(lab.worker.journal.path)) as database, database:
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON transitions"
            " BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
        )
