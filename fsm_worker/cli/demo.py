"""`demo`: a worker, a client and a job on this machine alone, in some ten seconds."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from fsm_worker.cli.console import Console, one_line
from fsm_worker.cli.ending import report_ending
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.interrupts import Interrupts
from fsm_worker.cli.package import Source, job_id
from fsm_worker.cli.results import output_folder
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.submit import Order, submit
from fsm_worker.cli.watching import Done
from protocol.lifecycle import Outcome
from protocol.proof import SessionString

_EPOCHS = 24
#: Seconds until the worker must have printed its line, and must have ended.
_START, _END = 30.0, 15.0


class _Ready(msgspec.Struct, tag_field="type", tag="ready"):
    """What the worker prints first."""

    session: str


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    with contextlib.ExitStack() as stack:
        folder = options.state
        if folder is None:
            folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="fsm-demo-", ignore_cleanup_errors=True)
                )
            )
        done = asyncio.run(_show(options, console, folder))
    if done.ending is None:
        raise _left()
    code = report_ending(console, done.ending, fetched=done.fetched, losses=done.losses)
    if done.ending.outcome is Outcome.SUCCEEDED:
        _check(done)
        console.say("the worker has stopped; nothing of the demo is left but the results")
    return code


def _left() -> CommandFailed:
    return CommandFailed(ExitCode.CANCELLED, "the demo was left, and its worker stopped")


def _check(done: Done) -> None:
    losses = done.losses
    if losses is None or losses.first_loss is None or not losses.history:
        raise CommandFailed(ExitCode.FAILED, "the demo heard of no loss: please report this")
    if losses.history[-1] >= losses.first_loss:
        raise CommandFailed(ExitCode.FAILED, "the loss did not fall: please report this")
    if done.fetched is None:
        raise CommandFailed(ExitCode.FAILED, "the demo got no results: please report this")


async def _show(options: Namespace, console: Console, folder: Path) -> Done:
    job = job_id("demo")
    order = Order(
        source=Source(epochs=_EPOCHS, pace=options.pace),
        job=job,
        name="the digits example",
        output=output_folder(options.output, job),
    )
    console.say("starting a worker on 127.0.0.1 …")
    with (
        Interrupts(lambda _question: None, interactive=False) as interrupts,
        interrupts.instead(_left),
    ):
        return await _carry_out(order, console, folder)


async def _carry_out(order: Order, console: Console, folder: Path) -> Done:
    async with _worker(folder) as session:
        client = Client(console, folder / "client", stun="off")
        return await submit(order, client, Target(SessionString.decode(session), session))


@contextlib.asynccontextmanager
async def _worker(folder: Path) -> AsyncIterator[str]:
    """A worker in a process of its own; gives its session string, and ends it.

    Raises:
        CommandFailed: it did not start, or did not end as it should.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    words = folder / "worker.stderr"
    with words.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fsm_worker", "worker", "--json", "--name", "demo"),
            *("--listen", "127.0.0.1:0", "--stun", "off", "--state", str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={k: v for k, v in os.environ.items() if not k.startswith("FSM_WORKER_")},
            start_new_session=True,  # Ctrl-C is for the client; the worker is told by us
        )
    left = True
    try:
        yield await _session(process, words)
        left = False
    finally:
        code = await _end(process, at_once=left)
        if code != 0 and not left:
            raise CommandFailed(
                ExitCode.FAILED, f"the worker ended with {code}: {_last_line(words)}"
            )


async def _session(process: asyncio.subprocess.Process, words: Path) -> str:
    if process.stdout is None:
        raise TypeError("the worker was started without a pipe")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START):
            async for line in process.stdout:
                with contextlib.suppress(msgspec.DecodeError):
                    return msgspec.json.decode(line, type=_Ready).session
    raise CommandFailed(ExitCode.NO_WORKER, f"the worker did not start: {_last_line(words)}")


async def _end(process: asyncio.subprocess.Process, *, at_once: bool) -> int:
    """Asks it to leave; harder each time that it does not."""
    asks = [signal.SIGTERM] * 3
    if at_once:
        for number in asks:
            _send(process, number)
    for number in [*asks, signal.SIGKILL]:
        _send(process, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END):
                await process.communicate()
                break
    return await process.wait()


def _send(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _last_line(words: Path) -> str:
    lines = words.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line for line in lines if line.strip()]
    return one_line(said[-1]) if said else "it said nothing"
