"""A link that does not come up: whoever dials hears why, in words, and is let go."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aioice import stun

from fsm_worker.events import Timer
from protocol import messages as m
from tests.e2e.lab import open_lab
from tests.rows.native_peer import NativePeer

# --- the way to a connection --------------------------------------------------------------------


class SlowStunServer(asyncio.DatagramProtocol):
    """Answers nothing until it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._waiting: list[tuple[stun.Message, tuple[str, int]]] = []
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._waiting.append((stun.parse_message(data), addr))
        self.asked.set()

    def answers(self) -> None:
        for request, address in self._waiting:
            said = stun.Message(
                message_method=request.message_method,
                message_class=stun.Class.RESPONSE,
                transaction_id=request.transaction_id,
            )
            said.attributes["XOR-MAPPED-ADDRESS"] = address
            self._transport.sendto(bytes(said), address)


@pytest.mark.drives("link L6")
async def test_an_offer_that_the_worker_can_t_answer_in_time_is_refused_in_words(
    tmp_path: Path,
) -> None:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(SlowStunServer, ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    async with (
        asyncio.timeout(20),
        open_lab(
            tmp_path, timers={Timer.NEGOTIATION: 0.2}, ice_servers=(f"stun:127.0.0.1:{port}",)
        ) as lab,
        NativePeer.dials(lab.session, lab.identity) as peer,
    ):
        await server.asked.wait()
        assert await peer.is_refused() == "no answer came through signaling"
        server.answers()  # so that nobody waits for it
    transport.close()


@pytest.mark.drives("link L51")
async def test_an_offer_that_can_t_be_read_is_refused_with_the_word_that_means_nothing(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path) as lab,
        NativePeer.dials(
            lab.session,
            lab.identity,
            change=lambda sdp: sdp.replace("a=setup:actpass", "a=setup:nobody"),
        ) as peer,
    ):
        assert await peer.is_refused() == "handle_connection: 'nobody'"


def connection_of(peer: NativePeer) -> Any:
    assert peer.pc.sctp is not None
    return peer.pc.sctp.transport.transport._connection


@pytest.mark.drives("link L8")
async def test_a_client_on_whose_every_path_the_checks_are_refused_hears_that_there_is_none(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path) as lab,
        NativePeer.dials(lab.session, lab.identity, takes_answer=False) as peer,
    ):
        ice, held = connection_of(peer), list[Any]()

        def refuse(*check: Any) -> None:
            ice.respond_error(*check, (430, "no"))

        ice.request_received = lambda *check: held.append(check)
        await peer.answered.wait()
        ice.request_received = refuse
        for check in held:
            refuse(*check)
        assert await peer.is_refused() == "no network path between the two sides"


@pytest.mark.drives("link L9")
async def test_a_client_that_never_gets_the_answer_hears_that_no_path_was_found_in_time(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path, timers={Timer.ICE: 0.3}) as lab,
        NativePeer.dials(lab.session, lab.identity, takes_answer=False) as peer,
    ):
        assert await peer.is_refused() == "no network path was found in time"


@pytest.mark.drives("link L12")
async def test_a_client_that_finds_a_path_and_does_not_secure_it_is_let_go_in_time(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path, timers={Timer.DTLS: 0.2}) as lab,
        NativePeer.dials(lab.session, lab.identity) as peer,
    ):
        assert peer.pc.sctp is not None
        dtls = peer.pc.sctp.transport

        async def says_nothing(_theirs: object) -> None:
            return

        dtls.start = says_nothing
        assert await peer.is_refused() == "the DTLS handshake took too long"


def another_certificate(sdp: str) -> str:
    """As whoever carries the offer could write it, to stand in the middle."""
    return re.sub(r"(a=fingerprint:\S+ )(\S\S)", lambda found: found[1] + "00", sdp)


@pytest.mark.drives("link L50")
async def test_a_client_whose_certificate_is_not_that_of_its_offer_gets_no_link(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path) as lab,
        NativePeer.dials(lab.session, lab.identity, change=another_certificate) as peer,
    ):
        assert await peer.is_refused() == "the network path was lost"
        assert not peer.heard


@pytest.mark.drives("link L48")
async def test_a_client_that_goes_while_the_connection_is_made_leaves_no_link_behind(
    tmp_path: Path,
) -> None:
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path) as lab,
        NativePeer.dials(lab.session, lab.identity) as peer,
    ):
        assert peer.pc.sctp is not None
        sctp = peer.pc.sctp

        async def goes(*_: object) -> None:
            await sctp.transport.stop()  # DTLS stands, and no channel is there yet

        sctp.start = goes
        assert await peer.is_refused() == "the connection was closed"
        assert not lab.worker._peers


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
    async with (
        asyncio.timeout(20),
        open_lab(tmp_path, timers=timers) as lab,
        NativePeer.dials(lab.session, lab.identity) as peer,
    ):
        await peer.opens()
        says(peer)
        assert await peer.is_refused() == sentence
        await peer.is_let_go()
        assert not peer.told(m.Welcome)
