"""Which GPU is this worker's.

One GPU of the machine is. `gpu_id` is an index into what CUDA_VISIBLE_DEVICES shows where it is set
(by a scheduler or by the operator), else into all GPUs; NVML ignores that variable, so it is read
here. A job is given the GPU by its UUID, which means the same to everybody.

Indexes in CUDA_VISIBLE_DEVICES count as NVML and `nvidia-smi` count, by PCI address; CUDA itself
does so with CUDA_DEVICE_ORDER=PCI_BUS_ID, or where all GPUs are alike.
"""

import re
from typing import Final, NamedTuple

from fsm_worker.services.declared import Declared
from fsm_worker.services.nvml import GpuDriverFailed, Nvml
from protocol.messages import Gpu

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_NO_GPU: Final = Gpu(uuid="", model="", memory_mb=0, memory_free_mb=0)


class NoSuchGpu(Exception):
    """The GPU that was chosen is not among those that are there: choose another.

    Args:
        sentence: which was chosen, and which there are.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class VisibleGpu(NamedTuple):
    """A GPU that this process may use: how CUDA knows it, and what NVML says of it."""

    name: str
    gpu: Gpu | None  # None for a part of a GPU (MIG), which NVML does not list


class GpuChoice:
    """The GPUs that were found, and the one of them that is chosen; a first look blocks.

    Args:
        gpu_id: which; see above.
        nvml: the driver.
        declared: what the operator says; it stands over what the driver says.
        inherited: the value of CUDA_VISIBLE_DEVICES; None where it is not set.
    """

    def __init__(self, gpu_id: int, nvml: Nvml, declared: Declared, inherited: str | None) -> None:
        self._gpu_id = gpu_id
        self._nvml = nvml
        self._declared = declared
        self._inherited = inherited
        self._looked: tuple[VisibleGpu, ...] | None = None  # None: nobody has looked yet

    def look(self) -> tuple[Gpu, ...]:
        """Look at the driver now; blocking.

        Returns:
            The GPUs that this process may use, as they are published.

        Raises:
            GpuDriverFailed: the GPU's driver does not work.
            NoSuchGpu: there are GPUs, but not the chosen one.
        """
        self._looked = _visible(self._nvml.gpus(), self._inherited)
        count = len(self._looked or self._published())
        if count and not 0 <= self._gpu_id < count:
            raise NoSuchGpu(
                f"GPU {self._gpu_id} was chosen and {count} can be used here: "
                f"choose one from 0 to {count - 1}"
            )
        return tuple(gpu for gpu in self._published() if gpu is not None)

    def known(self) -> tuple[VisibleGpu, ...]:
        """What the last look that succeeded has found; a first one that fails found nothing."""
        if self._looked is None:
            try:
                self._looked = _visible(self._nvml.gpus(), self._inherited)
            except GpuDriverFailed:
                self._looked = ()
        return self._looked

    @property
    def chosen(self) -> VisibleGpu | None:
        """The chosen one of them; None if it is not there."""
        known = self.known()
        return known[self._gpu_id] if 0 <= self._gpu_id < len(known) else None

    @property
    def measured(self) -> Gpu:
        """What the driver says of the chosen one; what it does not say is empty or 0."""
        chosen = self.chosen
        return _NO_GPU if chosen is None or chosen.gpu is None else chosen.gpu

    @property
    def offered(self) -> Gpu | None:
        """The chosen one as it is published; None without one.

        What nobody says of it is empty or 0.
        """
        published = self._published()
        # What CUDA does not show can't be given to a job, whatever is declared beside it.
        if not 0 <= self._gpu_id < len(self.known() or published):
            return None
        return published[self._gpu_id] or _NO_GPU

    def _published(self) -> tuple[Gpu | None, ...]:
        return self._declared.over(tuple(one.gpu for one in self.known()))


def _visible(gpus: tuple[Gpu, ...], inherited: str | None) -> tuple[VisibleGpu, ...]:
    """What CUDA shows of these GPUs (CUDA C++ Programming Guide, "CUDA Environment Variables").

    An entry is an index, or the beginning of one UUID; all from the first unknown one on is hidden.
    """
    if inherited is None:
        return tuple(VisibleGpu(gpu.uuid, gpu) for gpu in gpus)
    found = []
    for entry in map(str.strip, inherited.split(",")):
        if entry.startswith("MIG-"):
            found.append(VisibleGpu(entry, None))
            continue
        if re.fullmatch(r"[0-9]{1,4}", entry):
            fitting = gpus[int(entry) : int(entry) + 1]
        else:
            fitting = tuple(gpu for gpu in gpus if entry and gpu.uuid.startswith(entry))
        if len(fitting) != 1:
            break
        found.append(VisibleGpu(fitting[0].uuid, fitting[0]))
    return tuple(found)
