"""`explain`: says why a job, or the worker, is in its state."""

import asyncio
import time
from argparse import Namespace
from collections.abc import Iterator

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.session import Client, Target
from fsm_worker.journal import FILE_NAME
from fsm_worker.services.explanation import NothingKnown, explanation
from protocol.messages import Explained, ExplainedStep

#: Stands where a job's id may stand; too short to be one.
THE_WORKER = "worker"


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    explained = _read(options) if options.state is not None else _asked(options, console)
    console.send(explained)
    for line in _lines(explained):
        console.show(line)
    return ExitCode.DONE


def _read(options: Namespace) -> Explained:
    what = options.what or THE_WORKER
    try:
        journal = options.state.expanduser() / "worker" / FILE_NAME
        return explanation(journal, "" if what == THE_WORKER else what)
    except (NothingKnown, FileNotFoundError) as error:
        raise CommandFailed(
            ExitCode.USAGE,
            f"{options.state} says nothing of {one_line(what, 64)}: name a job of that worker, and "
            "the folder that it was given as --state",
        ) from error


def _asked(options: Namespace, console: Console) -> Explained:
    client = Client.of(options, console)
    if options.what == THE_WORKER:
        target = client.worker(options.session)
    else:
        target = client.job(options.what, options.session)
    return asyncio.run(_ask(client, target))


async def _ask(client: Client, target: Target) -> Explained:
    async with client.connected(target) as connection:
        return await connection.explain(target.job)


def _lines(explained: Explained) -> Iterator[str]:
    yield f"{one_line(explained.job, 64) or 'the worker'} is {one_line(explained.state)}, because:"
    rows = [_cells(step) for step in explained.steps]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    for row in rows:
        yield "  " + "  ".join(map(str.ljust, row, (*widths, 0))).rstrip()
    if explained.awaits:
        yield f"what can lead on: {one_line(', '.join(explained.awaits))}"
    else:
        yield "nothing leads on from there"


def _cells(step: ExplainedStep) -> tuple[str, ...]:
    asked = ", ".join(f"{name}: {'yes' if yes else 'no'}" for name, yes in step.guards.items())
    forced = f"forced by {step.coupling}" if step.coupling else ""
    moved = step.before if step.before == step.after else f"{step.before} -> {step.after}"
    cells = (step.row, moved, step.event, "; ".join(filter(None, (asked, forced))))
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(step.at))
    return (when, *map(one_line, cells))
