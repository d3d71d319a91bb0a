"""A client of sleap-rtc 0.0.7's package flow: a real connection, and its frames byte for byte.

It registers as `RTCTrackClient` does, opens one channel without a sub-protocol, and reads what
comes as that client does: bytes belong to the file that `FILE_META::` announced last.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from websockets.asyncio.client import connect

from protocol.proof import SessionString

PATIENCE_S = 30.0  # only a failing test waits that long
PACKET = 32 * 1024


class SleapClient:
    """One client, from its offer to its end.

    Args:
        pc: its connection.

    Attributes:
        texts: what it was told, in order.
        files: what it was sent, by name.
        server_errors: what came by signaling instead of an answer.
        words: what the worker said by signaling, in order.
    """

    def __init__(self, pc: RTCPeerConnection) -> None:
        self.pc = pc
        self.channel = pc.createDataChannel("my-data-channel")
        self.texts: list[str] = []
        self.files: dict[str, bytes] = {}
        self.folders: list[str] = []
        self.keep_alives = 0
        self.server_errors: list[dict[str, Any]] = []
        self.words: list[dict[str, Any]] = []
        self._write: Callable[[dict[str, Any]], Awaitable[None]]
        self.closed = asyncio.Event()
        self._opened = asyncio.Event()
        self._moved = asyncio.Event()
        self._arriving: tuple[str, int, bytearray] | None = None
        self.channel.on("open", self._opened.set)
        self.channel.on("close", self._over)
        self.channel.on("message", self._take)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, session: SessionString, name: str = "user", *, answered: bool = True
    ) -> AsyncIterator[Self]:
        """Comes into the worker's room, and connects to it."""
        client = cls(RTCPeerConnection(RTCConfiguration(iceServers=[])))
        try:
            async with connect(session.url, proxy=None) as socket, asyncio.TaskGroup() as group:

                async def write(payload: dict[str, Any]) -> None:
                    message = {"type": "peer_message", "payload": payload}
                    to = {"from_peer_id": name, "to_peer_id": session.peer}
                    await socket.send(json.dumps({**message, **to}))

                client._write = write
                register = {"type": "register", "peer_id": name, "room_id": session.room}
                await socket.send(json.dumps({**register, "token": session.token, "jwt": "x.y.z"}))
                await client.pc.setLocalDescription(await client.pc.createOffer())
                offer = {"type": "offer", "sender": name, "target": session.peer}
                sdp = client.pc.localDescription.sdp
                await socket.send(json.dumps({**offer, "sdp": sdp}))
                reading = group.create_task(client._signals(socket))
                if answered:
                    async with asyncio.timeout(PATIENCE_S):
                        await client._opened.wait()
                yield client
                reading.cancel()
        finally:
            await client.pc.close()

    async def _signals(self, socket: Any) -> None:
        async for frame in socket:
            said = json.loads(frame)
            if said["type"] == "answer":
                await self.pc.setRemoteDescription(
                    RTCSessionDescription(sdp=said["sdp"], type="answer")
                )
            elif said["type"] == "error":
                self.server_errors.append(said)
                self._moved.set()
            elif said["type"] == "peer_message":
                self.words.append(said["payload"])
                self._moved.set()

    # --- saying --------------------------------------------------------------------------------

    def say(self, *frames: str | bytes) -> None:
        for frame in frames:
            self.channel.send(frame)

    async def negotiate(self, word: str, label: str, **fields: Any) -> None:
        """Says something through the signaling server."""
        await self._write({"app_message_type": word, "job_id": label, **fields})

    async def send_file(self, data: bytes) -> None:
        for start in range(0, len(data), PACKET):
            if self.channel.bufferedAmount > 1024 * 1024:
                await asyncio.sleep(0.1)  # as sleap-rtc does, which waits for 16 MB
            self.channel.send(data[start : start + PACKET])

    async def submit(
        self,
        data: bytes,
        name: str = "digits.zip",
        *,
        kind: str = "train",
        folder: str = "models",
        gui: str = "False",
        size: int | None = None,
    ) -> None:
        """The whole package flow, up to the end of the file."""
        self.say(f"PACKAGE_TYPE::{kind}", f"OUTPUT_DIR::{folder}")
        self.say(f"FILE_META::{name}:{len(data) if size is None else size}:{gui}")
        await self.send_file(data)
        self.say("END_OF_FILE")

    # --- hearing -------------------------------------------------------------------------------

    def _take(self, data: str | bytes) -> None:
        if isinstance(data, bytes):
            if data == b"KEEP_ALIVE":
                self.keep_alives += 1
            elif self._arriving is None:
                raise AssertionError("bytes came that no FILE_META had announced")
            else:
                self._arriving[2].extend(data)
        elif data == "END_OF_FILE":
            assert self._arriving is not None, "no file was announced"
            name, size, content = self._arriving
            assert len(content) == size
            self.files[name], self._arriving = bytes(content), None
        elif "PROGRESS_REPORT::" in data or "FILE_META::" not in data:
            self.texts.append(data)
        else:
            name, size, folder = data.split("FILE_META::", 1)[1].split(":")
            self.folders.append(folder)
            self._arriving = name, int(size), bytearray()
        self._moved.set()

    def _over(self) -> None:
        self.closed.set()
        self._moved.set()

    async def until(self, holds: Callable[[Self], bool], patience_s: float = PATIENCE_S) -> None:
        """Waits until something is true of what it was told."""
        try:
            async with asyncio.timeout(patience_s):
                while not holds(self):
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            raise AssertionError(f"heard only {self.texts[-20:]}") from None

    async def hears(self, text: str, times: int = 1) -> str:
        """Waits for a text with these words in it, and gives the newest."""
        await self.until(lambda client: len(client.told(text)) >= times)
        return self.told(text)[-1]

    def told(self, text: str) -> list[str]:
        return [said for said in self.texts if text in said]

    async def gets(self, files: int = 1) -> None:
        """Waits for so many files in all."""
        await self.until(lambda client: len(client.files) >= files)
