"""Opens and closes files in threads for a task that may be cancelled meanwhile."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from protocol.errors import ProtocolError


class _Closes(Protocol):
    def close(self) -> None: ...


_Opened = TypeVar("_Opened", bound=_Closes)


async def opened_in_thread(opens: Callable[[], _Opened]) -> _Opened:
    """Run what opens; what comes when nobody waits for it any more is closed.

    Args:
        opens: gives something open, or raises; it may block.

    Returns:
        What it gave.

    Raises:
        asyncio.CancelledError: and then nothing stays open.
    """
    lock, given, gone = threading.Lock(), list[_Opened](), threading.Event()

    def work() -> None:
        file = opens()
        with lock:
            if not gone.is_set():
                given.append(file)
                return
        file.close()

    try:
        await asyncio.to_thread(work)
    except asyncio.CancelledError:
        with lock:
            gone.set()
        for file in given:  # it was there, but the task was cancelled before it heard so
            file.close()
        raise
    return given[0]


async def closed_in_threads(files: Collection[_Closes]) -> None:
    """Close them all at once; whoever is cancelled here leaves none of them open.

    Args:
        files: what a disk refuses while they are closed is not told.
    """
    if files:
        loop = asyncio.get_running_loop()
        await asyncio.wait([loop.run_in_executor(None, _closed, file) for file in files])


def _closed(file: _Closes) -> None:
    with contextlib.suppress(OSError, ProtocolError):
        file.close()
