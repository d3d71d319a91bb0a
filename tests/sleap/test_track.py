"""Real sleap-nn tracking on the CPU, through a real worker and in both dialects.

A model of three epochs finds nothing yet: what is tested is that a file of predictions comes back
which sleap-io opens, with every frame's video in it.
"""

import asyncio
import io
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from fsm_worker.services.archive import pack, unpack, verify_manifest
from protocol import messages as m
from protocol.lifecycle import Outcome
from tests.e2e.lab import job_id, open_lab, until_final
from tests.e2e.sleap_client import SleapClient
from tests.sleap.conftest import EXAMPLE, SLEAP_NN

pytestmark = [
    pytest.mark.sleap,
    pytest.mark.skipif(not SLEAP_NN, reason="needs sleap-nn: run `make test-sleap`"),
]

#: As SLEAP exports it.
SCRIPT = """#!/bin/bash
# Auto-generated inference script for sleap-nn track

sleap-nn track \\
  --data_path labels.pkg.slp \\
  --model_paths models/config \\
  -o labels.predictions.slp
"""
_OPEN = "import sys, sleap_io; print(len(sleap_io.load_slp(sys.argv[1]).videos))"


@pytest.fixture(scope="session")
def package(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with a model that was trained for it, made once."""
    folder = tmp_path_factory.mktemp("track") / "package"
    folder.mkdir()
    shutil.copy(labels, folder / "labels.pkg.slp")
    shutil.copy(EXAMPLE / "config.yaml", folder)
    subprocess.run(
        [SLEAP_NN, "train", "--config-name", "config.yaml", "--config-dir", "."],
        cwd=folder, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
    )  # fmt: skip
    (folder / "config.yaml").unlink()
    (folder / "track-script.sh").write_text(SCRIPT)
    return folder


def videos(predictions: Path) -> int:
    """How many videos sleap-io finds in a file of predictions."""
    python = Path(SLEAP_NN).parent / "python"
    found = subprocess.run(
        [python, "-c", _OPEN, predictions], check=True, capture_output=True, text=True
    )
    return int(found.stdout.split()[-1])


def flat_zip(package: Path) -> bytes:
    """As RTCTrackClient zips: without a folder at the top."""
    flat = io.BytesIO()
    with zipfile.ZipFile(flat, "w") as archive:
        for path in sorted(package.rglob("*")):
            archive.write(path, path.relative_to(package))
    return flat.getvalue()


async def test_predictions_come_back_natively(tmp_path: Path, package: Path) -> None:
    async with (
        asyncio.timeout(120),
        open_lab(tmp_path, sleap_nn=Path(SLEAP_NN)) as lab,
        lab.client() as client,
    ):
        job = job_id()
        await client.submit(job, pack(package, tmp_path / "package.zip"))
        last = (await until_final(client, job))[-1]
        assert isinstance(last, m.JobStateChanged)
        assert last.outcome is Outcome.SUCCEEDED, last.problems
        unpack(await client.fetch(job, tmp_path), tmp_path / "results")
        verify_manifest(tmp_path / "results")
        (predictions,) = (tmp_path / "results").rglob("labels.predictions.slp")
        assert videos(predictions) == 1


async def test_predictions_come_back_to_a_client_of_sleap_rtc(
    tmp_path: Path, package: Path
) -> None:
    flat = flat_zip(package)
    door = open_lab(tmp_path, sleap_nn=Path(SLEAP_NN), allow_sleap_rtc=True)
    async with asyncio.timeout(120), door as lab, SleapClient.open(lab.session) as client:
        await client.submit(flat, "package.zip", kind="track")
        await client.until(lambda it: bool(it.files) or bool(it.told("INFERENCE_ERROR")), 90)
        [(name, content)] = client.files.items()
        assert name == "labels.predictions.slp"
        predictions = tmp_path / name
        predictions.write_bytes(content)
        assert videos(predictions) == 1
        await client.hears("INFERENCE_JOBS_DONE")
