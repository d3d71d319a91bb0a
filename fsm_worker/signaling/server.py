"""The port: uvicorn in the caller's event loop, without its signal handlers and its ticking."""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import uvicorn

from fsm_worker.signaling.app import Routes
from fsm_worker.signaling.connections import PeerProtocol, RequestProtocol
from fsm_worker.signaling.hub import Hub
from fsm_worker.signaling.limits import Limits
from fsm_worker.signaling.nearness import is_loopback
from fsm_worker.signaling.trust import Trust
from protocol.signaling import MAX_FRAME, IceServer


class CannotListen(Exception):
    """The address cannot be listened on; the sentence says what to do."""


class PortTaken(CannotListen):
    """Another program listens on this port: stop it, or choose another port."""


class ListenOnLoopback(CannotListen):
    """Unchecked JWTs are taken on loopback only: listen there, or name a key to check them with."""


class SignalingServer:
    """A signaling server as an async context manager; HTTP and WebSocket on one port.

    Args:
        host: address or name to listen on; loopback unless the operator chose otherwise.
        port: TCP port; 0 takes any free one.
        ice_servers: STUN and TURN servers that peers are told of.
        trust: whose JWTs and API keys are believed; nobody's unless the operator says so.
        limits: how much of everything is taken.
        clock: monotonic seconds.
        wall: seconds since 1970.
        key: under which names and rooms prove themselves, 32 bytes: with the same one, peers come
            back after a restart. None makes one for this run.

    Entering raises `PortTaken`, `ListenOnLoopback` or `CannotListen`. Leaving closes all
    connections (code 1012, RFC 6455 registry: service restart) and returns when they are gone, also
    if the task is cancelled meanwhile.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ice_servers: Sequence[IceServer] = (),
        trust: Trust | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        key: bytes | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._limits = limits or Limits()
        self._trust = trust or Trust()
        self._hub = Hub(self._limits, ice_servers, self._trust, clock, wall, key=key)
        self._clock = clock
        self._server: uvicorn.Server | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._lost = asyncio.Event()  # set whenever a connection is gone

    @property
    def port(self) -> int:
        """The port that is listened on; the one asked for until then."""
        return self._port

    @property
    def http_url(self) -> str:
        """Base URL for HTTP, as seen from this machine."""
        return f"http://{self._reachable_host()}:{self._port}"

    @property
    def ws_url(self) -> str:
        """URL for WebSockets, as seen from this machine."""
        return f"ws://{self._reachable_host()}:{self._port}"

    async def __aenter__(self) -> Self:
        """Listens.

        Raises:
            PortTaken: another program has the port.
            ListenOnLoopback: it would take unchecked JWTs from other machines.
            CannotListen: the address is not one of this machine, or is not allowed.
            RuntimeError: entered twice.
        """
        if self._server is not None:
            raise RuntimeError("a SignalingServer is entered once: make a new one")
        listener = await _listen(self._host, self._port)
        try:
            address, self._port = listener.getsockname()[:2]
            self._check_reach(address)
            self._server = self._uvicorn()
            await self._server.startup(sockets=[listener])
        except BaseException:
            listener.close()
            raise
        self._schedule_tick()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes everything; takes at most about `shutdown_s`."""
        closing = asyncio.create_task(self._close(), name="signaling server closes")
        cancelled = False
        while not closing.done():
            try:
                await asyncio.wait({closing})
            except asyncio.CancelledError:
                # Leaving half closed sockets behind would be worse than leaving a little later.
                cancelled = True
                self._cut_all()
        closing.result()
        if cancelled:
            raise asyncio.CancelledError

    def _check_reach(self, address: str) -> None:
        if self._trust.unchecked and not is_loopback(address):
            raise ListenOnLoopback(
                f"whoever reaches {address} could come in under any name, because JWTs are taken "
                "unchecked: listen on 127.0.0.1, or name the key that they are signed with"
            )

    def _uvicorn(self) -> uvicorn.Server:
        routes = Routes(self._hub, self._limits, self._clock)
        config = uvicorn.Config(
            routes.app(),
            http=RequestProtocol,
            ws=PeerProtocol,
            # Frames above our own bound are still answered; beyond this the connection is failed.
            ws_max_size=4 * MAX_FRAME,
            ws_ping_interval=self._limits.socket_ping_s,
            ws_ping_timeout=self._limits.socket_ping_s,
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=2 * self._limits.connections,
        )
        config.load()
        server = uvicorn.Server(config)
        # `serve()` would take over SIGINT and SIGTERM, and poll ten times a second: it is never
        # called. What it does before `startup()` is this.
        server.lifespan = config.lifespan_class(config)
        # uvicorn hands this dict to every connection.
        server.lifespan.state.update(
            lost=self._lost.set, request_within_s=self._limits.request_within_s
        )
        return server

    def _schedule_tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._tick = loop.call_later(self._limits.ping_every_s, self._ticked)

    def _ticked(self) -> None:
        self._hub.tick()
        self._schedule_tick()

    async def _close(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        if self._server is None:
            return
        state = self._server.server_state
        for listener in self._server.servers:
            listener.close()
        # A connection that was accepted just before gets its protocol in one of the next turns of
        # the loop, and there is no event for it.
        for _ in range(5):
            await asyncio.sleep(0)
        cut = asyncio.get_running_loop().call_later(self._limits.shutdown_s, self._cut_all)
        try:
            for connection in tuple(state.connections):
                connection.shutdown()
            while state.connections:
                self._lost.clear()
                await self._lost.wait()
            if state.tasks:
                await asyncio.wait(state.tasks)
        finally:
            cut.cancel()

    def _cut_all(self) -> None:
        if self._server is not None:
            for connection in tuple(self._server.server_state.connections):
                connection.transport.abort()

    def _reachable_host(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self._host, self._host)  # noqa: S104 - compared with, not bound
        return f"[{host}]" if ":" in host else host


async def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:  # getaddrinfo would take the remainder
        raise CannotListen(f"{port} is no port: choose one from 0 to 65535")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot carry
        raise CannotListen(
            f"{host!r} is no address of this machine: listen on 127.0.0.1, or on an address that "
            "`ip addr` or `ipconfig` shows"
        ) from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            # Only skips the wait after an earlier run here; on Windows it would share the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    if error.errno == errno.EADDRINUSE:
        return PortTaken(
            f"port {port} of {host} is taken by another program: stop that one, or choose another "
            "port (0 takes any free one)"
        )
    if error.errno == errno.EACCES:
        return CannotListen(
            f"this user may not listen on port {port} of {host}: choose a port above 1023"
        )
    return CannotListen(
        f"cannot listen on port {port} of {host} ({error.strerror}): choose an address of this "
        "machine"
    )
