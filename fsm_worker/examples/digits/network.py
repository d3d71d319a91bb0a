"""One hidden layer, softmax, cross-entropy: forward, gradient and momentum in plain numpy."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass
class Network:
    """The weights, and the velocity that momentum gives them.

    Args:
        weights: `w1` (pixels x hidden), `b1`, `w2` (hidden x classes), `b2`.
    """

    weights: dict[str, Floats]
    velocity: dict[str, Floats] = field(init=False)

    def __post_init__(self) -> None:
        self.velocity = {name: np.zeros_like(w) for name, w in self.weights.items()}

    @classmethod
    def drawn(cls, rng: np.random.Generator, pixels: int, hidden: int, classes: int) -> "Network":
        """Draw first weights, scaled for ReLU (He et al., 2015).

        Args:
            rng: decides them.
            pixels: of one image.
            hidden: units of the hidden layer.
            classes: of the labels.

        Returns:
            An untrained network.
        """
        return cls(
            {
                "w1": rng.standard_normal((pixels, hidden)) * np.sqrt(2 / pixels),
                "b1": np.zeros(hidden),
                "w2": rng.standard_normal((hidden, classes)) * np.sqrt(2 / hidden),
                "b2": np.zeros(classes),
            }
        )

    def _forward(self, images: Floats) -> tuple[Floats, Floats]:
        w = self.weights
        hidden = np.maximum(images @ w["w1"] + w["b1"], 0)
        scores = hidden @ w["w2"] + w["b2"]
        scores -= scores.max(axis=1, keepdims=True)
        log_probabilities: Floats = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return hidden, log_probabilities

    def evaluate(self, images: Floats, labels: Labels) -> tuple[float, float]:
        """Look without learning.

        Args:
            images: one a row, scaled to 0..1.
            labels: one an image.

        Returns:
            The mean cross-entropy in nats, and the fraction classified right.
        """
        _, log_probabilities = self._forward(images)
        loss = -log_probabilities[np.arange(len(labels)), labels].mean()
        return float(loss), float((log_probabilities.argmax(axis=1) == labels).mean())

    def learn(self, images: Floats, labels: Labels, lr: float, momentum: float) -> float:
        """Take one step down the gradient of one batch.

        Args:
            images: one a row, scaled to 0..1.
            labels: one an image.
            lr: learning rate.
            momentum: 0..1, how much of the last step is kept.

        Returns:
            The batch's mean cross-entropy in nats, before the step.
        """
        w, rows = self.weights, np.arange(len(labels))
        hidden, log_probabilities = self._forward(images)
        loss = -log_probabilities[rows, labels].mean()
        slope = np.exp(log_probabilities)
        slope[rows, labels] -= 1
        slope /= len(labels)
        back = (slope @ w["w2"].T) * (hidden > 0)
        gradient = {
            "w1": images.T @ back,
            "b1": back.sum(axis=0),
            "w2": hidden.T @ slope,
            "b2": slope.sum(axis=0),
        }
        for name, g in gradient.items():
            self.velocity[name] = momentum * self.velocity[name] - lr * g
            w[name] += self.velocity[name]
        return float(loss)
