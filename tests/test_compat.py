"""Programs of sleap-rtc's worker on this one: what they import, what they say, how they end."""

import asyncio
import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fsm_worker import worker_class
from fsm_worker.client.connection import WorkerConnection
from fsm_worker.compat import install, uninstall
from fsm_worker.compat.__main__ import main
from fsm_worker.compat.finder import OURS
from fsm_worker.compat.room_secret import RoomSecretUnreadable, find_room_secret
from fsm_worker.compat.worker_class import NameTheApiKey, RTCWorkerClient, signaling_address
from fsm_worker.events import Timer
from fsm_worker.examples.digits.package import build_package
from fsm_worker.identity import Identity
from fsm_worker.seams.signaling_socket import NotASignalingUrl, SignalingUnreachable
from fsm_worker.services.archive import pack
from fsm_worker.settings import WorkerSettings
from fsm_worker.signaling.server import SignalingServer
from protocol.lifecycle import Outcome
from protocol.messages import JobStateChanged
from protocol.proof import SessionString
from tests.e2e.lab import job_id, until_final
from tests.e2e.test_endings import until_progress
from tests.signaling.peer import entered, owner_and_room

THE_SEEDS = {
    "worker_class": "RTCWorkerClient",
    "capabilities": "WorkerCapabilities",
    "job_executor": "JobExecutor",
    "file_manager": "FileManager",
    "job_coordinator": "JobCoordinator",
    "state_manager": "StateManager",
    "progress_reporter": "ProgressReporter",
}
#: A sleap-rtc that somebody has installed, in small.
THEIRS = {
    "sleap_rtc/__init__.py": "",
    "sleap_rtc/config.py": "SIGNALING = 'wss://signaling.test'\n",
    "sleap_rtc/rtc_worker.py": (
        "from sleap_rtc.config import SIGNALING\n"
        "from sleap_rtc.worker.worker_class import RTCWorkerClient\n"
    ),
    "sleap_rtc/worker/__init__.py": "",
    "sleap_rtc/worker/mesh_messages.py": "KIND = 'theirs'\n",
    **{
        f"sleap_rtc/worker/{name}.py": f"class {kind}:\n    theirs = True\n"
        for name, kind in THE_SEEDS.items()
    },
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def of_sleap_rtc() -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items()
            if name.partition(".")[0] == "sleap_rtc"}  # fmt: skip


@pytest.fixture
def imports() -> Iterator[None]:
    """Nothing of sleap-rtc is imported before the test, nor after it."""
    assert of_sleap_rtc() == {}
    yield
    uninstall()
    for name in of_sleap_rtc():
        del sys.modules[name]


