"""What `submit` sends: a folder that is packed, an archive as it is, or the example."""

import asyncio
import re
import secrets
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.examples.digits.package import build_package
from fsm_worker.services.archive import ArchiveRefused, PackedArchive, pack, package_root
from fsm_worker.services.disk import hash_file


@dataclass(frozen=True)
class Source:
    """Where the package comes from.

    Args:
        path: a folder or an archive; None for the digits example.
        epochs: of the example.
        pace: of the example: seconds that an epoch takes at least.
    """

    path: Path | None = None
    epochs: int = 30
    pace: float = 0.0

    @property
    def name(self) -> str:
        """What people call it."""
        return "digits" if self.path is None else self.path.resolve().stem or "package"


class _NoLongerWanted(Exception):
    """Ends the packing, in its thread."""


def job_id(name: str) -> str:
    """A new id that reminds of a name (`^[a-z0-9][a-z0-9-]{7,63}$`)."""
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "job"
    return f"{word}-{secrets.token_hex(4)}"


async def make_package(
    source: Source, folder: Path, moved: Callable[[str, int, int], None]
) -> PackedArchive:
    """Makes the archive that is sent.

    Args:
        source: where it comes from.
        folder: for what is made on the way.
        moved: is told how far it is, from another thread.

    Raises:
        CommandFailed: there is nothing that could be sent.
        asyncio.CancelledError: at any point; the packing ends, too.
    """
    cancelled = threading.Event()

    def on_bytes(done: int, size: int) -> None:
        if cancelled.is_set():
            raise _NoLongerWanted
        moved("packing", done, size)

    try:
        return await asyncio.to_thread(_make, source, folder, on_bytes)
    except asyncio.CancelledError:
        cancelled.set()
        raise
    except ArchiveRefused as error:
        raise CommandFailed(
            ExitCode.REJECTED, f"{source.path} can't be submitted: {error}"
        ) from error


def _make(source: Source, folder: Path, on_bytes: Callable[[int, int], None]) -> PackedArchive:
    target = folder / "package.zip"
    if source.path is None:
        package = build_package(folder / "digits", epochs=source.epochs, pace=source.pace)
        return pack(package, target, on_bytes=on_bytes)
    if source.path.is_dir():
        package_root(source.path)
        return pack(source.path, target, on_bytes=on_bytes)
    if not source.path.exists():
        raise CommandFailed(ExitCode.USAGE, f"{source.path} is not there: check the path")
    if not zipfile.is_zipfile(source.path):
        raise CommandFailed(
            ExitCode.USAGE, f"{source.path} is neither a folder nor a zip archive: give one of them"
        )
    size, root = hash_file(source.path)
    return PackedArchive(source.path, size, root, 0)
