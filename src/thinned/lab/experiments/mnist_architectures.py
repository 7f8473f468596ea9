"""`mnist-architectures`: dropout in networks of several depths and widths."""

from __future__ import annotations

from thinned.lab.grids.grid import Budget, Grid, Group, System, against, errors

SHAPES = [(layers, units) for units in (1024, 2048) for layers in (2, 3, 4)]


def headline(groups: Group) -> str:
    """By how much dropout lowers the test error of each shape."""
    stats = errors(groups)
    pairs = [(f"{n} × {u}", f"{n} × {u}, dropout", f"{n} × {u}, standard") for n, u in SHAPES]
    points = against(stats, pairs)
    return f"Points by which dropout lowers the test error: {points}." if points else ""


EXPERIMENT = Grid(
    name="mnist-architectures",
    place=40,
    title="Dropout in networks of several shapes",
    summary="Two to four hidden layers of 1024 or 2048 units, with and without dropout. The source finds "
    "that dropout wins by a wide margin in all, with the same settings.",
    source="Srivastava et al. 2014, figure 4",
    settings={"optimizer": "adam", "lr": 1e-3, "p": 0.5, "input_p": 0.2, "test_curve": True},
    systems=[
        System(label=f"{n} × {u}, {name}", settings={"hidden": (u,) * n, "method": method})
        for n, u in SHAPES
        for method, name in (("none", "standard"), ("dropout", "dropout"))
    ],
    budgets={
        "smoke": Budget(
            text="8 × 8 digits, a 64th of the units", data="digits", width=1 / 64, settings={"epochs": 5}
        ),
        "quick": Budget(
            text="5,000 digits, half of the units, 50 epochs, 1 seed", limit=5_000, width=1 / 2,
            settings={"epochs": 50},
        ),
        "paper": Budget(text="all digits and units, 150 epochs, 1 seed", settings={"epochs": 150}),
    },
    differs=[
        "The source prints curves over updates, no figures. So test errors are measured after each epoch "
        "here too; nothing is chosen by them. Adam, rate 0.001 falling linearly to 0.",
    ],
    baseline="",
    headline=headline,
).experiment()  # fmt: skip
