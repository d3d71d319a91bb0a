"""Brings one stage of a job to life, and does not leave before all of it is gone.

This file is a program of its own, run as `python -I -S -B supervisor.py NOTICE_FD CONTROL_FD` with
the specification on its standard input. It imports only the standard library and never anything of
the worker (hence one file), so that a worker that is upgraded, stuck or dead changes nothing for a
program that runs. Its laws:

- **The program never waits for a reader.** One pipe takes its standard output and error; the bytes
  go into the log file as they come. When the log is full, or the disk, the pipe is drained on.
- **Nothing is left.** On Linux the supervisor is a child subreaper (prctl(2)): whoever of the tree
  loses its parent becomes a child of the supervisor, whatever session it hides in, and is reaped
  here. The supervisor ends when it has no child any more, and not before.
- **Files are the truth, notices are a courtesy.** `exit-STAGE.json` appears whole, by a rename,
  after all that the program itself wrote is in the log. Notices go to the worker through an
  inherited pipe, one JSON object a line, and never block.
- **It is hard to end by mistake.** SIGTERM, SIGINT and SIGQUIT are passed on to the tree as
  SIGTERM. A command `{"signal": N}` on the control socket goes to every descendant, and for SIGKILL
  is repeated until none is left.

Where there is no subreaper (any system but Linux), "the tree" is the program's process group.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import NamedTuple

READ_BYTES = 64 * 1024  # the default capacity of a Linux pipe, see pipe(7)
OUTPUT_PACE = 0.05  # seconds between two notices that the log grew
KILL_PACE = (0.002, 0.25)  # seconds between two passes over a tree that will not die: first, most
GROUP_PACE = 0.2  # seconds between two looks at a process group, whose end is no event
SENTENCE_CHARS = 1000  # a notice stays below PIPE_BUF (4096 on Linux): it is written whole or not

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_SURVIVED = (signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_REASONS = {
    errno.ENOENT: "was not found, or what its first line names: install it, or give its full path",
    errno.EACCES: "may not be executed: make it executable (chmod +x)",
    errno.ENOEXEC: "is nothing this system can run: a script's first line names its interpreter",
}
_NOT_ON_PATH = "was not found where this user may look: install it, or give its full path"


class Spec(NamedTuple):
    """What the supervisor is told, as JSON on its standard input.

    Args:
        argv: the program and its arguments; never seen by a shell.
        env: the whole environment of the program.
        cwd: the program's working directory.
        log_path: where its output is appended.
        record_dir: where the records and the control socket of this stage lie.
        stage: the number in the records' names.
        log_limit: bytes of output that this stage may put into the log.
        marker: what tells this launch's processes from all others, see the launcher.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    log_path: str
    record_dir: str
    stage: int
    log_limit: int
    marker: str


def record_path(record_dir: Path, kind: str, stage: int) -> Path:
    """Return where a record lies: of kind `exit` (how the program ended), or `supervisor`.

    The latter says who supervises: pid, start in clock ticks since boot, boot id, marker, program.
    """
    return record_dir / f"{kind}-{stage}.json"


def control_name(stage: int) -> str:
    """Return the name, inside the record folder, of the datagram socket that takes commands."""
    return f"control-{stage}.sock"


