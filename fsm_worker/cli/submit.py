"""`submit`: sends a job, watches it, and gets its results."""

import asyncio
import tempfile
from argparse import Namespace
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fsm_worker.cli.choosing import choose
from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.ending import report_ending, report_leave
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.interrupts import Interrupts
from fsm_worker.cli.package import Source, job_id, make_package
from fsm_worker.cli.results import output_folder
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.shared import SharedPlace, shared_place
from fsm_worker.cli.view import View
from fsm_worker.cli.views import can_ask, view_for
from fsm_worker.cli.watching import Done, Plan, watch
from fsm_worker.client.connection import WorkerConnection
from protocol.messages import JobPolicy, JobSnapshot, JobSpec

_UNASKED = "interrupted: nothing was submitted"
_MOST_NAME = 512  # characters, as the protocol takes them


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be done.

    Args:
        source: the package.
        job: its id.
        name: for people.
        output: where results go, from `output_folder`.
        shared: the package and the results lie in the worker's shared storage, there.
        wall_s: seconds of running after which the job is stopped; 0 for no limit.
        detach: leave once the job is accepted.
    """

    source: Source
    job: str
    name: str
    output: Path
    shared: SharedPlace | None = None
    wall_s: float = 0.0
    detach: bool = False


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    if (options.path is None) == (options.example is None):
        raise CommandFailed(ExitCode.USAGE, "submit what? Give either a PATH or --example digits")
    source = Source(path=options.path)
    name = (options.name or source.name)[:_MOST_NAME]
    job = job_id(name)
    shared = None
    if options.shared_root is not None:
        if options.path is None:
            raise CommandFailed(
                ExitCode.USAGE, "the example does not lie in the shared storage: give a PATH there"
            )
        shared = shared_place(options.shared_root, options.path, options.output, job)
    order = Order(
        source=source,
        job=job,
        name=name,
        output=output_folder(None if shared is not None else options.output, job),
        shared=shared,
        wall_s=options.wall or 0.0,
        detach=options.detach,
    )
    client = Client.of(options, console)
    several = options.session or ()
    if options.need is None and len(several) < 2:
        worker = client.worker(several[0] if several else None)
        done = asyncio.run(submit(order, client, worker))
    else:
        choosing = partial(choose, client, client.workers(options.session), options.need or {})
        done = asyncio.run(submit(order, client, choosing))
    if done.ending is None:
        return report_leave(console, job)
    return report_ending(console, done.ending, fetched=done.fetched, losses=done.losses)


async def _handing_over(
    order: Order, folder: Path, view: View
) -> Callable[[WorkerConnection], Awaitable[JobSnapshot]]:
    """Makes ready what is sent, and gives what sends it."""
    policy, shared = JobPolicy(wall_s=order.wall_s), order.shared
    if shared is not None:
        spec = JobSpec(kind="shared", name=order.name, input=shared.input, output=shared.output)
        return lambda connection: connection.submit_shared(order.job, spec, policy)
    archive = await make_package(order.source, folder, view.moved)
    return lambda connection: connection.submit(order.job, archive, name=order.name, policy=policy)


async def submit(
    order: Order, client: Client, worker: Target | Callable[[], Awaitable[Target]]
) -> Done:
    """Carries an order out.

    Args:
        order: what to do.
        client: who we are.
        worker: who does it; or chooses one, when all is ready to be sent.

    Returns:
        How it ended; without an ending if the user has left, and the job goes on.

    Raises:
        CommandFailed: it could not be done; the sentence says how far it got.
        ProtocolError: the worker refuses.
    """
    folder = tempfile.TemporaryDirectory(prefix="fsm-worker-", ignore_cleanup_errors=True)
    console = client.console
    with (
        folder as where,
        view_for(console) as view,
        Interrupts(view.ask, interactive=can_ask(console)) as interrupts,
    ):
        with interrupts.instead(lambda: CommandFailed(ExitCode.CANCELLED, _UNASKED)):
            hand_over = await _handing_over(order, Path(where), view)
            chosen = worker if isinstance(worker, Target) else await worker()
        target = replace(chosen, job=order.job)
        plan = Plan(
            target=target,
            output=order.output,
            shared_root=order.shared.root if order.shared is not None else None,
            only_accepted=order.detach,
            uploaded=folder.cleanup,  # so that little is left where this process is killed later
            unasked=_UNASKED,
        )

        async def begin(connection: WorkerConnection) -> JobSnapshot:
            snapshot = await hand_over(connection)
            client.remember(target, order.name)
            console.emit("submitted", job=order.job, session=target.text)
            if not console.as_json:
                view.note(f"{order.job} goes to {one_line(connection.welcome.worker, 100)}")
            return snapshot

        return await watch(plan, client, view, interrupts, begin)
