"""A real worker with its signaling server, as `python -m fsm_worker` has them in one process."""

import asyncio
import contextlib
import sys
from pathlib import Path

from bench.ends import trainer
from bench.program import Answer, serve
from fsm_worker.services.recipe import Runner
from fsm_worker.settings import WorkerSettings
from fsm_worker.signaling.server import SignalingServer
from fsm_worker.worker_class import RTCWorkerClient
from protocol.proof import SessionString

#: `bench epochs …` and `bench copy …` in a package's script run `bench.ends.trainer`.
RUNNER = Runner("bench", (sys.executable, "-P", str(Path(trainer.__file__))))


class WorkerEnd:
    """A worker in a room of a server on loopback; both live as long as `stack`."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._stack = stack

    async def start(self, state: str) -> Answer:
        """Starts both; gives the session string for clients."""
        ready: asyncio.Future[SessionString] = asyncio.get_running_loop().create_future()
        server = await self._stack.enter_async_context(SignalingServer())
        worker = RTCWorkerClient(
            settings=WorkerSettings(
                state=Path(state),
                name="bench",
                runners={("bench",): RUNNER},
                ready=ready.set_result,
            )
        )
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        group.create_task(worker.run_worker(None, "ws://127.0.0.1", server.port))
        for _ in range(2):  # the first asks it to drain, the second to stop
            self._stack.callback(worker.terminate)
        return {"session": (await ready).encode()}


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        await serve({"start": WorkerEnd(stack).start})


if __name__ == "__main__":
    asyncio.run(main())
