"""`thin-parity`: thinned training against dropout, at equal settings and equal epochs.

A batch whose rows share one pick of units has noisier gradients than dropout. Its rows can make several
picks: row i belongs to group i mod g. Each scene trains the same networks with dropout and with g groups,
over learning rates; differences are taken seed by seed. One scene is at large rates, where units die in the
first steps: as it is, with a rate that rises at first, with inputs of mean 0, and with dropout at first.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from thinned import Key, masks, scratch
from thinned.lab.data.dataset import Dataset
from thinned.lab.grids.grid import Budget, Grid, GridConfig, GridTrainer, Group, System, error
from thinned.lab.reporting import figures as plots
from thinned.lab.reporting.page import Figure, Reference
from thinned.lab.reporting.summary import Stat
from thinned.lab.reporting.wording import number, stat_text
from thinned.lab.storage.run import Run, Stored
from thinned.lab.training import networks


@dataclass(frozen=True, kw_only=True)
class ParityConfig(GridConfig):
    """A run; `groups` of rows share a pick (0: no thinning), in pairs that balance each other or not."""

    groups: int = 0
    pairs: bool = True


class Unpaired(scratch.ThinDropout):
    """`ThinDropout` whose groups are independent: the first groups of as many pairs."""

    def drop(self, x: Any, key: Key | None, sample_offset: int = 0) -> Any:
        """x where kept, divided by 1 − p."""
        if key is None or self.p == 0.0:
            return x
        kept = masks.picks(x.shape[1], self.p, key, 2 * self.groups).units[::2]
        rows = (sample_offset + np.arange(len(x))) % self.groups
        return np.where(kept[rows], x * x.dtype.type(1.0 / (1.0 - self.p)), x.dtype.type(0))

    def backward(self, grad: Any) -> Any:
        """∂L/∂x: the same map."""
        (key,) = self.recall()
        return self.drop(grad, key)


class Parity(GridTrainer):
    """The network of its configuration, thinned by groups of rows."""

    config: ParityConfig
    computed_by = ("numpy",)  # times are compared, and groups without pairs have no torch module

    def build(self) -> scratch.Network:
        """The network before training."""
        c = self.config
        if not c.groups:
            return networks.build(c, self.data)
        net = scratch.mlp(
            (self.data.x_train.shape[1], *c.hidden, len(self.data.classes)),
            key=Key(c.seed).fold_in("init"),
            drop=scratch.Dropout if c.pairs else lambda p: Unpaired(p, c.groups),
            p=c.p,
            dtype=np.dtype(c.dtype),
        )
        return scratch.Thin(net, c.groups) if c.pairs else net


@dataclass(frozen=True, kw_only=True)
class SteepConfig(ParityConfig):
    """A run at a large rate, and what may keep it steady.

    The rate rises in a straight line over the first `warm_up` steps (0: none). With `centred`, the mean of
    each input over the training data is subtracted. The first `plain` steps are dropout, with no groups.
    """

    warm_up: int = 0
    centred: bool = False
    plain: int = 0

    def learning_rate(self, step: int, steps: int) -> float:
        """The learning rate of a step."""
        return super().learning_rate(step, steps) * min(1.0, (step + 1) / max(1, self.warm_up))


class Steep(Parity):
    """A run at a large rate; it measures the first weights and the first two epochs."""

    config: SteepConfig
    highest, dead = 0.0, 0.0

    def __init__(self, config: SteepConfig, dataset: Dataset) -> None:
        super().__init__(config, centred(dataset) if config.centred else dataset)
        self.noise = self._noise() if config.groups else 1.0

    def _noise(self) -> float:
        """The variance of the first weights' gradient over masks, in times that of dropout."""
        x, y, key = self.x[: self.batch], self.y[: self.batch], Key(self.config.seed).fold_in("noise")
        thin, dropout = (variance(net, x, y, key) for net in (self.net, scratch.Network(self.net.children)))
        return thin / dropout

    def resume(self, run: Run) -> None:
        """Start again: a checkpoint lacks what the first epochs showed."""

    def _step(self, x: np.ndarray, y: np.ndarray, step: int) -> tuple[float, float]:
        net = self.net
        if step < self.config.plain:
            self.net = scratch.Network(net.children)
        found = super()._step(x, y, step)
        self.net = net
        if step < 2 * self.steps:
            self.highest = max(self.highest, found[0])
        if step + 1 == self.steps:
            self.dead = dead_units(self.net, self.x[self.part[:SEEN]])
        return found

    def measure(self) -> dict[str, Any]:
        """The noise, the highest loss, and the dead units."""
        return {NOISE: self.noise, HIGHEST: float(self.highest), DEAD: 100 * self.dead}


