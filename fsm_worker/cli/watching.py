"""Connects, watches a job to its end, gets its results: what most commands have in common."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from fsm_worker.cli.ending import come_back
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode, exit_code_for, sentence_for
from fsm_worker.cli.follow import Detached, Ending, Follower, NotUploaded
from fsm_worker.cli.interrupts import Interrupts
from fsm_worker.cli.losses import Losses
from fsm_worker.cli.parsers import PROG
from fsm_worker.cli.results import Fetched, fetch_results
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.shared import look_at_results
from fsm_worker.cli.view import View
from fsm_worker.cli.views import files_to
from fsm_worker.client.connection import ConnectionOver, WorkerConnection
from protocol.messages import JobSnapshot


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How to watch.

    Args:
        target: the worker and the job.
        output: where results go; None leaves them on the worker.
        shared_root: where this machine has the storage in which the worker puts them.
        log: the job's whole output is wanted.
        only_accepted: leave once the worker has read and accepted the package.
        uploaded: is called when the worker has the whole package; perhaps more than once.
        unasked: what an interruption means before the job was reached.
    """

    target: Target
    output: Path | None = None
    shared_root: Path | None = None
    log: bool = True
    only_accepted: bool = False
    uploaded: Callable[[], None] = lambda: None
    unasked: str = "interrupted"


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of it; no ending where the user has left before."""

    ending: Ending | None = None
    fetched: Fetched | None = None
    losses: Losses | None = None


async def watch(
    plan: Plan,
    client: Client,
    view: View,
    interrupts: Interrupts,
    begin: Callable[[WorkerConnection], Awaitable[JobSnapshot]],
) -> Done:
    """Watches a job.

    Args:
        plan: how.
        client: who we are.
        view: shows it.
        interrupts: of the user.
        begin: hands the job over, or finds it.

    Returns:
        How it ended; without an ending if the user has left, and the job goes on.

    Raises:
        CommandFailed: it was interrupted, or the connection was lost.
        ProtocolError: the worker refuses.
    """
    watching = _Watching(plan, view, interrupts, begin)
    try:
        with interrupts.instead(watching.interrupted):
            async with client.connected(plan.target, watch=files_to(view)) as connection:
                return await watching.go(connection)
    except ConnectionOver as error:
        raise CommandFailed(
            exit_code_for(error), come_back(sentence_for(error), plan.target.job)
        ) from error


class _Watching:
    """How far it has come."""

    def __init__(
        self,
        plan: Plan,
        view: View,
        interrupts: Interrupts,
        begin: Callable[[WorkerConnection], Awaitable[JobSnapshot]],
    ) -> None:
        self._plan = plan
        self._view = view
        self._interrupts = interrupts
        self._begin = begin
        self._ending: Ending | None = None

    async def go(self, connection: WorkerConnection) -> Done:
        plan = self._plan
        snapshot = await self._begin(connection)
        follower = Follower(connection, plan.target.job, self._view, plan.uploaded)
        try:
            with self._interrupts.wishes() as wishes:
                follower.see(snapshot)
                if plan.only_accepted and await follower.until_accepted(wishes) is None:
                    return Done()
                if plan.log:
                    follower.ask_for_log()
                self._ending = await follower.until_end(wishes)
        except Detached:
            return Done()
        except NotUploaded:
            raise CommandFailed(
                ExitCode.CONNECTION_LOST,
                "the worker does not answer, and does not have the whole package: the job will "
                "not begin; submit it again",
            ) from None
        fetched = None
        if plan.output is not None and self._ending.results.root:
            fetched = await fetch_results(connection, plan.target.job, plan.output)
        elif plan.shared_root is not None and self._ending.results.folder:
            fetched = await look_at_results(plan.shared_root, self._ending.results)
        return Done(ending=self._ending, fetched=fetched, losses=follower.losses)

    def interrupted(self) -> CommandFailed:
        """What it means that a signal came while nobody listened to wishes."""
        if self._ending is None:
            return CommandFailed(ExitCode.CANCELLED, self._plan.unasked)
        return CommandFailed(
            ExitCode.DETACHED,
            "interrupted: the job has ended, and its results are still on the worker; get them "
            f"with `{PROG} fetch {self._plan.target.job}`",
        )
