"""Rows that are no network: computed in one go, in the place of epochs."""

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
    """Something computed at once; `compute` gives `test_error` and `train_error`, or None, and `measured`."""

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
        """Multiplications, about: those of a small network."""
        return 1e9

    def compute(self) -> dict[str, Any]:
        """The result."""
        raise NotImplementedError

    def resume(self, run: Run) -> None:
        """There is nothing between beginning and end."""

    def checkpoint(self) -> Checkpoint:
        """No parameters."""
        return Checkpoint(self.epoch, {}, {}, self.history)

    def next_epoch(self, tell: Callable[[float, float], None]) -> dict[str, float] | None:
        """All of it."""
        start = time.perf_counter()
        self.found = self.compute()
        self.seconds = time.perf_counter() - start
        self.epoch = self.config.epochs
        return None

    def result(self) -> dict[str, Any]:
        """What `result.json` says."""
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
    """A support vector machine with a Gaussian kernel; C and γ chosen on held-out training data.

    γ is in units of 1/(features · variance). Source: Cortes and Vapnik 1995, doi:10.1007/BF00994018;
    scikit-learn's SVC.
    """

    CHOICES = tuple((c, gamma) for c in (2.0, 10.0, 50.0) for gamma in (0.5, 1.0, 2.0, 4.0))
    CHOSEN_ON = 6_000  # training examples, a sixth of them held out
    DEAR = 4.5  # a kernel value against one of a matrix product; measured with 2,500 to 10,000 digits

    @staticmethod
    def work(settings: Mapping[str, Any], examples: int, inputs: int, classes: int) -> float:
        """Kernel values between pairs, for the choices, the fit and the predictions."""
        choices = len(Svm.CHOICES) * min(examples, Svm.CHOSEN_ON) ** 2
        return Svm.DEAR * inputs * (choices + 2 * examples**2)

    def compute(self) -> dict[str, Any]:
        """Errors on training and test data with the choice that is best on the held-out part."""
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
