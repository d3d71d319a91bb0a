"""What the modularisation design of sleap-rtc's worker names, and a check of what stands for it.

A check is quick, and uses the real thing. `remove` takes that thing away; then the check must fail.
"""

import asyncio
import importlib
import inspect
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription

from fsm_worker import compat, effects, worker_class
from fsm_worker.events import (
    ControlOpened,
    IceCompleted,
    PackageNamed,
    Received,
    RecvOffer,
    SentAnswer,
)
from fsm_worker.facts import GuestFacts, LinkFacts
from fsm_worker.machines import routing
from fsm_worker.machines.worlds import worker_world
from fsm_worker.seams import guest_words
from fsm_worker.seams.gathering import closed
from fsm_worker.seams.loopback import allow_loopback
from fsm_worker.seams.peer_links import PeerLinks
from fsm_worker.services import capabilities, job_executor
from fsm_worker.services.capabilities import WorkerCapabilities
from fsm_worker.services.declared import Declared
from fsm_worker.services.file_manager import FileManager
from fsm_worker.services.nvml import PynvmlDriver
from fsm_worker.settings import WorkerSettings
from protocol import CONTROL_LABEL, NATIVE_SUBPROTOCOL, codec, sleap_rtc
from protocol import messages as m
from protocol.codec import Frame
from protocol.sleap_rtc import frames
from protocol.sleap_rtc import table as words_of_sleap_rtc
from protocol.table import Direction, MachineName, Right
from tests.e2e.lab import open_lab
from tests.protocol import samples
from tests.services.test_capabilities import FIRST, SECOND, TWO_GPUS, Library

LINK, JOB = "link-1", samples.JOB
REQUEST = {"job_type": "", "requirements": {"min_gpu_memory_mb": 8192}}


class Patience:
    """Seconds until a check that hangs has failed; nothing waits for it to pass."""

    seconds = 15.0
    #: Where what is checked was taken away, and the check has to fail anyhow.
    without = 1.5


class Name(NamedTuple):
    """One name of the design.

    Args:
        check: raises if what stands for it does not do its work; gets an empty folder.
        remove: takes that away.
    """

    check: Callable[[Path], Awaitable[None]]
    remove: Callable[[pytest.MonkeyPatch], None]


