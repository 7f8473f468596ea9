"""Trainers of a comparison: they keep the parameters and what the network predicts for each test example."""

from __future__ import annotations

import numpy as np

from thinned import scratch
from thinned.lab.data.dataset import Dataset
from thinned.lab.reporting.measure import RMSE
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Arrays
from thinned.lab.training.config import Config
from thinned.lab.training.trainer import BLOCK, Trainer

OUTPUTS, LABELS = "outputs", "labels"  # names of the arrays that are kept


class Keeping(Trainer):
    """Classes. Keeps the probabilities (N, K), float32, and the labels (N,)."""

    keeps = True
    units = 0.0, 1.0  # mean and deviation of what is predicted

    def predictions(self) -> Arrays:
        """What the network predicts for the test data, or for what is held out in its place."""
        return {OUTPUTS: self.outputs(self.data.x_test), LABELS: self.data.y_test}

    def save_model(self, folder: Folder) -> None:
        """The network with what makes its inputs, where that is known: `thinned.load`."""
        if self.data.fitted is None:
            return
        from thinned.lab.training import model

        model.save(
            folder, self.config, self.net.get_params(), self.data.fitted, self.data.classes, self.units
        )

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """Probabilities (N, K), or numbers (N,) in the units of the labels."""
        blocks = [self.net.predict(block) for block in self._blocks(x)]
        logits = np.concatenate(blocks).astype(np.float64)[:, : self.data.outputs]
        return scratch.Softmax().forward(logits).astype(np.float32)

    def _blocks(self, x: np.ndarray) -> list[np.ndarray]:
        return [x[i : i + BLOCK].astype(self.config.dtype, copy=False) for i in range(0, len(x), BLOCK)]


class Numbers(Keeping):
    """Numbers: one linear output and squared error, of labels with mean 0 and deviation 1.

    The "error" is the root of the mean squared error, in the units of the labels.
    """

    judged_by = RMSE

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self.mean, self.deviation = float(dataset.y_train.mean()), float(dataset.y_train.std()) or 1.0
        self.units = self.mean, self.deviation
        super().__init__(config, dataset)

    def loss(self) -> scratch.Loss:
        """½(y − t)², of standardised numbers."""
        return scratch.SquaredError()

    def targets(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The labels, standardised: (N, 1)."""
        return ((y[:, None] - self.mean) / self.deviation).astype(self.config.dtype)

    def wrong(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The sum of squared errors, in the units of the labels squared."""
        return float(np.sum((outputs - targets) ** 2, dtype=np.float64)) * self.deviation**2

    def mean_error(self, wrong: float, examples: int) -> float:
        """The root of the mean squared error."""
        return float(np.sqrt(wrong / examples))

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """Numbers (N,), in the units of the labels."""
        found = np.concatenate([self.net.predict(block)[:, 0] for block in self._blocks(x)])
        return found.astype(np.float64) * self.deviation + self.mean


def trainer(dataset: Dataset) -> type[Keeping]:
    """The trainer for what the data set asks: classes or numbers."""
    return Keeping if dataset.classes else Numbers
