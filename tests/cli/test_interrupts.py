"""Ctrl-C and its kin, with real signals and a real terminal."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.interrupts import QUESTION, Interrupts, Wish

pytestmark = pytest.mark.skipif(os.name != "posix", reason="real signals")


class Keyboard:
    """The user's end of a terminal; what was asked is in `asked`."""

    def __init__(self, end: int) -> None:
        self._end = end
        self.asked: asyncio.Queue[str] = asyncio.Queue()

    def type(self, line: str) -> None:
        os.write(self._end, f"{line}\n".encode())

    async def question(self) -> str:
        async with asyncio.timeout(5):
            return await self.asked.get()


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyboard]:
    user, program = os.openpty()
    with os.fdopen(program, closefd=False) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield Keyboard(user)
    os.close(user)  # the reading thread sees the end of the terminal
    os.close(program)


def press(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


async def next_of(wishes: "asyncio.Queue[Wish]") -> Wish:
    async with asyncio.timeout(5):
        return await wishes.get()


@pytest.mark.parametrize(
    ("answer", "wish"), [("s", Wish.STOP), (" Cancel ", Wish.CANCEL), ("d", Wish.DETACH)]
)
async def test_the_first_interrupt_asks(keyboard: Keyboard, answer: str, wish: Wish) -> None:
    with (
        Interrupts(keyboard.asked.put_nowait, interactive=True) as interrupts,
        interrupts.wishes() as wishes,
    ):
        press()
        assert await keyboard.question() == QUESTION
        keyboard.type(answer)
        assert await next_of(wishes) is wish
        assert await keyboard.question() == ""


async def test_to_go_on_is_no_wish_and_a_riddle_is_asked_again(keyboard: Keyboard) -> None:
    with (
        Interrupts(keyboard.asked.put_nowait, interactive=True) as interrupts,
        interrupts.wishes() as wishes,
    ):
        for _ in range(2):
            press()
            assert await keyboard.question() == QUESTION
            keyboard.type("what?")
            assert [await keyboard.question() for _ in range(2)] == ["", QUESTION]
            keyboard.type("")
            assert await keyboard.question() == ""
        assert wishes.empty()


async def test_a_second_interrupt_detaches(keyboard: Keyboard) -> None:
    with (
        Interrupts(keyboard.asked.put_nowait, interactive=True) as interrupts,
        interrupts.wishes() as wishes,
    ):
        press()
        assert await keyboard.question() == QUESTION
        press()
        assert await next_of(wishes) is Wish.DETACH


@pytest.mark.parametrize(
    ("number", "interactive"),
    [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, True)],
)
async def test_without_a_terminal_and_by_other_signals_it_detaches_at_once(
    number: int, interactive: bool
) -> None:
    asked: list[str] = []
    with (
        Interrupts(asked.append, interactive=interactive) as interrupts,
        interrupts.wishes() as wishes,
    ):
        press(number)
        assert await next_of(wishes) is Wish.DETACH
    assert asked == []


async def test_where_nobody_listens_to_wishes_the_task_ends_and_can_go_on() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(CommandFailed, match="early"),
        Interrupts(lambda _question: None, interactive=True) as interrupts,
        interrupts.instead(lambda: CommandFailed(ExitCode.CANCELLED, "early")),
    ):
        press(signal.SIGTERM)
        async with asyncio.timeout(5):
            await asyncio.Event().wait()
    assert interrupts.cancelled
    assert signal.getsignal(signal.SIGTERM) is before
    async with asyncio.timeout(5):  # would end at once if the task were still being cancelled
        await asyncio.sleep(0)


async def test_a_cancellation_by_others_stays_one() -> None:
    async def work() -> None:
        with (
            Interrupts(lambda _question: None, interactive=False) as interrupts,
            interrupts.instead(lambda: CommandFailed(ExitCode.CANCELLED, "early")),
        ):
            began.set()
            await asyncio.Event().wait()

    began = asyncio.Event()
    task = asyncio.create_task(work())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
