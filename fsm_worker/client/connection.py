"""One client's connection to one worker: submit, stop, cancel, attach, fetch, and the news.

It runs the same link and file machines as the worker, and dials again by itself when the link is
lost. Runs on Linux, macOS and Windows.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fsm_worker.client.dialler import Dialler
from fsm_worker.effects import Owner
from fsm_worker.events import (
    RecvAnswer,
    SendRequested,
    Started,
    Timer,
    WorkerRefused,
    WorkerStopping,
)
from fsm_worker.identity import Identity, only
from fsm_worker.machines.engine import Step, Verdict
from fsm_worker.machines.worlds import client_world
from fsm_worker.runtime import Runtime
from fsm_worker.seams.loopback import allow_loopback
from fsm_worker.seams.peer_links import PeerLinks
from fsm_worker.seams.sessions import Sessions
from fsm_worker.seams.signaling_socket import (
    SignalingClosed,
    SignalingSocket,
    SignalingUnreachable,
    http_url_for,
    sign_in,
)
from fsm_worker.services.archive import PackedArchive
from fsm_worker.services.file_manager import FileManager, Moved
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import LinkState, ReceivingState, SessionState
from protocol.proof import SessionString, from_text
from protocol.signaling import Answer, Error, Offer, Ping, Pong, Register, RegisteredAuth
from protocol.table import MachineName, tag_of

log = logging.getLogger(__name__)

#: Seconds without a link after which a client gives up.
GIVE_UP = 60.0
#: Seconds that a worker may take to answer a request.
PATIENCE = 30.0

K = TypeVar("K", bound=m.Message)


class ConnectionOver(ConnectionError):
    """There is no worker at the other end any more; `code` says why.

    Args:
        code: of the reason.
        reason: a sentence.
    """

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class WorkerConnection:
    """A connection; made by `open`.

    Args:
        session: where the worker is, and who it is.
        identity: our key.
        ice_servers: STUN and TURN URLs.
        watch: is told how far files have come.
        timers: seconds by timer, instead of the defaults.
    """

    def __init__(
        self,
        session: SessionString,
        identity: Identity,
        *,
        ice_servers: Sequence[str] = (),
        watch: Callable[[Moved], None] = lambda _moved: None,
        timers: Mapping[Timer, float] | None = None,
    ) -> None:
        self._where = session
        self._id = f"s-{secrets.token_hex(16)}"
        self._news: asyncio.Queue[m.Message | None] = asyncio.Queue()
        self._asked: list[tuple[str, str, type[m.Message], asyncio.Future[m.Message]]] = []
        self._files: dict[str, asyncio.Future[str]] = {}
        self._followed: dict[str, int] = {}
        self._welcome: asyncio.Future[m.Welcome] = asyncio.get_running_loop().create_future()
        self._over: ConnectionOver | None = None
        self._peer = ""
        self._outgoing: asyncio.Queue[Offer | Pong] = asyncio.Queue(64)
        self.world = client_world()
        self._runtime = Runtime(
            self.world,
            None,
            overrides={Timer.SESSION: GIVE_UP, **(timers or {})},
            watch=self._watch,
        )
        emit = self._runtime.post
        self._links = PeerLinks(
            self._runtime,
            identity,
            only(session.key),
            "client",
            on_chunk=self._take_chunk,
            on_log=self._deliver,
            on_failure=self._failed,
            secret=from_text(session.secret) if session.secret else b"",
        )
        self._sessions = Sessions(
            self.world, emit, self._links.write, name=session.peer, deliver=self._deliver
        )
        self._links.sessions = self._sessions
        self._dialler = Dialler(self._runtime, self._links, ice_servers, self._offer)
        self._transfers = FileManager(
            Path(),
            emit=emit,
            send=self._sessions.send,
            send_bulk=self._links.send_bulk,
            cancel=lambda name, subject, what: self._runtime.cancel((name, subject), what),
            watch=watch,
        )
        self._runtime.bind(
            {
                Owner.WEBRTC: self._dialler,
                Owner.LINKS: self._links,
                Owner.SESSIONS: self._sessions,
                Owner.FILE_MANAGER: self._transfers,
            }
        )

    # --- lifecycle -------------------------------------------------------------------------

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        session: SessionString,
        identity: Identity,
        *,
        ice_servers: Sequence[str] = (),
        watch: Callable[[Moved], None] = lambda _moved: None,
        timers: Mapping[Timer, float] | None = None,
    ) -> "AsyncIterator[WorkerConnection]":
        """Connects, and says goodbye at the end.

        Args:
            session: from the worker's printed line.
            identity: our key.
            ice_servers: STUN and TURN URLs.
            watch: is told how far files have come.
            timers: seconds by timer, instead of the defaults.

        Raises:
            SignalingUnreachable: no signaling server answers.
            SignalingRefused: it does not let us into the room.
            ConnectionOver: the worker is not there, or does not want us.
        """
        allow_loopback()
        self = cls(session, identity, ice_servers=ice_servers, watch=watch, timers=timers)
        who = await sign_in(http_url_for(session.url))
        self._peer = who.username
        ended: Exception | None = None
        async with asyncio.TaskGroup() as group:
            runner = group.create_task(self._runtime.run(until=lambda: False))
            signaling = group.create_task(self._signal(who.id_token))
            try:
                await asyncio.shield(self._welcome)
                yield self
                await self._goodbye()
            except Exception as error:
                ended = error
            finally:
                signaling.cancel()
                runner.cancel()
                await self._dialler.close()
                await self._transfers.close()
        if ended is not None:
            raise ended

    async def _signal(self, id_token: str) -> None:
        """Keeps the websocket that offers and answers travel by; a lost one is opened again."""
        while True:
            try:
                async with await SignalingSocket.connect(self._where.url) as socket:
                    await socket.send(
                        Register(
                            peer_id=self._peer,
                            room_id=self._where.room,
                            token=self._where.token,
                            id_token=id_token,
                            role="client",
                        )
                    )
                    async with asyncio.TaskGroup() as group:
                        writer = group.create_task(self._write(socket))
                        async for message in socket.messages():
                            self._read(message)
                        writer.cancel()
            except* (SignalingClosed, SignalingUnreachable, OSError) as errors:
                log.info("- signaling: %s", errors.exceptions[0])
            await asyncio.sleep(secrets.randbelow(1000) / 500)  # jitter, up to 2 s

    async def _write(self, socket: SignalingSocket) -> None:
        while True:
            await socket.send(await self._outgoing.get())

    def _read(self, message: object) -> None:
        match message:
            case RegisteredAuth():
                if self.world.get(MachineName.SESSION, self._id) is None:
                    self._runtime.post(MachineName.SESSION, self._id, Started())
            case Answer(sdp=str(sdp)):
                for link in self.world.live(MachineName.LINK):
                    if link.state is LinkState.NEGOTIATING:
                        self._runtime.post(MachineName.LINK, link.subject, RecvAnswer(sdp=sdp))
            case Error():
                self._refused(message.reason, message.message or message.reason)
            case Ping():
                self._outgoing.put_nowait(Pong())

    def _refused(self, code: str, reason: str) -> None:
        known = ErrorCode.NOT_AUTHENTICATED if code in _UNWANTED else ErrorCode.ABORTED
        if self.world.get(MachineName.SESSION, self._id) is None:
            self._end(ConnectionOver(known, reason))  # the room itself did not take us
            return
        self._runtime.post(MachineName.SESSION, self._id, WorkerRefused(code=known, reason=reason))

    def _take_chunk(self, owner: str, frame: bytes) -> None:
        self._transfers.take_chunk(owner, frame)

    def _failed(self, code: ErrorCode, reason: str) -> None:
        if code is ErrorCode.NOT_AUTHENTICATED:
            self._runtime.post(
                MachineName.SESSION, self._id, WorkerRefused(code=code, reason=reason)
            )

    def _offer(self, sdp: str) -> None:
        self._outgoing.put_nowait(Offer(sender=self._peer, target=self._where.peer, sdp=sdp))

    async def _goodbye(self) -> None:
        closed = asyncio.Event()
        self._on_rest = closed.set
        for link in self.world.live(MachineName.LINK):
            self._runtime.post(MachineName.LINK, link.subject, WorkerStopping())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.0):
                while self.world.live(MachineName.LINK):
                    closed.clear()
                    await closed.wait()

    # --- what a user does --------------------------------------------------------------------

    @property
    def welcome(self) -> m.Welcome:
        """What the worker said when the session began."""
        return self._welcome.result()

    async def submit(
        self,
        job: str,
        archive: PackedArchive,
        *,
        name: str = "",
        policy: m.JobPolicy | None = None,
    ) -> m.JobSnapshot:
        """Hands a package over; returns when the worker has taken the job, before the upload.

        Args:
            job: the id; submitting the same content under the same id again changes nothing.
            archive: the package, from `services.archive.pack`.
            name: for people.
            policy: limits.

        Raises:
            ProtocolError: the worker refuses.
            ConnectionOver: the worker is gone.
        """
        file = m.InputFile(name="package.zip", size=archive.size, root=archive.root)
        snapshot = await self._ask(
            m.Submit(
                job=job,
                spec=m.JobSpec(name=name),
                inputs=(file,),
                policy=policy or m.JobPolicy(),
            ),
            m.JobSnapshot,
        )
        self.world.transfers += 1
        transfer = self.world.transfers
        self._runtime.post(
            MachineName.SENDING,
            f"{self._id}/{transfer}",
            SendRequested(
                session=self._id,
                transfer=transfer,
                job=job,
                path=str(archive.path),
                name=file.name,
                size=file.size,
                root=file.root,
            ),
        )
        return snapshot

    async def stop(self, job: str) -> m.JobStateChanged:
        """Asks the job to end with the batch and keep the model.

        Raises:
            ProtocolError: it has ended, is ending, or is not ours.
            ConnectionOver: the worker is gone.
        """
        return await self._ask(m.Stop(job=job), m.JobStateChanged)

    async def cancel(self, job: str) -> m.JobStateChanged:
        """Throws the job away.

        Raises:
            ProtocolError: it has ended, is ending, or is not ours.
            ConnectionOver: the worker is gone.
        """
        return await self._ask(m.Cancel(job=job), m.JobStateChanged)

    async def attach(self, job: str) -> m.JobSnapshot:
        """Everything about a job of ours; its news come too from now on.

        Raises:
            ProtocolError: there is no such job of ours.
            ConnectionOver: the worker is gone.
        """
        return await self._ask(m.Attach(job=job), m.JobSnapshot)

    async def jobs(self) -> tuple[m.JobSnapshot, ...]:
        """Our jobs on this worker."""
        return (await self._ask(m.JobsGet(), m.Jobs)).jobs

    async def status(self) -> m.WorkerStatus:
        """What the worker is doing, and what it can run."""
        return await self._ask(m.WorkerGet(), m.WorkerStatus)

    def follow_log(self, job: str, offset: int = 0) -> None:
        """Asks for the job's output; it comes with the news, also across a lost link.

        Args:
            job: of ours.
            offset: bytes into the log; 0 is the whole.
        """
        self._followed[job] = offset
        self._sessions.send(self._id, m.LogGet(job=job, offset=offset))

    async def fetch(self, job: str, into: Path) -> Path:
        """Gets the job's results; the hash of every byte is checked before the file has its name.

        Args:
            job: of ours, done.
            into: an existing folder.

        Returns:
            The path of the archive.

        Raises:
            ProtocolError: there are no results, or they could not be stored.
            ConnectionOver: the worker is gone.
        """
        results = (await self.attach(job)).results
        if not results.root:
            raise ProtocolError(
                ErrorCode.RESULTS_NOT_READY, "the job has no results: look at its state"
            )
        name = f"{job}.zip"
        self._transfers.expect(
            job, [m.InputFile(name=name, size=results.size, root=results.root)], into
        )
        stored = self._files[job] = asyncio.get_running_loop().create_future()
        refused = asyncio.ensure_future(self._refusal_of(m.Fetch(job=job)))
        try:
            done, _ = await asyncio.wait({stored, refused}, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        finally:
            refused.cancel()
            self._files.pop(job, None)
        return into / name

    async def news(self) -> AsyncIterator[m.Message]:
        """Everything that the worker says, in order: states, progress, telemetry, logs.

        Raises:
            ConnectionOver: the worker is gone.
        """
        while (message := await self._news.get()) is not None:
            yield message
        if self._over is not None:
            raise self._over

    # --- inside ----------------------------------------------------------------------------

    async def _ask(self, message: m.Message, reply: type[K]) -> K:
        if self._over is not None:
            raise self._over
        future: asyncio.Future[m.Message] = asyncio.get_running_loop().create_future()
        entry = (tag_of(type(message)), str(getattr(message, "job", "")), reply, future)
        self._asked.append(entry)
        self._sessions.send(self._id, message)
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await future
        except TimeoutError as error:
            raise ConnectionOver(
                ErrorCode.ABORTED, f"the worker did not answer {entry[0]} in {PATIENCE:.0f} s"
            ) from error
        finally:
            self._asked.remove(entry)
        if not isinstance(answer, reply):
            raise TypeError(f"{entry[0]} was answered by {type(answer).__name__}")
        return answer

    async def _refusal_of(self, message: m.Message) -> None:
        """Waits for an error about `message` for ever; its success shows elsewhere."""
        future: asyncio.Future[m.Message] = asyncio.get_running_loop().create_future()
        entry = (tag_of(type(message)), str(getattr(message, "job", "")), m.Error, future)
        self._asked.append(entry)
        self._sessions.send(self._id, message)
        try:
            await future
        finally:
            self._asked.remove(entry)

    def _deliver(self, message: m.Message) -> None:
        if isinstance(message, m.Welcome):
            if not self._welcome.done():
                self._welcome.set_result(message)
            for job, offset in self._followed.items():
                self._sessions.send(self._id, m.LogGet(job=job, offset=offset))
            return
        if isinstance(message, m.Log):
            self._followed[message.job] = message.next
        elif isinstance(message, m.LogEnd):
            self._followed.pop(message.job, None)
        job = str(getattr(message, "job", ""))
        for tag, about, reply, future in list(self._asked):
            if future.done():
                continue
            if isinstance(message, m.Error):
                if (message.about, message.job) == (tag, about):
                    future.set_exception(ProtocolError(message.code, message.message))
                    return
            elif isinstance(message, reply) and about in {"", job}:
                future.set_result(message)
                break
        self._news.put_nowait(message)

    _on_rest: Callable[[], None] = staticmethod(lambda: None)

    def _watch(self, step: Step) -> None:
        self._sessions.answer_refusals(step)
        if step.verdict is not Verdict.ROW:
            return
        if step.machine is MachineName.RECEIVING:
            waiting = self._files.get(getattr(step.facts, "job", ""))
            if waiting is not None and not waiting.done():
                if step.after == ReceivingState.STORED:
                    waiting.set_result("")
                elif step.after == ReceivingState.REFUSED:
                    waiting.set_exception(
                        ProtocolError(ErrorCode.ABORTED, getattr(step.facts, "reason", ""))
                    )
        elif step.machine is MachineName.SESSION and step.after == SessionState.CLOSED:
            code = getattr(step.facts, "code", "") or ErrorCode.ABORTED
            self._end(ConnectionOver(ErrorCode(code), getattr(step.facts, "reason", "")))
        elif step.machine is MachineName.LINK:
            self._on_rest()

    def _end(self, over: ConnectionOver) -> None:
        self._over = over
        waiting: list[asyncio.Future[Any]] = [self._welcome, *self._files.values()]
        for future in [*waiting, *(entry[3] for entry in self._asked)]:
            if not future.done():
                future.set_exception(over)
        self._news.put_nowait(None)


_UNWANTED = frozenset(
    {"not_authenticated", "not_authorised", "wrong_token", "forged_sender", "peer_id_taken"}
)
