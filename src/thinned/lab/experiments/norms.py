"""`norms`: four normalisations differ in their axes, as the drop methods differ in their unit."""

from __future__ import annotations

from typing import Any

import numpy as np

from thinned import Key, scratch
from thinned.key import normals
from thinned.lab.grids.computation import Computation
from thinned.lab.grids.grid import Budget, Grid, Group, System
from thinned.lab.reporting.page import Reference
from thinned.methods import METHODS

SHAPE, GROUPS = (6, 8, 5, 7), 4  # (N, C, H, W)
LAYERS = {
    "batch": lambda: scratch.BatchNorm(SHAPE[1], dtype=np.float64),
    "layer": lambda: scratch.LayerNorm(SHAPE[1:], dtype=np.float64),
    "instance": lambda: scratch.InstanceNorm(SHAPE[1], dtype=np.float64),
    "group": lambda: scratch.GroupNorm(GROUPS, SHAPE[1], dtype=np.float64),
}


class Normalisations(Computation):
    """Each layer of `thinned.scratch`: its axes, its output's mean and variance, its distance from torch."""

    def compute(self) -> dict[str, Any]:
        """The table's columns, in the order of LAYERS."""
        x = 3 + 2 * normals(Key(self.config.seed), int(np.prod(SHAPE))).reshape(SHAPE)
        columns: dict[str, list[Any]] = {"view": [], "axes": [], "mean": [], "variance": [], "far": []}
        for name, make in LAYERS.items():
            layer = make()
            y = layer.forward(x, Key(0))
            view = layer.view(SHAPE)
            axes = layer.axes(len(view))
            seen = y.reshape(view)
            columns["view"].append(str(view))
            columns["axes"].append(str(tuple(int(a) % len(view) for a in axes)))
            columns["mean"].append(float(np.abs(seen.mean(axis=axes)).max()))
            columns["variance"].append(float(np.abs(seen.var(axis=axes) - 1).max()))
            columns["far"].append(float(np.abs(y - by_torch(name, x)).max()))
        measured = {"largest distance from torch": max(columns["far"])}
        return {"measured": measured | columns}


def by_torch(name: str, x: np.ndarray) -> np.ndarray:
    """The same normalisation by PyTorch."""
    import torch
    from torch.nn import functional

    t = torch.from_numpy(x)
    found = {
        "batch": lambda: functional.batch_norm(t, None, None, training=True),
        "layer": lambda: functional.layer_norm(t, SHAPE[1:]),
        "instance": lambda: functional.instance_norm(t),
        "group": lambda: functional.group_norm(t, GROUPS),
    }
    return np.asarray(found[name]().numpy())


def headline(groups: Group) -> str:
    """How closely the layers agree with torch."""
    (runs,) = groups.values()
    m = next((run.measured for run in runs if run.status == "done"), None)
    far = m["largest distance from torch"] if m else 0.0
    return f"One implementation gives all four by its axes; it is {far:.0e} from torch's." if m else ""


def tables(groups: Group) -> list[Reference]:
    """The axes of the normalisations, and the units of the drop methods."""
    (runs,) = groups.values()
    m = next((run.measured for run in runs if run.status == "done"), None)
    rows = []
    if m:
        columns = (m["view"], m["axes"], m["mean"], m["variance"], m["far"])
        for name, view, axes, *numbers in zip(LAYERS, *columns, strict=True):
            rows.append([name, view, axes, *(f"{value:.1e}" for value in numbers)])
    left = ("|mean| left", "|variance − 1| left", "from torch")
    heads = ["normalisation", "x is seen as", "mean and variance over axes", *left]
    units = [[row.name, row.unit, row.dims] for row in METHODS.values() if row.kind == "drop"]
    return [
        Reference(
            heads, rows, f"x: (N, C, H, W) = {SHAPE}, {GROUPS} groups. All four are one class, `Normalize`."
        ),
        Reference(
            ["drop method", "unit", "x"], units, "The drop methods: one table of units, one implementation."
        ),
    ]


EXPERIMENT = Grid(
    name="norms",
    place=200,
    title="Normalisations differ in their axes, drop methods in their unit",
    summary="Batch, layer, instance and group normalisation differ only in the axes over which they take "
    "mean and variance. The drop methods differ in the unit to which one random decision applies.",
    source="Wu and He 2018, arXiv:1803.08494; 神经网络中的随机失活方法 (Dropout methods in neural networks), "
    "a post of 2020",
    settings={"hidden": (1,), "epochs": 1},
    systems=[System(label="four normalisations", trainer=Normalisations)],
    budgets={
        name: Budget(text="random numbers, 1 seed", data="digits") for name in ("smoke", "quick", "paper")
    },
    errors=False,
    headline=headline,
    tables=tables,
).experiment()
