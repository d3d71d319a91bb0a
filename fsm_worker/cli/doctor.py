"""`doctor`: checks what a worker and a client need of this machine."""

import asyncio
import platform
import shutil
import socket
import sys
import tempfile
from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.durations import amount
from fsm_worker.cli.exit_codes import ExitCode
from fsm_worker.client.echo import echo
from fsm_worker.folders import state_folder
from fsm_worker.identity import Identity, KeyUnreadable
from fsm_worker.services.capabilities import WorkerCapabilities
from fsm_worker.services.nvml import GpuDriverFailed

#: Bytes of free disk below which jobs soon fail.
ENOUGH_DISK = 5 * 1024**3
#: Seconds for two peer connections of this process to find each other.
CONNECT = 10.0


class Finding(NamedTuple):
    """What one check saw.

    Args:
        check: its name.
        good: whether nothing needs to be done.
        text: what was seen; for a bad one, what to do about it.
    """

    check: str
    good: bool
    text: str


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    del options
    findings = asyncio.run(examine())
    for finding in findings:
        console.emit("finding", check=finding.check, good=finding.good, text=finding.text)
        mark = "✓" if finding.good else "✗"
        console.show(f"{mark} {finding.check}: {one_line(finding.text)}")
    return ExitCode.DONE if all(finding.good for finding in findings) else ExitCode.FINDINGS


async def examine() -> list[Finding]:
    """Makes every check, in the order in which they are shown."""
    checks: tuple[Callable[[], Awaitable[Finding]], ...] = (
        _in_a_thread(_python),
        _in_a_thread(_state),
        _in_a_thread(_disk),
        _in_a_thread(_key),
        _in_a_thread(_gpu),
        _in_a_thread(_sleap_nn),
        _in_a_thread(_supervisor),
        _in_a_thread(_port),
        _webrtc,
    )
    return [await check() for check in checks]


def _in_a_thread(check: Callable[[], Finding]) -> Callable[[], Awaitable[Finding]]:
    return lambda: asyncio.to_thread(check)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    return Finding("Python", good, version if good else f"{version}: install 3.11 or newer")


def _state() -> Finding:
    folder = state_folder("worker")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(
            "state folder", False, f"{folder} can't be written ({error}): choose another --state"
        )
    return Finding("state folder", True, str(folder))


def _disk() -> Finding:
    folder = state_folder("worker")
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < ENOUGH_DISK:
        return Finding(
            "disk", False, f"{amount(free)} free in {folder}: free some, or choose another --state"
        )
    return Finding("disk", True, f"{amount(free)} free")


def _key() -> Finding:
    path = state_folder("client") / "client.key"
    try:
        Identity.load(path)
    except (KeyUnreadable, OSError) as error:
        return Finding("key", False, str(error))
    return Finding("key", True, str(path))


def _gpu() -> Finding:
    try:
        gpus = WorkerCapabilities().snapshot().gpus
    except GpuDriverFailed as error:
        return Finding("GPU", False, f"{error}: repair the driver, jobs would fail")
    if not gpus:
        return Finding("GPU", True, "none found: jobs run on the CPU")
    names = ", ".join(f"{gpu.model} ({gpu.memory_mb} MiB)" for gpu in gpus)
    return Finding("GPU", True, names)


def _sleap_nn() -> Finding:
    found = shutil.which("sleap-nn")
    text = found or "not on the PATH: SLEAP packages are refused, unless --sleap-nn names it"
    return Finding("sleap-nn", True, text)


def _supervisor() -> Finding:
    system = platform.system()
    if system == "Linux":
        return Finding("supervision", True, "whole process trees, also daemons")
    return Finding(
        "supervision", True, f"{system} can be a client; a worker needs Linux for daemons"
    )


def _port() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return Finding("loopback", True, "ports can be opened on 127.0.0.1")
    except OSError as error:
        return Finding("loopback", False, f"no port can be opened on 127.0.0.1: {error}")


async def _webrtc() -> Finding:
    try:
        taken = await echo(CONNECT)
    except TimeoutError:
        return Finding(
            "WebRTC",
            False,
            f"two connections of this machine did not find each other in {CONNECT:.0f} s: a "
            "firewall drops its own UDP; allow UDP between this machine's own addresses",
        )
    return Finding("WebRTC", True, f"a data channel opens and echoes in {taken:.2f} s")
