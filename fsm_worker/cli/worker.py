"""`worker`: runs a worker, with a signaling server of its own if none is named."""

import asyncio
import contextlib
from argparse import Namespace
from collections.abc import AsyncIterator
from pathlib import Path

from fsm_worker.cli.addresses import (
    Server,
    bracketed,
    ice_servers,
    is_loopback,
    own_address,
    parse_listen,
    parse_signaling,
)
from fsm_worker.cli.config import KEYS, Config, load
from fsm_worker.cli.console import Console
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.parsers import PROG
from fsm_worker.cli.trusting import trust_of
from fsm_worker.folders import SESSION_FILE
from fsm_worker.machines.world import THE_SERVER
from fsm_worker.seams.signaling_socket import SignalingUnreachable
from fsm_worker.services.nvml import GpuDriverFailed
from fsm_worker.settings import WorkerSettings
from fsm_worker.signaling.server import CannotListen, SignalingServer
from fsm_worker.worker_class import RTCWorkerClient
from protocol.lifecycle import SignallingState
from protocol.proof import SessionString
from protocol.table import MachineName

_LEAVING = (
    "leaving: no new jobs; a running job may end, press Ctrl-C again to stop it",
    "stopping: a running job is ended",
    "stopping at once",
)


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    config = load({key.name: getattr(options, key.name) for key in KEYS}, file=options.config)
    if options.show_config:
        for setting in config.objects():
            console.emit("setting", **setting)
        for line in config.lines():
            console.show(line)
        return ExitCode.DONE
    return asyncio.run(_serve(config, console))


async def _serve(config: Config, console: Console) -> ExitCode:
    async with _signaling(config) as server:
        worker = _Worker(config, console, server)
        worker.handle_signals()
        await asyncio.to_thread(worker.look_at_gpu)
        try:
            await worker.run_worker(
                None, server.base, server.port, config["room"] or None, config["token"] or None
            )
        except SignalingUnreachable as error:
            raise CommandFailed(ExitCode.CONNECTION_LOST, str(error)) from error
    refused = worker.world.get(MachineName.SIGNALLING, THE_SERVER)
    if refused is not None and refused.state is SignallingState.REFUSED:
        return ExitCode.NOT_AUTHORISED
    return ExitCode.DONE


@contextlib.asynccontextmanager
async def _signaling(config: Config) -> AsyncIterator[Server]:
    """The signaling server that is named, or one of our own."""
    if config["signaling"]:
        yield parse_signaling(config["signaling"])
        return
    listen = parse_listen(config["listen"])
    try:
        trust = trust_of(config["jwt_key"], config["api_keys"])
        async with SignalingServer(listen.host, listen.port, trust=trust) as own:
            yield parse_signaling(own.ws_url)
    except CannotListen as error:
        raise CommandFailed(ExitCode.USAGE, str(error)) from error


class _Worker(RTCWorkerClient):
    """A worker that tells its operator what it does."""

    def __init__(self, config: Config, console: Console, server: Server) -> None:
        self._console = console
        self._asked = 0
        self._gpu = "no GPU"
        self._announced = False
        public = server
        if not config["signaling"]:
            # Where it listens on every address, others need another one than we do.
            host = own_address(parse_listen(config["listen"]).host)
            public = Server(f"ws://{bracketed(host)}", host, server.port)
        self._reach = _reach(public, own=not config["signaling"])
        super().__init__(
            gpu_id=int(config["gpu"]),
            settings=WorkerSettings(
                state=Path(config["state"]).expanduser() / "worker",
                name=config["name"],
                public_url=str(public),
                ice_servers=ice_servers(config["stun"], public.host),
                sleap_nn=Path(config["sleap_nn"]).expanduser() if config["sleap_nn"] else None,
                shared_storage=_folder(config["shared_storage"]),
                runners=config.runners,
                declared=config.declared,
                allow_sleap_rtc=_lets_guests_in(config, public),
                sleap_rtc_secret=config["room_secret"],
                say=console.say,
                ready=self._ready,
            ),
        )

    def look_at_gpu(self) -> None:
        """Finds out what to say of the GPU; blocking, since the driver may sleep."""
        try:
            if self.gpu_model:
                self._gpu = f"{self.gpu_model}, {self.gpu_memory_mb} MiB"
        except GpuDriverFailed as error:
            self._gpu = error.sentence

    def terminate(self) -> None:
        """Leaves, and says so, also to who wants it quiet."""
        words = _LEAVING[min(self._asked, len(_LEAVING) - 1)]
        self._asked += 1
        self._console.show(words)
        self._console.emit("leaving", asked=self._asked, message=words)
        super().terminate()

    def _ready(self, session: SessionString) -> None:
        """Shows the way here, once: it stays true when the worker registers again."""
        if self._announced:
            return
        self._announced = True
        text = session.encode()
        beside = self.settings.state / SESSION_FILE
        beside.touch(mode=0o600)
        beside.write_text(text + "\n", encoding="ascii")
        line = f"{PROG} submit --session {text} --example digits"
        reachable = not is_loopback(parse_signaling(session.url).host)
        self._console.emit("ready", session=text, url=session.url, submit=line, reachable=reachable)
        name = self.settings.name
        self._console.say(f"worker {name} ({self._gpu}). Submit to it with this line:")
        self._console.show(line)
        self._console.say(self._reach)


def _folder(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _lets_guests_in(config: Config, server: Server) -> bool:
    """As it is set; else on this machine alone."""
    if config["allow_sleap_rtc"]:
        return config["allow_sleap_rtc"] == "on"
    return is_loopback(server.host)


def _reach(server: Server, *, own: bool) -> str:
    """Who can use that line."""
    if not is_loopback(server.host):
        unsafe = "; without TLS, so use it in a network that you trust" if own else ""
        return f"It works on machines that reach {server.host}, TCP port {server.port}{unsafe}."
    if not own:
        return "It works on this machine only: its signaling server is on loopback."
    return (
        "It works on this machine only. For others, give --listen ADDR:PORT with an address of "
        "this machine in the same network or VPN (0.0.0.0 takes all), or --signaling wss://HOST "
        "with a server of your own."
    )
