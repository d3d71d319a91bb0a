"""What this worker can run: its GPU, the host, its runners."""

import asyncio
import os
import platform
import shutil
import socket
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Final

import psutil

from fsm_worker.effects import ProbeHost
from fsm_worker.events import Event, ProbeFailed, ProbeSucceeded
from fsm_worker.services.compatibility import Offer, unmet
from fsm_worker.services.declared import Declared
from fsm_worker.services.gpu_choice import VISIBLE, GpuChoice, NoSuchGpu
from fsm_worker.services.nvml import (
    MIB,
    GpuDriverFailed,
    Load,
    Nvml,
    PatientNvml,
    PynvmlDriver,
)
from fsm_worker.services.shared_storage import SharedStorage
from protocol.messages import Capabilities
from protocol.sleap_rtc.peer import JOB_TYPES, need_of
from protocol.table import MachineName

_NOTHING: Final = Declared()


class WorkerCapabilities:
    """What this worker can run.

    Args:
        gpu_id: which GPU is this worker's; see `gpu_choice`.
        emit: reports events.
        nvml: the driver; the real one by default.
        runners: their names.
        disk: where jobs are kept.
        declared: what the operator says of the machine; it stands over what the driver says.
        shared: the storage that clients see, too.
        environ: where CUDA_VISIBLE_DEVICES is inherited from.

    Attributes:
        gpu_id: as above.
        declared: as above.
    """

    def __init__(
        self,
        gpu_id: int = 0,
        *,
        emit: Callable[[MachineName, str, Event], None] | None = None,
        nvml: Nvml | None = None,
        runners: tuple[str, ...] = (),
        disk: Path | None = None,
        declared: Declared = _NOTHING,
        shared: SharedStorage | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.gpu_id = gpu_id
        self.declared = declared
        self._emit = emit
        self._nvml = nvml or PatientNvml(PynvmlDriver())
        self._runners = runners
        self._disk = disk
        self._shared = shared or SharedStorage()
        self._choice = GpuChoice(gpu_id, self._nvml, declared, environ.get(VISIBLE))

    # --- what it is --------------------------------------------------------------------------

    @property
    def gpu_memory_mb(self) -> int:
        """MiB in all of this worker's GPU; 0 without. The first look at the driver blocks."""
        gpu = self._choice.offered
        return 0 if gpu is None else gpu.memory_mb

    @property
    def gpu_model(self) -> str:
        """The model of this worker's GPU; empty without."""
        gpu = self._choice.offered
        return "" if gpu is None else gpu.model

    @property
    def cuda_version(self) -> str:
        """The highest CUDA version that the driver supports, as `11.8`; empty without a GPU."""
        return self._choice.measured.cuda

    @property
    def gpu_uuid(self) -> str:
        """The UUID of this worker's GPU; empty without."""
        return self._choice.measured.uuid

    def snapshot(self) -> Capabilities:
        """Look at the machine now; blocking.

        Returns:
            What is there; of the GPUs, those that this process may use.

        Raises:
            GpuDriverFailed: the GPU's driver does not work.
            NoSuchGpu: there are GPUs, but not the chosen one.
        """
        gpus = self._choice.look()
        return Capabilities(
            gpus=gpus,
            runners=self._runners,
            cpus=_cpus(),
            memory_mb=psutil.virtual_memory().total // MIB,
            disk_free_mb=_free_mb(self._disk),
            hostname=socket.gethostname(),
            platform=platform.platform(),
            gpu=self._choice.measured.uuid,
            declared=self.declared.names,
            tags=self.declared.tags,
            shared_storage=self._shared.is_there(),
        )

    # --- effects -----------------------------------------------------------------------------

    async def probe_host(self, effect: ProbeHost) -> None:
        """Looks at the machine, and says what is there or why the driver does not tell."""
        event: Event
        try:
            event = ProbeSucceeded(capabilities=await asyncio.to_thread(self.snapshot))
        except (GpuDriverFailed, NoSuchGpu) as failure:
            event = ProbeFailed(reason=failure.sentence)
        if self._emit is not None:
            self._emit(MachineName.WORKER, effect.subject, event)

    # --- for jobs ----------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """What a job's process needs in its environment to see this worker's GPU and no other.

        Returns:
            CUDA_VISIBLE_DEVICES with one UUID; with nothing in it where the chosen GPU is not
            there; no variable at all on a machine without a GPU.
        """
        visible = self._choice.known()
        if not visible:
            return {}
        chosen = self._choice.chosen
        return {VISIBLE: chosen.name if chosen is not None else ""}

    def gpu_free(self, pids: Set[int] | None = None) -> tuple[bool, str]:
        """Whether nobody else computes on this worker's GPU; blocking.

        Args:
            pids: the processes that are ours; by default this one and its descendants.

        Returns:
            True, or False and a sentence that names who does. Always true without a GPU.

        Raises:
            GpuDriverFailed: the GPU's driver does not work.
        """
        gpu = self._choice.measured
        if not gpu.uuid:
            return True, ""
        ours = _own_tree() if pids is None else pids
        others = sorted(set(self._nvml.compute_pids(gpu.uuid)) - ours)
        if not others:
            return True, ""
        users = " and ".join(map(_who, others))
        return False, (
            f"the GPU ({gpu.model}, {gpu.uuid}) is in use by {users}: "
            "wait until that has ended, or use another GPU"
        )

    def gpu_load(self) -> Load:
        """How busy this worker's GPU is, nothing where nobody can tell; blocking."""
        gpu = self._choice.measured
        if not gpu.uuid:
            return Load()
        try:
            return self._nvml.load(gpu.uuid)
        except GpuDriverFailed:
            return Load()  # a job goes on without its gauge; the next probe says what is wrong

    def compatibility(self, need: Mapping[str, str]) -> tuple[str, ...]:
        """What of a job's needs this worker does not meet; asks the disk, so it may block.

        Args:
            need: requirements by name, as `protocol.need` describes them.

        Returns:
            A sentence for each that is not met, that can't be read, or that is not known.
        """
        return unmet(need, Offer(
            gpu=self._choice.offered,
            runners=self._runners,
            tags=self.declared.tags,
            cpus=_cpus(),
            memory_mb=psutil.virtual_memory().total // MIB,
            disk_free_mb=_free_mb(self._disk),
        ))  # fmt: skip

    # --- by sleap-rtc's names (0.0.7, `worker/capabilities.py`) ---------------------------------

    def check_job_compatibility(self, request: Mapping[str, object]) -> bool:
        """Whether this worker can do the job of a `job_request`; may block.

        The kind of model is not looked at: what sleap-nn trains is in its configuration files.

        Args:
            request: its `job_type` and its `requirements.min_gpu_memory_mb` are looked at; from a
                peer, it may hold anything.

        Returns:
            Whether nothing is asked for that is not here; `compatibility` says what is not.
        """
        return not self.compatibility(need_of(request))

    def estimate_job_duration(self, request: Mapping[str, object]) -> int | None:
        """How many minutes a job will take: not known.

        sleap-rtc says half a minute for each epoch and a minute for each 100 frames, of any model
        on any GPU. Nothing here measures what a job of this kind took before.

        Args:
            request: not looked at.

        Returns:
            None.
        """
        del request
        return None

    def get_gpu_utilization(self) -> float | None:
        """The part of the time, from 0 to 1, in which this worker's GPU was busy lately; blocking.

        Returns:
            It, or None where nobody can tell, as without a GPU.
        """
        percent = self.gpu_load().percent
        return None if percent is None else percent / 100

    def get_available_memory(self) -> int | None:
        """MiB of this worker's GPU that nobody uses now; blocking.

        Returns:
            It; 0 without a GPU, None where the driver does not tell.
        """
        offered = self._choice.offered
        if offered is None:
            return 0
        total, used = self._choice.measured.memory_mb, self.gpu_load().memory_mb
        if not total or used is None:
            return None
        return max(0, min(offered.memory_mb, total - used))

    def to_metadata_dict(self) -> dict[str, object]:
        """What sleap-rtc's registration says of the machine; the first look at the driver blocks.

        Returns:
            Its five properties. `supported_models` is empty: see `check_job_compatibility`.
        """
        return {
            "gpu_memory_mb": self.gpu_memory_mb,
            "gpu_model": self.gpu_model,
            "cuda_version": self.cuda_version,
            "supported_models": [],
            "supported_job_types": [
                kind for kind, runner in JOB_TYPES.items() if runner in self._runners
            ],
        }


def _own_tree() -> set[int]:
    this = psutil.Process()
    return {this.pid, *(child.pid for child in this.children(recursive=True))}


def _who(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"process {pid} ({process.name()}) of {process.username()}"
    except psutil.Error:  # it has ended, or is not for us to see: in another container
        return f"process {pid}"


def _cpus() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _free_mb(disk: Path | None) -> int:
    try:
        return shutil.disk_usage(disk).free // MIB if disk is not None else 0
    except OSError:
        return 0