@pytest.fixture
def theirs(imports: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(write(tmp_path / "site", THEIRS))


# --- what is imported ------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), THE_SEEDS.items())
def test_the_seven_classes_are_where_sleap_rtc_has_them(
    imports: None, name: str, kind: str
) -> None:
    install()
    found = getattr(importlib.import_module(f"sleap_rtc.worker.{name}"), kind)
    if kind == "RTCWorkerClient":
        assert issubclass(found, worker_class.RTCWorkerClient)
    else:
        assert found is getattr(importlib.import_module(f"fsm_worker.services.{name}"), kind)


def test_a_module_of_ours_stays_itself(imports: None) -> None:
    ours = importlib.import_module("fsm_worker.services.capabilities")
    spec = ours.__spec__
    install()
    module = importlib.import_module("sleap_rtc.worker.capabilities")
    assert module.__name__ == "sleap_rtc.worker.capabilities"
    assert ours.__spec__ is spec is not None
    assert spec.name == ours.__name__ == "fsm_worker.services.capabilities"


def test_without_sleap_rtc_only_its_workers_part_is_there(imports: None) -> None:
    install()
    importlib.import_module("sleap_rtc.worker.worker_class")
    with pytest.raises(ModuleNotFoundError, match=r"sleap_rtc\.config"):
        importlib.import_module("sleap_rtc.config")
    with pytest.raises(ModuleNotFoundError, match=r"sleap_rtc\.worker\.mesh_messages"):
        importlib.import_module("sleap_rtc.worker.mesh_messages")


def test_without_sleap_rtc_nothing_of_it_is_left(imports: None) -> None:
    finders = list(sys.meta_path)
    install()
    importlib.import_module("sleap_rtc.worker.worker_class")
    uninstall()
    assert of_sleap_rtc() == {}
    assert sys.meta_path == finders
    with pytest.raises(ModuleNotFoundError, match="sleap_rtc"):
        importlib.import_module("sleap_rtc")


def test_with_sleap_rtc_only_the_seven_are_ours(theirs: None) -> None:
    install()
    assert importlib.import_module("sleap_rtc.worker.mesh_messages").KIND == "theirs"
    program = importlib.import_module("sleap_rtc.rtc_worker")
    assert program.SIGNALING == "wss://signaling.test"
    assert program.RTCWorkerClient is RTCWorkerClient
    for name, kind in THE_SEEDS.items():
        found = getattr(importlib.import_module(f"sleap_rtc.worker.{name}"), kind)
        assert not hasattr(found, "theirs")


def state() -> dict[str, Any]:
    """All that `uninstall` has to put back."""
    modules = of_sleap_rtc()
    return {
        "finders": list(sys.meta_path),
        "modules": modules,
        "inside": {name: dict(vars(module)) for name, module in modules.items()},
    }


@pytest.mark.parametrize(
    "before",
    [
        (),
        ("sleap_rtc",),
        ("sleap_rtc.worker",),
        ("sleap_rtc.worker.worker_class", "sleap_rtc.worker.capabilities"),
        ("sleap_rtc.rtc_worker", "sleap_rtc.worker.mesh_messages"),
        tuple(OURS),
    ],
    ids=len,
)
@pytest.mark.parametrize("times", [1, 2])
def test_uninstall_puts_back_what_was_there(
    theirs: None, before: tuple[str, ...], times: int
) -> None:
    for name in before:
        importlib.import_module(name)
    was = state()
    for _ in range(times):
        install()
    for name in (*OURS, "sleap_rtc.rtc_worker", "sleap_rtc.worker.mesh_messages"):
        importlib.import_module(name)
    uninstall()
    now = state()
    assert now == was
    for name, kind in THE_SEEDS.items():
        module = importlib.import_module(f"sleap_rtc.worker.{name}")
        assert getattr(module, kind).theirs
        assert getattr(importlib.import_module("sleap_rtc.worker"), name) is module
    assert importlib.import_module("sleap_rtc.rtc_worker").RTCWorkerClient.theirs


def test_what_was_imported_before_gives_way_in_every_spelling(theirs: None) -> None:
    from sleap_rtc.worker import worker_class as before  # noqa: PLC0415

    install()
    from sleap_rtc.worker import worker_class as now  # noqa: PLC0415
    from sleap_rtc.worker.worker_class import RTCWorkerClient as found  # noqa: N813, PLC0415

    assert before.RTCWorkerClient.theirs
    assert now is not before
    assert found is now.RTCWorkerClient is RTCWorkerClient


def test_it_can_be_installed_again(imports: None) -> None:
    for _ in range(2):
        install()
        importlib.import_module("sleap_rtc.worker.job_executor")
        uninstall()
    uninstall()
    assert of_sleap_rtc() == {}


# --- what the class takes --------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(state=tmp_path / "state", name="the host's")


def test_the_constructor_takes_both_signatures(settings: WorkerSettings) -> None:
    seed = RTCWorkerClient(64 * 1024, 0, "/mnt/data", settings=settings)
    assert (seed.chunk_size, seed.shared_storage_root) == (64 * 1024, "/mnt/data")
    assert (seed.name, seed.mounts, seed.working_dir) == ("the host's", [], None)
    mount = object()
    for newer in (
        RTCWorkerClient(32 * 1024, 0, [mount], "/data", "lab 3", settings=settings),
        RTCWorkerClient(mounts=[mount], working_dir="/data", name="lab 3", settings=settings),
    ):
        assert (newer.name, newer.settings.name) == ("lab 3", "lab 3")
        assert (newer.mounts, newer.working_dir) == ([mount], "/data")
        assert newer.shared_storage_root is None


def test_the_shared_storage_is_the_argument_s_or_the_environment_s(
    settings: WorkerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def root(worker: RTCWorkerClient) -> Path | None:
        return worker.file_manager.shared.root

    monkeypatch.delenv("SHARED_STORAGE_ROOT", raising=False)
    assert root(RTCWorkerClient(settings=settings)) is None
    assert root(RTCWorkerClient(shared_storage_root=tmp_path, settings=settings)) == tmp_path
    monkeypatch.setenv("SHARED_STORAGE_ROOT", str(tmp_path / "lab"))
    assert root(RTCWorkerClient(settings=settings)) == tmp_path / "lab"
    assert root(RTCWorkerClient(shared_storage_root=tmp_path, settings=settings)) == tmp_path


def test_a_worker_for_each_gpu_has_a_state_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSM_WORKER_STATE", str(tmp_path))
    folders = [RTCWorkerClient(gpu_id=gpu).settings.state for gpu in (0, 1, 2)]
    assert folders == [tmp_path / "worker", tmp_path / "worker-gpu1", tmp_path / "worker-gpu2"]


@pytest.mark.parametrize(
    ("dns", "port", "base", "used"),
    [
        ("ws://127.0.0.1", 40123, "ws://127.0.0.1", 40123),
        ("ws://127.0.0.1/", "40123", "ws://127.0.0.1", 40123),
        ("ws://localhost:8081", 8080, "ws://localhost", 8081),
        ("ws://localhost:8081", None, "ws://localhost", 8081),
        ("wss://signaling.test", 8080, "wss://signaling.test", 443),
        ("wss://signaling.test:8080", 8080, "wss://signaling.test", 8080),
        ("wss://signaling.test", 8443, "wss://signaling.test", 8443),
        ("ws://signaling.test", 8080, "ws://signaling.test", 8080),
        ("ws://[::1]:99", 8080, "ws://[::1]", 99),
        ("ws://[::1]", 8080, "ws://[::1]", 8080),
        ("ws://host:", 8080, "ws://host", 8080),
        ("ws://host:08081", 8080, "ws://host", 8081),
    ],
)
def test_the_server_is_where_sleap_rtcs_worker_would_look(
    dns: str, port: int | str, base: str, used: int
) -> None:
    assert signaling_address(dns, port) == (base, used)


@pytest.mark.parametrize(
    ("dns", "port"),
    [
        ("signaling.test", 8080),
        ("https://signaling.test", 443),
        ("ws://", 8080),
        ("ws://host/room", 8080),
        ("ws://host?room=1", 8080),
        ("ws://host:99999", 8080),
        ("ws://host:0", 8080),
        ("ws://host", "http"),
        ("ws://host", None),
        ("ws://host", 0),
        ("ws://host", -1),
        ("ws://[::1", 8080),
    ],
)
def test_what_is_no_server_is_refused_with_what_to_write(dns: str, port: int | str) -> None:
    with pytest.raises(NotASignalingUrl, match="write ws://HOST:PORT"):
        signaling_address(dns, port)


async def test_an_api_key_in_the_place_of_the_room_is_not_sent_anywhere(
    settings: WorkerSettings,
) -> None:
    worker = RTCWorkerClient(settings=settings)
    with pytest.raises(NameTheApiKey, match="api_key="):
        await worker.run_worker(None, "ws://127.0.0.1", 1, "slp_acct_0123", "token")


@pytest.mark.parametrize("limit", [-1, float("nan")])
async def test_a_limit_that_is_none_is_refused(settings: WorkerSettings, limit: float) -> None:
    worker = RTCWorkerClient(settings=settings)
    with pytest.raises(ValueError, match="give seconds above 0"):
        await worker.run_worker(None, "ws://127.0.0.1", 1, max_reconnect_time=limit)


async def test_signals_are_the_programs_own_again_when_the_worker_has_left(
    settings: WorkerSettings,
) -> None:
    def mine(*_: object) -> None:
        raise AssertionError("no SIGTERM was sent")

    ready: asyncio.Queue[SessionString] = asyncio.Queue()
    worker = RTCWorkerClient(settings=replace(settings, ready=ready.put_nowait))
    plain, outer = signal.signal(signal.SIGTERM, mine), signal.getsignal(signal.SIGINT)
    try:
        async with SignalingServer() as server, asyncio.TaskGroup() as group, asyncio.timeout(30):
            running = group.create_task(worker.run_worker(None, server.ws_url, 8080))
            await ready.get()
            assert signal.getsignal(signal.SIGTERM) is mine
            signal.raise_signal(signal.SIGINT)
            await running
        assert signal.getsignal(signal.SIGINT) == outer
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, plain)


async def test_a_program_may_run_its_worker_in_a_thread(settings: WorkerSettings) -> None:
    worker = RTCWorkerClient(settings=settings)
    run = partial(worker.run_worker, None, "ws://127.0.0.1", 1)
    with pytest.raises(SignalingUnreachable):
        await asyncio.to_thread(lambda: asyncio.run(run()))


@pytest.mark.parametrize(("host", "asks_stun"), [("127.0.0.1", False), ("0.0.0.0", True)])  # noqa: S104 - nobody listens there
async def test_later_connections_find_their_way_as_one_that_the_program_makes(
    settings: WorkerSettings, host: str, asks_stun: bool
) -> None:
    worker = RTCWorkerClient(settings=settings)
    with pytest.raises(SignalingUnreachable):
        await worker.run_worker(None, f"ws://{host}", 1)
    assert any(url.startswith("stun:") for url in worker.settings.ice_servers) is asks_stun


# --- where the room secret is ----------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SLEAP_ROOM_SECRET", "SLEAP_SECRET_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".sleap-rtc" / "room-secrets").mkdir(parents=True)
    return tmp_path / ".sleap-rtc"


def test_a_room_secret_is_looked_for_as_in_sleap_rtc(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_room_secret("r1", None) is None
    secrets = {"room_secrets": {"r1": "four", "default": "five"}, "jwt": "x"}
    (home / "credentials.json").write_text(json.dumps(secrets))
    assert find_room_secret("r1", None) == "four"
    assert find_room_secret("r2", None) is None
    assert find_room_secret(None, None) == "five"
    (home / "room-secrets" / "r1").write_text(" three\n")
    assert find_room_secret("r1", "") == "three"
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("SLEAP_SECRET_PATH", str(elsewhere))
    assert find_room_secret("r1", None) == "four"
    monkeypatch.setenv("SLEAP_ROOM_SECRET", "two")
    assert find_room_secret("r1", None) == "two"
    assert find_room_secret("r1", "one") == "one"


@pytest.mark.parametrize("text", ["", "{}", '{"room_secrets": {}}', '{"room_secrets": {"r": ""}}'])
def test_credentials_without_a_secret_have_none(home: Path, text: str) -> None:
    (home / "credentials.json").write_text(text)
    assert find_room_secret("r", None) is None


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '"r"', '{"room_secrets": []}', '{"room_secrets": {"r": 7}}', "\0", "[" * 100_000],
    ids=range(7),
)
def test_damaged_credentials_do_not_open_a_room(home: Path, text: str) -> None:
    (home / "credentials.json").write_text(text)
    with pytest.raises(RoomSecretUnreadable, match="repair it"):
        find_room_secret("r", None)


