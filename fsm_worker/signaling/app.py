"""The routes: a WebSocket on `/`, and the HTTP calls of sleap-rtc's signaling server."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from fsm_worker.signaling.hub import Hub
from fsm_worker.signaling.identities import Caller
from fsm_worker.signaling.limits import AddressRates, Limits
from fsm_worker.signaling.link import CloseCode, Link
from fsm_worker.signaling.nearness import came_directly
from fsm_worker.signaling.room_lists import chosen
from protocol.signaling import SignalingCode, SignalingRefused

#: HTTP status of a refusal; 400 for those not listed.
_STATUS = {
    SignalingCode.NOT_AUTHENTICATED: 401,
    SignalingCode.NOT_AUTHORISED: 403,
    SignalingCode.ROOM_NOT_FOUND: 404,
    SignalingCode.TOO_LARGE: 413,
    SignalingCode.RATE_LIMITED: 429,
    SignalingCode.TOO_MANY_ROOMS: 503,
}


class _Deletion(msgspec.Struct, frozen=True):
    """Body of the two deleting calls."""

    peer_id: str | None = None
    room_id: str | None = None
    id_token: str | None = None  # in place of the header


_DELETION: msgspec.json.Decoder[_Deletion] = msgspec.json.Decoder(_Deletion)


class Routes:
    """Turns connections into calls of the hub.

    Args:
        hub: who knows what they mean.
        limits: of connections, bodies and rates.
        clock: monotonic seconds.
    """

    def __init__(
        self, hub: Hub, limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hub = hub
        self._limits = limits
        self._clock = clock
        self._rates = AddressRates(limits, clock)
        self._connections = 0
        try:
            self._version = metadata.version("fsm-worker")
        except metadata.PackageNotFoundError:  # a source tree on the path, nothing installed
            self._version = "unknown"

    def app(self) -> Starlette:
        """The ASGI application; each connection's scope must carry `state["abort"]`."""
        return Starlette(
            routes=[
                WebSocketRoute("/", self._peer),
                Route("/anonymous-signin", self._sign_in, methods=["POST"]),
                Route("/create-room", self._create_room, methods=["POST"]),
                Route("/delete-peer", self._delete, methods=["POST"]),
                Route("/delete-peers-and-room", self._delete, methods=["POST"]),
                Route("/api/auth/rooms", self._rooms, methods=["GET"]),
                Route("/health", self._health, methods=["GET"]),
                Route("/metrics", self._metrics, methods=["GET"]),
            ],
            exception_handlers={SignalingRefused: _refused},
        )

    async def _peer(self, websocket: WebSocket) -> None:
        if self._connections >= self._limits.connections:
            busy = PlainTextResponse("too many connections: try again later", 503)
            await websocket.send_denial_response(busy)
            return
        self._connections += 1
        try:
            await websocket.accept()
            abort: Callable[[], None] = websocket.scope["state"]["abort"]
            direct = came_directly(websocket.headers)
            link = Link(websocket, abort, self._limits, self._clock, direct=direct)
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(link.pump())
                try:
                    await self._read(websocket, link)
                finally:
                    self._hub.left(link)
                    link.release()
                    pump.cancel()
        except WebSocketDisconnect:
            pass  # gone before it was accepted
        finally:
            self._connections -= 1

    async def _read(self, websocket: WebSocket, link: Link) -> None:
        try:
            async with asyncio.timeout(self._limits.register_within_s) as deadline:
                while (data := await _next_frame(websocket)) is not None:
                    self._hub.received(link, data)
                    # Many frames can arrive in one piece, and reading them does not wait: let
                    # those who are sent something send it, before their queues fill.
                    await asyncio.sleep(0)
                    if link.registration is not None:
                        deadline.reschedule(None)
        except TimeoutError:
            sentence = f"nothing registered within {self._limits.register_within_s:g} s"
            self._hub.refuse(link, SignalingRefused(SignalingCode.NOT_REGISTERED, sentence))
            link.end(CloseCode.NEVER_REGISTERED, sentence)
            while await _next_frame(websocket) is not None:
                pass

    async def _sign_in(self, request: Request) -> Response:
        self._check_rate(request)
        return _json(self._hub.identities.sign_in())

    async def _create_room(self, request: Request) -> Response:
        self._check_rate(request)
        return _json(self._hub.rooms.create(self._known_caller(request)))

    async def _rooms(self, request: Request) -> Response:
        self._check_rate(request)
        rooms = self._hub.rooms.listed(self._known_caller(request))
        return _json(chosen(rooms, request.query_params))

    async def _delete(self, request: Request) -> Response:
        """Removes what the caller proves to be theirs, and answers 200 to everybody else.

        sleap-rtc 0.0.7 says goodbye with a peer id and no credentials, after its socket closed.
        The close has removed that peer already, so there is nothing left to do. Whoever sends the
        same words while the peer is connected is not that peer, or can't show it: peer ids are
        known to the whole room, so doing it would let anybody throw a worker out of its room.
        """
        self._check_rate(request)
        wanted = await self._body(request)
        caller = self._caller(request)
        if caller is None and wanted.id_token:
            caller = self._hub.identities.of_id_token(wanted.id_token)
        removed = 0
        if caller is not None and wanted.room_id:
            removed += self._hub.delete_room(caller, wanted.room_id)
        if caller is not None and wanted.peer_id:
            removed += self._hub.delete_peer(caller, wanted.peer_id)
        return JSONResponse({"status": "ok", "removed": removed})

    async def _health(self, request: Request) -> Response:
        now = datetime.now(UTC).isoformat()
        return JSONResponse({"status": "ok", "timestamp": now, "version": self._version})

    async def _metrics(self, request: Request) -> Response:
        """Prometheus' text format, version 0.0.4."""
        counted = self._hub.counted
        values = {
            "rooms": self._hub.rooms.room_count,
            "peers": self._hub.rooms.peer_count,
            "connections": self._connections,
            "messages_total": counted["messages"],
            "forwarded_total": counted["forwarded"],
            "refused_total": counted["refused"],
            "cut_off_total": counted["cut_off"],
        }
        lines = []
        for name, value in values.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines.append(f"# TYPE fsm_worker_signaling_{name} {kind}\n")
            lines.append(f"fsm_worker_signaling_{name} {value}\n")
        return Response("".join(lines), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _check_rate(self, request: Request) -> None:
        address = request.client.host if request.client else ""
        if not self._rates.take(address):
            raise SignalingRefused(
                SignalingCode.RATE_LIMITED, "too many requests: wait a few seconds and repeat"
            )

    def _caller(self, request: Request) -> Caller | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        direct = came_directly(request.headers)
        return self._hub.identities.of_bearer(token.strip(), direct=direct)

    def _known_caller(self, request: Request) -> Caller:
        caller = self._caller(request)
        if caller is None:
            raise SignalingRefused(
                SignalingCode.NOT_AUTHENTICATED,
                "send `Authorization: Bearer <id_token>`; POST /anonymous-signin gives one",
            )
        return caller

    async def _body(self, request: Request) -> _Deletion:
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_within_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > self._limits.body:
                        raise SignalingRefused(
                            SignalingCode.TOO_LARGE,
                            f"a body has at most {self._limits.body} bytes",
                        )
            return _DELETION.decode(body)
        except (TimeoutError, ClientDisconnect, ValueError, RecursionError) as error:
            raise SignalingRefused(
                SignalingCode.MALFORMED, "the body is a JSON object with `peer_id` or `room_id`"
            ) from error


async def _next_frame(websocket: WebSocket) -> str | bytes | None:
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        return None
    text: str | None = message.get("text")
    return text if text is not None else bytes(message["bytes"])


async def _refused(_: Request, refusal: Exception) -> Response:
    if not isinstance(refusal, SignalingRefused):
        raise TypeError(f"only refusals are answered here, not {type(refusal).__name__}")
    return JSONResponse(
        # `error` is what sleap-rtc shows to its user.
        {"code": str(refusal.code), "message": refusal.sentence, "error": refusal.sentence},
        status_code=_STATUS.get(refusal.code, 400),
    )


def _json(answer: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
