"""Runs the flows of the sequence charts for real, and writes down what was said and done.

python -m tests.e2e.record_flows FOLDER

A real signaling server, a real worker and a real client, joined by real WebRTC on loopback.
"""

import asyncio
import datetime
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from fsm_worker import __version__
from fsm_worker.client.connection import WorkerConnection
from fsm_worker.examples.digits.package import build_package
from fsm_worker.services.archive import pack
from fsm_worker.services.transfer import Moved
from protocol import messages as m
from protocol.lifecycle import LinkState
from protocol.table import MachineName
from tests.e2e.lab import Lab, job_id, open_lab, until_final
from tests.e2e.recorder import Recorder, recording

JOB, LINK, RESULTS, SESSION, WORKER = (
    MachineName.JOB, MachineName.LINK, MachineName.RESULTS, MachineName.SESSION,
    MachineName.WORKER,
)  # fmt: skip
RECEIVING, SENDING = MachineName.RECEIVING, MachineName.SENDING


class Flow(NamedTuple):
    """One recording."""

    name: str
    title: str
    machines: tuple[MachineName, ...]
    play: Callable[[Path, Recorder], Awaitable[None]]


async def _submit(client: WorkerConnection, folder: Path, **options: float) -> str:
    package = build_package(folder / "package", **options)  # type: ignore[arg-type]
    job = job_id()
    await client.submit(job, pack(package, folder / "package.zip"), name="digits")
    return job


async def _until_training(client: WorkerConnection) -> None:
    async for message in client.news():
        if isinstance(message, m.Progress) and message.event == "epoch_end":
            return


@asynccontextmanager
async def _running(folder: Path) -> AsyncIterator[tuple[Lab, WorkerConnection, str]]:
    async with open_lab(folder) as lab, lab.client() as client:
        job = await _submit(client, folder, epochs=2000, pace=0.05)
        await _until_training(client)
        yield lab, client, job


async def connect(folder: Path, recorder: Recorder) -> None:
    """A client comes to a worker that does not know it yet."""
    async with open_lab(folder) as lab:
        recorder.begin()
        async with lab.client() as client:
            await client.status()
            recorder.end()


async def submit(folder: Path, recorder: Recorder) -> None:
    """A job from its submission to its results."""
    async with open_lab(folder) as lab, lab.client() as client:
        recorder.begin()
        job = await _submit(client, folder, epochs=1)
        await until_final(client, job)
        await client.fetch(job, folder)
        recorder.end()


async def stop(folder: Path, recorder: Recorder) -> None:
    """A running job is asked to finish its batch."""
    async with _running(folder) as (_, client, job):
        recorder.begin()
        await client.stop(job)
        await until_final(client, job)
        recorder.end()


async def cancel(folder: Path, recorder: Recorder) -> None:
    """A running job is thrown away."""
    async with _running(folder) as (_, client, job):
        recorder.begin()
        await client.cancel(job)
        await until_final(client, job)
        recorder.end()


async def reconnect(folder: Path, recorder: Recorder) -> None:
    """The link is lost while a job runs."""
    async with _running(folder) as (lab, client, job):
        recorder.begin()
        for peer in list(lab.worker._peers.values()):
            await peer.close()
        while not any(
            link.state is LinkState.UP for link in lab.worker.world.live(MachineName.LINK)
        ):
            await client.status()
        await client.attach(job)
        recorder.end()
        await client.cancel(job)
        await until_final(client, job)


async def resume(folder: Path, recorder: Recorder) -> None:
    """The link is lost in the middle of an upload."""
    closing: list[asyncio.Task[None]] = []
    async with open_lab(folder) as lab:

        def watch(moved: Moved) -> None:
            if moved.done > moved.size // 3 and not closing:
                closing.extend(
                    asyncio.get_running_loop().create_task(peer.close())
                    for peer in list(lab.worker._peers.values())
                )

        async with lab.client(watch=watch) as client:
            archive = lab.package("digits train --data x\n", data__bin=os.urandom(8 * 1024 * 1024))
            job = job_id()
            recorder.begin()
            await client.submit(job, archive)
            await until_final(client, job)  # it is rejected once it is read: its data is noise
            recorder.end()
    assert closing


FLOWS = (
    Flow("connect", "A client comes in", (LINK, SESSION), connect),
    Flow("submit", "A job, from its submission to its results", (JOB, WORKER, RESULTS), submit),
    Flow("stop", "Stop: finish the batch, keep the model", (JOB, WORKER, RESULTS), stop),
    Flow("cancel", "Cancel: throw the job away", (JOB, WORKER), cancel),
    Flow("reconnect", "A lost link, and the job goes on", (SESSION, JOB), reconnect),
    Flow("resume", "A lost link in the middle of a file", (SESSION, RECEIVING, SENDING), resume),
)


async def record(flow: Flow) -> str:
    """Plays a flow; what was recorded, as JSON with an entry a line."""
    recorder = Recorder(*flow.machines)
    with tempfile.TemporaryDirectory() as folder, recording(recorder):
        async with asyncio.timeout(60):
            await flow.play(Path(folder), recorder)
    head = {
        "name": flow.name,
        "title": flow.title,
        "recorded": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "version": __version__,
    }
    lines = ",\n".join(json.dumps(entry) for entry in recorder.entries)
    return f'{{"head": {json.dumps(head)},\n"entries": [\n{lines}\n]}}\n'


def main() -> None:
    """Runs the command."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, flow in enumerate(FLOWS, 1):
        path = folder / f"{number}-{flow.name}.json"
        path.write_text(asyncio.run(record(flow)), encoding="utf-8")
        sys.stdout.write(f"recorded {path}\n")


if __name__ == "__main__":
    main()
