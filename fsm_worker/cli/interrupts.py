"""Ctrl-C and its kin while a job is watched: what the user wishes."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from enum import Enum, auto
from types import FrameType, TracebackType
from typing import Any, Self

QUESTION = "[s]top and keep the model, [c]ancel, [d]etach, or [Enter] to go on? "


class Wish(Enum):
    """What may be wished for a job."""

    STOP = auto()
    CANCEL = auto()
    DETACH = auto()


_ANSWERS = {
    "s": Wish.STOP,
    "stop": Wish.STOP,
    "c": Wish.CANCEL,
    "cancel": Wish.CANCEL,
    "d": Wish.DETACH,
    "detach": Wish.DETACH,
}
_GO_ON = {"", "continue", "go on", "n", "no"}


class Interrupts:
    """A context in which signals are taken; use it on the event loop of the main thread.

    While `wishes` are listened to, the first SIGINT asks, if somebody is there to answer; the
    second, the first without anybody, SIGTERM and the terminal's end mean: detach. Before and
    after, each of them cancels the task that entered this context.

    Args:
        ask: shows a question, or takes it away when it is empty.
        interactive: somebody is there to answer.

    Attributes:
        cancelled: the task was cancelled here, not by somebody else.
    """

    def __init__(self, ask: Callable[[str], None], *, interactive: bool) -> None:
        self._ask = ask
        self._interactive = interactive
        self._asking = False
        self._reader: _Answers | None = None
        self._before: dict[int, Any] = {}
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._wishes: asyncio.Queue[Wish] | None = None
        self.cancelled = False

    def __enter__(self) -> Self:
        """Takes the signals over."""
        # `loop.add_signal_handler` does not exist on Windows.
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None:
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gives the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._reader is not None:
            self._reader.close()

    @contextlib.contextmanager
    def wishes(self) -> "Iterator[asyncio.Queue[Wish]]":
        """Signals are wishes from here to the end of the context."""
        self._wishes = asyncio.Queue()
        try:
            yield self._wishes
        finally:
            self._wishes = None
            self._stop_asking()

    @contextlib.contextmanager
    def instead(self, make: "Callable[[], Exception]") -> Iterator[None]:
        """Raises what `make` gives where a signal has cancelled the task.

        Args:
            make: an exception that says what the interruption means here.
        """
        try:
            yield
        except asyncio.CancelledError:
            if not self.cancelled or self._task is None:
                raise
            self._task.uncancel()
            raise make() from None

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._interrupted, number == signal.SIGINT)

    def _interrupted(self, by_hand: bool) -> None:
        if self._wishes is None:
            if self._task is not None and not self.cancelled:
                self.cancelled = True
                self._task.cancel()
        elif not by_hand or not self._interactive or self._asking:
            self._wish(Wish.DETACH)
        else:
            self._begin_asking()

    def _begin_asking(self) -> None:
        self._asking = True
        if self._reader is None:
            self._reader = _Answers(self._loop, self._answered)
        self._ask(QUESTION)

    def _answered(self, text: str) -> None:
        if not self._asking:
            return
        word = text.strip().lower()
        if word in _ANSWERS:
            self._wish(_ANSWERS[word])
        elif word in _GO_ON:
            self._stop_asking()
        else:
            self._ask("")
            self._ask(QUESTION)

    def _wish(self, wish: Wish) -> None:
        self._stop_asking()
        if self._wishes is not None:
            self._wishes.put_nowait(wish)

    def _stop_asking(self) -> None:
        if self._asking:
            self._asking = False
            self._ask("")


class _Answers:
    """Lines from the terminal; read in a thread, the only way that every system has.

    The thread reads the descriptor itself: one that is left waiting in `sys.stdin` at the end of
    the program would make the interpreter give up loudly.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[str], None]) -> None:
        self._loop = loop
        self._take = take
        self._closed = False
        threading.Thread(target=self._read, name="answers", daemon=True).start()

    def close(self) -> None:
        """Hears no more."""
        self._closed = True

    def _read(self) -> None:
        descriptor = sys.stdin.fileno()
        while not self._closed:
            try:
                data = os.read(descriptor, 1024)
            except OSError:
                return
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._hear, data.decode(errors="replace"))
            if not data:
                return

    def _hear(self, text: str) -> None:
        if not self._closed:
            self._take(text)
