"""Laws of the launcher and its supervisor, tried on a program that misbehaves as trainers do."""

import asyncio
import json
import os
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fsm_worker.services import supervisor
from fsm_worker.services.launcher import (
    MARKER,
    ExitRecord,
    Launcher,
    LaunchFailed,
    LaunchSpec,
    LocalLauncher,
    LocalProcess,
)

TRAINER = Path(__file__).with_name("hostile_trainer.py")
# Site-packages hold what measures coverage in subprocesses; without it, the product's own command.
INTERPRETERS = [(sys.executable, "-B")] if "COVERAGE_PROCESS_CONFIG" in os.environ else []
PATIENCE = 20.0  # seconds after which a test gives up; no test waits for it to pass


def alive_with(marker: str) -> list[psutil.Process]:
    """Everything on this machine that carries the marker."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER) == marker:
                found.append(process)
        except psutil.Error:
            continue
    return found


class Stage:
    """One stage, with its log watched."""

    def __init__(self, folder: Path, *arguments: str, **changes: object) -> None:
        fields: dict[str, object] = {
            "argv": (sys.executable, "-S", str(TRAINER), *arguments),
            "env": {"PATH": os.environ["PATH"]},
            "cwd": folder,
            "log_path": folder / "job.log",
            "record_dir": folder / "records",
            "stage": 1,
        }
        self.spec = LaunchSpec(**(fields | changes))  # type: ignore[arg-type]  # tests name fields
        self.grew = asyncio.Event()
        self.process: LocalProcess

    async def start(self, launcher: LocalLauncher) -> LocalProcess:
        self.process = await launcher.start(self.spec, on_output=self.grew.set)
        return self.process

    @property
    def log(self) -> bytes:
        return self.spec.log_path.read_bytes()

    @property
    def marker(self) -> str:
        record = json.loads(
            (self.spec.record_dir / f"supervisor-{self.spec.stage}.json").read_text()
        )
        return record["marker"]

    async def logged(self, text: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            while not (self.spec.log_path.exists() and text in self.log):
                await self.grew.wait()
                self.grew.clear()


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """Start a stage; whatever the test does, nothing of it is left."""
    launcher = LocalLauncher(*INTERPRETERS)
    stages: list[Stage] = []

    async def start(*arguments: str, **changes: object) -> Stage:
        folder = tmp_path / f"job{len(stages)}"
        folder.mkdir()
        stage = Stage(folder, *arguments, **changes)
        await stage.start(launcher)
        stages.append(stage)
        return stage

    async with asyncio.timeout(PATIENCE):
        yield start
        for stage in stages:
            assert await stage.process.kill_leftovers() == ()


def assert_nothing_left(stage: Stage) -> None:
    assert alive_with(stage.marker) == []
    assert not psutil.pid_exists(stage.process.supervisor_pid)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def block_until_ended(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def test_output_reaches_the_log_whole_and_in_order(run):
    stage = await run("echo")
    record = await stage.process.wait_exit()
    assert stage.log == (
        b"first\n 10%\r 20%\r 30%\r\nerror\n"
        + bytes(range(256))
        + b"\n"
        + b"x" * 200_000
        + b"\nno newline at the end"
    )
    assert record.output_bytes == len(stage.log)
    assert not record.log_cut


async def test_a_second_stage_appends_to_the_log_of_the_first(run):
    first = await run("flood", "16")
    await first.process.wait_exit()
    second = await run("flood", "16", log_path=first.spec.log_path, stage=2)
    await second.process.wait_exit()
    assert first.log == b"0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("arguments", "code", "signum"),
    [(("exit", "0"), 0, None), (("exit", "7"), 7, None), (("raise", "9"), None, 9)],
)
async def test_the_exit_is_recorded_in_the_file_and_told(run, arguments, code, signum):
    before = time.time()
    stage = await run(*arguments)
    record = await stage.process.wait_exit()
    assert (record.code, record.signal, record.ok) == (code, signum, code == 0)
    assert before <= record.started <= record.ended <= time.time()
    assert record.pid == stage.process.pid
    assert record.max_rss_kib is not None
    assert record.max_rss_kib > 1000
    assert not record.lost
    path = supervisor.record_path(stage.spec.record_dir, "exit", 1)
    assert ExitRecord(**json.loads(path.read_text())) == record
    await stage.process.wait_gone()
    assert_nothing_left(stage)
    assert not (stage.spec.record_dir / supervisor.control_name(1)).exists()


async def test_the_program_starts_with_default_signals_a_null_input_and_only_its_environment(run):
    code = (
        "import os, signal, sys;"
        "print([signal.getsignal(s) for s in (2, 15, 1, 10)]);"
        "print(sys.stdin.read() == '', sorted(os.environ), os.listdir('/proc/self/fd'))"
    )
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stage = await run(argv=(sys.executable, "-S", "-c", code), env={"ONLY": "1"})
    finally:
        signal.signal(signal.SIGHUP, old)
    await stage.process.wait_exit()
    handlers, rest = stage.log.decode().splitlines()
    assert handlers.count("SIG_DFL") == 3
    assert "default_int_handler" in handlers
    assert rest.startswith(f"True ['{MARKER}', 'LC_CTYPE', 'ONLY'] ['0', '1', '2', '3']")


async def test_a_signal_reaches_the_whole_tree(run):
    code = (
        "import os, signal, sys, time\n"
        "pid = os.fork()\n"
        "if pid == 0: os.setsid()\n"
        "def end(*_): print('ended', flush=True); pid and os.wait(); sys.exit(3)\n"
        "signal.signal(signal.SIGINT, end)\n"
        "print('READY', flush=True)\n"
        "time.sleep(30)\n"
    )
    stage = await run(argv=(sys.executable, "-S", "-c", code))
    await stage.logged(b"READY\nREADY\n")
    stage.process.signal(signal.SIGINT)
    assert (await stage.process.wait_exit()).code == 3
    await stage.process.wait_gone()
    assert stage.log.count(b"ended") == 2


async def test_a_tree_that_ignores_every_request_dies_of_sigkill(run):
    stage = await run("defiant")
    await stage.logged(b"READY")
    assert len(alive_with(stage.marker)) == 4
    for signum in (signal.SIGINT, signal.SIGTERM):
        stage.process.signal(signum)
    os.kill(stage.process.supervisor_pid, signal.SIGTERM)
    os.kill(stage.process.supervisor_pid, signal.SIGINT)
    stage.process.signal(signal.SIGKILL)
    assert (await stage.process.wait_exit()).signal == signal.SIGKILL
    await stage.process.wait_gone()
    assert_nothing_left(stage)
    stage.process.signal(signal.SIGKILL)


async def test_sigterm_to_the_supervisor_is_passed_on_to_the_tree(run):
    stage = await run("wait")
    await stage.logged(b"READY")
    os.kill(stage.process.supervisor_pid, signal.SIGTERM)
    assert (await stage.process.wait_exit()).signal == signal.SIGTERM
    await stage.process.wait_gone()


async def test_a_program_that_leaves_a_daemon_has_exited_but_is_not_gone(run):
    stage = await run("leaver")
    assert (await stage.process.wait_exit()).ok
    gone = asyncio.ensure_future(stage.process.wait_gone())
    (supervisor_process, daemon) = sorted(
        alive_with(stage.marker), key=lambda p: p.pid != stage.process.supervisor_pid
    )
    assert daemon.ppid() == supervisor_process.pid
    assert not gone.done()
    assert await stage.process.kill_leftovers() == ()
    await gone
    assert_nothing_left(stage)


async def test_a_tree_that_replaces_its_dead_dies(run):
    stage = await run("respawn", "30")
    await stage.logged(b"READY")
    stage.process.signal(signal.SIGKILL)
    await stage.process.wait_exit()
    await stage.process.wait_gone()
    assert_nothing_left(stage)


async def test_the_log_ends_at_its_limit_and_the_program_does_not(run):
    stage = await run("flood", "300000", log_limit=1000)
    record = await stage.process.wait_exit()
    assert record.ok
    assert record.log_cut
    assert record.output_bytes == 300_000
    assert stage.log[:1000] == (b"0123456789abcdef" * 100)[:1000]
    assert stage.log[1000:] == b"\n[the log ends here, at its limit of 1000 bytes]\n"


async def test_a_full_disk_does_not_stop_the_program(run):
    stage = await run("flood", "300000", log_path=Path("/dev/full"))
    record = await stage.process.wait_exit()
    assert record.ok
    assert record.log_cut
    assert record.output_bytes == 300_000


async def test_a_flood_that_nobody_reads_does_not_block_the_program(run):
    """The loop of the worker stands still until all is written, then hears of it in few words."""
    stage = await run("flood", str(50 << 20))
    block_until_ended(stage.process.supervisor_pid)
    record = await stage.process.wait_exit()
    assert record.ok
    assert stage.spec.log_path.stat().st_size == 50 << 20
    await stage.process.wait_gone()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"argv": ("no-such-program-here", "--x")}, r"'no-such-program-here' was not found"),
        ({"argv": (str(TRAINER),)}, r"hostile_trainer.py' may not be executed"),
        ({"argv": ("sh", "a\0b")}, r"'sh' cannot be started: embedded null byte"),
        ({"argv": ()}, r"empty argument vector"),
        ({"cwd": Path("/no/such/folder")}, r"working folder '/no/such/folder' does not exist"),
        ({"record_dir": Path("/dev/null/x")}, r"cannot be launched: .*Not a directory"),
        ({"log_path": Path("/proc")}, r"cannot be started: .*directory: '/proc'"),
    ],
)
async def test_what_cannot_start_is_said_at_once_and_leaves_nothing(
    run, tmp_path, change, sentence
):
    stage = Stage(tmp_path, "wait", **change)
    before = children()
    with pytest.raises(LaunchFailed, match=sentence):
        await stage.start(LocalLauncher(*INTERPRETERS))
    assert children() == before
    assert list(tmp_path.glob("records/*.json")) == []


async def test_a_program_is_not_found_if_path_holds_only_a_folder_of_its_name(tmp_path):
    (tmp_path / "bin" / "trainer").mkdir(parents=True)
    env = {"PATH": str(tmp_path / "bin")}
    stage = Stage(tmp_path, argv=("trainer",), env=env)
    with pytest.raises(LaunchFailed, match="'trainer' was not found where this user may look"):
        await stage.start(LocalLauncher(*INTERPRETERS))
    (tmp_path / "bin" / "trainer").rmdir()
    (tmp_path / "bin" / "trainer").touch()
    with pytest.raises(LaunchFailed, match="'trainer' may not be executed"):
        await stage.start(LocalLauncher(*INTERPRETERS))


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder that this user, who is not root, may not look into."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o711 if user == 0 else 0o700)
        (folder / "locked").mkdir(mode=0)
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder / "locked"
        finally:
            os.seteuid(user)


def test_a_folder_of_path_that_may_not_be_read_is_not_the_programs_fault(locked_folder):
    spec = supervisor.Spec(
        argv=["no-such-program-here"],
        env={"PATH": f"{locked_folder}:/usr/bin"},
        cwd="/",
        log_path="",
        record_dir="",
        stage=0,
        log_limit=0,
        marker="",
    )
    with pytest.raises(PermissionError) as refusal:
        subprocess.Popen(spec.argv, env=spec.env)
    sentence = supervisor.why_not_started(spec, refusal.value)
    assert sentence.startswith("the program 'no-such-program-here' was not found")


async def test_a_supervisor_that_cannot_run_is_a_launch_that_failed(tmp_path):
    with pytest.raises(LaunchFailed, match=r"see supervisor-1.err"):
        await Stage(tmp_path, "wait").start(LocalLauncher((sys.executable, "--no-such-option")))
    assert "no-such-option" in (tmp_path / "records" / "supervisor-1.err").read_text()
    with pytest.raises(LaunchFailed, match="cannot be launched"):
        await Stage(tmp_path, "wait").start(LocalLauncher(("/no/such/python",)))


async def test_whoever_hears_that_the_program_runs_finds_it_in_the_record(run):
    for _ in range(5):
        stage = await run("exit", "0")
        record = json.loads((stage.spec.record_dir / "supervisor-1.json").read_text())
        assert record["program"]["pid"] == stage.process.pid


async def test_a_stage_that_is_alive_cannot_be_started_again(run, tmp_path):
    stage = await run("wait")
    with pytest.raises(LaunchFailed, match="has a live supervisor"):
        await LocalLauncher(*INTERPRETERS).start(stage.spec)
    await stage.process.kill_leftovers()
    again = await LocalLauncher(*INTERPRETERS).start(stage.spec)
    assert await again.kill_leftovers() == ()


async def test_a_killed_supervisor_gives_a_lost_record_and_its_tree_can_still_be_killed(run):
    stage = await run("defiant")
    await stage.logged(b"READY")
    os.kill(stage.process.supervisor_pid, signal.SIGKILL)
    record = await stage.process.wait_exit()
    assert record.lost
    assert not record.ok
    assert record.pid == stage.process.pid
    stage.process.signal(signal.SIGTERM)
    gone = asyncio.ensure_future(stage.process.wait_gone())
    assert len(alive_with(stage.marker)) == 3
    assert await stage.process.kill_leftovers() == ()
    await gone
    assert_nothing_left(stage)


async def test_after_its_supervisor_a_process_without_the_marker_is_found_by_its_session(run):
    stage = await run("secretive")
    await stage.logged(b"READY")
    (hidden,) = psutil.Process(stage.process.pid).children()
    os.kill(stage.process.supervisor_pid, signal.SIGKILL)
    os.kill(stage.process.pid, signal.SIGKILL)
    await stage.process.wait_exit()
    assert await stage.process.kill_leftovers() == ()
    assert not hidden.is_running() or hidden.status() == psutil.STATUS_ZOMBIE


async def test_a_supervisor_killed_after_its_program_ended_loses_nothing(run):
    stage = await run("leaver")
    await stage.logged(b"READY")
    first = await stage.process.wait_exit()
    os.kill(stage.process.supervisor_pid, signal.SIGKILL)
    gone = asyncio.ensure_future(stage.process.wait_gone())
    _, waiting = await asyncio.wait({gone}, timeout=0.2)
    assert waiting, "a daemon is alive"
    assert await stage.process.wait_exit() == first
    (daemon,) = alive_with(stage.marker)
    daemon.kill()
    await gone


async def test_a_record_that_cannot_be_written_is_still_told(run):
    stage = await run("wait")
    await stage.logged(b"READY")
    shutil.rmtree(stage.spec.record_dir)
    stage.process.signal(signal.SIGTERM)
    assert (await stage.process.wait_exit()).signal == signal.SIGTERM
    await stage.process.wait_gone()


def test_a_notice_that_the_pipe_has_no_room_for_is_sent_later():
    selector = selectors.DefaultSelector()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    room = os.write(writing, b" " * (1 << 20))
    notices = supervisor.Notices(writing, selector)
    for kind in ("output", "exited", "output", "gone"):
        notices.send(kind)
    assert os.read(reading, room) == b" " * room
    for key, _ in selector.select(0):
        key.data()
    assert [json.loads(line)["kind"] for line in os.read(reading, 4096).splitlines()] == [
        "output",
        "exited",
        "gone",
    ]
    os.close(reading)
    notices.send("output")
    notices.send("output")
    os.close(writing)
    selector.close()


async def test_a_stopped_supervisor_is_done_without(run):
    stage = await run("defiant")
    await stage.logged(b"READY")
    os.kill(stage.process.supervisor_pid, signal.SIGSTOP)
    for _ in range(50):
        stage.process.signal(signal.SIGTERM)
    assert await stage.process.kill_leftovers(grace=0.4) == ()
    assert_nothing_left(stage)


async def test_a_stopped_supervisor_is_done_without_however_slowly_its_tree_dies(run, monkeypatch):
    wait_procs = psutil.wait_procs

    def slowly(processes, timeout):
        wait_procs(processes, timeout)
        time.sleep(0.3)  # past the patience of half the grace

    monkeypatch.setattr(psutil, "wait_procs", slowly)
    stage = await run("defiant")
    await stage.logged(b"READY")
    os.kill(stage.process.supervisor_pid, signal.SIGSTOP)
    async with asyncio.timeout(20):
        assert await stage.process.kill_leftovers(grace=0.4) == ()
    assert_nothing_left(stage)


async def test_two_stages_do_not_see_each_other(run):
    one, two = await run("defiant"), await run("defiant")
    await one.logged(b"READY")
    await two.logged(b"READY")
    assert await one.process.kill_leftovers() == ()
    assert len(alive_with(two.marker)) == 4
    assert one.log == two.log == b"READY\n"


@pytest.mark.parametrize("supervised", [False, True])
async def test_a_cancelled_start_leaves_nothing(tmp_path, supervised):
    before = children()

    def wait_for_the_supervisor() -> None:
        while supervised and children() == before:
            os.sched_yield()

    stage = Stage(tmp_path, "defiant")
    start = asyncio.ensure_future(stage.start(LocalLauncher(*INTERPRETERS)))
    await asyncio.to_thread(wait_for_the_supervisor)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert children() == before
    if (stage.spec.record_dir / "supervisor-1.json").exists():
        assert alive_with(stage.marker) == []


async def test_a_cancelled_wait_can_be_repeated(run):
    stage = await run("wait")
    for wait in (stage.process.wait_exit, stage.process.wait_gone):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await wait()
    stage.process.signal(signal.SIGKILL)
    assert (await stage.process.wait_exit()).signal == signal.SIGKILL
    await stage.process.wait_gone()


WORKER = """
import asyncio, os, signal, sys
from pathlib import Path
from fsm_worker.services.launcher import LaunchSpec, LocalLauncher
async def main(folder, end):
    spec = LaunchSpec(("sh", "-c", "read x < go; echo done; exit 5"), {"PATH": os.environ["PATH"]},
        folder, folder / "job.log", folder / "records", 1)
    process = await LocalLauncher().start(spec)
    if end == "detach":
        process.detach()
    else:
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("end", ["kill", "detach"])
async def test_the_end_of_the_worker_is_not_the_end_of_the_program(tmp_path, end):
    os.mkfifo(tmp_path / "go")
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", WORKER, str(tmp_path), end, stderr=subprocess.PIPE
    )
    _, errors = await worker.communicate()
    assert (worker.returncode, errors) == (-9 if end == "kill" else 0, b"")
    record = json.loads((tmp_path / "records" / "supervisor-1.json").read_text())
    watched = os.pidfd_open(record["pid"])
    try:
        assert supervisor.identity(record["pid"])["start_ticks"] == record["start_ticks"]
        assert record["program"]["pid"] in supervisor.descendants(record["pid"])
        await asyncio.to_thread((tmp_path / "go").write_bytes, b"\n")
        readable, _, _ = await asyncio.to_thread(select.select, [watched], [], [], PATIENCE)
        assert readable
    finally:
        for orphan in alive_with(record["marker"]):
            orphan.kill()
        os.close(watched)
    assert json.loads((tmp_path / "records" / "exit-1.json").read_text())["code"] == 5
    assert (tmp_path / "job.log").read_bytes() == b"done\n"


