"""What guests need of a disk; `fsm_worker.services.spool` is what the worker gives them."""

from typing import Protocol


class Spool(Protocol):
    """One file on its way through a guest; what is marked blocking belongs in a thread."""

    size: int  # bytes, as announced

    @property
    def complete(self) -> bool:
        """Whether every announced byte is there."""

    def append(self, payload: bytes) -> None:
        """Keeps the next bytes of a package; what is more than announced is only counted."""

    def write(self, offset: int, payload: bytes | memoryview) -> None:
        """Keeps bytes of results at their place."""

    def check(self, kind: str) -> tuple[str, tuple[str, ...]]:
        """Gives a package's SHA-256 and the names of its commands; blocking."""

    def digest(self) -> str:
        """Gives the SHA-256 of results; blocking."""

    def for_client(self, kind: str, package: str) -> "tuple[tuple[str, Spool], ...]":
        """Gives what of the results is for the client, by the names it gets; blocking."""

    def read(self, offset: int, count: int) -> bytes:
        """Gives bytes; blocking."""

    def discard(self) -> None:
        """Deletes the file, and what was made of it; blocking."""


class Spools(Protocol):
    """Makes spools."""

    def open(self, size: int) -> Spool:
        """Makes an empty file for so many bytes."""


class SharedPackages(Protocol):
    """Packages in the shared storage; both belong in a thread."""

    def check_input(self, path: str) -> tuple[str, tuple[str, ...]]:
        """Looks for a package, and gives its kind and the names of its commands; blocking."""

    def check_output(self, path: str) -> None:
        """Finds out whether results can go into a folder; blocking."""
