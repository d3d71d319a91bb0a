"""What may be left of a worker that has ended: in the operating system, and in its own parts."""

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from fsm_worker.folders import claimed
from fsm_worker.machines.engine import Instance
from fsm_worker.machines.job import ON_GPU
from fsm_worker.machines.worlds import at_rest
from fsm_worker.worker_class import RTCWorkerClient
from protocol.table import MachineName

M = MachineName
Machine = Instance[Any, Any]


def _has_process(worker: RTCWorkerClient, job: Machine) -> bool:
    run = worker.job_executor._runs.get(job.subject)
    found = run is not None and run.process is not None and run.process._find_leftovers()
    return job.state in ON_GPU and bool(found)


def _has_spool(worker: RTCWorkerClient, guest: Machine) -> bool:
    one = worker.guests._guests.get(guest.subject)
    return one is not None and (one.arriving, one.package, one.results) != (None, None, None)


#: What a machine that has not ended stands for. A cancelled worker decides nothing any more, so its
#: machines stay in the states that they were in: only what they stand for has to be gone.
STANDS_FOR: Mapping[MachineName, tuple[str, Callable[[RTCWorkerClient, Machine], bool]]] = {
    M.JOB: ("a process", _has_process),
    M.LINK: ("a peer connection", lambda worker, link: link.subject in worker._peers),
    M.RECEIVING: (
        "an open file", lambda worker, file: file.subject in worker.file_manager._incoming
    ),
    M.GUEST: ("a spool", _has_spool),
    M.SIGNALLING: ("a socket", lambda worker, _server: worker.signaling._outgoing is not None),
}  # fmt: skip
#: Machines of which none may live when a worker has left by itself.
_ENDED = (M.JOB, M.LINK, M.SESSION, M.RECEIVING, M.SENDING, M.GUEST, M.TALK)


def still_held(worker: RTCWorkerClient, *, left_by_itself: bool) -> list[str]:
    """The machines of a worker that has ended are at rest, or stand for nothing any more."""
    faults = [
        f"{name} {one.subject} is {one.state}, and has {what}"
        for name, (what, is_there) in STANDS_FOR.items()
        for one in worker.world.live(name)
        if is_there(worker, one)
    ]
    if left_by_itself:
        faults += [f"{name} {one} lives" for name in _ENDED for one in worker.world.live(name)]
        faults += [] if at_rest(worker.world) else ["the world is not at rest"]
    faults += [f"timer {timer}" for timer in worker.runtime._timers]
    faults += [f"task {task.get_name()}" for task in worker.runtime._tasks]
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(claimed(worker.settings.state))
        except RuntimeError as error:
            faults.append(str(error))
    return faults


def processes_of(state: Path) -> list[psutil.Process]:
    """Our descendants, and whoever else works in the worker's folder."""
    found = set(psutil.Process().children(recursive=True))
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(state) in process.cwd() or str(state) in " ".join(process.cmdline()):
                found.add(process)
    return sorted(found, key=lambda process: process.pid)


def open_files() -> set[str]:
    """Descriptors with what they are of."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(f"{descriptor.name} {descriptor.readlink()}")
    return {one for one in found if "/fd" not in one.split(" ", 1)[1]}


def journal_faults(path: Path) -> list[str]:
    """The journal can be read, and each subject's steps follow on each other."""
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as database:
        faults = [row[0] for row in database.execute("PRAGMA integrity_check") if row[0] != "ok"]
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name='transitions'").fetchone():
            return faults
        now: dict[tuple[str, str], str] = {}
        for machine, subject, row, before, after in database.execute(
            "SELECT machine, subject, row, before, after FROM transitions ORDER BY id"
        ):
            if now.get((machine, subject), before) != before:
                faults.append(f"{machine} {subject}: {row} from {before}")
            now[machine, subject] = after
    return faults
