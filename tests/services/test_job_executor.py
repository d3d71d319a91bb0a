"""Laws of what runs jobs: each end is told in a sentence, and nothing of a job is left."""

import asyncio
import hashlib
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm_worker import effects as ef
from fsm_worker.events import (
    CleanFailed,
    CleanSucceeded,
    Collected,
    Event,
    EverythingKilled,
    Prepared,
    ProcessExited,
    Received,
    ValidationFailed,
    ValidationPassed,
)
from fsm_worker.facts import JobFacts
from fsm_worker.services import job_run
from fsm_worker.services.archive import UnpackLimits, pack, unpack, verify_manifest
from fsm_worker.services.exit_reason import exit_reason, oom_kills, out_of_memory
from fsm_worker.services.job_executor import JobExecutor
from fsm_worker.services.launcher import ExitRecord, LaunchFailed, LocalLauncher
from fsm_worker.services.nvml import Load
from fsm_worker.services.recipe import Runner
from fsm_worker.services.shared_storage import SharedStorage
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages import InputFile, JobSpec, Submit

INTERPRETERS = [(sys.executable, "-B")] if "COVERAGE_PROCESS_CONFIG" in os.environ else []
PATIENCE = 20.0  # seconds after which a test gives up; no test waits for it to pass
JOB = "job-00000001"
OTHER = "job-00000002"


class Capabilities:
    """A machine without a GPU."""

    def __init__(self) -> None:
        self.load = Load()
        self.looked = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def environment(self):
        return {}

    def gpu_free(self):
        self.looked.set()
        assert self.free.wait(PATIENCE)
        return True, ""

    def gpu_load(self):
        if isinstance(self.load, Exception):
            raise self.load
        return self.load


class Files:
    """Knows folders; what a client would send is put there by the test."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, job):
        return self.root / job

    def results_of(self, job):
        return self.folder(job) / "results.zip"

    @property
    def shared(self):
        return SharedStorage(self.root.parent / "storage")

    def expect(self, job, files, directory):
        assert directory.is_dir()

    def forget(self, job):
        pass


class Reporter:
    """Has ports that nobody connects to."""

    def __init__(self) -> None:
        self.open_ports: set[str] = set()
        self.ended = asyncio.Event()
        self.fault: Exception | None = None

    async def open(self, job):
        self.open_ports.add(job)
        return "tcp://127.0.0.1:1", "tcp://127.0.0.1:2"

    def set_stage(self, job, stage, max_epochs):
        self.ended = asyncio.Event()

    async def listen(self, job):
        if self.fault is not None:
            raise self.fault
        await self.ended.wait()

    def hang_up(self, job):
        self.ended.set()

    def close(self, job):
        self.open_ports.discard(job)


class Heard(logging.Handler):
    """What was logged as a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []
        self.one = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.one.set()


@pytest.fixture
async def heard() -> AsyncIterator[Heard]:
    handler = Heard()
    logging.getLogger("fsm_worker").addHandler(handler)
    yield handler
    logging.getLogger("fsm_worker").removeHandler(handler)


