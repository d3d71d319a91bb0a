"""Who is in a room of a signaling server, as the server tells it.

What a room tells is a hint: a worker is trusted for its key, which its session string names.
"""

import asyncio

from fsm_worker.seams.signaling_socket import SignalingSocket, http_url_for, sign_in
from protocol.proof import SessionString
from protocol.signaling import (
    DiscoverPeers,
    Error,
    Filters,
    PeerInfo,
    PeerList,
    Register,
    RegisteredAuth,
    SignalingCode,
    SignalingRefused,
)

#: Seconds that a signaling server may take for everything. No timer of a machine: there is none
#: before a worker was found.
PATIENCE = 10.0


async def workers_in_room(session: SessionString) -> tuple[PeerInfo, ...]:
    """Asks the server which workers are in a session's room.

    Args:
        session: names server, room and the room's token.

    Returns:
        The workers, and what they publish of themselves.

    Raises:
        SignalingUnreachable: no signaling server answers there.
        SignalingClosed: it ended the connection.
        SignalingRefused: it does not let us into that room.
        TimeoutError: it does not answer in `PATIENCE`.
    """
    async with asyncio.timeout(PATIENCE):
        who = await sign_in(http_url_for(session.url))
        async with await SignalingSocket.connect(session.url) as socket:
            await socket.send(
                Register(
                    peer_id=who.username,
                    room_id=session.room,
                    token=session.token,
                    id_token=who.id_token,
                    role="client",
                )
            )
            async for message in socket.messages():
                match message:
                    case RegisteredAuth():
                        asked = Filters(role="worker", room_id=session.room)
                        await socket.send(DiscoverPeers(from_peer_id=who.username, filters=asked))
                    case PeerList(peers=peers):
                        return peers
                    case Error(code=code, message=text) if not message.sender:
                        known = SignalingCode(code) if code in set(SignalingCode) else None
                        raise SignalingRefused(
                            known or SignalingCode.NOT_AUTHORISED, text or message.reason
                        )
    return ()
