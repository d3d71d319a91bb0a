"""Program output that no client of sleap-rtc takes for a frame.

A client tells frames from output by looking at the text. Some tags it looks for at the beginning,
some families of tags by their first letters, and some tags anywhere (sleap-rtc 0.0.7,
`client_class.py`, `client_track_class.py` and `api.py`). A space in the right place is enough
against each of them, and a person who reads the line hardly notices.
"""

import re
from typing import Final

from protocol.sleap_rtc.table import ROWS, row_of_text
from protocol.table import Direction

#: What a client takes for an answer or an event by its first letters, whatever follows.
FAMILIES: Final = ("AUTH_", "FILE_UPLOAD_", "FS_", "INFERENCE_", "JOB_", "WORKER_PATH_")
#: What a client finds anywhere in a text.
MARKERS: Final = tuple(row.head for row in ROWS if row.anywhere)


def _halves(marker: str) -> str:
    first, second = marker.split("_", 1)
    return f"{re.escape(first)}(?=_{re.escape(second)})"


_MARKER: Final = re.compile("|".join(_halves(marker) for marker in MARKERS))


def without_markers(text: str) -> str:
    """The text with a space in the middle of each tag that a client finds anywhere."""
    return _MARKER.sub(r"\g<0> ", text)


def as_log_text(line: str) -> str:
    """The line as it may go out bare; most lines are unchanged.

    A line that begins as a frame gets a leading space, and a tag that a client finds anywhere gets
    one in its middle.

    Args:
        line: output of a program, with or without its line end.
    """
    as_frame = line.startswith(FAMILIES) or any(
        row_of_text(line, side) for side in (Direction.TO_WORKER, Direction.TO_CLIENT)
    )
    text = without_markers(line)
    return " " + text if as_frame else text
