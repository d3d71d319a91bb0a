"""Train on the digits from the command line, alone or under a worker."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import numpy as np

from fsm_worker import trainer
from fsm_worker.examples.digits import options, training


def main(argv: Sequence[str] | None = None) -> int:
    """Train, report each epoch, write the results.

    The worker's request to stop and Ctrl-C mean the same: finish the batch, keep the model, exit
    with 0. A second Ctrl-C interrupts.

    Args:
        argv: the arguments, or None for the command line's.

    Returns:
        The exit code: 0, also when stopped early; 2 if the data can't be used.
    """
    given = vars(options.build_parser().parse_args(argv))
    path, folder = Path(given.pop("data")), Path(given.pop("output"))
    settings = training.Settings(**given)
    rng = np.random.default_rng(settings.seed)
    try:
        data = training.load(path, rng)
    except training.DataRefused as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"{len(data.train[1])} images to learn from, {len(data.val[1])} to check with", flush=True
    )
    interrupted = _first_interrupt()

    def ended(epoch: training.Epoch) -> None:
        print(
            f"epoch {epoch.epoch + 1:>3}/{settings.epochs}  loss {epoch.loss:.4f}  "
            f"val loss {epoch.val_loss:.4f}  val accuracy {epoch.val_accuracy:.3f}",
            flush=True,
        )
        judged = {"val/loss": epoch.val_loss, "val/accuracy": epoch.val_accuracy}
        trainer.report(epoch=epoch.epoch, loss=epoch.loss, **judged)

    trainer.start(max_epochs=settings.epochs)
    trained = training.train(
        data,
        settings,
        rng,
        begun=trainer.epoch_begin,
        ended=ended,
        should_stop=lambda: trainer.should_stop() or bool(interrupted),
    )
    training.save(trained, data, settings, folder)
    trainer.finish()
    why = "stopped early as asked" if trained.stopped_early else "done"
    print(f"{why}: the model is {folder / 'model.npz'}", flush=True)
    return 0


def _first_interrupt() -> list[int]:
    """Arm Ctrl-C; the list is empty until it has been pressed once."""
    heard: list[int] = []

    def hear(number: int, _frame: FrameType | None) -> None:
        heard.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, hear)
    return heard


if __name__ == "__main__":
    sys.exit(main())