def process_stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the third on (proc_pid_stat(5)).

    Raises:
        OSError: there is no such process, or no /proc.
    """
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def identity(pid: int) -> dict[str, int | None]:
    """Return `pid` with its start in clock ticks since boot, null where /proc does not say."""
    try:
        return {"pid": pid, "start_ticks": int(process_stat(pid)[19])}
    except (OSError, IndexError):
        return {"pid": pid, "start_ticks": None}


def boot_id() -> str | None:
    """Return what tells this boot from all others: clock ticks since boot mean nothing without."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def descendants(root: int) -> dict[int, int]:
    """Return every process below `root` as /proc shows them now: its pid, its process group."""
    children: dict[int, list[tuple[int, int]]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                fields = process_stat(int(entry.name))
                children.setdefault(int(fields[1]), []).append((int(entry.name), int(fields[2])))
    found: dict[int, int] = {}
    frontier = [root]
    while frontier:
        for pid, group in children.pop(frontier.pop(), []):
            found[pid] = group
            frontier.append(pid)
    return found


def become_subreaper() -> bool:
    """Ask to be given the orphans of the own tree; say whether the system does that."""
    if not sys.platform.startswith("linux"):
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


class Tree:
    """Every process that the supervisor answers for.

    Args:
        group: the program's process group.
        whole: this process is a subreaper, so that each descendant can be found; otherwise only
            the program's group is.
    """

    def __init__(self, group: int, *, whole: bool) -> None:
        self._group = group
        self._whole = whole

    def send(self, signum: int) -> None:
        """Send `signum` once to each process, those included that appear meanwhile."""
        if not self._whole:
            self._to_group(self._group, signum)
            return
        told: set[int] = set()
        for _ in range(3):
            tree = descendants(os.getpid())
            new = tree.keys() - told
            if not new:
                return
            if signum == signal.SIGKILL:
                # A group is killed under the kernel's lock against fork: a chain of processes of
                # which each forks the next and ends outruns a list of pids, but not its group.
                for group in {tree[pid] for pid in new} - {os.getpgrp()}:
                    self._to_group(group, signum)
            for pid in new:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signum)
            told |= new

    @staticmethod
    def _to_group(group: int, signum: int) -> bool:
        try:
            os.killpg(group, signum)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def outlives_its_children(self) -> bool:
        """Say whether some of the tree can be alive although no child is left to reap."""
        return not self._whole and self._to_group(self._group, 0)


class CappedLog:
    """A log file: appended to as bytes come, by at most `limit` bytes and one last line."""

    def __init__(self, path: Path, limit: int) -> None:
        self._file = path.open("ab", buffering=0)
        self._limit = limit
        self._room = limit
        self._last = b"\n"
        self.received = 0  # bytes that the program wrote, kept or not
        self.cut = False

    def write(self, data: bytes) -> None:
        """Keep what there is room for and count the rest; a full disk counts as a full log."""
        self.received += len(data)
        if self.cut or not data:
            return
        kept = data[: self._room]
        self._room -= len(kept)
        self._last = kept[-1:] or self._last
        if len(kept) < len(data):
            self.cut = True
            kept += b"" if self._last == b"\n" else b"\n"
            kept += b"[the log ends here, at its limit of %d bytes]\n" % self._limit
        try:
            rest = memoryview(kept)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.cut = True
            print(f"the log cannot be written any more: {error}", file=sys.stderr, flush=True)


class Notices:
    """The pipe to the worker that started this; the worker may be slow, and it may be dead."""

    def __init__(self, fd: int, selector: selectors.BaseSelector) -> None:
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
        self._fd = fd
        self._selector = selector
        self._owed: list[bytes] = []
        self._dead = False

    def send(self, kind: str, **fields: object) -> None:
        """Send one notice, now or when the pipe has room; `output` never queues behind another."""
        if self._dead or (kind == "output" and self._owed):
            return
        self._owed.append(json.dumps({"kind": kind, **fields}).encode() + b"\n")
        if len(self._owed) == 1 and not self._flush():
            self._selector.register(self._fd, selectors.EVENT_WRITE, self._resume)

    def _flush(self) -> bool:
        try:
            while self._owed:
                os.write(self._fd, self._owed[0])
                del self._owed[0]
        except BlockingIOError:
            return False
        except OSError:  # the worker is dead; the files tell whoever comes next
            self._owed.clear()
            self._dead = True
        return True

    def _resume(self) -> None:
        if self._flush():
            self._selector.unregister(self._fd)


