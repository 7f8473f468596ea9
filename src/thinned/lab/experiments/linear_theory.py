"""`linear-theory`: linear regression with dropout is ridge regression in the units of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinned import Key, keep_mask, theory
from thinned.key import normals
from thinned.lab.grids.computation import Computation
from thinned.lab.grids.grid import Budget, Grid, GridConfig, Group, System
from thinned.lab.reporting.figures import Point, lines
from thinned.lab.reporting.page import Figure, Reference
from thinned.lab.reporting.summary import Stat

RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, kw_only=True)
class TheoryConfig(GridConfig):
    """A run of the simulation; `masks` are drawn for each rate."""

    masks: int


class Simulation(Computation):
    """The mean losses and gradients of thinned linear networks, beside their closed forms."""

    config: TheoryConfig

    @staticmethod
    def work(settings: Mapping[str, Any], examples: int, inputs: int, classes: int) -> float:
        """Approximate number of multiplications: masks and products."""
        return 20.0 * len(RATES) * settings["masks"] * examples * inputs

    def compute(self) -> dict[str, Any]:
        """Simulated and closed loss and gradient for each p."""
        x, y = self.data.x_train.astype(np.float64), self.data.y_train.astype(np.float64)
        key = Key(self.config.seed)
        w = normals(key.fold_in("weights"), x.shape[1])
        found = [self.rate(x, y, w, p, key.fold_in(f"p = {p}")) for p in RATES]
        columns = {name: [row[name] for row in found] for name in found[0]}
        measured = {
            "strongest simulated penalty at p": RATES[int(np.argmax(columns["simulated penalty"]))],
            "strongest closed penalty at p": RATES[int(np.argmax(columns["closed penalty"]))],
            "largest distance of the loss, standard errors": max(map(abs, columns["standard errors"])),
            "largest relative distance of the gradient": max(columns["gradient"]),
            **columns,
        }
        return {"measured": measured}

    def rate(self, x: np.ndarray, y: np.ndarray, w: np.ndarray, p: float, key: Key) -> dict[str, float]:
        """One p: E‖y − (R∗X)w‖² and E[∂/∂w ½‖y − (R∗X)w‖²], simulated and closed."""
        losses, gradient = np.empty(self.config.masks), np.zeros_like(w)
        for i in range(self.config.masks):
            thinned = keep_mask(x.shape, p, key=key.fold_in(i)) * x
            residual = y - thinned @ w
            losses[i] = residual @ residual
            gradient -= thinned.T @ residual
        gradient /= self.config.masks
        simulated, penalty = float(losses.mean()), theory.linear_penalty(x, w, p)
        closed, exact = theory.linear_loss(x, y, w, p), theory.linear_gradient(x, y, w, p)
        return {
            "simulated loss": simulated,
            "closed loss": closed,
            "standard errors": float((simulated - closed) / (losses.std(ddof=1) / len(losses) ** 0.5)),
            "gradient": float(np.linalg.norm(gradient - exact) / np.linalg.norm(exact)),
            "simulated penalty": penalty + (simulated - closed),
            "closed penalty": penalty,
        }


def first(groups: Group) -> dict[str, Any]:
    """What the first finished run measured."""
    (runs,) = groups.values()
    return next((run.measured for run in runs if run.status == "done"), {})


def headline(groups: Group) -> str:
    """The distance of simulation and closed form, and where the penalty is strongest."""
    (runs,) = groups.values()
    every = [run.measured for run in runs if run.status == "done"]
    if not every:
        return ""
    far = max(m["largest distance of the loss, standard errors"] for m in every)
    simulated = " and ".join(f"{p:g}" for p in sorted({m["strongest simulated penalty at p"] for m in every}))
    return (
        f"Simulated and closed loss differ by {far:.1f} standard errors at most over {len(RATES)} rates; "
        f"the penalty is strongest at p = {simulated} in the simulation and at "
        f"{every[0]['strongest closed penalty at p']:g} in the closed form."
    )


def tables(groups: Group) -> list[Reference]:
    """Simulation and closed form for each rate, first seed."""
    m = first(groups)
    columns = ("simulated loss", "closed loss", "standard errors", "gradient")
    rows = [
        [f"{p:g}", *(f"{m[name][i]:.6g}" if "loss" in name else f"{m[name][i]:.3g}" for name in columns)]
        for i, p in enumerate(RATES if m else ())
    ]
    caption = (
        "E‖y − (R∗X)w‖² = ‖y − (1 − p)Xw‖² + p(1 − p)‖Γw‖², Γ = diag(XᵀX)^½. Standard errors: the distance "
        "between the two losses, in standard errors of the simulated mean. Gradient: the relative distance "
        "of the mean gradient of thinned networks from ∂E_N/∂w + p(1 − p)Γ²w."
    )
    return [Reference(["p", *columns], rows, caption)]


def figures(groups: Group) -> list[Figure]:
    """The penalty over p."""
    (runs,) = groups.values()
    done = [run.measured for run in runs if run.status == "done"]
    if not done:
        return []
    curves = {}
    for kind in ("simulated", "closed"):
        stats = [Stat.of([m[f"{kind} penalty"][i] for m in done]) for i in range(len(RATES))]
        curves[kind] = [Point(p, stat.mean, stat.sd) for p, stat in zip(RATES, stats, strict=True)]
    caption = "Bars: one standard deviation over seeds; each seed has its own weights."
    return [lines("The penalty over p", "p", "p(1 − p)‖Γw‖²", curves, caption=caption)]


EXPERIMENT = Grid(
    name="linear-theory",
    place=90,
    title="Dropout in linear regression is a ridge penalty",
    summary="The loss of thinned linear networks, averaged over simulated masks, beside its closed form: "
    "least squares plus p(1 − p)‖Γw‖². The penalty is strongest at p = 0.5.",
    source="Srivastava et al. 2014, section 9; Zhao Zhou (赵洲), Zhejiang University, lecture slides "
    "Dropout, pages on the mathematics",
    settings={"hidden": (1,), "epochs": 1},
    systems=[System(label="simulation and closed form", trainer=Simulation)],
    budgets={
        "smoke": Budget(text="100 masks a rate", data="digits", settings={"masks": 100}),
        "quick": Budget(
            text="2,000 masks a rate, 3 seeds", data="digits", seeds=3, settings={"masks": 2_000}
        ),
        "paper": Budget(
            text="20,000 masks a rate, 5 seeds", data="digits", seeds=5, settings={"masks": 20_000}
        ),
    },
    differs=[
        "X: 8 × 8 digits. y: their labels as numbers. w: normal random numbers, different for each seed."
    ],
    errors=False,
    headline=headline,
    tables=tables,
    figures=figures,
    config=TheoryConfig,
).experiment()  # fmt: skip
