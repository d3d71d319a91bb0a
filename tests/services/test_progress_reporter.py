"""Laws of the trainer's lane: anything decodes or is refused, and nothing that matters is lost."""

import asyncio
import contextlib
import json
import logging
import math
import os
import socket
import sys
import time
from pathlib import Path

import msgspec
import pytest
import zmq
import zmq.asyncio
from hypothesis import example, given
from hypothesis import strategies as st

from fsm_worker.effects import RequestStop
from fsm_worker.events import Timer as TimerName
from fsm_worker.events import TimerExpired, TrainerReported
from fsm_worker.facts import JobFacts
from fsm_worker.services.progress_reporter import PortsNotOpen, ProgressReporter
from fsm_worker.services.trainer_ports import TrainerPorts
from fsm_worker.trainer import CONTROL, PUBLISH
from protocol.codec import Frame, encode
from protocol.errors import ErrorCode, ProtocolError
from protocol.messages import Progress
from protocol.table import MachineName
from protocol.trainer import MAX_MESSAGE, STOP, EpochEnd, TrainBegin, decode_trainer

SAMPLE = Path(__file__).parents[1] / "fixtures" / "sleap_nn_0.3.5_zmq.jsonl"
PATIENCE = 10.0  # seconds until a test that hangs is a failure
JOB = "job-0001"

# --- decoding --------------------------------------------------------------------------------


def test_every_message_of_a_real_run_is_read() -> None:
    for line in SAMPLE.read_bytes().splitlines():
        said = json.loads(line)
        message = decode_trainer(line)
        assert message.event == said["event"]
        assert (message.epoch, message.batch) == (said.get("epoch"), said.get("batch"))
        assert message.metrics == (said["logs"] or {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "event": st.sampled_from(["train_begin", "batch_start", "batch_end", "epoch_end"]) | JSON,
        "logs": st.dictionaries(st.text(), JSON) | JSON,
        **dict.fromkeys(["what", "epoch", "batch", "wandb_url", "max_epochs", "sent_at"], JSON),
    },
)


@given(st.binary(max_size=300) | NEARLY.map(lambda said: json.dumps(said).encode()))
@example(b"")
@example(b"[" * MAX_MESSAGE)
@example(b'{"event":"epoch_end","logs":' + b'{"a":' * 9000)
@example(b'{"event":"epoch_end","epoch":' + b"9" * 5000 + b"}")
@example(b'{"event":"epoch_end","logs":{"loss":' + b"9" * 400 + b"}}")
@example(b'{"event":"train_begin","what":"\\ud800","max_epochs":-1,"sent_at":true}')
@example(b'{"event":"epoch_end","sent_at":1e999,"logs":{"\\ud800":1}}')
def test_any_bytes_give_a_message_that_can_be_passed_on_or_a_typed_refusal(data) -> None:
    try:
        message = decode_trainer(data)
    except ProtocolError as refusal:
        assert len(refusal.sentence) < 400
    else:
        assert all(map(math.isfinite, message.metrics.values()))
        assert msgspec.json.decode(msgspec.json.encode(message), type=type(message)) == message


def test_a_value_that_is_no_number_costs_only_itself() -> None:
    logs = '{"a":NaN,"b":Infinity,"c":-Infinity,"d":1e999,"e":"x","f":true,"g":[1],"h":null,"i":3}'
    message = decode_trainer(b'{"event":"epoch_end","epoch":4,"logs":%s}' % logs.encode())
    absent = {"a": None, "b": None, "c": None, "d": None, "h": None}
    assert message == EpochEnd(epoch=4, logs={**absent, "i": 3.0})
    assert message.metrics == {"i": 3.0}


