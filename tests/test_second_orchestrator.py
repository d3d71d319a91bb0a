"""Another orchestrator, made of the same managers and machines, without `RTCWorkerClient`.

Two of them speak with each other over a lane in memory. No manager knows who runs it, how its
words travel, or that there is no WebRTC: a mesh of workers can be made of them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fsm_worker import events as e
from fsm_worker.effects import Owner
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.machines.worlds import worker_world
from fsm_worker.runtime import Runtime
from fsm_worker.seams.sessions import Sessions
from fsm_worker.services.capabilities import WorkerCapabilities
from fsm_worker.services.file_manager import FileManager
from fsm_worker.services.job_coordinator import JobCoordinator
from fsm_worker.services.job_executor import JobExecutor
from fsm_worker.services.launcher import LocalLauncher
from fsm_worker.services.progress_reporter import ProgressReporter
from fsm_worker.services.runners import builtin_runners
from fsm_worker.services.state_manager import StateManager
from protocol import messages as m
from protocol.codec import Frame
from protocol.errors import ErrorCode
from protocol.lifecycle import WorkerState
from protocol.table import ROW_OF, MachineName, Replay

M = MachineName
LINK = "lane"


class Absent:
    """Stands where a lane in memory needs nothing: no WebRTC, no signaling server, no guests."""

    def __getattr__(self, name: str) -> Any:
        return lambda _effect: None


class Node:
    """One orchestrator; `peer` is the other end of its lane."""

    def __init__(self, name: str, folder: Path) -> None:
        folder.mkdir()
        self.name = name
        self.peer: Node
        self.heard: asyncio.Queue[m.Message] = asyncio.Queue()
        self.world = worker_world()
        self.runtime = Runtime(self.world, None)
        emit, spawn, cancel = self.runtime.post, self.runtime.spawn, self.runtime.cancel
        self.numbers = 0
        self.sessions = Sessions(self.world, emit, self._wire, name=name)
        self.capabilities = WorkerCapabilities(emit=emit, disk=folder, runners=("digits",))
        self.progress = ProgressReporter(
            emit=emit, deliver=lambda told: self.coordinator.tell(told.job, told)
        )
        self.files = FileManager(
            folder, emit=emit, send=self.sessions.send, send_bulk=self._no_bulk, spawn=spawn,
            cancel=cancel, incoming_of=M.JOB, outgoing_of=M.RESULTS,
        )  # fmt: skip
        self.executor = JobExecutor(
            capabilities=self.capabilities, file_manager=self.files, launcher=LocalLauncher(),
            progress_reporter=self.progress, runners=builtin_runners(None), emit=emit,
            telemetry=lambda told: self.coordinator.tell(told.job, told),
        )  # fmt: skip
        self.coordinator = JobCoordinator(
            self.world, send=self.sessions.send, send_log=self._no_log, spawn=spawn, cancel=cancel,
            log_of=self.executor.log_of, emit=emit, unmet=self.capabilities.compatibility,
            journal=folder / "journal.sqlite",
        )  # fmt: skip
        self.state = StateManager(
            self.world, name=name, send=lambda _word: None, tell=self.sessions.send, emit=emit
        )
        managers = {
            Owner.CAPABILITIES: self.capabilities, Owner.FILE_MANAGER: self.files,
            Owner.JOB_COORDINATOR: self.coordinator, Owner.JOB_EXECUTOR: self.executor,
            Owner.PROGRESS_REPORTER: self.progress, Owner.STATE_MANAGER: self.state,
            Owner.SESSIONS: self.sessions,
        }  # fmt: skip
        self.runtime.bind({owner: managers.get(owner, Absent()) for owner in Owner})

    async def _no_bulk(self, _session: str, _frame: bytes) -> None:
        raise ConnectionError("this lane carries no files")

    async def _no_log(self, _session: str, _message: m.Message) -> None:
        raise ConnectionError("this lane carries no logs")

    def _wire(self, _link: str, frame: Frame) -> None:
        self.peer.heard.put_nowait(frame.msg)

    def meets(self, peer: "Node") -> None:
        """The peer's side of the lane, from the offer to its proof, at our machines."""
        self.peer = peer
        hello = m.Hello(
            versions=(1,), role="client", key=peer.name, nonce="N", session=f"of-{peer.name}"
        )
        for event in (
            e.RecvOffer(peer=peer.name, sdp="", room_for_more=True),
            e.SentAnswer(),
            e.IceCompleted(),
            e.ControlOpened(native=True),
            e.Received(message=hello, link=LINK),
            e.ProofChecked(proved=True, trusted=True, rights=("submit",)),
            e.FrameArrived(message=m.Resume(received=0)),
        ):
            self.runtime.post(M.LINK, LINK, event)

    def tell(self, message: m.Message) -> None:
        """Says something to the peer."""
        numbered = ROW_OF[type(message)].replay is Replay.ALL
        self.numbers += numbered
        number = self.numbers if numbered else 0
        arrived = e.FrameArrived(number=number, expected=number, message=message)
        self.peer.runtime.post(M.LINK, LINK, arrived)

    async def hears(self, kind: type[m.Message]) -> Any:
        """The next word of the peer of this kind."""
        while not isinstance(said := await self.heard.get(), kind):
            pass
        return said


@asynccontextmanager
async def running(node: Node) -> AsyncIterator[None]:
    node.runtime.post(M.WORKER, THE_WORKER, e.Started())
    async with asyncio.TaskGroup() as group:
        runner = group.create_task(node.runtime.run(until=lambda: False))
        yield
        runner.cancel()
        await asyncio.wait({runner})
        await node.executor.close()
        await node.progress.aclose()
        await node.files.close()


async def test_two_orchestrators_of_the_same_managers_exchange_status_and_promises(
    tmp_path: Path,
) -> None:
    one, two = Node("one", tmp_path / "one"), Node("two", tmp_path / "two")
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        for node, peer in ((one, two), (two, one)):
            await stack.enter_async_context(running(node))
            node.meets(peer)
        for node, peer in ((one, two), (two, one)):
            while (await node.hears(m.WorkerStatus)).state is not WorkerState.AVAILABLE:
                pass
            node.tell(m.WorkerGet())
            status = await node.hears(m.WorkerStatus)
            assert (status.name, status.capabilities.runners) == (peer.name, ("digits",))

        one.tell(m.Reserve(need={"runner": "digits"}))
        assert (await one.hears(m.Reserved)).renewals == 3
        assert two.state.status == "reserved"
        assert (await one.hears(m.WorkerStatus)).state is WorkerState.RESERVED
        two.tell(m.Reserve(need={"gpu": "64"}))
        refusal = await two.hears(m.ReserveRefused)
        assert (refusal.code, len(refusal.reasons)) == (ErrorCode.NEED_UNMET, 1)
        assert refusal.state is WorkerState.AVAILABLE, "its coordinator says how the other stands"
        one.tell(m.Release())
        await one.hears(m.Released)
        assert (one.state.status, two.state.status) == ("available", "available")

        one.tell(m.JobsGet())
        assert (await one.hears(m.Jobs)).jobs == ()
