"""Code that a client brings, on a worker whose operator allows it."""

import asyncio
from pathlib import Path

from fsm_worker.services.archive import unpack
from fsm_worker.services.package_code import package_code
from protocol.lifecycle import JobState, Outcome
from tests.e2e.lab import job_id, open_lab, until_final

TRAIN = """
from pathlib import Path
import shape
Path("made.txt").write_text(f"a {shape.NAME}")
print("done")
"""


async def test_a_package_runs_its_own_program_and_gets_back_what_is_new(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(60),
        open_lab(tmp_path, runners=package_code()) as lab,
        lab.client() as client,
    ):
        archive = lab.package("python train.py\n", train__py=TRAIN, shape__py="NAME = 'circle'")
        job = job_id()
        await client.submit(job, archive)
        last = (await until_final(client, job))[-1]
        assert (last.state, last.outcome) == (JobState.DONE, Outcome.SUCCEEDED)
        unpack(await client.fetch(job, tmp_path), tmp_path / "results")
        back = {path.name for path in (tmp_path / "results").iterdir()}
        assert back == {"made.txt", "output.log", "manifest.json"}
        assert (tmp_path / "results/made.txt").read_text() == "a circle"
