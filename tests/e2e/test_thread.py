"""One job, end to end: real server, real WebRTC, real subprocesses, real ZMQ, real SQLite."""

import asyncio
from pathlib import Path

import numpy as np

from fsm_worker.examples.digits.package import build_package
from fsm_worker.services.archive import pack, unpack, verify_manifest
from protocol import messages as m
from protocol.lifecycle import JobState, Outcome
from tests.e2e.lab import job_id, open_lab, until_final


async def test_a_job_goes_in_and_a_verified_model_comes_out(tmp_path: Path) -> None:
    async with asyncio.timeout(60), open_lab(tmp_path) as lab, lab.client() as client:
        archive = pack(build_package(tmp_path / "digits"), tmp_path / "digits.zip")
        job = job_id()
        snapshot = await client.submit(job, archive, name="digits")
        assert snapshot.state is JobState.STAGING
        client.follow_log(job)
        heard = await until_final(client, job)
        last = heard[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.outcome is Outcome.SUCCEEDED, last.problems
        losses = [
            n.metrics["loss"] for n in heard if isinstance(n, m.Progress) and n.event == "epoch_end"
        ]
        assert len(losses) > 3
        assert losses[-1] < losses[0] / 2
        path = await client.fetch(job, tmp_path)
        unpack(path, tmp_path / "results")
        verify_manifest(tmp_path / "results")
        assert list((tmp_path / "results").rglob("model.npz"))
        model = np.load(next((tmp_path / "results").rglob("model.npz")))
        assert len(model.files) >= 2
