"""A link that fails before it is up, or is turned away: whoever dials hears why, in words."""

import asyncio
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aioice import stun

from fsm_worker.events import Timer
from fsm_worker.identity import Identity
from protocol import messages as m
from protocol.errors import ErrorCode
from protocol.lifecycle import WorkerState
from protocol.table import MachineName
from tests.e2e.lab import Lab, job_id, open_lab
from tests.rows.native_peer import NativePeer
from tests.rows.steps import Steps

LINK = MachineName.LINK


async def good_client_is_served(lab: Lab) -> None:
    async with lab.client() as client:
        assert (await client.status()).state is WorkerState.AVAILABLE


# --- words before a proof -----------------------------------------------------------------------


def an_older_version(peer: NativePeer) -> None:
    peer.say(peer.hello(versions=(99,)))


def no_session(peer: NativePeer) -> None:
    peer.say(peer.hello(session=""))


def two_hellos(peer: NativePeer) -> None:
    hello = peer.hello()
    peer.say(hello)
    peer.say(hello)


def a_proof_of_nobody(peer: NativePeer) -> None:
    peer.say(m.Proof(signature="c2ln"))


def a_proof_of_somebody_else(peer: NativePeer) -> None:
    peer.say(peer.hello())
    peer.say(m.Proof(signature="c2ln"))


def a_request(peer: NativePeer) -> None:
    peer.say(m.WorkerGet())


def nonsense(peer: NativePeer) -> None:
    peer.say_text("GET / HTTP/1.1")


def nothing(_peer: NativePeer) -> None:
    pass


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        pytest.param(says, sentence, marks=pytest.mark.drives(f"link {row}"), id=says.__name__)
        for says, sentence, row in (
            (no_session, "the client named no session: two of that kind would be one", "L59"),
            (an_older_version, "no protocol version in common: update the older side", "L15"),
            (two_hellos, "the peer said hello twice", "L16"),
            (a_proof_of_nobody, "the peer proved a key that it had not named", "L18"),
            (
                a_proof_of_somebody_else,
                "the proof does not belong to this key and this connection",
                "L20",
            ),
            (a_request, "the peer spoke before it had proved its key", "L22"),
            (nonsense, "the peer sent what is no message", "L23"),
            (nothing, "the peer did not prove its key in time", "L24"),
        )
    ],
)
async def test_a_client_that_does_not_prove_itself_hears_what_it_did_wrong_and_is_let_go(
    tmp_path: Path, says: Callable[[NativePeer], None], sentence: str
) -> None:
    timers = {Timer.AUTH: 0.2} if says is nothing else {}
    async with asyncio.timeout(20), open_lab(tmp_path, timers=timers) as lab:
        async with NativePeer.dials(lab.session, lab.identity) as peer:
            await peer.opens()
            says(peer)
            assert await peer.is_refused() == sentence
            await peer.is_let_go()
            assert not peer.told(m.Welcome)
