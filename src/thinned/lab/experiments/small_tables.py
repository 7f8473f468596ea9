"""`small-tables`: the estimators as they are created, beside scikit-learn's, on its small tables."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from thinned.estimators import DropoutMLPClassifier, DropoutMLPRegressor
from thinned.lab.grids.computation import Computation
from thinned.lab.grids.grid import Budget, Grid, GridConfig, Group, System
from thinned.lab.reporting.page import Reference

Table = tuple[np.ndarray, np.ndarray]
FIRST_SPLIT = 10  # the defaults were chosen on splits 0 to 4
TEST = 0.2  # of the rows
CLASSES: dict[str, Callable[[], Table]] = {
    "iris": lambda: datasets.load_iris(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),
    "breast cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
    "digits": lambda: datasets.load_digits(return_X_y=True),
    "moons": lambda: datasets.make_moons(300, noise=0.3, random_state=0),
    "circles": lambda: datasets.make_circles(300, noise=0.2, factor=0.5, random_state=0),
    "made classes": lambda: datasets.make_classification(
        500, 20, n_informative=5, n_classes=3, random_state=0
    ),
}
NUMBERS: dict[str, Callable[[], Table]] = {
    "diabetes": lambda: datasets.load_diabetes(return_X_y=True),
    "Friedman 1": lambda: datasets.make_friedman1(300, noise=1.0, random_state=0),
    "Friedman 2": lambda: datasets.make_friedman2(300, noise=100.0, random_state=0),
    "Friedman 3": lambda: datasets.make_friedman3(300, noise=0.1, random_state=0),
}


@dataclass(frozen=True, kw_only=True)
class SplitConfig(GridConfig):
    """A run of one split; with ``tables``, on the first tables alone."""

    tables: int = 99


class Split(Computation):
    """Errors and seconds of both libraries on one split of every table."""

    config: SplitConfig

    @staticmethod
    def work(settings: Mapping[str, Any], examples: int, inputs: int, classes: int) -> float:
        """Multiplications that take about as long as two fits: small steps cost more than their products."""
        return 2 * 9e9 * min(settings.get("tables", SplitConfig.tables), len(CLASSES) + len(NUMBERS))

    def compute(self) -> dict[str, Any]:
        """What is measured on each table."""
        found: dict[str, dict[str, float]] = {}
        pairs = ((CLASSES, DropoutMLPClassifier, MLPClassifier), (NUMBERS, DropoutMLPRegressor, MLPRegressor))
        for tables, ours, theirs in pairs:
            for name in [*tables][: self.config.tables]:
                split = FIRST_SPLIT + self.config.seed
                parts = self.halves(*tables[name](), split, tables is CLASSES)
                one, other = (self.fit(kind(random_state=split), *parts) for kind in (ours, theirs))
                keys = ("error", "their error", "seconds", "their seconds")
                found[name] = dict(zip(keys, (one[0], other[0], one[1], other[1]), strict=True))
        lower = sum(m["error"] <= m["their error"] for m in found.values())
        return {"measured": {"tables with a lower or equal error": lower, **found}}

    def halves(self, x: np.ndarray, y: np.ndarray, split: int, classes: bool) -> tuple[np.ndarray, ...]:
        """Training and test part, with features, and numbers to predict, of mean 0 and variance 1."""
        how: dict[str, Any] = {"test_size": TEST, "random_state": split, "stratify": y if classes else None}
        x, x_test, y, y_test = train_test_split(x, y, **how)
        scaler = StandardScaler().fit(x)
        if not classes:
            y, y_test = (y - y.mean()) / y.std(), (y_test - y.mean()) / y.std()
        return scaler.transform(x), y, scaler.transform(x_test), y_test

    def fit(
        self, model: Any, x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray
    ) -> tuple[float, float]:
        """The error on the test part in %, and the seconds of `fit`, in the time of this process."""
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
        seconds = time.process_time() - start
        return 100.0 * (1.0 - float(model.score(x_test, y_test))), seconds


def compared(groups: Group) -> dict[str, dict[str, np.ndarray]]:
    """Name of a table -> what is measured on it, each (splits,)."""
    (runs,) = groups.values()
    done = [run.measured for run in runs if run.status == "done"]
    names = [name for name in (*CLASSES, *NUMBERS) if done and name in done[0]]
    return {name: {key: np.array([m[name][key] for m in done]) for key in done[0][name]} for name in names}


def headline(groups: Group) -> str:
    """On how many tables the errors differ, and the share of their time."""
    found = compared(groups)
    if not found:
        return ""
    far = [gap.mean() / max(error, 1e-9) for gap, error in map(difference, found.values())]
    ours, theirs = (sum(m[key].sum() for m in found.values()) for key in ("seconds", "their seconds"))
    return (
        f"As created, the networks with dropout have the lower error on {sum(z < -2 for z in far)} of "
        f"{len(found)} tables, by more than two standard errors, and the higher on "
        f"{sum(z > 2 for z in far)}; they take {ours / theirs:.2f} of scikit-learn's time in all."
    )


def difference(m: Mapping[str, np.ndarray]) -> tuple[np.ndarray, float]:
    """Our error minus theirs, split by split, and the standard error of the mean."""
    gap = m["error"] - m["their error"]
    return gap, float(gap.std(ddof=1)) / len(gap) ** 0.5 if len(gap) > 1 else float("inf")


def tables(groups: Group) -> list[Reference]:
    """Errors, their difference split by split, and times."""
    rows = []
    for name, m in compared(groups).items():
        gap, error = difference(m)
        spread = f" ± {error:.1f}" if len(gap) > 1 else ""
        measure = "error, %" if name in CLASSES else "1 − R², %"
        ratio = m["seconds"].sum() / m["their seconds"].sum()
        means = (f"{m[key].mean():.1f}" for key in ("error", "their error"))
        rows.append([name, measure, *means, f"{gap.mean():+.1f}{spread}", f"{ratio:.2f}"])
    caption = (
        "Means over splits, 80 % of the rows to train and 20 % to test. The difference has the standard error"
        " of its mean. The defaults were chosen on other splits of the same tables."
    )
    columns = ("table", "measure", "DropoutMLP", "scikit-learn's MLP", "difference", "time ratio")
    return [Reference(columns, rows, caption)]


EXPERIMENT = Grid(
    name="small-tables",
    place=220,
    title="The estimators as they are created, on small tables",
    summary="`DropoutMLPClassifier()` and `DropoutMLPRegressor()` beside scikit-learn's `MLPClassifier()` "
    "and `MLPRegressor()`, all with their defaults, on eleven tables that scikit-learn ships or makes.",
    source="scikit-learn, Pedregosa et al. 2011, JMLR 12:2825-2830: `MLPClassifier` and `MLPRegressor`",
    settings={"hidden": (1,), "epochs": 1},
    systems=[System(label="both, one split", trainer=Split)],
    budgets={
        "smoke": Budget(text="1 split of 2 tables", data="digits", settings={"tables": 1}),
        "quick": Budget(text="10 splits", data="digits", seeds=10),
        "paper": Budget(text="30 splits", data="digits", seeds=30),
    },
    errors=False,
    headline=headline,
    tables=tables,
    config=SplitConfig,
).experiment()
