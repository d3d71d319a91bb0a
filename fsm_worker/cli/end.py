"""`stop` and `cancel`: ask for a job's end, and wait for it."""

import asyncio
from argparse import Namespace

from fsm_worker.cli.console import Console
from fsm_worker.cli.ending import report_ending
from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.cli.follow import FINAL, Ending
from fsm_worker.cli.session import Client, Target
from protocol.messages import JobSnapshot, JobStateChanged


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command that `options.command` names."""
    client = Client.of(options, console)
    target = client.job(options.job, options.session)
    ending = asyncio.run(
        end(client, target, stop=options.command == "stop", wait=not options.no_wait)
    )
    if ending is None:
        console.emit("asked", job=target.job, command=options.command)
        console.show(f"{target.job}: asked to {options.command}")
        return ExitCode.DONE
    return report_ending(console, ending)


async def end(client: Client, target: Target, *, stop: bool, wait: bool) -> Ending | None:
    """Asks for a job's end.

    Args:
        client: who we are.
        target: the worker and the job.
        stop: finish the batch and keep the model, rather than throw the job away.
        wait: until it has ended.

    Returns:
        How it ended; None if nobody waited.

    Raises:
        CommandFailed: the worker can't be reached.
        ProtocolError: the job has ended, is ending, or is not ours.
    """
    async with client.connected(target) as connection:
        answer = await (connection.stop if stop else connection.cancel)(target.job)
        if answer.state in FINAL:
            return _ending(answer)
        if not wait:
            return None
        client.console.say(f"{target.job}: asked; waiting for its end")
        async for message in connection.news():
            if (
                isinstance(message, JobStateChanged)
                and message.job == target.job
                and message.state in FINAL
            ):
                return _ending(message)
        return _ending(await connection.attach(target.job))


def _ending(message: JobStateChanged | JobSnapshot) -> Ending:
    return Ending(message.job, message.state, message.outcome, message.problems, message.results)
