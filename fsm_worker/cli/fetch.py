"""`fetch`: gets the results of a job that has ended."""

import asyncio
from argparse import Namespace
from pathlib import Path

from fsm_worker.cli.console import Console
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.interrupts import Interrupts
from fsm_worker.cli.results import Fetched, fetch_results, output_folder
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.views import files_to, view_for


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    client = Client.of(options, console)
    target = client.job(options.job, options.session)
    fetched = asyncio.run(fetch(client, target, output_folder(options.output, target.job)))
    console.emit("fetched", job=target.job, results=str(fetched.path), verified=True)
    console.show(str(fetched))
    return ExitCode.DONE


async def fetch(client: Client, target: Target, output: Path) -> Fetched:
    """Gets a job's results.

    Args:
        client: who we are.
        target: the worker and the job.
        output: from `output_folder`.

    Raises:
        CommandFailed: the worker can't be reached, or the user has left.
        ProtocolError: there are no results.
        ConnectionOver: the worker was lost.
    """
    with (
        view_for(client.console) as view,
        Interrupts(view.ask, interactive=False) as interrupts,
    ):
        try:
            async with client.connected(target, watch=files_to(view)) as connection:
                return await fetch_results(connection, target.job, output)
        except asyncio.CancelledError:
            if not interrupts.cancelled:
                raise
            raise CommandFailed(
                ExitCode.CANCELLED, "interrupted: what has arrived is kept; fetch again"
            ) from None
