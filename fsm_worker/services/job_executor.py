"""Runs jobs: directory, package, stages, signals, outputs.

Which of these happens when is decided by the table `job`, and by `worker` for what proves that the
slot is clean. Nothing that a client sends reaches a shell: a script is parsed for known commands,
and a runner makes the argument vector.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from fsm_worker.effects import (
    CleanSlot,
    CloseJob,
    CollectOutputs,
    DiscardOutputs,
    ForgetJob,
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
    EverythingKilled,
    Prepared,
    ProcessExited,
    Received,
    ValidationFailed,
    ValidationPassed,
)
from fsm_worker.services.archive import ArchiveRefused, UnpackLimits
from fsm_worker.services.capabilities import WorkerCapabilities
from fsm_worker.services.exit_reason import exit_reason, oom_kills, out_of_memory
from fsm_worker.services.file_manager import FileManager
from fsm_worker.services.job_run import JobClosed, Run, SharedPaths
from fsm_worker.services.launch import ExitRecord, Launcher, LaunchFailed, LaunchSpec, Process
from fsm_worker.services.log_stream import LogFeed
from fsm_worker.services.progress_reporter import ProgressReporter
from fsm_worker.services.recipe import Ports, Runner
from fsm_worker.services.runners import runner_of
from fsm_worker.services.script import ScriptRefused
from fsm_worker.services.telemetry import TelemetrySampler
from fsm_worker.work_threads import InThread
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages import Problem, ResultsInfo, Telemetry
from protocol.table import MachineName

log = logging.getLogger(__name__)

#: Seconds between two looks at what a running job uses.
TELEMETRY_EVERY = 5.0


#: How the names of the worker's settings begin, in ours and in sleap-rtc's words.
_OWN = ("FSM_WORKER_", "SLEAP_RTC_", "SLEAP_ROOM_", "SLEAP_SECRET")


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
        oom_kills: counts what the kernel has killed for want of memory; see `oom_kills`.
        packages: threads for the packages of jobs that wait or are over; see `work_threads`.
        slot: threads for the files of the job that runs.
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
        oom_kills: Callable[[], int | None] = oom_kills,
        packages: InThread = asyncio.to_thread,
        slot: InThread = asyncio.to_thread,
    ) -> None:
        self._capabilities = capabilities
        self._files = file_manager
        self._progress = progress_reporter
        self._launcher = launcher
        self._runners = runners
        self._emit = emit
        self._telemetry = telemetry
        self._limits = limits or UnpackLimits()
        self._oom_kills = oom_kills
        self._package_thread = packages
        self._slot_thread = slot
        self._runs: dict[str, Run] = {}

    # --- ports -----------------------------------------------------------------------------

    def log_of(self, job: str) -> tuple[Path, LogFeed] | None:
        """A job's log file and the feed that tells its growth; None if there is no such job."""
        run = self._runs.get(job)
        return (run.log, run.feed) if run is not None else None

    def forget(self, job: str) -> None:
        """Drops what is known of a job that has ended; its folder stays.

        Args:
            job: its id. While something of it is still to be killed or deleted, it is only noted.
        """
        run = self._runs.get(job)
        if run is not None:
            run.forgotten = True
            self._drop_forgotten()

    def _drop_forgotten(self) -> None:
        for job, run in list(self._runs.items()):
            if run.forgotten and run.over:
                del self._runs[job]

    async def close(self) -> None:
        """Ends all work, kills what is still alive, and drops what is not results."""
        for run in self._runs.values():
            run.closed.set()
        self._kill_all()
        async with AsyncExitStack() as last:  # whoever is cancelled here sees to the others still
            for run in self._runs.values():
                last.push_async_callback(asyncio.to_thread, run.drop_work)
                if run.process is not None:
                    last.push_async_callback(run.process.kill_leftovers)

    # --- effects: before the process -----------------------------------------------------------

    def open_job(self, effect: OpenJob) -> None:
        """Makes the job's directory, and expects its inputs."""
        if not isinstance(effect.event, Received):
            return
        folder = self._files.folder(effect.subject)
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            raise ProtocolError(
                ErrorCode.JOB_CONFLICT, "this id was used here before: submit with a new one"
            ) from error
        (folder / "inputs").mkdir()
        inputs, spec = effect.event.message.inputs, effect.event.message.spec
        if spec.kind == "shared":
            paths = SharedPaths(self._files.shared, spec.input, spec.output, effect.subject)
            run = Run(folder, shared=paths)
        else:
            run = Run(folder, archive=inputs[0].name)
        self._runs[effect.subject] = run
        run.log.touch()
        self._files.expect(effect.subject, inputs, folder / "inputs")

    async def validate_package(self, effect: ValidatePackage) -> None:
        """Unpacks or copies the package and parses its script."""
        run = self._runs[effect.subject]
        try:
            await self._package_thread(run.read_package, self._runners, self._limits)
        except ScriptRefused as refusal:
            problem = Problem(
                code=ErrorCode.SCRIPT_REFUSED, sentence=refusal.sentence, line=refusal.line
            )
        except ArchiveRefused as refusal:
            problem = Problem(code=ErrorCode.PACKAGE_REFUSED, sentence=str(refusal))
        except ProtocolError as refusal:
            problem = Problem(code=refusal.code, sentence=refusal.sentence)
        except JobClosed:
            return
        else:
            self._emit(MachineName.JOB, effect.subject, ValidationPassed(stages=len(run.stages)))
            return
        self._emit(MachineName.JOB, effect.subject, ValidationFailed(problems=(problem,)))

    async def prepare_run(self, effect: PrepareRun) -> None:
        """Binds the ports and looks at the GPU."""
        run = self._runs[effect.subject]
        publish, control = await self._progress.open(effect.subject)
        run.ports = Ports(publish=publish, control=control)
        try:
            await self._slot_thread(run.note_package)
            free, reason = await asyncio.to_thread(self._capabilities.gpu_free)
        except JobClosed:
            return
        finally:
            if run.closed.is_set():  # cancelled meanwhile: what was opened for it is closed again
                self._progress.close(effect.subject)
        self._emit(MachineName.JOB, effect.subject, Prepared(gpu_free=free, reason=reason))

    # --- effects: the process ------------------------------------------------------------------

    async def start_stage(self, effect: StartStage) -> None:
        """Starts the stage's program under a supervisor, and waits for its end.

        Raises:
            LaunchFailed: nothing runs; the message is a sentence for the user.
        """
        job, number = effect.subject, effect.facts.stage
        run = self._runs[job]
        spec = await self._prepare_stage(job, run, number)
        before = await asyncio.to_thread(self._oom_kills)
        try:
            process = run.process = await self._launcher.start(spec, on_output=run.feed.grew)
        finally:
            run.feed.grew()
        if run.asked is not None:  # a signal that came before there was a process
            process.signal(run.asked)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(job))
            sampling = group.create_task(self._sample(job, process))
            record = await process.wait_exit()
            sampling.cancel()
            self._progress.hang_up(job)
        run.feed.grew()
        ended = await asyncio.to_thread(self._ended, run, number, record, before)
        self._emit(MachineName.JOB, job, ended)

    async def _prepare_stage(self, job: str, run: Run, number: int) -> LaunchSpec:
        stage = run.stages[number]
        runner = runner_of(stage, self._runners)
        if run.ports is None:
            raise LaunchFailed("the job's ports are not open")
        if run.process is not None:  # what an earlier stage has left behind ends with it
            undead = await run.process.kill_leftovers()
            if undead:
                raise LaunchFailed(f"{_processes(undead)} of the stage before do not die")
        epochs = await self._slot_thread(runner.max_epochs, stage, run.package)
        self._progress.set_stage(job, number, epochs)
        return LaunchSpec(
            argv=runner.argv(stage, run.ports),
            env={**_environ(), **runner.env(run.ports), **self._capabilities.environment()},
            cwd=run.package,
            log_path=run.log,
            record_dir=run.record,
            stage=number,
        )

    # What only watches a job must not end it: in these two, an exception is logged.

    async def _listen(self, job: str) -> None:
        try:
            await self._progress.listen(job)
        except Exception as error:
            log.warning("! job %s: its progress is heard no more: %s", job, error, exc_info=error)

    async def _sample(self, job: str, process: Process) -> None:
        sampler = TelemetrySampler(self._capabilities)
        try:
            while True:
                self._telemetry(await asyncio.to_thread(sampler.sample, job, process.pid))
                await asyncio.sleep(TELEMETRY_EVERY)  # a sampling rate, not a wait for something
        except Exception as error:
            log.warning("! job %s: it is measured no more: %s", job, error, exc_info=error)

    def _ended(
        self, run: Run, number: int, record: ExitRecord, before: int | None
    ) -> ProcessExited:
        after = self._oom_kills()
        return ProcessExited(
            stage=number,
            ok=record.ok,
            out_of_memory=out_of_memory(
                record,
                run.log,
                killed_here=run.asked == signal.SIGKILL,
                oom_killed=None if before is None or after is None else after > before,
            ),
            reason=exit_reason(record, run.log),
        )

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
        if run is not None and run.may_run:
            run.asked = number
            if run.process is not None:
                run.process.signal(number)

    # --- effects: after the process ------------------------------------------------------------

    async def collect_outputs(self, effect: CollectOutputs) -> None:
        """Hashes what the job made, and packs it or puts it into the shared storage."""
        run = self._runs[effect.subject]
        try:
            results, problems = await self._slot_thread(
                run.collect_results, self._runners, self._files.results_of(effect.subject)
            )
        except JobClosed:
            return
        except OSError as error:  # without its path, which is nobody's business
            reason = error.strerror or str(error)
            self._emit(MachineName.JOB, effect.subject, CollectFailed(reason=reason))
            return
        collected = Collected(results=results, problems=problems)
        self._emit(MachineName.JOB, effect.subject, collected)

    def discard_outputs(self, effect: DiscardOutputs) -> None:
        """Nothing is kept of a cancelled job but its log."""
        self._emit(MachineName.JOB, effect.subject, Collected(results=ResultsInfo()))

    def forget_job(self, effect: ForgetJob) -> None:
        """Drops what is remembered of a job that ended long ago; its folder stays."""
        self.forget(effect.subject)

    async def close_job(self, effect: CloseJob) -> None:
        """Closes the log and the ports, and drops what is not results.

        A thread that still works for the job is told to stop, and waited for.
        """
        run = self._runs.get(effect.subject)
        self._progress.close(effect.subject)
        self._files.forget(effect.subject)
        if run is not None:
            run.closed.set()
            run.feed.close()
            await self._package_thread(run.drop_work)
            self._drop_forgotten()

    async def clean_slot(self, effect: CleanSlot) -> None:
        """Kills what is left of every job's tree, and proves it dead.

        What the tree left in a folder that was dropped before goes afterwards: a thread may still
        work there, and the slot does not wait for it.
        """
        survivors: list[int] = []
        for run in list(self._runs.values()):
            if run.process is None:
                continue
            left = await run.process.kill_leftovers()
            if not left:
                run.gone()
            survivors += left
        if survivors:
            reason = f"{_processes(survivors)} of the last job do not die"
            self._emit(MachineName.WORKER, effect.subject, CleanFailed(reason=reason))
        else:
            self._emit(MachineName.WORKER, effect.subject, CleanSucceeded())
        for run in list(self._runs.values()):
            # where a thread works still, the deletion that `close_job` asked for waits for it
            if run.closed.is_set() and not run.dropped and not run.in_use:
                await self._package_thread(run.drop_work)
        self._drop_forgotten()

    def kill_everything(self, effect: KillEverything) -> None:
        """SIGKILL to every tree."""
        self._kill_all()
        self._emit(MachineName.WORKER, effect.subject, EverythingKilled())

    def _kill_all(self) -> None:
        for job in self._runs:
            self._signal(job, signal.SIGKILL)


def _processes(pids: Sequence[int]) -> str:
    return f"processes {', '.join(map(str, pids))}"


def _environ() -> dict[str, str]:
    """The worker's environment without its own settings: a room's secret is nothing for a job."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