def test_what_sleap_nn_never_says_is_optional_and_never_in_the_way() -> None:
    assert decode_trainer(b'{"event":"train_begin","max_epochs":7,"sent_at":2.5}') == TrainBegin(
        max_epochs=7, sent_at=2.5
    )
    odd = b'{"event":"train_begin","max_epochs":-1,"sent_at":true,"wandb_url":3,"what":4}'
    assert decode_trainer(odd) == TrainBegin()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b" " * (MAX_MESSAGE + 1), ErrorCode.TOO_LARGE),
        (b"[" * MAX_MESSAGE, ErrorCode.TOO_DEEP),
        (b"\xff", ErrorCode.MALFORMED),
        (b"[]", ErrorCode.MALFORMED),
        (b'{"event":"batch_middle"}', ErrorCode.MALFORMED),
        (b'{"event":"epoch_end","epoch":-1}', ErrorCode.MALFORMED),
        (b'{"event":"epoch_end","logs":[1]}', ErrorCode.MALFORMED),
    ],
)
def test_what_is_no_message_is_refused_with_a_code(data, code) -> None:
    with pytest.raises(ProtocolError) as refusal:
        decode_trainer(data)
    assert refusal.value.code is code


def test_the_largest_metrics_fit_into_one_frame() -> None:
    def logs(count: int) -> dict[str, float]:
        return {chr(0x20000 + n) * 100: -1.7976931348623157e308 for n in range(count)}

    said = {"event": "epoch_end", "logs": logs(148)}
    data = json.dumps(said, ensure_ascii=False).encode()
    assert 60 * 1024 < len(data) <= MAX_MESSAGE
    metrics = decode_trainer(data).metrics
    assert len(metrics) == 128
    encode(Frame(msg=Progress(job="j" * 64, stage=99, event="epoch_end", metrics=metrics)))


# --- the ports -------------------------------------------------------------------------------


class Recorder:
    """What a reporter told the table and the people."""

    def __init__(self) -> None:
        self.told: list[tuple[MachineName, str, str]] = []
        self.delivered: list[Progress] = []
        self.news = asyncio.Event()

    def emit(self, machine, subject, event) -> None:
        assert isinstance(event, TrainerReported)
        self.told.append((machine, subject, event.event))

    def deliver(self, progress) -> None:
        self.delivered.append(progress)
        self.news.set()

    async def until(self, true) -> None:
        while not true():
            self.news.clear()
            await self.news.wait()

    def events(self, job=JOB) -> list[str]:
        return [event for _, subject, event in self.told if subject == job]


class Trainer:
    """A trainer's two sockets, as sleap-nn connects them."""

    def __init__(self, context, publish, control) -> None:
        self.publish = context.socket(zmq.XPUB)  # PUB on the wire; tells when it is heard
        self.publish.linger = 1000
        self.publish.xpub_verbose = True  # also that it is heard again
        self.publish.connect(publish)
        self.control = context.socket(zmq.SUB)
        self.control.linger = 0
        self.control.subscribe(b"")
        self.control.connect(control)

    async def heard(self) -> None:
        assert await asyncio.to_thread(self.publish.poll, PATIENCE * 1000)
        while self.publish.recv() != b"\x01":
            assert await asyncio.to_thread(self.publish.poll, PATIENCE * 1000)

    def say(self, event, **fields) -> None:
        self.publish.send(json.dumps({"what": "", "event": event, **fields}).encode())

    def stops(self, wait_ms=0) -> int:
        count = 0
        while self.control.poll(wait_ms):
            assert self.control.recv() == STOP
            count += 1
            wait_ms = 0
        return count

    def leave(self) -> None:
        self.publish.close()
        self.control.close()


@pytest.fixture
def context():
    with zmq.Context() as made:
        yield made


@contextlib.asynccontextmanager
async def reporting(**options):
    recorder = Recorder()
    reporter = ProgressReporter(emit=recorder.emit, deliver=recorder.deliver, **options)
    try:
        async with asyncio.timeout(PATIENCE):
            yield reporter, recorder
    finally:
        await reporter.aclose()


