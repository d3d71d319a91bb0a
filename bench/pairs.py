"""Two programs that belong together, started and introduced to each other."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

from bench.program import Program


class Pair(NamedTuple):
    """Who sends or asks, and who is at the other end."""

    near: Program
    far: Program


@contextlib.asynccontextmanager
async def worker_and_client(folder: Path) -> AsyncIterator[Program]:
    """A real worker and a real client that knows it, each a process.

    Args:
        folder: an empty one, for what they keep.

    Yields:
        The client.
    """
    async with Program.started("bench.ends.worker") as worker:
        started = await worker.ask("start", state=str(folder / "worker"))
        async with Program.started("bench.ends.client") as client:
            key = str(folder / "client.key")
            await client.ask("know", session=started["session"], key=key)
            yield client


@contextlib.asynccontextmanager
async def two_ends(module: str, *paths: Path) -> AsyncIterator[Pair]:
    """Two processes of a module whose ends are `ChannelEnd`s, not yet connected.

    Args:
        module: of the program.
        paths: where they find more packages.
    """
    more = {"PYTHONPATH": ":".join(str(path) for path in paths)} if paths else {}
    async with (
        Program.started(module, environment=more) as near,
        Program.started(module, environment=more) as far,
    ):
        yield Pair(near, far)


@contextlib.asynccontextmanager
async def connected(pair: Pair) -> AsyncIterator[float]:
    """Opens a data channel between two ends, and closes it with the block.

    Yields:
        The seconds that it took, as the near end measured them.
    """
    offer = await pair.near.ask("offer")
    answer = await pair.far.ask("answer", sdp=offer["sdp"])
    opened = await pair.near.ask("accept", sdp=answer["sdp"])
    try:
        yield float(opened["seconds"])
    finally:
        for end in pair:
            await end.ask("close")
