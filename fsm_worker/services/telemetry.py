"""What a running job uses of the machine."""

import time
from collections.abc import Iterator

import psutil

from fsm_worker.services.capabilities import WorkerCapabilities
from fsm_worker.services.nvml import MIB
from protocol.messages import Telemetry


class TelemetrySampler:
    """Samples one running job; one object for each run, used by one thread at a time.

    Args:
        capabilities: knows the job's GPU.
    """

    def __init__(self, capabilities: WorkerCapabilities) -> None:
        self._capabilities = capabilities
        self._at = 0.0
        self._used: dict[tuple[int, float], float] | None = None  # CPU seconds, by process

    def sample(self, job: str, root_pid: int) -> Telemetry:
        """Look at the job's processes and its GPU now; blocking, and never fails.

        Args:
            job: its id.
            root_pid: the process from which all of the job's descend; it may have ended.

        Returns:
            CPU percent since the last sample (0 in the first), resident memory of the whole tree
            (pages that processes share count for each), and what anybody uses of the GPU.
        """
        used: dict[tuple[int, float], float] = {}
        resident = 0
        for process in _tree(root_pid):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    resident += process.memory_info().rss
                    used[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue  # it has ended meanwhile
        load = self._capabilities.gpu_load()
        return Telemetry(
            job=job,
            gpu_percent=load.percent,
            gpu_memory_mb=load.memory_mb,
            cpu_percent=self._percent(used),
            memory_mb=resident // MIB,
        )

    def _percent(self, used: dict[tuple[int, float], float]) -> float:
        now = time.monotonic()
        before, self._used = self._used, used
        elapsed, self._at = now - self._at, now
        if before is None or elapsed <= 0:
            return 0.0
        # All that a process used which was not there before, it used since then.
        seconds = sum(spent - before.get(process, 0.0) for process, spent in used.items())
        return round(max(0.0, seconds) / elapsed * 100, 1)


def _tree(root_pid: int) -> Iterator[psutil.Process]:
    try:
        root = psutil.Process(root_pid)
        yield root
        yield from root.children(recursive=True)
    except psutil.Error:
        return
