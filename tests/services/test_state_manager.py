"""Laws of what a worker says about itself: the same words every time, and to whom they belong."""

import logging
from typing import Any

import msgspec
import pytest

from fsm_worker import effects as ef
from fsm_worker.events import Event, ProbeSucceeded, Received, StatusChanged, Timer, TimerExpired
from fsm_worker.machines.engine import Instance
from fsm_worker.machines.world import THE_SERVER, THE_WORKER
from fsm_worker.machines.worlds import worker_world
from fsm_worker.services.state_manager import StateManager
from protocol import messages as m
from protocol.lifecycle import JobState, SessionState, WorkerState
from protocol.proof import SessionString
from protocol.signaling import Metadata, Register, UpdateMetadata
from protocol.table import MachineName
from tests.protocol import samples

JOB = samples.JOB
STRING = SessionString(
    url="ws://127.0.0.1:8080/ws", room="room-1", token="token-1", peer="worker-1", key=samples.KEY
)
CAPABILITIES = samples.BY_TYPE[m.WorkerStatus].capabilities

#: The words of sleap-rtc 0.0.7 are available, busy, reserved and maintenance.
WORDS = {
    WorkerState.STARTING: "maintenance",
    WorkerState.AVAILABLE: "available",
    WorkerState.RESERVED: "reserved",
    WorkerState.BUSY: "busy",
    WorkerState.CLEANING: "busy",
    WorkerState.DRAINING: "maintenance",
    WorkerState.MAINTENANCE: "maintenance",
    WorkerState.DEGRADED: "maintenance",
    WorkerState.STOPPING: "maintenance",
    WorkerState.STOPPED: "maintenance",
}


class Desk:
    """One manager, the world it speaks of, and everybody that it tells something."""

    def __init__(self) -> None:
        self.world = worker_world()
        self.room: list[Any] = []
        self.told: list[tuple[str, m.Message]] = []
        self.emitted: list[tuple[MachineName, str, Event]] = []
        self.said: list[str] = []
        self.shown: list[SessionString] = []
        self.manager = StateManager(
            self.world,
            name="gpu-3",
            send=self.room.append,
            tell=lambda *told: self.told.append(told),
            emit=lambda *told: self.emitted.append(told),
            say=self.said.append,
            ready=self.shown.append,
        )

    def add(self, machine: MachineName, subject: str, state: Any, **facts: Any) -> None:
        """Puts a machine into the world."""
        table = self.world.tables[machine]
        instance = Instance(table, subject, table.facts(**facts))
        instance.state = state
        self.world.machines[machine][subject] = instance

    def worker(self, state: WorkerState, **facts: Any) -> None:
        self.add(MachineName.WORKER, THE_WORKER, state, **facts)

    def busy_for_alice(self) -> None:
        self.worker(WorkerState.BUSY, slot=JOB, reason="")
        self.add(MachineName.JOB, JOB, JobState.RUNNING, owner="alice")

    def do(self, kind, event: Event | None = None, subject: str = THE_WORKER) -> None:
        machine = MachineName.WORKER if subject == THE_WORKER else MachineName.SIGNALLING
        instance = self.world.get(machine, subject) or self.world.get(machine, THE_SERVER)
        event = event or TimerExpired(timer=Timer.PROBE, serial=1)
        effect = kind(subject=subject, event=event, facts=instance.facts, row="W6",
                      before="available", after=instance.state.value)  # fmt: skip
        getattr(self.manager, kind.method())(effect)

    def ask(self, key: str) -> m.WorkerStatus:
        """A client asks for the status; what it hears."""
        event = Received(message=m.WorkerGet(), session="s-1", key=key)
        self.do(ef.SendWorkerStatus, event, "s-1")
        session, status = self.told.pop()
        assert session == "s-1"
        assert isinstance(status, m.WorkerStatus)
        return status


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.manager.join(STRING, "proof-of-peer")
    return desk


@pytest.mark.parametrize("state", WorkerState)
def test_every_state_has_one_of_the_four_words_of_sleap_rtc(desk, state) -> None:
    desk.worker(state)
    assert desk.manager.status == WORDS[state]
    assert desk.manager.registration().metadata.properties["status"] == WORDS[state]


def test_a_worker_that_is_not_there_yet_is_not_available(desk) -> None:
    desk.world.machines[MachineName.WORKER].clear()
    assert desk.manager.status == "maintenance"
    assert desk.ask("alice") == m.WorkerStatus(name="gpu-3", state=WorkerState.STARTING)


