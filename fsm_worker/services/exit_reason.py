"""Why a program ended, in a sentence: from its exit record and the end of its log.

Nothing here raises, whatever the record says and whatever the job did to its log.
"""

import re
import signal
from pathlib import Path

from fsm_worker.services.launch import ExitRecord
from fsm_worker.services.log_stream import coalesce, plain

_TAIL = 64 * 1024  # bytes: room for the deepest traceback of a trainer
_LAST_LINES = 20  # what may follow the traceback that ended a program: summaries, advice
_TRACEBACK = "Traceback (most recent call last)"  # also in the boxes that `rich` draws
_INSIDE_A_TRACEBACK = (" ", "\t", "│", "╭", "╰")
_LINKS = (  # Lib/traceback.py of CPython: between an exception and one that it has led to
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
# `MemoryError` and its kind, numpy's `_ArrayMemoryError` too; torch before 1.13 raises a
# RuntimeError, and the CUDA runtime says "out of memory" for cudaErrorMemoryAllocation.
_OUT_OF_MEMORY = re.compile(
    r"(?:\w+\.)*\w*MemoryError(?::|$)|(?:\w+\.)*\w+: (?:CUDA|CUDA error:) out of memory"
)


def oom_kills(root: Path = Path("/")) -> int | None:
    """Count the processes that the kernel has killed for want of memory; blocking, never fails.

    Args:
        root: where /proc and /sys are.

    Returns:
        `oom_kill` in `memory.events` of this process's cgroup, which is that of its jobs
        (Documentation/admin-guide/cgroup-v2.rst of Linux); where there is none, `oom_kill` of
        /proc/vmstat, which counts for the whole machine; None where neither can be read.
    """
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        groups = []
    ours = (line.removeprefix("0::/") for line in groups if line.startswith("0::/"))
    counters = [root / "sys/fs/cgroup" / group / "memory.events" for group in ours]
    found = (_oom_kill(path) for path in (*counters, root / "proc/vmstat"))
    return next((count for count in found if count is not None), None)


def _oom_kill(path: Path) -> int | None:
    try:
        counts = dict(line.split() for line in path.read_text().splitlines())
        return int(counts["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None


def out_of_memory(
    record: ExitRecord, log_path: Path, *, killed_here: bool, oom_killed: bool | None
) -> bool:
    """Tell whether a program ended for want of memory; blocking, and never fails.

    It is said on evidence only, which is one of these:

    - SIGKILL ended the program, this worker had not sent it, and the kernel has counted a kill
      for want of memory meanwhile. Where its count can't be read, the first two must do.
    - The log ends with a Python traceback, and that with `MemoryError` or one of its kind
      (`torch.OutOfMemoryError`, `torch.cuda.OutOfMemoryError`), with another exception that says
      `CUDA out of memory`, or with an exception to which one of these has led. The same words
      elsewhere in the log are only words.

    Args:
        record: of the program.
        log_path: of its output.
        killed_here: this worker had sent SIGKILL.
        oom_killed: `oom_kills` has grown while the program ran; None if nobody can tell.
    """
    if record.ok:
        return False
    if record.signal == signal.SIGKILL and not killed_here and oom_killed is not False:
        return True
    return any(map(_OUT_OF_MEMORY.match, _raised_at_the_end(_tail(log_path)[0])))


def exit_reason(record: ExitRecord, log_path: Path) -> str:
    """Make a sentence of how a program ended, and the last line that it printed.

    Args:
        record: of the program.
        log_path: of its output.
    """
    if record.lost:
        how = "its supervisor was killed, so nobody saw its end"
    elif record.signal is not None:
        how = f"it was ended by {_signal_name(record.signal)}"
    else:
        how = f"it ended with exit code {record.code}"
    lines, fault = _tail(log_path)
    if fault:
        return f"{how}; its log can't be read: {fault}"
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{how}; its last line: {last[-300:]}" if last else f"{how}, and printed nothing"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal, most of which have no name
        return f"signal {number}"


def _tail(log_path: Path) -> tuple[list[str], str]:
    """Give the last lines of a log as people see them, or why they can't be read."""
    try:
        if not log_path.is_file():  # a job can put a pipe there, which nobody would write to
            return [], "it was deleted or replaced"
        with log_path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return [], error.strerror or "the disk failed"
    return coalesce(plain(text)).split("\n"), ""


def _raised_at_the_end(lines: list[str]) -> list[str]:
    """Give the line of the exception whose traceback ends a log, after those that led to it."""
    raised: list[str] = []
    inside = linked = False
    since = 0
    for line in lines:
        if _TRACEBACK in line:
            raised = raised if linked else []
            inside, linked = True, False
        elif inside and line and not line.startswith(_INSIDE_A_TRACEBACK):
            raised.append(line)
            inside, since = False, 0
        else:
            linked = linked or line in _LINKS
            since += bool(line.strip())
    return [] if inside or since > _LAST_LINES else raised
