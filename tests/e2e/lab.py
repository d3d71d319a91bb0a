"""A worker, a signaling server and clients, all real, for tests of whole flows."""

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fsm_worker.client.connection import WorkerConnection
from fsm_worker.events import Timer
from fsm_worker.identity import Identity
from fsm_worker.journal import FILE_NAME, Journal
from fsm_worker.machines.world import THE_WORKER
from fsm_worker.services.archive import PackedArchive, pack
from fsm_worker.services.recipe import Runner
from fsm_worker.settings import WorkerSettings
from fsm_worker.signaling.server import SignalingServer
from fsm_worker.worker_class import RTCWorkerClient
from protocol import messages as m
from protocol.lifecycle import JobState, WorkerState
from protocol.proof import SessionString
from protocol.table import MachineName

FINAL = {JobState.DONE, JobState.REJECTED}


class Lab:
    """One worker in a room of one server, in this process."""

    def __init__(
        self,
        folder: Path,
        worker: RTCWorkerClient,
        session: SessionString,
        server: SignalingServer,
    ) -> None:
        self.folder = folder
        self.worker = worker
        self.session = session
        self.server = server
        self.identity = Identity.load(folder / "client.key")
        self._clients = itertools.count()

    @contextlib.asynccontextmanager
    async def client(
        self, identity: Identity | None = None, **options: object
    ) -> AsyncIterator[WorkerConnection]:
        """A client; the same key every time unless another is given."""
        own = self.folder / f"client-{next(self._clients)}"
        own.mkdir()
        with Journal(own / FILE_NAME) as journal:
            async with WorkerConnection.open(
                self.session, identity or self.identity, journal=journal, **options
            ) as connection:
                yield connection

    def package(self, script: str, **files: bytes | str) -> PackedArchive:
        """Packs a script and files as a client does."""
        folder = self.folder / f"package-{secrets.token_hex(4)}"
        folder.mkdir()
        (folder / "train-script.sh").write_text(script)
        for name, content in files.items():
            path = folder / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return pack(folder, folder.with_suffix(".zip"))


@contextlib.asynccontextmanager
async def open_lab(
    folder: Path,
    *,
    timers: dict[Timer, float] | None = None,
    runners: dict[tuple[str, ...], Runner] | None = None,
    sleap_nn: Path | None = None,
    key: bytes | None = None,
    **settings: Any,
) -> AsyncIterator[Lab]:
    """Server and worker, until the block ends; then the worker must stop by itself."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[SessionString] = loop.create_future()
    async with SignalingServer(key=key) as server:
        worker = RTCWorkerClient(
            settings=WorkerSettings(
                state=folder / "worker",
                name="lab",
                timers=timers or {},
                runners=runners or {},
                sleap_nn=sleap_nn,
                ready=ready.set_result,
                **settings,
            )
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(worker.run_worker(None, "ws://127.0.0.1", server.port))
            try:
                async with asyncio.timeout(10):
                    session = await ready
                    await _has_looked(worker)
                yield Lab(folder, worker, session, server)
            finally:
                worker.terminate()
                worker.terminate()
                worker.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(20):
                        await asyncio.shield(running)
                if not running.done():
                    running.cancel()
                    raise AssertionError("the worker did not stop")


async def _has_looked(worker: RTCWorkerClient) -> None:
    """Waits until it has looked at its machine: nobody outside is told when."""
    for _ in itertools.count():
        found = worker.world.get(MachineName.WORKER, THE_WORKER)
        if found is not None and found.state is not WorkerState.STARTING:
            return
        await asyncio.sleep(0.01)


async def until_final(connection: WorkerConnection, job: str) -> list[m.Message]:
    """All news up to the job's end."""
    heard: list[m.Message] = []
    async for message in connection.news():
        heard.append(message)
        if isinstance(message, m.JobStateChanged) and message.job == job and message.state in FINAL:
            return heard
    raise AssertionError("the news ended before the job")


def job_id() -> str:
    """A fresh job id."""
    return f"job-{secrets.token_hex(6)}"
