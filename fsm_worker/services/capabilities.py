"""What this worker can run: its GPU, the host, its runners.

One GPU of the machine is this worker's. `gpu_id` is an index into what CUDA_VISIBLE_DEVICES shows
where it is set (by a scheduler or by the operator), else into all GPUs; NVML ignores that variable,
so it is read here. A job is given the GPU by its UUID, which means the same to everybody.

Indexes in CUDA_VISIBLE_DEVICES count as NVML and `nvidia-smi` count, by PCI address; CUDA itself
does so with CUDA_DEVICE_ORDER=PCI_BUS_ID, or where all GPUs are alike.
"""

import asyncio
import math
import os
import platform
import re
import shutil
import socket
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from fsm_worker.effects import ProbeHost
from fsm_worker.events import Event, ProbeFailed, ProbeSucceeded
from fsm_worker.services.nvml import (
    MIB,
    GpuDriverFailed,
    Load,
    Nvml,
    PatientNvml,
    PynvmlDriver,
)
from protocol.messages import Capabilities, Gpu
from protocol.table import MachineName

_NO_GPU: Final = Gpu(uuid="", model="", memory_mb=0, memory_free_mb=0)
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_UNITS: Final = {"MIB": MIB, "GIB": 1024 * MIB, "TIB": 1024**2 * MIB,
                 "MB": 10**6, "GB": 10**9, "TB": 10**12}  # fmt: skip


