"""How long a program waits for its worker: no time without a link counts."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsm_worker.cli import follow
from fsm_worker.cli.interrupts import Wish
from fsm_worker.cli.view import View
from fsm_worker.client.connection import WorkerConnection
from fsm_worker.client.patience import Patience
from fsm_worker.events import LinkLost, LinkUp, Started
from fsm_worker.identity import Identity
from fsm_worker.machines.client_session import CLIENT_SESSION
from fsm_worker.machines.engine import Instance, Step
from protocol import messages as m
from protocol.lifecycle import JobState, Outcome
from protocol.proof import SessionString

JOB = "job-aaaaaaaa"
NO_TIME = 0.0  # what is waited for must be there already
TURNS = 20  # of the loop; a deadline that runs passes in the first ones


class Session:
    """A session machine that is told of its links."""

    def __init__(self) -> None:
        self._machine = Instance(CLIENT_SESSION, "s-1")
        self._machine.step(Started())

    def gets_its_link(self) -> Step:
        return self._machine.step(LinkUp(link="l-1", generation=1, key="k", peer="w"))

    def loses_its_link(self) -> Step:
        return self._machine.step(LinkLost(link="l-1", farewell=False))


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def test_a_wait_without_a_link_lasts_until_there_is_one_and_then_as_long_as_any() -> None:
    patience, session = Patience(), Session()
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            async with patience.within(NO_TIME):
                await turns()
                patience.watch(session.gets_its_link())
                await asyncio.Event().wait()


async def test_a_link_that_is_lost_stops_the_time_of_every_wait() -> None:
    patience, session = Patience(), Session()
    patience.watch(session.gets_its_link())
    async with asyncio.timeout(5), patience.within(60.0):
        patience.watch(session.loses_its_link())
        async with patience.within(NO_TIME):
            await turns()


async def test_a_wait_that_has_passed_is_not_begun_anew_by_a_link() -> None:
    patience, session = Patience(), Session()
    patience.watch(session.gets_its_link())
    with pytest.raises(TimeoutError):
        async with patience.within(NO_TIME) as deadline:
            try:
                await turns()
            finally:
                patience.watch(session.loses_its_link())
                patience.watch(session.gets_its_link())
                deadline.begin_anew()


class Shown(View):
    """A view that keeps what is noted beside the job."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Any]:
    """A session string and a key."""
    session = SessionString(url="ws://localhost:1", room="r", token="t", peer="w", key="k")
    yield session, Identity.load(tmp_path / "client.key")


@pytest.mark.parametrize("linked", [False, True])
async def test_the_rest_of_the_output_is_waited_for_while_a_lost_link_comes_again(
    monkeypatch: pytest.MonkeyPatch, place: Any, linked: bool
) -> None:
    monkeypatch.setattr(follow, "LOG_PATIENCE", NO_TIME)
    connection, session, shown = WorkerConnection(*place), Session(), Shown()
    connection._watch(session.gets_its_link())
    follower = follow.Follower(connection, JOB, shown)
    follower.ask_for_log()
    done = m.JobStateChanged(
        job=JOB,
        before=JobState.RUNNING,
        state=JobState.DONE,
        row="J1",
        event="",
        outcome=Outcome.SUCCEEDED,
    )
    if not linked:
        connection._watch(session.loses_its_link())
    wishes: asyncio.Queue[Wish] = asyncio.Queue()
    async with asyncio.timeout(5):
        following = asyncio.create_task(follower.until_end(wishes))
        connection._deliver(done)
        await turns()
        assert following.done() is linked
        connection._deliver(m.Log(job=JOB, offset=0, text="the last line\n", next=14))
        connection._deliver(m.LogEnd(job=JOB, size=14))
        ending = await following
    assert ending.outcome is Outcome.SUCCEEDED
    assert (ending.tail == ("the last line",)) is not linked
    assert bool(shown.notes) is linked