def centred(data: Dataset) -> Dataset:
    """The data with inputs whose mean over the training data is 0."""
    mean = data.x_train.mean(axis=0)
    return dataclasses.replace(data, x_train=data.x_train - mean, x_test=data.x_test - mean)


def variance(net: scratch.Network, x: np.ndarray, y: np.ndarray, key: Key) -> float:
    """The variance of the loss's gradient over `DRAWS` masks of one batch, summed over all parameters."""
    loss = scratch.SoftmaxCrossEntropy()
    total, squares = np.zeros(1), 0.0
    for i in range(DRAWS):
        loss.forward(net.forward(x, key.fold_in(i)), y)
        net.param_grads(loss.backward())
        grad = np.concatenate([g.ravel() for layer in net.children.values() for g in layer.grads.values()])
        total, squares = total + grad, squares + float(grad @ grad)
    return (squares - float(total @ total) / DRAWS) / (DRAWS - 1)


def dead_units(net: scratch.Network, x: np.ndarray) -> float:
    """The share of the last hidden layer's units that are 0 for all of the inputs x."""
    share = 0.0
    for layer in net.children.values():
        x = layer.forward(x)
        if isinstance(layer, scratch.ReLU):
            share = float(np.mean(x.max(axis=0) <= 0))
    return share


NOISE = "variance of the first gradient over masks, in times that of dropout"
HIGHEST, DEAD = "highest loss in two epochs", "dead units of the last hidden layer after one epoch, %"
DRAWS = 16  # masks
SEEN = 2_000  # training examples that show whether a unit is dead


@dataclass(frozen=True)
class Scene:
    """Networks of one shape on one data set, trained by each way at each rate."""

    name: str
    data: str  # "": the budget's
    hidden: tuple[int, ...]
    budgets: tuple[str, ...]
    ways: tuple[str, ...]
    rates: tuple[float, ...]
    batch: int = 128
    p: float = 0.5
    trainer: type[Parity] = Parity
    more: Mapping[str, Any] = field(default_factory=dict)  # further settings

    def systems(self) -> list[System]:
        """A system for each way and rate."""
        return [self._system(way, rate) for way in self.ways for rate in self.rates]

    def label(self, way: str, rate: float) -> str:
        """The name of a system."""
        return f"{self.name}, {way}, rate {rate:g}"

    def _system(self, way: str, rate: float) -> System:
        settings = {"hidden": self.hidden, "batch": self.batch, "p": self.p, "lr": rate, **self.more}
        settings |= (WAYS | STEADY)[way]
        return System(
            label=self.label(way, rate),
            settings=settings,
            data=self.data,
            budgets=self.budgets,
            trainer=self.trainer,
            config=SteepConfig if self.trainer is Steep else None,
        )


