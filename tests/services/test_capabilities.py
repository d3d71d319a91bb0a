"""Laws of what a worker says it can run; on machines with GPUs, by a driver that is played."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from fsm_worker.effects import ProbeHost
from fsm_worker.events import ProbeFailed, ProbeSucceeded, Started
from fsm_worker.facts import WorkerFacts
from fsm_worker.services.capabilities import WorkerCapabilities
from fsm_worker.services.declared import DeclarationRefused, Declared, read_declared
from fsm_worker.services.gpu_choice import NoSuchGpu
from fsm_worker.services.nvml import GpuDriverFailed, Load, PatientNvml, PynvmlDriver
from fsm_worker.services.shared_storage import SharedStorage
from fsm_worker.services.telemetry import TelemetrySampler
from protocol.messages import Gpu
from protocol.need import parse_need
from protocol.table import MachineName

TWO_GPUS = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "nvml_two_gpus.json").read_text(encoding="utf-8")
)
FIRST, SECOND = (gpu["uuid"] for gpu in TWO_GPUS["gpus"])
PATIENCE = 10.0  # seconds until a test that hangs is a failure


class Library:
    """`pynvml` on a machine with two GPUs, as far as it is used; it counts opening and closing."""

    def __init__(self) -> None:
        self.gpus = [SimpleNamespace(**gpu) for gpu in TWO_GPUS["gpus"]]
        self.errors: dict[str, int] = {}  # by the function that fails
        self.opened = 0

    def _may_fail(self, function) -> None:
        if code := self.errors.get(function):
            raise pynvml.NVMLError(code)

    def nvmlInit(self) -> None:  # noqa: N802 - the library's name
        self._may_fail("nvmlInit")
        self.opened += 1

    def nvmlShutdown(self) -> None:  # noqa: N802 - the library's name
        assert self.opened > 0
        self.opened -= 1

    def __getattr__(self, function):
        answers = {
            "nvmlSystemGetDriverVersion": lambda: TWO_GPUS["driver"],
            "nvmlSystemGetCudaDriverVersion_v2": lambda: TWO_GPUS["cuda"],
            "nvmlDeviceGetCount": lambda: len(self.gpus),
            "nvmlDeviceGetHandleByIndex": lambda index: self.gpus[index],
            "nvmlDeviceGetHandleByUUID": self._by_uuid,
            "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
            "nvmlDeviceGetName": lambda gpu: gpu.name,
            "nvmlDeviceGetMemoryInfo": lambda gpu: gpu,
            "nvmlDeviceGetCudaComputeCapability": lambda gpu: tuple(gpu.capability),
            "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=gpu.percent),
            "nvmlDeviceGetComputeRunningProcesses_v3": self._processes,
            "nvmlDeviceGetComputeRunningProcesses_v2": self._processes,
        }
        answer = answers[function]

        def ask(*args):
            assert self.opened > 0, f"{function} was asked of a closed library"
            self._may_fail(function)
            return answer(*args)

        return ask

    def _by_uuid(self, uuid):
        for gpu in self.gpus:
            if gpu.uuid == uuid:
                return gpu
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def _processes(self, gpu):
        return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in gpu.pids]


@pytest.fixture
def library():
    made = Library()
    yield made
    assert made.opened == 0


def worker(library, gpu_id=0, visible=None, **options) -> WorkerCapabilities:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return WorkerCapabilities(gpu_id, nvml=PynvmlDriver(library), environ=environ, **options)


PROBE = ProbeHost(
    subject="worker", event=Started(), facts=WorkerFacts(), row="W1", before="starting",
    after="starting",
)  # fmt: skip


def test_that_there_is_a_shared_storage_is_said_while_it_is_there(library, tmp_path) -> None:
    assert not worker(library).snapshot().shared_storage
    capabilities = worker(library, shared=SharedStorage(tmp_path / "lab"))
    assert not capabilities.snapshot().shared_storage
    (tmp_path / "lab").mkdir()
    assert capabilities.snapshot().shared_storage


async def probed(capabilities_of) -> tuple[MachineName, str, object]:
    told = []
    capabilities = capabilities_of(lambda *report: told.append(report))
    async with asyncio.timeout(PATIENCE):
        await capabilities.probe_host(PROBE)
    (report,) = told
    return report


# --- this machine ----------------------------------------------------------------------------


def test_the_machine_at_hand_is_described_with_or_without_a_gpu(tmp_path) -> None:
    capabilities = WorkerCapabilities(disk=tmp_path, runners=("digits",), environ={})
    found = capabilities.snapshot()
    if not Path("/dev/nvidiactl").exists():
        assert found.gpus == ()
    facts = (capabilities.gpu_memory_mb, capabilities.gpu_model, capabilities.cuda_version)
    if found.gpus:
        first = found.gpus[0]
        assert facts == (first.memory_mb, first.model, first.cuda)
        assert capabilities.environment() == {"CUDA_VISIBLE_DEVICES": first.uuid}
        assert capabilities.gpu_load().memory_mb is not None
        capabilities.gpu_free()
    else:
        assert facts == (0, "", "")
        assert capabilities.environment() == {}
        assert capabilities.gpu_free() == (True, "")
        assert capabilities.gpu_load() == Load()
    assert found.runners == ("digits",)
    assert found.cpus == len(os.sched_getaffinity(0))
    assert found.memory_mb == psutil.virtual_memory().total // 2**20
    assert found.disk_free_mb > 0
    assert found.hostname
    assert found.platform


def test_a_disk_that_is_not_there_has_no_room(library, tmp_path) -> None:
    assert worker(library, disk=tmp_path / "absent").snapshot().disk_free_mb == 0


# --- machines with GPUs ----------------------------------------------------------------------


def test_every_gpu_is_described_and_one_is_the_workers(library) -> None:
    capabilities = worker(library, gpu_id=1)
    assert capabilities.gpu_memory_mb == 24564
    assert capabilities.gpu_model == "NVIDIA GeForce RTX 4090"
    assert capabilities.cuda_version == "11.8"
    assert capabilities.gpu_uuid == SECOND
    common = {"driver": "520.61.05", "cuda": "11.8"}
    assert capabilities.snapshot().gpus == (
        Gpu(uuid=FIRST, model="NVIDIA A100-PCIE-40GB", memory_mb=40960, memory_free_mb=40341,
            compute_capability="8.0", **common),
        Gpu(uuid=SECOND, model="NVIDIA GeForce RTX 4090", memory_mb=24564, memory_free_mb=23000,
            compute_capability="8.9", **common),
    )  # fmt: skip


@pytest.mark.parametrize(
    "code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED]
)
async def test_no_driver_is_a_normal_machine(library, code) -> None:
    library.errors["nvmlInit"] = code
    driver = PynvmlDriver(library)
    assert (driver.gpus(), driver.compute_pids(FIRST), driver.load(FIRST)) == ((), (), Load())
    machine, subject, event = await probed(lambda emit: worker(library, gpu_id=3, emit=emit))
    assert (machine, subject) == (MachineName.WORKER, "worker")
    assert isinstance(event, ProbeSucceeded)
    assert event.capabilities.gpus == ()


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("nvmlInit", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH),
        ("nvmlInit", pynvml.NVML_ERROR_UNKNOWN),
        ("nvmlDeviceGetHandleByIndex", pynvml.NVML_ERROR_GPU_IS_LOST),
        ("nvmlDeviceGetMemoryInfo", pynvml.NVML_ERROR_GPU_IS_LOST),
    ],
)
async def test_a_driver_that_fails_is_told_in_a_sentence(library, function, code) -> None:
    library.errors[function] = code
    capabilities = worker(library)
    with pytest.raises(GpuDriverFailed, match="nvidia-smi"):
        capabilities.snapshot()
    assert (capabilities.gpu_memory_mb, capabilities.gpu_model) == (0, "")
    _, _, event = await probed(lambda emit: worker(library, emit=emit))
    assert isinstance(event, ProbeFailed)
    assert str(pynvml.NVMLError(code)) in event.reason


def test_a_failure_forgets_nothing_and_a_driver_that_is_back_is_seen(library) -> None:
    capabilities = worker(library)
    library.errors["nvmlInit"] = pynvml.NVML_ERROR_UNKNOWN
    assert capabilities.gpu_model == ""
    library.errors.clear()
    capabilities.snapshot()
    library.errors["nvmlInit"] = pynvml.NVML_ERROR_UNKNOWN
    with pytest.raises(GpuDriverFailed):
        capabilities.snapshot()
    assert capabilities.environment() == {"CUDA_VISIBLE_DEVICES": FIRST}
    assert capabilities.gpu_load() == Load()
    with pytest.raises(GpuDriverFailed):
        capabilities.gpu_free()


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_DATA])
def test_what_a_driver_does_not_say_is_left_open(library, code) -> None:
    for function in (
        "nvmlSystemGetCudaDriverVersion_v2", "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2",
    ):  # fmt: skip
        library.errors[function] = code
    capabilities = worker(library)
    gpu = capabilities.snapshot().gpus[0]
    assert (gpu.uuid, gpu.memory_mb, gpu.cuda, gpu.compute_capability) == (FIRST, 0, "", "")
    assert capabilities.gpu_load() == Load()
    assert capabilities.gpu_free(set()) == (True, "")


@pytest.mark.parametrize(
    ("visible", "uuids"),
    [
        (None, [FIRST, SECOND]),
        ("1", [SECOND]),
        ("1,0", [SECOND, FIRST]),
        (" 1 , 0 ", [SECOND, FIRST]),
        (SECOND, [SECOND]),
        (f"{SECOND},0", [SECOND, FIRST]),
        (SECOND[:12], [SECOND]),  # CUDA takes the beginning of a UUID where it names one
        ("GPU-", []),  # and not where it names several
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,7,1", [FIRST]),  # CUDA hides all from the first unknown one on
    ],
)
def test_an_inherited_choice_is_respected(library, visible, uuids) -> None:
    for gpu_id, uuid in enumerate(uuids):
        capabilities = worker(library, gpu_id, visible)
        assert capabilities.environment() == {"CUDA_VISIBLE_DEVICES": uuid}
        assert capabilities.gpu_uuid == uuid
        assert [gpu.uuid for gpu in capabilities.snapshot().gpus] == uuids
    beyond = worker(library, len(uuids), visible)
    assert beyond.gpu_uuid == ""
    assert beyond.environment() == ({"CUDA_VISIBLE_DEVICES": ""} if uuids else {})


def test_a_part_of_a_gpu_is_passed_on_as_it_was_inherited(library) -> None:
    capabilities = worker(library, 0, "MIG-3f1c0d52-98ab-5c71-b0de-6a2f4c8e1d97")
    assert capabilities.environment() == {
        "CUDA_VISIBLE_DEVICES": "MIG-3f1c0d52-98ab-5c71-b0de-6a2f4c8e1d97"
    }
    assert capabilities.snapshot().gpus == ()
    assert capabilities.gpu_model == ""


@pytest.mark.parametrize("gpu_id", [2, -1])
async def test_a_chosen_gpu_that_is_not_there_is_told_in_a_sentence(library, gpu_id) -> None:
    with pytest.raises(NoSuchGpu, match="choose one from 0 to 1"):
        worker(library, gpu_id).snapshot()
    _, _, event = await probed(lambda emit: worker(library, gpu_id, emit=emit))
    assert isinstance(event, ProbeFailed)
    assert f"GPU {gpu_id} was chosen" in event.reason


# --- whose the GPU is ------------------------------------------------------------------------


def test_a_foreign_process_on_the_gpu_is_named_with_its_user(library) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        library.gpus[0].pids = [child.pid]
        free, reason = worker(library).gpu_free({os.getpid()})
        assert not free
        name, user = psutil.Process(child.pid).name(), psutil.Process().username()
        assert f"process {child.pid} ({name}) of {user}" in reason
        assert FIRST in reason
        assert worker(library, gpu_id=1).gpu_free(set()) == (True, "")
        child.communicate(b"\n")


def test_a_foreign_process_that_cannot_be_looked_at_is_still_foreign(library) -> None:
    library.gpus[0].pids = [2**31 - 1, 2**31 - 2]  # more than Linux ever gives out
    free, reason = worker(library).gpu_free()
    assert not free
    assert f"process {2**31 - 2} and process {2**31 - 1}:" in reason


def test_processes_of_ours_are_not_foreign(library) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        library.gpus[0].pids = [os.getpid(), child.pid]
        assert worker(library).gpu_free() == (True, "")
        assert not worker(library).gpu_free({child.pid})[0]
        child.communicate(b"\n")


def test_a_driver_of_before_510_still_tells_who_computes(library) -> None:
    library.errors["nvmlDeviceGetComputeRunningProcesses_v3"] = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    library.gpus[0].pids = [1]
    assert not worker(library).gpu_free()[0]


# --- a driver that hangs -----------------------------------------------------------------------


class Hanging(PynvmlDriver):
    """A driver whose questions return when they are let go."""

    def __init__(self, library) -> None:
        super().__init__(library)
        self.go = threading.Event()

    def gpus(self):
        self.go.wait()
        return super().gpus()


def stuck() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "nvml"]


async def test_a_driver_that_hangs_is_told_and_holds_one_thread_at_most(library) -> None:
    driver = Hanging(library)
    patient = PatientNvml(driver, seconds=0.02)
    try:
        _, _, event = await probed(lambda emit: WorkerCapabilities(nvml=patient, emit=emit))
        assert isinstance(event, ProbeFailed)
        assert "has not answered for 0.02 s" in event.reason
        for _ in range(3):
            with pytest.raises(GpuDriverFailed, match="not answered"):
                patient.load(FIRST)
        assert len(stuck()) == 1
    finally:
        driver.go.set()
        for thread in stuck():
            thread.join(PATIENCE)
    patient = PatientNvml(driver, seconds=PATIENCE)
    assert WorkerCapabilities(nvml=patient, environ={}).gpu_uuid == FIRST
    assert patient.load(FIRST) == Load(percent=37.0, memory_mb=619)
    assert patient.compute_pids(FIRST) == ()


def test_a_driver_that_hangs_does_not_keep_the_process_from_ending() -> None:
    script = (
        "import threading\n"
        "from fsm_worker.services.capabilities import WorkerCapabilities\n"
        "from fsm_worker.services.nvml import PatientNvml\n"
        "class Hanging:\n"
        "    def gpus(self): threading.Event().wait()\n"
        "worker = WorkerCapabilities(nvml=PatientNvml(Hanging(), 0.01))\n"
        "print(repr(worker.gpu_model), worker.environment())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == "'' {}\n"


# --- what a job needs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("need", "unmet"),
    [
        ({}, []),
        ({"gpu": "1", "vram": "40GiB", "runner": "digits"}, []),
        ({"gpu": "0", "vram": "40960 MiB"}, []),
        ({"vram": "41.5gb"}, []),
        ({"vram": "41GiB"}, ["40960 MiB"]),
        ({"gpu": "2"}, ["a job gets 1 here"]),
        ({"runner": "sleap-nn train"}, ["here are digits"]),
        ({"vram": "much"}, ["is no size"]),
        ({"vram": "16KiB"}, ["is no size"]),
        ({"gpu": "-1"}, ["is no number"]),
        ({"gpu": "²"}, ["is no number"]),
        ({"colour": "red"}, ["'colour' is no need that is known"]),
        ({"gpu": "2", "vram": "1TiB", "runner": "x"}, ["a job gets", "40960 MiB", "digits"]),
        ({"gpu": "a100", "compute": "8", "cpus": "1", "memory": "1MiB", "disk": "1MiB"}, []),
        ({"compute": "8.0", "tag": "lab-b", "runner": "digits"}, []),
        ({"gpu": "4090"}, ["gpu=4090 is asked for; the GPU here is NVIDIA A100-PCIE-40GB"]),
        ({"compute": "8.6"}, ["compute=8.6 is asked for; the GPU here has 8.0"]),
        ({"compute": "10.0"}, ["the GPU here has 8.0"]),
        ({"compute": "new"}, ["is no compute capability: write it as 8.0"]),
        ({"cpus": "99999"}, ["a job may use"]),
        ({"cpus": "all"}, ["is no number: write it as 8"]),
        ({"memory": "1000TiB"}, ["this machine has"]),
        ({"disk": "1000TiB"}, ["MiB are free where jobs are kept"]),
        ({"disk": "plenty"}, ["is no size"]),
        ({"tag": "lab-c"}, ["tag=lab-c is asked for; here are lab-b, fast"]),
        ({"tag": ""}, ["is no name"]),
        ({"Vram": "1GiB"}, ["gpu, vram, compute, runner, disk, memory, cpus, tag are"]),
        ({"\x1b[2J": "\x1b[2J", "runner": "\x1b[2J"}, ["'\\x1b[2J' is no need", "is no name"]),
        ({str(n): "1" for n in range(1000)}, ["1000 requirements are too many"]),
    ],
    ids=lambda case: str(case)[:40],
)
def test_every_need_that_is_not_met_is_said(library, tmp_path, need, unmet) -> None:
    tags = Declared(tags=("lab-b", "fast"))
    capabilities = worker(library, runners=("digits",), disk=tmp_path, declared=tags)
    sentences = capabilities.compatibility(need)
    assert len(sentences) == len(unmet)
    for sentence, part in zip(sentences, unmet, strict=True):
        assert part in sentence
        assert sentence.isprintable()


def test_a_runner_is_asked_for_by_its_name_or_by_its_first_words(library) -> None:
    capabilities = worker(library, runners=("sleap-nn train", "sleap-nn track"))
    for name in ("sleap-nn", "sleap-nn train"):
        assert capabilities.compatibility({"runner": name}) == ()
    for name in ("sleap", "train", "sleap-nn t", "sleap-nn train x"):
        assert capabilities.compatibility({"runner": name}) != ()


def test_every_requirement_that_can_be_written_is_compared(library) -> None:
    for name, text in (need.split("=") for need in (
        "gpu=99", "vram=999TiB", "compute=99.0", "runner=x", "disk=999TiB", "memory=9999999TiB",
        "cpus=99999", "tag=x",
    )):  # fmt: skip
        (sentence,) = worker(library).compatibility(parse_need(f"{name}={text}"))
        assert f"{name}={text} is asked for; " in sentence


def test_memory_that_the_driver_keeps_does_not_count_against_a_card(library) -> None:
    assert worker(library, gpu_id=1).compatibility({"vram": "24GiB"}) == ()
    assert worker(library, gpu_id=1).compatibility({"vram": "25GiB"}) != ()


def test_without_a_gpu_no_need_of_one_is_met(library) -> None:
    library.gpus.clear()
    capabilities = worker(library)
    assert capabilities.compatibility({"gpu": "0"}) == ()
    gpu, vram, runner = capabilities.compatibility({"gpu": "1", "vram": "1GiB", "runner": "x"})
    assert "a job gets 0 here" in gpu
    assert "there is no GPU here" in vram
    assert "here are none" in runner
    for sentence in capabilities.compatibility({"gpu": "A100", "compute": "8.0"}):
        assert "there is no GPU here" in sentence


def test_of_a_part_of_a_gpu_is_not_known_what_it_is(library) -> None:
    capabilities = worker(library, 0, "MIG-3f1c0d52-98ab-5c71-b0de-6a2f4c8e1d97")
    assert capabilities.compatibility({"gpu": "1"}) == ()
    unmet = capabilities.compatibility({"gpu": "A100", "vram": "1GiB", "compute": "8.0"})
    assert len(unmet) == 3
    for sentence in unmet:
        assert "is not known: its operator can declare it" in sentence


# --- what is declared by hand ------------------------------------------------------------------

GB10 = Declared(gpu_model="NVIDIA GB10", gpu_memory_mb=122880, gpu_compute="12.1", gpu_count=2)


def test_a_gpu_that_no_driver_shows_is_published_as_declared(library) -> None:
    library.errors["nvmlInit"] = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    capabilities = worker(library, declared=GB10)
    one = Gpu(uuid="", model="NVIDIA GB10", memory_mb=122880, memory_free_mb=0,
              compute_capability="12.1")  # fmt: skip
    assert capabilities.snapshot().gpus == (one, one)
    assert capabilities.declared.names == (
        "gpu_model", "gpu_memory_mb", "gpu_compute", "gpu_count",
    )  # fmt: skip
    assert (capabilities.gpu_model, capabilities.gpu_memory_mb) == ("NVIDIA GB10", 122880)
    assert capabilities.compatibility({"gpu": "gb10", "vram": "120GiB", "compute": "12.0"}) == ()
    assert capabilities.environment() == {}  # nothing here could name it to CUDA
    assert capabilities.gpu_free() == (True, "")
    assert capabilities.gpu_load() == Load()
    with pytest.raises(NoSuchGpu, match="choose one from 0 to 1"):
        worker(library, 2, declared=GB10).snapshot()


def test_a_declaration_stands_over_what_the_driver_says_and_changes_no_other_fact(library) -> None:
    capabilities = worker(library, 1, declared=Declared(gpu_memory_mb=20480, gpu_count=3))
    measured = worker(library, 1).snapshot().gpus
    first, second, third = capabilities.snapshot().gpus
    assert (first.memory_mb, first.memory_free_mb) == (20480, 20480)
    assert (second.model, second.uuid) == (measured[1].model, SECOND)
    assert (third.uuid, third.model, third.memory_mb) == ("", "", 20480)
    assert capabilities.gpu_memory_mb == 20480
    assert capabilities.environment() == {"CUDA_VISIBLE_DEVICES": SECOND}
    with pytest.raises(NoSuchGpu, match="choose one from 0 to 1"):  # CUDA would not show it
        worker(library, 2, declared=GB10).snapshot()


def test_no_gpu_disappears_by_a_declaration(library) -> None:
    declared = Declared(gpu_model="X", gpu_count=1)
    assert len(worker(library, declared=declared).snapshot().gpus) == 2


def test_a_part_of_a_gpu_can_be_declared(library) -> None:
    mig = "MIG-3f1c0d52-98ab-5c71-b0de-6a2f4c8e1d97"
    declared = Declared(gpu_model="A100 1g.5gb", gpu_memory_mb=4864)
    capabilities = worker(library, 0, mig, declared=declared)
    assert [gpu.model for gpu in capabilities.snapshot().gpus] == ["A100 1g.5gb"]
    assert capabilities.environment() == {"CUDA_VISIBLE_DEVICES": mig}
    assert capabilities.compatibility({"vram": "5GiB"}) == ()


async def test_a_driver_that_fails_is_told_whatever_is_declared(library) -> None:
    library.errors["nvmlInit"] = pynvml.NVML_ERROR_UNKNOWN
    _, _, event = await probed(lambda emit: worker(library, emit=emit, declared=GB10))
    assert isinstance(event, ProbeFailed)


def test_without_a_declaration_nothing_is_declared(library) -> None:
    assert worker(library).declared.names == ()
    assert Declared(tags=("x",)).names == ("tags",)
    assert worker(library).snapshot().declared == ()


def test_what_is_declared_is_published_as_declared(library) -> None:
    told = worker(library, declared=Declared(tags=("x",))).snapshot()
    assert (told.tags, told.declared) == (("x",), ("tags",))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"gpu_modle": "X"}, "declare: there is no 'gpu_modle': gpu_model, gpu_memory_mb, gpu_"),
        ({"runners": ["x"]}, "declare.runners: programs are not declared: give each a [runners.N"),
        ({"gpu_model": 7}, 'declare.gpu_model: write it as "NVIDIA A100"'),
        ({"gpu_model": "A\n100"}, "declare.gpu_model: write it as"),
        ({"gpu_model": "A" * 101}, "declare.gpu_model: write it as"),
        ({"gpu_memory_mb": "24GiB"}, "declare.gpu_memory_mb: write a number from 1 to"),
        ({"gpu_memory_mb": 0}, "declare.gpu_memory_mb: write a number from 1 to"),
        ({"gpu_memory_mb": True}, "declare.gpu_memory_mb: write a number from 1 to"),
        ({"gpu_count": 65}, "declare.gpu_count: write a number from 1 to 64, such as 2"),
        ({"gpu_compute": 8.0}, 'declare.gpu_compute: write it as "8.0", with its quotes'),
        ({"gpu_compute": "sm_80"}, 'declare.gpu_compute: write it as "8.0"'),
        ({"tags": "lab-b"}, 'declare.tags: write a list of at most 64 words, as ["lab-b"]'),
        ({"tags": ["x"] * 65}, "declare.tags: write a list of at most 64 words"),
        ({"tags": ["a,b"]}, "declare.tags: 'a,b' is no tag"),
        ({"tags": [7]}, "declare.tags: '7' is no tag"),
    ],
    ids=str,
)
def test_a_declaration_that_can_not_be_used_is_refused_with_its_key(table, said) -> None:
    with pytest.raises(DeclarationRefused) as refused:
        read_declared(table)
    assert said in str(refused.value)


# --- by sleap-rtc's names ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "fits"),
    [
        ({}, True),
        ({"job_type": "training"}, True),
        ({"job_type": "inference"}, False),
        ({"job_type": "dancing"}, False),
        ({"requirements": {"min_gpu_memory_mb": 40960}}, True),
        ({"requirements": {"min_gpu_memory_mb": 50000}}, False),
        ({"requirements": {"min_gpu_memory_mb": "8000"}}, True),
        ({"requirements": {"min_gpu_memory_mb": 0}}, True),
        ({"requirements": {"min_gpu_memory_mb": -1}}, False),
        ({"requirements": {"min_gpu_memory_mb": ["x"]}}, False),
        ({"requirements": "much", "job_type": 7}, False),
        # sleap-rtc refuses what it does not know, such as sleap-nn's own kinds of model
        ({"job_type": "training", "config": {"model_type": "centered_instance"}}, True),
    ],
    ids=str,
)
def test_a_job_request_of_sleap_rtc_is_compared(library, request_, fits) -> None:
    capabilities = worker(library, runners=("sleap-nn train",))
    assert capabilities.check_job_compatibility(request_) is fits


def test_how_long_a_job_takes_is_not_invented(library) -> None:
    request = {"job_type": "training", "config": {"epochs": 100}}
    assert worker(library).estimate_job_duration(request) is None


def test_the_load_of_the_gpu_is_the_drivers(library) -> None:
    assert worker(library).get_gpu_utilization() == 0.37
    library.errors["nvmlDeviceGetUtilizationRates"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    assert worker(library).get_gpu_utilization() is None
    library.gpus.clear()
    assert worker(library).get_gpu_utilization() is None


def test_the_free_memory_of_the_gpu_is_the_drivers(library) -> None:
    assert worker(library).get_available_memory() == 40960 - 619
    limited = worker(library, declared=Declared(gpu_memory_mb=8192))
    assert limited.get_available_memory() == 8192
    assert worker(library, declared=GB10, visible="MIG-1").get_available_memory() is None
    library.errors["nvmlDeviceGetMemoryInfo"] = pynvml.NVML_ERROR_NOT_SUPPORTED
    assert worker(library).get_available_memory() is None
    library.gpus.clear()
    assert worker(library).get_available_memory() == 0


def test_the_registration_of_sleap_rtc_says_what_is_there(library) -> None:
    runners = ("digits", "sleap-nn track")
    assert worker(library, runners=runners).to_metadata_dict() == {
        "gpu_memory_mb": 40960,
        "gpu_model": "NVIDIA A100-PCIE-40GB",
        "cuda_version": "11.8",
        "supported_models": [],
        "supported_job_types": ["inference"],
    }


# --- telemetry ---------------------------------------------------------------------------------

BURN = """
import subprocess, sys, time
if len(sys.argv) == 1:
    child = subprocess.Popen([sys.executable, __file__, "child"])
    child.wait()