async def test_another_worker_can_command_through_the_socket_in_the_record_folder(run):
    stage = await run("wait")
    await stage.logged(b"READY")
    path = stage.spec.record_dir / supervisor.control_name(1)
    assert path.stat().st_mode & 0o077 == 0
    folder = os.open(stage.spec.record_dir, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        for nonsense in (b"", b"x", b"[]", b"{}", b'{"signal": "9"}', b'{"signal": 999}', b"\xff"):
            sender.send(nonsense)
        sender.send(b'{"signal": 15}')
    assert (await stage.process.wait_exit()).signal == signal.SIGTERM
    await stage.process.wait_gone()


async def test_a_record_folder_deeper_than_a_sockets_path_is_no_obstacle(run, tmp_path):
    stage = await run("exit", "0", record_dir=tmp_path / ("d" * 100) / ("e" * 100))
    assert (await stage.process.wait_exit()).ok


def test_where_there_is_no_subreaper_the_process_group_is_the_tree():
    child = subprocess.Popen([sys.executable, TRAINER, "linger"], start_new_session=True)
    tree = supervisor.Tree(child.pid, whole=False)
    assert tree.outlives_its_children()
    tree.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not tree.outlives_its_children()
    tree.send(signal.SIGKILL)


def test_the_local_launcher_is_a_launcher():
    launcher: Launcher = LocalLauncher()
    assert launcher
