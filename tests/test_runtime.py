"""The loop between machines and managers: journal, effects, timers, tasks."""

import asyncio
from pathlib import Path
from unittest.mock import create_autospec

import pytest

from fsm_worker.client.dialler import Dialler
from fsm_worker.client.room import ClientRoom
from fsm_worker.effects import Do, Effect, Owner, ProbeHost, StartTimer
from fsm_worker.events import (
    EffectFailed,
    Event,
    ProbeSucceeded,
    Started,
    TerminateRequested,
    Timer,
)
from fsm_worker.facts import WorkerFacts
from fsm_worker.journal import Journal, read_rows
from fsm_worker.machines.engine import Step, Verdict
from fsm_worker.machines.world import THE_WORKER, World
from fsm_worker.machines.worlds import client_world, worker_world
from fsm_worker.runtime import Runtime, UnboundEffect, bind
from fsm_worker.seams.guests import Guests
from fsm_worker.seams.handshake import Handshake
from fsm_worker.seams.peer_lane import PeerLane
from fsm_worker.seams.peer_links import PeerLinks
from fsm_worker.seams.sessions import Sessions
from fsm_worker.seams.signaling_link import SignalingLink
from fsm_worker.services.capabilities import WorkerCapabilities
from fsm_worker.services.file_manager import FileManager
from fsm_worker.services.job_coordinator import JobCoordinator
from fsm_worker.services.job_executor import JobExecutor
from fsm_worker.services.progress_reporter import ProgressReporter
from fsm_worker.services.state_manager import StateManager
from fsm_worker.worker_class import RTCWorkerClient
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import WorkerState
from protocol.messages import Capabilities
from protocol.table import MachineName

WORKER_OWNERS = {
    Owner.WEBRTC: RTCWorkerClient,
    Owner.LINKS: PeerLinks,
    Owner.HANDSHAKE: Handshake,
    Owner.SESSIONS: Sessions,
    Owner.SIGNALING: SignalingLink,
    Owner.CAPABILITIES: WorkerCapabilities,
    Owner.STATE_MANAGER: StateManager,
    Owner.FILE_MANAGER: FileManager,
    Owner.JOB_COORDINATOR: JobCoordinator,
    Owner.JOB_EXECUTOR: JobExecutor,
    Owner.PROGRESS_REPORTER: ProgressReporter,
    Owner.GUESTS: Guests,
    Owner.PEERS: PeerLane,
}
CLIENT_OWNERS = {
    Owner.WEBRTC: Dialler,
    Owner.LINKS: PeerLinks,
    Owner.HANDSHAKE: Handshake,
    Owner.SESSIONS: Sessions,
    Owner.FILE_MANAGER: FileManager,
    Owner.SIGNALING: SignalingLink,
    Owner.STATE_MANAGER: ClientRoom,
}


def effects_of(world: World) -> list[type[Effect]]:
    found = {
        entry.effect if isinstance(entry, Do) else entry
        for table in world.tables.values()
        for row in table.rows
        for entry in row.effects
    }
    return sorted(found - {StartTimer}, key=lambda effect: effect.__name__)


def recorders(owners: dict[Owner, type]) -> dict[Owner, object]:
    """Stand-ins that have exactly the methods of the real managers, and note their calls."""
    return {owner: create_autospec(kind, instance=True) for owner, kind in owners.items()}


def a_step(effect: Effect) -> Step:
    return Step(
        MachineName.JOB,
        "job-1",
        Started(),
        Verdict.ROW,
        "X1",
        "a",
        "b",
        WorkerFacts(),
        (effect,),
        "",
    )


@pytest.mark.parametrize(
    ("world", "owners", "kind"),
    [
        pytest.param(world(), owners, kind, id=f"{side}-{kind.__name__}")
        for side, world, owners in (
            ("worker", worker_world, WORKER_OWNERS),
            ("client", client_world, CLIENT_OWNERS),
        )
        for kind in effects_of(world())
    ],
)
async def test_each_effect_calls_its_manager(
    world: World, owners: dict[Owner, type], kind: type[Effect]
) -> None:
    runtime = Runtime(world, None)
    managers = recorders(owners)
    runtime.bind(managers)
    fields = {"subject": "job-1", "event": Started(), "facts": WorkerFacts(), "row": "X1"}
    extra = {name: None for name in kind.__struct_fields__ if name not in Effect.__struct_fields__}
    effect = kind(**fields, before="a", after="b", **extra)
    method = getattr(managers[kind.owner], kind.method())

    running = asyncio.create_task(runtime.run(until=lambda: False))
    await asyncio.sleep(0)
    called = asyncio.Event()
    method.side_effect = lambda _effect: called.set()
    runtime._perform(a_step(effect), effect)
    async with asyncio.timeout(2):
        await called.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    method.assert_called_once_with(effect)


