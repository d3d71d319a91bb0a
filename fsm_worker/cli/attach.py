"""`attach`: shows a job's whole output, and goes on with it live."""

import asyncio
from argparse import Namespace

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.ending import report_ending, report_leave
from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.cli.interrupts import Interrupts
from fsm_worker.cli.results import output_folder
from fsm_worker.cli.session import Client
from fsm_worker.cli.views import can_ask, view_for
from fsm_worker.cli.watching import Done, Plan, watch
from fsm_worker.client.connection import WorkerConnection
from protocol.messages import JobSnapshot


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    client = Client.of(options, console)
    target = client.job(options.job, options.session)
    output = None if options.output is None else output_folder(options.output, target.job)
    done = asyncio.run(_attach(client, Plan(target=target, output=output)))
    if done.ending is None:
        return report_leave(console, target.job)
    return report_ending(console, done.ending, fetched=done.fetched, losses=done.losses)


async def _attach(client: Client, plan: Plan) -> Done:
    async def begin(connection: WorkerConnection) -> JobSnapshot:
        snapshot = await connection.attach(plan.target.job)
        client.remember(plan.target, one_line(snapshot.name, 100))
        return snapshot

    with (
        view_for(client.console) as view,
        Interrupts(view.ask, interactive=can_ask(client.console)) as interrupts,
    ):
        return await watch(plan, client, view, interrupts, begin)
