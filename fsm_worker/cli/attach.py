"""`attach`: shows a job's whole output from the start, and goes on with it live."""

import asyncio
from argparse import Namespace
from pathlib import Path

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.ending import come_back, report_ending, report_leave
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode, exit_code_for, sentence_for
from fsm_worker.cli.follow import Detached, Ending, Follower, NotUploaded
from fsm_worker.cli.interrupts import Interrupts
from fsm_worker.cli.losses import Losses
from fsm_worker.cli.results import Fetched, fetch_results, output_folder
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.views import can_ask, files_to, view_for
from fsm_worker.client.connection import ConnectionOver

Watched = tuple[Ending, Fetched | None, Losses]


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    client = Client.of(options, console)
    target = client.job(options.job, options.session)
    output = output_folder(options.output, target.job) if options.output is not None else None
    watched = asyncio.run(attach(client, target, output))
    if watched is None:
        return report_leave(console, target.job)
    ending, fetched, losses = watched
    return report_ending(console, ending, fetched=fetched, losses=losses)


async def attach(client: Client, target: Target, output: Path | None) -> Watched | None:
    """Watches a job to its end.

    Args:
        client: who we are.
        target: the worker and the job.
        output: where its results go; None leaves them there.

    Returns:
        How it ended; None if the user has left.

    Raises:
        CommandFailed: the worker can't be reached, or was lost.
        ProtocolError: there is no such job of ours.
    """
    with (
        view_for(client.console) as view,
        Interrupts(view.ask, interactive=can_ask(client.console)) as interrupts,
    ):
        try:
            async with client.connected(target, watch=files_to(view)) as connection:
                snapshot = await connection.attach(target.job)
                client.remember(target, one_line(snapshot.name, 100))
                follower = Follower(connection, target.job, view)
                with interrupts.wishes() as wishes:
                    follower.see(snapshot)
                    follower.ask_for_log()
                    ending = await follower.until_end(wishes)
                fetched = None
                if output is not None and ending.results.root:
                    fetched = await fetch_results(connection, target.job, output)
                return ending, fetched, follower.losses
        except (Detached, NotUploaded):
            return None
        except ConnectionOver as error:
            raise CommandFailed(
                exit_code_for(error), come_back(sentence_for(error), target.job)
            ) from error
        except asyncio.CancelledError:
            if not interrupts.cancelled:
                raise
            return None
