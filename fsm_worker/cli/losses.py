"""What a trainer's reports say about the loss, epoch by epoch."""

from collections.abc import Mapping
from typing import NamedTuple

from fsm_worker.cli.console import one_line
from protocol.messages import Progress

#: sleap-nn's and the digits example's names, and those of other trainers.
_LOSS = ("loss", "train/loss", "train_loss", "training_loss")
_VAL_LOSS = ("val/loss", "val_loss", "validation/loss", "validation_loss")
#: Epochs that are remembered for the picture.
MOST = 10_000


class Epoch(NamedTuple):
    """One epoch that has ended."""

    number: int  # from 1
    planned: int | None
    loss: float | None
    val_loss: float | None
    others: str = ""  # first metrics, where none is a known loss

    def __str__(self) -> str:
        """`epoch 3/20 loss 0.123 val_loss 0.2`."""
        text = f"epoch {self.number}" + (f"/{self.planned}" if self.planned else "")
        if self.loss is not None:
            text += f" loss {self.loss:.4g}"
        if self.val_loss is not None:
            text += f" val_loss {self.val_loss:.4g}"
        return text + (f" {self.others}" if self.others else "")


class Losses:
    """The losses of one job's present stage.

    Attributes:
        stage: from 0.
        epoch: the last one that began or ended, from 1; 0 before the first.
        planned: how many epochs there will be, where that is known.
        batch_loss: of the last batch.
        history: a loss for each epoch, the newest last.
        last: the last epoch that has ended.
        first_loss: of the first epoch, also when the history has lost it.
    """

    stage: int
    epoch: int
    planned: int | None
    batch_loss: float | None
    history: list[float]
    last: Epoch | None
    first_loss: float | None

    def __init__(self) -> None:
        self._begin(0)

    def _begin(self, stage: int) -> None:
        self.stage, self.epoch, self.planned, self.batch_loss = stage, 0, None, None
        self.history, self.last, self.first_loss = [], None, None

    @property
    def best(self) -> float | None:
        """The lowest loss so far."""
        return min(self.history, default=None)

    def hear(self, progress: Progress) -> Epoch | None:
        """Takes a report.

        Args:
            progress: of the job.

        Returns:
            The epoch that has ended with it, if one has.
        """
        if progress.stage != self.stage or progress.event == "train_begin":
            self._begin(progress.stage)
        self.planned = progress.epochs or self.planned
        if progress.epoch is not None:
            self.epoch = progress.epoch + 1
        if progress.event == "batch_end":
            self.batch_loss = _first(progress.metrics, _LOSS)
        if progress.event != "epoch_end":
            return None
        loss = _first(progress.metrics, _LOSS)
        val_loss = _first(progress.metrics, _VAL_LOSS)
        shown = loss if loss is not None else val_loss
        if shown is not None:
            self.history.append(shown)
            del self.history[:-MOST]
            if self.first_loss is None:
                self.first_loss = shown
        others = "" if shown is not None else _some(progress.metrics)
        self.last = Epoch(self.epoch, self.planned, loss, val_loss, others)
        return self.last


def _first(metrics: Mapping[str, float | None], names: tuple[str, ...]) -> float | None:
    return next((metrics[name] for name in names if name in metrics), None)


def _some(metrics: Mapping[str, float | None]) -> str:
    finite = [(name, value) for name, value in metrics.items() if value is not None]
    return " ".join(f"{one_line(name, 40)} {value:.4g}" for name, value in finite[:3])
