"""The wheel is whole: installed alone, outside the checkout, it does what the README says.

It needs the package index, and a minute: `make test-wheel` runs it.
"""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 600

pytestmark = pytest.mark.wheel


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command as a user would: nothing of this checkout is on its paths."""
    inherited = {name: value for name, value in os.environ.items()
                 if not name.startswith(("PYTHON", "COVERAGE", "VIRTUAL_ENV"))}  # fmt: skip
    return subprocess.run(
        command, cwd=cwd, env=inherited, capture_output=True, text=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip


def succeed(*command: str | Path, cwd: Path) -> str:
    ran = run(*command, cwd=cwd)
    assert ran.returncode == 0, f"{' '.join(map(str, command))}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    reach = run(
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder / "reach",
        "hatchling", cwd=folder,
    )  # fmt: skip
    if reach.returncode != 0:
        sentence = "the package index can't be reached: run `make test-wheel` where it can"
        if os.environ.get("FSM_WORKER_TEST_INDEX") == "required":
            pytest.fail(f"{sentence}\n{reach.stderr}")
        pytest.skip(sentence)
    succeed(sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", ROOT, cwd=folder)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel and what it depends on, and nothing else."""
    home = tmp_path_factory.mktemp("alone")
    venv.create(home, with_pip=True)
    interpreter = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    succeed(interpreter, "-m", "pip", "install", "--quiet", wheel, cwd=home)
    return interpreter


def test_the_wheel_holds_the_packages_and_nothing_that_only_a_checkout_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ours = {
        path.relative_to(ROOT).as_posix()
        for package in ("protocol", "fsm_worker")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == ours
    assert {
        "fsm_worker/py.typed",
        "protocol/py.typed",
        "fsm_worker/examples/digits/digits.npz",
    } <= packed
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_every_module_can_be_imported_from_the_wheel_alone(python: Path, tmp_path: Path) -> None:
    script = (
        "import importlib, pkgutil, fsm_worker, protocol\n"
        "for package in (protocol, fsm_worker):\n"
        "    for found in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not found.name.endswith('__main__'):\n"
        "            importlib.import_module(found.name)\n"
        "print(fsm_worker.__file__)\n"
    )
    where = succeed(python, "-I", "-c", script, cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(python.parents[1])


def test_the_installed_worker_says_its_version(python: Path, wheel: Path, tmp_path: Path) -> None:
    version = wheel.name.split("-")[1]
    assert version in succeed(python, "-m", "fsm_worker", "--version", cwd=tmp_path)


def test_the_demo_runs_from_the_wheel_alone(python: Path, tmp_path: Path) -> None:
    succeed(python, "-m", "fsm_worker", "demo", cwd=tmp_path)
