"""Real sleap-nn trainings on the CPU, through a real worker."""

import asyncio
import math
import shutil
from pathlib import Path

import psutil
import pytest

from fsm_worker.client.connection import WorkerConnection
from fsm_worker.services.archive import PackedArchive, pack, unpack, verify_manifest
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, Outcome, WorkerState
from tests.e2e.lab import job_id, open_lab, until_final
from tests.e2e.test_endings import ours_alive
from tests.sleap.conftest import EXAMPLE, SLEAP_NN

pytestmark = [
    pytest.mark.sleap,
    pytest.mark.skipif(not SLEAP_NN, reason="needs sleap-nn: run `make test-sleap`"),
]


def make_package(folder: Path, labels: Path, *overrides: str) -> PackedArchive:
    folder.mkdir()
    shutil.copy(labels, folder / "labels.pkg.slp")
    shutil.copy(EXAMPLE / "config.yaml", folder)
    script = (EXAMPLE / "train-script.sh").read_text().rstrip()
    (folder / "train-script.sh").write_text(" ".join([script, *overrides]) + "\n")
    return pack(folder, folder.with_suffix(".zip"))


async def until_epochs(client: WorkerConnection, count: int) -> None:
    seen = 0
    async for message in client.news():
        if isinstance(message, m.Progress) and message.event == "epoch_end":
            seen += 1
            if seen == count:
                return
    raise AssertionError("the news ended")


async def test_a_real_training_gives_back_its_best_model(tmp_path: Path, labels: Path) -> None:
    async with (
        asyncio.timeout(180),
        open_lab(tmp_path, sleap_nn=Path(SLEAP_NN)) as lab,
        lab.client() as client,
    ):
        job = job_id()
        await client.submit(job, make_package(tmp_path / "package", labels))
        client.follow_log(job)
        heard = await until_final(client, job)
        last = heard[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.outcome is Outcome.SUCCEEDED, last.problems
        log = "".join(n.text for n in heard if isinstance(n, m.Log))
        assert "epoch" in log.lower()
        epochs = [n for n in heard if isinstance(n, m.Progress) and n.event == "epoch_end"]
        assert [n.epoch for n in epochs] == [0, 1, 2]
        assert {n.epochs for n in epochs} == {3}  # planned, from the configuration
        losses = [n.metrics["val/loss"] for n in epochs]
        assert all(loss is not None and math.isfinite(loss) for loss in losses)
        unpack(await client.fetch(job, tmp_path), tmp_path / "results")
        verify_manifest(tmp_path / "results")
        (model,) = (tmp_path / "results").rglob("best.ckpt")
        assert model.stat().st_size > 10_000
        assert not list((tmp_path / "results").rglob("labels.pkg.slp"))  # inputs stay there


async def test_stop_in_mid_training_keeps_the_best_model(tmp_path: Path, labels: Path) -> None:
    async with (
        asyncio.timeout(180),
        open_lab(tmp_path, sleap_nn=Path(SLEAP_NN)) as lab,
        lab.client() as client,
    ):
        job = job_id()
        archive = make_package(tmp_path / "package", labels, "trainer_config.max_epochs=400")
        await client.submit(job, archive)
        await until_epochs(client, 2)
        await client.stop(job)
        heard = await until_final(client, job)
        last = heard[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.outcome is Outcome.STOPPED_EARLY, last.problems
        # it ended because it was told over ZMQ: no signal was needed (J42 sends the first)
        assert "J42" not in {n.row for n in heard if isinstance(n, m.JobStateChanged)}
        unpack(await client.fetch(job, tmp_path), tmp_path / "results")
        assert list((tmp_path / "results").rglob("best.ckpt"))


async def test_cancel_in_mid_training_leaves_nothing(tmp_path: Path, labels: Path) -> None:
    before = set(ours_alive())
    async with (
        asyncio.timeout(180),
        open_lab(tmp_path, sleap_nn=Path(SLEAP_NN)) as lab,
        lab.client() as client,
    ):
        job = job_id()
        archive = make_package(tmp_path / "package", labels, "trainer_config.max_epochs=400")
        await client.submit(job, archive)
        await until_epochs(client, 1)
        assert set(ours_alive()) - before  # the trainer, which is to be gone
        await client.cancel(job)
        last = (await until_final(client, job))[-1]
        assert isinstance(last, m.JobStateChanged)
        assert (last.state, last.outcome) == (JobState.DONE, Outcome.CANCELLED)
        while (await client.status()).state is not WorkerState.AVAILABLE:
            async for message in client.news():
                if isinstance(message, m.WorkerStatus) and message.state is WorkerState.AVAILABLE:
                    break
        assert not set(ours_alive()) - before
        mine = psutil.Process().children(recursive=True)
        assert not [p for p in mine if p.status() == psutil.STATUS_ZOMBIE]
        with pytest.raises(ProtocolError) as refusal:
            await client.fetch(job, tmp_path)
        assert refusal.value.code is ErrorCode.RESULTS_NOT_READY