def write_record(path: Path, content: dict[str, object]) -> None:
    """Put a record in its place whole; one that the disk refuses is told on standard error."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        print(f"the record {path} cannot be written: {error}", file=sys.stderr, flush=True)


class Supervisor:
    """A program that runs, and its tree, from here to the end of the last process."""

    def __init__(
        self,
        spec: Spec,
        started: float,
        *,
        program: subprocess.Popen[bytes],
        tree: Tree,
        log: CappedLog,
        notices: Notices,
        selector: selectors.BaseSelector,
    ) -> None:
        self._exit_record = record_path(Path(spec.record_dir), "exit", spec.stage)
        self._started = started
        self._program = program
        self._tree = tree
        self._log = log
        self._notices = notices
        self._selector = selector
        self._childless = False
        self._grew = False
        self._next_output_notice = 0.0
        self._kill_delay = 0.0  # seconds to the next pass; 0 until somebody asks for SIGKILL

    def run(self, wake_fd: int, control: socket.socket) -> None:
        """Relay, reap and obey until the whole tree is gone."""
        read = selectors.EVENT_READ
        self._selector.register(wake_fd, read, lambda: self._woken(wake_fd))
        self._selector.register(control, read, lambda: self._obey(control))
        self._selector.register(self._output_fd(), read, self._relay)
        while not (self._childless and not self._tree.outlives_its_children()):
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._reap()
            if self._kill_delay:
                self._tree.send(signal.SIGKILL)
                self._kill_delay = min(2 * self._kill_delay, KILL_PACE[1])
            if time.monotonic() >= self._next_output_notice:
                self._tell_growth()
        self._drain()
        self._tell_growth()

    def _patience(self) -> float | None:
        waits = [GROUP_PACE] if self._childless else []
        if self._kill_delay:
            waits.append(self._kill_delay)
        if self._grew:
            waits.append(max(0.0, self._next_output_notice - time.monotonic()))
        return min(waits, default=None)

    def _tell_growth(self) -> None:
        if self._grew:
            self._grew = False
            self._next_output_notice = time.monotonic() + OUTPUT_PACE
            self._notices.send("output")

    def _output_fd(self) -> int:
        pipe = self._program.stdout
        return -1 if pipe is None or pipe.closed else pipe.fileno()

    def _relay(self, most: int = READ_BYTES) -> int:
        data = os.read(self._output_fd(), most)
        if data:
            self._log.write(data)
            self._grew = True
        elif self._program.stdout is not None:
            self._selector.unregister(self._output_fd())
            self._program.stdout.close()
        return len(data)

    def _drain(self) -> None:
        # What is in the pipe now, and no more: another process may go on writing for ever.
        if self._output_fd() >= 0:
            answer = fcntl.ioctl(self._output_fd(), termios.FIONREAD, bytes(4))
            waiting = int.from_bytes(answer, sys.byteorder)
            while waiting > 0:
                waiting -= self._relay(min(waiting, READ_BYTES))

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if pid == 0:
                return
            if pid == self._program.pid:
                self._program.returncode = os.waitstatus_to_exitcode(status)
                self._record_end(self._program.returncode, usage.ru_maxrss)

    def _record_end(self, code: int, max_rss: int) -> None:
        ended = time.time()
        self._drain()
        self._tell_growth()
        record: dict[str, object] = {
            "code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "started": self._started,
            "ended": ended,
            "pid": self._program.pid,
            "max_rss_kib": max_rss // 1024 if sys.platform == "darwin" else max_rss,
            "output_bytes": self._log.received,
            "log_cut": self._log.cut,
        }
        write_record(self._exit_record, record)
        self._notices.send("exited", record=record)

    def _woken(self, wake_fd: int) -> None:
        if any(signum in _PASSED_ON for signum in os.read(wake_fd, 4096)):
            self._tree.send(signal.SIGTERM)

    def _obey(self, control: socket.socket) -> None:
        try:
            signum = json.loads(control.recv(4096))["signal"]
        except (OSError, ValueError, KeyError, TypeError):
            return  # only the owner can reach this socket: a stray datagram has nobody to answer
        if signum == signal.SIGKILL:
            self._kill_delay = KILL_PACE[0]
        elif isinstance(signum, int) and 0 < signum < signal.NSIG:
            self._tree.send(signum)


def is_on_path(spec: Spec) -> bool:
    """Say whether the program is a file where execvp(3) looks for it, as far as we may look.

    EACCES alone does not tell: execvp(3) gives it also for a program that no folder of PATH holds,
    if one of these folders may not be searched.
    """
    folders = [""] if os.sep in spec.argv[0] else os.get_exec_path(spec.env)
    paths = (Path(spec.cwd, folder, spec.argv[0]) for folder in folders)
    return any(os.access(path, os.F_OK) and path.is_file() for path in paths)


def why_not_started(spec: Spec, error: Exception) -> str:
    """Say in one sentence why the program could not be started, and what to do."""
    reason = f"cannot be started: {error}"
    if isinstance(error, OSError) and not Path(spec.cwd).is_dir():
        reason = f"cannot be started: its working folder {spec.cwd!r} does not exist"
    elif isinstance(error, OSError) and error.filename == spec.argv[0]:
        reason = _REASONS.get(error.errno or 0, reason)
        if error.errno == errno.EACCES and not is_on_path(spec):
            reason = _NOT_ON_PATH
    return f"the program {spec.argv[0]!r} {reason}"[:SENTENCE_CHARS]


def catch_signals() -> int:
    """Turn signals into bytes on a pipe, and return its reading end.

    A handler, unlike "ignore", is not inherited: the program starts with the defaults even when the
    worker was started by nohup, or in the background of a shell that ignores SIGINT there.
    """
    wake_fd, woken_fd = os.pipe()
    os.set_blocking(wake_fd, False)
    os.set_blocking(woken_fd, False)
    signal.set_wakeup_fd(woken_fd, warn_on_full_buffer=False)
    for signum in (*_PASSED_ON, *_SURVIVED):
        signal.signal(signum, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return wake_fd


def main(notice_fd: int, control_fd: int) -> int:
    """Supervise what the standard input says; return 1 if it could not be started."""
    spec = Spec(**json.load(sys.stdin))
    with contextlib.suppress(PermissionError):  # already the leader of a session
        os.setsid()
    wake_fd = catch_signals()
    selector = selectors.DefaultSelector()
    notices = Notices(notice_fd, selector)
    control = socket.socket(fileno=control_fd)
    control.setblocking(False)
    control.set_inheritable(False)

    record_dir = Path(spec.record_dir)
    record_path(record_dir, "exit", spec.stage).unlink(missing_ok=True)
    own_record = record_path(record_dir, "supervisor", spec.stage)
    whole = become_subreaper()
    me: dict[str, object] = {**identity(os.getpid()), "boot_id": boot_id(), "subreaper": whole}
    me |= {"marker": spec.marker, "program": None}
    write_record(own_record, me)
    started = time.time()
    try:
        log = CappedLog(Path(spec.log_path), spec.log_limit)
        program = subprocess.Popen(
            spec.argv,
            env=spec.env,
            cwd=spec.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,  # else `kill -9 0` in the program would reach the supervisor
        )
    except (OSError, ValueError) as error:
        own_record.unlink(missing_ok=True)
        notices.send("failed", sentence=why_not_started(spec, error))
        return 1
    write_record(own_record, me | {"program": identity(program.pid)})
    notices.send("started", pid=program.pid)
    tree = Tree(program.pid, whole=whole)
    supervisor = Supervisor(
        spec, started, program=program, tree=tree, log=log, notices=notices, selector=selector
    )
    supervisor.run(wake_fd, control)
    (record_dir / control_name(spec.stage)).unlink(missing_ok=True)
    notices.send("gone")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
