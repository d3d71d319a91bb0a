"""Gathering of ICE candidates that can be given up without losing a socket."""

import asyncio

from aiortc import RTCPeerConnection, RTCSessionDescription


async def gathered(pc: RTCPeerConnection, description: RTCSessionDescription) -> str:
    """Sets the local description, which opens sockets and asks the STUN servers.

    aioice forgets the sockets of a gathering that is cancelled in its middle, so that nobody can
    close them: it goes on for its own time (at most 5 s where a STUN server does not answer), and
    whoever cancelled it closes the peer connection then.

    Args:
        pc: the peer connection.
        description: from its `createOffer` or `createAnswer`.

    Returns:
        The SDP with the candidates.
    """
    gathering = asyncio.ensure_future(pc.setLocalDescription(description))
    try:
        await asyncio.shield(gathering)
    finally:
        await asyncio.wait({gathering})
    return str(pc.localDescription.sdp)
