"""Opens a file in a thread for a task that may be cancelled meanwhile."""

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar


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
