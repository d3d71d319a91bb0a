"""`jobs`: lists this client's jobs on a worker."""

import asyncio
import time
from argparse import Namespace

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.durations import amount
from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.tabular import show_table
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
    show_table(_COLUMNS, [_row(job) for job in jobs])


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
