"""A plain ZMQ subscriber: what a report costs when nothing stands behind ZMQ."""

import asyncio
import json
import time

import zmq

from bench.ends.trainer import SENT_AT
from bench.program import Answer, serve


class Subscriber:
    """Binds a port, and hears one trainer to its end."""

    def __init__(self) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._socket.subscribe(b"")
        self._port: int = self._socket.bind_to_random_port("tcp://127.0.0.1")

    async def where(self) -> Answer:
        """Gives the endpoint to publish to."""
        return {"endpoint": f"tcp://127.0.0.1:{self._port}"}

    async def listen(self) -> Answer:
        """Hears reports until training ends; gives how late they came, in seconds."""
        late: list[float] = []
        while True:
            data = self._socket.recv()  # nothing else runs in this process
            now = time.time()
            message = json.loads(data)
            if message["event"] == "epoch_end":
                late.append(now - message["logs"][SENT_AT])
            elif message["event"] == "train_end":
                return {"late": late}


async def main() -> None:
    subscriber = Subscriber()
    await serve({"where": subscriber.where, "listen": subscriber.listen})


if __name__ == "__main__":
    asyncio.run(main())
