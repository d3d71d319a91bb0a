"""Where the commands write: lines for people, or one JSON object a line for programs."""

import logging
import sys
from typing import TextIO

import msgspec

from fsm_worker.services.log_stream import plain

_MOST = 2000  # characters of a line that somebody else worded


def one_line(text: str, most: int = _MOST) -> str:
    """Somebody else's words, such that they can neither command a terminal nor fill it.

    Args:
        text: from a worker, a trainer or a server.
        most: characters to keep.
    """
    line = " ".join(plain(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


class Console:
    """One command's output.

    Args:
        as_json: objects on standard output, and nothing else there.
        verbosity: -1 shows results and errors only, 0 is usual, 1 and 2 add the log.
    """

    def __init__(self, *, as_json: bool = False, verbosity: int = 0) -> None:
        self.as_json = as_json
        self.verbosity = verbosity
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:
                # A terminal that lacks a character shows another one instead of ending us.
                reconfigure(errors="replace")

    @property
    def quiet(self) -> bool:
        """Whether only results and errors are shown."""
        return self.verbosity < 0

    def say(self, text: str) -> None:
        """A line that helps a person; not shown when quiet or as JSON."""
        if not self.quiet and not self.as_json:
            print(text, flush=True)

    def show(self, text: str) -> None:
        """A line that was asked for; not shown as JSON."""
        if not self.as_json:
            print(text, flush=True)

    def emit(self, kind: str, **fields: object) -> None:
        """An object for programs; shown as JSON only.

        Args:
            kind: its `type`.
            fields: the rest; all that msgspec can write.
        """
        if self.as_json:
            print(msgspec.json.encode({"type": kind, **fields}).decode(), flush=True)

    def send(self, message: msgspec.Struct) -> None:
        """A message of the protocol, in its own spelling; shown as JSON only."""
        if self.as_json:
            print(msgspec.json.encode(message).decode(), flush=True)

    def warn(self, text: str) -> None:
        """A line on standard error."""
        line = plain(text).replace("\n", " ").replace("\r", " ")
        print(line[:_MOST], file=sys.stderr, flush=True)

    def start_logging(self, usual: int) -> None:
        """Sends the program's log to standard error.

        Args:
            usual: the level without `-v` and `-q`.
        """
        levels = {-1: logging.ERROR, 0: usual, 1: logging.INFO, 2: logging.DEBUG}
        handler = _ToStderr()
        handler.setLevel(levels[self.verbosity])  # some loggers have a level of their own
        handler.setFormatter(_Lines(tracebacks=self.verbosity >= 2))
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(max(logging.WARNING, levels[self.verbosity]))
        logging.getLogger("fsm_worker").setLevel(levels[self.verbosity])


class _ToStderr(logging.Handler):
    """Looks standard error up for each record: a live display borrows it."""

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO = sys.stderr
        try:
            print(self.format(record), file=stream, flush=True)
        except (OSError, ValueError):
            self.handleError(record)


class _Lines(logging.Formatter):
    """One line a record, unless tracebacks are wanted."""

    def __init__(self, *, tracebacks: bool) -> None:
        super().__init__("%(asctime)s %(levelname).1s %(name)s %(message)s", "%H:%M:%S")
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        if self._tracebacks:
            return super().format(record)
        bare = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None})
        bare.stack_info = None
        return one_line(super().format(bare))
