"""A client of the native dialect that is played by hand, so that it can say what no client says."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Self, TypeVar

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from websockets.asyncio.client import connect

from fsm_worker.identity import Identity
from fsm_worker.seams.channels import fingerprint
from fsm_worker.seams.gathering import closed, gathered
from protocol import CONTROL_LABEL, NATIVE_SUBPROTOCOL
from protocol import messages as m
from protocol.codec import Frame, decode, encode
from protocol.proof import SessionString, from_text, invitation, to_text, transcript
from protocol.table import ROW_OF, Direction, Replay

PATIENCE_S = 10.0  # only a failing test waits that long
SESSION = "s-played-by-hand"

K = TypeVar("K", bound=m.Message)


class NativePeer:
    """One link of a client, from its offer to its end; it does nothing that it is not told to.

    Args:
        session: where the worker is.
        identity: our key.

    Attributes:
        heard: what came on the control channel, in order.
        refusal: what came by signaling from the worker, where there is no link.
        answered: the worker's answer has come.
        over: the channel is closed.
    """

    def __init__(self, session: SessionString, identity: Identity) -> None:
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel: RTCDataChannel = self.pc.createDataChannel(
            CONTROL_LABEL, protocol=NATIVE_SUBPROTOCOL
        )
        self.heard: list[m.Message] = []
        self.refusal: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.answered = asyncio.Event()
        self.over = asyncio.Event()
        self._where = session
        self._identity = identity
        self._opened = asyncio.Event()
        self._moved = asyncio.Event()
        self._ours: m.Hello | None = None
        self._numbers = 0
        self.channel.on("open", self._opened.set)
        self.channel.on("close", self._closed)
        self.channel.on("message", self._take)

    @classmethod
    @contextlib.asynccontextmanager
    async def dials(
        cls,
        session: SessionString,
        identity: Identity,
        *,
        change: Callable[[str], str] = lambda sdp: sdp,
        takes_answer: bool = True,
        name: str = "played",
    ) -> AsyncIterator[Self]:
        """Comes into the worker's room and makes its offer.

        Args:
            session: where the worker is.
            identity: our key.
            change: makes another offer of the good one.
            takes_answer: goes on with the answer; otherwise it only notes that there is one.
            name: in the room.
        """
        peer = cls(session, identity)
        try:
            async with connect(session.url, proxy=None) as socket, asyncio.TaskGroup() as group:
                register = {"type": "register", "peer_id": name, "room_id": session.room}
                await socket.send(json.dumps({**register, "token": session.token}))
                await gathered(peer.pc, await peer.pc.createOffer())
                sdp = change(peer.pc.localDescription.sdp)
                offer = {"type": "offer", "sender": name, "target": session.peer, "sdp": sdp}
                await socket.send(json.dumps(offer, ensure_ascii=False))
                reading = group.create_task(peer._signals(socket, takes_answer))
                yield peer
                reading.cancel()
        finally:
            await closed(peer.pc)

    async def _signals(self, socket: Any, takes_answer: bool) -> None:
        async for frame in socket:
            said = json.loads(frame)
            if said["type"] == "answer":
                self.answered.set()
                if takes_answer:
                    answer = RTCSessionDescription(sdp=said["sdp"], type="answer")
                    await self.pc.setRemoteDescription(answer)
            elif said["type"] == "error" and not self.refusal.done():
                self.refusal.set_result(said["message"])

    # --- saying --------------------------------------------------------------------------------

    def say(self, message: m.Message, *, number: int | None = None) -> None:
        """Sends a message; with the next number if it is one that has a number."""
        if number is None:
            numbered = ROW_OF[type(message)].replay is Replay.ALL
            self._numbers += numbered
            number = self._numbers if numbered else 0
        self.say_text(encode(Frame(seq=number, msg=message)))

    def say_text(self, text: str) -> None:
        self.channel.send(text)

    def hello(
        self, session: str = SESSION, generation: int = 1, versions: tuple[int, ...] = (1,)
    ) -> m.Hello:
        self._ours = m.Hello(
            versions=versions,
            role="client",
            key=self._identity.key,
            nonce=to_text(bytes(32)),
            session=session,
            generation=generation,
        )
        return self._ours

    def proof(self, theirs: m.Hello) -> m.Proof:
        """Of our key for this connection, with the invitation."""
        assert self._ours is not None
        here = fingerprint(self.pc.localDescription.sdp)
        there = fingerprint(self.pc.remoteDescription.sdp)
        signed = transcript("client", self._ours, theirs, (here, there))
        return m.Proof(
            signature=self._identity.sign(signed),
            invitation=invitation(from_text(self._where.secret), signed),
        )

    async def comes_in(self, session: str = SESSION, generation: int = 1) -> m.Welcome:
        """Everything up to the worker's welcome; the resume is not said."""
        await self.opens()
        self.say(self.hello(session, generation))
        self.say(self.proof(await self.hears(m.Hello)))
        return await self.hears(m.Welcome)

    async def is_served(self, session: str = SESSION, generation: int = 1) -> m.Welcome:
        """Everything up to the point where the worker answers requests."""
        welcome = await self.comes_in(session, generation)
        self._numbers = welcome.received
        self.say(m.Resume(received=0))
        return welcome

    # --- hearing -------------------------------------------------------------------------------

    async def opens(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self._opened.wait()

    async def is_refused(self) -> str:
        """Waits for the sentence that comes by signaling instead of a link."""
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.shield(self.refusal)

    async def hears(self, kind: type[K], times: int = 1) -> K:
        """Waits until so many messages of a kind have come, and gives the last of them."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.told(kind)) < times:
                self._moved.clear()
                await self._moved.wait()
        return self.told(kind)[times - 1]

    async def moves(self) -> None:
        """Waits until something more has come, or the link is over."""
        self._moved.clear()
        async with asyncio.timeout(PATIENCE_S):
            await self._moved.wait()

    async def is_let_go(self) -> None:
        """Waits until the worker has closed the link."""
        async with asyncio.timeout(PATIENCE_S):
            await self.over.wait()

    def told(self, kind: type[K]) -> list[K]:
        return [message for message in self.heard if isinstance(message, kind)]

    def _take(self, data: str | bytes) -> None:
        self.heard.append(decode(data, Direction.TO_CLIENT).msg)
        self._moved.set()

    def _closed(self) -> None:
        self.over.set()
        self._moved.set()
