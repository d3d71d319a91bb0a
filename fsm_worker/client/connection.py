"""One client's connection to one worker: submit, stop, cancel, attach, fetch, and the news.

Runs on Linux, macOS and Windows.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fsm_worker.client.followed_logs import FollowedLogs
from fsm_worker.client.patience import Patience
from fsm_worker.client.requests import Requests, ReservationRefused
from fsm_worker.client.worker_link import ConnectionOver, WorkerLink
from fsm_worker.events import SendRequested, Timer
from fsm_worker.identity import Identity
from fsm_worker.journal import Journal
from fsm_worker.machines.engine import Step
from fsm_worker.services.archive import PackedArchive
from fsm_worker.services.transfer import Moved
from protocol import messages as m
from protocol.codec import Frame, decode, encode
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import ReceivingState
from protocol.proof import SessionString
from protocol.table import Direction, MachineName, tag_of

__all__ = ["ConnectionOver", "ReservationRefused", "WorkerConnection"]

#: Seconds that a worker with a link may take to answer. A request is no machine, and has no timer.
PATIENCE = 30.0

K = TypeVar("K", bound=m.Message)


class WorkerConnection:
    """A connection; made by `open`.

    Args:
        session: where the worker is, and who it is.
        identity: our key.
        ice_servers: STUN and TURN URLs.
        watch: is told how far files have come.
        timers: seconds by timer, instead of the defaults.
        journal: keeps what this side did, row by row, if it is given (and entered).
    """

    def __init__(
        self,
        session: SessionString,
        identity: Identity,
        *,
        ice_servers: Sequence[str] = (),
        watch: Callable[[Moved], None] = lambda _moved: None,
        timers: Mapping[Timer, float] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._news: asyncio.Queue[m.Message | None] = asyncio.Queue()
        self._requests = Requests()
        self.patience = Patience()  # with the worker; whoever waits for its words asks here
        self._files: dict[str, asyncio.Future[None]] = {}
        self._welcome: asyncio.Future[m.Welcome] = asyncio.get_running_loop().create_future()
        self._over: ConnectionOver | None = None
        self._link = WorkerLink(
            session,
            identity,
            ice_servers=ice_servers,
            timers=timers or {},
            on_message=self._deliver,
            on_step=self._watch,
            on_over=self._end,
            on_moved=watch,
            journal=journal,
        )
        self._logs = FollowedLogs(self._link.send)

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
        journal: Journal | None = None,
    ) -> "AsyncIterator[WorkerConnection]":
        """Connects, and says goodbye at the end.

        Args:
            session: from the worker's printed line.
            identity: our key.
            ice_servers: STUN and TURN URLs.
            watch: is told how far files have come.
            timers: seconds by timer, instead of the defaults.
            journal: keeps what this side did, row by row, if it is given (and entered).

        Raises:
            SignalingUnreachable: no signaling server answers.
            SignalingRefused: it does not let us into the room.
            ConnectionOver: the worker is not there, or does not want us.
        """
        self = cls(
            session,
            identity,
            ice_servers=ice_servers,
            watch=watch,
            timers=timers,
            journal=journal,
        )
        async with self._link.running():
            await asyncio.shield(self._welcome)
            yield self

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
        link = self._link
        link.world.transfers += 1
        transfer = link.world.transfers
        link.runtime.post(
            MachineName.SENDING,
            f"{link.id}/{transfer}",
            SendRequested(
                session=link.id,
                transfer=transfer,
                job=job,
                path=str(archive.path),
                name=file.name,
                size=file.size,
                root=file.root,
            ),
        )
        return snapshot

    async def submit_shared(self, job: str, spec: m.JobSpec, policy: m.JobPolicy) -> m.JobSnapshot:
        """Hands over a job of two paths in the shared storage, as `submit`; no file travels."""
        return await self._ask(m.Submit(job=job, spec=spec, policy=policy), m.JobSnapshot)

    async def stop(self, job: str) -> m.JobStateChanged:
        """Asks the job to end with the batch and keep the model.

        Raises:
            ProtocolError: it has ended, is ending, or is not ours.
            ConnectionOver: the worker is gone.
        """
        return await self._ask(m.Stop(job=job), m.JobStateChanged, event="recv_stop")

    async def cancel(self, job: str) -> m.JobStateChanged:
        """Throws the job away.

        Raises:
            ProtocolError: it has ended, is ending, or is not ours.
            ConnectionOver: the worker is gone.
        """
        return await self._ask(m.Cancel(job=job), m.JobStateChanged, event="recv_cancel")

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

    async def explain(self, job: str = "") -> m.Explained:
        """Why a job of ours, or the worker (without an id), is in its state.

        Raises:
            ProtocolError: there is no such job of ours.
            ConnectionOver: the worker is gone.
        """
        return await self._ask(m.Explain(job=job) if job else m.ExplainWorker(), m.Explained)

    async def reserve(self, need: Mapping[str, str]) -> m.Reserved:
        """Asks the worker to keep its free slot for our next job; again, to renew that.

        Args:
            need: requirements by name, as `protocol.need` describes them.

        Raises:
            ReservationRefused: it can't, or not now.
            ConnectionOver: the worker is gone.
        """
        answer = await self._answer(m.Reserve(need=dict(need)), (m.Reserved, m.ReserveRefused))
        if isinstance(answer, m.Reserved):
            return answer
        raise ReservationRefused(
            getattr(answer, "code", ErrorCode.NOT_SUPPORTED), getattr(answer, "reasons", ())
        )

    async def release(self) -> None:
        """Gives our reservation back.

        Raises:
            ProtocolError: we have none.
            ConnectionOver: the worker is gone.
        """
        await self._ask(m.Release(), m.Released)

    async def drain(self, reason: str = "", deadline_s: float = 0.0) -> m.DrainState:
        """Lets the worker start no further job.

        Args:
            reason: for people who wait.
            deadline_s: seconds after which a running job is stopped; 0 lets it finish.

        Raises:
            ProtocolError: we are no operator of it.
            ConnectionOver: the worker is gone.
        """
        return await self._ask(m.Drain(reason=reason, deadline_s=deadline_s), m.DrainState)

    async def undrain(self) -> m.DrainState:
        """Lets it start jobs again.

        Raises:
            ProtocolError: it leaves, or we are no operator of it.
            ConnectionOver: the worker is gone.
        """
        return await self._ask(m.Undrain(), m.DrainState)

    def follow_log(self, job: str, offset: int = 0) -> None:
        """Asks for the job's output; it comes with the news, also across a lost link.

        Args:
            job: of ours.
            offset: bytes into the log; 0 is the whole.
        """
        self._logs.follow(job, offset)

    async def fetch(self, job: str, into: Path) -> Path:
        """Gets the job's results; the hash of every byte is checked before the file has its name.

        Args:
            job: of ours, done.
            into: an existing folder.

        Returns:
            The path of the archive.

        Raises:
            ProtocolError: there are no results, they could not be stored, or they are being
                fetched already.
            ConnectionOver: the worker is gone.
        """
        results = (await self.attach(job)).results
        if results.folder:
            sentence = f"the results lie in the shared storage, in {results.folder}: look there"
            raise ProtocolError(ErrorCode.RESULTS_SHARED, sentence)
        if not results.root:
            raise ProtocolError(
                ErrorCode.RESULTS_NOT_READY, "the job has no results: look at its state"
            )
        if job in self._files:
            raise ProtocolError(ErrorCode.IN_PROGRESS, "the results are being fetched already")
        name = f"{job}.zip"
        self._link.files.expect(
            job, [m.InputFile(name=name, size=results.size, root=results.root)], into
        )
        stored = self._files[job] = asyncio.get_running_loop().create_future()
        fetch = m.Fetch(job=job)
        refused = self._requests.ask(fetch, m.Error)
        self._link.send(fetch)
        try:
            await asyncio.wait({stored, refused}, return_when=asyncio.FIRST_COMPLETED)
            if not stored.done():
                _unless_under_way(refused)
            await stored
        finally:
            self._requests.forget(refused)
            del self._files[job]
        return into / name

    async def news(self) -> AsyncGenerator[m.Message, None]:
        """Everything that the worker says, in order: states, progress, telemetry, logs.

        Raises:
            ConnectionOver: the worker is gone.
        """
        while (message := await self._news.get()) is not None:
            yield message
        if self._over is not None:
            raise self._over

    # --- inside ----------------------------------------------------------------------------

    async def _ask(self, message: m.Message, reply: type[K], event: str = "") -> K:
        answer = await self._answer(message, (reply,), event)
        if not isinstance(answer, reply):
            raise TypeError(f"{message!r} was answered by {type(answer).__name__}")
        return answer

    async def _answer(
        self, message: m.Message, replies: tuple[type[m.Message], ...], event: str = ""
    ) -> m.Message:
        if self._over is not None:
            raise self._over
        decode(encode(Frame(msg=message)), Direction.TO_WORKER)  # the worker would refuse it
        future = self._requests.ask(message, replies, event)
        self._link.send(message)
        try:
            async with self.patience.within(PATIENCE):
                return await future
        except TimeoutError as error:
            raise ConnectionOver(
                ErrorCode.ABORTED,
                f"the worker did not answer {tag_of(type(message))} in {PATIENCE:g} s",
            ) from error
        finally:
            self._requests.forget(future)

    def _deliver(self, message: m.Message) -> None:
        if isinstance(message, m.Welcome):
            if not self._welcome.done():
                self._welcome.set_result(message)
            self._logs.ask_again()
            return
        if isinstance(message, (m.Log, m.LogEnd)) and not self._logs.follows_on(message):
            return
        if not self._requests.hear(message):
            self._news.put_nowait(message)

    def _watch(self, step: Step) -> None:
        self.patience.watch(step)
        if step.machine is not MachineName.RECEIVING:
            return
        waiting = self._files.get(getattr(step.facts, "job", ""))
        if waiting is None or waiting.done():
            return
        if step.after == ReceivingState.STORED:
            waiting.set_result(None)
        elif step.after == ReceivingState.REFUSED:
            reason = getattr(step.facts, "reason", "")
            waiting.set_exception(ProtocolError(ErrorCode.ABORTED, reason))

    def _end(self, over: ConnectionOver) -> None:
        self._over = over
        self._requests.fail(over)
        waiting: list[asyncio.Future[Any]] = [self._welcome, *self._files.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(over)
        self._news.put_nowait(None)


def _unless_under_way(refused: "asyncio.Future[m.Message]") -> None:
    """Raises the refusal; one that says that they come already is none (an earlier fetch)."""
    try:
        refused.result()
    except ProtocolError as error:
        if error.code is not ErrorCode.IN_PROGRESS:
            raise
