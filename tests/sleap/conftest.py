"""What the tests with the real sleap-nn share."""

import os
import subprocess
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "sleap"
SLEAP_NN = os.environ.get("FSM_WORKER_TEST_SLEAP_NN", "")


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled dataset, made once."""
    path = tmp_path_factory.mktemp("data") / "labels.pkg.slp"
    python = Path(SLEAP_NN).parent / "python"
    subprocess.run([python, EXAMPLE / "make_data.py", path], check=True)
    return path


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training keeps its pace on a busy machine; the job inherits the worker's environment."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
