"""Quick programs, an operator's runner that can be held up, and words for how a job goes."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsm_worker.client.connection import WorkerConnection
from fsm_worker.services.recipe import Runner, Stage
from protocol import messages as m
from protocol.lifecycle import JobState, Outcome
from tests.e2e.lab import Lab, job_id, open_lab

#: Seconds until what is held up goes on by itself: a test that fails ends, too.
PATIENCE = 30.0

#: Ends at once, and has made no file.
AT_ONCE = {("done",): Runner("done", ("true",), results=())}
#: Says that it is there, and stays; a signal ends it, and a word on ZMQ does not.
WAIT = {
    ("wait",): Runner("wait", ("sh", "-c", "echo READY $PPID; exec sleep 30"), results=())
}  # fmt: skip


@dataclass(frozen=True)
class Held(Runner):
    """A runner that can't say something of a package until it is let go: a file system hangs.

    Args:
        at: the question that it is held up by, `check`, `max_epochs` or `outputs`.
    """

    results: tuple[str, ...] = ()
    at: str = ""
    go: threading.Event = field(default_factory=threading.Event)

    def _may_wait(self, question: str) -> None:
        if question == self.at:
            self.go.wait(PATIENCE)

    def check(self, stage: Stage, folder: Path) -> None:
        self._may_wait("check")
        super().check(stage, folder)

    def max_epochs(self, stage: Stage, folder: Path) -> int | None:
        self._may_wait("max_epochs")
        return super().max_epochs(stage, folder)

    def outputs(self, stage: Stage, folder: Path | None = None) -> tuple[str, ...]:
        self._may_wait("outputs")
        return super().outputs(stage, folder)


@contextlib.asynccontextmanager
async def served(folder: Path, **options: Any) -> AsyncIterator[tuple[Lab, WorkerConnection]]:
    """A worker, and a client of it; `options` are those of `open_lab`."""
    async with (
        asyncio.timeout(2 * PATIENCE),
        open_lab(folder, **options) as lab,
        lab.client() as client,
    ):
        yield lab, client


async def submitted(
    lab: Lab, client: WorkerConnection, script: str, policy: m.JobPolicy | None = None
) -> str:
    """A new job of this script; returns its id, and its news have yet to be read."""
    job = job_id()
    await client.submit(job, lab.package(script), policy=policy)
    return job


async def announced(client: WorkerConnection, job: str) -> m.JobSnapshot:
    """A submission whose package is announced, and does not come."""
    file = m.InputFile(name="package.zip", size=1000, root="0" * 64)
    return await client._ask(m.Submit(job=job, spec=m.JobSpec(), inputs=(file,)), m.JobSnapshot)


async def until_state(
    client: WorkerConnection, job: str, state: JobState, outcome: Outcome | None = None
) -> m.JobStateChanged:
    """Reads the news until a job is in this state."""
    async for said in client.news():
        if isinstance(said, m.JobStateChanged) and said.job == job and said.state is state:
            assert outcome is None or said.outcome is outcome
            return said
    raise AssertionError("the news ended")
