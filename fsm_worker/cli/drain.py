"""`drain` and `undrain`: an operator says when a worker works."""

import asyncio
from argparse import Namespace
from pathlib import Path

from fsm_worker.cli.console import Console
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.session import Client, Target
from fsm_worker.folders import SESSION_FILE, WORKER_KEY
from protocol.lifecycle import WorkerState
from protocol.messages import DrainState
from protocol.proof import SessionString

_WORDS = {
    WorkerState.DRAINING: "it starts no further job; the running one may finish",
    WorkerState.CLEANING: "it starts no further job",
    WorkerState.STOPPING: "it is leaving",
}


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    client = Client.of(options, console)
    if options.state is None:
        target = client.worker(options.session)
    else:
        target = _local(client, options.state)
    told = asyncio.run(_ask(options, client, target))
    console.send(told)
    if told.drained:
        words = _WORDS.get(told.state, "it starts no job until `undrain`")
    else:
        words = "it takes jobs"
    console.say(f"the worker is {told.state}: {words}")
    return ExitCode.DONE


async def _ask(options: Namespace, client: Client, target: Target) -> DrainState:
    async with client.connected(target) as connection:
        if options.command == "undrain":
            return await connection.undrain()
        return await connection.drain(options.reason or "", options.deadline or 0.0)


def _local(client: Client, state: Path) -> Target:
    """A worker of this machine: whoever can read its key is its operator."""
    folder = state.expanduser() / "worker"
    try:
        text = (folder / SESSION_FILE).read_text(encoding="ascii").strip()
    except OSError as error:
        raise CommandFailed(
            ExitCode.NO_WORKER,
            f"no worker runs on {state} ({error.strerror}): give the folder of its --state",
        ) from error
    client.key = folder / WORKER_KEY
    return Target(SessionString.decode(text), text)
