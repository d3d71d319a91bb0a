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


def described(path: Path) -> PackedArchive:
    content = path.read_bytes()
    return PackedArchive(path, len(content), hashlib.sha256(content).hexdigest(), files=2)


async def main(session: str, key: str, archive: str, job: str) -> None:
    packed = described(Path(archive))
    async with WorkerConnection.open(
        SessionString.decode(session), Identity.load(Path(key))
    ) as client:
        await client.submit(job, packed)
        async for message in client.news():
            if isinstance(message, m.Progress) and message.event == "epoch_end":
                sys.stdout.write("epoch_end\n")
                sys.stdout.flush()


asyncio.run(main(*sys.argv[1:]))
