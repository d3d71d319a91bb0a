"""A link that is up and ends: the session goes on with the next one, or its client is sent away."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from fsm_worker.events import Timer
from fsm_worker.folders import WORKER_KEY
from fsm_worker.identity import Identity
from fsm_worker.machines.link import STRIKES
from protocol import messages as m
from protocol.codec import Frame
from protocol.errors import ErrorCode
from protocol.lifecycle import WorkerState
from protocol.table import MachineName
from tests.e2e.lab import Lab, open_lab
from tests.rows.native_peer import NativePeer
from tests.rows.steps import Steps

LINK = MachineName.LINK
#: Answers that are more than a connection sends before it hears that something has arrived.
MANY = 40


def operator(lab: Lab) -> Identity:
    """Somebody else whom the worker knows: whoever can read its own key."""
    return Identity.load(lab.folder / "worker" / WORKER_KEY)


# --- numbers -----------------------------------------------------------------------------------


@pytest.mark.drives("link L27")
async def test_a_request_that_comes_twice_is_answered_once(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path) as lab,
        NativePeer.dials(lab.session, lab.identity) as peer,
    ):
        await peer.is_served()
        for _ in range(2):
            peer.say(m.JobsGet(), number=1)
        peer.say(m.WorkerGet(), number=2)
        await peer.hears(m.WorkerStatus)
        assert len(peer.told(m.Jobs)) == 1
        assert not peer.told(m.Error)


@pytest.mark.drives("link L28", "session N2")
async def test_a_request_that_was_lost_on_the_way_comes_again_with_the_next_link(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        links = client._link._links
        write, lost = links.write, list[Frame]()

        def losing(link: str, frame: Frame) -> None:
            if isinstance(frame.msg, m.JobsGet) and not lost:
                lost.append(frame)
            else:
                write(link, frame)

        client._link._sessions._wire = losing
        jobs, status = await asyncio.gather(client.jobs(), client.status())
        assert lost
        assert (jobs, status.state) == ((), WorkerState.AVAILABLE)


# --- whose session -----------------------------------------------------------------------------


@pytest.mark.drives("link L38", "session N2")
async def test_a_newer_link_of_a_session_takes_it_over_and_nobody_is_told_that_it_ends(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path) as lab,
        NativePeer.dials(lab.session, lab.identity, name="older") as older,
        NativePeer.dials(lab.session, lab.identity, name="newer") as newer,
    ):
        await older.is_served(generation=1)
        older.say(m.WorkerGet())
        await older.hears(m.WorkerStatus)
        assert (await newer.is_served(generation=2)).received == 1
        await older.is_let_go()
        assert not older.told(m.Bye)
        newer.say(m.JobsGet())
        await newer.hears(m.Jobs)


@pytest.mark.drives("link L53")
async def test_somebody_who_names_another_s_session_is_sent_away_and_the_owner_keeps_it(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path) as lab,
        NativePeer.dials(lab.session, lab.identity, name="owner") as owner,
        NativePeer.dials(lab.session, operator(lab), name="thief") as thief,
    ):
        await owner.is_served(generation=1)
        await thief.opens()
        thief.say(thief.hello(generation=2))
        thief.say(thief.proof(await thief.hears(m.Hello)))
        bye = await thief.hears(m.Bye)
        assert bye.reason == "this session is over, or somebody else's"
        await thief.is_let_go()
        owner.say(m.WorkerGet())
        await owner.hears(m.WorkerStatus)


# --- what the connection itself does -------------------------------------------------------------


def takes_little(sdp: str) -> str:
    """An offer of a client that takes the first words of a link, and nothing that is longer."""
    return re.sub(r"max-message-size:\d+", "max-message-size:260", sdp)


def nonsense(number: int = 1) -> str:
    """A frame whose refusal quotes the name that it gives itself, with an escape for each sign."""
    return json.dumps({"msg": {"type": "\u200b" * number}})


def tells_no_close(lab: Lab) -> None:
    """The worker does not hear of the end of its channels, of which aiortc tells first."""
    (channels,) = lab.worker.links._links.values()
    for channel in channels.by_label.values():
        channel.remove_all_listeners("close")


@pytest.mark.drives("link L45")
async def test_a_client_whose_connection_is_closed_goes_on_with_the_next_link(
    tmp_path: Path,
) -> None:
    async with asyncio.timeout(20), open_lab(tmp_path) as lab, lab.client() as client:
        tells_no_close(lab)
        (pc,) = lab.worker._peers.values()
        await pc.close()
        assert (await client.status()).name == "lab"
        assert client.welcome.session in lab.worker.world.machines[MachineName.SESSION]


@pytest.mark.drives("link L52")
async def test_a_client_that_does_not_take_a_refusal_is_let_go_and_may_come_again(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path) as lab,
        NativePeer.dials(lab.session, lab.identity, change=takes_little) as peer,
        NativePeer.dials(lab.session, lab.identity, name="again") as again,
    ):
        await peer.is_served()
        peer.say(m.JobsGet())
        await peer.hears(m.Jobs)
        peer.say_text(nonsense(64))
        await peer.is_let_go()
        assert (await again.is_served(generation=2)).received == 1
        refusal = await again.hears(m.Error)
        assert refusal.code is ErrorCode.UNKNOWN_TYPE


@pytest.mark.drives("link L36 L44")
async def test_a_hostile_client_that_does_not_take_the_last_refusal_is_let_go_at_once(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path, timers={Timer.CLOSE: 60.0}) as lab,
        NativePeer.dials(lab.session, lab.identity, change=takes_little) as peer,
    ):
        await peer.is_served()
        for _ in range(STRIKES - 1):
            peer.say_text(nonsense())
        await peer.hears(m.Error, times=STRIKES - 1)
        peer.say_text(nonsense(64))
        await peer.is_let_go()
        assert len(peer.told(m.Error)) == STRIKES - 1


@pytest.mark.drives("link L36 L42")
async def test_a_hostile_client_that_reads_no_goodbye_and_goes_is_not_waited_for(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path, timers={Timer.CLOSE: 60.0}) as lab,
        NativePeer.dials(lab.session, lab.identity) as peer,
    ):
        steps, sctp = Steps(lab.worker), peer.pc.sctp
        await peer.is_served()
        tells_no_close(lab)
        assert sctp is not None

        async def reads_nothing(_data: bytes) -> None:
            return

        sctp._handle_data = reads_nothing
        for _ in range(MANY):
            peer.say(m.WorkerGet())
        for _ in range(STRIKES):
            peer.say_text(nonsense())
        await steps.until(LINK, "L36")
        await sctp.transport.stop()
        await steps.until(LINK, "L42")
        assert not lab.worker.world.live(LINK)
