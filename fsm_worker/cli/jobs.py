"""`jobs`: lists this client's jobs on a worker."""

import asyncio
import time
from argparse import Namespace

from rich.console import Console as Terminal
from rich.table import Table

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.durations import amount
from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.cli.session import Client, Target
from protocol.messages import JobSnapshot


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    client = Client.of(options, console)
    found = asyncio.run(jobs(client, client.worker(options.session)))
    if console.as_json:
        for snapshot in found:
            console.send(snapshot)
        return ExitCode.DONE
    if not found:
        console.show("no jobs of yours on this worker")
        return ExitCode.DONE
    table = Table(box=None, pad_edge=False)
    for heading in ("JOB", "NAME", "STATE", "OUTCOME", "SUBMITTED", "RESULTS"):
        table.add_column(heading, no_wrap=heading == "JOB")
    for snapshot in found:
        table.add_row(*_cells(snapshot))
    Terminal().print(table)
    return ExitCode.DONE


async def jobs(client: Client, target: Target) -> tuple[JobSnapshot, ...]:
    """Asks a worker for our jobs.

    Raises:
        CommandFailed: the worker can't be reached.
    """
    async with client.connected(target) as connection:
        return await connection.jobs()


def _cells(snapshot: JobSnapshot) -> tuple[str, ...]:
    results = snapshot.results
    held = f"{results.state}, {amount(results.size)}" if results.root else "-"
    at = time.strftime("%Y-%m-%d %H:%M", time.localtime(snapshot.submitted_at))
    return (
        snapshot.job,
        one_line(snapshot.name, 40),
        snapshot.state,
        snapshot.outcome or "-",
        at if snapshot.submitted_at else "-",
        held,
    )
