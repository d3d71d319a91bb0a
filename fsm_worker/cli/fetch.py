"""`fetch`: gets the results of a job that has ended."""

import asyncio
from argparse import Namespace
from pathlib import Path

from fsm_worker.cli.console import Console
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode, exit_code_for, sentence_for
from fsm_worker.cli.interrupts import Interrupts
from fsm_worker.cli.parsers import PROG
from fsm_worker.cli.results import Fetched, fetch_results, output_folder
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.views import files_to, view_for
from fsm_worker.client.connection import ConnectionOver


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    client = Client.of(options, console)
    target = client.job(options.job, options.session)
    folder = output_folder(options.output, target.job)
    fetched = asyncio.run(_fetch(client, target, folder))
    console.emit("fetched", job=target.job, results=str(fetched.path), verified=True)
    console.show(str(fetched))
    return ExitCode.DONE


async def _fetch(client: Client, target: Target, folder: Path) -> Fetched:
    again = f"`{PROG} fetch {target.job}` goes on from there"
    with (
        view_for(client.console) as view,
        Interrupts(view.ask, interactive=False) as interrupts,
        interrupts.instead(lambda: CommandFailed(ExitCode.CANCELLED, f"interrupted; {again}")),
    ):
        try:
            async with client.connected(target, watch=files_to(view)) as connection:
                return await fetch_results(connection, target.job, folder)
        except ConnectionOver as error:
            raise CommandFailed(exit_code_for(error), f"{sentence_for(error)}; {again}") from error
