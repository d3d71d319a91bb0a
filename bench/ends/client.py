"""A real client: connects, uploads, fetches, and hears progress."""

import asyncio
import contextlib
import secrets
import time
from pathlib import Path

from bench.ends.trainer import SENT_AT
from bench.program import Answer, serve
from fsm_worker.client.connection import WorkerConnection
from fsm_worker.identity import Identity
from fsm_worker.services.archive import PackedArchive, pack
from protocol import messages as m
from protocol.lifecycle import JobState, Outcome
from protocol.proof import SessionString

_FINAL = {JobState.DONE, JobState.REJECTED}


class ClientEnd:
    """One client, with at most one connection at a time; it lives as long as `stack`."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack
        self._visit = contextlib.AsyncExitStack()
        self._connection: WorkerConnection | None = None
        self._archives: dict[str, PackedArchive] = {}

    async def know(self, session: str, key: str) -> Answer:
        """Takes where the worker is, and the file of our key."""
        self._session = SessionString.decode(session)
        self._identity = Identity.load(Path(key))
        return {}

    async def connect(self) -> Answer:
        """Connects and leaves; gives the seconds from `open` to the worker's welcome."""
        begin = time.perf_counter()
        async with WorkerConnection.open(self._session, self._identity) as connection:
            seconds = time.perf_counter() - begin
            assert connection.welcome.worker == "bench"
        return {"seconds": seconds}

    async def stay(self) -> Answer:
        """Connects for everything that follows, until `leave`."""
        self._visit = await self._stack.enter_async_context(contextlib.AsyncExitStack())
        self._connection = await self._visit.enter_async_context(
            WorkerConnection.open(self._session, self._identity)
        )
        return {}

    async def leave(self) -> Answer:
        """Says goodbye to the worker."""
        self._connection = None
        await self._visit.aclose()
        return {}

    async def pack(self, folder: str) -> Answer:
        """Packs a folder for `run` and `upload`; gives the archive's size in bytes."""
        archive = await asyncio.to_thread(pack, Path(folder), Path(f"{folder}.zip"))
        self._archives[folder] = archive
        return {"bytes": archive.size}

    async def run(self, folder: str) -> Answer:
        """Runs a job to its good end; gives its id, and how late its reports came, in seconds."""
        connection, job = self._there(), _job_id()
        late: list[float] = []
        await connection.submit(job, self._archives[folder])
        async for message in connection.news():
            now = time.time()
            if isinstance(message, m.Progress) and message.event == "epoch_end":
                late.append(now - float(message.metrics[SENT_AT] or 0.0))
            elif _ends(message, job):
                assert isinstance(message, m.JobStateChanged)
                assert message.outcome is Outcome.SUCCEEDED, message
                break
        return {"job": job, "late": late}

    async def upload(self, folder: str) -> Answer:
        """Submits a package; gives the seconds until the worker had it whole, hashed and named.

        The job itself ends at once: its script asks for nothing that this worker runs.
        """
        connection, job = self._there(), _job_id()
        seconds = 0.0
        begin = time.perf_counter()
        await connection.submit(job, self._archives[folder])
        async for message in connection.news():
            if isinstance(message, m.JobStateChanged) and message.state is JobState.VALIDATING:
                seconds = time.perf_counter() - begin
            if _ends(message, job):
                break
        assert seconds
        return {"seconds": seconds}

    async def fetch(self, job: str, into: str) -> Answer:
        """Gets a job's results; gives the seconds until they were whole, hashed and named."""
        begin = time.perf_counter()
        path = await self._there().fetch(job, Path(into))
        seconds = time.perf_counter() - begin
        size = path.stat().st_size
        path.unlink()
        return {"seconds": seconds, "bytes": size}

    def _there(self) -> WorkerConnection:
        assert self._connection is not None
        return self._connection


def _job_id() -> str:
    return f"bench-{secrets.token_hex(6)}"


def _ends(message: m.Message, job: str) -> bool:
    return isinstance(message, m.JobStateChanged) and message.job == job and message.state in _FINAL


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        end = ClientEnd(stack)
        await serve(
            {
                "know": end.know,
                "connect": end.connect,
                "stay": end.stay,
                "leave": end.leave,
                "pack": end.pack,
                "run": end.run,
                "upload": end.upload,
                "fetch": end.fetch,
            }
        )


if __name__ == "__main__":
    asyncio.run(main())
