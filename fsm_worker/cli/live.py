"""A watched job on a terminal: its output scrolls, and below it bars move."""

import math
import time
from types import TracebackType
from typing import Self

from rich.console import Console as Terminal
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fsm_worker.cli.durations import duration
from fsm_worker.cli.log_lines import LogLines
from fsm_worker.cli.losses import Losses
from fsm_worker.cli.sparkline import sparkline
from fsm_worker.cli.view import state_line, telemetry_line
from protocol import messages as m

_PICTURE = 24  # columns of the losses' picture
_BAR = 24


class LiveView:
    """Draws on a terminal.

    Args:
        terminal: None for standard output.
    """

    def __init__(self, terminal: Terminal | None = None) -> None:
        self._terminal = terminal or Terminal(highlight=False)
        self._lines = LogLines()
        self._losses = Losses()
        self._state = ""
        self._telemetry = ""
        self._question = ""
        self._spinner = Spinner("dots")
        self._epochs_began = 0.0
        self._files = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(_BAR),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=self._terminal,
        )
        self._bars: dict[str, TaskID] = {}
        self._live = Live(
            console=self._terminal,
            get_renderable=self._draw,
            refresh_per_second=8,
            transient=True,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        """Begins to draw; a thread of its own redraws what moves by itself."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Takes the bars away, and leaves a line about the training."""
        self._output(self._lines.end())
        self._live.stop()
        if self._losses.last is not None:
            self._terminal.print(
                Text.assemble(f"{self._losses.last} ", (self._picture(), "cyan")), soft_wrap=True
            )

    def moved(self, what: str, done: int, size: int) -> None:
        """Moves that file's bar."""
        if what not in self._bars:
            self._bars[what] = self._files.add_task(what, total=size)
        self._files.update(self._bars[what], completed=done, total=size)

    def state(self, message: m.JobSnapshot | m.JobStateChanged) -> None:
        """Shows the state beside the spinner."""
        self._state = state_line(message)
        self._forget_files()

    def progress(self, message: m.Progress) -> None:
        """Moves the epochs' bar."""
        if message.event == "train_begin" or not self._epochs_began:
            self._epochs_began = time.monotonic()
        self._losses.hear(message)

    def telemetry(self, message: m.Telemetry) -> None:
        """Shows what the job uses."""
        self._telemetry = telemetry_line(message)

    def log(self, message: m.Log | m.LogEnd) -> None:
        """Prints the output above the bars."""
        self._output(
            self._lines.feed(message.text) if isinstance(message, m.Log) else self._lines.end()
        )

    def note(self, text: str) -> None:
        """Prints it above the bars."""
        self._terminal.print(Text(text, style="bold"), soft_wrap=True)

    def ask(self, question: str) -> None:
        """Shows the question below everything."""
        answered = bool(self._question) and not question
        self._question = question
        if answered:
            # The answer's line end has moved the cursor: the bars begin anew below it.
            self._live.stop()
            self._live.start()
        else:
            self._live.refresh()

    def _output(self, lines: list[str]) -> None:
        if lines:
            self._terminal.print(Text("\n".join(lines)), soft_wrap=True)

    def _forget_files(self) -> None:
        for what, task in list(self._bars.items()):
            if self._files.tasks and self._files._tasks[task].finished:
                self._files.remove_task(task)
                del self._bars[what]

    def _draw(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._lines.current:
            parts.append(_clipped(self._lines.current.rstrip("\r"), "dim"))
        if self._bars:
            parts.append(self._files)
        if self._losses.epoch:
            parts.append(self._training())
        if self._state:
            self._spinner.update(text=_clipped(self._state))
            parts.append(self._spinner)
        if self._telemetry and self._state:
            parts.append(_clipped(f"  {self._telemetry}", "dim"))
        if self._question:
            parts.append(Text(self._question, style="bold yellow"))
        return Group(*parts)

    def _training(self) -> Table:
        losses = self._losses
        ended = len(losses.history)
        words = f"epoch {losses.epoch}" + (f"/{losses.planned}" if losses.planned else "")
        numbers = ""
        if losses.last is not None and losses.history:
            numbers = f"loss {losses.history[-1]:.4g} best {losses.best:.4g}"
        elif losses.batch_loss is not None:
            numbers = f"loss {losses.batch_loss:.4g}"
        left = ""
        if losses.planned and ended:
            each = (time.monotonic() - self._epochs_began) / ended
            left = f"{duration(max(0.0, each * (losses.planned - losses.epoch)))} left"
        row = Table.grid(padding=(0, 1))
        row.add_row(
            Text(words, no_wrap=True),
            ProgressBar(
                total=losses.planned, completed=losses.epoch, width=_BAR, pulse=not losses.planned
            ),
            Text(numbers, no_wrap=True),
            Text(self._picture(), style="cyan", no_wrap=True),
            Text(left, style="dim", no_wrap=True),
        )
        return row

    def _picture(self) -> str:
        losses = list(self._losses.history)
        if losses and min(losses) > 0:
            losses = [math.log(loss) for loss in losses]  # they fall by factors, not by steps
        return sparkline(losses, _PICTURE)


def _clipped(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")