@contextlib.asynccontextmanager
async def listening(reporter, context, job=JOB, stage=0, epochs=None):
    """A stage with a trainer that is heard; at the end it leaves, and the line is hung up."""
    endpoints = await reporter.open(job)
    reporter.set_stage(job, stage, epochs)
    async with asyncio.TaskGroup() as group:
        group.create_task(reporter.listen(job))
        trainer = Trainer(context, *endpoints)
        try:
            await trainer.heard()
            yield trainer
        finally:
            trainer.leave()
            reporter.hang_up(job)


def stop(job=JOB) -> RequestStop:
    event = TimerExpired(timer=TimerName.REPEAT, serial=1)
    return RequestStop(
        subject=job, event=event, facts=JobFacts(), row="J41", before="stopping", after="stopping"
    )


async def test_a_real_run_is_heard_from_beginning_to_end(context) -> None:
    lines = SAMPLE.read_bytes().splitlines()
    async with (
        reporting() as (reporter, recorder),
        listening(reporter, context, stage=2, epochs=3) as trainer,
    ):
        for line in lines:
            trainer.publish.send(line)
    assert recorder.told == [
        (MachineName.JOB, JOB, event) for event in ["train_begin", *["epoch_end"] * 3, "train_end"]
    ]
    said = [json.loads(line) for line in lines]
    ends = [progress for progress in recorder.delivered if progress.event == "epoch_end"]
    assert [end.epoch for end in ends] == [0, 1, 2]
    assert [end.metrics for end in ends] == [
        line["logs"] for line in said if line["event"] == "epoch_end"
    ]
    assert {(end.job, end.stage, end.epochs) for end in ends} == {(JOB, 2, 3)}
    assert recorder.delivered[0].event == "train_begin"
    assert recorder.delivered[-1].event == "train_end"


async def test_of_batches_that_come_too_fast_the_newest_goes_out(context) -> None:
    async with (
        reporting(batch_every=3600.0) as (reporter, recorder),
        listening(reporter, context) as trainer,
    ):
        trainer.say("train_begin")
        for batch in range(400):
            trainer.say("batch_start", batch=batch)
            trainer.say("batch_end", epoch=0, batch=batch, logs={"loss": 1 / (batch + 1)})
    assert [progress.event for progress in recorder.delivered] == ["train_begin", "batch_end"]
    assert recorder.delivered[1].batch == 399
    assert recorder.events() == ["train_begin"]


async def test_the_newest_batch_goes_out_without_anything_after_it(context) -> None:
    async with (
        reporting(batch_every=0.05) as (reporter, recorder),
        listening(reporter, context) as trainer,
    ):
        trainer.say("train_begin")
        trainer.say("batch_end", epoch=0, batch=0)
        trainer.say("batch_end", epoch=0, batch=1)
        await recorder.until(lambda: recorder.delivered and recorder.delivered[-1].batch == 1)
        began = time.monotonic()
        trainer.say("batch_end", epoch=0, batch=2)
        await recorder.until(lambda: recorder.delivered[-1].batch == 2)
        assert time.monotonic() - began < PATIENCE / 2


async def test_no_epoch_is_ever_dropped_for_a_batch(context) -> None:
    async with (
        reporting(batch_every=3600.0) as (reporter, recorder),
        listening(reporter, context) as trainer,
    ):
        for epoch in range(300):
            trainer.say("epoch_begin", epoch=epoch)
            trainer.say("batch_end", epoch=epoch, batch=0)
            trainer.say("epoch_end", epoch=epoch)
    ends = [progress.epoch for progress in recorder.delivered if progress.event == "epoch_end"]
    assert ends == list(range(300))
    assert len(recorder.delivered) <= 301


async def test_the_trainers_number_of_epochs_counts_more_than_the_workers(context) -> None:
    async with (
        reporting() as (reporter, recorder),
        listening(reporter, context, epochs=5) as trainer,
    ):
        trainer.say("train_begin", max_epochs=9)
        trainer.say("epoch_end", epoch=0, sent_at=12.5)
        trainer.say("train_begin")
    assert [progress.epochs for progress in recorder.delivered] == [9, 9, 5]
    assert [progress.sent_at for progress in recorder.delivered] == [0.0, 12.5, 0.0]


