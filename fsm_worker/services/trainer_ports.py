"""The two ZMQ ports of one job, and who is connected to them.

A SUB, to which the trainer connects its PUB, and a PUB, to which it connects its SUB; both are
bound on 127.0.0.1 to ports that the kernel chooses, so jobs and workers never collide.
"""

import asyncio
import contextlib
import itertools
from typing import Final

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from protocol.trainer import MAX_MESSAGE, STOP

#: How long a stop that was just asked for may take to leave (ms).
LINGER_MS: Final = 1000
#: Messages that ZMQ holds for us; then it stops reading, and the trainer's side drops.
MAX_WAITING: Final = 1000
#: Above this (bytes) ZMQ itself cuts the connection; up to it we can say why we drop a message.
_MAX_WIRE: Final = 4 * MAX_MESSAGE
_PEER_EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED

_serial = itertools.count()


class TrainerPorts:
    """The ports of one job.

    Args:
        context: of all sockets.

    Attributes:
        peers: who publishes to us.
        publish: where the trainer publishes, as `tcp://127.0.0.1:PORT`.
        control: where it hears of a stop.

    Raises:
        zmq.ZMQError: there is no port, or no file handle, left.
    """

    def __init__(self, context: zmq.asyncio.Context) -> None:
        with contextlib.ExitStack() as opened:
            self._progress = context.socket(zmq.SUB)
            opened.callback(self._progress.close, linger=0)
            self._commands = context.socket(zmq.PUB)
            opened.callback(self._commands.close, linger=LINGER_MS)
            # From before the first connection, or the one that matters might not be counted.
            self.peers = Peers(context, self._progress)
            opened.callback(self.peers.close)
            self._progress.set(zmq.MAXMSGSIZE, _MAX_WIRE)
            self._progress.set(zmq.RCVHWM, MAX_WAITING)
            self._progress.subscribe(b"")
            self.publish = _bind(self._progress)
            self.control = _bind(self._commands)
            self._opened = opened.pop_all()
        # The same sockets, read and written at once or not at all.
        self._inbox: zmq.Socket[bytes] = zmq.Socket.shadow(self._progress)
        self._outbox: zmq.Socket[bytes] = zmq.Socket.shadow(self._commands)

    async def arrival(self) -> None:
        """Waits until there is something to take; takes nothing, so it can be cancelled."""
        await self._progress.poll()

    def take(self) -> bytes | None:
        """The next message, or None if there is none yet."""
        frames = _take(self._inbox)
        return None if frames is None else b"".join(frames)

    def send_stop(self) -> None:
        """Publishes a stop without waiting; lost if nobody listens."""
        with contextlib.suppress(zmq.Again):
            self._outbox.send(STOP, zmq.NOBLOCK)

    def close(self) -> None:
        """Closes both; a stop that was just asked for may still leave."""
        self._opened.close()


class Peers:
    """Who is connected to a socket, from ZMQ's own monitor of it.

    Args:
        context: of all sockets.
        socket: the one that is watched; nobody is connected yet.
    """

    def __init__(self, context: zmq.asyncio.Context, socket: zmq.asyncio.Socket) -> None:
        self._socket = socket
        address = f"inproc://peers-{next(_serial)}"
        self._events = context.socket(zmq.PAIR)
        try:
            socket.monitor(address, _PEER_EVENTS)
        except zmq.ZMQError:
            self._events.close(linger=0)
            raise
        # While nobody watches, a bound here would stop ZMQ's own thread, and so every job.
        self._events.set(zmq.RCVHWM, 0)
        self._events.connect(address)
        self._inbox: zmq.Socket[bytes] = zmq.Socket.shadow(self._events)
        self._connected: set[int] = set()
        self._alone = asyncio.Event()
        self._alone.set()

    async def watch(self) -> None:
        """Follows the comings and goings until it is cancelled."""
        while True:
            await self._events.poll()
            self._look()
            await asyncio.sleep(0)  # `poll` returns at once while there is more

    async def gone(self) -> None:
        """Waits until nobody is connected; what they had sent can be taken then."""
        self._look()
        await self._alone.wait()

    def _look(self) -> None:
        while (frames := _take(self._inbox)) is not None:
            event = parse_monitor_message(frames)
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._connected.add(event["value"])
            else:
                self._connected.discard(event["value"])
        if self._connected:
            self._alone.clear()
        else:
            self._alone.set()

    def close(self) -> None:
        """Ends the watch; the socket stays open."""
        self._socket.disable_monitor()
        self._events.close(linger=0)


def _take(inbox: zmq.Socket[bytes]) -> list[bytes] | None:
    try:
        return inbox.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        return None


def _bind(socket: zmq.asyncio.Socket) -> str:
    socket.bind("tcp://127.0.0.1:*")
    endpoint: str = socket.get_string(zmq.LAST_ENDPOINT)
    return endpoint
