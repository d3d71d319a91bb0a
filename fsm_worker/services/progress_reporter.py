"""Hears what trainers report over ZMQ, and tells them to stop.

A job's ports are bound before its trainer starts: what is published before somebody subscribes is
lost.

Laws:

- The table hears of the beginning, the epochs and the end; batches are for people only, and of
  those that come too fast for people the newest goes out.
- A stage is heard to its end: what a trainer sent before it died is read before `listen` returns.
- Nothing that a trainer sends ends anything here, fills the memory, or holds the loop up.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

import zmq
import zmq.asyncio

from fsm_worker.effects import RequestStop
from fsm_worker.events import Event, TrainerReported
from fsm_worker.services.trainer_ports import MAX_WAITING, TrainerPorts
from protocol.errors import ProtocolError
from protocol.messages import Progress
from protocol.table import MachineName
from protocol.trainer import (
    BatchStart,
    EpochEnd,
    TrainBegin,
    TrainEnd,
    TrainerMessage,
    decode_trainer,
)

log = logging.getLogger(__name__)

#: Seconds between two batches that are passed on.
BATCH_EVERY: Final = 0.1
#: Seconds to wait at a stage's end for a trainer's child that keeps its connection.
GRACE_S: Final = 1.0
_MESSAGES_A_TURN: Final = 64


class PortsNotOpen(RuntimeError):
    """Nobody can report for this job: open its ports first."""


class _Pace:
    """Passes on at once what must not be lost, and of the rest the newest at a bounded rate."""

    def __init__(self, deliver: Callable[[Progress], None], interval: float) -> None:
        self._deliver = deliver
        self._interval = interval
        self._next = 0.0
        self._waiting: Progress | None = None
        self._timer: asyncio.TimerHandle | None = None

    def at_once(self, progress: Progress) -> None:
        """Passes it on; it is newer than what waits."""
        self.drop()
        self._next = asyncio.get_running_loop().time() + self._interval
        self._deliver(progress)

    def newest(self, progress: Progress) -> None:
        """Passes it on when its turn has come, unless something newer comes before."""
        loop = asyncio.get_running_loop()
        if self._timer is None and loop.time() >= self._next:
            self.at_once(progress)
            return
        self._waiting = progress
        if self._timer is None:
            self._timer = loop.call_at(self._next, self.flush)

    def flush(self) -> None:
        """Passes on what waits."""
        if self._waiting is not None:
            self.at_once(self._waiting)

    def drop(self) -> None:
        """Forgets what waits."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._waiting = None


class _Line:
    """A job's ports, and what is known of its present stage."""

    def __init__(self, ports: TrainerPorts, pace: _Pace) -> None:
        self.ports = ports
        self.pace = pace
        self.stage = 0
        self.planned: int | None = None  # epochs, as the worker knows them
        self.epochs: int | None = None  # epochs, as the trainer says or else the worker
        self.ended = asyncio.Event()
        self.listening = False
        self.closing = False
        self.refused = 0


