"""`mnist-averaging`: averaging thinned networks against scaling the weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from thinned import Key, uncertainty
from thinned.lab.grids.grid import Budget, Grid, GridTrainer, Group, System, figure
from thinned.lab.reporting.figures import Point, lines
from thinned.lab.reporting.page import Figure, Reference
from thinned.lab.reporting.wording import number

DRAWS = 120
COUNTS = (1, 2, 5, 10, 20, 30, 50, 80, 120)


class Averaging(GridTrainer):
    """After training, averages the predictions of k thinned networks."""

    def measure(self) -> dict[str, Any]:
        """Test error in % of the average of k networks, mean over the DRAWS // k disjoint groups of them."""
        key, x, y = Key(self.config.seed).fold_in("average"), self.data.x_test, self.data.y_test
        drawn = uncertainty.sample(self.net, x, DRAWS, key=key, thin=False, progress=False)
        errors = {}
        for k in COUNTS:
            means = drawn[: DRAWS // k * k].reshape(-1, k, *drawn.shape[1:]).mean(axis=1)
            errors[f"k = {k}"] = 100 * float(np.mean(means.argmax(axis=2) != y))
        return errors


def curve(groups: Group) -> list[tuple[int, Point]]:
    """Test errors over k."""
    (runs,) = groups.values()
    stats = {k: figure(runs, f"k = {k}") for k in COUNTS}
    return [(k, Point(k, stat.mean, stat.sd)) for k, stat in stats.items() if stat.n]


def scaled(groups: Group) -> float:
    """The test error of weight scaling in %."""
    (runs,) = groups.values()
    return float(np.mean([100 * run.result["test_error"] for run in runs if run.status == "done"]))


def headline(groups: Group) -> str:
    """The k at which averaging becomes as good as weight scaling."""
    found = curve(groups)
    if not found:
        return ""
    level, (last, end) = scaled(groups), found[-1]
    level_at = next((k for k, point in found if point.y <= level), None)
    when = f"first reaches that at k = {level_at}" if level_at else "does not reach that"
    return (
        f"Weight scaling makes {number(level)} % errors; the average of k thinned networks {when}, and makes "
        f"{number(end.y)} % at k = {last}."
    )


def tables(groups: Group) -> list[Reference]:
    """Test errors over k."""
    rows = [[f"average of {k}", number(point.y)] for k, point in curve(groups)]
    rows.append(["weight scaling", number(scaled(groups))])
    return [
        Reference(
            ["prediction", "test error %"], rows, f"Means over disjoint groups of {DRAWS} thinned networks."
        )
    ]


def figures(groups: Group) -> list[Figure]:
    """The test error over k, beside that of weight scaling."""
    points, level = [point for _, point in curve(groups)], scaled(groups)
    if not points:
        return []
    flat = [Point(k, level) for k in (COUNTS[0], COUNTS[-1])]
    curves = {"average of k": points, "weight scaling": flat}
    return [lines("Averaging k thinned networks", "k", "test error, %", curves, log=True)]


EXPERIMENT = Grid(
    name="mnist-averaging",
    place=80,
    title="Averaging thinned networks, or scaling the weights",
    summary="The mean prediction of k thinned networks, drawn from one network trained with dropout, against "
    "a single pass with scaled weights. The source finds averaging equally good at about k = 50, and "
    "slightly better from there on.",
    source="Srivastava et al. 2014, figure 11",
    settings={"optimizer": "adam", "lr": 1e-3, "method": "dropout", "p": 0.5, "input_p": 0.2},
    systems=[System(label="dropout", settings={"hidden": (1024,) * 3}, trainer=Averaging)],
    budgets={
        "smoke": Budget(
            text="8 × 8 digits, a 32nd of the units", data="digits", width=1 / 32, settings={"epochs": 15}
        ),
        "quick": Budget(
            text="10,000 digits, half of the units, 100 epochs, 3 seeds", limit=10_000, width=1 / 2,
            seeds=3, settings={"epochs": 100},
        ),
        "paper": Budget(text="all digits and units, 200 epochs, 3 seeds", seeds=3, settings={"epochs": 200}),
    },
    differs=["The source prints a curve, no figures. Adam, rate 0.001 falling linearly to 0."],
    headline=headline,
    tables=tables,
    figures=figures,
).experiment()  # fmt: skip