def test_a_secret_file_that_cannot_be_read_does_not_open_a_room(home: Path) -> None:
    (home / "room-secrets" / "r").mkdir()
    with pytest.raises(RoomSecretUnreadable, match="repair it, or delete it"):
        find_room_secret("r", None)
    (home / "room-secrets" / "s").write_bytes(b"\xff")
    with pytest.raises(RoomSecretUnreadable):
        find_room_secret("s", None)


# --- without the signaling server ------------------------------------------------------------


class Relay:
    """Passes bytes on to a server; its connections can be cut, and it can go away."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        try:
            yield self._server.sockets[0].getsockname()[1]
        finally:
            self.go_away()
            await self._server.wait_closed()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def go_away(self) -> None:
        self._server.close()
        self.cut()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers |= {writer, there}

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, there), pump(there_reader, writer))


async def test_a_worker_leaves_after_max_reconnect_time_and_not_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ready: asyncio.Queue[SessionString] = asyncio.Queue()
    worker = RTCWorkerClient(
        settings=WorkerSettings(state=tmp_path, timers={Timer.DELAY: 0.05}, ready=ready.put_nowait)
    )
    async with SignalingServer() as server, asyncio.timeout(30):
        relay = Relay(server.port)
        async with relay.open() as port, asyncio.TaskGroup() as group:
            running = group.create_task(
                worker.run_worker(None, "ws://127.0.0.1", port, max_reconnect_time=1.5)
            )
            await ready.get()
            before = relay.connections
            relay.cut()
            await asyncio.wait({running}, timeout=2.5)
            assert not running.done()  # it came back in time
            assert relay.connections > before
            assert "without the signaling server" not in caplog.text
            gone = asyncio.get_running_loop().time()
            relay.go_away()
            await running
            assert asyncio.get_running_loop().time() - gone >= 1.5
    assert "1.5 s without the signaling server: see max_reconnect_time" in caplog.text


async def test_a_job_of_a_leaving_worker_is_not_stopped_because_the_server_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ready: asyncio.Queue[SessionString] = asyncio.Queue()
    worker = RTCWorkerClient(
        settings=WorkerSettings(state=tmp_path / "state", ready=ready.put_nowait)
    )
    folder = build_package(tmp_path / "digits", epochs=30, pace=0.1)
    async with SignalingServer() as server, asyncio.timeout(60):
        relay = Relay(server.port)
        async with relay.open() as port, asyncio.TaskGroup() as group:
            running = group.create_task(
                worker.run_worker(None, "ws://127.0.0.1", port, max_reconnect_time=0.5)
            )
            session, identity = await ready.get(), Identity.load(tmp_path / "client.key")
            async with WorkerConnection.open(session, identity) as client:
                job = job_id()
                await client.submit(job, pack(folder, tmp_path / "digits.zip"))
                await until_progress(client, "epoch_end")
                worker.terminate()  # a second time, it would stop the job
                relay.go_away()
                last = (await until_final(client, job))[-1]
                assert "without the signaling server" in caplog.text
                assert isinstance(last, JobStateChanged)
                assert last.outcome is Outcome.SUCCEEDED
                await client.fetch(job, tmp_path)
            await running


# --- a program of somebody, in a process of its own ------------------------------------------

#: What a user of sleap-rtc wrote: nothing in it knows of fsm-worker.
PROGRAM = """\
import asyncio
import sys

