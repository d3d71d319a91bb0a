"""`signal`: runs a signaling server until it is asked to end."""

import asyncio
import signal
from argparse import Namespace

from fsm_worker.cli.addresses import Listen, bracketed, is_loopback, own_address
from fsm_worker.cli.console import Console
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.parsers import PROG
from fsm_worker.cli.trusting import trust_of
from fsm_worker.folders import make_private, state_folder
from fsm_worker.identity import load_key
from fsm_worker.signaling.server import CannotListen, SignalingServer
from fsm_worker.signaling.trust import Trust


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    trust = trust_of(options.jwt_key, options.api_keys)
    folder = options.state.expanduser() if options.state else state_folder("signal")
    make_private(folder)
    key = load_key(folder / "server.key")
    asyncio.run(_serve(options.listen, trust, key, console))
    return ExitCode.DONE


async def _serve(listen: Listen, trust: Trust, key: bytes, console: Console) -> None:
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    before = {
        number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(asked.set))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        async with SignalingServer(listen.host, listen.port, trust=trust, key=key) as server:
            url = f"ws://{bracketed(own_address(listen.host))}:{server.port}"
            reachable = not is_loopback(own_address(listen.host))
            console.emit("ready", url=url, reachable=reachable)
            console.show(url)
            console.say(f"a worker comes here with: {PROG} worker --signaling {url}")
            if not reachable:
                console.say("only this machine reaches it; for others, --listen ADDR:PORT")
            await asked.wait()
            console.say("closing")
    except CannotListen as error:
        raise CommandFailed(ExitCode.USAGE, str(error)) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
