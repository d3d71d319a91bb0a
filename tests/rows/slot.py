"""Jobs that hold the slot for as long as a test wants, and what a client hears of the slot."""

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from fsm_worker.client.connection import WorkerConnection
from fsm_worker.services.recipe import Runner
from protocol import messages as m
from protocol.lifecycle import Outcome, WorkerState
from tests.e2e.lab import Lab, job_id, until_final
from tests.e2e.test_endings import until_log

_PROGRAM = """
import os, sys
os.write(1, b"READY\\n")
os.read(os.open(sys.argv[1], os.O_RDONLY), 1)
"""


class Gate:
    """A program that ends when the test says so.

    Args:
        pipe: a named one; each run of the program takes a byte of it.

    Attributes:
        runners: the program, for the worker's settings.
    """

    def __init__(self, pipe: Path) -> None:
        os.mkfifo(pipe)
        self.fd = os.open(pipe, os.O_RDWR)  # neither side waits for the other to open it
        program = (sys.executable, "-S", "-c", _PROGRAM, str(pipe))
        self.runners = {("wait",): Runner("wait", program)}

    def let_go(self, jobs: int = 1) -> None:
        """So many runs end: those that are there, or come later."""
        os.write(self.fd, b"x" * jobs)


@contextlib.contextmanager
def gate(folder: Path) -> Iterator[Gate]:
    """A gate, whose pipe lies in this folder."""
    made = Gate(folder / "gate")
    try:
        yield made
    finally:
        os.close(made.fd)


async def waits(lab: Lab, client: WorkerConnection) -> str:
    """A job of the gate's program, handed over; its id."""
    job = job_id()
    await client.submit(job, lab.package("wait\n"))
    return job


async def runs(client: WorkerConnection, job: str) -> str:
    """The job, once its program runs and has said so."""
    client.follow_log(job)
    await until_log(client, "READY")
    return job


async def comes(client: WorkerConnection) -> str:
    """A job whose package is not sent; its id."""
    job = job_id()
    file = m.InputFile(name="package.zip", size=1, root=secrets.token_hex(32))
    spec = m.JobSpec(name="late")
    await client._ask(m.Submit(job=job, spec=spec, inputs=(file,)), m.JobSnapshot)
    return job


async def ends(client: WorkerConnection, job: str) -> Outcome:
    """How the job has ended."""
    last = (await until_final(client, job))[-1]
    assert isinstance(last, m.JobStateChanged)
    return last.outcome


async def hears(client: WorkerConnection, state: WorkerState, reason: str = "") -> m.WorkerStatus:
    """What the client is told once the worker is in this state, and says these words of it."""
    now = await client.status()
    fits = now.state is state and reason in now.reason
    return now if fits else await is_told(client, state, reason)


async def is_told(client: WorkerConnection, state: WorkerState, reason: str = "") -> m.WorkerStatus:
    """What the client is told next of this state, with these words."""
    async for message in client.news():
        if (
            isinstance(message, m.WorkerStatus)
            and message.state is state
            and reason in message.reason
        ):
            return message
    raise AssertionError("the news ended")
