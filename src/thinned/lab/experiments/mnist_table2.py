"""`mnist-table2`: the paper's table of methods on MNIST."""

from __future__ import annotations

from typing import Any

from thinned.lab.grids.computation import Svm
from thinned.lab.grids.grid import Budget, Grid, System
from thinned.lab.grids.pretrained import Pretrained, PretrainedConfig


def relu(label: str, theirs: float | None, hidden: tuple[int, ...], **more: Any) -> System:
    """A row: a network of ReLU units."""
    return System(label=label, theirs=theirs, settings={"hidden": hidden, **more})


def thin(label: str, **more: Any) -> System:
    """A row: a network of ReLU units that computes only the survivors."""
    return System(label=label, settings={"hidden": THREE, "method": "thin", **more})


def pretrained(machine: str, how: str, theirs: float, **more: Any) -> System:
    """A row: a network that is pretrained as a Boltzmann machine."""
    return System(
        label=f"{machine} + {how}, 500-500-2000",
        theirs=theirs,
        settings={"activation": "sigmoid", "hidden": DEEP, "machine": machine.lower(), "log": 1, **more},
        trainer=Pretrained,
        config=PretrainedConfig,
    )


THREE, DEEP = (1024,) * 3, (500, 500, 2000)
PLAIN, DROPPED = {"method": "none", "lr": 1e-3}, {"lr": 5e-3}  # of finetuning
LOGISTIC = {"activation": "sigmoid", "lr": 2e-3}
MAXOUT = {"activation": "maxout", "max_norm": 2.0}
ONE_PICK = "all rows of a batch shared one pick, and there were 1.75 times as many epochs"

EXPERIMENT = Grid(
    name="mnist-table2",
    place=10,
    title="Dropout on MNIST: the table of methods",
    summary="Networks with and without dropout, and a support vector machine, on handwritten digits, one row "
    "per method. With dropout each network should make fewer errors, and with max-norm fewer still.",
    source="Srivastava et al. 2014, table 2",
    settings={"optimizer": "adam", "lr": 1e-3, "method": "dropout", "p": 0.5, "input_p": 0.2, "batch": 128},
    systems=[
        System(
            label="standard, logistic, 2 × 800",
            theirs=1.60,
            settings={**LOGISTIC, "method": "none", "hidden": (800, 800)},
        ),
        System(
            label="SVM, Gaussian kernel",
            theirs=1.40,
            settings={"method": "none", "hidden": (1,), "epochs": 1},
            trainer=Svm,
        ),
        System(label="dropout, logistic, 3 × 1024", theirs=1.35, settings={**LOGISTIC, "hidden": THREE}),
        relu("dropout, ReLU, 3 × 1024", 1.25, THREE),
        relu("dropout + max-norm, ReLU, 3 × 1024", 1.06, THREE, max_norm=2.0),
        relu("dropout + max-norm, ReLU, 3 × 2048", 1.04, (2048,) * 3, max_norm=2.0),
        relu("dropout + max-norm, ReLU, 2 × 4096", 1.01, (4096,) * 2, max_norm=2.0),
        relu("dropout + max-norm, ReLU, 2 × 8192", 0.95, (8192,) * 2, max_norm=2.0),
        System(
            label="dropout + max-norm, Maxout, 2 × (5 × 240)",
            theirs=0.94,
            settings={**MAXOUT, "hidden": (240, 240)},
        ),
        pretrained("DBN", "finetuning", 1.18, **PLAIN),
        pretrained("DBM", "finetuning", 0.96, **PLAIN),
        pretrained("DBN", "dropout finetuning", 0.92, **DROPPED),
        pretrained("DBM", "dropout finetuning", 0.79, **DROPPED),
        relu("ours: standard, ReLU, 3 × 1024", None, THREE, method="none"),
        thin("ours: thin in 16 groups, ReLU, 3 × 1024"),
        thin("ours: thin in 16 groups + max-norm, ReLU, 3 × 1024", max_norm=2.0),
    ],
    former={
        "ours: thin, ReLU, 3 × 1024": ONE_PICK,
        "ours: thin + max-norm, ReLU, 3 × 1024": ONE_PICK,
    },
    budgets={
        "smoke": Budget(
            text="8 × 8 digits, a 32nd of the units, 2 epochs", data="digits", width=1 / 32,
            settings={"epochs": 2},
        ),
        "quick": Budget(
            text="10,000 digits, half of the units, 40 epochs, 1 seed", limit=10_000, width=1 / 2,
            settings={"epochs": 40},
        ),
        "paper": Budget(
            text="all digits and units, 200 epochs, 3 seeds", seeds=3, settings={"epochs": 200}
        ),
    },
    differs=[
        "Adam, rate 0.001 (logistic units: 0.002) falling linearly to 0, in place of momentum and a large "
        "decaying rate. Adam and p = 0.2 for the inputs were chosen on 10,000 held-out digits; see the "
        "results page.",
        "C and γ of the support vector machine are chosen on 1,000 of 6,000 training digits; the source "
        "quotes its figure from elsewhere.",
        "Boltzmann machines learn without labels, in batches of 100, at a rate of 0.05 falling to 0, with "
        "momentum 0.9 and L2 0.0002. Each restricted machine is trained by CD-1 for half as many epochs as "
        "finetuning takes. The DBM is then trained as a whole for a quarter as many, at 0.0005, with 5 "
        "mean-field updates and 1 step of 100 persistent chains. Its network starts as the bottom-up pass "
        "with doubled weights; the machine's authors feed posteriors of the second layer to the network "
        "beside the image.",
        "Pretrained networks are finetuned at 0.001, with dropout at 0.005; both were chosen on held-out "
        "digits. Their weights are not divided by the keep rate: our dropout divides the activations that it "
        "keeps, so a unit's mean input is the pretrained one.",
        "Thin computes only the surviving units. The rows of a batch are in 16 groups, and each group picks "
        "its own half of the units. Epochs and all settings are those of the rows with dropout.",
    ],
    baseline="ours: standard, ReLU, 3 × 1024",
).experiment()  # fmt: skip