else:
    ballast = bytearray(64 * 2**20)
    print("ready", flush=True)
    input()
    while time.process_time() < 0.3:
        pass
    print("burnt", flush=True)
    input()
"""


def test_a_job_is_measured_with_all_its_processes(library, tmp_path) -> None:
    script = tmp_path / "burn.py"
    script.write_text(BURN, encoding="utf-8")
    sampler = TelemetrySampler(worker(library))
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as root:
        assert root.stdin is not None
        assert root.stdout is not None
        assert root.stdout.readline() == "ready\n"
        first = sampler.sample("job-0001", root.pid)
        assert (first.job, first.gpu_percent, first.gpu_memory_mb) == ("job-0001", 37.0, 619)
        assert first.cpu_percent == 0.0
        assert first.memory_mb > 64
        root.stdin.write("\n")
        root.stdin.flush()
        assert root.stdout.readline() == "burnt\n"
        assert (
            0 < sampler.sample("job-0001", root.pid).cpu_percent < 100 * (2 + (os.cpu_count() or 1))
        )
        root.communicate("\n")
    gone = sampler.sample("job-0001", root.pid)
    assert (gone.cpu_percent, gone.memory_mb) == (0.0, 0)


def test_a_driver_that_fails_costs_only_the_gauge(library) -> None:
    capabilities = worker(library)
    capabilities.snapshot()
    library.errors["nvmlInit"] = pynvml.NVML_ERROR_GPU_IS_LOST
    sample = TelemetrySampler(capabilities).sample("job-0001", os.getpid())
    assert (sample.gpu_percent, sample.gpu_memory_mb) == (None, None)
    assert sample.memory_mb > 0


def test_processes_that_never_were_have_used_nothing(library) -> None:
    sampler = TelemetrySampler(worker(library))
    for _ in range(2):
        sample = sampler.sample("job-0001", 0)
        assert (sample.cpu_percent, sample.memory_mb) == (0.0, 0)
