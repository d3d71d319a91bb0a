"""A file that is opened in a thread stays open only where somebody has it."""

import asyncio
import threading
from functools import partial

import pytest

from fsm_worker.services.opening import opened_in_thread


class Door:
    def __init__(self, opening: threading.Event) -> None:
        opening.wait(5)
        self.open = True

    def close(self) -> None:
        self.open = False


async def test_what_is_opened_is_given() -> None:
    opening = threading.Event()
    opening.set()
    assert (await opened_in_thread(partial(Door, opening))).open


@pytest.mark.parametrize("first", ["the thread", "the cancellation"])
async def test_what_nobody_waits_for_any_more_is_closed(first: str) -> None:
    opening, doors = threading.Event(), []
    done = threading.Event()

    def opens() -> Door:
        doors.append(Door(opening))
        done.set()
        return doors[0]

    task = asyncio.create_task(opened_in_thread(opens))
    await asyncio.sleep(0)
    if first == "the thread":
        opening.set()
        assert done.wait(5)  # the loop stands still, so the task has not heard of it
        threading.Event().wait(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    opening.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert [door.open for door in doors] == [False]