def without(owner: object, attribute: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.delattr(owner, attribute)


def without_word(tag: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Takes a row of sleap-rtc's messages away."""
    read: Any = words_of_sleap_rtc._READ

    def remove(patch: pytest.MonkeyPatch) -> None:
        for _separator, rows in read[Direction.TO_WORKER]:
            patch.delitem(rows, tag, raising=False)

    return remove


# --- the orchestrator ------------------------------------------------------------------------


def a_worker(folder: Path, *arguments: Any, **settings: Any) -> worker_class.RTCWorkerClient:
    settings = {"state": folder / "worker", **settings}
    return worker_class.RTCWorkerClient(*arguments, settings=WorkerSettings(**settings))


def effect(kind: type[effects.Effect], event: Any = None) -> Any:
    return kind(
        subject=LINK, event=event, facts=LinkFacts(), row="L1", before="new", after="negotiating"
    )


async def constructor(folder: Path) -> None:
    worker = a_worker(folder, 1024, 1, str(folder))
    assert (worker.chunk_size, worker.capabilities.gpu_id) == (1024, 1)
    assert worker.shared_storage_root == str(folder)
    kept = list(inspect.signature(worker_class.RTCWorkerClient).parameters)[:3]
    assert kept == ["chunk_size", "gpu_id", "shared_storage_root"]


async def run_worker(folder: Path) -> None:
    run = worker_class.RTCWorkerClient.run_worker
    assert list(inspect.signature(run).parameters) == [
        "self", "pc", "DNS", "port_number", "room_id", "token"
    ]  # fmt: skip
    async with open_lab(folder) as lab:
        assert lab.session.room
        assert lab.worker.signaling.url.endswith(str(lab.server.port))
    assert lab.worker.status == "maintenance"


def performs(name: str) -> Callable[[Path], Awaitable[None]]:
    """The manager of this name performs its effects, and nobody else does."""

    async def check(folder: Path) -> None:
        worker = a_worker(folder)
        bound = worker.runtime.bindings
        mine = [method for kind, method in bound.items() if kind.owner.value == name]
        assert mine
        assert all(inspect.unwrap(method).__self__ is getattr(worker, name) for method in mine)

    return check


async def injection(folder: Path) -> None:
    worker = a_worker(folder)
    given = worker.job_executor
    assert given._capabilities is worker.capabilities
    assert given._files is worker.file_manager
    assert given._progress is worker.progress_reporter
    known = inspect.signature(job_executor.JobExecutor).parameters
    assert list(known)[:3] == ["capabilities", "file_manager", "progress_reporter"]


async def status(folder: Path) -> None:
    worker = a_worker(folder)
    assert worker.status == worker.state_manager.status == "maintenance"
    with pytest.raises(AttributeError, match="no setter"):
        worker.status = "available"  # type: ignore[misc]


async def gpu(folder: Path) -> None:
    worker, library = a_worker(folder), Library()
    worker.capabilities = WorkerCapabilities(0, nvml=PynvmlDriver(library), environ={})
    found = TWO_GPUS["gpus"][0]
    assert worker.gpu_model == found["name"]
    assert worker.gpu_memory_mb == found["total"] // 2**20
    assert worker.cuda_version.replace(".", "0") in str(TWO_GPUS["cuda"])


async def a_peer_comes_in(folder: Path) -> None:
    """An offer is answered, ICE and a channel become events, and the end closes everything."""
    allow_loopback()
    posted: list[Any] = []
    came = asyncio.Event()
    said: list[Any] = []
    worker, caller = a_worker(folder), RTCPeerConnection()

    def post(_machine: MachineName, _subject: str, event: Any) -> None:
        posted.append(type(event))
        came.set()

    worker.runtime.post = post  # type: ignore[method-assign]
    worker.signaling.send = said.append  # type: ignore[method-assign, assignment]
    caller.createDataChannel(CONTROL_LABEL, protocol=NATIVE_SUBPROTOCOL)
    try:
        async with asyncio.timeout(Patience.seconds):
            await caller.setLocalDescription(await caller.createOffer())
            offer = RecvOffer(peer="caller", sdp=caller.localDescription.sdp, room_for_more=True)
            await worker.handle_connection(effect(effects.HandleConnection, offer))
            assert posted[0] is SentAnswer
            answer = RTCSessionDescription(sdp=said[0].sdp, type="answer")
            await caller.setRemoteDescription(answer)
            while not {IceCompleted, ControlOpened} <= set(posted):
                came.clear()
                await came.wait()
            ours = worker._peers[LINK]
            await worker.clean_exit()
            assert ours.connectionState == "closed"
            assert worker._peers == {}
    finally:
        for connection in (*worker._peers.values(), caller):
            await closed(connection)


class Wire:
    """An open control channel that nobody is behind."""

    label, protocol, readyState = CONTROL_LABEL, NATIVE_SUBPROTOCOL, "open"  # noqa: N815 - aiortc's
    bufferedAmount = 0  # noqa: N815 - aiortc's name

    def __init__(self) -> None:
        self.heard: dict[str, Callable[..., None]] = {}
        self.sent: list[str] = []
        self.transport = SimpleNamespace(_data_channel_queue=deque())  # where aiortc's waits

    def on(self, name: str, handler: Callable[..., None]) -> None:
        self.heard[name] = handler

    def send(self, text: str) -> None:
        self.sent.append(text)
        self.transport._data_channel_queue.append((self, 0, text))

    def remove_all_listeners(self) -> None:
        self.heard.clear()


def on_a_wire(folder: Path) -> tuple[worker_class.RTCWorkerClient, Wire]:
    worker, wire = a_worker(folder), Wire()
    worker.links.open(LINK, lambda: ("", ""))
    worker.links.attach(LINK, wire)  # type: ignore[arg-type]
    return worker, wire


async def keep_ice_alive(folder: Path) -> None:
    worker, wire = on_a_wire(folder)
    worker.keep_ice_alive(effect(effects.KeepIceAlive))
    assert codec.decode(wire.sent[0], Direction.TO_CLIENT).msg == m.Ping(n=1)


async def on_message(folder: Path) -> None:
    worker, wire = on_a_wire(folder)
    posted: list[Any] = []
    worker.runtime.post = lambda *told: posted.append(told)  # type: ignore[method-assign]
    hello = samples.BY_TYPE[m.Hello]
    wire.heard["message"](codec.encode(Frame(msg=hello)))
    machine, subject, made = posted[0]
    assert (machine, subject) == (MachineName.LINK, LINK)
    arrived = made() if callable(made) else made
    assert isinstance(arrived, Received)
    assert arrived.message == hello


# --- routing ---------------------------------------------------------------------------------


async def parse_message(_folder: Path) -> None:
    for message in (m.Ping(n=1), samples.BY_TYPE[m.Submit]):
        seq = None if isinstance(message, m.Ping) else 1
        frame = Frame(msg=message) if seq is None else Frame(msg=message, seq=seq)
        assert codec.decode(codec.encode(frame), Direction.TO_WORKER).msg == message


async def route(_folder: Path) -> None:
    who: Any = {"link": LINK, "session": "s-1", "key": "key", "rights": tuple(Right)}
    for message, machine, subject in (
        (samples.BY_TYPE[m.Submit], MachineName.JOB, JOB),
        (m.WorkerGet(), MachineName.SESSION, "s-1"),
        (m.Ping(n=1), MachineName.LINK, LINK),
    ):
        assert routing.route(worker_world(), message, **who) == (machine, subject)


async def handle_message(folder: Path) -> None:
    """A file manager is given what is its own, and by no message type."""
    worker = a_worker(folder)
    mine = {kind for kind in worker.runtime.bindings if kind.owner is effects.Owner.FILE_MANAGER}
    assert {effects.OpenIncoming, effects.SendRanges, effects.DeleteResults} <= mine
    with pytest.raises(codec.ProtocolError):
        FileManager.take_chunk(worker.file_manager, "s-1", b"no chunk")


async def set_package_type(_folder: Path) -> None:
    said = sleap_rtc.decode("PACKAGE_TYPE::track")
    assert guest_words.read(said) == PackageNamed(kind="track")


def shared(text: str, kind: type[frames.Frame]) -> Callable[[Path], Awaitable[None]]:
    async def check(_folder: Path) -> None:
        assert isinstance(sleap_rtc.decode(text), kind)

    return check


async def progress_report(_folder: Path) -> None:
    facts = GuestFacts(kind="train", stages=("centroid",), gui=True)
    progress = m.Progress(job=JOB, stage=0, event="epoch_end", epoch=3, metrics={"loss": 0.5})
    text = sleap_rtc.encode(guest_words.report(facts, progress))
    assert isinstance(text, str)
    assert text.startswith("PROGRESS_REPORT::")


# --- capabilities ----------------------------------------------------------------------------


def a_machine(gpu_id: int = 0) -> WorkerCapabilities:
    return capabilities.WorkerCapabilities(gpu_id=gpu_id, nvml=PynvmlDriver(Library()), environ={})


async def gpu_id(_folder: Path) -> None:
    assert [a_machine(number).gpu_uuid for number in (0, 1)] == [FIRST, SECOND]


async def detect_gpu_memory(_folder: Path) -> None:
    assert a_machine().gpu_memory_mb == TWO_GPUS["gpus"][0]["total"] // 2**20


async def check_job_compatibility(_folder: Path) -> None:
    for memory, enough in ((4096, False), (8192, True)):
        declared = Declared(gpu_model="declared", gpu_memory_mb=memory)
        here = WorkerCapabilities(nvml=PynvmlDriver(Library()), declared=declared, environ={})
        assert here.check_job_compatibility(REQUEST) is enough


# --- where it is imported from ---------------------------------------------------------------


async def old_import(_folder: Path) -> None:
    before = {name for name in sys.modules if name.partition(".")[0] == "sleap_rtc"}
    compat.install()
    try:
        theirs = importlib.import_module("sleap_rtc.worker.worker_class").RTCWorkerClient
        assert issubclass(theirs, worker_class.RTCWorkerClient)
    finally:
        compat.uninstall()
    assert {name for name in sys.modules if name.partition(".")[0] == "sleap_rtc"} == before


_CLIENT = worker_class.RTCWorkerClient

NAMES: Mapping[str, Name] = {
    # classes
    "RTCWorkerClient": Name(constructor, without(worker_class, "RTCWorkerClient")),
    "WorkerCapabilities": Name(
        performs("capabilities"), without(worker_class, "WorkerCapabilities")
    ),
    "JobExecutor": Name(performs("job_executor"), without(worker_class, "JobExecutor")),
    "FileManager": Name(performs("file_manager"), without(worker_class, "FileManager")),
    "JobCoordinator": Name(performs("job_coordinator"), without(worker_class, "JobCoordinator")),
    "StateManager": Name(performs("state_manager"), without(worker_class, "StateManager")),
    "ProgressReporter": Name(
        performs("progress_reporter"), without(worker_class, "ProgressReporter")
    ),
    # the orchestrator's public surface
    "RTCWorkerClient.__init__(chunk_size, gpu_id, shared_storage_root)": Name(
        constructor, without(_CLIENT, "__init__")
    ),
    "RTCWorkerClient.run_worker(pc, DNS, port_number, room_id, token)": Name(
        run_worker, without(_CLIENT, "run_worker")
    ),
    "RTCWorkerClient.status": Name(status, without(_CLIENT, "status")),
    "RTCWorkerClient.gpu_memory_mb": Name(gpu, without(_CLIENT, "gpu_memory_mb")),
    "RTCWorkerClient.gpu_model": Name(gpu, without(_CLIENT, "gpu_model")),
    "RTCWorkerClient.cuda_version": Name(gpu, without(_CLIENT, "cuda_version")),
    "sleap_rtc.worker.worker_class": Name(old_import, without(compat, "install")),
    # WebRTC
    "RTCWorkerClient.handle_connection": Name(
        a_peer_comes_in, without(_CLIENT, "handle_connection")
    ),
    "RTCWorkerClient.on_datachannel": Name(a_peer_comes_in, without(_CLIENT, "on_datachannel")),
    "RTCWorkerClient.on_iceconnectionstatechange": Name(
        a_peer_comes_in,
        # it does nothing instead: an exception there would keep aiortc from closing its sockets
        lambda patch: patch.setattr(_CLIENT, "on_iceconnectionstatechange", lambda *_: None),
    ),
    "RTCWorkerClient.clean_exit": Name(a_peer_comes_in, without(_CLIENT, "clean_exit")),
    "RTCWorkerClient.keep_ice_alive": Name(keep_ice_alive, without(_CLIENT, "keep_ice_alive")),
    # composition
    "JobExecutor(capabilities, file_manager, progress_reporter)": Name(
        injection, without(job_executor.JobExecutor, "__init__")
    ),
    "WorkerCapabilities(gpu_id)": Name(gpu_id, without(WorkerCapabilities, "__init__")),
    # routing
    "on_message": Name(on_message, without(PeerLinks, "attach")),
    "parse_message": Name(parse_message, without(codec, "decode")),
    "route by msg_type": Name(route, without(routing, "route")),
    "FileManager.handle_message": Name(handle_message, without(FileManager, "take_chunk")),
    "JobExecutor.set_package_type": Name(set_package_type, without_word("PACKAGE_TYPE")),
    "MSG_JOB_ID": Name(shared("JOB_ID::job-1", frames.SharedJob), without_word("JOB_ID")),
    "MSG_SHARED_INPUT_PATH": Name(
        shared("SHARED_INPUT_PATH::jobs/one", frames.SharedInputPath),
        without_word("SHARED_INPUT_PATH"),
    ),
    "PROGRESS_REPORT": Name(progress_report, without(guest_words, "report")),
    # what the first alternative names
    "detect_gpu_memory": Name(detect_gpu_memory, without(WorkerCapabilities, "gpu_memory_mb")),
    "check_job_compatibility": Name(
        check_job_compatibility, without(WorkerCapabilities, "check_job_compatibility")
    ),
}
