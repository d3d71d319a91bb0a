"""Jobs whose package and results lie in a storage that this machine shares with the worker."""

import asyncio
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePath

from fsm_worker.cli.durations import amount
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.results import Fetched, output_folder
from fsm_worker.services.archive import (
    MANIFEST,
    ArchiveRefused,
    ManifestMismatch,
    package_root,
    read_manifest,
    verify_manifest,
)
from fsm_worker.services.member_names import parts_of
from protocol.messages import ResultsInfo

#: Folders in each other that a worker's results may lie in.
_DEEPEST = 100


@dataclass(frozen=True)
class SharedPlace:
    """Where a job has its files.

    Args:
        root: of the shared storage, as this machine sees it; or, where it does not, as the worker.
        input: the package's path, relative to the root.
        output: that of the folder for results.
    """

    root: Path
    input: str
    output: str


def shared_place(root: Path, package: Path, output: Path | None, job: str) -> SharedPlace:
    """Finds the two paths of a job; blocking.

    Args:
        root: what the user says is the shared storage. If it is not here, the other two are taken
            for paths at the worker.
        package: under it.
        output: under it; None for `results/JOB` there.
        job: the id.

    Raises:
        CommandFailed: one of them is not under the root, or can't be what it should be.
    """
    here = root.is_dir()
    target = output or root / "results" / job
    place = SharedPlace(root, _under(root, package, here=here), _under(root, target, here=here))
    if here:
        _check_package(package)
        output_folder(target, job)
    return place


def _under(root: Path, path: Path, *, here: bool) -> str:
    if here:  # links are followed here, for the worker follows none
        whole: PurePath = path.resolve()
        top: PurePath = root.resolve()
    else:
        whole, top = (PurePath(os.path.abspath(one)) for one in (path, root))  # noqa: PTH100
    if whole == top or not whole.is_relative_to(top):
        raise CommandFailed(
            ExitCode.USAGE, f"{path} is not under {root}: name a path in the shared storage"
        )
    return whole.relative_to(top).as_posix()


def _check_package(package: Path) -> None:
    if not package.exists():
        raise CommandFailed(ExitCode.USAGE, f"{package} is not there: check the path")
    if package.is_dir():
        try:
            package_root(package)
        except ArchiveRefused as error:
            raise CommandFailed(
                ExitCode.REJECTED, f"{package} can't be submitted: {error}"
            ) from error
    elif not zipfile.is_zipfile(package):
        raise CommandFailed(
            ExitCode.USAGE, f"{package} is neither a folder nor a zip archive: name one of them"
        )


async def look_at_results(root: Path, results: ResultsInfo) -> Fetched | None:
    """Compares what lies in the shared storage with what the worker has put there.

    Args:
        root: of the storage, as this machine sees it.
        results: from the worker; they name the folder, and the hash of its manifest.

    Returns:
        The results, every hash verified; None where this machine does not see them.

    Raises:
        CommandFailed: they are not what the worker has put there.
    """
    return await asyncio.to_thread(_look, root, results)


def _look(root: Path, results: ResultsInfo) -> Fetched | None:
    try:
        folder = root.joinpath(*parts_of(results.folder, max_depth=_DEEPEST))
    except ArchiveRefused as error:
        raise CommandFailed(ExitCode.FAILED, f"the worker's results: {error.sentence}") from error
    if not (folder / MANIFEST).exists():
        return None
    try:
        verify_manifest(folder, results.manifest)
        manifest = read_manifest(folder)
    except (ManifestMismatch, OSError) as error:
        raise CommandFailed(ExitCode.FAILED, f"{folder} can't be used: {error}") from error
    return Fetched(
        folder,
        len(manifest.files),
        sum(entry.size for entry in manifest.files),
        manifest.left_out,
    )


def lie_there(results: ResultsInfo) -> str:
    """A line about results that were not looked at."""
    files = "1 file" if results.files == 1 else f"{results.files} files"
    return f"results: {results.folder} in the shared storage ({files}, {amount(results.size)})"