def test_a_worker_registers_with_the_same_words_every_time(desk) -> None:
    desk.worker(WorkerState.AVAILABLE)
    desk.manager.capabilities = CAPABILITIES
    for _ in range(2):
        desk.do(ef.SendRegistration, subject=THE_SERVER)
    first, second = (msgspec.json.encode(words) for words in desk.room)
    assert first == second
    assert desk.room[0] == Register(
        peer_id="worker-1",
        room_id="room-1",
        token="token-1",
        id_token="proof-of-peer",
        role="worker",
        metadata=Metadata(
            tags=("fsm-worker",),
            properties={
                "key": samples.KEY,
                "status": "available",
                "worker_name": "gpu-3",
                "hostname": "gpu-3.lab",
                "gpu_model": "NVIDIA H200",
                "gpu_memory_mb": 143771,
                "cuda_version": "12.8",
                "runners": ["digits", "sleap-nn train"],
                "max_concurrent_jobs": 1,
                "supported_models": [],
                "supported_job_types": ["training"],
            },
        ),
    )


def test_a_worker_without_gpu_or_proof_registers_without_them(desk) -> None:
    desk.manager.join(STRING, "")
    words = desk.manager.registration()
    properties = words.metadata.properties
    assert words.id_token is None
    assert (properties["gpu_model"], properties["gpu_memory_mb"]) == ("", 0)
    assert properties["cuda_version"] == ""


def test_the_room_hears_what_has_changed(desk) -> None:
    desk.busy_for_alice()
    desk.do(ef.AnnounceStatus, subject=THE_SERVER)
    [words] = desk.room
    assert isinstance(words, UpdateMetadata)
    assert words.peer_id == "worker-1"
    assert words.metadata == desk.manager.registration().metadata
    assert JOB not in msgspec.json.encode(words).decode()


def test_the_job_on_the_slot_is_told_only_to_its_owner(desk) -> None:
    desk.busy_for_alice()
    assert [desk.ask(key).job for key in ("alice", "bob", "")] == [JOB, "", ""]
    desk.world.machines[MachineName.JOB].clear()
    assert desk.ask("alice").job == ""


def test_a_status_is_what_the_machine_says_now(desk) -> None:
    desk.worker(WorkerState.DEGRADED, reason="the GPU probe hangs")
    desk.manager.capabilities = CAPABILITIES
    expected = m.WorkerStatus(
        name="gpu-3",
        state=WorkerState.DEGRADED,
        reason="the GPU probe hangs",
        capabilities=CAPABILITIES,
    )
    assert desk.ask("alice") == expected


def test_a_change_is_told_to_every_session_and_announced_to_the_room(desk, caplog) -> None:
    caplog.set_level(logging.INFO)
    desk.busy_for_alice()
    for session, key, state in (
        ("s-1", "alice", SessionState.ATTACHED),
        ("s-2", "bob", SessionState.ATTACHED),
        ("s-3", "alice", SessionState.DETACHED),
        ("s-4", "alice", SessionState.CLOSED),
    ):
        desk.add(MachineName.SESSION, session, state, key=key)
    desk.do(ef.PublishStatus)
    assert [(session, status.job) for session, status in desk.told] == [
        ("s-1", JOB),
        ("s-2", ""),
        ("s-3", JOB),
    ]
    assert {status.state for _, status in desk.told} == {WorkerState.BUSY}
    assert desk.emitted == [(MachineName.SIGNALLING, THE_SERVER, StatusChanged())]
    assert "worker is busy" in caplog.text


def test_what_a_probe_found_is_published_and_remembered(desk) -> None:
    desk.worker(WorkerState.AVAILABLE)
    desk.add(MachineName.SESSION, "s-1", SessionState.ATTACHED, key="alice")
    desk.do(ef.PublishStatus, ProbeSucceeded(capabilities=CAPABILITIES))
    desk.do(ef.PublishStatus)
    assert [status.capabilities for _, status in desk.told] == [CAPABILITIES] * 2


def test_the_operator_hears_how_clients_get_here_once_there_is_a_room() -> None:
    desk = Desk()
    desk.do(ef.ReportReady, subject=THE_SERVER)
    assert desk.shown == []
    desk.manager.join(STRING, "")
    desk.do(ef.ReportReady, subject=THE_SERVER)
    assert desk.shown == [STRING]


def test_the_operator_hears_why_the_server_refuses_and_that_the_worker_has_stopped(desk) -> None:
    desk.add(
        MachineName.SIGNALLING, THE_SERVER, desk.world.tables[MachineName.SIGNALLING].initial,
        reason="the token is wrong",
    )  # fmt: skip
    desk.do(ef.ReportSignalling, subject=THE_SERVER)
    for reason in ("", "asked twice to stop"):
        desk.worker(WorkerState.STOPPED, reason=reason)
        desk.do(ef.Leave)
    assert desk.said == [
        "The signaling server refuses this worker: the token is wrong",
        "The worker has stopped.",
        "The worker has stopped: asked twice to stop.",
    ]
