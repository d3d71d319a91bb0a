"""Whole lines out of pieces of a log, and the line that is still being written."""

from fsm_worker.services.log_stream import coalesce, plain

#: Characters of one line; a program that ends none gets its line ended.
MOST = 16_384


class LogLines:
    """Puts the pieces of one log together.

    Attributes:
        current: the line that has not ended yet; a progress bar, mostly.
    """

    def __init__(self) -> None:
        self.current = ""

    def feed(self, text: str) -> list[str]:
        r"""Takes a piece.

        Args:
            text: as the worker sent it; a `\r` at its beginning replaces the current line.

        Returns:
            The lines that have ended with it, without anything that commands a terminal.
        """
        *ended, current = (self.current + plain(text)).split("\n")
        lines = [coalesce(line) for line in ended]
        # The last carriage return may be half of a line's end, and may replace what stands there.
        kept = current.rstrip("\r")
        self.current = coalesce(kept) + ("\r" if kept != current else "")
        while len(self.current) > MOST:
            lines.append(self.current[:MOST])
            self.current = self.current[MOST:]
        return lines

    def end(self) -> list[str]:
        """Takes the end of the log; returns the last line, if it was not ended."""
        last, self.current = coalesce(self.current), ""
        return [last] if last else []