PLAIN, DROPOUT, SIXTEEN = "no dropout", "dropout", "thin, 16 groups"
WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {"method": "none"},
    DROPOUT: {"method": "dropout"},
    "thin, 1 group": {"method": "thin", "groups": 1},
    **{f"thin, {g} groups": {"method": "thin", "groups": g} for g in (2, 4, 8, 16)},
    "thin, 16 unpaired groups": {"method": "thin", "groups": 16, "pairs": False},
}
ALL, TWO = tuple(WAYS), (DROPOUT, SIXTEEN)
SOME = (PLAIN, DROPOUT, "thin, 1 group", SIXTEEN, "thin, 16 unpaired groups")
MEANS: dict[str, dict[str, Any]] = {"warm-up": {"warm_up": 200}, "inputs of mean 0": {"centred": True}}
LATE = f"{SIXTEEN} after 50 steps of dropout"
STEADY = {f"{way}, {means}": {**WAYS[way], **more} for means, more in MEANS.items() for way in TWO}
STEADY[LATE] = {**WAYS[SIXTEEN], "plain": 50}
BASES = {SIXTEEN: DROPOUT, **{f"{SIXTEEN}, {means}": f"{DROPOUT}, {means}" for means in MEANS}}
RATES, LARGE = (0.01, 0.03, 0.1, 0.2), ("quick", "paper")
SCENES = [
    Scene("MNIST, 256-256", "", (256, 256), ("smoke", "quick"), ALL, RATES),
    Scene("CIFAR-10, 512-256", "cifar10", (512, 256), ("quick",), ALL, RATES),
    Scene("Words, 256-256", "words", (256, 256), LARGE, SOME, RATES),
    Scene("MNIST, 1024-1024", "", (1024, 1024), ("paper",), ALL, RATES),
    Scene("CIFAR-10, 2000-800", "cifar10", (2000, 800), ("paper",), ALL, RATES, 256),
    *(Scene(f"MNIST, {n}-{n}", "", (n, n), LARGE, TWO, (0.03, 0.1)) for n in (32, 64, 128)),
    *(
        Scene(f"MNIST, 128-128, p = {p:g}", "", (128, 128), LARGE, TWO, (0.03, 0.1), p=p)
        for p in (0.2, 0.8)
    ),
    *(
        Scene(f"MNIST, 128-128, batch {batch}", "", (128, 128), LARGE, TWO, (rate,), batch)
        for batch, rate in ((8, 0.003), (32, 0.01), (100, 0.03))
    ),
    Scene(
        "CIFAR-10, 512-256, 4 epochs", "cifar10", (512, 256), ("quick",), (*TWO, *STEADY), (0.05, 0.1, 0.2),
        trainer=Steep, more={"epochs": 4},
    ),
]  # fmt: skip


def tables(groups: Group) -> list[Reference]:
    """For each scene, the errors over rates, the differences from dropout, and the times."""
    return [table for scene in SCENES for table in _tables(scene, groups)]


def _tables(scene: Scene, groups: Group) -> list[Reference]:
    """The three tables of a scene; none where no run of it is there."""
    runs = {(way, rate): groups.get(scene.label(way, rate), []) for way in scene.ways for rate in scene.rates}
    if not any(runs.values()):
        return []
    heads = [f"rate {rate:g}" for rate in scene.rates]
    others = [way for way in scene.ways if way not in (PLAIN, *BASES.values())]
    errors = [[way, *(_error(runs[way, rate]) for rate in scene.rates)] for way in scene.ways]
    apart = [
        [way, *(_difference(runs[way, rate], runs[BASES.get(way, DROPOUT), rate]) for rate in scene.rates)]
        for way in others
    ]
    times = [
        [way, *(_time(runs[way, rate], runs[DROPOUT, rate]) for rate in scene.rates)] for way in scene.ways
    ]
    return [
        Reference(["training", *heads], errors, f"{scene.name}: test error, %."),
        Reference(["training", *heads], apart, f"{scene.name}: {DIFFERENCE}"),
        Reference(["training", *heads], times, f"{scene.name}: {TIME}"),
    ]


DIFFERENCE = (
    "error − error with dropout, in points: the mean of the differences seed by seed, its standard error, "
    "and the chance of a mean at least as far from 0 if signs were chance (all signs are tried)."
)
TIME = "time of training in times that of dropout; networks with unpaired groups compute all units."


def _error(runs: Sequence[Stored]) -> str:
    """Mean and standard deviation over the seeds, or what became of them."""
    stat = error(runs)
    lost = sum(run.status == "diverged" for run in runs)
    if not stat.n:
        return "diverges" if lost else "–"
    return stat_text(stat) + (f" ({lost} of {len(runs)} diverge)" if lost else "")


def _difference(ours: Sequence[Stored], theirs: Sequence[Stored]) -> str:
    """The paired difference of the seeds that both have finished."""
    a, b = (
        {run.config["seed"]: 100 * run.result["test_error"] for run in runs if run.status == "done"}
        for runs in (ours, theirs)
    )
    both = sorted(a.keys() & b.keys())
    if not both:
        return "–"
    stat, chance = paired([a[seed] - b[seed] for seed in both])
    if stat.n == 1:
        return number(stat.mean)
    return f"{number(stat.mean)} ± {number(stat.sd / math.sqrt(stat.n))}, {chance:.2f}"


