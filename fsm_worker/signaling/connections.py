"""uvicorn's connections, with the bounds in time that they lack.

Both kinds find in their `app_state`, which the server fills:

- `lost`: called without arguments when a connection is gone;
- `request_within_s`: seconds for an HTTP request to arrive;
- `abort` (added here, for the application): ends a WebSocket at once, whatever waits in buffers.
"""

import asyncio
import logging
from asyncio.transports import BaseTransport, Transport
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.server import ServerProtocol

# At DEBUG `websockets` writes frames and headers into its logger, and with them tokens and
# session descriptions. A level of its own keeps that away from whoever asks for DEBUG in general.
_frame_logger = logging.getLogger("fsm_worker.signaling.frames")
_frame_logger.setLevel(logging.INFO)


class PeerProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, with a way to end it that does not wait for a peer to read."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = ServerProtocol(max_size=config.ws_max_size, logger=_frame_logger)

    def connection_made(self, transport: BaseTransport) -> None:
        """Offers `abort` to the application."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": cast("Transport", transport).abort}

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the server."""
        super().connection_lost(exc)
        self.app_state["lost"]()

    def keepalive_timeout(self) -> None:
        """No pong came: whatever waits in the buffer would wait for ever."""
        super().keepalive_timeout()
        self.transport.abort()

    def shutdown(self) -> None:
        """Says goodbye to a peer that reads, and cuts off one that does not."""
        if not self.transport.is_closing():
            super().shutdown()
        if self.transport.get_write_buffer_size():
            self.transport.abort()


class RequestProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, but who begins a request finishes it in time."""

    _overdue: asyncio.TimerHandle | None = None

    # uvicorn narrows the argument's type here, and so must its subclass.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Starts the time for a further request, and ends it when the request is whole."""
        super().data_received(data)
        if self.transport.get_protocol() is self:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the server."""
        self._relax()
        super().connection_lost(exc)
        self.app_state["lost"]()

    def shutdown(self) -> None:
        """Ends an idle connection, and a busy one after its answer."""
        if not self.transport.is_closing():
            super().shutdown()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hands over to `PeerProtocol`, which has its own times."""
        self._relax()
        super().handle_websocket_upgrade(event)

    def _watch(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            self._relax()
        elif self._overdue is None:
            within_s = self.app_state["request_within_s"]
            self._overdue = self.loop.call_later(within_s, self.transport.abort)

    def _relax(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
