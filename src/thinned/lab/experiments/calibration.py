"""`calibration`: predicted probabilities against how often they are right, for three ways of predicting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from thinned import Key, uncertainty
from thinned.lab.grids.grid import Budget, Grid, GridTrainer, Group, System
from thinned.lab.reporting.figures import Point, lines
from thinned.lab.reporting.page import Figure, Reference
from thinned.lab.reporting.summary import Stat
from thinned.lab.reporting.wording import number, stat_text
from thinned.lab.storage.run import Stored

SAMPLES, BINS = 100, 10  # bins of the pictures
FEW = 20  # a bin with fewer predictions, over all seeds, is not drawn
MONTE_CARLO, SCALED, MOMENTS = "Monte-Carlo", "weight scaling", "moments"
WAYS = (SCALED, MONTE_CARLO, MOMENTS)
COLUMNS = {  # heading: score, factor, decimals
    "calibration error, %": ("calibration", 100, 2),
    "with bins of equal count, %": ("adaptive", 100, 2),
    "confidence − accuracy, points": ("overconfidence", 100, 2),
    "log loss": ("log_loss", 1, 4),
    "Brier score": ("brier", 1, 4),
    "error, %": ("error", 100, 2),
}


class Calibration(GridTrainer):
    """After training, scores the probabilities that each way of predicting gives for the test data."""

    def measure(self) -> dict[str, Any]:
        """Way -> its scores, and its reliability diagram as sums over the predictions in a bin."""
        x, y, key = self.data.x_test, self.data.y_test, Key(self.config.seed).fold_in("sample")
        sampled = uncertainty.predict(self.net, x, SAMPLES, key=key, quantiles=(), progress=False)
        found = {
            SCALED: uncertainty.weight_scaling(self.net, x),
            MONTE_CARLO: sampled.mean,
            MOMENTS: uncertainty.moments(self.net, x, quantiles=()).mean,
        }
        return {way: asdict(uncertainty.scores(p, y)) | diagram(p, y) for way, p in found.items()}


def diagram(p: np.ndarray, y: np.ndarray) -> dict[str, list[float]]:
    """For each bin: the number of predictions, the sum of their confidences, and the number of right ones."""
    bins = uncertainty.reliability(p, y, BINS)
    sure, right = (np.nan_to_num(mean) * bins.count for mean in (bins.confidence, bins.accuracy))
    return {"count": bins.count.tolist(), "sure": sure.tolist(), "right": right.tolist()}


def score(runs: Sequence[Stored], way: str, name: str) -> np.ndarray:
    """A score of each finished seed."""
    return np.array([run.measured[way][name] for run in runs if run.status == "done"])


def headline(groups: Group) -> str:
    """Monte-Carlo against weight scaling, and whether weight scaling is overconfident."""
    found = []
    for name, runs in groups.items():
        one, other = (100 * score(runs, way, "calibration") for way in (MONTE_CARLO, SCALED))
        if not len(one):
            continue
        excess = float(score(runs, SCALED, "overconfidence").mean())
        found.append(
            f"{name}: {number(one.mean())} % against {number(other.mean())} %, seed by seed "
            f"{stat_text(Stat.of(list(one - other)))} points, where weight scaling is "
            f"{'overconfident' if excess > 0 else 'underconfident'}"
        )
    return f"Calibration error of Monte-Carlo against weight scaling. {'; '.join(found)}." if found else ""


def tables(groups: Group) -> list[Reference]:
    """The scores of each way of predicting."""
    rows = []
    for name, runs in groups.items():
        if not len(score(runs, SCALED, "error")):
            continue
        for way in WAYS:
            cells = []
            for field, factor, digits in COLUMNS.values():
                stat = Stat.of(list(factor * score(runs, way, field)))
                spread = f" ± {stat.sd:.{digits}f}" if stat.n > 1 else ""
                cells.append(f"{stat.mean:.{digits}f}{spread}".replace("-", "−"))
            rows.append([name, way, *cells])
    caption = (
        f"{SAMPLES} samples; 15 bins. Confidence − accuracy is above 0 for overconfident predictions and "
        "below 0 for underconfident ones. Averaging over samples changes the confidence more than the "
        "accuracy."
    )
    return [Reference(["trained on", "prediction", *COLUMNS], rows, caption)]


def figures(groups: Group) -> list[Figure]:
    """A reliability diagram for each network, from the predictions of all seeds."""
    found = []
    for name, runs in groups.items():
        if not len(score(runs, SCALED, "error")):
            continue
        curves = {"calibrated": [Point(at, at) for at in (1 / BINS, 1.0)]}
        for way in WAYS:
            count, sure, right = (score(runs, way, of).sum(axis=0) for of in ("count", "sure", "right"))
            drawn = np.flatnonzero(count >= FEW)
            curves[way] = [Point(sure[i] / count[i], right[i] / count[i]) for i in drawn]
        caption = f"{BINS} bins of equal width; those with fewer than {FEW} predictions are not drawn."
        title = f"{name}: below the line is overconfident"
        found.append(lines(title, "confidence", "accuracy", curves, caption=caption))
    return found


def systems() -> list[System]:
    """Each data set, after short and after full training."""
    found = [System(label="8 × 8 digits", data="digits", budgets=("smoke",), trainer=Calibration)]
    for name, data in (("MNIST", "mnist"), ("CIFAR-10", "cifar10")):
        common: dict[str, Any] = {"data": data, "budgets": ("quick", "paper"), "trainer": Calibration}
        found.append(System(label=f"{name}, 5 epochs", settings={"epochs": 5}, **common))
        found.append(System(label=f"{name}, to the end", **common))
    return found


EXPERIMENT = Grid(
    name="calibration",
    place=130,
    title="Do probabilities mean what they say?",
    summary="Test images are predicted by the mean of sampled thinned networks, by moments, and by scaled "
    "weights, after short and after long training. Are predictions with a probability of 80 % right in 80 % "
    "of cases?",
    source="Gal and Ghahramani 2016, arXiv:1506.02142; Guo et al. 2017, arXiv:1706.04599",
    settings={"hidden": (1024, 1024), "optimizer": "adam", "lr": 1e-3, "method": "dropout", "p": 0.5},
    systems=systems(),
    budgets={
        "smoke": Budget(
            text="8 × 8 digits, a 32nd of the units, 15 epochs", data="digits", width=1 / 32,
            settings={"epochs": 15},
        ),
        "quick": Budget(
            text="10,000 images each, half of the units, 50 epochs, 3 seeds", limit=10_000, width=1 / 2,
            seeds=3, settings={"epochs": 50},
        ),
        "paper": Budget(text="all images and units, 200 epochs, 5 seeds", seeds=5, settings={"epochs": 200}),
    },
    differs=["The sources print no such table. Adam, rate 0.001 falling linearly to 0."],
    headline=headline,
    tables=tables,
    figures=figures,
).experiment()  # fmt: skip
