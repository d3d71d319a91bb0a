"""The worker is cancelled at the n-th suspension of any of its tasks: nothing of it is left.

In every run a few n are tried, from an offset that is printed; `make sweep` tries them all.
"""

import asyncio
import contextlib
import gc
import os
import random
import time
import warnings
from pathlib import Path
from typing import Any

import psutil
import pytest

from fsm_worker.examples.digits.package import build_package
from fsm_worker.seams import signaling_link
from fsm_worker.services.archive import PackedArchive, pack
from protocol.lifecycle import Outcome
from tests.sweep.leftovers import journal_faults, open_files, processes_of, still_held
from tests.sweep.memory import JOURNAL, Client, MemorySocket, enter_room, worker_in
from tests.sweep.suspensions import Suspensions

EVERY = os.environ.get("FSM_WORKER_SWEEP") == "every"
SEED = int(os.environ.get("FSM_WORKER_SWEEP_SEED", str(random.randrange(10**6))))  # noqa: S311
#: How many are tried in a run that does not try every n, and for how long at most.
A_FEW, AT_MOST_S = 6, 25.0


@pytest.fixture
def package(tmp_path: Path) -> PackedArchive:
    return pack(build_package(tmp_path / "digits", epochs=1), tmp_path / "digits.zip")


@pytest.fixture(autouse=True)
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signaling_link, "SignalingSocket", MemorySocket)
    monkeypatch.setattr("fsm_worker.worker_class.enter_room", enter_room)


class Run:
    """One worker from its start to its end.

    Args:
        folder: does not exist yet.
        package: of its job.
        cancel_at: the suspension.
    """

    def __init__(self, folder: Path, package: PackedArchive, cancel_at: int) -> None:
        self.state = folder
        self._older = set(psutil.Process().children(recursive=True))  # of tests before this one
        self.suspensions = Suspensions(cancel_at)
        self.faults: list[str] = []
        self.outcome = Outcome.NONE
        MemorySocket.opened = []
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            asyncio.run(self._live(package))
            gc.collect()
        self.faults += [f"warning: {warning.message}" for warning in warned]

    async def _live(self, package: PackedArchive) -> None:
        asyncio.get_running_loop().set_exception_handler(self._note)
        worker = worker_in(self.state)
        client = Client(worker, package)
        asyncio.get_running_loop().call_soon(client.comes)
        main = self.suspensions.watch(worker.run_worker(None, "ws://127.0.0.1", 1))
        async with asyncio.timeout(30):
            with contextlib.suppress(asyncio.CancelledError):
                await main
        self.outcome = client.outcome
        if self.suspensions.cancelled and not main.cancelled():
            # it may have come too late to matter, and then the worker had left by itself
            self.faults += [] if main.exception() is None else [f"ended by {main.exception()!r}"]
        left = asyncio.all_tasks() - {asyncio.current_task()}
        self.faults += [f"task left: {task}" for task in left]
        self.faults += [
            "the signaling socket is open" for socket in MemorySocket.opened if not socket.closed
        ]
        self.faults += still_held(worker, left_by_itself=not main.cancelled())

    def _note(self, _loop: object, context: dict[str, Any]) -> None:
        self.faults.append(f"loop: {context.get('message')} {context.get('exception')!r}")

    def leftovers(self, open_before: set[str]) -> list[str]:
        """What the operating system still has of it."""
        found = [one for one in processes_of(self.state) if one not in self._older]
        left = [f"process left: {process}" for process in found]
        left += [f"open: {what}" for what in sorted(open_files() - open_before)]
        left += [f"journal: {fault}" for fault in journal_faults(self.state / JOURNAL)]
        return left


def test_wherever_the_worker_is_cancelled_nothing_of_it_is_left(
    tmp_path: Path, package: PackedArchive
) -> None:
    whole = Run(tmp_path / "warm", package, 0)  # opens what Python keeps open, and counts
    assert (whole.outcome, whole.faults) == (Outcome.SUCCEEDED, [])
    before, total, tried = open_files(), whole.suspensions.count, 0
    assert whole.leftovers(before) == []
    stride = 1 if EVERY else max(1, total // A_FEW)
    at = 1 if EVERY else 1 + SEED % stride
    print(f"FSM_WORKER_SWEEP_SEED={SEED}: of {total} suspensions every {stride}, from {at}")  # noqa: T201
    started = time.monotonic()
    while EVERY or time.monotonic() - started < AT_MOST_S:
        run = Run(tmp_path / f"at-{at}", package, at)
        assert run.faults + run.leftovers(before) == [], f"cancelled at {at} of {total}, {SEED=}"
        if not run.suspensions.cancelled:
            break
        at, tried = at + stride, tried + 1
    assert tried >= 3
