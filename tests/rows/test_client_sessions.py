"""A client that loses its link, its server or its worker: it goes on, or its user hears why not."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import structs

from fsm_worker.cli.session import _not_there
from fsm_worker.client import connection
from fsm_worker.client.connection import ConnectionOver, WorkerConnection
from fsm_worker.effects import SendJobs, SendWelcome
from fsm_worker.events import IceFailed, Timer
from fsm_worker.identity import Identity
from fsm_worker.seams import sessions as seam
from fsm_worker.signaling.server import SignalingServer
from protocol.errors import ErrorCode
from protocol.lifecycle import WorkerState
from protocol.table import MachineName
from tests.e2e.lab import Lab, connected, open_lab
from tests.e2e.test_client import Relay
from tests.rows.steps import Steps

LINK, SESSION, SIGNALLING = MachineName.LINK, MachineName.SESSION, MachineName.SIGNALLING
SOON = {Timer.DELAY: 0.05, Timer.REDIAL: 0.3}


class Away(NamedTuple):
    """A client that comes to the server by a way of its own."""

    client: WorkerConnection
    steps: Steps  # what its machines do
    relay: Relay

    async def cut(self) -> None:
        """The client has no server any more, and knows it."""
        await self.relay.cut()
        await self.steps.until(SESSION, "K36")


@contextlib.asynccontextmanager
async def by_a_relay(lab: Lab) -> AsyncIterator[Away]:
    relay = Relay(lab.server.port)
    await relay.mend()
    session = structs.replace(lab.session, url=f"ws://127.0.0.1:{relay.port}")
    try:
        async with connected(lab.folder, session, lab.identity, timers=SOON) as client:
            yield Away(client, Steps(client._link), relay)
    finally:
        await relay.cut()


async def lose_links(lab: Lab) -> None:
    for pc in list(lab.worker._peers.values()):
        await pc.close()  # as consent loss does: no farewell


@contextlib.contextmanager
def a_lost_offer(lab: Lab) -> Iterator[list[object]]:
    """What the server is to hand on next reaches nobody."""
    hub, lost = lab.server._hub, list[object]()
    forward = hub._forward

    def losing(*words: Any) -> None:
        hub._forward = forward
        lost.append(words)

    hub._forward = losing
    yield lost


@contextlib.contextmanager
def no_path(lab: Lab, attempts: float = inf) -> Iterator[None]:
    """What is offered and answered names no address, as often as is said."""
    hub, forward, offers = lab.server._hub, lab.server._hub._forward, itertools.count(1)
    hidden = set[str]()

    def hiding(me: Any, target: str, text: str) -> None:
        words = json.loads(text)
        if words["type"] == "offer" and next(offers) <= attempts:
            hidden.add(words["link"])
        if words.get("link") in hidden and "sdp" in words:
            lines = words["sdp"].splitlines(keepends=True)
            words["sdp"] = "".join(line for line in lines if not line.startswith("a=candidate"))
        forward(me, target, json.dumps(words))

    hub._forward = hiding
    yield
    hub._forward = forward


async def until_over(client: WorkerConnection) -> ConnectionOver:
    """Hears all news, to the end of the connection."""
    with pytest.raises(ConnectionOver) as over:
        async for _ in client.news():
            pass
    return over.value


# --- it goes on -----------------------------------------------------------------------------------


@pytest.mark.drives("session K35 K36")
async def test_a_client_that_has_its_link_does_not_miss_the_server(tmp_path: Path) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, by_a_relay(lab) as away:
        await away.cut()
        assert (await away.client.status()).state is WorkerState.AVAILABLE
        await away.relay.mend()
        await away.steps.until(SESSION, "K35")
        await lose_links(lab)  # the next link needs the server again
        assert await away.client.jobs() == ()


@pytest.mark.drives("session K3")
async def test_a_client_that_loses_its_link_has_the_next_one_at_once(tmp_path: Path) -> None:
    rarely = {Timer.REDIAL: 60.0}  # so it can't be the timer that dials
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client(timers=rarely) as client:
        steps = Steps(client._link)
        await lose_links(lab)
        await steps.until(SESSION, "K3")
        assert await client.jobs() == ()


@pytest.mark.drives("session K43 K30 K34 K36")
async def test_a_client_that_loses_its_link_while_the_server_is_away_dials_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, by_a_relay(lab) as away:
        await away.cut()
        await lose_links(lab)
        await away.steps.until(SESSION, "K43")
        asked = asyncio.create_task(away.client.jobs())
        with a_lost_offer(lab) as lost:
            await away.relay.mend()
            assert await asked == ()
        assert lost


@pytest.mark.drives("session K1 K33 K30")
async def test_a_client_whose_link_is_lost_before_the_welcome_gets_it_by_the_next_one(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab:
        runtime = lab.worker.runtime
        welcome, lost = runtime.bindings[SendWelcome], list[str]()

        def loses_the_path(effect: SendWelcome) -> None:
            runtime.bindings[SendWelcome] = welcome
            lost.append(effect.facts.link)
            runtime.post(LINK, effect.facts.link, IceFailed())

        runtime.bindings[SendWelcome] = loses_the_path
        async with lab.client(timers=SOON) as client:
            assert lost
            assert client.welcome.worker == "lab"
            assert await client.jobs() == ()


@pytest.mark.drives("session K41 K30")
async def test_one_link_that_finds_no_path_does_not_end_a_client(tmp_path: Path) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab:
        with no_path(lab, attempts=1):
            async with lab.client(timers=SOON) as client:
                assert await client.jobs() == ()


# --- it is over -----------------------------------------------------------------------------------


@pytest.mark.drives("session K42 K43")
async def test_who_asks_a_worker_that_can_t_be_reached_any_more_hears_so_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not before: nobody can answer while there is no link."""
    monkeypatch.setattr(connection, "PATIENCE", 0.1)
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, by_a_relay(lab) as away:
        away.client._link.runtime.overrides[Timer.SESSION] = 0.3
        await away.cut()
        await lose_links(lab)
        await away.steps.until(SESSION, "K43")
        with pytest.raises(ConnectionOver, match="its signaling server lets nobody in") as over:
            await away.client.jobs()
        assert over.value.code is ErrorCode.ABORTED


