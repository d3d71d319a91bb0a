"""The same over a real link: no UDP socket, no peer connection and no task of aiortc is left."""

import asyncio
import contextlib
import gc
import random
import warnings
from pathlib import Path
from typing import Any

from fsm_worker.identity import Identity
from fsm_worker.settings import WorkerSettings
from fsm_worker.signaling.server import SignalingServer
from fsm_worker.worker_class import RTCWorkerClient
from protocol import messages as m
from protocol.proof import SessionString
from tests.rows.native_peer import NativePeer
from tests.sweep.leftovers import open_files, still_held
from tests.sweep.suspensions import Suspensions
from tests.sweep.test_cancellation import EVERY, SEED

A_FEW = 6


class LinkedRun:
    """One worker, its server and a client, from the worker's start to its end.

    Args:
        folder: does not exist yet.
        cancel_at: the suspension of anybody's task at which the worker is cancelled.

    Attributes:
        served: the client had an answer.
        total: suspensions until the worker had ended.
    """

    def __init__(self, folder: Path, cancel_at: int) -> None:
        self.suspensions = Suspensions(cancel_at)
        self.faults: list[str] = []
        self.served = False
        self.total = 0
        folder.mkdir()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            asyncio.run(self._live(folder))
            gc.collect()
        self.faults += [f"warning: {warning.message}" for warning in warned]

    async def _live(self, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._note)
        ready: asyncio.Future[SessionString] = loop.create_future()
        settings = WorkerSettings(state=folder / "worker", name="sweep", ready=ready.set_result)
        async with asyncio.timeout(30), SignalingServer() as server:
            worker = RTCWorkerClient(settings=settings)
            work = worker.run_worker(None, "ws://127.0.0.1", server.port)
            main = self.suspensions.watch(work)
            client = asyncio.create_task(self._client(folder, worker, ready))
            await asyncio.wait((main,))
            self.total = self.suspensions.count
            self.faults += still_held(worker, left_by_itself=not main.cancelled())
            client.cancel()
            await asyncio.wait((client,))
            if not client.cancelled() and self.suspensions.cancel_at == 0:
                client.result()
        with contextlib.suppress(asyncio.CancelledError):
            main.result()
        await asyncio.sleep(0)  # for tasks of aiortc that have been told to end
        left = asyncio.all_tasks() - {asyncio.current_task()}
        self.faults += [f"task left: {task}" for task in left]

    async def _client(
        self, folder: Path, worker: RTCWorkerClient, ready: "asyncio.Future[SessionString]"
    ) -> None:
        identity = Identity.load(folder / "client.key")
        async with NativePeer.dials(await ready, identity) as peer:
            await peer.is_served()
            peer.say(m.WorkerGet())
            await peer.hears(m.WorkerStatus)
            self.served = True
            for _ in range(3):
                worker.terminate()
            await peer.is_let_go()

    def _note(self, _loop: object, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), ConnectionError):
            return  # aiortc goes on with the handshake of what it has just closed, and says so
        told = (context.get("message"), context.get("exception"), context.get("future"))
        self.faults.append(f"loop: {told}")


def test_wherever_a_worker_with_a_link_is_cancelled_no_socket_is_left(tmp_path: Path) -> None:
    whole = LinkedRun(tmp_path / "whole", 0)
    assert (whole.served, whole.faults) == (True, [])
    before, total = open_files(), whole.total
    few = random.Random(SEED).sample(range(1, total), A_FEW)  # noqa: S311
    places = range(1, total) if EVERY else sorted(few)
    print(f"FSM_WORKER_SWEEP_SEED={SEED}: of {total} suspensions {places}")  # noqa: T201
    cancelled = 0
    for at in places:
        run = LinkedRun(tmp_path / f"at-{at}", at)
        found = run.faults + [f"open: {what}" for what in sorted(open_files() - before)]
        assert found == [], f"cancelled at {at} of {total}, {SEED=}"
        cancelled += run.suspensions.cancelled
    assert cancelled >= len(places) // 2
