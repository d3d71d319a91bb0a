"""`jobs`: lists this client's jobs on a worker."""

import asyncio
import time
from argparse import Namespace

from rich.console import Console as Terminal
from rich.table import Table
from rich.text import Text

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.durations import amount
from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.cli.session import Client, Target
from protocol.messages import JobSnapshot

_COLUMNS = ("job", "name", "state", "outcome", "submitted", "results")


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    client = Client.of(options, console)
    jobs = asyncio.run(_ask(client, client.worker(options.session)))
    for job in jobs:
        console.send(job)
    if not console.as_json:
        _show(jobs)
    return ExitCode.DONE


async def _ask(client: Client, target: Target) -> tuple[JobSnapshot, ...]:
    async with client.connected(target) as connection:
        jobs = await connection.jobs()
    client.remember(target)
    return jobs


def _show(jobs: tuple[JobSnapshot, ...]) -> None:
    if not jobs:
        print("no job of yours is on this worker")
        return
    terminal = Terminal(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, no_wrap=True, overflow="fold")
    rows = [_row(job) for job in jobs]
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # A pipe has no width: nothing is cut there.
    terminal.print(table, width=None if terminal.is_terminal else 500, crop=False)


def _row(job: JobSnapshot) -> tuple[str, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.submitted_at))
    results = job.results
    return (
        one_line(job.job, 64),
        one_line(job.name, 40),
        job.state,
        job.outcome,
        when if job.submitted_at else "",
        f"{results.state}, {amount(results.size)}" if results.root else "",
    )
