"""Why a program ended, in a sentence: from its exit record and the end of its log."""

import signal
from pathlib import Path

from fsm_worker.services.launcher import ExitRecord
from fsm_worker.services.log_stream import plain

_TAIL = 8 * 1024  # bytes
_OUT_OF_MEMORY = (
    b"CUDA out of memory",
    b"CUDA_ERROR_OUT_OF_MEMORY",
    b"OutOfMemoryError",
    b"CUBLAS_STATUS_ALLOC_FAILED",
    b"MemoryError",
)


def _tail(log_path: Path) -> bytes:
    with log_path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _TAIL))
        return file.read()


def out_of_memory(record: ExitRecord, log_path: Path) -> bool:
    """Whether the log ends with a known word for it, or the kernel killed the program.

    Args:
        record: of the program.
        log_path: of its output.
    """
    if record.ok:
        return False
    if record.signal == signal.SIGKILL:
        return True  # nobody here sends it before it was asked for: it was the kernel
    return any(word in _tail(log_path) for word in _OUT_OF_MEMORY)


def exit_reason(record: ExitRecord, log_path: Path) -> str:
    """A sentence: how it ended, and the last line that it printed.

    Args:
        record: of the program.
        log_path: of its output.
    """
    if record.lost:
        how = "its supervisor was killed, so nobody saw its end"
    elif record.signal is not None:
        how = f"it was ended by {signal.Signals(record.signal).name}"
    else:
        how = f"it ended with exit code {record.code}"
    lines = plain(_tail(log_path).decode(errors="replace")).split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{how}; its last line: {last[-300:]}" if last else f"{how}, and printed nothing"
