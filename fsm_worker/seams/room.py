"""How a worker gets into a room, the string that leads a client there, and the offers it makes."""

import secrets

from fsm_worker.events import RecvOffer
from fsm_worker.runtime import Runtime
from fsm_worker.seams.peer_lane import PeerLane
from fsm_worker.seams.signaling_link import RoomWord
from fsm_worker.seams.signaling_socket import create_room, http_url_for, sign_in
from protocol.proof import SessionString, to_text
from protocol.signaling import Offer, PeerMessage
from protocol.table import MachineName

#: Links of a worker at a time, the half-open ones included.
MOST_LINKS = 32


async def enter_room(
    url: str, room: str | None, token: str | None, *, key: str, secret: bytes, public_url: str
) -> tuple[SessionString, str]:
    """Gets a name on a signaling server, and a room if none is given.

    Args:
        url: of the server's websocket.
        room: its id; None makes one.
        token: of the room; None makes a room.
        key: the worker's public key.
        secret: the one-time invitation.
        public_url: of the same server, as clients find it.

    Returns:
        The session string for a client, and the token that proves our peer id.

    Raises:
        SignalingUnreachable: no signaling server answers there.
        SignalingRefused: it gives no name or no room.
    """
    who = await sign_in(http_url_for(url))
    if room is None or token is None:
        made = await create_room(http_url_for(url), who.id_token)
        room, token = made.room_id, made.token
    session = SessionString(
        url=public_url,
        room=room,
        token=token,
        peer=who.username,
        key=key,
        secret=to_text(secret),
    )
    return session, who.id_token


def take_word(runtime: Runtime, lane: PeerLane, message: RoomWord) -> None:
    """An offer begins a link of its own; a peer's message goes to its lane; the rest is nobody's.

    Args:
        runtime: of the worker.
        lane: hears peers that have no link.
        message: what the signaling server brought.
    """
    if isinstance(message, PeerMessage):
        lane.hear(message)
    if not isinstance(message, Offer) or not isinstance(message.sdp, str):
        return
    peer, sdp, about = message.sender, message.sdp, message.link

    def arrived() -> RecvOffer:  # counted when it is decided, not when it came
        room = len(runtime.world.live(MachineName.LINK)) < MOST_LINKS
        return RecvOffer(peer=peer, sdp=sdp, room_for_more=room, about=about)

    runtime.post(MachineName.LINK, f"link-{secrets.token_hex(6)}", arrived)