class NoSuchGpu(Exception):
    """The GPU that was chosen is not among those that are there: choose another.

    Args:
        sentence: which was chosen, and which there are.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class _Visible(NamedTuple):
    """A GPU that this process may use: how CUDA knows it, and what NVML says of it."""

    name: str
    gpu: Gpu | None  # None for a part of a GPU (MIG), which NVML does not list


class WorkerCapabilities:
    """What this worker can run.

    Args:
        gpu_id: which GPU is this worker's; see above.
        emit: reports events.
        nvml: the driver; the real one by default.
        runners: their names.
        disk: where jobs are kept.
        environ: where CUDA_VISIBLE_DEVICES is inherited from.
    """

    def __init__(
        self,
        gpu_id: int = 0,
        *,
        emit: Callable[[MachineName, str, Event], None] | None = None,
        nvml: Nvml | None = None,
        runners: tuple[str, ...] = (),
        disk: Path | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.gpu_id = gpu_id
        self._emit = emit
        self._nvml = nvml or PatientNvml(PynvmlDriver())
        self._runners = runners
        self._disk = disk
        self._inherited = environ.get(_VISIBLE)
        self._looked: tuple[_Visible, ...] | None = None  # None: nobody has looked yet

    # --- what it is --------------------------------------------------------------------------

    @property
    def gpu_memory_mb(self) -> int:
        """MiB in all of this worker's GPU; 0 without. The first look at the driver blocks."""
        return self._gpu().memory_mb

    @property
    def gpu_model(self) -> str:
        """The model of this worker's GPU; empty without."""
        return self._gpu().model

    @property
    def cuda_version(self) -> str:
        """The highest CUDA version that the driver supports, as `11.8`; empty without a GPU."""
        return self._gpu().cuda

    @property
    def gpu_uuid(self) -> str:
        """The UUID of this worker's GPU; empty without."""
        return self._gpu().uuid

    def snapshot(self) -> Capabilities:
        """Look at the machine now; blocking.

        Returns:
            What is there; of the GPUs, those that this process may use.

        Raises:
            GpuDriverFailed: the GPU's driver does not work.
            NoSuchGpu: there are GPUs, but not the chosen one.
        """
        visible = self._look()
        if visible and self._chosen() is None:
            raise NoSuchGpu(
                f"GPU {self.gpu_id} was chosen and {len(visible)} can be used here: "
                f"choose one from 0 to {len(visible) - 1}"
            )
        return Capabilities(
            gpus=tuple(one.gpu for one in visible if one.gpu is not None),
            runners=self._runners,
            cpus=_cpus(),
            memory_mb=psutil.virtual_memory().total // MIB,
            disk_free_mb=_free_mb(self._disk),
            hostname=socket.gethostname(),
            platform=platform.platform(),
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
        visible = self._known()
        if not visible:
            return {}
        chosen = self._chosen()
        return {_VISIBLE: chosen.name if chosen is not None else ""}

    def gpu_free(self, pids: Set[int] | None = None) -> tuple[bool, str]:
        """Whether nobody else computes on this worker's GPU; blocking.

        Args:
            pids: the processes that are ours; by default this one and its descendants.

        Returns:
            True, or False and a sentence that names who does. Always true without a GPU.

        Raises:
            GpuDriverFailed: the GPU's driver does not work.
        """
        gpu = self._gpu()
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
        gpu = self._gpu()
        if not gpu.uuid:
            return Load()
        try:
            return self._nvml.load(gpu.uuid)
        except GpuDriverFailed:
            return Load()  # a job goes on without its gauge; the next probe says what is wrong

    def compatibility(self, need: Mapping[str, str]) -> tuple[str, ...]:
        """What of a job's needs this worker does not meet; blocks only before the first probe.

        Args:
            need: `gpu` (how many), `vram` (of one GPU, as `16GiB`), `runner` (its name).

        Returns:
            A sentence for each need that is not met, or that is not known here.
        """
        checks = {"gpu": self._lacks_gpu, "vram": self._lacks_vram, "runner": self._lacks_runner}
        found = []
        for name, value in need.items():
            check = checks.get(name)
            if check is not None:
                found.append(check(value.strip()))
            else:
                found.append(f"{name!r} is no need that is known here: {', '.join(checks)} are")
        return tuple(filter(None, found))

    def _lacks_gpu(self, value: str) -> str:
        if not re.fullmatch(r"[0-9]{1,3}", value):
            return f"gpu={value} is no number of GPUs: write 0 or 1"
        has = 1 if self._known() and self._chosen() is not None else 0
        return f"gpu={value} is asked for; a job gets {has} here" if int(value) > has else ""

    def _lacks_vram(self, value: str) -> str:
        size = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([KMGT]i?B)", value, re.IGNORECASE)
        unit = _UNITS.get(size[2].upper()) if size is not None else None
        if size is None or unit is None:
            return f"vram={value} is no size: write it as 16GiB or 16384MiB"
        has = self.gpu_memory_mb
        # By the whole GiB: of a card of 24 GiB the driver keeps some and shows 24564 MiB.
        if float(size[1]) * unit <= math.ceil(has / 1024) * 1024 * MIB:
            return ""
        return f"vram={value} is asked for; the GPU here has {has} MiB" if has else (
            f"vram={value} is asked for; there is no GPU here"
        )  # fmt: skip

    def _lacks_runner(self, value: str) -> str:
        if value in self._runners:
            return ""
        return f"runner={value} is asked for; here are {', '.join(self._runners) or 'none'}"

    # --- the choice --------------------------------------------------------------------------

    def _look(self) -> tuple[_Visible, ...]:
        self._looked = _visible(self._nvml.gpus(), self._inherited)
        return self._looked

    def _known(self) -> tuple[_Visible, ...]:
        """What the last look that succeeded has found; a first one that fails found nothing."""
        if self._looked is None:
            try:
                return self._look()
            except GpuDriverFailed:
                self._looked = ()
        return self._looked

    def _chosen(self) -> _Visible | None:
        visible = self._known()
        return visible[self.gpu_id] if 0 <= self.gpu_id < len(visible) else None

    def _gpu(self) -> Gpu:
        chosen = self._chosen()
        return _NO_GPU if chosen is None or chosen.gpu is None else chosen.gpu


def _visible(gpus: tuple[Gpu, ...], inherited: str | None) -> tuple[_Visible, ...]:
    """What CUDA shows of these GPUs (CUDA C++ Programming Guide, "CUDA Environment Variables").

    An entry is an index, or the beginning of one UUID; all from the first unknown one on is hidden.
    """
    if inherited is None:
        return tuple(_Visible(gpu.uuid, gpu) for gpu in gpus)
    found = []
    for entry in map(str.strip, inherited.split(",")):
        if entry.startswith("MIG-"):
            found.append(_Visible(entry, None))
            continue
        if re.fullmatch(r"[0-9]{1,4}", entry):
            fitting = gpus[int(entry) : int(entry) + 1]
        else:
            fitting = tuple(gpu for gpu in gpus if entry and gpu.uuid.startswith(entry))
        if len(fitting) != 1:
            break
        found.append(_Visible(fitting[0].uuid, fitting[0]))
    return tuple(found)


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
