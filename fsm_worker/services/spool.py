"""Files of clients of sleap-rtc, on their way to the worker's machines or back.

That dialect announces no hash, and asks for no bytes again: a file has to be whole here before it
goes on. A spool is deleted as soon as it has gone on, or can't.
"""

import itertools
import os
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from fsm_worker.services.archive import SCRIPTS, ArchiveRefused, peek
from fsm_worker.services.disk import NotEnoughDisk, free_bytes, hash_file, write_at
from fsm_worker.services.incoming_file import RESERVE
from fsm_worker.services.script import MAX_SCRIPT_BYTES, ScriptRefused, Word, commands
from fsm_worker.services.shared_package import read_commands
from fsm_worker.services.shared_storage import SharedStorage
from protocol.bulk import Ranges
from protocol.errors import ErrorCode, ProtocolError

_COPY: Final = 1024 * 1024
_LONGEST_NAME: Final = 100
_UNPLAIN: Final = re.compile(r"[^\w.+-]+")
_CONFIG: Final = ("--config-name", "--config", "-c")
#: What sleap-rtc calls every command of a track script.
TRACKING: Final = "inference"


class PackageRefused(ProtocolError):
    """What came is not the package that was announced: send it again."""

    def __init__(self, sentence: str) -> None:
        super().__init__(ErrorCode.INPUT_REFUSED, sentence)


class FileSpool:
    """One file; made by `Spools.open`.

    Args:
        path: where it is; it exists, and is empty or whole.
        size: in bytes, as announced.

    Attributes:
        size: the same.
        received: how many bytes came, those that were too many included.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        self.received = 0
        self._path = path
        self._file = path.open("r+b", buffering=0)
        self._have = Ranges()
        self._fault = ""
        self._made: list[FileSpool] = []
        self._reading = threading.Lock()

    @property
    def complete(self) -> bool:
        """Whether every announced byte is there."""
        return self._have.total == self.size

    @property
    def closed(self) -> bool:
        """Whether it was deleted."""
        return self._file.closed

    def append(self, payload: bytes) -> None:
        """Keeps the next bytes; what the disk refused is told by `check`.

        Args:
            payload: what comes after all that came before.
        """
        kept = payload[: max(0, self.size - self.received)]
        if kept and not self._fault:
            try:
                self.write(self.received, kept)
            except OSError as error:
                self._fault = f"the worker's disk refused: {error.strerror}"
        self.received += len(payload)

    def write(self, offset: int, payload: bytes | memoryview) -> None:
        """Keeps bytes at their place.

        Raises:
            OSError: the disk is full or fails.
        """
        write_at(self._file, offset, payload)
        self._have = self._have.add(offset, offset + len(payload))

    def check(self, kind: str) -> tuple[str, tuple[str, ...]]:
        """Measures and hashes a package, and looks for its script; blocking.

        Args:
            kind: which script it should hold, "train" or "track".

        Returns:
            Its SHA-256, and a name for each command: of the configuration file, as sleap-rtc does.

        Raises:
            PackageRefused: other than announced, or without that script.
            OSError: it can't be read.
        """
        if self._fault:
            raise PackageRefused(self._fault)
        if self.received != self.size or not self.size:
            raise PackageRefused(
                f"{self.received} bytes came and {self.size} were announced: send the package again"
            )
        try:
            text = peek(self._path, SCRIPTS[kind], MAX_SCRIPT_BYTES).decode(errors="replace")
        except ArchiveRefused as refusal:
            raise PackageRefused(f"the package {refusal.sentence}") from refusal
        return self.digest(), names_in(text, kind)

    def digest(self) -> str:
        """Hashes the file (SHA-256, hexadecimal); blocking.

        Raises:
            OSError: it can't be read.
        """
        return hash_file(self._path)[1]

    def for_client(self, kind: str, package: str) -> "tuple[tuple[str, FileSpool], ...]":
        """Finds what of a job's results goes to the client; blocking.

        Args:
            kind: of the job. Training gives the whole archive, tracking the predictions in it.
            package: name of the package.

        Returns:
            Names without a colon, where clients cut, and files.

        Raises:
            OSError: the disk is full or fails.
            zipfile.BadZipFile: these are no results.
        """
        if kind == "train":
            return ((f"trained_{_plain(package.removesuffix('.zip'))}.zip", self),)
        return tuple(self._predictions())

    def _predictions(self) -> "Iterator[tuple[str, FileSpool]]":
        """The archive is the worker's own, and hashes to what it announced: it is believed."""
        with zipfile.ZipFile(self._path) as archive:
            found = [member for member in archive.infolist() if member.filename.endswith(".slp")]
            for number, member in enumerate(found):
                need, free = member.file_size + RESERVE, free_bytes(self._path.parent)
                if need > free:
                    raise NotEnoughDisk(need, free)
                path = self._path.with_name(f"{self._path.name}-{number}")
                with archive.open(member) as source, path.open("xb") as target:
                    shutil.copyfileobj(source, target, _COPY)
                made = FileSpool(path, member.file_size)
                self._made.append(made)
                yield _plain(PurePosixPath(member.filename).name), made

    def read(self, offset: int, count: int) -> bytes:
        """Gives at most `count` bytes from `offset` on; blocking.

        Raises:
            OSError: they can't be read.
            ValueError: the file was deleted.
        """
        with self._reading:
            return os.pread(self._file.fileno(), count, offset)

    def discard(self) -> None:
        """Deletes the file, and what was made of it; blocking."""
        for made in self._made:
            made.discard()
        with self._reading:
            self._file.close()
        self._path.unlink(missing_ok=True)


