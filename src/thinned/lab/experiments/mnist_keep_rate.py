"""`mnist-keep-rate`: the error over the probability of keeping a unit."""

from __future__ import annotations

from thinned.lab.grids.grid import Axis, Budget, Grid, Group, System, errors
from thinned.lab.reporting.wording import number

KEEP = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SURVIVORS = (256, 256, 512)  # expected, in (b)
FIXED, SAME = "n fixed", "p·n fixed"


def headline(groups: Group) -> str:
    """Where each curve is lowest, and its value at 0.5."""
    stats = errors(groups)
    found = []
    for line in (FIXED, SAME):
        curve = {k: stats[f"{line}, keep {k:g}"].mean for k in KEEP if f"{line}, keep {k:g}" in stats}
        if 0.5 in curve:
            low = min(curve, key=curve.__getitem__)
            flat = [curve[k] for k in curve if 0.4 <= k <= 0.8]
            found.append(
                f"With {line} the error is lowest at keep {low:g} ({number(curve[low])} %); at 0.5 it is "
                f"{number(curve[0.5])} %, and from 0.4 to 0.8 it spans {number(max(flat) - min(flat))} "
                "points."
            )
    return " ".join(found)


EXPERIMENT = Grid(
    name="mnist-keep-rate",
    place=30,
    title="How many units to keep",
    summary="The test error over the probability of keeping a hidden unit, with a fixed number of units, and "
    "with a fixed expected number of survivors. The source finds a flat optimum from 0.4 to 0.8.",
    source="Srivastava et al. 2014, figure 9",
    settings={"optimizer": "adam", "lr": 1e-3, "method": "dropout", "input_p": 0.2},
    systems=[
        *(
            System(label=f"{FIXED}, keep {k:g}", settings={"p": round(1 - k, 3), "hidden": (2048,) * 3},
                   line=FIXED, x=k)
            for k in KEEP
        ),
        *(
            System(label=f"{SAME}, keep {k:g}",
                   settings={"p": round(1 - k, 3), "hidden": tuple(round(n / k) for n in SURVIVORS)},
                   line=SAME, x=k)
            for k in KEEP
        ),
    ],
    budgets={
        "smoke": Budget(
            text="8 × 8 digits, a 64th of the units", data="digits", width=1 / 64, settings={"epochs": 5}
        ),
        "quick": Budget(
            text="5,000 digits, a quarter of the units, 120 epochs, 1 seed", limit=5_000, width=1 / 4,
            settings={"epochs": 120},
        ),
        "paper": Budget(text="all digits and units, 100 epochs, 3 seeds", seeds=3, settings={"epochs": 100}),
    },
    differs=["The source prints curves, no figures. Adam, rate 0.001 falling linearly to 0; inputs are "
    "kept with 0.8."],
    baseline="",
    axis=Axis(name="probability of keeping a unit", log_y=True),
    headline=headline,
    curves=False,
).experiment()  # fmt: skip