class ProgressReporter:
    """Has the ports to the trainers.

    Args:
        emit: reports events.
        deliver: takes the progress that people see; it must not block.
        batch_every: seconds between two batches of a job that are passed on.
        grace: seconds to wait at a stage's end for a connection that outlives the trainer.
    """

    def __init__(
        self,
        *,
        emit: Callable[[MachineName, str, Event], None],
        deliver: Callable[[Progress], None],
        batch_every: float = BATCH_EVERY,
        grace: float = GRACE_S,
    ) -> None:
        self._emit = emit
        self._deliver = deliver
        self._batch_every = batch_every
        self._grace = grace
        self._context: zmq.asyncio.Context | None = None
        self._lines: dict[str, _Line] = {}

    # --- ports -----------------------------------------------------------------------------

    async def open(self, job: str) -> tuple[str, str]:
        """Binds a job's ports; asked again, gives the same.

        Args:
            job: its id.

        Returns:
            Where the trainer publishes, and where it hears of a stop, as `tcp://127.0.0.1:PORT`.

        Raises:
            zmq.ZMQError: there is no port, or no file handle, left.
        """
        line = self._lines.get(job)
        if line is None:
            if self._context is None:
                self._context = zmq.asyncio.Context()
            ports = TrainerPorts(self._context)
            line = self._lines[job] = _Line(ports, _Pace(self._deliver, self._batch_every))
        return line.ports.publish, line.ports.control

    def set_stage(self, job: str, stage: int, max_epochs: int | None) -> None:
        """Says what the messages from now on are about; called before each `listen`.

        Args:
            job: its id.
            stage: counted from 0.
            max_epochs: how many there will be, as far as the worker knows; the trainer's word
                counts more.
        """
        line = self._lines.get(job)
        if line is not None:
            line.stage = stage
            line.planned = line.epochs = max_epochs
            line.ended = asyncio.Event()

    async def listen(self, job: str) -> None:
        """Hears a stage of a job until `hang_up`, and then what had been sent until then.

        Raises:
            PortsNotOpen: the job has no ports.
            asyncio.CancelledError: at any point; the ports stay open.
        """
        line = self._lines.get(job)
        if line is None:
            raise PortsNotOpen(f"job {job} has no ports: open them before listening")
        line.listening = True
        try:
            async with asyncio.TaskGroup() as group:
                tasks = (
                    group.create_task(self._read(job, line)),
                    group.create_task(line.ports.peers.watch()),
                )
                await line.ended.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0 if line.closing else self._grace):
                        await line.ports.peers.gone()
                for task in tasks:
                    task.cancel()
            self._hear(job, line, MAX_WAITING)
            line.pace.flush()
        finally:
            line.pace.drop()
            line.listening = False
            if line.closing:
                line.ports.close()

    def hang_up(self, job: str) -> None:
        """Ends `listen` once everything that was sent is heard."""
        line = self._lines.get(job)
        if line is not None:
            line.ended.set()

    def refused(self, job: str) -> int:
        """How many messages of a job were dropped because nobody could read them."""
        line = self._lines.get(job)
        return line.refused if line is not None else 0

    def close(self, job: str) -> None:
        """Closes a job's ports; a stop that was just asked for may still leave."""
        line = self._lines.pop(job, None)
        if line is None:
            return
        line.closing = True
        line.ended.set()
        if not line.listening:
            line.ports.close()

    async def aclose(self) -> None:
        """Closes everything, and waits for what may still leave."""
        for job in list(self._lines):
            self.close(job)
        context, self._context = self._context, None
        if context is not None:
            # unlike `to_thread`, it goes on where whoever waits for it is cancelled at once
            await asyncio.wait([asyncio.get_running_loop().run_in_executor(None, context.term)])

    # --- effects ---------------------------------------------------------------------------

    def request_stop(self, effect: RequestStop) -> None:
        """Tells the job's trainer to end with the batch; lost if it does not listen yet."""
        line = self._lines.get(effect.subject)
        if line is not None:
            line.ports.send_stop()

    # --- hearing ---------------------------------------------------------------------------

    async def _read(self, job: str, line: _Line) -> None:
        while True:
            await line.ports.arrival()
            self._hear(job, line, _MESSAGES_A_TURN)
            await asyncio.sleep(0)  # a flood must leave turns to others: `arrival` returns at once

    def _hear(self, job: str, line: _Line, limit: int) -> None:
        for _ in range(limit):
            data = line.ports.take()
            if data is None:
                return
            try:
                message = decode_trainer(data)
            except ProtocolError as refusal:
                line.refused += 1
                if line.refused == 1:
                    log.warning(
                        "! job %s: dropped a message of the trainer, and will drop all that "
                        "are like it: %s", job, refusal.sentence,
                    )  # fmt: skip
            else:
                self._pass_on(job, line, message)

    def _pass_on(self, job: str, line: _Line, message: TrainerMessage) -> None:
        if isinstance(message, BatchStart):
            return  # says nothing that its end does not say
        if isinstance(message, TrainBegin):
            line.epochs = message.max_epochs or line.planned
        progress = Progress(
            job=job,
            stage=line.stage,
            event=message.event,
            epoch=message.epoch,
            epochs=line.epochs,
            batch=message.batch,
            metrics={**message.metrics},
            sent_at=message.sent_at,
        )
        if isinstance(message, TrainBegin | EpochEnd | TrainEnd):
            self._emit(MachineName.JOB, job, TrainerReported(event=message.event))
            line.pace.at_once(progress)
        else:
            line.pace.newest(progress)
