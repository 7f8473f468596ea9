"""`cifar10-mlp`: a three-layer network on CIFAR-10: standard, with dropout, with dropout on the inputs.

The source warns that dropout on the inputs easily keeps the loss from converging. Its listing says
`inputs *= U0`, and its batches are slices of the training data, so each epoch drops from what the epochs
before have left: after e epochs a pixel survives with probability 0.9^e, multiplied by 0.9^-e. Row D does
just that. Row C drops inputs anew in each step, as Srivastava et al. (2014) do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import thinned
from thinned import Key
from thinned.lab.data.registry import load
from thinned.lab.grids.grid import Budget, Grid, Group, Source, System
from thinned.lab.reporting.page import Reference
from thinned.lab.reporting.summary import Stat
from thinned.lab.storage.run import Stored
from thinned.lab.training.config import Config
from thinned.lab.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class CifarConfig(Config):
    """A run; `in_place` is the probability, in each epoch, that a pixel is lost for good."""

    in_place: float = 0.0


class InPlace(Trainer):
    """Inputs as the source's listing leaves them: in epoch e, from 0, a pixel survives with chance 0.9^(e+1).

    One key gives nested masks: what survives a larger p survives a smaller one. So the mask of epoch e, made
    at once, is the product of e + 1 independent masks.
    """

    config: CifarConfig

    def examples(self) -> np.ndarray:
        """All training inputs, as this epoch sees them."""
        lost = 1.0 - (1.0 - self.config.in_place) ** (self.epoch + 1)
        key = Key(self.config.seed).fold_in("in place")
        return thinned.dropout(self.x, lost, key=key)


STANDARD, DROPOUT, INPUTS, IN_PLACE, THIN = (
    "A, standard", "B, dropout", "C, inputs too", "D, inputs in place", "E, thin in 16 groups",
)  # fmt: skip
PRINTED = {STANDARD: (1.0, 0.5763), DROPOUT: (0.9979, 0.6001)}  # training and test accuracy


def label(config: Mapping[str, Any]) -> str:
    """The label of a run's row."""
    known = {"none": STANDARD, "thin": THIN}.get(config["method"])
    return known or (IN_PLACE if config["in_place"] else INPUTS if config["input_p"] else DROPOUT)


def system(name: str, trainer: type[Trainer] = Trainer, **settings: Any) -> System:
    """A row of the table."""
    theirs = 100 * (1 - PRINTED[name][1]) if name in PRINTED else None
    return System(label=name, theirs=theirs, settings=settings, trainer=trainer)


def limited(data_dir: Path | None) -> Source:
    """So many training images, and a fifth as many test images, the same ones for each seed."""
    part = functools.cache(lambda name, limit: load(name, data_dir=data_dir, limit=limit))
    return lambda name, examples, seed: part(name, examples if examples < 50_000 else None)


def tables(groups: Group) -> list[Reference]:
    """The source's accuracies and ours."""
    rows = [
        [f"source, {row}", f"{100 * train:.2f}", "–", f"{100 * test:.2f}", "–"]
        for row, (train, test) in PRINTED.items()
    ]
    rows += [[row, *_figures(group)] for row, group in groups.items() if group]
    columns = ["run", "training %", "last test %", "best test %", "last loss"]
    return [Reference(columns, rows, "The source's accuracies and ours.")]


def notes(groups: Group) -> list[str]:
    """Whether the loss of each row converged."""
    return [_convergence(row, group) for row, group in groups.items() if group]


def _figures(group: Sequence[Stored]) -> list[str]:
    """Training, last and best test accuracy in %, and the loss of the last training passes."""
    ended = [run for run in group if run.status == "done"]
    if not ended:
        return [group[0].status, *["–"] * 3]
    results = [run.result for run in ended]
    return [
        _text([100 * (1 - result["train_error"]) for result in results], 2),
        _text([100 * (1 - result["test_error"]) for result in results], 2),
        _text([100 * (1 - min(run.history["test_error"])) for run in ended], 2),
        _text([run.history["loss"][-1] for run in ended], 4),
    ]


