"""`spiral`: dropout on three spiral arms, wired as in the source, which bypasses it, and as it is meant.

The source's listing computes `dropout1.forward(activation1.output)` but feeds the second dense layer with
`activation1.output`; on the way back, the gradient does go through `dropout1`. It prints two runs and does
not say how they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thinned import Key, scratch
from thinned.key import permutation
from thinned.lab import compare
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.small import spiral
from thinned.lab.grids.experiment import Experiment, Target
from thinned.lab.reporting import from_runs
from thinned.lab.reporting.page import Page, Reference
from thinned.lab.reporting.summary import Stat, plural
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Stored
from thinned.lab.sweeping.job import Job
from thinned.lab.training.config import Config
from thinned.lab.training.train import Trainer

SAME = {"A": "first", "B": "second"}  # the printed runs that they should give; a report measures it
WIRINGS = {"A": "bypassed forward", "B": "in the path"}  # A is the listing


@dataclass(frozen=True, kw_only=True)
class SpiralConfig(Config):
    """The source's settings. Its penalty is 5e-4·‖w‖², which is l2/2·‖w‖² with l2 = 1e-3."""

    wiring: str
    samples: int = 2000  # an arm
    data: str = "spiral"
    method: str = "dropout"
    p: float = 0.1
    hidden: tuple[int, ...] = (512,)
    init: float = 0.01  # standard deviation of the first weights
    l2: float = 1e-3  # of the first layer, weights and biases
    epochs: int = 10_001
    optimizer: str = "adam"
    lr: float = 0.05
    decay: float = 5e-5
    schedule: str = "constant"
    log: int = 100


BUDGETS: dict[str, dict[str, Any]] = {
    "smoke": {"samples": 100, "hidden": (32,), "epochs": 201},
    "quick": {"epochs": 2_001},
    "paper": {},
}

# Its last lines: epoch, accuracy, loss, data loss, regularisation loss; then validation accuracy, loss.
PRINTED: dict[str, tuple[list[tuple[int, float, float, float, float]], tuple[float, float]]] = {
    "first": (
        [
            (9500, 0.914, 0.282, 0.224, 0.058),
            (9600, 0.916, 0.281, 0.224, 0.057),
            (9700, 0.914, 0.279, 0.223, 0.056),
            (9800, 0.912, 0.288, 0.227, 0.062),
            (9900, 0.916, 0.279, 0.222, 0.057),
            (10000, 0.914, 0.277, 0.222, 0.055),
        ],
        (0.897, 0.299),
    ),
    "second": (
        [
            (9800, 0.848, 0.443, 0.391, 0.052),
            (9900, 0.841, 0.468, 0.416, 0.052),
            (10000, 0.859, 0.468, 0.417, 0.051),
        ],
        (0.857, 0.397),
    ),
}
FIGURES = (
    "training accuracy",
    "loss",
    "data loss",
    "regularisation loss",
    "validation accuracy",
    "validation loss",
)
JUDGED = ("training accuracy", "data loss", "validation accuracy", "validation loss")


class BackwardOnly(scratch.Dropout):
    """The listing's wiring: the input goes through unchanged, its gradient is dropped."""

    def forward(self, x: np.ndarray, key: Key | None = None) -> np.ndarray:
        """Any shape -> the same array."""
        self._saved = (key,)
        return x


class SpiralTrainer(Trainer):
    """Dense 2-512 (L2), ReLU, dropout 0.1, dense 512-3."""

    config: SpiralConfig
    computed_by = ("numpy",)  # wiring A has no torch module

    def build(self) -> scratch.Sequential:
        """The network, weights 0.01·N(0, 1)."""
        c, key = self.config, Key(self.config.seed).fold_in("init")
        dtype, hidden = np.dtype(c.dtype), c.hidden[0]
        drop = BackwardOnly(c.p) if c.wiring == "A" else scratch.Dropout(c.p)
        return scratch.Sequential(
            scratch.Linear(2, hidden, key=key.fold_in(0), init=c.init, l2=c.l2, bias_l2=c.l2, dtype=dtype),
            scratch.ReLU(),
            drop,
            scratch.Linear(hidden, 3, key=key.fold_in(1), init=c.init, dtype=dtype),
        )


