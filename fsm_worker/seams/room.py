"""How a worker gets into a room, and the string that leads a client there."""

from fsm_worker.seams.signaling_socket import create_room, http_url_for, sign_in
from protocol.proof import SessionString, to_text


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
