"""What the GPUs' driver says, by NVML (nvidia-ml-py, the module `pynvml`); never by torch.

Laws:

- A machine without a GPU, a driver or the library is a normal machine: it has no GPUs.
- Whatever else goes wrong is one exception, `GpuDriverFailed`.
- Each question opens the library and closes it: a driver that is replaced or comes back is seen.
- A driver that hangs holds up nobody for longer than was agreed (`PatientNvml`).
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import pynvml

from protocol.messages import Gpu

T = TypeVar("T")

MIB: Final = 1024 * 1024
#: Seconds that a driver may take: without persistence mode it wakes up every GPU first.
PATIENCE_S: Final = 20.0

_NO_DRIVER: Final = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
#: The GPU, or a driver of this age, does not say this.
_SILENT: Final = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
    pynvml.NVML_ERROR_NO_DATA,
)


class GpuDriverFailed(Exception):
    """The GPU's driver is there and does not work: follow the sentence.

    Args:
        sentence: what it said, and what to do.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Load(NamedTuple):
    """How busy a GPU is; None for what it does not say.

    Attributes:
        percent: of the time in which a kernel ran, lately.
        memory_mb: MiB in use, by anybody.
    """

    percent: float | None = None
    memory_mb: int | None = None


class Nvml(Protocol):
    """What is asked of a driver; every question blocks and may raise `GpuDriverFailed`."""

    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs, in the order of their PCI addresses; none is a normal answer."""

    def compute_pids(self, uuid: str) -> tuple[int, ...]:
        """The processes that compute on a GPU."""

    def load(self, uuid: str) -> Load:
        """How busy a GPU is."""


class PynvmlDriver:
    """The real driver.

    Args:
        library: the module `pynvml`.
    """

    def __init__(self, library: Any = pynvml) -> None:
        self._library = library

    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs, in the order of their PCI addresses.

        Raises:
            GpuDriverFailed: the driver is there and does not work.
        """
        with self._opened() as library:
            if library is None:
                return ()
            driver = _said(library.nvmlSystemGetDriverVersion, "")
            cuda = _cuda_version(_said(library.nvmlSystemGetCudaDriverVersion_v2, 0))
            handles = map(library.nvmlDeviceGetHandleByIndex, range(library.nvmlDeviceGetCount()))
            return tuple(_gpu(library, handle, driver, cuda) for handle in handles)

    def compute_pids(self, uuid: str) -> tuple[int, ...]:
        """The processes that compute on a GPU; none where the driver does not tell.

        Args:
            uuid: as in `Gpu`.

        Raises:
            GpuDriverFailed: the driver does not work, or the GPU is gone.
        """
        with self._opened() as library:
            if library is None:
                return ()
            handle = library.nvmlDeviceGetHandleByUUID(uuid)
            for ask in (
                library.nvmlDeviceGetComputeRunningProcesses_v3,  # since driver 510
                library.nvmlDeviceGetComputeRunningProcesses_v2,
            ):
                processes = _said(partial(ask, handle), None)
                if processes is not None:
                    return tuple(process.pid for process in processes)
            return ()

    def load(self, uuid: str) -> Load:
        """How busy a GPU is.

        Args:
            uuid: as in `Gpu`.

        Raises:
            GpuDriverFailed: the driver does not work, or the GPU is gone.
        """
        with self._opened() as library:
            if library is None:
                return Load()
            handle = library.nvmlDeviceGetHandleByUUID(uuid)
            rates = _said(partial(library.nvmlDeviceGetUtilizationRates, handle), None)
            memory = _said(partial(library.nvmlDeviceGetMemoryInfo, handle), None)
            return Load(
                percent=None if rates is None else float(rates.gpu),
                memory_mb=None if memory is None else memory.used // MIB,
            )

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        """The library between its init and its shutdown; None where there is no driver."""
        try:
            self._library.nvmlInit()
        except pynvml.NVMLError as error:
            if error.value not in _NO_DRIVER:
                raise _failed(error) from error
            present = False
        else:
            present = True
        if not present:
            yield None
            return
        try:
            yield self._library
        except pynvml.NVMLError as error:
            raise _failed(error) from error
        finally:
            with contextlib.suppress(pynvml.NVMLError):
                self._library.nvmlShutdown()


class PatientNvml:
    """Asks a driver in a thread of its own, and gives up on an answer that does not come.

    A call into a driver that hangs can't be ended, and a thread of a pool would keep the process
    from ending. So each question has a daemon thread, and while one is stuck there is no second.

    Args:
        nvml: the driver.
        seconds: how long an answer may take, the waiting for an earlier question included.
    """

    def __init__(self, nvml: Nvml, seconds: float = PATIENCE_S) -> None:
        self._nvml = nvml
        self._seconds = seconds
        self._turn = threading.Lock()

    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs.

        Raises:
            GpuDriverFailed: the driver does not work, or does not answer.
        """
        return self._ask(self._nvml.gpus)

    def compute_pids(self, uuid: str) -> tuple[int, ...]:
        """The processes that compute on a GPU.

        Args:
            uuid: as in `Gpu`.

        Raises:
            GpuDriverFailed: the driver does not work, or does not answer.
        """
        return self._ask(lambda: self._nvml.compute_pids(uuid))

    def load(self, uuid: str) -> Load:
        """How busy a GPU is.

        Args:
            uuid: as in `Gpu`.

        Raises:
            GpuDriverFailed: the driver does not work, or does not answer.
        """
        return self._ask(lambda: self._nvml.load(uuid))

    def _ask(self, question: Callable[[], T]) -> T:
        answer: Future[T] = Future()

        def work() -> None:
            try:
                answer.set_result(question())
            except BaseException as error:
                answer.set_exception(error)
            finally:
                self._turn.release()

        if not self._turn.acquire(timeout=self._seconds):
            raise self._hangs()
        try:
            threading.Thread(target=work, name="nvml", daemon=True).start()
        except RuntimeError as error:
            self._turn.release()
            raise GpuDriverFailed(f"the GPU's driver was not asked: {error}") from error
        try:
            return answer.result(self._seconds)
        except TimeoutError:
            raise self._hangs() from None

    def _hangs(self) -> GpuDriverFailed:
        return GpuDriverFailed(
            f"the GPU's driver has not answered for {self._seconds:g} s: "
            "see whether `nvidia-smi` answers, and restart the machine if it does not"
        )


def _gpu(library: Any, handle: Any, driver: str, cuda: str) -> Gpu:
    # Where GPU and host share their memory, the driver speaks of neither total nor free.
    memory = _said(partial(library.nvmlDeviceGetMemoryInfo, handle), None)
    capability = _said(partial(library.nvmlDeviceGetCudaComputeCapability, handle), ())
    return Gpu(
        uuid=library.nvmlDeviceGetUUID(handle),
        model=library.nvmlDeviceGetName(handle),
        memory_mb=0 if memory is None else memory.total // MIB,
        memory_free_mb=0 if memory is None else memory.free // MIB,
        driver=driver,
        cuda=cuda,
        compute_capability=".".join(map(str, capability)),
    )


def _cuda_version(number: int) -> str:
    """CUDA writes 11.8 as 11080 (`cuda.h`, CUDA_VERSION)."""
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""


def _said(ask: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return ask()
    except pynvml.NVMLError as error:
        if error.value not in _SILENT:
            raise
        return otherwise


def _failed(error: pynvml.NVMLError) -> GpuDriverFailed:
    return GpuDriverFailed(
        f"the GPU's driver answers with an error ({error}): "
        "see what `nvidia-smi` says; a driver that was updated needs a restart of the machine"
    )
