"""A watched job as lines, for a pipe, a file, or a terminal that can do no more."""

import time
from types import TracebackType
from typing import Self

from fsm_worker.cli.console import Console
from fsm_worker.cli.durations import amount, duration
from fsm_worker.cli.log_lines import LogLines
from fsm_worker.cli.losses import Losses
from fsm_worker.cli.view import state_line
from protocol.messages import JobSnapshot, JobStateChanged, Log, LogEnd, Progress, Telemetry

#: Seconds between two lines about the same file.
_SAY_EVERY = 10.0


class PlainView:
    """Prints a line when something has happened.

    Args:
        console: prints.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines = LogLines()
        self._losses = Losses()
        self._stage = (0, 1)
        self._state = ""
        self._began: dict[str, float] = {}
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
        """Prints the last line of the output, if it was not ended."""
        self._output(self._lines.end())

    def moved(self, what: str, done: int, size: int) -> None:
        """Prints a line now and then, and one at the end."""
        now = time.monotonic()
        began = self._began.setdefault(what, now)
        said = self._said.setdefault(what, now)
        if done >= size and said != float("inf"):
            self._said[what] = float("inf")
            taken = max(now - began, 1e-3)
            self._console.say(f"{what} {amount(size)}: done in {duration(taken)}")
        elif done < size and now - said >= _SAY_EVERY:
            self._said[what] = now
            rate = done / max(now - began, 1e-3)
            left = duration((size - done) / rate) if rate > 0 else "?"
            self._console.say(
                f"{what} {amount(done)} of {amount(size)}, {amount(rate)}/s, {left} left"
            )

    def state(self, message: JobSnapshot | JobStateChanged) -> None:
        """Prints the state when it has changed."""
        self._stage = (message.stage, message.stages)
        text = state_line(message)
        if text and text != self._state:
            self._console.say(text)
        self._state = text

    def progress(self, message: Progress) -> None:
        """Prints a line for each epoch that has ended."""
        epoch = self._losses.hear(message)
        if epoch is not None:
            stages = self._stage[1]
            prefix = f"stage {message.stage + 1}/{stages} " if stages > 1 else ""
            self._console.say(f"{prefix}{epoch}")

    def telemetry(self, message: Telemetry) -> None:
        """Prints nothing: it would drown the rest."""

    def log(self, message: Log | LogEnd) -> None:
        """Prints the output's lines, marked as such."""
        self._output(
            self._lines.feed(message.text) if isinstance(message, Log) else self._lines.end()
        )

    def note(self, text: str) -> None:
        """Prints it."""
        self._console.say(text)

    def ask(self, question: str) -> None:
        """Prints it once."""
        if question:
            self._console.show(question)

    def _output(self, lines: list[str]) -> None:
        for line in lines:
            self._console.say(f"| {line}")
