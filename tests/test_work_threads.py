"""Pools of threads for long work."""

import asyncio
import threading

import pytest

from fsm_worker.work_threads import AT_ONCE, ThreadPool, WorkThreads

PATIENCE = 10.0


class Held:
    """Work that goes on until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self) -> str:
        self.begun.release()
        assert self.go.wait(PATIENCE)
        return threading.current_thread().name

    async def runs(self, times: int = 1) -> None:
        for _ in range(times):
            assert await asyncio.to_thread(self.begun.acquire, timeout=PATIENCE)


async def test_a_full_pool_holds_up_no_other_and_its_own_work_waits_for_its_turn() -> None:
    threads, held = WorkThreads(), Held()
    try:
        async with asyncio.TaskGroup() as group:
            filled = [group.create_task(threads.packages(held)) for _ in range(AT_ONCE + 1)]
            await held.runs(AT_ONCE)
            async with asyncio.timeout(PATIENCE):
                assert await threads.slot(int, "7") == 7
                assert await threads.files(int, "a", base=16) == 10
            assert not held.begun.acquire(blocking=False)
            held.go.set()
        assert all(task.result().startswith("packages") for task in filled)
    finally:
        held.go.set()
        await threads.close()


async def test_work_whose_task_is_cancelled_goes_on_and_what_waited_never_begins() -> None:
    pool, held = ThreadPool("tried"), Held()
    tasks = [asyncio.ensure_future(pool(held)) for _ in range(AT_ONCE + 1)]
    await held.runs(AT_ONCE)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    closing = asyncio.ensure_future(pool.close())
    await asyncio.sleep(0)
    assert not closing.done()
    held.go.set()
    await closing
    assert not held.begun.acquire(blocking=False)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tried")]


async def test_what_the_work_raises_is_raised() -> None:
    pool = ThreadPool("tried")
    with pytest.raises(ValueError, match="invalid literal"):
        await pool(int, "x")
    await pool.close()
