"""What `doctor` looks at: each check looks at one thing, and says what to do about it."""

import asyncio
import importlib.metadata
import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import protocol
from fsm_worker.cli.durations import amount
from fsm_worker.client.echo import echo
from fsm_worker.folders import state_folder
from fsm_worker.identity import Identity, KeyUnreadable
from fsm_worker.services.nvml import GpuDriverFailed, PatientNvml, PynvmlDriver

#: Bytes that must be free: less would not hold a model and its log.
ENOUGH_DISK = 2 * 2**30
#: Seconds for a WebRTC connection inside this process.
PATIENCE = 10.0
_SUBREAPER = (
    "import sys; from fsm_worker.services.supervisor import become_subreaper; "
    "sys.exit(not become_subreaper())"
)


class Finding(NamedTuple):
    """What a check found."""

    name: str
    ok: bool
    text: str
    advice: str = ""  # what to do; empty where there is nothing to do


async def python() -> Finding:
    """The interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info >= (3, 11)
    return Finding("Python", ok, version, "" if ok else "use Python 3.11 or newer")


async def package() -> Finding:
    """Whether another distribution installs a `protocol`, too; whichever was last would win."""
    where = str(Path(protocol.__file__ or "?").parent)
    owners = {
        name
        for name in await asyncio.to_thread(_owners_of_protocol)
        if name.lower().replace("_", "-") != "fsm-worker"
    }
    if owners:
        return Finding(
            "package protocol",
            False,
            f"{where}, which {', '.join(sorted(owners))} installs, too",
            "install fsm-worker in a virtual environment of its own",
        )
    return Finding("package protocol", True, where)


def _owners_of_protocol() -> list[str]:
    owners = []
    for found in importlib.metadata.distributions():
        top = (found.read_text("top_level.txt") or "").split()
        files = top or [str(file) for file in found.files or ()]
        if any(
            name in {"protocol", "protocol.py"} or name.startswith("protocol/") for name in files
        ):
            owners.append(str(found.name))
    return owners


async def state() -> Finding:
    """The folder for keys, jobs and results."""
    folder = state_folder("worker").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-"):
            return Finding("state folder", True, f"{folder} can be written")
    except OSError as error:
        return Finding(
            "state folder",
            False,
            f"{folder}: {error.strerror}",
            "make it writable, or set FSM_WORKER_STATE to a folder that is",
        )


async def disk() -> Finding:
    """Room where jobs are kept."""
    folder = state_folder("worker")
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    ok = free >= ENOUGH_DISK
    advice = f"free some: a worker should have {amount(ENOUGH_DISK)}"
    return Finding("disk", ok, f"{amount(free)} free at {folder}", "" if ok else advice)


async def keys() -> Finding:
    """The keys that are there."""
    paths = [state_folder(role) / f"{role}.key" for role in ("client", "worker")]
    there = [path for path in paths if path.exists()]
    for path in there:
        try:
            Identity.load(path)
        except KeyUnreadable as error:
            return Finding("keys", False, "damaged", str(error))
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            return Finding("keys", False, f"{path} can be read by others", f"run: chmod 600 {path}")
    words = ", ".join(str(path) for path in there)
    return Finding("keys", True, words or "none yet; made when they are first needed")


async def gpu() -> Finding:
    """The GPUs; having none is no fault."""
    try:
        gpus = await asyncio.to_thread(PatientNvml(PynvmlDriver()).gpus)
    except GpuDriverFailed as error:
        return Finding("GPU", False, "the driver does not work", error.sentence)
    words = ", ".join(f"{one.model} ({amount(one.memory_mb * 2**20)})" for one in gpus)
    return Finding("GPU", True, words or "none, so jobs run on the CPU")


async def sleap_nn() -> Finding:
    """The trainer; not having it is no fault."""
    found = shutil.which("sleap-nn")
    return Finding("sleap-nn", True, found or "not on the PATH; `worker --sleap-nn PATH` names it")


async def ports() -> Finding:
    """Ports on loopback, TCP and UDP."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.bind(("127.0.0.1", 0))
        except OSError as error:
            return Finding(
                "loopback", False, f"127.0.0.1: {error.strerror}", "bring the interface `lo` up"
            )
    return Finding("loopback", True, "ports of 127.0.0.1 can be bound")


async def webrtc() -> Finding:
    """A real connection between two ends in this process: ICE, DTLS, SCTP and an echo."""
    try:
        taken = await echo(PATIENCE)
    except TimeoutError:
        return Finding(
            "WebRTC",
            False,
            f"no connection in {PATIENCE:.0f} s",
            "let this program send UDP to this machine's own addresses in the firewall",
        )
    return Finding("WebRTC", True, f"a message came back after {taken:.1f} s")


async def subreaper() -> Finding:
    """Whether a job's whole process tree can be found and ended."""
    if platform.system() != "Linux":
        return Finding("job processes", True, "this system can be a client; workers run on Linux")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SUBREAPER, stderr=subprocess.DEVNULL
    )
    if await process.wait() == 0:
        return Finding("job processes", True, "orphans of a job are found and ended (subreaper)")
    return Finding(
        "job processes",
        False,
        "this system gives no orphans to a subreaper (prctl)",
        "run the worker outside the sandbox that forbids it",
    )


CHECKS: tuple[Callable[[], Awaitable[Finding]], ...] = (
    *(python, package, state, disk, keys),
    *(gpu, sleap_nn, ports, webrtc, subreaper),
)
