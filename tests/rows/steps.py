"""What a worker's machines do, told as it happens: nobody outside is told otherwise."""

import asyncio

from fsm_worker.machines.engine import Step, Verdict
from fsm_worker.worker_class import RTCWorkerClient
from protocol.table import MachineName

PATIENCE_S = 10.0  # only a failing test waits that long


class Steps:
    """The rows that fire from now on.

    Args:
        worker: running.
    """

    def __init__(self, worker: RTCWorkerClient) -> None:
        self._fired: list[tuple[MachineName, str]] = []
        self._moved = asyncio.Event()
        self._told = worker.runtime._watch
        worker.runtime._watch = self._watch

    async def until(self, machine: MachineName, row: str, times: int = 1) -> None:
        """Waits until a row has fired so many times."""
        async with asyncio.timeout(PATIENCE_S):
            while self._fired.count((machine, row)) < times:
                self._moved.clear()
                await self._moved.wait()

    def _watch(self, step: Step) -> None:
        if self._told is not None:
            self._told(step)
        if step.verdict is Verdict.ROW:
            self._fired.append((step.machine, step.row))
            self._moved.set()
