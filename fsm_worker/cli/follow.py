"""Watches one job until it has ended, and carries out what the user wishes meanwhile."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple

from fsm_worker.cli.console import one_line
from fsm_worker.cli.interrupts import Wish
from fsm_worker.cli.log_lines import LogLines
from fsm_worker.cli.losses import Losses
from fsm_worker.cli.view import View
from fsm_worker.client.connection import ConnectionOver, WorkerConnection
from protocol import messages as m
from protocol.errors import ErrorCode, ProtocolError
from protocol.lifecycle import JobState, Outcome

#: States that a job never leaves.
FINAL = frozenset({JobState.DONE, JobState.REJECTED})
#: Seconds with a link, but without a piece of output after the job's end, until the rest is no
#: longer awaited. No timer of a machine: the job is over, and only this program still waits.
LOG_PATIENCE = 5.0
#: Seconds that a cancellation may take when the user leaves, with a link or without: no timer of a
#: machine, since it is the user who waits.
LEAVE_PATIENCE = 5.0
#: Lines of output that are kept for the end.
TAIL = 10

_ARRIVING = frozenset({JobState.NEW, JobState.STAGING})
_NOT_ACCEPTED = _ARRIVING | {JobState.VALIDATING}
#: Refusals of a stop or a cancellation that come too late to matter.
NOTHING_TO_END = frozenset({ErrorCode.ALREADY_TERMINAL, ErrorCode.IN_PROGRESS})


class Ending(NamedTuple):
    """How a job ended."""

    job: str
    state: JobState
    outcome: Outcome
    problems: tuple[m.Problem, ...]
    results: m.ResultsInfo
    tail: tuple[str, ...] = ()  # last lines of its output


class Detached(Exception):
    """The user has left, and the job goes on."""


class NotUploaded(Exception):
    """The user has left before the worker had the whole package; it can't tell the worker so."""


class Follower:
    """Watches one job.

    Args:
        connection: to its worker.
        job: its id.
        view: shows it.
        arrived: is called when the worker has the whole package, or will not get it.
    """

    def __init__(
        self,
        connection: WorkerConnection,
        job: str,
        view: View,
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._job = job
        self._view = view
        self._arrived = arrived
        self._state = JobState.NEW
        self._ending: Ending | None = None
        self._lines = LogLines()
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._log_ended = True  # as long as nobody asks for it
        self.losses = Losses()

    def ask_for_log(self) -> None:
        """Wants the whole output, too."""
        self._log_ended = False
        self._connection.follow_log(self._job)

    def see(self, message: m.JobSnapshot | m.JobStateChanged) -> None:
        """Takes the job's state."""
        self._state = message.state
        self._view.state(message)
        if message.state not in _ARRIVING:
            self._arrived()
        if message.state in FINAL:
            self._ending = Ending(
                self._job, message.state, message.outcome, message.problems, message.results
            )

    async def until_accepted(self, wishes: "asyncio.Queue[Wish]") -> Ending | None:
        """Watches until the worker has read the package.

        Args:
            wishes: of the user.

        Returns:
            The end, if the job has ended by then; None if it is in the queue or beyond.

        Raises:
            as `until_end`.
        """
        await self._with_wishes(wishes, lambda: self._state not in _NOT_ACCEPTED)
        return self._ending

    async def until_end(self, wishes: "asyncio.Queue[Wish]") -> Ending:
        """Watches until the job has ended and its output is complete.

        Args:
            wishes: of the user.

        Returns:
            How it ended.

        Raises:
            Detached: the user has left.
            NotUploaded: the same, but the job can't begin.
            ConnectionOver: the worker is gone.
        """
        await self._with_wishes(wishes, lambda: self._ending is not None)
        if not self._log_ended:
            await self._rest_of_log(wishes)
        self._tail.extend(self._lines.end())
        if self._ending is None:
            raise ConnectionOver(ErrorCode.ABORTED, "the news ended before the job")
        return self._ending._replace(tail=tuple(self._tail))

    async def _rest_of_log(self, wishes: "asyncio.Queue[Wish]") -> None:
        with contextlib.suppress(TimeoutError, ConnectionOver):
            async with self._connection.patience.within(LOG_PATIENCE) as deadline:

                def enough() -> bool:
                    deadline.begin_anew()
                    return self._log_ended

                await self._with_wishes(wishes, enough)
        if not self._log_ended:
            self._view.note("the output may not be complete: `attach` shows all of it")

    # --- what happens --------------------------------------------------------------------------

    async def _with_wishes(self, wishes: "asyncio.Queue[Wish]", enough: Callable[[], bool]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                granting = group.create_task(self._grant(wishes))
                await self._read(enough)
                granting.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first one ended the others

    async def _read(self, enough: Callable[[], bool]) -> None:
        if enough():
            return
        async with aclosing(self._connection.news()) as news:
            async for message in news:
                if getattr(message, "job", self._job) == self._job:
                    self._take(message)
                    if enough():
                        return

    def _take(self, message: m.Message) -> None:
        match message:
            case m.JobSnapshot() | m.JobStateChanged():
                self.see(message)
            case m.Progress():
                self.losses.hear(message)
                self._view.progress(message)
            case m.Telemetry():
                self._view.telemetry(message)
            case m.Log():
                self._tail.extend(self._lines.feed(message.text))
                self._view.log(message)
            case m.LogEnd():
                self._log_ended = True
                self._view.log(message)
            case m.Error():
                self._view.note(f"the worker refuses {message.about}: {one_line(message.message)}")

    # --- what is wished --------------------------------------------------------------------------

    async def _grant(self, wishes: "asyncio.Queue[Wish]") -> None:
        """Never returns: an end comes as news, or by an exception."""
        while True:
            match await wishes.get():
                case Wish.STOP:
                    self._view.note("asked to finish the batch and to keep the model")
                    await self._ask(self._connection.stop)
                case Wish.CANCEL:
                    self._view.note("asked to throw the job away")
                    await self._ask(self._connection.cancel)
                case Wish.DETACH if self._state in _ARRIVING:
                    self._view.note("the package is not on the worker yet: the job is cancelled")
                    await self._give_up()
                case Wish.DETACH:
                    raise Detached

    async def _ask(self, end: Callable[[str], Awaitable[m.JobStateChanged]]) -> None:
        try:
            await end(self._job)
        except ProtocolError as error:
            if error.code not in NOTHING_TO_END:
                raise
            self._view.note(one_line(error.sentence))

    async def _give_up(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_PATIENCE):
                await self._ask(self._connection.cancel)
        except TimeoutError:
            raise NotUploaded from None