@pytest.mark.drives("session K1")
async def test_a_worker_that_has_its_link_and_does_not_answer_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "PATIENCE", 0.1)
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        lab.worker.runtime.bindings[SendJobs] = lambda _effect: None
        with pytest.raises(ConnectionOver, match="did not answer jobs_get") as over:
            await client.jobs()
        assert over.value.code is ErrorCode.ABORTED


@pytest.mark.parametrize("first", ["the refusal", "the loss"])
@pytest.mark.drives("session K44", "signalling S20")
async def test_a_client_whose_server_has_restarted_hears_that_when_its_link_is_lost(
    tmp_path: Path, first: str
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path) as lab,
        by_a_relay(lab) as away,
        SignalingServer() as another,
    ):
        await away.cut()
        away.relay.leads_to(another.port)
        if first == "the refusal":
            await away.relay.mend()
            await away.steps.until(SIGNALLING, "S20")
            assert await away.client.jobs() == ()  # it has its link
            await lose_links(lab)
        else:
            await lose_links(lab)
            await away.steps.until(SESSION, "K43")
            await away.relay.mend()
        over = await until_over(away.client)
        assert over.code is ErrorCode.NOT_AUTHENTICATED
        assert "it may have restarted" in str(over)


@pytest.mark.drives("session K31 K41")
async def test_who_finds_no_path_to_the_worker_hears_that_and_what_to_look_at(
    tmp_path: Path,
) -> None:
    timers = {**SOON, Timer.SESSION: 1.0}
    async with asyncio.timeout(20), open_lab(tmp_path) as lab:
        with (
            no_path(lab),
            pytest.raises(ConnectionOver, match="can't be reached: no network path") as over,
        ):
            async with lab.client(timers=timers):
                pass
        assert over.value.code is ErrorCode.UNREACHABLE
        assert "UDP" in _not_there(over.value).sentence


@pytest.mark.drives("session K32 K37 K38")
async def test_a_worker_with_another_key_than_the_user_was_told_gets_no_session(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab:
        told = structs.replace(lab.session, key=Identity.load(tmp_path / "another.key").key)
        with pytest.raises(ConnectionOver, match="another worker answered") as over:
            async with connected(tmp_path, told, lab.identity):
                pass
        assert over.value.code is ErrorCode.NOT_AUTHENTICATED


@pytest.mark.drives("session K40 N5")
async def test_a_client_that_comes_back_too_late_hears_that_its_session_was_forgotten(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path, timers={Timer.SESSION: 0.1}) as lab,
        by_a_relay(lab) as away,
    ):
        assert await away.client.jobs() == ()  # so the worker had something of this client
        worker = Steps(lab.worker)
        await away.cut()
        await lose_links(lab)
        await worker.until(SESSION, "N5")
        asked = asyncio.create_task(away.client.jobs())
        await away.relay.mend()
        with pytest.raises(ConnectionOver, match="forgotten this session: attach again") as over:
            await asked
        assert over.value.code is ErrorCode.ABORTED
        async with lab.client() as again:
            assert await again.jobs() == ()


@pytest.mark.drives("session K6")
async def test_who_asks_for_more_than_can_wait_is_told_to_ask_for_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seam, "OUTBOX", 2 * 1024)  # 8 MiB are tens of thousands of requests
    async with asyncio.timeout(20), open_lab(tmp_path) as lab:
        async with lab.client() as client:
            answers = await asyncio.gather(
                *(client.jobs() for _ in range(100)), return_exceptions=True
            )
            for answer in answers:
                assert isinstance(answer, ConnectionOver)
                assert answer.code is ErrorCode.OVERLOADED
                assert "ask for less at once" in str(answer)
        async with lab.client() as again:
            for _ in range(50):
                assert await again.jobs() == ()


# --- what it is told ------------------------------------------------------------------------------


@pytest.mark.drives("session K21")
async def test_a_program_can_ask_why_its_worker_is_in_its_state(tmp_path: Path) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        explained = await client.explain()
        assert explained.state == WorkerState.AVAILABLE
        assert [step.row for step in explained.steps] == ["W1", "W2"]
