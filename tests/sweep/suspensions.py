"""Counts how often tasks give the loop its turn, and cancels one of them at the n-th time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Suspensions:
    """Of a task, and of every task that is begun by anybody after `watch`.

    Args:
        cancel_at: the suspension at which the task is cancelled, from 1; 0 cancels it nowhere.

    Attributes:
        count: suspensions so far, those after the cancellation included.
        cancelled: whether it came so far.
    """

    def __init__(self, cancel_at: int = 0) -> None:
        self.cancel_at = cancel_at
        self.count = 0
        self.cancelled = False
        self._main: asyncio.Task[Any] | None = None

    def watch(self, main: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Begins the task that is cancelled."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(
            lambda loop, work, **kw: asyncio.Task(_Counted(work, self.note), loop=loop, **kw)
        )
        self._main = loop.create_task(main)
        return self._main

    def note(self) -> None:
        """A task has been suspended."""
        self.count += 1
        if self.count == self.cancel_at and self._main is not None:
            # a task that is cancelled while it runs is so at what it waits for next: here
            self.cancelled = self._main.cancel()


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells each of its suspensions."""

    def __init__(self, work: Coroutine[Any, Any, Any], note: Callable[[], None]) -> None:
        self._work = work
        self._note = note
        self.__name__ = self.__qualname__ = getattr(work, "__qualname__", "?")  # as tasks are shown

    def send(self, value: Any) -> Any:
        waits_for = self._work.send(value)
        self._note()
        return waits_for

    def throw(self, *error: Any) -> Any:
        waits_for = self._work.throw(*error)
        self._note()
        return waits_for

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Any:
        return self._work.__await__()
