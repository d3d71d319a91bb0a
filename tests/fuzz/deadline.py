"""Ends a decoder that hangs."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class TooSlow(Exception):
    """The input was not decided in time."""


@contextlib.contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Raises `TooSlow` in whatever still runs then.

    Args:
        seconds: of the process's CPU, so that a loaded machine does not count.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
