"""A session that a worker ends: nothing of it is kept, and whoever names it again begins anew."""

import asyncio
from pathlib import Path

import pytest

from fsm_worker.events import Timer
from fsm_worker.machines import coupled_links
from fsm_worker.seams import sessions as seam
from protocol import messages as m
from protocol.table import MachineName
from tests.e2e.lab import Lab, open_lab
from tests.rows.native_peer import NativePeer
from tests.rows.steps import Steps

OVER = "this session is over, or somebody else's"


def known(lab: Lab) -> set[str]:
    return set(lab.worker.world.machines[MachineName.SESSION])


@pytest.mark.drives("session N3 N5")
async def test_a_client_that_comes_back_after_its_time_begins_anew(tmp_path: Path) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path, timers={Timer.SESSION: 0.2}) as lab:
        steps = Steps(lab.worker)
        async with NativePeer.dials(lab.session, lab.identity) as peer:
            await peer.is_served()
            peer.say(m.JobsGet())
            await peer.hears(m.Jobs)
        await steps.until(MachineName.SESSION, "N5")
        assert not known(lab)
        async with NativePeer.dials(lab.session, lab.identity) as again:
            assert (await again.is_served(generation=2)).received == 0
            again.say(m.JobsGet())
            await again.hears(m.Jobs)


@pytest.mark.drives("session N13", "link L53")
async def test_a_client_that_claims_to_have_what_was_never_sent_is_sent_away(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path) as lab,
        NativePeer.dials(lab.session, lab.identity) as peer,
    ):
        await peer.comes_in()
        peer.say(m.Resume(received=7))
        assert (await peer.hears(m.Bye)).reason == OVER
        await peer.is_let_go()
        assert not known(lab)


@pytest.mark.drives("session N11", "link L53")
async def test_a_client_that_acknowledges_nothing_is_sent_away_when_too_much_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seam, "OUTBOX", 2 * 1024)  # 8 MiB are tens of thousands of answers
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path) as lab,
        NativePeer.dials(lab.session, lab.identity) as peer,
        lab.client() as good,
    ):
        await peer.is_served()
        while not peer.told(m.Bye):
            peer.say(m.JobsGet())
            await peer.moves()
        assert peer.told(m.Bye)[0].reason == OVER
        await peer.is_let_go()
        assert len(peer.told(m.Jobs)) > 10
        assert known(lab) == {good.welcome.session}
        for _ in range(50):
            await good.jobs()  # these are acknowledged


@pytest.mark.drives("session N3 N12")
async def test_a_client_that_is_killed_over_and_over_leaves_no_more_sessions_than_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coupled_links, "KEEP_SESSIONS", 3)
    async with asyncio.timeout(20), open_lab(tmp_path) as lab:
        steps = Steps(lab.worker)
        for number in range(5):
            async with NativePeer.dials(lab.session, lab.identity) as peer:
                await peer.comes_in(f"s-{number}")
            await steps.until(MachineName.SESSION, "N3", times=number + 1)
        assert known(lab) == {"s-2", "s-3", "s-4"}
