"""How a stage of a job comes to life on this machine, and how it is made to die.

The worker never is the parent of a job's program: for each stage it starts a supervisor
(`supervisor.py`, a process of its own) that is. The worker may die, and be started again, without
the program noticing; the supervisor's records tell how it ended. What the worker keeps is a
`LocalProcess`:

    program ended      wait_exit()  ──► ExitRecord      (its descendants may live on)
    everything ended   wait_gone()                      (supervisor reaped, nothing left)

Both wait for events: notices on a pipe that the supervisor inherited, and the end of that pipe,
which is the supervisor's end. `signal()` is a datagram to the supervisor, which walks the tree.

Each launch has a marker, a random word in the environment of all its processes. A supervisor that
somebody kills leaves a tree without parent; `kill_leftovers()` finds it by that word, and by the
session of the program for those that overwrote their environment. POSIX only.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from fsm_worker.services import supervisor
from fsm_worker.services.launch import ExitRecord as ExitRecord
from fsm_worker.services.launch import Launcher as Launcher
from fsm_worker.services.launch import LaunchFailed as LaunchFailed
from fsm_worker.services.launch import LaunchSpec as LaunchSpec
from fsm_worker.services.launch import Process as Process
from fsm_worker.services.leftovers import MARKER as MARKER
from fsm_worker.services.leftovers import end_of
from fsm_worker.services.leftovers import find_leftovers as find_leftovers

# Isolated, without site-packages, writing no bytecode: nothing installed later reaches it.
_INTERPRETER = (sys.executable, "-I", "-S", "-B")


_LONGEST_RECORD = 64 * 1024  # bytes


class _Notice(msgspec.Struct, frozen=True):
    kind: str
    pid: int = 0
    sentence: str = ""
    record: ExitRecord | None = None


class LocalLauncher:
    """Starts stages on this machine.

    Args:
        interpreter: the command that runs the supervisor's file.
    """

    def __init__(self, interpreter: tuple[str, ...] = _INTERPRETER) -> None:
        self._interpreter = interpreter

    async def start(
        self, spec: LaunchSpec, *, on_output: Callable[[], None] | None = None
    ) -> "LocalProcess":
        """Start a stage; `on_output` is called, on the loop, after the log grew.

        When it is cancelled, what it had started is killed first.

        Raises:
            LaunchFailed: the program or its folder is missing or may not be used, the records
                cannot be written, or an earlier start of this stage is still alive.
        """
        if not spec.argv:
            raise LaunchFailed("the runner made an empty argument vector: name a program in it")
        try:
            await asyncio.to_thread(_make_folders, spec)
            process = self._spawn(spec, on_output)
        except OSError as error:
            raise LaunchFailed(f"{spec.argv[0]!r} cannot be launched: {error}") from error
        try:
            await process.wait_started()
        except (LaunchFailed, asyncio.CancelledError):
            await process.kill_leftovers()
            raise
        return process

    def _spawn(self, spec: LaunchSpec, on_output: Callable[[], None] | None) -> "LocalProcess":
        marker = uuid.uuid4().hex
        errors = spec.record_dir / f"supervisor-{spec.stage}.err"
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            sender, receiver = _control_sockets(spec.record_dir, spec.stage)
            ours.callback(sender.close)
            theirs.callback(receiver.close)
            notices, notices_in = os.pipe()
            ours.callback(os.close, notices)
            theirs.callback(os.close, notices_in)
            # A file without a name: an environment holds secrets, and a pipe might be too small.
            told = theirs.enter_context(tempfile.TemporaryFile(dir=spec.record_dir))
            told.write(_spec_for_supervisor(spec, marker))
            told.seek(0)
            fds = (notices_in, receiver.fileno())
            popen = subprocess.Popen(
                [*self._interpreter, supervisor.__file__, *map(str, fds)],
                env={**os.environ, MARKER: marker},
                cwd="/",
                stdin=told,
                stdout=subprocess.DEVNULL,
                stderr=theirs.enter_context(errors.open("wb")),
                pass_fds=fds,
                start_new_session=True,
            )
            ours.pop_all()
        return LocalProcess(popen, notices, sender, spec=spec, marker=marker, on_output=on_output)


class LocalProcess:
    """A stage that `LocalLauncher.start` started.

    Attributes:
        pid: the process id of the program.
        supervisor_pid: the process id of its supervisor.
    """

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        notices: int,
        control: socket.socket,
        *,
        spec: LaunchSpec,
        marker: str,
        on_output: Callable[[], None] | None,
    ) -> None:
        self.pid = 0
        self.supervisor_pid = popen.pid
        self._popen = popen
        self._notices = notices
        self._control = control
        self._spec = spec
        self._marker = marker
        self._on_output = on_output
        self._launched = time.time()
        self._program: psutil.Process | None = None
        self._refusal = ""
        self._record: ExitRecord | None = None
        self._gone = False  # the supervisor saw the last of the tree go
        self._rest = b""
        self._answered = asyncio.Event()
        self._exited = asyncio.Event()
        self._ended = asyncio.Event()
        os.set_blocking(notices, False)
        asyncio.get_running_loop().add_reader(notices, self._read_notices)

    async def wait_started(self) -> None:
        """Wait until the program runs.

        Raises:
            LaunchFailed: it does not, and never will.
        """
        await self._answered.wait()
        if self._refusal:
            raise LaunchFailed(self._refusal)

    async def wait_exit(self) -> ExitRecord:
        """Wait until the program itself ended; its descendants may be alive. Cancelling is safe.

        Where the supervisor was killed before, the record is `lost`: call `kill_leftovers`.
        """
        await self._exited.wait()
        if self._record is None:
            self._record = await asyncio.to_thread(self._read_record)
        return self._record

    def signal(self, signum: int) -> None:
        """Send a signal to the whole tree; for SIGKILL, until nothing of it is left.

        Never blocks and never raises. Nothing happens when all are gone; when the supervisor was
        killed, or is stopped and has ten commands waiting, only `kill_leftovers` reaches the tree.
        """
        with contextlib.suppress(OSError):
            self._control.send(json.dumps({"signal": int(signum)}).encode())

    async def wait_gone(self) -> None:
        """Wait until neither the supervisor nor any descendant is left. Cancelling is safe."""
        await self._reaped()
        while not self._gone:
            left = await asyncio.to_thread(self._find_leftovers)
            self._gone = not left
            for process in left:
                await end_of(process)

    async def kill_leftovers(self, *, grace: float = 5.0) -> tuple[int, ...]:
        """Kill all that is left of the stage, the program included if it still runs.

        Args:
            grace: seconds to wait for the dead, half of them for the supervisor to do it.

        Returns:
            The ids of the processes that would not die; none means that all is gone and reaped.
        """
        self.signal(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace / 2):
                await self._ended.wait()
        survivors: tuple[int, ...] = ()
        if not self._gone:
            survivors = await asyncio.to_thread(self._kill_directly, grace / 2)
        if not survivors:
            await self._reaped()
            self._gone = True
        return survivors

    def detach(self) -> None:
        """Stop watching, and leave the supervisor and its tree to whoever comes next."""
        if not self._ended.is_set():
            self._stop_watching()
            self._popen.returncode = 0  # else Python says at exit that it was forgotten

    def _read_notices(self) -> None:
        try:
            data = os.read(self._notices, 65536)
        except BlockingIOError:
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        notices = [msgspec.json.decode(line, type=_Notice) for line in lines]
        for notice in notices:
            self._take(notice)
        if not data:
            self._supervisor_ended()
        elif self._on_output is not None and any(notice.kind == "output" for notice in notices):
            self._on_output()

    def _take(self, notice: _Notice) -> None:
        match notice.kind:
            case "started":
                self.pid = notice.pid
                with contextlib.suppress(psutil.Error):
                    self._program = psutil.Process(notice.pid)
                self._answered.set()
            case "failed":
                self._refusal = notice.sentence
                self._gone = True
            case "exited":
                self._record = notice.record
                self._exited.set()
            case "gone":
                self._gone = True

    def _supervisor_ended(self) -> None:
        self._stop_watching()
        self._popen.poll()
        if not self.pid and not self._refusal:
            self._refusal = (
                f"the supervisor of {self._spec.argv[0]!r} ended before it started the program:"
                f" see supervisor-{self._spec.stage}.err in {self._spec.record_dir}"
            )
        for event in (self._answered, self._exited, self._ended):
            event.set()

    def _stop_watching(self) -> None:
        asyncio.get_running_loop().remove_reader(self._notices)
        os.close(self._notices)
        self._control.close()

    async def _reaped(self) -> None:
        await self._ended.wait()
        # The pipe closes an instant before the process can be waited for.
        await asyncio.to_thread(self._popen.wait)

    def _read_record(self) -> ExitRecord:
        path = supervisor.record_path(self._spec.record_dir, "exit", self._spec.stage)
        return read_record(path) or ExitRecord(
            code=None, signal=None, started=self._launched, ended=time.time(), pid=self.pid
        )

    def _find_leftovers(self) -> list[psutil.Process]:
        parent = self.supervisor_pid if self._popen.returncode is None else None
        return find_leftovers(self._marker, parent, self._program)

    def _kill_directly(self, patience: float) -> tuple[int, ...]:
        deadline = time.monotonic() + patience
        while left := self._find_leftovers():
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(left, timeout=0.1)
            if time.monotonic() > deadline and (undead := self._find_leftovers()):
                return tuple(process.pid for process in undead)
        if self._popen.poll() is None:  # stopped, or stuck: it has nobody to stay for
            self._popen.kill()
            try:
                self._popen.wait(patience)
            except subprocess.TimeoutExpired:
                return (self.supervisor_pid,)
            return self._kill_directly(patience)  # what it may have been starting just then
        return ()


def read_record(path: Path) -> ExitRecord | None:
    """Read an exit record; None if none can be read. A program of the job may have written it."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_LONGEST_RECORD), type=ExitRecord)
    except (OSError, ValueError, RecursionError):
        return None


