"""How late a trainer's report reaches the client, beside ZMQ alone."""

import asyncio
import sys
from pathlib import Path

from bench.ends import trainer
from bench.pairs import worker_and_client
from bench.program import Program
from bench.report import REPETITIONS, Line, Sample, Section, percentile
from fsm_worker.trainer import PUBLISH

_REPORTS = 100  # a repetition
_RATE = 50  # a second


async def measure(folder: Path) -> Section:
    """Runs the same trainer as a worker's job, and in front of a plain subscriber.

    Args:
        folder: an empty one.
    """
    ours, alone = await _through_worker(folder), await _through_zmq()
    lines = [
        Line(
            Sample(f"{name}, trainer → worker → client", _by_repetition(ours, share)),
            Sample(f"{name}, ZMQ PUB → SUB", _by_repetition(alone, share)),
        )
        for name, share in (("p50", 0.5), ("p99", 0.99))
    ]
    return Section(
        "Progress",
        "ms",
        f"Age of an `epoch_end` when the client's `news()` gives it: stamped in the trainer's"
        f" process, through the worker's and the data channel. {_REPORTS} reports a repetition,"
        f" {_RATE} a second. Beside it the same trainer and a blocking ZMQ subscriber, two"
        " processes.",
        lines,
    )


async def _through_worker(folder: Path) -> list[float]:
    package = folder / "package"
    package.mkdir()
    count = REPETITIONS * _REPORTS
    (package / "train-script.sh").write_text(f"bench epochs {count} {_RATE}\n")
    async with worker_and_client(folder) as client:
        await client.ask("stay")
        await client.ask("pack", folder=str(package))
        late: list[float] = (await client.ask("run", folder=str(package)))["late"]
    return late


async def _through_zmq() -> list[float]:
    async with Program.started("bench.ends.subscriber") as subscriber, asyncio.TaskGroup() as group:
        endpoint = (await subscriber.ask("where"))["endpoint"]
        heard = group.create_task(subscriber.ask("listen"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", trainer.__file__,
            "epochs", str(REPETITIONS * _REPORTS), str(_RATE),
            env={PUBLISH: endpoint},
        )  # fmt: skip
        try:
            late: list[float] = (await heard)["late"]
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
    return late


def _by_repetition(late: list[float], share: float) -> tuple[float, ...]:
    """The percentile of each repetition, in ms; every report must have come."""
    assert len(late) == REPETITIONS * _REPORTS
    return tuple(
        1000 * percentile(late[start : start + _REPORTS], share)
        for start in range(0, len(late), _REPORTS)
    )
