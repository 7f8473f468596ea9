"""`cifar10-mlp`: the source's three-layer net on CIFAR-10: standard, with dropout, with dropout on inputs.

The source warns that dropout on the inputs easily keeps the loss from converging. Its listing says
`inputs *= U0`, and its batches are slices of the training data: so each epoch drops from what the epochs
before have left, and after e epochs a pixel survives with probability 0.9^e, multiplied by 0.9^-e. Row D does
just that; row C drops inputs anew in each step, as the paper means it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import thinned
from thinned import Key
from thinned.lab import compare
from thinned.lab.data.registry import load
from thinned.lab.grids.experiment import Experiment, Target
from thinned.lab.reporting import from_runs
from thinned.lab.reporting.page import Page, Reference
from thinned.lab.reporting.summary import Stat, plural
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Stored
from thinned.lab.sweeping.job import Job
from thinned.lab.training.config import Config
from thinned.lab.training.train import Trainer


@dataclass(frozen=True, kw_only=True)
class CifarConfig(Config):
    """The source's settings; momentum is ours, because the source offers it and does not say what it used."""

    in_place: float = 0.0  # probability, in each epoch, that a pixel is lost for good
    data: str = "cifar10"
    hidden: tuple[int, ...] = (2000, 800)
    outputs: int | None = 40  # as in the source: only 10 are used
    batch: int = 256
    epochs: int = 300
    lr: float = 1e-3
    schedule: str = "halve"
    momentum: float = 0.9
    l2: float = 1e-3


ROWS: dict[str, dict[str, Any]] = {
    "A, standard": {"method": "none"},
    "B, dropout": {"method": "dropout", "p": 0.5},
    "C, inputs too": {"method": "dropout", "p": 0.5, "input_p": 0.1},
    "D, inputs in place": {"method": "dropout", "p": 0.5, "in_place": 0.1},
    "E, thin": {
        "method": "thin", "p": 0.5, "optimizer": "adam", "lr": 6e-4, "schedule": "linear", "l2": 0.0,
    },
}  # fmt: skip

LIMITS = {"smoke": 500, "quick": 5_000, "paper": None}  # training images
BUDGETS: dict[str, dict[str, Any]] = {
    "smoke": {"hidden": (64, 32), "epochs": 12, "batch": 50, "lr": 0.02},
    "quick": {"epochs": 100, "batch": 64, "lr": 0.01},  # chosen on held-out training images
    "paper": {},
}
PRINTED = {"A, standard": (1.0, 0.5763), "B, dropout": (0.9979, 0.6001)}  # training and test accuracy


class InPlace(Trainer):
    """Inputs as the source's listing leaves them: in epoch e, from 0, a pixel lives with chance 0.9^(e+1).

    One key gives nested masks: what survives a larger p survives a smaller one. So the mask of epoch e, made
    at once, is the product of e + 1 independent ones.
    """

    config: CifarConfig

    def examples(self) -> np.ndarray:
        """All training inputs, as this epoch sees them."""
        lost = 1.0 - (1.0 - self.config.in_place) ** (self.epoch + 1)
        key = Key(self.config.seed).fold_in("in place")
        return thinned.dropout(self.x, lost, key=key)


def jobs(budget: str, seeds: Sequence[int], data_dir: Path | None = None) -> list[Job]:
    """The rows with each seed."""
    dataset = load("cifar10", data_dir=data_dir, limit=LIMITS[budget])
    found = []
    for seed in seeds:
        for own in ROWS.values():
            config = CifarConfig(fingerprint=dataset.fingerprint, seed=seed, **{**BUDGETS[budget], **own})
            found.append(Job(config, dataset, InPlace if config.in_place else Trainer))
    return found


def settings(budget: str, todo: Sequence[Job]) -> dict[str, str]:
    """The settings as a report prints them."""
    seeds = sorted({job.config.seed for job in todo})
    return compare.settings(todo[0].config, todo[0].dataset, seeds) | {
        "budget": f"{budget}: {EXPERIMENT.budgets[budget]}",
        "dropping": "p = 0.5 for hidden units in B to E; 0.1 for inputs in C, anew in each step; "
        "0.1 for inputs in D, for good in each epoch",
    }


def label(config: Mapping[str, Any]) -> str:
    """The row of a run."""
    a, b, c, d, e = ROWS
    known = {"none": a, "thin": e}
    return known.get(config["method"]) or (d if config["in_place"] else c if config["input_p"] else b)


