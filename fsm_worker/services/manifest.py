"""`manifest.json`: what a results archive holds, so that a client can prove that it got it."""

import hashlib
from pathlib import Path

import msgspec

from fsm_worker.services.disk import hash_file
from fsm_worker.services.member_names import parts_of

MANIFEST = "manifest.json"
_MAX_BYTES = 64 * 1024 * 1024


class ManifestMismatch(ValueError):
    """A folder does not hold what its manifest says: fetch the results again.

    Args:
        path: of the culprit, relative to the folder.
        sentence: what differs.
    """

    def __init__(self, path: str, sentence: str) -> None:
        super().__init__(f"{path[:200]!a} {sentence}")
        self.path = path
        self.sentence = sentence


class PackedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file."""

    path: str  # relative, with `/`
    size: int  # bytes
    sha256: str  # hexadecimal


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was meant to be packed, and is not in the archive."""

    path: str
    why: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The whole content of one archive, itself not counted."""

    version: int = 1
    files: tuple[PackedFile, ...]
    left_out: tuple[LeftOut, ...] = ()


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest; blocking.

    Args:
        folder: an unpacked results archive.

    Returns:
        The manifest, its names checked.

    Raises:
        ManifestMismatch: if there is none, or it is not one of this version.
    """
    try:
        path = folder / MANIFEST
        with path.open("rb") as file:
            # what is asked for is taken from memory at once, however little is there
            wanted = min(path.stat().st_size, _MAX_BYTES)
            manifest = msgspec.json.decode(file.read(wanted), type=Manifest)
        for entry in manifest.files:
            parts_of(entry.path, max_depth=64)
    except FileNotFoundError:
        raise ManifestMismatch(MANIFEST, "is not there: these are no results of a job") from None
    except (ValueError, RecursionError) as error:  # msgspec's, and `ArchiveRefused`
        raise ManifestMismatch(MANIFEST, f"can't be read: {error}") from None
    if manifest.version != 1:
        raise ManifestMismatch(MANIFEST, f"is of version {manifest.version}: update this program")
    return manifest


def verify_manifest(folder: Path, digest: str = "") -> None:
    """Compare a folder with its manifest, file by file; blocking.

    Args:
        folder: an unpacked results archive, or results in the shared storage.
        digest: SHA-256 of the manifest itself, hexadecimal, where it is known.

    Raises:
        ManifestMismatch: at the first file that is missing, of another size or hash, or not in
            the manifest; also if there is no manifest.
    """
    manifest = read_manifest(folder)
    if digest and hash_file(folder / MANIFEST)[1] != digest:
        raise ManifestMismatch(MANIFEST, "is not the one that the worker has written")
    for entry in manifest.files:
        path = folder / entry.path
        if path.is_symlink() or not path.is_file():
            raise ManifestMismatch(entry.path, "is in the manifest, but not there")
        if path.stat().st_size != entry.size:
            size = path.stat().st_size
            raise ManifestMismatch(entry.path, f"has {size} bytes instead of {entry.size}")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                raise ManifestMismatch(entry.path, "has other content than was packed")
    known = {MANIFEST, *(entry.path for entry in manifest.files)}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in known and (path.is_symlink() or not path.is_dir()):
            raise ManifestMismatch(name, "is there, but not in the manifest")
