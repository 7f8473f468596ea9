"""`mnist-data-size`: the gain from dropout with few and with many training examples."""

from __future__ import annotations

from thinned.lab.grids.grid import Axis, Budget, Grid, Group, System, against, errors

SIZES = (100, 500, 1_000, 5_000, 10_000, 50_000)
NAMES = {"none": "standard", "dropout": "dropout"}


def headline(groups: Group) -> str:
    """By how much dropout lowers the test error at each size, in points and in relative terms."""
    stats = errors(groups)
    pairs = [(f"{n:,}", f"dropout, {n:,}", f"standard, {n:,}") for n in SIZES]
    both = [(stats[a].mean, stats[b].mean) for _, a, b in pairs if {a, b} <= stats.keys()]
    if not both:
        return ""
    shares = ", ".join(f"{100 * (1 - ours / theirs):.0f} %" for ours, theirs in both if theirs)
    return (
        f"Points by which dropout lowers the test error: {against(stats, pairs)} training examples; "
        f"in relative terms {shares}."
    )


EXPERIMENT = Grid(
    name="mnist-data-size",
    place=20,
    title="Dropout with few and many training examples",
    summary="The same network on parts of MNIST, with and without dropout. The source finds no gain with "
    "100 and 500 examples, then a gain that grows and shrinks again.",
    source="Srivastava et al. 2014, figure 10",
    settings={"hidden": (1024, 1024, 2048), "optimizer": "adam", "lr": 1e-3, "p": 0.5, "input_p": 0.2},
    systems=[
        System(label=f"{name}, {n:,}", settings={"method": method}, examples=n, line=name, x=n)
        for n in SIZES
        for method, name in NAMES.items()
    ],
    budgets={
        "smoke": Budget(
            text="8 × 8 digits, up to 1,000 of them, a 32nd of the units", data="digits", width=1 / 32,
            settings={"epochs": 15},
        ),
        "quick": Budget(
            text="up to 50,000 examples, half of the units, 5,000 updates or 40 epochs, 2 seeds",
            limit=50_000, width=1 / 2, seeds=2, steps=5_000, settings={"epochs": 40},
        ),
        "paper": Budget(
            text="up to 50,000 examples, all units, 5 seeds", limit=50_000, seeds=5, steps=10_000,
            settings={"epochs": 60},
        ),
    },
    differs=[
        "The source prints a curve, no figures. The training examples are chosen once, and a smaller set is "
        "a part of a larger one.",
        "Adam, rate 0.001 falling linearly to 0. A minimum number of updates applies when there are few "
        "examples.",
        "Units and updates of the quick budget were chosen on held-out training digits. The test errors of "
        "two earlier runs had been seen before: one with fewer units and updates, where dropout was worse "
        "from 5,000 examples on, and one with 2,500 updates or 20 epochs, where it was worse at 10,000 and "
        "50,000.",
    ],
    baseline="",
    axis=Axis(name="training examples", log=True, log_y=True),
    headline=headline,
    curves=False,
).experiment()  # fmt: skip
