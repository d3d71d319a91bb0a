"""Runs jobs: directory, package, stages, signals, outputs.

Which of these happens when is decided by the table `job`, and by `worker` for what proves that the
slot is clean. Nothing that a client sends reaches a shell: a script is parsed for known commands,
and a runner makes the argument vector.
"""

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from fsm_worker.effects import (
    CleanSlot,
    CloseJob,
    CollectOutputs,
    DiscardOutputs,
    InterruptTree,
    KillEverything,
    KillTree,
    OpenJob,
    PrepareRun,
    StartStage,
    TerminateTree,
    ValidatePackage,
)
from fsm_worker.events import (
    CleanFailed,
    CleanSucceeded,
    Collected,
    CollectFailed,
    Event,
    Prepared,
    ProcessExited,
    Received,
    ValidationFailed,
    ValidationPassed,
)
from fsm_worker.services.archive import (
    ArchiveRefused,
    UnpackLimits,
    find_script,
    pack_results,
    package_root,
    snapshot,
    unpack,
)
from fsm_worker.services.capabilities import WorkerCapabilities
from fsm_worker.services.exit_reason import exit_reason, out_of_memory
from fsm_worker.services.file_manager import FileManager
from fsm_worker.services.launcher import ExitRecord, Launcher, LaunchFailed, LaunchSpec, Process
from fsm_worker.services.log_stream import LogFeed
from fsm_worker.services.packing import Snapshot
from fsm_worker.services.progress_reporter import ProgressReporter
from fsm_worker.services.recipe import Ports, Runner, Stage
from fsm_worker.services.runners import parse_script, read_script, runner_of
from fsm_worker.services.script import ScriptRefused
from fsm_worker.services.telemetry import TelemetrySampler
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import ResultsState
from protocol.messages import InputFile, Problem, ResultsInfo, Telemetry
from protocol.table import MachineName

log = logging.getLogger(__name__)

#: Seconds between two looks at what a running job uses.
TELEMETRY_EVERY = 5.0


class Run:
    """What the executor knows of one job."""

    def __init__(self, folder: Path, inputs: tuple[InputFile, ...]) -> None:
        self.folder = folder
        self.inputs = inputs
        self.package = folder / "package"  # the folder that holds the script, once unpacked
        self.log = folder / "output.log"
        self.feed = LogFeed()
        self.stages: tuple[Stage, ...] = ()
        self.before: Snapshot = {}  # the package as it came: what is unchanged is no result
        self.ports: Ports | None = None
        self.process: Process | None = None
        self.asked: int | None = None  # the strongest signal that was asked for
        self.closed = False


