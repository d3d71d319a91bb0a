"""How fast files go, beside sleap-rtc's senders and beside aiortc alone."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.pairs import Pair, connect, two_ends, worker_and_client
from bench.program import Program
from bench.report import REPETITIONS, Line, Sample, Section
from bench.sleap_rtc_package import PackageMissing, sleap_rtc

_Turn = Callable[[], Awaitable[float]]
_UP, _DOWN, _CEILING = "upload", "download", "ceiling"
_THEIR_UP, _THEIR_DOWN = "sleap-rtc upload", "sleap-rtc download"


async def measure(folder: Path, size: int) -> Section:
    """Moves a file of random bytes in each way by turns, so that all meet the same noise.

    Args:
        folder: an empty one.
        size: of the file, in bytes; more than sleap-rtc's mark of 16 MiB.
    """
    payload = folder / "payload.bin"
    payload.write_bytes(os.urandom(size))
    notes: list[str] = []
    turns: dict[str, _Turn] = {}
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(worker_and_client(folder))
        turns |= await _ours(client, folder, payload)
        bare = await stack.enter_async_context(two_ends("bench.ends.bare"))
        await connect(bare)
        turns[_CEILING] = lambda: _rate(bare.near.ask("send", size=size))
        try:
            peer = await stack.enter_async_context(
                two_ends("bench.ends.sleap_rtc", await sleap_rtc())
            )
        except PackageMissing as missing:
            notes.append(f"sleap-rtc was not measured, as it can't be installed: {missing}")
        else:
            await connect(peer)
            turns |= _theirs(peer, folder, payload)
        values = {name: [await turn()] for name, turn in turns.items()}
        for _ in range(REPETITIONS - 1):
            for name, turn in turns.items():
                values[name].append(await turn())
    return _section(size, {name: tuple(found) for name, found in values.items()}, notes)


async def _ours(client: Program, folder: Path, payload: Path) -> dict[str, _Turn]:
    """The client's two ways, after one job that has the payload among its results."""
    copied, refused = _package(folder, payload, "copy"), _package(folder, payload, "refuse")
    await client.ask("stay")
    for package in (copied, refused):
        packed = await client.ask("pack", folder=str(package))
    ran = await client.ask("run", folder=str(copied))

    async def upload() -> float:
        answer = await client.ask("upload", folder=str(refused))
        return float(packed["bytes"]) / 1e6 / float(answer["seconds"])

    return {
        _UP: upload,
        _DOWN: lambda: _rate(client.ask("fetch", job=ran["job"], into=str(folder))),
    }


def _theirs(peer: Pair, folder: Path, payload: Path) -> dict[str, _Turn]:
    into, size = folder / "sleap-rtc", payload.stat().st_size
    into.mkdir()

    async def upload() -> float:
        async with asyncio.TaskGroup() as group:
            group.create_task(peer.far.ask("receive", into=str(into)))
            uploaded = await peer.near.ask("upload", path=str(payload), into=str(into))
        assert (into / payload.name).stat().st_size == size
        (into / payload.name).unlink()
        return size / 1e6 / float(uploaded["seconds"])

    async def send() -> float:
        sent = await peer.near.ask("send", path=str(payload))
        assert sent["bytes"] == size
        return size / 1e6 / float(sent["seconds"])

    return {_THEIR_UP: upload, _THEIR_DOWN: send}


async def _rate(answer: Awaitable[dict[str, float]]) -> float:
    found = await answer
    return found["bytes"] / 1e6 / found["seconds"]


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
        f"One file of {size / 2**20:.0f} MiB of random bytes through one data channel between two"
        " processes, until the receiver has said that it has it whole. Ours from the request to"
        " the verified file under its name. sleap-rtc 0.0.7 with its own code: its client's"
        " `upload_file` to its worker's `FileManager` (writes and hashes), and its worker's"
        " `FileManager.send_file` to an end that only counts. aiortc alone: 64 KiB messages from"
        " memory, held at 2 MiB by `bufferedamountlow`, to an end that only counts.",
        (
            Line(up, sample("sleap-rtc `upload_file`", _THEIR_UP)),
            Line(down, sample("sleap-rtc `send_file`, counted", _THEIR_DOWN)),
            Line(up, ceiling),
            Line(down, ceiling),
        ),
        notes,
    )
