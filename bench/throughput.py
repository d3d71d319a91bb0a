"""How fast files go, beside sleap-rtc's senders and beside aiortc alone."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.pairs import Pair, connected, two_ends, worker_and_client
from bench.program import Program
from bench.report import REPETITIONS, Line, Sample, Section
from bench.sleap_rtc_package import PackageMissing, sleap_rtc

#: What all turns together should take on this machine, in seconds.
_BUDGET = 90.0
_MIB = 2**20
_SIZES = (20 * _MIB, 32 * _MIB)  # the least is above sleap-rtc's mark of 16 MiB

_Turn = Callable[[], Awaitable[float]]
_UP, _DOWN, _CEILING = "upload", "download", "ceiling"
_THEIR_UP, _THEIR_DOWN = "sleap-rtc upload", "sleap-rtc download"


async def measure(folder: Path) -> Section:
    """Moves a file of random bytes in each way by turns, so that all meet the same noise.

    Each turn has a connection of its own: how a connection of SCTP begins decides how it goes on.

    Args:
        folder: an empty one.
    """
    notes: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        bare = await stack.enter_async_context(two_ends("bench.ends.bare"))
        size = _affordable(await _sent(bare, 8 * _MIB))
        payload = folder / "payload.bin"
        payload.write_bytes(os.urandom(size))
        turns: dict[str, _Turn] = {_CEILING: lambda: _sent(bare, size)}
        client = await stack.enter_async_context(worker_and_client(folder))
        turns |= await _ours(client, folder, payload)
        try:
            package = await sleap_rtc()
        except PackageMissing as missing:
            notes.append(f"sleap-rtc was not measured, as it can't be installed: {missing}")
        else:
            peer = await stack.enter_async_context(two_ends("bench.ends.sleap_rtc", package))
            turns |= _theirs(peer, folder, payload)
        values: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(REPETITIONS):
            for name, turn in turns.items():
                values[name].append(await turn())
    return _section(size, {name: tuple(found) for name, found in values.items()}, notes)


def _affordable(rate: float) -> int:
    """How many bytes a turn can have, with five ways at about this rate (MB/s)."""
    most = int(_BUDGET * 1e6 * rate / (5 * REPETITIONS))
    least, enough = _SIZES
    return max(least, min(enough, most // _MIB * _MIB))


async def _sent(bare: Pair, size: int) -> float:
    async with connected(bare):
        answer = await bare.near.ask("send", size=size)
    return float(answer["bytes"]) / 1e6 / float(answer["seconds"])


async def _ours(client: Program, folder: Path, payload: Path) -> dict[str, _Turn]:
    """The client's two ways, after one job that has the payload among its results."""
    copied, refused = _package(folder, payload, "copy"), _package(folder, payload, "refuse")
    await client.ask("stay")
    for package in (copied, refused):
        packed = await client.ask("pack", folder=str(package))
    ran = await client.ask("run", folder=str(copied))
    await client.ask("leave")

    async def upload() -> float:
        await client.ask("stay")
        uploaded = await client.ask("upload", folder=str(refused))
        await client.ask("leave")
        return float(packed["bytes"]) / 1e6 / float(uploaded["seconds"])

    async def download() -> float:
        await client.ask("stay")
        fetched = await client.ask("fetch", job=ran["job"], into=str(folder))
        await client.ask("leave")
        return float(fetched["bytes"]) / 1e6 / float(fetched["seconds"])

    return {_UP: upload, _DOWN: download}


def _theirs(peer: Pair, folder: Path, payload: Path) -> dict[str, _Turn]:
    into, size = folder / "sleap-rtc", payload.stat().st_size
    into.mkdir()

    async def upload() -> float:
        async with connected(peer), asyncio.TaskGroup() as group:
            group.create_task(peer.far.ask("receive", into=str(into)))
            uploaded = await peer.near.ask("upload", path=str(payload), into=str(into))
        assert (into / payload.name).stat().st_size == size
        (into / payload.name).unlink()
        return size / 1e6 / float(uploaded["seconds"])

    async def send() -> float:
        async with connected(peer):
            sent = await peer.near.ask("send", path=str(payload))
        assert sent["bytes"] == size
        return size / 1e6 / float(sent["seconds"])

    return {_THEIR_UP: upload, _THEIR_DOWN: send}


def _package(folder: Path, payload: Path, what: str) -> Path:
    """A package with the payload; its job copies it to the results, or is refused after all."""
    package = folder / what
    package.mkdir()
    os.link(payload, package / payload.name)
    command = "bench copy payload.bin" if what == "copy" else "nothing here runs this"
    (package / "train-script.sh").write_text(f"{command}\n")
    return package


def _section(size: int, values: dict[str, tuple[float, ...]], notes: list[str]) -> Section:
    def sample(name: str, key: str) -> Sample | None:
        return Sample(name, values[key]) if key in values else None

    up = Sample("upload: read, send, write, hash, name", values[_UP])
    down = Sample("download: read, send, write, hash, name", values[_DOWN])
    ceiling = Sample("aiortc alone: zeros, counted", values[_CEILING])
    return Section(
        "Throughput",
        "MB/s",
        f"One file of {size // _MIB} MiB of random bytes through one data channel between two"
        " processes, on a fresh connection each time, until the receiver has said that it has it"
        " whole. Ours from the request to the verified file under its name. sleap-rtc 0.0.7 with"
        " its own code: its client's `upload_file` to its worker's `FileManager` (writes and"
        " hashes), and its worker's `FileManager.send_file` to an end that only counts. aiortc"
        " alone: 64 KiB messages from memory, held at 2 MiB by `bufferedamountlow`, to an end that"
        " only counts.",
        (
            Line(up, sample("sleap-rtc `upload_file`", _THEIR_UP)),
            Line(down, sample("sleap-rtc `send_file`, counted", _THEIR_DOWN)),
            Line(up, ceiling),
            Line(down, ceiling),
        ),
        notes,
    )
