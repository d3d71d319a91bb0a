"""Laws of a link's channels: bulk never holds up what is not bulk, and no order is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection

from fsm_worker.seams.channels import HIGH_WATER, Channels
from fsm_worker.seams.loopback import allow_loopback
from protocol import BULK_LABEL, CONTROL_LABEL, LOG_LABEL

LABELS = (CONTROL_LABEL, LOG_LABEL, BULK_LABEL)
CHUNK = bytes(60 * 1024)
#: Chunks that aiortc has taken out of its queue already: one, and what is under way.
TAKEN = 4


class Ear:
    """What comes out at the other end, in order: the label and the message."""

    def __init__(self, pc: RTCPeerConnection) -> None:
        self.heard: list[tuple[str, str | bytes]] = []
        self._more = asyncio.Event()
        pc.on("datachannel", self._listen)

    def _listen(self, channel: RTCDataChannel) -> None:
        channel.on("message", lambda data: self._hear(channel.label, data))

    def _hear(self, label: str, data: str | bytes) -> None:
        self.heard.append((label, data))
        self._more.set()

    async def until(self, count: int) -> None:
        while len(self.heard) < count:
            self._more.clear()
            await self._more.wait()


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Channels, Ear]]:
    """The channels of one end, all open, and who hears at the other."""
    allow_loopback()
    near, far = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    channels, ear = Channels(), Ear(far)
    opened = []
    for label in LABELS:
        channel = near.createDataChannel(label)
        channels.add(label, channel)
        opened.append(asyncio.Event())
        channel.on("open", opened[-1].set)
    try:
        await near.setLocalDescription(await near.createOffer())
        await far.setRemoteDescription(near.localDescription)
        await far.setLocalDescription(await far.createAnswer())
        await near.setRemoteDescription(far.localDescription)
        for event in opened:
            await event.wait()
        yield channels, ear
    finally:
        await near.close()
        await far.close()


@pytest.mark.parametrize("label", [CONTROL_LABEL, LOG_LABEL])
async def test_what_is_not_bulk_goes_before_the_chunks_that_wait(label: str) -> None:
    async with asyncio.timeout(30), connected() as (channels, ear):
        chunks = 0
        while not channels.full(BULK_LABEL):
            assert channels.send(BULK_LABEL, CHUNK)
            chunks += 1
        assert chunks * len(CHUNK) >= HIGH_WATER
        assert channels.send(label, "cancel")
        await ear.until(chunks + 1)
    assert ear.heard.index((label, "cancel")) <= TAKEN


async def test_no_other_order_is_lost() -> None:
    sent: dict[str, list[str | bytes]] = {label: [] for label in LABELS}
    async with asyncio.timeout(30), connected() as (channels, ear):
        for number in range(60):
            label = LABELS[number % 3]
            data = CHUNK + bytes([number]) if label == BULK_LABEL else str(number)
            assert channels.send(label, data)
            sent[label].append(data)
        await ear.until(60)
    for label in LABELS:
        assert [data for where, data in ear.heard if where == label] == sent[label]
    others = [data for where, data in ear.heard if where != BULK_LABEL]
    assert others == sorted(others, key=int)