async def test_what_nobody_can_read_is_dropped_with_one_line_of_log(context, caplog) -> None:
    caplog.set_level(logging.WARNING)
    async with reporting() as (reporter, recorder), listening(reporter, context) as trainer:
        for junk in (b"", b"\xff\xfe", b"[]", b'{"event": 1}', b" " * (MAX_MESSAGE + 1)):
            trainer.publish.send(junk)
        trainer.publish.send_multipart([b"topic", b'{"event": "epoch_end"}'])
        trainer.say("epoch_end", epoch=3)
        await recorder.until(lambda: recorder.delivered)
        assert reporter.refused(JOB) == 6
    assert recorder.events() == ["epoch_end"]
    assert len([line for line in caplog.messages if JOB in line]) == 1


async def test_a_huge_message_costs_the_connection_and_not_the_job(context) -> None:
    async with reporting() as (reporter, recorder), listening(reporter, context) as trainer:
        trainer.publish.send(b" " * 1024 * 1024)
        await trainer.heard()
        trainer.say("epoch_end", epoch=3)
    assert recorder.events() == ["epoch_end"]


async def test_a_flood_leaves_turns_to_others(context) -> None:
    async with reporting(grace=0.01) as (reporter, recorder):
        endpoints = await reporter.open(JOB)
        task = asyncio.create_task(reporter.listen(JOB))
        trainer = Trainer(context, *endpoints)
        await trainer.heard()
        task.cancel()
        await asyncio.wait([task])
        for epoch in range(900):
            trainer.say("epoch_end", epoch=epoch)
        seen = []  # how many were heard at each turn of somebody else
        task = asyncio.create_task(reporter.listen(JOB))
        while len(recorder.delivered) < 900:
            seen.append(len(recorder.delivered))
            await asyncio.sleep(0)
        trainer.leave()
        reporter.hang_up(JOB)
        await task
    assert max(after - before for before, after in zip(seen, [*seen[1:], 900], strict=True)) <= 64


async def test_what_a_trainer_sent_before_it_died_is_heard() -> None:
    script = (
        "from fsm_worker import trainer\n"
        "trainer.start(max_epochs=400)\n"
        "for epoch in range(400): trainer.report(epoch, 1.0)\n"
        "trainer.finish()\n"
    )
    async with reporting() as (reporter, recorder):
        publish, control = await reporter.open(JOB)
        reporter.set_stage(JOB, 0, None)
        async with asyncio.TaskGroup() as group:
            group.create_task(reporter.listen(JOB))
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", script,
                env={**os.environ, PUBLISH: publish, CONTROL: control},
            )  # fmt: skip
            assert await process.wait() == 0
            reporter.hang_up(JOB)
    assert recorder.events() == ["train_begin", *["epoch_end"] * 400, "train_end"]
    assert {progress.epochs for progress in recorder.delivered} == {400}


async def test_a_connection_that_outlives_its_trainer_is_not_waited_for(context) -> None:
    async with reporting(grace=0.01) as (reporter, recorder):
        endpoints = await reporter.open(JOB)
        async with asyncio.TaskGroup() as group:
            group.create_task(reporter.listen(JOB))
            trainer = Trainer(context, *endpoints)
            await trainer.heard()
            trainer.say("train_end")
            await recorder.until(lambda: recorder.delivered)
            reporter.hang_up(JOB)
        trainer.leave()


async def test_a_line_that_was_hung_up_before_it_was_listened_to_ends_at_once() -> None:
    async with reporting() as (reporter, _):
        await reporter.open(JOB)
        reporter.hang_up(JOB)
        await reporter.listen(JOB)


async def test_each_stage_is_heard_on_the_same_ports(context) -> None:
    async with reporting() as (reporter, recorder):
        first = await reporter.open(JOB)
        for stage in range(3):
            async with listening(reporter, context, stage=stage) as trainer:
                trainer.say("train_begin")
        assert await reporter.open(JOB) == first
    assert [progress.stage for progress in recorder.delivered] == [0, 1, 2]


