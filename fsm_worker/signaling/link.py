"""One connected peer: what waits to be sent to it, and how its connection ends."""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import IntEnum

from starlette.websockets import WebSocket, WebSocketDisconnect

from fsm_worker.signaling.limits import Bucket, Limits
from fsm_worker.signaling.room import Registration
from protocol.signaling import FromServer, SignalingCode, encode


class CloseCode(IntEnum):
    """Why this server closed a connection (RFC 6455, 7.4.2: 4000-4999 are for private use)."""

    SUPERSEDED = 4001
    REMOVED = 4002  # the peer or its room was deleted
    NEVER_REGISTERED = 4003


class Link:
    """The sending half of one WebSocket, with a bounded queue that never blocks who fills it.

    A peer that does not read is cut off as soon as the queue is full: others must not wait for
    it, and what it missed can't be skipped.

    Attributes:
        registration: who this is, once registered.
        direct: it came from a program on this machine, as far as one can see.
        rate: of what it sends.
        overflowed: it was cut off because it does not read.
        refused: codes of what it was refused so far.

    Args:
        websocket: accepted.
        abort: ends the connection at once, whatever waits in its buffers.
        limits: of the queue and of the rate.
        clock: monotonic seconds.
        direct: it came from a program on this machine, as far as one can see.
    """

    def __init__(
        self,
        websocket: WebSocket,
        abort: Callable[[], None],
        limits: Limits,
        clock: Callable[[], float],
        *,
        direct: bool,
    ) -> None:
        self.direct = direct
        self.registration: Registration | None = None
        self.rate = Bucket(limits.message_rate, limits.message_burst, clock)
        self.overflowed = False
        self.refused: set[SignalingCode] = set()
        self._websocket = websocket
        self._abort = abort
        self._limits = limits
        self._waiting: deque[str] = deque()
        self._length = 0
        self._wake = asyncio.Event()
        self._ending: tuple[CloseCode, str] | None = None
        self._cut: asyncio.TimerHandle | None = None

    def send(self, message: FromServer) -> None:
        """Queues a message of the server's own."""
        self.post(encode(message))

    def post(self, text: str) -> None:
        """Queues a frame, or cuts the peer off if its queue is full."""
        if self._ending is not None or self.overflowed:
            return
        self._length += len(text)
        if (
            len(self._waiting) >= self._limits.outgoing_messages
            or self._length > self._limits.outgoing_length
        ):
            self.overflowed = True
            self._waiting.clear()
            self._abort()
            return
        self._waiting.append(text)
        self._wake.set()

    def end(self, code: CloseCode, reason: str) -> None:
        """Closes the connection after what is queued, and at the latest in `close_within_s`."""
        if self._ending is None and not self.overflowed:
            self._ending = (code, reason)
            self._wake.set()
            loop = asyncio.get_running_loop()
            self._cut = loop.call_later(self._limits.close_within_s, self._abort)

    def release(self) -> None:
        """The connection is gone: nothing is left to be cut off."""
        if self._cut is not None:
            self._cut.cancel()

    async def pump(self) -> None:
        """Sends what is queued until the connection ends."""
        try:
            await self._pump()
        except WebSocketDisconnect:
            pass  # the reading half hears of it too, and ends the connection
        except RuntimeError:
            # How uvicorn says that it closed the connection itself (a frame beyond all bounds, no
            # pong) between two of our frames.
            self._abort()

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                text = self._waiting.popleft()
                self._length -= len(text)
                await self._websocket.send_text(text)
            if self._ending is not None:
                await self._websocket.close(*self._ending)
                return
