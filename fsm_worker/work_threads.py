"""Threads for work that takes long, so that nothing short ever waits for it.

    packages   of jobs that wait: unpacked or copied, parsed; deleted when the job is over
    slot       of the one job that runs: read for its stages, its results hashed and packed
    files      on their way: hashed; packages of sleap-rtc's clients are looked at
    asyncio's  all else, by `asyncio.to_thread`: ends of processes, cleaning, probes, logs, the
               journal, the next bytes of a file. None of it waits for a job's files, or for long.

The first three are pools of their own, since any client can fill one: with many packages at once,
or with one on a mount that hangs. The job in the slot must not wait for those behind it.
"""

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

#: So much work is done in one pool at once; what comes then waits.
AT_ONCE = min(32, (os.cpu_count() or 1) + 4)

_P = ParamSpec("_P")
_T = TypeVar("_T")


class InThread(Protocol):
    """Runs blocking work in a thread, as `asyncio.to_thread` does."""

    async def __call__(self, work: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """What the work gives or raises; cancelled, what runs already goes on unheard."""


class ThreadPool:
    """Some threads, which come when there is work.

    Args:
        name: what the threads are called.
    """

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix=name)

    async def __call__(self, work: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """See `InThread`."""
        call = partial(contextvars.copy_context().run, work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def close(self) -> None:
        """Waits for what runs; whoever gave it must have told it to stop."""
        await asyncio.to_thread(self._pool.shutdown)


class WorkThreads:
    """The pools of one worker; see above which work goes where."""

    def __init__(self) -> None:
        self.packages = ThreadPool("packages")
        self.slot = ThreadPool("slot")
        self.files = ThreadPool("files")

    async def close(self) -> None:
        """Waits for all that runs; whoever is cancelled here leaves it to end by itself."""
        async with asyncio.TaskGroup() as group:
            for pool in (self.packages, self.slot, self.files):
                group.create_task(pool.close())