def test_an_effect_without_a_method_is_an_error_at_start() -> None:
    managers = recorders(WORKER_OWNERS)
    del managers[Owner.JOB_EXECUTOR].clean_slot
    with pytest.raises(UnboundEffect, match=r"CleanSlot needs the method job_executor\.clean_slot"):
        bind(worker_world(), managers)


class Managers:
    """Managers that do nothing but note the order of things."""

    def __init__(self, world: World, journal: Journal | None = None) -> None:
        self.calls: list[str] = []
        self.rows_on_disk: list[int] = []
        self.runtime = Runtime(world, journal, overrides={Timer.STOP: 0.01, Timer.PROBE: 0.01})
        self.failing = ""
        self.runtime.bind(dict.fromkeys(Owner, self))

    def __getattr__(self, name: str) -> object:
        def method(effect: Effect) -> None:
            if name == self.failing:
                raise RuntimeError("on purpose")
            self.calls.append(name)

        return method

    async def play(self, *events: Event, until: WorkerState) -> None:
        for event in events:
            self.runtime.post(MachineName.WORKER, THE_WORKER, event)
        worker = self.runtime.world.get(MachineName.WORKER, THE_WORKER)
        assert worker is not None
        async with asyncio.timeout(5):
            await self.runtime.run(until=lambda: worker.state is until)


def noting(journal: Journal, calls: list[str]) -> None:
    """Notes among the calls when rows were given to the journal and when they were on disk."""
    original = journal.keep

    def keep(steps: list[Step]) -> object:
        done = original(steps)
        if done is not None:
            calls.append("journal")
            done.add_done_callback(lambda _done: calls.append("on disk"))
        return done

    journal.keep = keep


async def test_rows_are_on_disk_before_their_effects_leave(tmp_path: Path) -> None:
    with Journal(tmp_path / "tried.sqlite") as journal:
        managers = Managers(worker_world(), journal)
        noting(journal, managers.calls)
        await managers.play(
            Started(), ProbeSucceeded(capabilities=Capabilities()), until=WorkerState.AVAILABLE
        )
    written = ["journal", "on disk"]
    assert managers.calls == [*written, "probe_host", *written, "publish_status"]
    assert read_rows(tmp_path / "tried.sqlite")["worker", "W2"] == 1


async def test_signals_that_end_a_process_do_not_wait_for_the_disk(tmp_path: Path) -> None:
    with Journal(tmp_path / "tried.sqlite") as journal:
        managers = Managers(worker_world(), journal)
        noting(journal, managers.calls)
        await managers.play(
            Started(),
            ProbeSucceeded(capabilities=Capabilities()),
            TerminateRequested(),
            until=WorkerState.STOPPED,
        )
    assert managers.calls[-5:] == [
        "kill_everything",
        "journal",
        "on disk",
        "publish_status",
        "leave",
    ]


async def test_an_effect_that_fails_is_an_event() -> None:
    managers = Managers(worker_world())
    managers.failing = "probe_host"
    await managers.play(Started(), until=WorkerState.DEGRADED)
    worker = managers.runtime.world.get(MachineName.WORKER, THE_WORKER)
    assert worker is not None
    assert "on purpose" in worker.facts.reason


async def test_what_a_task_group_has_wrapped_fails_with_its_own_words_and_code() -> None:
    managers = Managers(worker_world())
    full = ProtocolError(ErrorCode.DISK_FULL, "the disk is full")

    async def probe_host(_effect: Effect) -> None:
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
            inner.create_task(asyncio.sleep(60))
            outer.create_task(asyncio.sleep(60))
            raise full

    managers.runtime.bindings[ProbeHost] = probe_host
    heard: list[Event] = []
    post = managers.runtime.post
    managers.runtime.post = lambda *told: (heard.append(told[2]), post(*told))
    await managers.play(Started(), until=WorkerState.DEGRADED)
    failed = EffectFailed(effect="probe_host", reason="the disk is full", code=ErrorCode.DISK_FULL)
    assert failed in heard


async def test_a_timer_is_an_event() -> None:
    managers = Managers(worker_world())
    await managers.play(Started(), until=WorkerState.DEGRADED)  # nobody answers the probe
    assert managers.calls == ["probe_host", "publish_status"]


async def test_a_timer_dies_with_the_state_it_was_armed_in() -> None:
    managers = Managers(worker_world())
    await managers.play(
        Started(), ProbeSucceeded(capabilities=Capabilities()), until=WorkerState.AVAILABLE
    )
    assert managers.runtime._timers == {}
