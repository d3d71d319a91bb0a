"""`submit`: sends a job, watches it, and gets its results."""

import asyncio
import tempfile
from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.ending import come_back, report_ending, report_leave
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode, exit_code_for, sentence_for
from fsm_worker.cli.follow import Detached, Ending, Follower, NotUploaded
from fsm_worker.cli.interrupts import Interrupts
from fsm_worker.cli.losses import Losses
from fsm_worker.cli.package import Source, job_id, make_package
from fsm_worker.cli.results import Fetched, fetch_results, output_folder
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.view import View
from fsm_worker.cli.views import can_ask, files_to, view_for
from fsm_worker.client.connection import ConnectionOver, WorkerConnection
from fsm_worker.services.archive import PackedArchive
from protocol.messages import JobPolicy


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be done.

    Args:
        source: the package.
        job: its id.
        name: for people.
        output: where results go, from `output_folder`.
        wall_s: seconds of running after which the job is stopped; 0 for no limit.
        detach: leave once the job is accepted.
    """

    source: Source
    job: str
    name: str
    output: Path
    wall_s: float = 0.0
    detach: bool = False


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of it; nothing of it where the user has left before."""

    ending: Ending | None = None
    fetched: Fetched | None = None
    losses: Losses | None = None


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    if (options.path is None) == (options.example is None):
        raise CommandFailed(ExitCode.USAGE, "submit what? Give either a PATH or --example digits")
    source = Source(path=options.path)
    name = options.name or source.name
    job = job_id(name)
    order = Order(
        source=source,
        job=job,
        name=name[:512],
        output=output_folder(options.output, job),
        wall_s=options.wall or 0.0,
        detach=options.detach,
    )
    client = Client.of(options, console)
    worker = client.worker(options.session)
    done = asyncio.run(submit(order, client, worker))
    if done.ending is None:
        return report_leave(console, job)
    return report_ending(console, done.ending, fetched=done.fetched, losses=done.losses)


async def submit(order: Order, client: Client, worker: Target) -> Done:
    """Carries an order out.

    Args:
        order: what to do.
        client: who we are.
        worker: who does it.

    Returns:
        How it ended; without an ending if the user has left, and the job goes on.

    Raises:
        CommandFailed: it could not be done; the sentence says how far it got.
    """
    with (
        tempfile.TemporaryDirectory(prefix="fsm-worker-", ignore_cleanup_errors=True) as folder,
        view_for(client.console) as view,
        Interrupts(view.ask, interactive=can_ask(client.console)) as interrupts,
    ):
        course = _Course(order, client, replace(worker, job=order.job), view, interrupts)
        try:
            return await course.go(Path(folder))
        except asyncio.CancelledError:
            if not interrupts.cancelled:
                raise
            return course.left()


class _Course:
    """One submission on its way."""

    def __init__(
        self, order: Order, client: Client, target: Target, view: View, interrupts: Interrupts
    ) -> None:
        self._order = order
        self._client = client
        self._target = target
        self._view = view
        self._interrupts = interrupts
        self._submitted = False
        self._ending: Ending | None = None

    async def go(self, folder: Path) -> Done:
        archive = await make_package(self._order.source, folder, self._view.moved)
        try:
            async with self._client.connected(
                self._target, watch=files_to(self._view)
            ) as connection:
                return await self._watch(connection, archive)
        except ConnectionOver as error:
            raise CommandFailed(
                exit_code_for(error), come_back(sentence_for(error), self._order.job)
            ) from error

    async def _watch(self, connection: WorkerConnection, archive: PackedArchive) -> Done:
        order, console = self._order, self._client.console
        snapshot = await connection.submit(
            order.job, archive, name=order.name, policy=JobPolicy(wall_s=order.wall_s)
        )
        self._submitted = True
        self._client.remember(self._target, order.name)
        console.emit("submitted", job=order.job, session=self._target.text)
        self._view.note(f"{order.job} submitted to {one_line(connection.welcome.worker, 100)}")
        follower = Follower(connection, order.job, self._view)
        try:
            with self._interrupts.wishes() as wishes:
                follower.see(snapshot)
                if order.detach:
                    ended = await follower.until_accepted(wishes)
                    if ended is None:
                        return Done()
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
        if self._ending.results.root:
            fetched = await fetch_results(connection, order.job, order.output)
        return Done(ending=self._ending, fetched=fetched, losses=follower.losses)

    def left(self) -> Done:
        """The user interrupted what can't be asked about."""
        if not self._submitted:
            raise CommandFailed(ExitCode.CANCELLED, "interrupted: nothing was submitted")
        return Done()
