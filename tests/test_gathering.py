"""Peer connections that are closed at the worst of moments leave nothing that goes on."""

import asyncio

import pytest
from aioice.ice import Connection
from aiortc import RTCConfiguration, RTCPeerConnection

from fsm_worker.seams.gathering import closed, gathered
from fsm_worker.seams.loopback import allow_loopback


async def test_a_path_that_is_found_while_its_connection_is_closed_asks_for_no_consent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow_loopback()
    before = asyncio.all_tasks()
    ours, theirs = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    found = asyncio.Event()
    over = asyncio.Event()
    search, connect = Connection._check_periodic, Connection.connect

    def looks_again_later(self: Connection) -> bool:
        """A path is found, and aioice sees it after the 20 ms in which we close it."""
        more = bool(search(self))
        if self.ice_controlling and self._check_list_done:
            found.set()
            return not self._closed
        return more

    async def connects(self: Connection) -> None:
        await connect(self)
        if self.ice_controlling:
            over.set()

    monkeypatch.setattr(Connection, "connect", connects)
    monkeypatch.setattr(Connection, "_check_periodic", looks_again_later)
    ours.createDataChannel("any")
    await gathered(ours, await ours.createOffer())
    await theirs.setRemoteDescription(ours.localDescription)
    await gathered(theirs, await theirs.createAnswer())
    await ours.setRemoteDescription(theirs.localDescription)
    async with asyncio.timeout(10):
        await found.wait()
        await closed(ours)
        await over.wait()
        await closed(theirs)
    left = [task for task in asyncio.all_tasks() - before if "query_consent" in repr(task)]
    assert left == []
