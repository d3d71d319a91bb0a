"""Opening and closing of peer connections that can be given up without losing a socket or a task.

aioice forgets the sockets of a gathering, or of a closing, that is cancelled in its middle, so that
nobody can close them. Both go on for their own time here, and whoever gave them up waits for them.

A path that is found while its connection is being closed is not noticed to be closed: aioice begins
to ask the peer for its consent, and asks for ever. Such a path is closed once more.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any
from weakref import WeakKeyDictionary

from aiortc import RTCPeerConnection, RTCSessionDescription

#: Seconds in which aioice sees that its search for a path is over; it looks every 20 ms.
_SEARCH_ENDS_S = 2.0
_gathering: "WeakKeyDictionary[RTCPeerConnection, asyncio.Future[None]]" = WeakKeyDictionary()


async def gathered(pc: RTCPeerConnection, description: RTCSessionDescription) -> str:
    """Sets the local description, which opens sockets and asks the STUN servers.

    Args:
        pc: the peer connection.
        description: from its `createOffer` or `createAnswer`.

    Returns:
        The SDP with the candidates; after at most 5 s where a STUN server does not answer.
    """
    await _to_its_end(_gathering, pc, pc.setLocalDescription(description))
    return str(pc.localDescription.sdp)


async def closed(pc: RTCPeerConnection) -> None:
    """Closes a peer connection, after what it is gathering."""
    with contextlib.suppress(ConnectionError):
        await _to_its_end(WeakKeyDictionary(), pc, _close_after(_gathering.get(pc), pc))


async def _close_after(under_way: "asyncio.Future[None] | None", pc: RTCPeerConnection) -> None:
    if under_way is not None:
        await asyncio.wait({under_way})
    path = pc.sctp.transport.transport if pc.sctp is not None else None
    if path is None or path.state != "checking":
        await pc.close()
        return
    searched = asyncio.Event()

    def note() -> None:
        if path.state in {"completed", "failed"}:
            searched.set()

    path.on("statechange", note)
    await pc.close()
    note()
    path.on("statechange", note)  # again: closing has taken it off
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SEARCH_ENDS_S):
            await searched.wait()
    await path.stop()


async def _to_its_end(
    noted: "WeakKeyDictionary[RTCPeerConnection, asyncio.Future[None]]",
    pc: RTCPeerConnection,
    work: Coroutine[Any, Any, None],
) -> None:
    doing = noted[pc] = asyncio.ensure_future(work)
    try:
        await asyncio.shield(doing)
    finally:
        await asyncio.wait({doing})
