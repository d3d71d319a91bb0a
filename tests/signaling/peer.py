"""A peer on a real WebSocket that may say anything, and what tests need to bring one in."""

import asyncio
import contextlib
import json
import socket
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from fsm_worker.seams.signaling_socket import create_room, sign_in
from fsm_worker.signaling.server import SignalingServer
from protocol.signaling import Room, SignIn

PATIENCE_S = 5.0  # only a failing test waits that long


class RawPeer:
    """Speaks dicts, text or bytes, whatever the protocol thinks of it."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    @classmethod
    async def connect(cls, server: SignalingServer, **options: Any) -> Self:
        return cls(await connect(server.ws_url, max_size=None, proxy=None, **options))

    async def send(self, frame: dict[str, Any] | str | bytes) -> None:
        await self.connection.send(json.dumps(frame) if isinstance(frame, dict) else frame)

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            answer = json.loads(await self.connection.recv())
        assert isinstance(answer, dict)
        return answer

    async def ask(self, frame: dict[str, Any] | str | bytes) -> dict[str, Any]:
        await self.send(frame)
        return await self.receive()

    async def close_code(self) -> int | None:
        """Waits until the server has closed the connection."""
        async with asyncio.timeout(PATIENCE_S):
            await self.connection.wait_closed()
        return self.connection.close_code

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()


async def owner_and_room(server: SignalingServer) -> tuple[SignIn, Room]:
    owner = await sign_in(server.http_url)
    return owner, await create_room(server.http_url, owner.id_token)


async def entered(server: SignalingServer, room: Room, peer_id: str, **fields: Any) -> RawPeer:
    """A peer that is in the room."""
    peer = await RawPeer.connect(server)
    answer = await peer.ask(register(room, peer_id, **fields))
    assert answer["type"] == "registered_auth", answer
    return peer


def ask_to_enter(peer_id: str, **fields: Any) -> dict[str, Any]:
    """A registration that is not this project's own: exactly these fields."""
    return {"type": "register", "peer_id": peer_id, **fields}


def register(room: Room, peer_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "register",
        "peer_id": peer_id,
        "room_id": room.room_id,
        "token": room.token,
        **fields,
    }


def offer(sender: str, target: str, sdp: Any = "v=0\r\n") -> dict[str, Any]:
    return {"type": "offer", "sender": sender, "target": target, "sdp": sdp}


def discover(peer_id: str, **filters: Any) -> dict[str, Any]:
    return {"type": "discover_peers", "from_peer_id": peer_id, "filters": filters}


async def deaf_peer(
    server: SignalingServer, first: dict[str, Any]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Registers, and afterwards neither answers pings nor reads, until the test does."""
    # asyncio reads ahead only as far as `limit`, and the kernel as far as its buffer.
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.connect(("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=own, limit=1024)
    protocol = ClientProtocol(parse_uri(server.ws_url))
    protocol.send_request(protocol.connect())
    writer.writelines(protocol.data_to_send())
    protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
    assert protocol.handshake_exc is None
    protocol.send_text(json.dumps(first).encode())
    writer.writelines(protocol.data_to_send())
    assert b"registered_auth" in await reader.readuntil(b"}")
    return reader, writer


async def read_to_the_end(reader: asyncio.StreamReader) -> None:
    """Waits until the other side has ended the connection, in whatever way."""
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 16):
                pass
