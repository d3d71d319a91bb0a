"""Clients that fill every thread for packages: whoever runs already does not notice."""

import asyncio
import threading
from dataclasses import dataclass, field
from pathlib import Path

from fsm_worker.events import Timer
from fsm_worker.services.recipe import Stage
from fsm_worker.work_threads import AT_ONCE
from protocol.lifecycle import JobState, Outcome, WorkerState
from tests.e2e.lab import job_id, open_lab
from tests.rows.jobs import PATIENCE, Held
from tests.rows.slot import ends, gate, hears, runs, waits


@dataclass(frozen=True)
class Counted(Held):
    """A runner that is held up while it looks at packages, each in a thread of its own."""

    at: str = "check"
    looking: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def check(self, stage: Stage, folder: Path) -> None:
        self.looking.release()
        super().check(stage, folder)


async def test_packages_that_fill_all_threads_hold_up_nothing_of_the_job_that_runs(
    tmp_path: Path,
) -> None:
    held = Counted("held", ("true",))
    timers = {Timer.STEP: 0.1}
    with gate(tmp_path) as jobs:
        runners = {**jobs.runners, ("held",): held}
        async with (
            asyncio.timeout(PATIENCE),
            open_lab(tmp_path, runners=runners, timers=timers) as lab,
            lab.client() as client,
        ):
            try:
                first = await runs(client, await waits(lab, client))
                second = await waits(lab, client)
                waiting = [job_id() for _ in range(AT_ONCE + 1)]
                for job in waiting:
                    await client.submit(job, lab.package("held\n"))
                for _ in range(AT_ONCE):
                    assert await asyncio.to_thread(held.looking.acquire, timeout=PATIENCE)
                async with asyncio.timeout(PATIENCE / 3):  # long before anybody is let go
                    jobs.let_go()
                    assert await ends(client, first) is Outcome.SUCCEEDED
                    await runs(client, second)  # the slot was cleaned, and the next one prepared
                    await client.stop(second)
                    assert await ends(client, second) is Outcome.STOPPED_EARLY
                    await client.fetch(second, tmp_path)
                    for job in waiting:  # what they have is to be deleted, in the same threads
                        await client.cancel(job)
                    assert (await client.explain(first)).state == JobState.DONE
                    assert (await hears(client, WorkerState.AVAILABLE)).reason == ""
                assert not held.looking.acquire(blocking=False)  # the last one waits for a thread
            finally:
                held.go.set()
    left = {thread.name.rpartition("_")[0] for thread in threading.enumerate()}
    assert left.isdisjoint({"packages", "slot", "files"})
    for job in waiting:
        assert {path.name for path in (tmp_path / "worker" / "jobs" / job).iterdir()} <= {
            "output.log"
        }
