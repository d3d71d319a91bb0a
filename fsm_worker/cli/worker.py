"""`worker`: makes this machine a worker, until it is asked to leave."""

import asyncio
import contextlib
import signal
from argparse import Namespace
from pathlib import Path

from fsm_worker.cli.addresses import (
    bracketed,
    ice_servers,
    is_everywhere,
    is_loopback,
    own_address,
    parse_listen,
    parse_signaling,
)
from fsm_worker.cli.config import KEYS, Config, load
from fsm_worker.cli.console import Console
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.parsers import PROG
from fsm_worker.settings import WorkerSettings
from fsm_worker.signaling.server import CannotListen, SignalingServer
from fsm_worker.worker_class import RTCWorkerClient
from protocol.proof import SessionString


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    config = load({key.name: getattr(options, key.name) for key in KEYS}, file=options.config)
    if options.show_config:
        for entry in config.objects():
            console.emit("setting", **entry)
        for line in config.lines():
            console.show(line)
        return ExitCode.DONE
    asyncio.run(work(config, console))
    return ExitCode.DONE


async def work(config: Config, console: Console) -> None:
    """Works until it has left.

    Args:
        config: the settings.
        console: prints.

    Raises:
        CommandFailed: the address can't be listened on.
        SignalingUnreachable: no signaling server answers.
        SignalingRefused: it does not let us in.
    """
    async with contextlib.AsyncExitStack() as stack:
        if config["signaling"]:
            server = parse_signaling(config["signaling"])
            base, port, host = server.base, server.port, server.host
            public, reachable = "", _on_another_server(host)
        else:
            listen = parse_listen(config["listen"])
            try:
                own = await stack.enter_async_context(SignalingServer(listen.host, listen.port))
            except CannotListen as error:
                raise CommandFailed(ExitCode.USAGE, str(error)) from error
            base, _, port_text = own.ws_url.rpartition(":")
            port, host = int(port_text), own_address(listen.host)
            public = f"ws://{bracketed(host)}:{port}"
            reachable = _on_own_server(listen.host, host, port)
        announced = _Announcement(console, reachable)
        worker = RTCWorkerClient(
            gpu_id=int(config["gpu"]),
            settings=WorkerSettings(
                state=_path(config["state"]) / "worker",
                name=config["name"],
                public_url=public,
                ice_servers=ice_servers(config["stun"], host),
                sleap_nn=_path(config["sleap_nn"]) if config["sleap_nn"] else None,
                say=console.say,
                ready=announced.ready,
            ),
        )
        _listen_to_signals(worker, console)
        console.say(f"fsm-worker {config['name']!r} is starting")
        await worker.run_worker(None, base, port, config["room"] or None, config["token"] or None)


def _path(text: str) -> Path:
    return Path(text).expanduser()


class _Announcement:
    """Says how to get here, once: it stays true when the worker registers again."""

    def __init__(self, console: Console, reachable: str) -> None:
        self._console = console
        self._reachable = reachable
        self._said = False

    def ready(self, session: SessionString) -> None:
        """The room was entered."""
        if self._said:
            return
        self._said = True
        text = session.encode()
        self._console.emit("ready", session=text)
        self._console.show(f"{PROG} submit --session {text} --example digits")
        self._console.say(self._reachable)


def _on_own_server(listen: str, host: str, port: int) -> str:
    if is_loopback(host):
        return (
            "That line works on this machine only. For other machines: --listen 0.0.0.0:8080 in a "
            "network you trust (a LAN or a VPN), or --signaling wss://HOST for a server with TLS."
        )
    where = "every address of this machine" if is_everywhere(listen) else listen
    return (
        f"That line works from machines that reach {host}, TCP port {port} (listening on {where}, "
        "without TLS: use it in a network you trust)."
    )


def _on_another_server(host: str) -> str:
    if is_loopback(host):
        return "That line works on this machine only: its signaling server is on loopback."
    return f"That line works from every machine that reaches {host}."


def _listen_to_signals(worker: RTCWorkerClient, console: Console) -> None:
    """The first signal drains and says so; the second stops."""
    asked = 0

    def heard() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            console.say("Leaving: a running job may end first. Once more stops it.")
        else:
            console.say("Stopping now.")
        worker.terminate()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, heard)