from aiortc import RTCPeerConnection
from sleap_rtc.worker.worker_class import RTCWorkerClient

worker = RTCWorkerClient(chunk_size=32 * 1024, gpu_id=0, shared_storage_root=None)
print(repr((worker.status, worker.gpu_memory_mb, worker.gpu_model, worker.cuda_version)))
pc = RTCPeerConnection()
pc.on("datachannel", lambda channel: print("the given connection has", channel.label))
DNS, port_number, room_id, token = sys.argv[1:]
try:
    asyncio.run(worker.run_worker(pc, DNS, int(port_number), room_id, token))
finally:
    print("Worker exiting...")
"""
EVERY_KEYWORD = """\
import asyncio
import logging
import sys

from aiortc import RTCPeerConnection
from sleap_rtc.worker.worker_class import RTCWorkerClient

DNS, port_number, room_id, token = sys.argv[1:]
logging.info("the program's own words")  # would settle on WARNING, had the import not chosen INFO
RTCWorkerClient(shared_storage_root="/mnt")
RTCWorkerClient(shared_storage_root="/mnt", mounts=["/data"], working_dir="/data")
worker = RTCWorkerClient(mounts=["/data"], working_dir="/data", name="the lab's third")


async def run():
    await worker.run_worker(
        pc=RTCPeerConnection(), DNS=f"{DNS}:{port_number}", port_number=8080,
        api_key="slp_acct_x", room_id=room_id, token=token, room_secret="c2VjcmV0",
        max_reconnect_time=600,
    )


