"""A job's results: fetched, unpacked, and every file compared with its hash."""

import asyncio
import shutil
from pathlib import Path
from typing import NamedTuple

from fsm_worker.cli.durations import amount
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.client.connection import WorkerConnection
from fsm_worker.services.archive import (
    ArchiveRefused,
    LeftOut,
    ManifestMismatch,
    read_manifest,
    unpack,
    verify_manifest,
)


class Fetched(NamedTuple):
    """Results that are here."""

    path: Path  # of the folder
    files: int
    size: int  # bytes, unpacked
    left_out: tuple[LeftOut, ...]  # what the worker could not pack

    def __str__(self) -> str:
        """A line about them."""
        files = "1 file" if self.files == 1 else f"{self.files} files"
        return f"results: {self.path} ({files}, {amount(self.size)}, every hash verified)"


def output_folder(given: Path | None, job: str) -> Path:
    """Where results go; made only when they are there.

    Args:
        given: what the user chose.
        job: its id.

    Raises:
        CommandFailed: there is something already.
    """
    folder = given or Path("results") / job
    if folder.is_symlink() or (folder.exists() and not _is_empty(folder)):
        raise CommandFailed(
            ExitCode.USAGE, f"{folder} is not an empty folder: choose another --output"
        )
    return folder


async def fetch_results(connection: WorkerConnection, job: str, folder: Path) -> Fetched:
    """Gets a job's results into a folder, which appears whole and verified, or not at all.

    What has arrived when the connection is lost is kept beside it, and used the next time.

    Args:
        connection: to its worker.
        job: its id.
        folder: from `output_folder`.

    Raises:
        ProtocolError: there are no results, or they could not be stored.
        ConnectionOver: the worker is gone.
        CommandFailed: what came are no results.
    """
    arriving = folder.parent / f".{job}.arriving"
    await asyncio.to_thread(arriving.mkdir, parents=True, exist_ok=True)
    archive = await connection.fetch(job, arriving)
    try:
        return await asyncio.to_thread(_open, archive, folder)
    finally:
        await asyncio.to_thread(shutil.rmtree, arriving, ignore_errors=True)


def _open(archive: Path, folder: Path) -> Fetched:
    unpacked = archive.with_suffix("")
    shutil.rmtree(unpacked, ignore_errors=True)  # of an earlier attempt that was interrupted
    try:
        unpack(archive, unpacked)
        verify_manifest(unpacked)
        manifest = read_manifest(unpacked)
    except (ArchiveRefused, ManifestMismatch) as error:
        raise CommandFailed(
            ExitCode.FAILED, f"what the worker sent can't be used: {error}"
        ) from error
    if folder.exists():
        folder.rmdir()
    unpacked.rename(folder)
    return Fetched(
        folder,
        len(manifest.files),
        sum(entry.size for entry in manifest.files),
        manifest.left_out,
    )


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None
