"""A watched job as one JSON object a line: the worker's messages as they are, and our own."""

import time
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from fsm_worker.cli.console import Console
from fsm_worker.services.log_stream import plain
from protocol.messages import JobSnapshot, JobStateChanged, Log, LogEnd, Progress, Telemetry

#: Seconds between two objects about the same file.
_SAY_EVERY = 1.0


class ObjectView:
    """Prints objects.

    Args:
        console: prints.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, float] = {}

    def __enter__(self) -> Self:
        """Needs no preparation."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves nothing open."""

    def moved(self, what: str, done: int, size: int) -> None:
        """Prints at most one a second of each kind, and the last."""
        now = time.monotonic()
        if done < size and now - self._said.get(what, 0.0) < _SAY_EVERY:
            return
        self._said[what] = now
        self._console.emit("transfer", what=what, done=done, size=size)

    def state(self, message: JobSnapshot | JobStateChanged) -> None:
        """Prints the message."""
        self._console.send(message)

    def progress(self, message: Progress) -> None:
        """Prints the message."""
        self._console.send(message)

    def telemetry(self, message: Telemetry) -> None:
        """Prints the message."""
        self._console.send(message)

    def log(self, message: Log | LogEnd) -> None:
        """Prints the message, without anything that commands a terminal."""
        if isinstance(message, Log):
            message = replace(message, text=plain(message.text))
        self._console.send(message)

    def note(self, text: str) -> None:
        """Prints it as an object."""
        self._console.emit("note", text=text)

    def ask(self, question: str) -> None:
        """Asks nothing: a program reads this."""