asyncio.run(run())
"""


class Program:
    """A program under `python -m fsm_worker.compat`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.errors = ""

    async def session(self) -> SessionString:
        """Reads its log until the worker is in its room."""
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self.errors += line
            if found := re.search(r"--session (\S+)", line):
                return SessionString.decode(found[1])
        raise AssertionError(f"it ended before it was in a room:\n{self.errors}")

    async def end(self, number: signal.Signals) -> tuple[int | None, str]:
        """Sends a signal, and reads the rest."""
        self.process.send_signal(number)
        out, rest = await self.process.communicate()
        self.errors += rest.decode()
        return self.process.returncode, out.decode()


@contextlib.asynccontextmanager
async def started(folder: Path, *words: str) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fsm_worker.compat", *words,
        cwd=folder, env=os.environ | {"FSM_WORKER_STATE": str(folder / "state")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_program_of_a_user_of_sleap_rtc_runs_as_it_is(
    tmp_path: Path, number: signal.Signals
) -> None:
    # A module that has the name of ours stands beside it, as in sleap-rtc's own folder.
    files = {"bin/start.py": PROGRAM, "bin/protocol.py": "raise ImportError('the wrong one')\n"}
    write(tmp_path, files)
    async with SignalingServer() as server:
        _, room = await owner_and_room(server)
        words = ("bin/start.py", "ws://127.0.0.1", str(server.port), room.room_id, room.token)
        async with started(tmp_path, *words) as program:
            session = await program.session()
            assert (session.room, session.token) == (room.room_id, room.token)
            identity = Identity.load(tmp_path / "client.key")
            async with asyncio.timeout(20), WorkerConnection.open(session, identity):
                pass
            code, out = await program.end(number)
    first, *middle, last = out.splitlines()
    assert code == 0, program.errors
    assert last == "Worker exiting..."
    assert middle.count("the given connection has control") == 1
    status, memory, model, cuda = eval(first)  # noqa: S307 - a repr that the test itself wrote
    assert status in {"available", "busy", "reserved", "maintenance"}
    assert isinstance(memory, int)
    assert isinstance(model, str)
    assert isinstance(cuda, str)
    assert "Traceback" not in program.errors


async def test_every_word_of_0_0_7_has_an_effect_or_a_reason_in_the_log(tmp_path: Path) -> None:
    write(tmp_path, {"start.py": EVERY_KEYWORD})
    async with SignalingServer() as server:
        _, room = await owner_and_room(server)
        words = ("start.py", "ws://127.0.0.1", str(server.port), room.room_id, room.token)
        async with started(tmp_path, *words) as program:
            await program.session()
            async with await entered(server, room, "someone") as peer:
                asked = {"type": "discover_peers", "from_peer_id": "someone", "filters": {}}
                found = (await peer.ask(asked))["peers"]
            code, _ = await program.end(signal.SIGINT)
    assert code == 0, program.errors
    (worker,) = found
    assert worker["metadata"]["properties"]["worker_name"] == "the lab's third"
    for word in ("mounts", "working_dir", "api_key"):
        assert program.errors.count(f"{word} has no effect: ") == 1, program.errors
    assert "sleap-rtc" in worker["metadata"]["tags"], "sleap-rtc's clients find it"
    for word in (
        *("name", "max_reconnect_time", "chunk_size", "gpu_id", "room_secret"),
        "shared_storage_root",
    ):
        assert f"{word} has no effect" not in program.errors
    assert "INFO:root:the program's own words" in program.errors
    assert "transitions" not in program.errors
    assert "slp_acct_x" not in program.errors
    assert "c2VjcmV0" not in program.errors


#: Says how it was started.
WHO = """\
import json, sys
print(json.dumps({
    "file": __file__, "argv": sys.argv, "path": sys.path,
    "name": __name__, "package": __package__ or "",
}))
"""


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False,
        timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def compat(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "fsm_worker.compat", *words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), ("-m", "who", "-m", "a b", "--help")),
        ((), ("-m", "pack", "x")),
        ((), ("bin/script.py", "-m", "x", "-h")),
        ((), ("link.py",)),
        ((), ("pack", "x")),
        (("-P",), ("bin/script.py", "x")),
    ],
    ids=lambda words: " ".join(words) or "plain",
)
def test_a_program_finds_what_python_itself_would_give_it(
    tmp_path: Path, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    write(tmp_path, {"who.py": WHO, "bin/script.py": WHO, "pack/__main__.py": WHO})
    (tmp_path / "link.py").symlink_to("bin/script.py")
    plain = python(tmp_path, *flags, *words)
    ours = python(tmp_path, *flags, "-m", "fsm_worker.compat", *words)
    assert ours.returncode == plain.returncode == 0, ours.stderr
    expected, given = json.loads(plain.stdout), json.loads(ours.stdout)
    # Python makes a script's `__file__` absolute, runpy the name of a folder in `sys.argv`.
    assert (tmp_path / given.pop("file")).samefile(expected.pop("file"))
    assert (tmp_path / given["argv"].pop(0)).samefile(tmp_path / expected["argv"].pop(0))
    assert given == expected


@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("raise SystemExit('enough')", 1, "enough\n"),
        ("pass", 0, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import sleap_rtc.config", 1, "install sleap-rtc beside it"),
        ("from sleap_rtc.worker.file_manager import x", 1, "has FileManager only"),
    ],
)
def test_how_a_program_ends_is_how_the_command_ends(
    tmp_path: Path, program: str, code: int, said: str
) -> None:
    write(tmp_path, {"ends.py": program})
    ended = compat(tmp_path, "ends.py")
    assert ended.returncode == code
    assert said in ended.stderr
    assert ended.stdout == ""


