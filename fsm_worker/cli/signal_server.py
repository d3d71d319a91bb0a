"""`signal`: runs a signaling server until it is asked to end."""

import asyncio
import contextlib
import signal
from argparse import Namespace

from fsm_worker.cli.addresses import Listen
from fsm_worker.cli.console import Console
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.signaling.server import CannotListen, SignalingServer


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    with contextlib.suppress(KeyboardInterrupt):  # Windows has no signal handlers on the loop
        asyncio.run(serve(options.listen, console))
    return ExitCode.DONE


async def serve(listen: Listen, console: Console) -> None:
    """Serves until SIGINT or SIGTERM.

    Raises:
        CommandFailed: the address can't be listened on.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
    try:
        async with SignalingServer(listen.host, listen.port) as server:
            console.emit("listening", url=server.ws_url)
            console.show(f"signaling server on {server.ws_url}")
            console.say(f"workers here: python -m fsm_worker worker --signaling {server.ws_url}")
            await ended.wait()
    except CannotListen as error:
        raise CommandFailed(ExitCode.USAGE, str(error)) from error
    console.say("stopped")
