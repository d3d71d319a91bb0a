"""`stop` and `cancel`: end a job, and wait until it has ended."""

import asyncio
from argparse import Namespace

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.ending import report_ending, report_leave
from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.cli.follow import NOTHING_TO_END
from fsm_worker.cli.interrupts import Interrupts
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.views import view_for
from fsm_worker.cli.watching import Done, Plan, watch
from fsm_worker.client.connection import WorkerConnection
from protocol.errors import ProtocolError
from protocol.messages import JobSnapshot


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    client = Client.of(options, console)
    target = client.job(options.job, options.session)
    keep = options.command == "stop"
    if options.no_wait:
        asyncio.run(_only_ask(client, target, keep))
        return ExitCode.DONE
    done = asyncio.run(_end(client, target, keep))
    if done.ending is None:
        return report_leave(console, target.job)
    return report_ending(console, done.ending)


async def _only_ask(client: Client, target: Target, keep: bool) -> None:
    async with client.connected(target) as connection:
        await _ask(client.console, connection, target.job, keep)
    client.console.emit("asked", job=target.job, keep=keep)


async def _end(client: Client, target: Target, keep: bool) -> Done:
    async def begin(connection: WorkerConnection) -> JobSnapshot:
        await _ask(client.console, connection, target.job, keep)
        return await connection.attach(target.job)

    with (
        view_for(client.console) as view,
        Interrupts(view.ask, interactive=False) as interrupts,
    ):
        plan = Plan(target=target, log=False)
        return await watch(plan, client, view, interrupts, begin)


async def _ask(console: Console, connection: WorkerConnection, job: str, keep: bool) -> None:
    try:
        await (connection.stop(job) if keep else connection.cancel(job))
        console.say(
            f"{job} was asked to finish its batch" if keep else f"{job} was asked to end at once"
        )
    except ProtocolError as error:
        if error.code not in NOTHING_TO_END:
            raise
        console.say(one_line(error.sentence))
