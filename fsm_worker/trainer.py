"""Report progress from any training script, and hear a request to stop.

```python
from fsm_worker import trainer

trainer.start(max_epochs=20)
for epoch in range(20):
    for batch in batches:
        loss = step(batch)
        if trainer.should_stop():
            break
    trainer.report(epoch=epoch, loss=loss)
    if trainer.should_stop():
        break
trainer.finish()
```

A worker starts the script with two ZMQ endpoints in its environment; without them every call
here does nothing, so the same script runs alone. Nothing here waits for the worker longer than
`HANDSHAKE_MS` at the start and `LINGER_MS` at the end, and nothing raises because of the worker.

The messages are those of sleap-nn 0.3.5 (`sleap_nn/training/callbacks.py`): single-frame UTF-8
JSON without a topic, epochs counted from 0. `max_epochs` in `train_begin` is an addition, since
sleap-nn never says how many epochs there will be. All calls belong on one thread.

The worker must be reading its progress socket before the script starts: ZMQ sends a subscription
only while the subscriber's thread is inside ZMQ, and what is published before that is lost.
"""

import atexit
import json
import math
import os
import sys
from typing import TYPE_CHECKING, SupportsFloat

if TYPE_CHECKING:
    import zmq

PUBLISH = "FSM_WORKER_PUBLISH"
CONTROL = "FSM_WORKER_CONTROL"
HANDSHAKE_MS = 1000
LINGER_MS = 2000
_FRAMES_A_LOOK = 100  # a flood of control frames must not hold the training up


class _Link:
    """The two sockets of one training, or nothing at all where no worker listens."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._publish: zmq.Socket[bytes] | None = None
        self._control: zmq.Socket[bytes] | None = None
        self._owner = 0
        self.what = ""
        self.epoch: int | None = None
        self.stop = False

    def open(self, what: str) -> None:
        self.close()
        self.what, self.epoch, self.stop = what, None, False
        publish, control = os.environ.get(PUBLISH), os.environ.get(CONTROL)
        if not publish and not control:
            return
        import zmq  # noqa: PLC0415 - a script that runs alone needs no pyzmq

        self._owner = os.getpid()
        self._context = zmq.Context()
        try:
            if control:
                self._control = self._context.socket(zmq.SUB)
                self._control.linger = 0
                self._control.subscribe(b"")
                self._control.connect(control)
            if publish:
                # XPUB is PUB on the wire, and hands us the worker's subscription: before that
                # arrives, what is published goes nowhere.
                self._publish = self._context.socket(zmq.XPUB)
                self._publish.linger = LINGER_MS
                self._publish.connect(publish)
                if not self._publish.poll(HANDSHAKE_MS):
                    sys.stderr.write(f"no worker listens at {publish}; training goes on\n")
        except zmq.ZMQError as error:
            sys.stderr.write(f"{publish} or {control} is not usable ({error}); training goes on\n")
            self.close()

    def send(self, event: str, **fields: object) -> None:
        if self._publish is None or self._owner != os.getpid():
            return
        import zmq  # noqa: PLC0415 - already imported by `open`

        text = json.dumps({"what": self.what, "event": event, **fields}, allow_nan=False)
        try:
            self._publish.send(text.encode(), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            sys.stderr.write(f"{event} was not reported ({error}); training goes on\n")

    def heard_stop(self) -> bool:
        if self._control is None or self.stop or self._owner != os.getpid():
            return self.stop
        import zmq  # noqa: PLC0415 - already imported by `open`

        for _ in range(_FRAMES_A_LOOK):
            try:
                frames = self._control.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                break
            if len(frames) == 1 and _is_stop(frames[0]):
                self.stop = True
        return self.stop

    def close(self) -> None:
        if self._context is None or self._owner != os.getpid():
            return
        for socket in (self._control, self._publish):
            if socket is not None:
                socket.close()
        self._context.term()
        self._context = self._publish = self._control = None


def _is_stop(frame: bytes) -> bool:
    try:
        command = json.loads(frame)
    except (ValueError, RecursionError):
        return False
    return isinstance(command, dict) and command.get("command") == "stop"


def _number(value: SupportsFloat) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


_link = _Link()
atexit.register(_link.close)


def start(max_epochs: int | None = None, *, what: str = "") -> None:
    """Say that training begins; waits at most `HANDSHAKE_MS` for the worker to listen.

    Args:
        max_epochs: how many epochs there will be, if that is known.
        what: a name for the model, where one script trains several.
    """
    _link.open(what)
    extra = {} if max_epochs is None else {"max_epochs": int(max_epochs)}
    _link.send("train_begin", logs=None, wandb_url=None, **extra)


def epoch_begin(epoch: int) -> None:
    """Say that an epoch begins; `report` does so by itself for an epoch not yet begun.

    Args:
        epoch: counted from 0.
    """
    _link.epoch = int(epoch)
    _link.send("epoch_begin", logs=None, epoch=_link.epoch)


def report(epoch: int, loss: SupportsFloat, **metrics: SupportsFloat) -> None:
    """Say that an epoch has ended.

    Args:
        epoch: counted from 0.
        loss: of the training data; one that is not finite is sent as null, as JSON has no NaN.
        metrics: more numbers; sleap-nn's names, such as `val/loss`, fit through `**{...}`.

    Raises:
        TypeError, ValueError: if the loss or a metric is not a number.
    """
    logs = {name: _number(value) for name, value in {"loss": loss, **metrics}.items()}
    if _link.epoch != int(epoch):
        epoch_begin(epoch)
    _link.send("epoch_end", logs=logs, epoch=int(epoch))


def should_stop() -> bool:
    """Whether the worker asked to stop: finish this batch, keep the model, end with exit code 0.

    Once true it stays true until the next `start`. Never waits.
    """
    return _link.heard_stop()


def finish() -> None:
    """Say that training has ended; waits at most `LINGER_MS` for the last messages to leave."""
    _link.send("train_end", logs=None)
    _link.close()
