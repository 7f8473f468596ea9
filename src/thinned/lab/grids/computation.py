"""Rows that are computed at once, without training a network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from thinned import Key
from thinned.lab.data.dataset import Dataset, holdout
from thinned.lab.grids.grid import GridConfig
from thinned.lab.storage.provenance import about
from thinned.lab.storage.run import COLUMNS, Checkpoint, Run
from thinned.lab.training.trainer import Trainer


class Computation(Trainer):
    """A result computed at once: `compute` returns errors, `measured`, or both."""

    config: GridConfig
    network = False
    computed_by = ()

    def __init__(self, config: GridConfig, dataset: Dataset) -> None:
        self.config, self.data = config, dataset
        self.epoch, self.diverged = 0, False
        self.history = {column: [] for column in COLUMNS}
        self.found: dict[str, Any] = {}

    @staticmethod
    def work(settings: Mapping[str, Any], examples: int, inputs: int, classes: int) -> float:
        """Approximate number of multiplications: that of a small network."""
        return 1e9

    def compute(self) -> dict[str, Any]:
        """The entries of `result.json` that subclasses compute."""
        raise NotImplementedError

    def resume(self, run: Run) -> None:
        """Do nothing: there is no checkpoint before the end."""

    def checkpoint(self) -> Checkpoint:
        """A checkpoint without parameters."""
        return Checkpoint(self.epoch, {}, {}, self.history)

    def next_epoch(self, tell: Callable[[float, float], None]) -> dict[str, float] | None:
        """Compute the result, in place of all epochs."""
        start = time.perf_counter()
        self.found = self.compute()
        self.seconds = time.perf_counter() - start
        self.epoch = self.config.epochs
        return None

    def result(self) -> dict[str, Any]:
        """The contents of `result.json`."""
        nothing = dict.fromkeys(("test_error", "train_error", "test_loss", "train_loss", "gap"))
        return {
            "status": "done",
            **nothing,
            "parameters": 0,
            "method": self.config.method,
            "seed": self.config.seed,
            "judged_on": "held-out training data" if self.config.validation else "test data",
            "seconds_per_epoch": self.seconds / self.config.epochs,
            **self.found,
            "about": about(),
        }


class Svm(Computation):
    """A support vector machine with a Gaussian kernel; C and γ are chosen on held-out training data.

    γ is in units of 1/(features · variance). Source: Cortes and Vapnik 1995, doi:10.1007/BF00994018;
    scikit-learn's SVC.
    """

    CHOICES = tuple((c, gamma) for c in (2.0, 10.0, 50.0) for gamma in (0.5, 1.0, 2.0, 4.0))
    CHOSEN_ON = 6_000  # training examples, a sixth of them held out
    DEAR = 4.5  # cost of a kernel value, in entries of a matrix product; measured with 2,500 to 10,000 digits

    @staticmethod
    def work(settings: Mapping[str, Any], examples: int, inputs: int, classes: int) -> float:
        """Approximate cost of the kernel values for the choice, the fit and the predictions."""
        choices = len(Svm.CHOICES) * min(examples, Svm.CHOSEN_ON) ** 2
        return Svm.DEAR * inputs * (choices + 2 * examples**2)

    def compute(self) -> dict[str, Any]:
        """The errors with the C and γ that are best on the held-out part."""
        key, d = Key(self.config.seed), self.data
        x, y = d.x_train, d.y_train
        part = x[: self.CHOSEN_ON], y[: self.CHOSEN_ON]
        held = holdout(
            Dataset(d.name, *part, d.x_test, d.y_test, d.classes, d.shape, d.note),
            1 / 6,
            key.fold_in("choose"),
        )
        c, gamma = min(self.CHOICES, key=lambda choice: self._error(held, *choice))
        machine = self._fit(x, y, c, gamma)
        test, train = (float(np.mean(machine.predict(a) != b)) for a, b in ((d.x_test, d.y_test), (x, y)))
        measured = {"C": c, "gamma": gamma, "support vectors": int(machine.n_support_.sum())}
        return {"test_error": test, "train_error": train, "gap": test - train, "measured": measured}

    def _error(self, held: Dataset, c: float, gamma: float) -> float:
        return float(
            np.mean(self._fit(held.x_train, held.y_train, c, gamma).predict(held.x_test) != held.y_test)
        )

    def _fit(self, x: np.ndarray, y: np.ndarray, c: float, gamma: float) -> Any:
        from sklearn.svm import SVC

        scale = 1.0 / (x.shape[1] * float(np.var(x, dtype=np.float64)) or math.inf)
        return SVC(C=c, gamma=gamma * scale, cache_size=1000).fit(x, y)
