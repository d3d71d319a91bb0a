"""What a worker knows of one job, and the job's folder, in which threads work.

    JOB/inputs      what the client has sent        ┐ dropped when the job is over
    JOB/unpacked    the package; the job runs in it ┘
    JOB/record      how its programs ended
    JOB/output.log  what they printed

Reading a package and packing results can take minutes. A job may be over before they are: then they
stop, and nothing is dropped before they have.
"""

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fsm_worker.services.archive import (
    UnpackLimits,
    UnpackStopped,
    choose_results,
    find_script,
    pack_results,
    package_root,
    unpack,
)
from fsm_worker.services.launch import Process
from fsm_worker.services.log_stream import LogFeed
from fsm_worker.services.packing import Snapshot, snapshot
from fsm_worker.services.recipe import Ports, Runner, Stage
from fsm_worker.services.runners import parse_script, read_script, runner_of
from fsm_worker.services.shared_package import take_package
from fsm_worker.services.shared_results import place_results
from fsm_worker.services.shared_storage import SharedStorage
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import ResultsState
from protocol.messages import Problem, ResultsInfo


class SharedPaths(NamedTuple):
    """Where a job in the shared storage has its files.

    Attributes:
        storage: which.
        input: the package's path, relative to the root.
        output: that of the folder for results.
        job: the id.
    """

    storage: SharedStorage
    input: str
    output: str
    job: str


class JobClosed(Exception):
    """The job is over, and this was stopped: say nothing, nothing of it is left."""


class Run:
    """What is known of one job.

    Args:
        folder: the job's; it exists.
        archive: the name of the package among the inputs.
        shared: where the package lies, and its results go, instead.

    Attributes:
        package: the folder that holds the script, once unpacked.
        log: what its programs print.
        record: where the supervisors write how they ended.
        feed: tells that the log grows.
        stages: its commands, once read.
        ports: bound for the trainer, from the preparation on.
        process: of the newest stage, until nothing of it is left.
        asked: the newest signal that was asked for.
        closed: the job is over; threads look at it.
        forgotten: nobody will ask for the job any more.
        dropped: its inputs and package are deleted, and nothing has written there since.
    """

    def __init__(
        self, folder: Path, *, archive: str = "", shared: SharedPaths | None = None
    ) -> None:
        self.package = folder / "unpacked"
        self.log = folder / "output.log"
        self.feed = LogFeed()
        self.stages: tuple[Stage, ...] = ()
        self.ports: Ports | None = None
        self.process: Process | None = None
        self.asked: int | None = None
        self.closed = threading.Event()
        self.forgotten = False
        self.record = folder / "record"
        self._inputs = folder / "inputs"
        self._archive = self._inputs / archive
        self._shared = shared
        self._unpacked = folder / "unpacked"
        self._before: Snapshot = {}  # the package as it came: what is unchanged is no result
        self._working = threading.Lock()  # held by the thread that uses what will be dropped
        self.dropped = False

    @property
    def may_run(self) -> bool:
        """Whether the job has processes, or is about to."""
        return self.process is not None or (self.ports is not None and not self.closed.is_set())

    @property
    def over(self) -> bool:
        """Whether nothing of the job is left to be killed or dropped."""
        return self.dropped and self.process is None

    @property
    def in_use(self) -> bool:
        """Whether a thread works in its folders."""
        return self._working.locked()

    def gone(self) -> None:
        """Nothing of its processes is left; until now they may have written where was dropped."""
        self.process, self.dropped = None, False

    def read_package(self, runners: Mapping[tuple[str, ...], Runner], limits: UnpackLimits) -> None:
        """Unpack or copy the package and find the stages in its script; blocking.

        Args:
            runners: by the words that ask for them.
            limits: of what a package may unpack to.

        Raises:
            ArchiveRefused: if the archive can't be unpacked, or holds no script.
            ScriptRefused: if the script holds what no runner accepts.
            ProtocolError: if a path in the shared storage can't be used, or the disk is full.
            JobClosed: if the job was closed before the end.
            OSError: if the disk fails.
        """
        with self._working:
            self._go_on()
            try:
                self._unpack(limits)
            except UnpackStopped:
                raise JobClosed from None
            self.package = package_root(self._unpacked)
            self.stages = parse_script(read_script(find_script(self.package)), runners)
            for stage in self.stages:
                runner_of(stage, runners).check(stage, self.package)

    def _unpack(self, limits: UnpackLimits) -> None:
        stopped = self.closed.is_set
        if self._shared is None:
            unpack(self._archive, self._unpacked, limits, stopped=stopped)
            return
        storage, path, output, _ = self._shared
        storage.check_output(output)
        take_package(storage, path, self._unpacked, limits, stopped=stopped)

    def note_package(self) -> None:
        """Note what is in the package before the job runs; blocking.

        Raises:
            JobClosed: if the job was closed before.
            OSError: if the disk fails.
        """
        with self._working:
            self._go_on()
            self._before = snapshot(self.package)

    def collect_results(
        self, runners: Mapping[tuple[str, ...], Runner], dest: Path
    ) -> tuple[ResultsInfo, tuple[Problem, ...]]:
        """Hash what the job has made, and pack it or put it into the shared storage; blocking.

        What can't be put there is packed, so that it is not lost.

        Args:
            runners: as for `read_package`.
            dest: the archive to make.

        Returns:
            Where it is; and why it is not where it was wanted.

        Raises:
            JobClosed: if the job was closed before the end; there is nothing then.
            OSError: if the disk fails.
        """
        problems: tuple[Problem, ...] = ()
        with self._working:
            self._go_on()
            wanted: list[str] = []
            for stage in self.stages:
                wanted += runner_of(stage, runners).outputs(stage, self.package)
            if self._shared is not None:
                try:
                    return self._place(self._shared, wanted), ()
                except (ProtocolError, OSError) as error:
                    problems = (_misplaced(error),)
            packed = pack_results(
                self.package,
                wanted,
                dest,
                log=self.log,
                inputs=self._before,
                on_bytes=lambda _done, _total: self._go_on(),
            )
        results = ResultsInfo(
            state=ResultsState.HELD, size=packed.size, root=packed.root, files=packed.files
        )
        return results, problems

    def _place(self, shared: SharedPaths, wanted: list[str]) -> ResultsInfo:
        members, left_out = choose_results(self.package, wanted, log=self.log, inputs=self._before)
        return place_results(
            shared.storage,
            shared.output,
            shared.job,
            members,
            left_out,
            on_bytes=lambda _done, _total: self._go_on(),
        )

    def _go_on(self) -> None:
        if self.closed.is_set():
            raise JobClosed

    def drop_work(self) -> None:
        """Delete inputs and package, which have done their duty; blocking."""
        with self._working:
            for folder in (self._inputs, self._unpacked):
                shutil.rmtree(folder, ignore_errors=True)
            self.dropped = True


def _misplaced(error: ProtocolError | OSError) -> Problem:
    why = error.sentence if isinstance(error, ProtocolError) else f"the disk: {error.strerror}"
    return Problem(
        code=error.code if isinstance(error, ProtocolError) else ErrorCode.RESULTS_PARTIAL,
        sentence=f"the results could not be put into the shared storage, fetch them instead: {why}",
    )