class JobExecutor:
    """Runs jobs on one slot.

    Args:
        capabilities: says what GPU a job may see, and whether it is free.
        file_manager: receives inputs, and knows where results go.
        progress_reporter: has the ports to the trainer.
        launcher: brings processes to life.
        runners: by the words that ask for them.
        emit: reports events.
        telemetry: takes what a running job uses, now and then.
        limits: of what a package may unpack to.
    """

    def __init__(
        self,
        *,
        capabilities: WorkerCapabilities,
        file_manager: FileManager,
        progress_reporter: ProgressReporter,
        launcher: Launcher,
        runners: Mapping[tuple[str, ...], Runner],
        emit: Callable[[MachineName, str, Event], None],
        telemetry: Callable[[Telemetry], None] = lambda _telemetry: None,
        limits: UnpackLimits | None = None,
    ) -> None:
        self._capabilities = capabilities
        self._files = file_manager
        self._progress = progress_reporter
        self._launcher = launcher
        self._runners = runners
        self._emit = emit
        self._telemetry = telemetry
        self._limits = limits or UnpackLimits()
        self._runs: dict[str, Run] = {}

    # --- ports -----------------------------------------------------------------------------

    def log_of(self, job: str) -> tuple[Path, LogFeed] | None:
        """A job's log file and the feed that tells its growth; None if there is no such job."""
        run = self._runs.get(job)
        return (run.log, run.feed) if run is not None else None

    async def close(self) -> None:
        """Kills what is still alive, and waits until it is gone."""
        for run in list(self._runs.values()):
            if run.process is not None:
                await run.process.kill_leftovers()

    # --- effects: before the process -----------------------------------------------------------

    def open_job(self, effect: OpenJob) -> None:
        """Makes the job's directory, and expects its inputs."""
        if not isinstance(effect.event, Received):
            return
        folder = self._files.folder(effect.subject)
        try:
            (folder / "inputs").mkdir(parents=True)
        except FileExistsError as error:
            raise ProtocolError(
                ErrorCode.JOB_CONFLICT,
                "this id was used here before the worker was restarted: submit with a new one",
            ) from error
        inputs = effect.event.message.inputs
        run = self._runs[effect.subject] = Run(folder, inputs)
        run.log.touch()
        self._files.expect(effect.subject, inputs, folder / "inputs")

    async def validate_package(self, effect: ValidatePackage) -> None:
        """Unpacks the package and parses its script."""
        run = self._runs[effect.subject]
        try:
            run.stages = await asyncio.to_thread(self._read_package, run)
        except ScriptRefused as refusal:
            problem = Problem(
                code=ErrorCode.SCRIPT_REFUSED, sentence=refusal.sentence, line=refusal.line
            )
        except ArchiveRefused as refusal:
            problem = Problem(code=ErrorCode.PACKAGE_REFUSED, sentence=str(refusal))
        else:
            self._emit(MachineName.JOB, effect.subject, ValidationPassed(stages=len(run.stages)))
            return
        self._emit(MachineName.JOB, effect.subject, ValidationFailed(problems=(problem,)))

    def _read_package(self, run: Run) -> tuple[Stage, ...]:
        unpacked = run.folder / "unpacked"
        unpack(run.folder / "inputs" / run.inputs[0].name, unpacked, self._limits)
        run.package = package_root(unpacked)
        stages = parse_script(read_script(find_script(run.package)), self._runners)
        for stage in stages:
            runner_of(stage, self._runners).check(stage, run.package)
        return stages

    async def prepare_run(self, effect: PrepareRun) -> None:
        """Binds the ports and looks at the GPU."""
        run = self._runs[effect.subject]
        publish, control = await self._progress.open(effect.subject)
        run.ports = Ports(publish=publish, control=control)
        run.before = await asyncio.to_thread(snapshot, run.package)
        free, reason = await asyncio.to_thread(self._capabilities.gpu_free)
        if run.closed:  # cancelled meanwhile: what was opened for it is closed again
            self._progress.close(effect.subject)
        self._emit(MachineName.JOB, effect.subject, Prepared(gpu_free=free, reason=reason))

    # --- effects: the process ------------------------------------------------------------------

    async def start_stage(self, effect: StartStage) -> None:
        """Starts the stage's program under a supervisor, and waits for its end."""
        job, number = effect.subject, effect.facts.stage
        run = self._runs[job]
        stage = run.stages[number]
        runner = runner_of(stage, self._runners)
        if run.ports is None:
            raise LaunchFailed("the job's ports are not open")
        if run.process is not None:  # what an earlier stage has left behind ends with it
            await run.process.kill_leftovers()
        epochs = await asyncio.to_thread(runner.max_epochs, stage, run.package)
        self._progress.set_stage(job, number, epochs)
        spec = LaunchSpec(
            argv=runner.argv(stage, run.ports),
            env={**os.environ, **runner.env(run.ports), **self._capabilities.environment()},
            cwd=run.package,
            log_path=run.log,
            record_dir=run.folder / "record",
            stage=number,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._progress.listen(job))
            try:
                run.process = await self._launcher.start(spec, on_output=run.feed.grew)
            finally:
                run.feed.grew()
            if run.asked is not None:  # a signal that came before there was a process
                run.process.signal(run.asked)
            sampling = group.create_task(self._sample(job, run.process))
            record = await run.process.wait_exit()
            sampling.cancel()
            self._progress.hang_up(job)
        run.feed.grew()
        self._emit(MachineName.JOB, job, await asyncio.to_thread(_exited, number, record, run.log))

    async def _sample(self, job: str, process: Process) -> None:
        sampler = TelemetrySampler(self._capabilities)
        while True:
            sample = await asyncio.to_thread(sampler.sample, job, process.pid)
            self._telemetry(sample)
            await asyncio.sleep(TELEMETRY_EVERY)  # a sampling rate, not a wait for something

    def interrupt_tree(self, effect: InterruptTree) -> None:
        """SIGINT to the job's process tree."""
        self._signal(effect.subject, signal.SIGINT)

    def terminate_tree(self, effect: TerminateTree) -> None:
        """SIGTERM to the job's process tree."""
        self._signal(effect.subject, signal.SIGTERM)

    def kill_tree(self, effect: KillTree) -> None:
        """SIGKILL to the job's process tree."""
        self._signal(effect.subject, signal.SIGKILL)

    def _signal(self, job: str, number: signal.Signals) -> None:
        run = self._runs.get(job)
        if run is not None:
            run.asked = number
            if run.process is not None:
                run.process.signal(number)

    # --- effects: after the process ------------------------------------------------------------

    async def collect_outputs(self, effect: CollectOutputs) -> None:
        """Packs and hashes what the job made."""
        run = self._runs[effect.subject]
        try:
            results = await asyncio.to_thread(self._pack, run, effect.subject)
        except OSError as error:
            self._emit(MachineName.JOB, effect.subject, CollectFailed(reason=str(error)))
            return
        self._emit(MachineName.JOB, effect.subject, Collected(results=results))

    def _pack(self, run: Run, job: str) -> ResultsInfo:
        wanted: list[str] = []
        for stage in run.stages:
            wanted += runner_of(stage, self._runners).outputs(stage, run.package)
        packed = pack_results(
            run.package, wanted, self._files.results_of(job), log=run.log, inputs=run.before
        )
        return ResultsInfo(
            state=ResultsState.HELD, size=packed.size, root=packed.root, files=packed.files
        )

    def discard_outputs(self, effect: DiscardOutputs) -> None:
        """Nothing is kept of a cancelled job but its log."""
        self._emit(MachineName.JOB, effect.subject, Collected(results=ResultsInfo()))

    async def close_job(self, effect: CloseJob) -> None:
        """Closes the log and the ports, and drops what is not results."""
        run = self._runs.get(effect.subject)
        self._progress.close(effect.subject)
        self._files.forget(effect.subject)
        if run is not None:
            run.closed = True
            run.feed.close()
            await asyncio.to_thread(_drop_work, run.folder)

    async def clean_slot(self, effect: CleanSlot) -> None:
        """Kills what is left of every job's tree, and proves it dead."""
        survivors: list[int] = []
        for run in list(self._runs.values()):
            if run.process is not None:
                survivors += await run.process.kill_leftovers()
                if not survivors:
                    run.process = None
                if run.closed:
                    await asyncio.to_thread(_drop_work, run.folder)
        if survivors:
            reason = f"processes {', '.join(map(str, survivors))} of the last job do not die"
            self._emit(MachineName.WORKER, effect.subject, CleanFailed(reason=reason))
        else:
            self._emit(MachineName.WORKER, effect.subject, CleanSucceeded())

    def kill_everything(self, effect: KillEverything) -> None:
        """SIGKILL to every tree."""
        del effect
        for job in self._runs:
            self._signal(job, signal.SIGKILL)


def _exited(stage: int, record: ExitRecord, log_path: Path) -> ProcessExited:
    return ProcessExited(
        stage=stage,
        ok=record.ok,
        out_of_memory=out_of_memory(record, log_path),
        reason=exit_reason(record, log_path),
    )


def _drop_work(folder: Path) -> None:
    """Inputs and package have done their duty; log, records and results stay."""
    for name in ("inputs", "unpacked"):
        shutil.rmtree(folder / name, ignore_errors=True)