def page(record: Record, stored: Sequence[Stored]) -> Page:
    """Our rows beside the source's, and what became of the loss with dropout on the inputs."""
    groups = {row: [run for run in stored if label(run.config) == row] for row in ROWS}
    table = [
        [f"source, {row}", f"{100 * train:.2f}", "–", f"{100 * test:.2f}", "–", "–"]
        for row, (train, test) in PRINTED.items()
    ]
    table += [[row, *_figures(group)] for row, group in groups.items() if group]
    columns = ["run", "training %", "last test %", "best test %", "last loss", "minutes of training"]
    notes = [
        "The source prints the best test accuracy along the way, which chooses on the test data. Ours to "
        "judge by is that after the last epoch; the best stands here for comparison alone.",
        *(_convergence(row, groups[row]) for row in ROWS if groups[row]),
        "Why dropout on the inputs keeps the source's loss from converging: its listing multiplies the "
        "inputs in place, and a batch is a view of the training data, so each epoch drops from what the "
        "last one left (row D). In row C inputs are dropped anew in each step.",
        "Row E computes the surviving units alone: exactly half of them, the same for a whole batch. Its "
        "gradient is noisier; it has a rule of its own, Adam at 0.0006 falling to 0 without L2, chosen on "
        "held-out training images.",
        "The source offers momentum and does not say what it used: here 0.9, Nesterov.",
    ]
    if record.budget != "paper":
        notes.append(
            f"The budget {record.budget} is smaller than the source's: only the direction can be compared."
        )
    seeds = len({run.config["seed"] for run in stored})
    return Page(
        title="Dropout in a three-layer net on CIFAR-10",
        lead="Standard, with dropout on hidden units, and with dropout on the inputs in two ways; "
        f"{plural(seeds, 'seed')} each. Errors are those after the last epoch.",
        rows=from_runs.rows(stored, label),
        series=from_runs.series(stored, label),
        settings=dict(record.settings),
        command=record.command,
        machine=from_runs.machine(stored),
        references=[Reference(columns, table, "The source's accuracies and ours.")],
        notes=notes,
        baseline="A, standard",
    )


def _figures(group: Sequence[Stored]) -> list[str]:
    """Training, last and best test accuracy in %, the last training passes' loss, minutes of training."""
    ended = [run for run in group if run.status == "done"]
    if not ended:
        return [group[0].status, *["–"] * 4]
    results = [run.result for run in ended]
    return [
        _text([100 * (1 - result["train_error"]) for result in results], 2),
        _text([100 * (1 - result["test_error"]) for result in results], 2),
        _text([100 * (1 - min(run.history["test_error"])) for run in ended], 2),
        _text([run.history["loss"][-1] for run in ended], 4),
        _text([sum(run.history["seconds"]) / 60 for run in ended], 1),
    ]


def work(budget: str) -> float:
    """Multiplications of one seed, about."""
    common = {"hidden": CifarConfig.hidden, "epochs": CifarConfig.epochs} | BUDGETS[budget]
    examples = LIMITS[budget] or 50_000
    return sum(Trainer.work(common | own, examples, 3072, 40) for own in ROWS.values())


def _text(values: Sequence[float], digits: int) -> str:
    stat = Stat.of(values)
    return f"{stat.mean:.{digits}f}" + (f" ± {stat.sd:.{digits}f}" if stat.n > 1 else "")


def _convergence(row: str, group: Sequence[Stored]) -> str:
    """Where the loss of the training passes began, was lowest and ended; near the lowest, it converges."""
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


EXPERIMENT = Experiment(
    name="cifar10-mlp",
    place=100,
    summary="A three-layer net on CIFAR-10: standard, with dropout, on inputs too in two ways, thin.",
    source="sources/000: 3072-2000-800-40, batch 256, rate 1e-3 halved four times, L2 1e-3, 300 epochs",
    budgets={
        "smoke": "seconds: 500 images, 64 and 32 units, 12 epochs, 1 seed",
        "quick": "minutes: 5,000 images, 100 epochs, batches of 64, rate 0.01, 1 seed",
        "paper": "everything: 50,000 images, 300 epochs, 1 seed; hours",
    },
    seeds={"smoke": 1, "quick": 1, "paper": 1},
    jobs=jobs,
    settings=settings,
    page=page,
    work=work,
    label=label,
    targets=[Target(row, 100 * (1 - PRINTED[row][1]) if row in PRINTED else None) for row in ROWS],
)
