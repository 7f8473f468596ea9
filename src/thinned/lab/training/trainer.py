"""One network in training: epoch after epoch, its history, its checkpoint and its result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from thinned import Key, choose, scratch
from thinned.activations import ACTIVATIONS
from thinned.key import permutation
from thinned.lab.choices import ENGINES, drops_weights, is_thin
from thinned.lab.data.dataset import Dataset
from thinned.lab.storage.provenance import about
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import COLUMNS, Arrays, Checkpoint, History, Run
from thinned.lab.training import fabric, networks
from thinned.lab.training.config import Config

EVALUATED = 10_000  # training examples at most, for train_error and train_loss of an epoch
BLOCK = 1_000  # examples in one evaluation pass
DIVERGED = 1e4  # times ln K, the loss of guessing among K classes: a larger loss is divergence
STEP = 1e7  # multiplications that take about as long as the fixed cost of a step
MASKS = 5.0  # passes that take as long as one with a mask of the weights for every sample


class Trainer:
    """A network in training, one `next_epoch` after another. Experiments override methods such as `build`."""

    network = True  # whether it trains a network
    judged_by = "error"  # what `mean_error` is
    keeps = False  # whether a report needs the parameters after training
    computed_by: tuple[str, ...] = ENGINES  # the engines that can train it
    folder: Folder | None = None  # of the run; a trainer may keep more files in it

    @staticmethod
    def work(settings: Mapping[str, Any], examples: int, inputs: int, classes: int) -> float:
        """Multiplications that train a dense network: one pass forward, two back; thin counts survivors only.

        Where every sample drops its own weights, a pass takes as long as `MASKS` passes.
        """
        sizes = (inputs, *settings["hidden"], classes)
        method = settings.get("method", "none")
        keep = 1 - settings.get("p", 0.5) if is_thin(method) else 1.0
        passes = 3.0 * (MASKS if drops_weights(method) else 1.0)
        pieces = ACTIVATIONS[settings.get("activation", Config.activation)].pieces
        last = len(sizes) - 2
        weights = sum(
            a * b * (keep if i else 1.0) * (keep * pieces if i < last else 1.0)
            for i, (a, b) in enumerate(pairwise(sizes))
        )
        steps = math.ceil(examples / min(settings.get("batch", Config.batch), examples))
        return (passes * weights * examples + STEP * steps) * settings["epochs"]

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self.config, self.data = config, dataset
        key = Key(config.seed)
        self.order_key, self.mask_key = key.fold_in("order"), key.fold_in("mask")
        self.x, self.y = dataset.x_train.astype(config.dtype, copy=False), dataset.y_train
        self.net = self.build()
        self.criterion = self.loss()
        self.optimizer = (
            scratch.Adam(config.lr)
            if config.optimizer == "adam"
            else scratch.SGD(config.lr, momentum=config.momentum, nesterov=config.nesterov)
        )
        self.batch = min(config.batch, len(self.x))
        self.steps = math.ceil(len(self.x) / self.batch)  # an epoch
        self.part = choose(key.fold_in("evaluate"), len(self.x), min(EVALUATED, len(self.x)))
        self.epoch = 0
        self.seconds, self.timed = 0.0, 0  # seconds and epochs since the last line of history
        self.history: History = {column: [] for column in COLUMNS}
        self.best: tuple[int, Arrays] = (0, {})
        self.diverged, self.penalty = False, 0.0

    def build(self) -> scratch.Network:
        """The network before training."""
        return networks.build(self.config, self.data)

    def loss(self) -> scratch.Loss:
        """A new loss, of the outputs and the `targets`."""
        return scratch.SoftmaxCrossEntropy()

    def targets(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The desired outputs, for inputs x and labels y."""
        return y

    def wrong(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The number of errors."""
        return int(np.count_nonzero(outputs.argmax(axis=1) != targets))

    def mean_error(self, wrong: float, examples: int) -> float:
        """The error of that many examples, from the sum over `wrong`."""
        return wrong / examples

    def predictions(self) -> Arrays:
        """What is kept of the test data after the last epoch, for each example; nothing by default."""
        return {}

    def save_model(self, folder: Folder) -> None:
        """Keep the network so that it can be used on new data; nothing by default."""

    def tests(self) -> bool:
        """Whether test data is evaluated after this epoch; it always is after the last."""
        return True

    def measure(self) -> dict[str, Any]:
        """Further figures by name, measured after the last epoch."""
        return {}

    def examples(self) -> np.ndarray:
        """The inputs of all training examples in this epoch."""
        return self.x

    def checkpoint(self) -> Checkpoint:
        """The state after the last whole epoch."""
        return Checkpoint(self.epoch, self.net.get_params(), self.optimizer.state(), self.history, *self.best)

    def resume(self, run: Run) -> None:
        """Continue from the checkpoint of `run`, if any; ValueError or TypeError where it does not fit."""
        checkpoint = run.load()
        if checkpoint is None:
            return
        every, last = self.config.log, self.config.epochs
        logged = [e + 1 for e in range(min(checkpoint.epoch, last)) if e % every == 0 or e + 1 == last]
        if checkpoint.epoch > last or checkpoint.history["epoch"] != logged:
            raise ValueError(f"its history must be that of {checkpoint.epoch} of {last} epochs")
        self.net.set_params(checkpoint.params)
        self.optimizer.load(checkpoint.optimizer)
        self.epoch, self.history = checkpoint.epoch, checkpoint.history
        self.best = (checkpoint.best_epoch, checkpoint.best)

    def next_epoch(self, tell: Callable[[float, float], None]) -> dict[str, float] | None:
        """Train one epoch; returns its line of history, if one is due. Sets `diverged` on divergence."""
        c, n, reported, started = self.config, len(self.y), time.monotonic(), time.perf_counter()
        losses, errors = 0.0, 0.0
        order, x = self._order(), self.examples()
        for i in range(self.steps):
            rows = order[i * self.batch : (i + 1) * self.batch]
            loss, wrong = self._step(x[rows], self.y[rows], self.epoch * self.steps + i)
            if self.diverged:
                return None
            losses, errors = losses + loss * len(rows), errors + wrong
            if time.monotonic() - reported > 0.1:
                tell(self.epoch + (i + 1) / self.steps, loss)
                reported = time.monotonic()
        self.seconds += time.perf_counter() - started
        self.timed += 1
        logged = self.epoch % c.log == 0 or self.epoch + 1 == c.epochs
        if logged:
            self._log(
                lr=self.optimizer.lr, loss=losses / n, error=self.mean_error(errors, n), penalty=self.penalty
            )
        if self.diverged:
            return None
        self.epoch += 1
        tell(self.epoch, losses / n)
        return {column: self.history[column][-1] for column in COLUMNS} if logged else None

    def _step(self, x: np.ndarray, y: np.ndarray, step: int) -> tuple[float, float]:
        """One update; returns the mean loss and the number of errors of the batch before it."""
        self.optimizer.lr = self.config.learning_rate(step, self.config.epochs * self.steps)
        with np.errstate(over="ignore", invalid="ignore"):  # the loss decides on divergence
            scores = networks.training_pass(self.net, x, self.mask_key, step)
            targets = self.targets(x, y)
            loss = self.criterion.forward(scores, targets)
            if not loss <= DIVERGED * math.log(max(2, scores.shape[1])):
                self.diverged = True
                return loss, 0
            if (step + 1) % self.steps == 0:
                self.penalty = self.net.penalty()
            self.net.param_grads(self.criterion.backward())
            self.optimizer.step(self.net)
        return loss, self.wrong(scores, targets)

    def _order(self) -> np.ndarray:
        """The order of the examples in this epoch; a batch of all examples needs no shuffling."""
        if self.steps == 1:
            return np.arange(len(self.x))
        return permutation(self.order_key.fold_in(self.epoch), len(self.x))

    def _log(self, **row: float) -> None:
        """Add a line of history, unless the network diverges on the training data."""
        epoch = self.epoch + 1
        row |= {"epoch": epoch, "seconds": self.seconds / self.timed}
        row["train_error"], row["train_loss"] = self.evaluate(self.x[self.part], self.y[self.part])
        row["test_error"] = row["test_loss"] = math.nan
        if self.tests() or epoch == self.config.epochs or self.config.validation:
            row["test_error"], row["test_loss"] = self.evaluate(self.data.x_test, self.data.y_test)
        self.seconds, self.timed = 0.0, 0
        if not (math.isfinite(row["train_loss"]) and self.net.finite()):
            self.diverged = True
            return
        for column in COLUMNS:
            self.history[column].append(float(row[column]))
        if self._best_epoch() == epoch:
            self.best = (epoch, self.net.get_params())

    def _best_epoch(self) -> int:
        """The first epoch with the lowest held-out error or, with nothing held out, training loss."""
        judged = self.history["test_error" if self.config.validation else "train_loss"]
        return int(self.history["epoch"][int(np.argmin(judged))]) if judged else 0

    def evaluate(self, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
        """Error and mean loss in evaluation mode."""
        wrong, losses = 0.0, 0.0
        criterion = self.loss()
        with np.errstate(over="ignore", invalid="ignore"):
            for i in range(0, len(x), BLOCK):
                inputs = x[i : i + BLOCK].astype(self.config.dtype, copy=False)
                targets = self.targets(inputs, y[i : i + BLOCK])
                scores = self.net.predict(inputs)
                losses += criterion.forward(scores, targets) * len(inputs)
                wrong += self.wrong(scores, targets)
        return self.mean_error(wrong, len(x)), losses / len(x)

    def result(self) -> dict[str, Any]:
        """The content of `result.json`: errors after the last epoch, on all training and test examples."""
        params = sum(param.size for _, param, _ in self.net.named_params())
        common = {
            "method": self.config.method,
            "seed": self.config.seed,
            "judged_on": "held-out training data" if self.config.validation else "test data",
            "parameters": params,
            **({} if self.judged_by == "error" else {"judged_by": self.judged_by}),
            "seconds_per_epoch": float(np.median(self.history["seconds"]))
            if self.history["seconds"]
            else None,
            "about": about() | fabric.about(self.config),
        }
        if self.diverged:
            nothing = dict.fromkeys(("test_error", "train_error", "gap", "test_loss", "train_loss"))
            return {"status": "diverged", "epoch": self.epoch + 1, **nothing, **common}
        train_error, train_loss = self.evaluate(self.x, self.y)
        test_error, test_loss = self.history["test_error"][-1], self.history["test_loss"][-1]
        measured = self.measure()
        return {
            "status": "done",
            "epoch": self.epoch,
            "best_epoch": self.best[0],
            "test_error": test_error,
            "train_error": train_error,
            "gap": test_error - train_error,
            "test_loss": test_loss,
            "train_loss": train_loss,
            **({"measured": measured} if measured else {}),
            **common,
        }
