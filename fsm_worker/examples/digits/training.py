"""Read the data, train epoch by epoch, and write down what came out."""

import json
import math
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from fsm_worker.examples.digits.network import Floats, Labels, Network

_VALIDATION = 0.2
_NOT_AN_NPZ = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


class DataRefused(ValueError):
    """The file is not a data set that can be trained on; the message says what is wrong."""


@dataclass(frozen=True)
class Data:
    """Images and labels, split once: nothing in `val` is ever trained on."""

    train: tuple[Floats, Labels]
    val: tuple[Floats, Labels]
    scale: float
    classes: int


@dataclass(frozen=True)
class Settings:
    """What the command line fixes; the units are those of `options.OPTIONS`."""

    epochs: int
    hidden: int
    batch_size: int
    lr: float
    momentum: float
    seed: int
    pace: float


@dataclass(frozen=True)
class Epoch:
    """What one epoch brought; `loss` is the mean over its batches while it learned."""

    epoch: int
    loss: float
    val_loss: float
    val_accuracy: float


@dataclass
class Trained:
    """A network and how it came about."""

    network: Network
    stopped_early: bool = False
    history: list[Epoch] = field(default_factory=list)


def load(path: Path, rng: np.random.Generator) -> Data:
    """Read and split a data set.

    Args:
        path: an .npz file with `images` (N x height x width) and `labels` (N, whole numbers from
            0); no pickles are read.
        rng: draws the fifth that is kept for validation.

    Returns:
        The split data, pixels scaled to 0..1.

    Raises:
        DataRefused: if the file is missing, is not such a file, or holds fewer than ten images.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except _NOT_AN_NPZ as error:
        raise DataRefused(f"{path} is not an .npz file of images and labels: {error}") from None
    if images.ndim != 3 or labels.shape != images.shape[:1] or len(images) < 10 or not images.size:
        raise DataRefused(f"{path} has images {images.shape} for labels {labels.shape}")
    if images.dtype.kind not in "uif" or labels.dtype.kind not in "ui":
        raise DataRefused(f"{path} has {images.dtype} images and {labels.dtype} labels")
    if labels.min() < 0 or labels.max() > 999 or not np.isfinite(images).all():
        raise DataRefused(f"{path} has labels outside 0..999, or pixels that are not finite")
    scale = max(float(np.abs(images).max()), 1e-12)
    pixels, classes = images.reshape(len(images), -1) / scale, labels.astype(np.int64)
    order = rng.permutation(len(images))
    kept = round(len(images) * _VALIDATION)
    val, train = order[:kept], order[kept:]
    return Data(
        (pixels[train], classes[train]), (pixels[val], classes[val]), scale, int(classes.max()) + 1
    )


def train(
    data: Data,
    settings: Settings,
    rng: np.random.Generator,
    *,
    begun: Callable[[int], None],
    ended: Callable[[Epoch], None],
    should_stop: Callable[[], bool],
) -> Trained:
    """Train until the epochs are done or somebody asks to stop.

    Args:
        data: from `load`.
        settings: the command line's.
        rng: draws the first weights and each epoch's order.
        begun: told each epoch's number, from 0, as it begins.
        ended: told what each epoch brought, a cut one included.
        should_stop: asked after every batch.

    Returns:
        The network, as it is after the last batch.
    """
    images, labels = data.train
    trained = Trained(Network.drawn(rng, images.shape[1], settings.hidden, data.classes))
    starts = range(0, len(images), settings.batch_size)
    for epoch in range(settings.epochs):
        begun(epoch)
        order, losses, started = rng.permutation(len(images)), [], time.monotonic()
        for done, start in enumerate(starts, 1):
            rows = order[start : start + settings.batch_size]
            losses.append(
                trained.network.learn(images[rows], labels[rows], settings.lr, settings.momentum)
            )
            last = epoch + 1 == settings.epochs and done == len(starts)
            if not last and should_stop():
                trained.stopped_early = True
                break
            ahead = settings.pace * done / len(starts) - (time.monotonic() - started)
            time.sleep(max(ahead, 0))
        val_loss, val_accuracy = trained.network.evaluate(*data.val)
        trained.history.append(Epoch(epoch, float(np.mean(losses)), val_loss, val_accuracy))
        ended(trained.history[-1])
        if trained.stopped_early:
            break
    return trained


def save(trained: Trained, data: Data, settings: Settings, folder: Path) -> None:
    """Write `model.npz` and `metrics.json`; neither is ever visible half-written.

    Args:
        trained: from `train`.
        data: what it was trained and judged on.
        settings: noted in the metrics.
        folder: made if absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metrics: dict[str, object] = {
        "stopped_early": trained.stopped_early,
        "epochs": len(trained.history),
        "settings": asdict(settings),
        "history": [asdict(epoch) for epoch in trained.history],
    }
    for name, part in (("train", data.train), ("val", data.val)):
        loss, accuracy = trained.network.evaluate(*part)
        metrics[name] = {"images": len(part[1]), "loss": loss, "accuracy": accuracy}
    partial = folder / ".partial.npz"
    np.savez(partial, allow_pickle=False, scale=np.float64(data.scale), **trained.network.weights)
    partial.replace(folder / "model.npz")
    partial = folder / ".partial.json"
    partial.write_text(
        json.dumps(_json(metrics), indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    partial.replace(folder / "metrics.json")


def _json(value: object) -> object:
    """Put null where training diverged: JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_json(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
