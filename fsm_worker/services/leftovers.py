"""Finds what is left of a launch, by its marker and by its session. POSIX only."""

import asyncio
import contextlib
import os

import psutil

#: The environment variable that every process of a launch carries.
MARKER = "FSM_WORKER_JOB"
_LOOK_AGAIN = 0.2  # seconds between two looks at a process whose end is no event here


def find_leftovers(
    marker: str, supervisor_pid: int | None, program: psutil.Process | None
) -> list[psutil.Process]:
    """Return the living processes of one launch, without its supervisor.

    Args:
        marker: the word in the environment of each of them, unless it was overwritten.
        supervisor_pid: the supervisor while it is not reaped: its descendants belong to it.
        program: the job's program, dead or alive: so do the members of its session, unless its
            process id has come to belong to a stranger.
    """
    session = None
    if program is not None and (program.is_running() or not psutil.pid_exists(program.pid)):
        session = program.pid
    candidates: dict[int, psutil.Process] = {}
    parents: dict[int, int] = {}
    ours = set() if supervisor_pid is None else {supervisor_pid}
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            parents[pid] = process.ppid()
            candidates[pid] = process
            if os.getsid(pid) == session or process.environ().get(MARKER) == marker:
                ours.add(pid)
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return [candidates[pid] for pid in ours - {supervisor_pid, os.getpid()} if pid in candidates]


async def end_of(process: psutil.Process) -> None:
    """Wait until a process that is not our child has ended.

    Args:
        process: found before; one that has ended, or whose id is a stranger's, ends the wait.
    """
    ended = asyncio.Event()
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):
        await asyncio.sleep(_LOOK_AGAIN)  # this system tells nobody but the parent
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, ended.set)
    try:
        if process.is_running():  # the descriptor is not that of a stranger with the same id
            await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)
