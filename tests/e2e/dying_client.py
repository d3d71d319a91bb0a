"""A client that submits, says when training is under way, and waits to be killed."""

import asyncio
import hashlib
import sys
from pathlib import Path

from fsm_worker.client.connection import WorkerConnection
from fsm_worker.identity import Identity
from fsm_worker.services.archive import PackedArchive
from protocol import messages as m
from protocol.proof import SessionString


async def main(session: str, key: str, archive: str, job: str) -> None:
    path = Path(archive)
    packed = PackedArchive(
        path=path,
        size=path.stat().st_size,
        root=hashlib.sha256(path.read_bytes()).hexdigest(),
        files=2,
    )
    async with WorkerConnection.open(
        SessionString.decode(session), Identity.load(Path(key))
    ) as client:
        await client.submit(job, packed)
        async for message in client.news():
            if isinstance(message, m.Progress) and message.event == "epoch_end":
                print("epoch_end", flush=True)


asyncio.run(main(*sys.argv[1:]))