class Gate:
    """Stops a thread where a test wants it."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def hold(self) -> None:
        self._reached.set()
        assert self._open.wait(PATIENCE)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, PATIENCE)

    def open(self) -> None:
        self._open.set()


class Undying:
    """A process that outlives SIGKILL, as one that waits for a dead disk does."""

    pid = 0

    def __init__(self, *survivors: int) -> None:
        self.survivors = survivors
        self.asked_to_die = 0
        self.signals: list[int] = []

    async def wait_exit(self):
        return ended(code=0)

    def signal(self, signum):
        self.signals.append(signum)

    async def kill_leftovers(self):
        self.asked_to_die += 1
        return self.survivors


class UndyingLauncher:
    def __init__(self, *processes: Undying) -> None:
        self.processes = list(processes)

    async def start(self, spec, *, on_output=None):
        return self.processes.pop(0)


class Desk:
    """An executor with what it works with."""

    def __init__(self, folder: Path, **changes: object) -> None:
        folder.mkdir()
        self.files = Files(folder / "jobs")
        self.packages = folder
        self.capabilities = Capabilities()
        self.reporter = Reporter()
        self.told: list[tuple[str, Event]] = []
        self.kills: list[int | None] = []  # what the kernel counts; 0 when there is no more
        options: dict[str, object] = {
            "launcher": LocalLauncher(*INTERPRETERS),
            "runners": {("job",): Runner("job", ("sh",))},
            "oom_kills": lambda: self.kills.pop(0) if self.kills else 0,
        }
        self.executor = JobExecutor(
            capabilities=self.capabilities,
            file_manager=self.files,
            progress_reporter=self.reporter,
            emit=lambda _machine, subject, event: self.told.append((subject, event)),
            **options | changes,
        )

    def effect(self, kind: type[ef.Effect], job: str = JOB, *, stage: int = 0, **fields: object):
        given = {"event": Prepared(gpu_free=True), "row": "", "before": "", "after": ""}
        return kind(**{"subject": job, "facts": JobFacts(stage=stage)} | given | fields)

    def news(self) -> Event:
        (_, event) = self.told.pop()
        assert self.told == []
        return event

    def submit(self, job: str = JOB, *programs: str, **files: str) -> None:
        """Open a job of some shell programs, one a stage, and put its package there."""
        folder = self.packages / f"package of {job}"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
        for number, program in enumerate(programs):
            (folder / f"stage{number}.sh").write_text(program)
        script = "".join(f"job stage{number}.sh\n" for number in range(len(programs)))
        (folder / "train-script.sh").write_text(script)
        self.open(job)
        pack(folder, self.files.folder(job) / "inputs" / "package.zip")

    def open_shared(self, *programs: str, job: str = JOB) -> Path:
        """Open a job whose package of some shell programs lies in the shared storage."""
        storage = self.packages / "storage"
        (storage / "in").mkdir(parents=True)
        for number, program in enumerate(programs):
            (storage / "in" / f"stage{number}.sh").write_text(program)
        script = "".join(f"job stage{number}.sh\n" for number in range(len(programs)))
        (storage / "in" / "train-script.sh").write_text(script)
        message = Submit(job=job, spec=JobSpec(kind="shared", input="in", output="out"))
        self.executor.open_job(self.effect(ef.OpenJob, job, event=Received(message=message)))
        return storage

    def open(self, job: str = JOB) -> None:
        root = hashlib.sha256().hexdigest()
        inputs = (InputFile(name="package.zip", size=0, root=root),)
        message = Submit(job=job, spec=JobSpec(), inputs=inputs)
        self.executor.open_job(self.effect(ef.OpenJob, job, event=Received(message=message)))

    async def prepared(self, *programs: str, job: str = JOB) -> None:
        """Bring a job to where its first stage can start."""
        self.submit(job, *programs)
        await self.executor.validate_package(self.effect(ef.ValidatePackage, job))
        assert isinstance(self.news(), ValidationPassed)
        await self.executor.prepare_run(self.effect(ef.PrepareRun, job))
        assert self.news() == Prepared(gpu_free=True)

    async def exited(self, job: str = JOB, *, stage: int = 0) -> ProcessExited:
        """Run a stage to its end."""
        await self.executor.start_stage(self.effect(ef.StartStage, job, stage=stage))
        event = self.news()
        assert isinstance(event, ProcessExited)
        assert event.stage == stage
        return event

    async def running(self, group: asyncio.TaskGroup, job: str = JOB) -> asyncio.Task[None]:
        """Start a stage that prints READY, and wait for that."""
        log, feed = self.executor.log_of(job)
        start = group.create_task(
            self.executor.start_stage(self.effect(ef.StartStage, job)), name=f"stage of {job}"
        )
        while b"READY" not in log.read_bytes():
            change = feed.next_change
            if b"READY" not in log.read_bytes():
                await change.wait()
        return start

    async def close_job(self, job: str = JOB) -> None:
        await self.executor.close_job(self.effect(ef.CloseJob, job))

    async def clean(self) -> Event:
        await self.executor.clean_slot(self.effect(ef.CleanSlot, "worker"))
        return self.news()

    def kill_everything(self) -> None:
        self.executor.kill_everything(self.effect(ef.KillEverything, "worker"))
        assert self.news() == EverythingKilled()

    def left(self, job: str = JOB) -> set[str]:
        return {path.name for path in self.files.folder(job).iterdir()}


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Desk]]:
    """Makes executors; whatever the test does, nothing of their jobs is left."""
    desks: list[Desk] = []

    def made(**changes: object) -> Desk:
        desks.append(Desk(tmp_path / str(len(desks)), **changes))
        return desks[-1]

    async with asyncio.timeout(PATIENCE):
        yield made
        for desk in desks:
            await desk.executor.close()


@pytest.fixture
def desk(make: Callable[..., Desk]) -> Desk:
    return make()


WAITS = "echo READY\nexec sleep 60\n"


def ended(*, code: int | None = None, signum: int | None = None) -> ExitRecord:
    return ExitRecord(code=code, signal=signum, started=1.0, ended=2.0, pid=1)


# --- the whole way -------------------------------------------------------------------------------


async def test_a_job_goes_from_its_package_to_its_results_and_leaves_only_those(desk) -> None:
    await desk.prepared("mkdir results; echo one > results/one\n", "echo two > results/two\n")
    assert (await desk.exited()).ok
    assert (await desk.exited(stage=1)).ok
    await desk.executor.collect_outputs(desk.effect(ef.CollectOutputs))
    collected = desk.news()
    assert isinstance(collected, Collected)
    assert collected.results.files == 3
    assert await desk.clean() == CleanSucceeded()
    await desk.close_job()
    assert desk.left() == {"output.log", "record", "results.zip"}
    unpack(desk.files.results_of(JOB), desk.packages / "out")
    assert (desk.packages / "out/results/two").read_text() == "two\n"
    assert desk.reporter.open_ports == set()


async def test_a_job_in_the_shared_storage_comes_from_there_and_goes_there(desk) -> None:
    storage = desk.open_shared("mkdir results; echo one > results/one\n")
    await desk.executor.validate_package(desk.effect(ef.ValidatePackage))
    assert desk.news() == ValidationPassed(stages=1)
    await desk.executor.prepare_run(desk.effect(ef.PrepareRun))
    assert desk.news() == Prepared(gpu_free=True)
    assert (await desk.exited()).ok
    await desk.executor.collect_outputs(desk.effect(ef.CollectOutputs))
    collected = desk.news()
    assert isinstance(collected, Collected)
    assert (collected.results.folder, collected.problems) == ("out", ())
    verify_manifest(storage / "out", collected.results.manifest)
    assert (storage / "out" / "results" / "one").read_text() == "one\n"
    assert await desk.clean() == CleanSucceeded()
    await desk.close_job()
    assert desk.left() == {"output.log", "record"}
    assert {path.name for path in (storage / "in").iterdir()} == {"stage0.sh", "train-script.sh"}


async def test_what_can_not_go_there_is_packed_and_the_job_says_why(desk) -> None:
    storage = desk.open_shared("mkdir results; echo one > results/one\n")
    await desk.executor.validate_package(desk.effect(ef.ValidatePackage))
    await desk.executor.prepare_run(desk.effect(ef.PrepareRun))
    desk.told.clear()
    assert (await desk.exited()).ok
    shutil.rmtree(storage)
    await desk.executor.collect_outputs(desk.effect(ef.CollectOutputs))
    collected = desk.news()
    assert isinstance(collected, Collected)
    assert collected.results.files == 2
    assert (collected.results.folder, len(collected.results.root)) == ("", 64)
    [problem] = collected.problems
    assert problem.code is ErrorCode.PATH_ERROR
    assert "fetch them instead" in problem.sentence


@pytest.mark.parametrize("when", ["copying", "collecting"])
async def test_a_job_that_is_over_leaves_nothing_in_the_storage(make, monkeypatch, when) -> None:
    gate = Gate()
    desk = make()
    storage = desk.open_shared("mkdir results; echo one > results/one\n")
    held, name = (job_run, "take_package") if when == "copying" else (job_run, "place_results")
    real = getattr(held, name)

    def hold(*args, **options):
        gate.hold()
        return real(*args, **options)

    monkeypatch.setattr(held, name, hold)
    effect = ef.ValidatePackage
    if when == "collecting":
        await desk.executor.validate_package(desk.effect(ef.ValidatePackage))
        await desk.executor.prepare_run(desk.effect(ef.PrepareRun))
        assert (await desk.executor.start_stage(desk.effect(ef.StartStage))) is None
        assert await desk.executor.clean_slot(desk.effect(ef.CleanSlot, "worker")) is None
        desk.told.clear()
        effect = ef.CollectOutputs
    async with asyncio.TaskGroup() as group:
        group.create_task(getattr(desk.executor, effect.method())(desk.effect(effect)))
        await gate.reached()
        group.create_task(desk.close_job())
        await asyncio.sleep(0)  # it is closed now
        gate.open()
    assert desk.told == []
    assert [path.name for path in storage.iterdir()] == ["in"]
    assert desk.left() <= {"output.log", "record"}


async def test_a_script_and_an_archive_that_are_refused_are_told_as_problems(desk) -> None:
    desk.submit(JOB, **{"other.sh": ""})
    await desk.executor.validate_package(desk.effect(ef.ValidatePackage))
    refused = desk.news()
    assert isinstance(refused, ValidationFailed)
    assert refused.problems[0].code is ErrorCode.SCRIPT_REFUSED
    desk.open(OTHER)
    (desk.files.folder(OTHER) / "inputs/package.zip").write_bytes(b"no zip")
    await desk.executor.validate_package(desk.effect(ef.ValidatePackage, OTHER))
    refused = desk.news()
    assert isinstance(refused, ValidationFailed)
    assert refused.problems[0].code is ErrorCode.PACKAGE_REFUSED


# --- starting ------------------------------------------------------------------------------------


async def test_a_launch_that_fails_leaves_as_itself_with_its_sentence(make) -> None:
    desk = make(runners={("job",): Runner("job", ("/no/such/trainer",))})
    await desk.prepared("")
    with pytest.raises(LaunchFailed, match="'/no/such/trainer' was not found"):
        await desk.exited()
    assert await desk.clean() == CleanSucceeded()


async def test_a_stage_does_not_start_beside_an_undead_one(make) -> None:
    desk = make(launcher=UndyingLauncher(Undying(11, 12)))
    await desk.prepared("", "")
    assert (await desk.exited()).ok
    with pytest.raises(LaunchFailed, match="processes 11, 12 of the stage before do not die"):
        await desk.exited(stage=1)


@pytest.mark.parametrize("broken", ["listening", "measuring", "telling"])
async def test_what_only_watches_a_job_never_ends_it(make, heard, broken) -> None:
    def tell(_sample: object) -> None:
        if broken == "telling":
            raise ConnectionError("nobody is there")

    desk = make(telemetry=tell)
    if broken == "listening":
        desk.reporter.fault = OSError("no descriptor left")
    if broken == "measuring":
        desk.capabilities.load = RuntimeError("the driver went away")
    await desk.prepared("echo READY; read x < ../go; exit 3\n")
    go = desk.files.folder(JOB) / "go"
    os.mkfifo(go)
    async with asyncio.TaskGroup() as group:
        await desk.running(group)
        await heard.one.wait()
        await asyncio.to_thread(go.write_bytes, b"\n")
    assert desk.news().reason == "it ended with exit code 3; its last line: READY"
    (record,) = heard.records
    assert JOB in record.getMessage()
    assert record.exc_info is not None


async def test_a_signal_that_comes_before_the_process_reaches_it(desk) -> None:
    await desk.prepared("exec sleep 10\n")
    desk.executor.terminate_tree(desk.effect(ef.TerminateTree))
    assert "SIGTERM" in (await desk.exited()).reason


# --- ending --------------------------------------------------------------------------------------


async def test_killing_everything_does_not_touch_a_job_that_has_no_process(desk) -> None:
    desk.submit(JOB, "sleep 0.2\n")
    await desk.prepared(WAITS, job=OTHER)
    async with asyncio.TaskGroup() as group:
        await desk.running(group, OTHER)
        desk.kill_everything()
    assert "SIGKILL" in desk.news().reason
    await desk.executor.validate_package(desk.effect(ef.ValidatePackage))
    await desk.executor.prepare_run(desk.effect(ef.PrepareRun))
    desk.told.clear()
    assert (await desk.exited()).ok


async def test_a_process_that_does_not_die_is_all_that_keeps_the_slot(make) -> None:
    undying, mortal = Undying(11), Undying()
    desk = make(launcher=UndyingLauncher(undying, mortal))
    for job in (JOB, OTHER):
        await desk.prepared("", job=job)
        await desk.exited(job)
    for again in (1, 2):
        failed = await desk.clean()
        assert isinstance(failed, CleanFailed)
        assert "processes 11 of the last job do not die" in failed.reason
        assert (undying.asked_to_die, mortal.asked_to_die) == (again, 1)
    desk.kill_everything()
    assert (undying.signals, mortal.signals) == ([signal.SIGKILL], [])
    undying.survivors = ()
    assert await desk.clean() == CleanSucceeded()


async def test_what_a_process_wrote_after_its_job_was_over_is_dropped_when_it_is_dead(make) -> None:
    desk = make(launcher=UndyingLauncher(Undying()))
    await desk.prepared("")
    await desk.exited()
    await desk.close_job()
    late = desk.files.folder(JOB) / "unpacked"
    late.mkdir()
    (late / "checkpoint").touch()
    assert await desk.clean() == CleanSucceeded()
    assert desk.left() == {"output.log"}


async def test_closing_the_executor_ends_and_drops_every_job(make) -> None:
    desk = make()
    await desk.prepared(WAITS)
    desk.submit(OTHER, WAITS)
    async with asyncio.TaskGroup() as group:
        start = await desk.running(group)
        (pid,) = [p.pid for p in psutil.Process().children(recursive=True) if p.name() == "sleep"]
        start.cancel()  # as the runtime does before
        await asyncio.wait({start})
        await desk.executor.close()
    assert not psutil.pid_exists(pid)
    assert desk.left() == {"output.log", "record"}
    assert desk.left(OTHER) == {"output.log"}


# --- a job that is over while a thread works for it ----------------------------------------------


async def test_unpacking_ends_with_the_job_and_leaves_nothing(make) -> None:
    gate = Gate()

    class HeldLimits(UnpackLimits):
        def bytes_for(self, archive_bytes: int) -> int:
            gate.hold()  # a folder has been made, and no file yet
            return super().bytes_for(archive_bytes)

    desk = make(limits=HeldLimits())
    desk.submit(JOB, WAITS)
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.executor.validate_package(desk.effect(ef.ValidatePackage)))
        await gate.reached()
        closing = group.create_task(desk.close_job())
        _, waiting = await asyncio.wait({closing}, timeout=0.1)
        assert waiting, "the thread is still at work"
        assert "inputs" in desk.left()
        gate.open()
    assert desk.left() == {"output.log"}
    assert desk.told == []


async def test_closing_the_executor_stops_a_thread_whose_task_was_cancelled(make) -> None:
    gate, checked = Gate(), threading.Event()

    class HeldLimits(UnpackLimits):
        def bytes_for(self, archive_bytes: int) -> int:
            gate.hold()
            return super().bytes_for(archive_bytes)

    class Checked(Runner):
        def check(self, stage, folder):
            checked.set()

    desk = make(limits=HeldLimits(), runners={("job",): Checked("job", ("sh",))})
    desk.submit(JOB, WAITS)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(desk.executor.validate_package(desk.effect(ef.ValidatePackage)))
        await gate.reached()
        reading.cancel()
        closing = group.create_task(desk.executor.close())
        _, waiting = await asyncio.wait({closing}, timeout=0.1)
        assert waiting
        gate.open()
    assert not checked.is_set()
    assert desk.left() == {"output.log"}


async def test_a_thread_that_comes_to_its_turn_after_the_job_does_nothing(desk) -> None:
    desk.submit(JOB, WAITS)
    await desk.close_job()
    await desk.executor.validate_package(desk.effect(ef.ValidatePackage))
    await desk.executor.prepare_run(desk.effect(ef.PrepareRun))
    await desk.executor.collect_outputs(desk.effect(ef.CollectOutputs))
    assert desk.left() == {"output.log"}
    assert desk.told == []
    assert desk.reporter.open_ports == set()


async def test_packing_ends_with_the_job_and_leaves_no_archive(make) -> None:
    gate = Gate()

    class HeldRunner(Runner):
        def outputs(self, stage, folder=None):
            gate.hold()
            return super().outputs(stage, folder)

    desk = make(runners={("job",): HeldRunner("job", ("sh",))})
    await desk.prepared("mkdir results; echo model > results/model\n")
    assert (await desk.exited()).ok
    assert await desk.clean() == CleanSucceeded()
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.executor.collect_outputs(desk.effect(ef.CollectOutputs)))
        await gate.reached()
        group.create_task(desk.close_job())
        await asyncio.sleep(0)  # it is closed now
        gate.open()
    assert desk.left() == {"output.log", "record"}
    assert desk.told == []


async def test_ports_that_were_opened_for_a_job_that_is_over_are_closed_again(desk) -> None:
    desk.capabilities.free.clear()
    desk.submit(JOB, WAITS)
    await desk.executor.validate_package(desk.effect(ef.ValidatePackage))
    async with asyncio.TaskGroup() as group:
        group.create_task(desk.executor.prepare_run(desk.effect(ef.PrepareRun)))
        assert await asyncio.to_thread(desk.capabilities.looked.wait, PATIENCE)
        await desk.close_job()
        desk.capabilities.free.set()
    assert desk.reporter.open_ports == set()


# --- what is kept --------------------------------------------------------------------------------


async def test_a_job_is_known_until_it_is_forgotten_and_its_id_is_not_free_then(desk) -> None:
    await desk.prepared("echo said\n")
    await desk.exited()
    await desk.clean()
    await desk.close_job()
    path, feed = desk.executor.log_of(JOB)
    assert (path.read_text(), feed.closed) == ("said\n", True)
    desk.executor.forget(JOB)
    assert desk.executor.log_of(JOB) is None
    desk.executor.forget(JOB)
    with pytest.raises(ProtocolError, match="submit with a new one") as refused:
        desk.open()
    assert refused.value.code is ErrorCode.JOB_CONFLICT
    assert path.read_text() == "said\n"


async def test_a_job_that_is_forgotten_too_early_is_kept_until_nothing_of_it_is_left(make) -> None:
    undying = Undying(11)
    desk = make(launcher=UndyingLauncher(undying))
    await desk.prepared("")
    await desk.exited()
    desk.executor.forget(JOB)
    await desk.close_job()
    assert desk.executor.log_of(JOB) is not None
    undying.survivors = ()
    assert await desk.clean() == CleanSucceeded()
    assert desk.executor.log_of(JOB) is None


async def test_a_job_without_a_process_is_forgotten_once_it_is_closed(desk) -> None:
    desk.submit(JOB, WAITS)
    desk.executor.forget_job(desk.effect(ef.ForgetJob))
    assert desk.executor.log_of(JOB) is not None
    await desk.close_job()
    assert desk.executor.log_of(JOB) is None


# --- why a program ended -------------------------------------------------------------------------


async def test_a_job_that_deletes_its_log_and_dies_of_an_odd_signal_has_a_reason(desk) -> None:
    await desk.prepared("rm ../output.log; kill -40 $$\n")
    assert (await desk.exited()).reason == (
        "it was ended by signal 40; its log can't be read: it was deleted or replaced"
    )


def test_a_log_that_is_no_file_any_more_is_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "log")
    writer = os.open(tmp_path / "log", os.O_RDWR)  # without one, a reader would never come back
    try:
        assert exit_reason(ended(code=1), tmp_path / "log") == (
            "it ended with exit code 1; its log can't be read: it was deleted or replaced"
        )
    finally:
        os.close(writer)


def test_a_log_that_the_system_does_not_give_is_said() -> None:
    sentence = exit_reason(ended(code=1), Path("/proc/self/mem"))
    assert sentence.startswith("it ended with exit code 1; its log can't be read: ")


@given(
    st.builds(ended, code=st.none() | st.integers(0, 255), signum=st.none() | st.integers(1, 64)),
    st.binary(max_size=300),
)
def test_every_record_has_a_sentence_whatever_the_log_holds(tmp_path_factory, record, log) -> None:
    path = tmp_path_factory.getbasetemp() / "any.log"
    path.write_bytes(log)
    assert exit_reason(record, path).startswith("it")
    out_of_memory(record, path, killed_here=False, oom_killed=None)


def traceback(last: str) -> str:
    return (
        "Traceback (most recent call last):\n"
        '  File "train.py", line 1, in <module>\n    main()\n    ^^^^^^\n'
        f"{last}\n"
    )


CUDA = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total"
    " capacity of 7.79 GiB of which 2.31 MiB is free."
)
LED_TO = "\nDuring handling of the above exception, another exception occurred:\n\n"
CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
IN_A_BOX = (
    "╭───────── Traceback (most recent call last) ─────────╮\n"
    "│ /train.py:1 in <module>                             │\n"
    "╰─────────────────────────────────────────────────────╯\n"
    "OutOfMemoryError: CUDA out of memory. Tried to allocate\n20.00 MiB.\n"
)


@pytest.mark.parametrize(
    "log",
    [
        traceback("MemoryError"),
        traceback("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 TiB"),
        traceback(CUDA),
        traceback(CUDA.replace("torch.", "torch.cuda.")),
        traceback("RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        traceback("RuntimeError: CUDA error: out of memory"),
        "epoch 1:  10%\r epoch 1:  20%" + traceback(CUDA),
        traceback(CUDA) + "\x1b[34mwandb\x1b[0m: Run summary\n" * 5,
        traceback(CUDA) + LED_TO + traceback("KeyError: 'loss'"),
        traceback("KeyError: 'x'") + CAUSED + traceback("MemoryError"),
        traceback(f"{CUDA}\nOriginal {traceback(CUDA)}"),
        IN_A_BOX,
        "x" * 200_000 + "\n" + traceback(CUDA),
    ],
)
def test_the_traceback_of_a_lack_of_memory_is_evidence(tmp_path, log) -> None:
    (tmp_path / "log").write_text(log)
    asked = {"killed_here": False, "oom_killed": False}
    assert out_of_memory(ended(code=1), tmp_path / "log", **asked)
    assert not out_of_memory(ended(code=0), tmp_path / "log", **asked)


@pytest.mark.parametrize(
    "log",
    [
        "",
        "MemoryError\n",
        "CUDA out of memory: retrying with half the batch\n",
        f"warning: {CUDA}\n",
        traceback("ValueError: no such MemoryError"),
        traceback("NotAMemoryErrorAtAll: CUDA"),
        traceback(CUDA) + "a smaller batch goes on\n" + traceback("KeyError: 'loss'"),
        traceback(CUDA) + "epoch\n" * 30,
        "Traceback (most recent call last):\n  MemoryError\n",
        "  File 'a'\nMemoryError\n",
    ],
)
def test_the_words_alone_are_not(tmp_path, log) -> None:
    (tmp_path / "log").write_text(log)
    record = ended(code=1)
    assert not out_of_memory(record, tmp_path / "log", killed_here=False, oom_killed=True)


@pytest.mark.parametrize(
    ("counted", "told"), [([3, 4], True), ([3, 3], False), ([None, None], True), ([None, 3], True)]
)
async def test_a_kill_that_nobody_here_sent_is_for_memory_if_the_kernel_says_so_or_cannot_say(
    desk, counted, told
) -> None:
    desk.kills = [*counted]
    await desk.prepared("kill -9 $$\n")
    exited = await desk.exited()
    assert "SIGKILL" in exited.reason
    assert exited.out_of_memory is told


async def test_a_kill_that_this_worker_sent_is_not_for_memory(desk) -> None:
    desk.kills = [3, 4]
    await desk.prepared("exec sleep 10\n")
    desk.executor.kill_tree(desk.effect(ef.KillTree))
    exited = await desk.exited()
    assert "SIGKILL" in exited.reason
    assert not exited.out_of_memory


EVENTS = "low 0\nhigh 12\nmax 5\noom 3\noom_kill 2\noom_group_kill 0\n"


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.events": EVENTS}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.events": EVENTS}, 2),
        ({"proc/self/cgroup": "4:memory:/x\n0::/\n", "proc/vmstat": "pgin 7\noom_kill 9\n"}, 9),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.events": "low 0\n"}, None),
        ({"proc/self/cgroup": "0::/../..\n", "proc/vmstat": "oom_kill many\n"}, None),
        ({"proc/vmstat": "oom_kill 1\n"}, 1),
        ({}, None),
    ],
)
def test_the_kernels_count_is_that_of_the_cgroup_or_else_of_the_machine(
    tmp_path, files, count
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert oom_kills(tmp_path) == count
