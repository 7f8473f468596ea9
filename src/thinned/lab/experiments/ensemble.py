"""`ensemble`: dropout as voting: all sub-networks of a small network, enumerated."""

from __future__ import annotations

from typing import Any

import numpy as np

from thinned import Key, choose, uncertainty
from thinned.lab.grids.grid import Budget, Grid, GridTrainer, Group, System, figure
from thinned.lab.reporting.page import Reference
from thinned.lab.reporting.wording import number, stat_text

UNITS = 10
MONTE_CARLO = (10, 50)
WAYS = (
    "one sub-network, mean", "arithmetic mean", "geometric mean", *(f"Monte Carlo, {k}" for k in MONTE_CARLO),
    "weight scaling",
)  # fmt: skip


class Voting(GridTrainer):
    """After training, averages the predictions of every sub-network of the hidden units."""

    def measure(self) -> dict[str, Any]:
        """Test errors in %, and the largest distance of the geometric mean from weight scaling."""
        x, thin = self.data.x_test.astype(np.float64), self.config.method == "thin"
        averages = uncertainty.average(self.net, x, thin=thin)
        each = np.concatenate([p for _, p in uncertainty.subnetworks(self.net, x, thin=thin)])
        key = Key(self.config.seed).fold_in("vote")
        drawn = [choose(key.fold_in(k), len(each), k) for k in MONTE_CARLO]
        found = [
            100 * float(1 - averages.votes[np.arange(len(x)), self.data.y_test].mean()),
            self.error(averages.arithmetic),
            self.error(averages.geometric),
            *(self.error(each[rows].mean(axis=0)) for rows in drawn),
            self.error(averages.scaled),
        ]
        far = float(np.abs(averages.geometric - averages.scaled).max())
        return {
            "sub-networks": averages.networks,
            **dict(zip(WAYS, found, strict=True)),
            "geometric − scaled": far,
        }

    def error(self, predicted: np.ndarray) -> float:
        """The test error of predicted probabilities in %."""
        return 100 * float(np.mean(predicted.argmax(axis=1) != self.data.y_test))


def headline(groups: Group) -> str:
    """One sub-network against the vote of all."""
    runs = groups[EXACT]
    one, all_, whole = (figure(runs, way) for way in (WAYS[0], WAYS[1], WAYS[-1]))
    if not one.n:
        return ""
    return (
        f"A single sub-network makes {number(one.mean)} % errors, the vote of all 252 makes "
        f"{number(all_.mean)} %, and one pass with scaled weights makes {number(whole.mean)} %."
    )


def tables(groups: Group) -> list[Reference]:
    """The test errors of each way of predicting."""
    found = {name: runs for name, runs in groups.items() if runs}
    rows = [[way, *(stat_text(figure(runs, way)) for runs in found.values())] for way in WAYS]
    far = [figure(runs, "geometric − scaled") for runs in found.values()]
    rows.append(["largest difference, geometric − scaled", *(f"{stat.mean:.1e}" for stat in far)])
    caption = (
        "Test errors in %. The normalised geometric mean of the sub-networks is exactly the network with "
        "scaled weights, because behind one hidden layer the logits are linear in the mask. The difference "
        "is rounding."
    )
    return [Reference(["evaluation", *found], rows, caption)]


EXACT, ANY = "thin: 252 sub-networks of 5", "dropout: all 1,024 sub-networks"
EXPERIMENT = Grid(
    name="ensemble",
    place=120,
    title="Dropout as voting",
    summary="A network of ten hidden units contains 252 networks of five. One table compares their exact "
    "arithmetic and geometric means, means of a few of them, and one pass with scaled weights.",
    source="Srivastava et al. 2014, section 1; two posts on dropout that describe the vote: "
    "神经网络中的随机失活方法 (Dropout methods in neural networks), 2020, and 深入理解dropout "
    "(Understanding dropout in depth)",
    settings={"hidden": (UNITS,), "optimizer": "adam", "lr": 1e-2, "p": 0.5, "batch": 32, "dtype": "float64"},
    systems=[
        System(label=EXACT, settings={"method": "thin"}, trainer=Voting),
        System(label=ANY, settings={"method": "dropout"}, trainer=Voting),
    ],
    budgets={
        "smoke": Budget(text="8 × 8 digits, 15 epochs", data="digits", settings={"epochs": 15}),
        "quick": Budget(
            text="8 × 8 digits, 60 epochs, 5 seeds", data="digits", seeds=5, settings={"epochs": 60}
        ),
        "paper": Budget(
            text="8 × 8 digits, 200 epochs, 20 seeds", data="digits", seeds=20, settings={"epochs": 200}
        ),
    },
    differs=["The sources describe the vote and print no figures. The digits and the network are our choice "
    "at every budget."],
    baseline="",
    headline=headline,
    tables=tables,
).experiment()  # fmt: skip
