"""How long a program waits for its worker: only while there is a link to answer by.

A session that has lost its link dials again, and ends by the timer of its own machine. Whoever
gave up before would report as lost what comes with the next link.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fsm_worker.machines.engine import Step
from protocol.lifecycle import SessionState
from protocol.table import MachineName


class Deadline:
    """One wait that is given up after so many seconds with a link.

    Args:
        limit: ends the wait.
        seconds: from the last beginning.
        runs: there is a link.
    """

    def __init__(self, limit: asyncio.Timeout, seconds: float, *, runs: bool) -> None:
        self._limit = limit
        self._seconds = seconds
        self.run(runs)

    def run(self, runs: bool) -> None:
        """Begins anew, or stands still."""
        self._runs = runs
        self.begin_anew()

    def begin_anew(self) -> None:
        """Something came: all the seconds are left."""
        if not self._limit.expired():
            now = asyncio.get_running_loop().time()
            self._limit.reschedule(now + self._seconds if self._runs else None)


class Patience:
    """All waits of one connection."""

    def __init__(self) -> None:
        self._linked = False
        self._open: set[Deadline] = set()

    def watch(self, step: Step) -> None:
        """Sees the link come and go; is told the steps of all machines."""
        if step.machine is not MachineName.SESSION or step.before == step.after:
            return
        self._linked = step.after == SessionState.ATTACHED
        for deadline in self._open:
            deadline.run(self._linked)

    @contextlib.asynccontextmanager
    async def within(self, seconds: float) -> AsyncIterator[Deadline]:
        """Gives up what is awaited inside after so many seconds with a link.

        Args:
            seconds: they begin anew with every link.

        Raises:
            TimeoutError: they have passed.
        """
        async with asyncio.timeout(None) as limit:
            deadline = Deadline(limit, seconds, runs=self._linked)
            self._open.add(deadline)
            try:
                yield deadline
            finally:
                self._open.discard(deadline)
