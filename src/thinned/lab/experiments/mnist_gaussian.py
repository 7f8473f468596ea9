"""`mnist-gaussian`: Gaussian noise instead of dropping."""

from __future__ import annotations

from thinned.lab.grids.grid import Budget, Grid, System

EXPERIMENT = Grid(
    name="mnist-gaussian",
    place=50,
    title="Gaussian noise instead of dropping",
    summary="Hidden units are dropped with p = 0.5, or multiplied by N(1, p/(1 − p)), which has the same "
    "mean and variance. The source finds the noise equally good.",
    source="Srivastava et al. 2014, section 10",
    settings={"hidden": (1024, 1024), "optimizer": "adam", "lr": 1e-3, "p": 0.5, "input_p": 0.2},
    systems=[
        System(label="standard", settings={"method": "none"}),
        System(label="dropout", settings={"method": "dropout"}),
        System(label="Gaussian noise", settings={"method": "gaussian"}),
    ],
    budgets={
        "smoke": Budget(
            text="8 × 8 digits, a 16th of the units", data="digits", width=1 / 16, settings={"epochs": 15}
        ),
        "quick": Budget(
            text="10,000 digits, half of the units, 40 epochs, 3 seeds", limit=10_000, width=1 / 2,
            seeds=3, settings={"epochs": 40},
        ),
        "paper": Budget(text="all digits and units, 100 epochs, 5 seeds", seeds=5, settings={"epochs": 100}),
    },
    differs=["Inputs get the same treatment with p = 0.2. Adam, rate 0.001 falling linearly to 0."],
    baseline="standard",
).experiment()  # fmt: skip