async def test_jobs_at_once_never_hear_each_other(context) -> None:
    jobs = [f"job-000{n}" for n in range(4)]
    async with reporting() as (reporter, recorder), contextlib.AsyncExitStack() as stack:
        endpoints = [port for job in jobs for port in await reporter.open(job)]
        assert len(set(endpoints)) == 2 * len(jobs)
        assert all(endpoint.startswith("tcp://127.0.0.1:") for endpoint in endpoints)
        trainers = [
            await stack.enter_async_context(listening(reporter, context, job)) for job in jobs
        ]
        for number, trainer in enumerate(trainers):
            for epoch in range(number + 1):
                trainer.say("epoch_end", epoch=epoch)
        await recorder.until(lambda: len(recorder.delivered) == 1 + 2 + 3 + 4)
        while not trainers[2].stops(wait_ms=20):
            reporter.request_stop(stop(jobs[2]))
        assert [trainer.stops() for trainer in trainers] == [0, 0, 0, 0]
    assert [len(recorder.events(job)) for job in jobs] == [1, 2, 3, 4]


async def test_a_stop_that_was_just_asked_for_survives_the_close(context) -> None:
    async with reporting() as (reporter, _):
        trainer = Trainer(context, *await reporter.open(JOB))
        while not trainer.stops(wait_ms=20):
            reporter.request_stop(stop())
        reporter.request_stop(stop())
        reporter.close(JOB)
        assert trainer.stops(wait_ms=PATIENCE * 1000) == 1
        trainer.leave()


async def test_a_job_without_ports_is_told_nothing_and_cannot_be_heard() -> None:
    async with reporting() as (reporter, recorder):
        reporter.request_stop(stop())
        reporter.set_stage(JOB, 1, None)
        reporter.hang_up(JOB)
        reporter.close(JOB)
        with pytest.raises(PortsNotOpen, match="open them"):
            await reporter.listen(JOB)
    assert recorder.told == []


async def test_closing_ends_the_listening_and_frees_the_ports(context) -> None:
    async with reporting(grace=3600.0) as (reporter, _):
        publish, control = await reporter.open(JOB)
        task = asyncio.create_task(reporter.listen(JOB))
        trainer = Trainer(context, publish, control)
        await trainer.heard()
        reporter.close(JOB)
        await task
        trainer.leave()
        await reporter.aclose()
        with context.socket(zmq.SUB) as again:
            again.bind(publish)


async def test_connections_while_nobody_listens_hold_nobody_up(context) -> None:
    async with reporting() as (reporter, recorder):
        publish, _ = await reporter.open("job-idle")
        for _ in range(1100):  # more comings and goings than ZMQ would hold for its monitor
            with socket.create_connection(("127.0.0.1", int(publish.rpartition(":")[2]))):
                pass
        async with listening(reporter, context) as trainer:
            trainer.say("train_begin")
        async with listening(reporter, context, "job-idle") as trainer:
            trainer.say("train_end")
    assert recorder.events() == ["train_begin"]
    assert recorder.events("job-idle") == ["train_end"]


@pytest.mark.parametrize("room", [1, 2, 3])
async def test_ports_that_cannot_all_be_opened_leave_nothing_open(room) -> None:
    context = zmq.asyncio.Context()
    context.set(zmq.MAX_SOCKETS, room)
    with pytest.raises(zmq.ZMQError):
        TrainerPorts(context)
    async with asyncio.timeout(PATIENCE):
        await asyncio.to_thread(context.term)


async def test_a_cancelled_listener_leaves_the_ports_open(context) -> None:
    async with reporting() as (reporter, recorder):
        await reporter.open(JOB)
        task = asyncio.create_task(reporter.listen(JOB))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with listening(reporter, context) as trainer:
            trainer.say("train_begin")
    assert recorder.events() == ["train_begin"]