def _text(values: Sequence[float], digits: int) -> str:
    stat = Stat.of(values)
    return f"{stat.mean:.{digits}f}" + (f" ± {stat.sd:.{digits}f}" if stat.n > 1 else "")


def _convergence(row: str, group: Sequence[Stored]) -> str:
    """The first, lowest and last loss of the training passes; it converges if the last is near the lowest."""
    found = []
    for run in group:
        loss = run.history["loss"]
        if run.status == "diverged" or not loss:
            found.append(f"{run.status} in epoch {run.result.get('epoch', '–')}")
            continue
        low = min(range(len(loss)), key=loss.__getitem__)
        verdict = (
            "it rises again, no convergence"
            if loss[-1] > 1.1 * loss[low]
            else "it converges"
            if loss[-1] < math.log(10)
            else "not better than guessing yet"
        )
        found.append(
            f"loss {loss[0]:.3f} in the first epoch, {loss[low]:.3f} at its lowest (epoch {low + 1}), "
            f"{loss[-1]:.3f} in the last: {verdict}"
        )
    return f"{row}: " + "; ".join(found) + f". (Guessing among 10 classes: {math.log(10):.3f}.)"


EXPERIMENT = Grid(
    name="cifar10-mlp",
    place=100,
    title="Dropout in a three-layer network on CIFAR-10",
    summary="A three-layer network on CIFAR-10: standard, with dropout, with dropout on the inputs too (in "
    "two ways), and thin.",
    source="随机失活 (Dropout), a post of 2019-06-05: 3072-2000-800-40, batch 256, rate 1e-3 halved four "
    "times, L2 1e-3, 300 epochs",
    settings={
        "hidden": (2000, 800), "outputs": 40, "batch": 256, "epochs": 300, "lr": 1e-3, "schedule": "halve",
        "momentum": 0.9, "l2": 1e-3, "log": 1,
    },
    systems=[
        system(STANDARD, method="none"),
        system(DROPOUT, method="dropout", p=0.5),
        system(INPUTS, method="dropout", p=0.5, input_p=0.1),
        system(IN_PLACE, InPlace, method="dropout", p=0.5, in_place=0.1),
        system(THIN, method="thin", p=0.5),
    ],
    former={
        "E, thin": "all rows of a batch shared one pick, and the optimizer was Adam at 0.0006 falling to 0, "
        "without L2"
    },
    budgets={
        "smoke": Budget(
            text="seconds: 500 images, 64 and 32 units, 12 epochs, 1 seed", data="cifar10", limit=500,
            settings={"hidden": (64, 32), "epochs": 12, "batch": 50, "lr": 0.02},
        ),
        "quick": Budget(
            text="minutes: 5,000 images, 100 epochs, batches of 64, rate 0.01, 1 seed", data="cifar10",
            limit=5_000, settings={"epochs": 100, "batch": 64, "lr": 0.01},
        ),
        "paper": Budget(text="everything: 50,000 images, 300 epochs, 1 seed; hours", data="cifar10"),
    },
    differs=[
        "The source prints the best test accuracy over all epochs, which chooses on the test data. Ours is "
        "judged after the last epoch; our best is shown for comparison only.",
        "Why dropout on the inputs keeps the source's loss from converging: its listing multiplies the "
        "inputs in place, and a batch is a view of the training data, so each epoch drops from what the "
        "last one left (row D). Row C drops inputs anew in each step.",
        "Row E computes only the surviving units. The rows of a batch are in 16 groups, and each group picks "
        "its own half of the units. All settings are those of row B.",
        "The rate of the quick budget was chosen on held-out training images.",
        "The source offers momentum and does not say what it used: here 0.9, Nesterov.",
    ],
    baseline=STANDARD,
    shown={
        "dropping": "p = 0.5 for hidden units in B to E; 0.1 for inputs in C, anew in each step; 0.1 for "
        "inputs in D, for good in each epoch"
    },
    notes=notes,
    tables=tables,
    config=CifarConfig,
    label=label,
    source_of=limited,
).experiment()  # fmt: skip
