"""`spiral`: dropout on three spiral arms, wired as in the source, which bypasses it, and as it is meant.

The source's listing computes `dropout1.forward(activation1.output)` but feeds the second dense layer with
`activation1.output`. On the way back, the gradient does go through `dropout1`. The source prints two runs and
does not say how they differ.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thinned import Key, scratch
from thinned.key import permutation
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.small import spiral
from thinned.lab.grids.grid import Budget, Grid, Group, Source, System
from thinned.lab.reporting.page import Reference
from thinned.lab.reporting.summary import Stat
from thinned.lab.storage.run import Stored
from thinned.lab.training.config import Config
from thinned.lab.training.trainer import Trainer

WIRINGS = {"A": "bypassed forward", "B": "in the path"}  # A is the listing
SAME = {"A": "first", "B": "second"}  # the printed run that each should reproduce; a report measures it


@dataclass(frozen=True, kw_only=True)
class SpiralConfig(Config):
    """A run.

    Args:
        wiring: A or B.
        samples: points on each arm.
        init: standard deviation of the first weights.
    """

    wiring: str
    samples: int
    init: float = 0.01


# Its last lines: epoch, accuracy, loss, data loss, regularisation loss; then validation accuracy and loss.
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
    """The listing's wiring: the input passes unchanged, its gradient is dropped."""

    def forward(self, x: np.ndarray, key: Key | None = None) -> np.ndarray:
        """Returns the same array."""
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
    """The shuffled points of a seed: half of them to train, half to validate."""
    key = Key(seed).fold_in("data")
    x, y = spiral(samples, 3, key=key.fold_in("points"))
    train, test = np.split(permutation(key.fold_in("order"), len(y)), [len(y) // 2])
    note = f"Three arms of {samples:,} points, made anew for each seed, shuffled; one half is for validation."
    return Dataset("spiral", x[train], y[train], x[test], y[test], ("0", "1", "2"), (2,), note)


def own_points(data_dir: Path | None) -> Source:
    """Each seed has points of its own; both wirings share them."""
    of = functools.cache(points)
    return lambda name, examples, seed: of(2 * examples // 3, seed)


def line(history: Mapping[str, float]) -> str:
    """A line of history as the source prints it; its epochs start at 0."""
    return (
        f"epoch: {history['epoch'] - 1:.0f}, acc: {1 - history['error']:.3f}, loss: "
        f"{history['loss'] + history['penalty']:.3f} (data_loss: {history['loss']:.3f}, reg_loss: "
        f"{history['penalty']:.3f}), lr: {history['lr']:.6f}"
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


def row(wiring: str) -> str:
    """The label of a wiring's row."""
    return f"{wiring}, {WIRINGS[wiring]}"


def label(config: Mapping[str, Any]) -> str:
    """The label of a run's row."""
    return row(config["wiring"])


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


def headline(groups: Group) -> str:
    """Which wiring gave which printed run, once both are done."""
    means = {w: {f: stat.mean for f, stat in stats(runs).items()} for w, runs in done(groups).items() if runs}
    return " ".join(verdicts(means)) if len(means) == len(WIRINGS) else ""


def notes(groups: Group) -> list[str]:
    """How much single lines vary, once both wirings are done."""
    found = done(groups)
    return [unrest(found)] if all(found.values()) else []


def tables(groups: Group) -> list[Reference]:
    """Both wirings beside both printed runs."""
    found = done(groups)
    rows = [["source, " + name, *(f"{value:.3f}" for value in printed(name).values())] for name in PRINTED]
    rows += [[row(w), *map(_text, stats(runs).values())] for w, runs in found.items() if runs]
    return [
        Reference(["run", *FIGURES], rows, "The source's two printed runs and ours."),
        *_lines(found),
    ]


def done(groups: Group) -> dict[str, list[Stored]]:
    """The finished runs of each wiring."""
    return {w: [run for run in groups[row(w)] if run.status == "done"] for w in WIRINGS}


def stats(runs: Sequence[Stored]) -> dict[str, Stat]:
    """Each of the source's figures over the seeds."""
    every = [figures(run) for run in runs]
    return {name: Stat.of([found[name] for found in every]) for name in FIGURES}


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


def _text(stat: Stat) -> str:
    return f"{stat.mean:.3f}" + (f" ± {stat.sd:.3f}" if stat.n > 1 else "")


EXPERIMENT = Grid(
    name="spiral",
    place=110,
    title="Dropout on the spiral, in the path and bypassed",
    summary="A small network on three spiral arms, with dropout bypassed in the forward pass (the source's "
    "listing), and with dropout in the path.",
    source="a Chinese translation of the dropout chapter of Kinsley and Kukieła 2020, Neural Networks from "
    "Scratch in Python: Dense 2-512, ReLU, dropout 0.1, dense 512-3; 10,001 full-batch epochs of Adam",
    settings={
        "samples": 2000, "hidden": (512,), "method": "dropout", "p": 0.1, "l2": 1e-3, "optimizer": "adam",
        "lr": 0.05, "decay": 5e-5, "schedule": "constant", "epochs": 10_001, "batch": 3000, "log": 100,
    },
    systems=[
        System(
            label=row(wiring),
            theirs=100 * (1 - PRINTED[same][1][0]),
            settings={"wiring": wiring},
            trainer=SpiralTrainer,
        )
        for wiring, same in SAME.items()
    ],
    budgets={
        "smoke": Budget(
            text="seconds: 300 points, 32 units, 201 epochs, 1 seed", data="spiral", limit=150, width=1 / 16,
            settings={"samples": 100, "batch": 150, "epochs": 201},
        ),
        "quick": Budget(
            text="a few minutes: 2,001 of the 10,001 epochs, 1 seed", data="spiral",
            settings={"epochs": 2_001},
        ),
        "paper": Budget(
            text="everything: 6,000 points, 512 units, 10,001 epochs, 3 seeds", data="spiral", seeds=3
        ),
    },
    differs=[
        f"Distance: the sum of the absolute differences in {', '.join(JUDGED)}, means over seeds.",
        "As in the source, training figures are those of the training pass before the last update, with "
        "dropout as wired. The training loss includes the regularisation loss; the validation loss does not.",
        "The rate printed here is that of the step; the source prints that of the step before.",
    ],
    baseline=row("A"),
    shown={  # the source's penalty is 5e-4·‖w‖², which is l2/2·‖w‖² with l2 = 1e-3
        "dropping": "p = 0.1 for hidden units",
        "regularisation": "0.0005·‖w‖² on weights and biases of the first layer",
        "first weights": "0.01·N(0, 1)",
    },
    headline=headline,
    notes=notes,
    tables=tables,
    config=SpiralConfig,
    label=label,
    source_of=own_points,
    line=line,
).experiment()  # fmt: skip