def _make_folders(spec: LaunchSpec) -> None:
    spec.record_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    spec.log_path.parent.mkdir(parents=True, exist_ok=True)


def _spec_for_supervisor(spec: LaunchSpec, marker: str) -> bytes:
    told = supervisor.Spec(
        argv=list(spec.argv),
        env={**spec.env, MARKER: marker},
        cwd=str(spec.cwd.absolute()),
        log_path=str(spec.log_path.absolute()),
        record_dir=str(spec.record_dir.absolute()),
        stage=spec.stage,
        log_limit=spec.log_limit,
        marker=marker,
    )
    return json.dumps(told._asdict()).encode()


def _control_sockets(record_dir: Path, stage: int) -> tuple[socket.socket, socket.socket]:
    with contextlib.ExitStack() as undo:
        folder = os.open(record_dir, os.O_RDONLY | os.O_DIRECTORY)
        undo.callback(os.close, folder)
        # A socket's path has room for 108 bytes (unix(7)); a descriptor's name is short.
        short = Path(f"/proc/self/fd/{folder}")
        path = (short if short.exists() else record_dir) / supervisor.control_name(stage)
        sender, receiver = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        with contextlib.ExitStack() as unless_good:
            unless_good.callback(sender.close)
            unless_good.callback(receiver.close)
            sender.setblocking(False)
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                sender.connect(str(path))
                raise LaunchFailed(
                    f"stage {stage} in {record_dir} has a live supervisor: end that one first"
                )
            path.unlink(missing_ok=True)
            receiver.bind(str(path))
            path.chmod(0o600)
            sender.connect(str(path))
            unless_good.pop_all()
    return sender, receiver
