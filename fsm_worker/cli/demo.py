"""`demo`: a worker and a client of its own, a real training, and a verified result."""

import asyncio
import contextlib
import sys
import tempfile
from argparse import Namespace
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from fsm_worker.cli.console import Console
from fsm_worker.cli.ending import report_ending, report_leave
from fsm_worker.cli.exit_codes import CommandFailed, ExitCode
from fsm_worker.cli.package import Source, job_id
from fsm_worker.cli.results import output_folder
from fsm_worker.cli.session import Client, Target
from fsm_worker.cli.submit import Done, Order, submit
from protocol.proof import SessionString

#: Seconds that the worker may take to begin, and to leave.
PATIENCE = 30.0
_EPOCHS = 20


class _Ready(msgspec.Struct):
    """The line that a worker prints when it can be reached."""

    type: str
    session: str = ""


def run(options: Namespace, console: Console) -> ExitCode:
    """Runs the command."""
    job = job_id("demo")
    output = output_folder(options.output, job)
    with contextlib.ExitStack() as stack:
        if options.state is None:
            folder = tempfile.TemporaryDirectory(prefix="fsm-worker-demo-")
            state = Path(stack.enter_context(folder))
        else:
            state = options.state
        done = asyncio.run(demo(job, output, state, console, pace=options.pace))
    if done.ending is None:
        return report_leave(console, job)
    return report_ending(console, done.ending, fetched=done.fetched, losses=done.losses)


async def demo(job: str, output: Path, state: Path, console: Console, *, pace: float) -> Done:
    """Starts a worker, has the digits trained by it, and ends it.

    Args:
        job: the id to use.
        output: where the results go.
        state: folder of the worker's and the client's state.
        console: prints.
        pace: seconds that an epoch takes at least.

    Raises:
        CommandFailed: the worker does not begin, or does not leave as it should.
    """
    client = Client(console, state / "client", stun="off")
    order = Order(source=Source(epochs=_EPOCHS, pace=pace), job=job, name="digits", output=output)
    console.say("starting a worker on this machine (127.0.0.1 only)")
    async with _a_worker(state) as session:
        return await submit(order, client, Target(SessionString.decode(session), session))


@contextlib.asynccontextmanager
async def _a_worker(state: Path) -> AsyncIterator[str]:
    """A worker in a process of its own; gives its session string, and ends it afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fsm_worker", "worker", "--json",
        "--listen", "127.0.0.1:0", "--state", str(state), "--name", "demo", "--stun", "off",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the client: it ends the worker by itself
    )  # fmt: skip
    try:
        yield await _session_of(process)
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(PATIENCE):
                left = await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise CommandFailed(ExitCode.FAILED, "the worker did not leave when asked") from None
    if left != 0:
        raise CommandFailed(ExitCode.FAILED, f"the worker ended with exit code {left}")


async def _session_of(process: asyncio.subprocess.Process) -> str:
    if process.stdout is None:
        raise CommandFailed(ExitCode.FAILED, "the worker's output can't be read")
    try:
        async with asyncio.timeout(PATIENCE):
            async for line in process.stdout:
                said = msgspec.json.decode(line, type=_Ready)
                if said.type == "ready":
                    return said.session
    except TimeoutError:
        raise CommandFailed(
            ExitCode.NO_WORKER, f"the worker did not begin within {PATIENCE:.0f} s"
        ) from None
    raise CommandFailed(ExitCode.NO_WORKER, "the worker ended before it began: see its lines above")