def test_the_installed_sleap_rtc_starts_our_worker(tmp_path: Path) -> None:
    use = "import sleap_rtc.rtc_worker as it\nprint(it.SIGNALING, it.RTCWorkerClient.__module__)\n"
    write(tmp_path, {**THEIRS, "lab/__init__.py": "", "lab/start.py": use})
    ended = compat(tmp_path, "-m", "lab.start")
    assert ended.stdout == "wss://signaling.test fsm_worker.compat.worker_class\n", ended.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a program"),
        (["-m"], "name a program"),
        (["-m", "no_such_module_anywhere"], "no module 'no_such_module_anywhere'"),
        (["-m", "no_such_package.module"], "no module 'no_such_package.module'"),
        (["-m", ".relative"], "no module '.relative'"),
        (["no_such_file.py"], "no file 'no_such_file.py'"),
    ],
)
def test_a_program_that_is_not_there_is_named(
    imports: None, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = list(sys.path)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert sys.path == before


def test_a_package_that_lacks_something_says_what(
    imports: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(write(tmp_path, {"lacking/__init__.py": "import not_here_at_all"}))
    with pytest.raises(ModuleNotFoundError, match="not_here_at_all"):
        main(["-m", "lacking.program"])


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "python -m fsm_worker.compat -m lab.start_worker --gpu 1" in text
    for name in THE_SEEDS:
        assert name in text
    assert "FSM_WORKER_STATE" in text
