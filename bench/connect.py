"""How long a client takes to get to a worker, beside aiortc alone."""

from pathlib import Path

from bench.pairs import connected, two_ends, worker_and_client
from bench.report import REPETITIONS, Line, Sample, Section


async def measure(folder: Path) -> Section:
    """Connects by turns: a client to its worker, and one bare end to another.

    Args:
        folder: an empty one.
    """
    ours: list[float] = []
    bare: list[float] = []
    async with worker_and_client(folder) as client, two_ends("bench.ends.bare") as pair:
        for _ in range(1 + REPETITIONS):
            ours.append(1000 * (await client.ask("connect"))["seconds"])
            async with connected(pair) as seconds:
                bare.append(1000 * seconds)
    line = Line(
        Sample("sign in, room, offer, ICE, DTLS, proofs, welcome", tuple(ours[1:])),
        Sample("offer, ICE, DTLS, one channel", tuple(bare[1:])),
    )
    return Section(
        "Connecting",
        "ms",
        "From `WorkerConnection.open` to the worker's welcome, both processes warm; beside it a"
        " bare aiortc pair in two processes, from `RTCPeerConnection()` to the open channel, whose"
        " descriptions go through pipes instead of a signaling server. The first of each is left"
        " out.",
        (line,),
    )
