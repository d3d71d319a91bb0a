"""A client's machines at work: world, links, session, files and room, wired.

It is to a client what `RTCWorkerClient` is to a worker. Its machines dial again by themselves when
a link is lost.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from fsm_worker.client.dialler import Dialler
from fsm_worker.client.room import ClientRoom
from fsm_worker.effects import Owner
from fsm_worker.events import LinkRefused, Started, Timer, WorkerRefused, WorkerStopping
from fsm_worker.identity import Identity, Only
from fsm_worker.journal import Journal
from fsm_worker.machines.defaults import CLIENT
from fsm_worker.machines.engine import Step, Verdict
from fsm_worker.machines.world import THE_SERVER
from fsm_worker.machines.worlds import client_world
from fsm_worker.runtime import Runtime
from fsm_worker.seams.loopback import allow_loopback
from fsm_worker.seams.peer_links import PeerLinks
from fsm_worker.seams.sessions import Sessions
from fsm_worker.seams.signaling_socket import http_url_for, sign_in
from fsm_worker.services.file_manager import FileManager
from fsm_worker.services.transfer import Moved
from protocol.errors import ErrorCode
from protocol.lifecycle import SessionState
from protocol.messages import Message
from protocol.proof import SessionString, from_text
from protocol.table import MachineName


class ConnectionOver(ConnectionError):
    """There is no worker at the other end any more; `code` says why.

    Args:
        code: of the reason.
        reason: a sentence.
    """

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class WorkerLink:
    """The client's end of a session.

    Args:
        session: where the worker is, and who it is.
        identity: our key.
        ice_servers: STUN and TURN URLs.
        timers: seconds by timer, instead of the defaults.
        on_message: takes what the worker says.
        on_step: is told every row that fired.
        on_over: hears that the session is over, and why.
        on_moved: is told how far files have come.
        journal: keeps every step, where one is given.
    """

    def __init__(
        self,
        session: SessionString,
        identity: Identity,
        *,
        ice_servers: Sequence[str],
        timers: Mapping[Timer, float],
        on_message: Callable[[Message], None],
        on_step: Callable[[Step], None],
        on_over: Callable[[ConnectionOver], None],
        on_moved: Callable[[Moved], None],
        journal: Journal | None,
    ) -> None:
        self.id = f"s-{secrets.token_hex(16)}"
        self._where = session
        self._on_step = on_step
        self._on_over = on_over
        self._moved = asyncio.Event()
        self.world = client_world()
        self.runtime = Runtime(
            self.world,
            journal,
            overrides={**CLIENT, **timers},
            watch=self._watch,
        )
        self._links = PeerLinks(
            self.runtime,
            identity,
            Only(session.key),
            "client",
            on_chunk=self._take_chunk,
            on_log=on_message,
            on_failure=self._failed,
            secret=from_text(session.secret) if session.secret else b"",
        )
        self._sessions = Sessions(
            self.world,
            self.runtime.post,
            self._links.write,
            name=session.peer,
            deliver=on_message,
        )
        self._links.sessions = self._sessions
        self._room = ClientRoom(session, self.id, self.world, self.runtime.post)
        self._dialler = Dialler(self.runtime, self._links, ice_servers, self._room.offer)
        self.files = FileManager(
            Path(),
            emit=self.runtime.post,
            send=self._sessions.send,
            send_bulk=self._links.send_bulk,
            spawn=self.runtime.spawn,
            cancel=self.runtime.cancel,
            watch=on_moved,
        )
        self.runtime.bind(
            {
                Owner.WEBRTC: self._dialler,
                Owner.LINKS: self._links,
                Owner.HANDSHAKE: self._links.handshake,
                Owner.SESSIONS: self._sessions,
                Owner.FILE_MANAGER: self.files,
                Owner.SIGNALING: self._room.link,
                Owner.STATE_MANAGER: self._room,
            }
        )

    def send(self, message: Message) -> None:
        """Sends a message in the session, now or with its next link."""
        self._sessions.send(self.id, message)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Enters the room and dials; at the end says goodbye and closes everything.

        Raises:
            SignalingUnreachable: no signaling server answers.
            SignalingRefused: it gives us no name.
        """
        allow_loopback()
        self._room.come_as(await sign_in(http_url_for(self._where.url)))
        self.runtime.post(MachineName.SESSION, self.id, Started())
        self.runtime.post(MachineName.SIGNALLING, THE_SERVER, Started())
        ended: Exception | None = None
        async with asyncio.TaskGroup() as group:
            runner = group.create_task(self.runtime.run(until=lambda: False))
            try:
                yield
                await self._goodbye()
            except Exception as error:  # raised below, so that no group wraps it
                ended = error
            finally:
                runner.cancel()
                await asyncio.wait({runner})  # what it dials is there to be closed then
                await self._dialler.close()
                await self.files.close()
        if ended is not None:
            raise ended

    # --- what the managers above are given -------------------------------------------------------

    def _failed(self, code: ErrorCode, reason: str) -> None:
        unwanted = code is ErrorCode.NOT_AUTHENTICATED
        event = WorkerRefused(code=code, reason=reason) if unwanted else LinkRefused(reason=reason)
        self.runtime.post(MachineName.SESSION, self.id, event)

    def _take_chunk(self, owner: str, frame: bytes) -> None:
        self.files.take_chunk(owner, frame)

    # --- steps of the machines -------------------------------------------------------------------

    def _watch(self, step: Step) -> None:
        self._sessions.answer_refusals(step)
        if step.verdict is not Verdict.ROW:
            return
        self._moved.set()
        if step.machine is MachineName.SESSION and step.after == SessionState.CLOSED:
            code = getattr(step.facts, "code", "") or ErrorCode.ABORTED
            self._on_over(ConnectionOver(ErrorCode(code), getattr(step.facts, "reason", "")))
        self._on_step(step)

    async def _goodbye(self) -> None:
        self.runtime.post(MachineName.SESSION, self.id, WorkerStopping())  # its links end with it
        while any(map(self.world.live, (MachineName.SESSION, MachineName.LINK))):
            self._moved.clear()  # a link that can't say bye is closed by its timer
            await self._moved.wait()
