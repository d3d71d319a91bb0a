"""The trainer API against real sockets, from a real process as a worker would start it."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import zmq
import zmq.asyncio

TEN_LINES = """
from fsm_worker import trainer
trainer.start(max_epochs=3)
for epoch in range(3):
    trainer.report(epoch=epoch, loss=1.0 / (epoch + 1), **{"val/loss": 2})
    if trainer.should_stop():
        break
trainer.finish()
"""


@dataclass
class Worker:
    """The worker's two bound sockets, the first of them being read all the time."""

    progress: "asyncio.Queue[bytes]"
    control: "zmq.asyncio.Socket"
    env: dict[str, str]

    async def run(self, script: str) -> tuple[int, str]:
        process = await self.start(script)
        _, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, err.decode()

    async def start(self, script: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", script), env=self.env, stderr=asyncio.subprocess.PIPE
        )

    async def until_end(self) -> list[dict[str, Any]]:
        heard: list[dict[str, Any]] = []
        while not heard or heard[-1]["event"] != "train_end":
            heard.append(json.loads(await asyncio.wait_for(self.progress.get(), 20)))
        return heard


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    with zmq.asyncio.Context() as context:
        progress, control = context.socket(zmq.SUB), context.socket(zmq.XPUB)
        progress.subscribe(b"")
        ends = []
        for socket in (progress, control):
            socket.linger = 0
            ends.append(f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}")
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def listen() -> None:
            while True:
                heard.put_nowait(await progress.recv())

        listening = asyncio.create_task(listen())
        names = ("FSM_WORKER_PUBLISH", "FSM_WORKER_CONTROL")
        yield Worker(heard, control, {**os.environ, **dict(zip(names, ends, strict=True))})
        listening.cancel()
        await asyncio.wait([listening])
        progress.close()
        control.close()


async def test_ten_lines_speak_sleap_nn_messages_from_the_first_to_the_last(worker: Worker) -> None:
    for _ in range(3):
        code, err = await worker.run(TEN_LINES)
        assert (code, err) == (0, "")
        epochs = []
        for epoch in range(3):
            logs = {"loss": 1.0 / (epoch + 1), "val/loss": 2.0}
            epochs += [
                {"what": "", "event": "epoch_begin", "logs": None, "epoch": epoch},
                {"what": "", "event": "epoch_end", "logs": logs, "epoch": epoch},
            ]
        begin = {"event": "train_begin", "logs": None, "wandb_url": None, "max_epochs": 3}
        end = {"what": "", "event": "train_end", "logs": None}
        assert await worker.until_end() == [{"what": "", **begin}, *epochs, end]


async def test_stop_is_heard_and_everything_else_on_the_control_socket_is_ignored(
    worker: Worker,
) -> None:
    """The script below ends only because of the stop; whatever came before it changed nothing."""
    process = await worker.start(
        "from fsm_worker import trainer\n"
        "trainer.start()\n"
        "while not trainer.should_stop():\n"
        "    pass\n"
        "assert trainer.should_stop(), 'a stop stays'\n"
        "trainer.finish()\n"
    )
    assert json.loads(await worker.progress.get())["event"] == "train_begin"
    assert await worker.control.recv() == b"\x01"
    not_a_stop = [
        b"", b"\xff\xfe", b"stop", b"[1]", b'"stop"', b'{"command": "cancel"}', b"[" * 100_000,
        b'{"command": ["stop"]}', b"NaN",
    ]  # fmt: skip
    for frame in not_a_stop:
        await worker.control.send(frame)
    await worker.control.send_multipart([b'{"command": "stop"}', b"second frame"])
    assert process.returncode is None
    await worker.control.send(b'{"command": "stop"}')
    _, err = await process.communicate()
    assert not err
    assert await process.wait() == 0


async def test_without_a_worker_the_script_runs_alone_and_needs_no_pyzmq(worker: Worker) -> None:
    del worker.env["FSM_WORKER_PUBLISH"], worker.env["FSM_WORKER_CONTROL"]
    check = "\nimport sys\nassert 'zmq' not in sys.modules\nassert not trainer.should_stop()\n"
    assert await worker.run(TEN_LINES + check) == (0, "")


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:1", "not an endpoint"])
async def test_a_worker_that_is_not_there_costs_a_second_and_a_sentence(
    worker: Worker, endpoint: str
) -> None:
    worker.env["FSM_WORKER_PUBLISH"] = endpoint
    started = time.monotonic()
    code, err = await worker.run(TEN_LINES)
    assert code == 0
    assert "training goes on" in err
    assert time.monotonic() - started < 10


async def test_a_loss_that_is_not_finite_is_null_and_a_metric_that_is_no_number_is_an_error(
    worker: Worker,
) -> None:
    script = (
        "from fsm_worker import trainer\n"
        "trainer.start(what='centroid')\n"
        "trainer.epoch_begin(0)\n"
        "trainer.report(epoch=0, loss=float('nan'), lr=float('inf'))\n"
        "try:\n"
        "    trainer.report(epoch=1, loss='low')\n"
        "except ValueError:\n"
        "    trainer.finish()\n"
    )
    assert await worker.run(script) == (0, "")
    heard = await worker.until_end()
    assert [m["event"] for m in heard] == ["train_begin", "epoch_begin", "epoch_end", "train_end"]
    assert heard[2]["logs"] == {"loss": None, "lr": None}
    assert {m["what"] for m in heard} == {"centroid"}
    assert "max_epochs" not in heard[0]


async def test_messages_leave_even_if_the_script_forgets_to_finish(worker: Worker) -> None:
    code, _ = await worker.run(TEN_LINES.replace("trainer.finish()", "raise SystemExit(3)"))
    assert code == 3
    heard = [json.loads(await asyncio.wait_for(worker.progress.get(), 20)) for _ in range(7)]
    assert heard[-1]["event"] == "epoch_end"
    assert heard[-1]["epoch"] == 2


async def test_a_forked_data_loader_neither_speaks_nor_closes_for_its_parent(
    worker: Worker,
) -> None:
    script = (
        "import os\n"
        "from fsm_worker import trainer\n"
        "trainer.start()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    trainer.report(epoch=9, loss=9)\n"
        "    assert not trainer.should_stop()\n"
        "    trainer.finish()\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "trainer.report(epoch=0, loss=1)\n"
        "trainer.finish()\n"
    )
    assert await worker.run(script) == (0, "")
    assert [m.get("epoch") for m in await worker.until_end()] == [None, 0, 0, None]