class Spools:
    """The folder of all spools; what an earlier process left there goes.

    Args:
        folder: of this worker alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._open: list[FileSpool] = []

    def open(self, size: int) -> FileSpool:
        """Makes an empty file, if there is room for so many bytes.

        Args:
            size: in bytes, as announced.

        Raises:
            NotEnoughDisk: there is none.
            OSError: the file can't be made.
        """
        number = next(self._numbers)
        if number == 1:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._open = [spool for spool in self._open if not spool.closed]
        promised = sum(max(0, spool.size - spool.received) for spool in self._open)
        need, free = size + promised + RESERVE, free_bytes(self._folder)
        if need > free:
            raise NotEnoughDisk(need, free)
        path = self._folder / str(number)
        path.touch(exist_ok=False)
        spool = FileSpool(path, size)
        self._open.append(spool)
        return spool


class SharedPackages:
    """Packages in the shared storage, as a guest needs them.

    Args:
        storage: where they lie.
    """

    def __init__(self, storage: SharedStorage) -> None:
        self._storage = storage

    def check_input(self, path: str) -> tuple[str, tuple[str, ...]]:
        """Looks for a package; blocking.

        Args:
            path: relative to the root.

        Returns:
            Which script it holds, "train" or "track", and a name for each command.

        Raises:
            ProtocolError: the path can't be used, or there is no shared storage.
            PackageRefused: it holds no script.
            OSError: the storage fails.
        """
        why = ""
        for kind in SCRIPTS:
            try:
                return kind, names_in(read_commands(self._storage, path, kind), kind)
            except ArchiveRefused as refusal:
                why = why or f"the package {refusal.sentence}"
        raise PackageRefused(why)

    def check_output(self, path: str) -> None:
        """Finds out whether results can go into a folder; blocking.

        Raises:
            ProtocolError: they can't.
        """
        self._storage.check_output(path)


def names_in(text: str, kind: str) -> tuple[str, ...]:
    """Names the commands of a script for people.

    Args:
        text: of the script.
        kind: of the script.

    Returns:
        None for a script that the worker refuses: it says what is wrong with it, with the line.
    """
    try:
        return tuple(name_of(words, kind) for words in commands(text))
    except ScriptRefused:
        return ()


def name_of(words: tuple[Word, ...], kind: str) -> str:
    """Names a command for people: its configuration file without the ending.

    Args:
        words: of one command.
        kind: of the script; sleap-rtc calls all of tracking "inference".
    """
    if kind == "track":
        return TRACKING
    texts = [word.text for word in words]
    for name, value in itertools.pairwise(texts):
        if name in _CONFIG:
            return _plain(PurePosixPath(value).stem)
    for text in texts:
        option, _, value = text.partition("=")
        if option in _CONFIG and value:
            return _plain(PurePosixPath(value).stem)
        if text.endswith((".yaml", ".yml")):
            return _plain(PurePosixPath(text).stem)
    return _plain(texts[0])


def _plain(text: str) -> str:
    return _UNPLAIN.sub("_", text)[-_LONGEST_NAME:].lstrip(".") or "package"