def points(samples: int, seed: int) -> Dataset:
    """The shuffled points of one seed: half to train, half to validate."""
    key = Key(seed).fold_in("data")
    x, y = spiral(samples, 3, key=key.fold_in("points"))
    train, test = np.split(permutation(key.fold_in("order"), len(y)), [len(y) // 2])
    note = f"Three arms of {samples:,} points, made anew for each seed, shuffled; one half is for validation."
    return Dataset("spiral", x[train], y[train], x[test], y[test], ("0", "1", "2"), (2,), note)


def jobs(budget: str, seeds: Sequence[int], data_dir: Path | None = None) -> list[Job]:
    """Both wirings on the points of each seed."""
    found = []
    for seed in seeds:
        own = BUDGETS[budget]
        dataset = points(own.get("samples", SpiralConfig.samples), seed)
        for wiring in WIRINGS:
            config = SpiralConfig(
                fingerprint=dataset.fingerprint, seed=seed, batch=len(dataset.y_train), wiring=wiring, **own
            )
            found.append(Job(config, dataset, SpiralTrainer))
    return found


def settings(budget: str, todo: Sequence[Job]) -> dict[str, str]:
    """The settings as a report prints them."""
    config = todo[0].config
    assert isinstance(config, SpiralConfig)
    common = compare.settings(config, todo[0].dataset, sorted({job.config.seed for job in todo}))
    return common | {
        "budget": f"{budget}: {EXPERIMENT.budgets[budget]}",
        "dropping": f"p = {config.p:g} for hidden units",
        "regularisation": f"{config.l2 / 2:g}·‖w‖² on weights and biases of the first layer",
        "training": f"{config.epochs:,} epochs with all examples in one batch, Adam",
        "first weights": f"{config.init:g}·N(0, 1)",
    }


def line(row: Mapping[str, float]) -> str:
    """A line of history as the source prints it; its epochs start at 0."""
    return (
        f"epoch: {row['epoch'] - 1:.0f}, acc: {1 - row['error']:.3f}, loss: "
        f"{row['loss'] + row['penalty']:.3f} (data_loss: {row['loss']:.3f}, reg_loss: "
        f"{row['penalty']:.3f}), lr: {row['lr']:.6f}"
    )


def figures(run: Stored) -> dict[str, float]:
    """The source's figures of a finished run, after its last epoch."""
    last = {name: values[-1] for name, values in run.history.items()}
    values = (
        1 - last["error"],
        last["loss"] + last["penalty"],
        last["loss"],
        last["penalty"],
        1 - last["test_error"],
        last["test_loss"],
    )
    return dict(zip(FIGURES, values, strict=True))


def printed(name: str) -> dict[str, float]:
    """The same figures of one of the source's printed runs."""
    lines, validation = PRINTED[name]
    return dict(zip(FIGURES, (*lines[-1][1:], *validation), strict=True))


def label(config: Mapping[str, Any]) -> str:
    """The row of a run."""
    return f"{config['wiring']}, {WIRINGS[config['wiring']]}"


def verdicts(means: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Which wiring comes nearest to each printed run, by the sum of distances in four figures."""
    found = []
    for name in PRINTED:
        theirs = printed(name)
        far = {w: sum(abs(ours[f] - theirs[f]) for f in JUDGED) for w, ours in means.items()}
        best, *rest = sorted(far, key=far.__getitem__)
        found.append(
            f"The {name} printed run is nearest to wiring {best}, {WIRINGS[best]}: distance {far[best]:.3f}"
            + "".join(f", against {far[w]:.3f} to {w}" for w in rest)
            + "."
        )
    return found


def unrest(done: Mapping[str, Sequence[Stored]], lines: int = 10) -> str:
    """How much a figure still moves at the end: its range over the last lines of all seeds."""
    ranges = []
    for wiring, group in done.items():
        last = [value for run in group for value in run.history["test_loss"][-lines:]]
        ranges.append(f"{min(last):.3f} to {max(last):.3f} in {wiring}")
    return (
        f"Single lines differ, because the rate is still high at the end: over the last {lines}, validation "
        f"losses range from {', from '.join(ranges)}."
    )


def page(record: Record, stored: Sequence[Stored]) -> Page:
    """Both wirings beside both printed runs."""
    done = {w: [r for r in stored if r.config["wiring"] == w and r.status == "done"] for w in WIRINGS}
    ours = {w: [figures(run) for run in group] for w, group in done.items() if group}
    stats = {w: {f: Stat.of([row[f] for row in group]) for f in FIGURES} for w, group in ours.items()}
    notes = [
        "Distance: the sum of the absolute differences in " + ", ".join(JUDGED) + ", means over seeds.",
        "As in the source, training figures are of the training pass before the last update, with dropout as "
        "wired; the training loss includes the regularisation loss, the validation loss does not.",
        "The rate printed here is that of the step; the source prints that of the step before.",
    ]
    means = {w: {f: stat.mean for f, stat in row.items()} for w, row in stats.items()}
    complete = len(means) == len(WIRINGS)
    if complete:
        notes.insert(0, unrest(done))
    if record.budget != "paper":
        notes.append(
            f"The budget {record.budget} is smaller than the source's: only the direction can be compared."
        )
    rows = [["source, " + name, *(f"{value:.3f}" for value in printed(name).values())] for name in PRINTED]
    rows += [[f"{w}, {WIRINGS[w]}", *map(_text, row.values())] for w, row in stats.items()]
    seeds = plural(len({run.config["seed"] for run in stored}), "seed")
    lead = f"Both wirings, {seeds} each, beside the two runs that the source prints."
    return Page(
        title="Dropout on the spiral, in the path and bypassed",
        lead=" ".join([lead, *(verdicts(means) if complete else [])]),
        rows=from_runs.rows(stored, label),
        series=from_runs.series(stored, label),
        settings=dict(record.settings),
        command=record.command,
        machine=from_runs.machine(stored),
        references=[
            Reference(["run", *FIGURES], rows, "The source's two printed runs and ours."),
            *_lines(done),
        ],
        notes=notes,
        baseline=label({"wiring": "A"}),
    )


def _lines(done: Mapping[str, Sequence[Stored]]) -> list[Reference]:
    """The last printed lines beside ours of the first seed, where we went as far."""
    epochs = [row[0] for row in PRINTED["first"][0]]
    columns: dict[str, Callable[[int], str]] = {}
    for name, (lines, _) in PRINTED.items():
        known = {row[0]: f"{row[1]:.3f}, {row[2]:.3f}" for row in lines}
        columns[f"source, {name}"] = lambda epoch, known=known: known.get(epoch, "")  # type: ignore[misc]
    for wiring, group in done.items():
        if not group or not {epoch + 1 for epoch in epochs} <= set(group[0].history["epoch"]):
            return []
        h = group[0].history
        at = {
            int(e) - 1: f"{1 - a:.3f}, {b + c:.3f}"
            for e, a, b, c in zip(h["epoch"], h["error"], h["loss"], h["penalty"], strict=True)
        }
        columns[f"{wiring}, seed {group[0].config['seed']}"] = at.__getitem__
    rows = [[f"{epoch:,}", *(value(epoch) for value in columns.values())] for epoch in epochs]
    return [Reference(["epoch", *columns], rows, "The last lines: training accuracy and loss.")]


def work(budget: str) -> float:
    """Multiplications of one seed, about."""
    config: dict[str, Any] = {"samples": 2000, "hidden": (512,), "epochs": 10_001} | BUDGETS[budget]
    return len(WIRINGS) * Trainer.work(config, 3 * config["samples"] // 2, 2, 3)


def _text(stat: Stat) -> str:
    return f"{stat.mean:.3f}" + (f" ± {stat.sd:.3f}" if stat.n > 1 else "")


EXPERIMENT = Experiment(
    name="spiral",
    place=110,
    summary="A small network on three spiral arms: dropout bypassed forward (the listing), and in the path.",
    source="sources/003: Dense 2-512, ReLU, dropout 0.1, dense 512-3; 10,001 full-batch epochs of Adam",
    budgets={
        "smoke": "seconds: 300 points, 32 units, 201 epochs, 1 seed",
        "quick": "a few minutes: 2,001 of the 10,001 epochs, 1 seed",
        "paper": "everything: 6,000 points, 512 units, 10,001 epochs, 3 seeds",
    },
    seeds={"smoke": 1, "quick": 1, "paper": 3},
    jobs=jobs,
    settings=settings,
    page=page,
    work=work,
    label=label,
    targets=[Target(label({"wiring": w}), 100 * (1 - PRINTED[run][1][0])) for w, run in SAME.items()],
    line=line,
)
