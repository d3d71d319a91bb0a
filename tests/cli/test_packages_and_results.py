"""What is sent, and what becomes of what comes back."""

import asyncio
import re
import threading
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.package import Source, job_id, make_package
from fsm_worker.cli.results import fetch_results, output_folder
from fsm_worker.services.archive import pack_results, unpack
from fsm_worker.services.disk import hash_file


def ignore(_what: str, _done: int, _size: int) -> None:
    """Shows nothing."""


class Delivery:
    """Stands at the place of a connection, with an archive that has arrived already."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive

    async def fetch(self, job: str, into: Path) -> Path:
        return self._archive.rename(into / f"{job}.zip")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    (work / "models").mkdir(parents=True)
    (work / "models" / "best.bin").write_bytes(b"weights")
    return pack_results(work, ["models", "missing"], tmp_path / "results.zip").path


@given(st.text(max_size=600))
def test_every_name_gives_an_id_that_the_protocol_takes(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{7,63}", job_id(name))


async def test_the_example_a_folder_and_an_archive_can_be_sent(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    example = await make_package(
        Source(epochs=7), tmp_path, lambda what, done, size: told.append((what, done, size))
    )
    unpack(example.path, tmp_path / "opened")
    assert "--epochs 7" in (tmp_path / "opened" / "train-script.sh").read_text()
    assert told[-1][0] == "packing"
    assert told[-1][1] == told[-1][2]
    (tmp_path / "again").mkdir()
    folder = await make_package(Source(tmp_path / "opened"), tmp_path / "again", ignore)
    assert folder.root == example.root
    given = await make_package(Source(example.path), tmp_path / "unused", ignore)
    assert (given.path, given.size, given.root) == (example.path, *hash_file(example.path))


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: None, ExitCode.USAGE),
        (lambda path: path.write_text("text"), ExitCode.USAGE),
        (lambda path: path.mkdir(), ExitCode.REJECTED),
    ],
    ids=["nothing", "no archive", "no script"],
)
async def test_what_no_worker_could_take_is_refused_here(
    tmp_path: Path, make: object, code: ExitCode
) -> None:
    path = tmp_path / "package"
    make(path)  # type: ignore[operator]
    with pytest.raises(CommandFailed) as failed:
        await make_package(Source(path), tmp_path, ignore)
    assert failed.value.exit_code is code
    assert str(path) in failed.value.sentence


async def test_packing_ends_with_the_task_that_wanted_it(tmp_path: Path) -> None:
    began, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    calls = 0

    def moved(_what: str, _done: int, _size: int) -> None:
        nonlocal calls
        calls += 1
        loop.call_soon_threadsafe(began.set)
        go_on.wait(5)

    task = asyncio.create_task(make_package(Source(), tmp_path, moved))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await loop.shutdown_default_executor()
    assert calls == 1
    assert not (tmp_path / "package.zip").exists()


async def test_results_appear_whole_with_nothing_beside_them(tmp_path: Path, archive: Path) -> None:
    folder = output_folder(tmp_path / "out" / "here", "job-1")
    fetched = await fetch_results(Delivery(archive), "job-1", folder)
    assert (folder / "models" / "best.bin").read_bytes() == b"weights"
    assert [path.name for path in folder.parent.iterdir()] == ["here"]
    assert str(fetched) == f"results: {folder} (1 file, 7 B, every hash verified)"
    assert [left_out.path for left_out in fetched.left_out] == ["missing"]


async def test_an_empty_folder_may_be_there_already(tmp_path: Path, archive: Path) -> None:
    (tmp_path / "out").mkdir()
    fetched = await fetch_results(Delivery(archive), "job-1", output_folder(tmp_path / "out", "x"))
    assert (fetched.path / "models").is_dir()


async def test_results_that_are_not_what_was_packed_never_appear(
    tmp_path: Path, archive: Path
) -> None:
    forged = tmp_path / "forged.zip"
    with zipfile.ZipFile(archive) as good, zipfile.ZipFile(forged, "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            bad.writestr(name, b"Weights" if name.endswith("best.bin") else data)
    with pytest.raises(CommandFailed, match="other content") as failed:
        await fetch_results(Delivery(forged), "job-1", tmp_path / "out" / "here")
    assert failed.value.exit_code is ExitCode.FAILED
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for taken in ("full", "full/file", "link"):
        with pytest.raises(CommandFailed) as failed:
            output_folder(tmp_path / taken, "job-1")
        assert failed.value.exit_code is ExitCode.USAGE
    assert output_folder(None, "job-1") == Path("results") / "job-1"