def paired(differences: Sequence[float]) -> tuple[Stat, float]:
    """The figures of the differences, and the two-sided chance of so far a mean over all choices of signs.

    Fisher 1935, The Design of Experiments, section 21.
    """
    d = np.asarray(differences, float)
    signs = np.array(list(itertools.product((1, -1), repeat=len(d)))).reshape(-1, len(d))
    sums = np.abs(signs @ d)
    return Stat.of(differences), float(np.mean(sums >= abs(d.sum()) * (1 - 1e-12)))


def _time(ours: Sequence[Stored], theirs: Sequence[Stored]) -> str:
    """The ratio of the mean times."""
    a, b = (Stat.of([run.seconds for run in runs if run.status == "done"]) for runs in (ours, theirs))
    return number(a.mean / b.mean) if a.n and b.n else "–"


def figures(groups: Group) -> list[Figure]:
    """The test error over the rate, for each scene of several rates and ways."""
    return [figure for scene in SCENES if len(scene.ways) > 2 for figure in _figures(scene, groups)]


def _figures(scene: Scene, groups: Group) -> list[Figure]:
    """The picture of a scene; none without a line."""
    lines: dict[str, list[plots.Point]] = {}
    for way in scene.ways:
        stats = [(rate, error(groups.get(scene.label(way, rate), []))) for rate in scene.rates]
        lines[way] = [plots.Point(rate, stat.mean, stat.sd) for rate, stat in stats if stat.n]
    if not any(len(points) > 1 for points in lines.values()):
        return []
    caption = "Means over seeds; bars: one standard deviation. A line ends where training diverges."
    title, shown = (
        f"{scene.name}: test error over the learning rate",
        {way: p for way, p in lines.items() if p},
    )
    return [plots.lines(title, "learning rate", "test error, %", shown, log=True, caption=caption)]


def headline(groups: Group) -> str:
    """The smallest and the largest difference between 16 groups and dropout."""
    found = {}
    for scene in SCENES:
        for rate in scene.rates:
            ours, theirs = (groups.get(scene.label(way, rate), []) for way in (SIXTEEN, DROPOUT))
            a, b = error(ours), error(theirs)
            if a.n and b.n:
                found[f"{scene.name}, rate {rate:g}"] = a.mean - b.mean
    if not found:
        return ""
    worst, best = max(found, key=found.__getitem__), min(found, key=found.__getitem__)
    return (
        f"The error with 16 groups minus that with dropout is from {number(found[best])} ({best}) to "
        f"{number(found[worst])} points ({worst})."
    )


EXPERIMENT = Grid(
    name="thin-parity",
    place=110,
    title="Thinned training against dropout",
    summary="Networks that compute only the surviving units, with 1 to 16 picks a batch, beside dropout at "
    "the same settings and epochs. One pick a batch is worse and diverges early. The question is whether 16 "
    "picks in pairs are as good as dropout wherever dropout trains.",
    source="ours; dropout by Srivastava et al. 2014, one pick a batch by Graham et al. 2015",
    settings={"optimizer": "sgd", "momentum": 0.9, "nesterov": False, "schedule": "constant"},
    systems=[system for scene in SCENES for system in scene.systems()],
    budgets={
        "smoke": Budget(
            text="8 × 8 digits, a 16th of the units, 2 epochs", data="digits", width=1 / 16,
            settings={"epochs": 2},
        ),
        "quick": Budget(
            text="10,000 examples, networks of up to 512 units, 20 epochs, 3 seeds", limit=10_000, seeds=3,
            settings={"epochs": 20},
        ),
        "paper": Budget(
            text="all examples, networks of up to 2000 units, 15 epochs, 5 seeds", seeds=5,
            settings={"epochs": 15},
        ),
    },
    differs=["No source has these figures. No setting was chosen on the test data: the rates are a grid."],
    baseline="",
    errors=False,
    headline=headline,
    tables=tables,
    figures=figures,
    from_rows=True,
    config=ParityConfig,
).experiment()  # fmt: skip
