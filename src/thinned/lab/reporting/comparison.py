"""A comparison from its runs' predictions: the verdict, and figures of merit."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinned.lab.reporting.evidence import Evidence
from thinned.lab.reporting.from_runs import Row, groups
from thinned.lab.reporting.paired import differences
from thinned.lab.reporting.scores import losses, scores
from thinned.lab.reporting.summary import BASELINE, Summary, summarise
from thinned.lab.reporting.verdict import Rate, Verdict
from thinned.lab.storage.run import Stored, predictions

UNBALANCED = 0.8  # a larger share of one class is named
Kept = Mapping[str, Mapping[int, tuple[np.ndarray, np.ndarray]]]  # label -> seed -> (outputs, labels)


@dataclass(frozen=True)
class Comparison:
    """What the predictions of a comparison's runs show.

    Attributes:
        kept: the outputs and labels of each run that has them.
        rows: label -> its figures.
        evidence: what is known of the test data.
        verdict: None where there is nothing to compare.
    """

    kept: Kept
    rows: Mapping[str, Summary]
    evidence: Evidence
    verdict: Verdict | None

    def parts(self) -> dict[str, Any]:
        """The arguments of `Page` that come from predictions."""
        found = [self.verdict.headline(), self.verdict.others()] if self.verdict else []
        found += [self.beside()] if found else []
        return {
            "found": [text for text in found if text],
            "next": self.verdict.next() if self.verdict else "",
            "files": {"runs.csv": self.table()},
            "differences": self.verdict.found if self.verdict else (),
            "scores": self.scores(),
        }

    def beside(self) -> str:
        """Whether a simple predictor is as good as every network, and whether classes are unbalanced."""
        if not self.kept:
            return ""
        each = self.scores()
        name = next(iter(each[self.best]))
        measure = self.rows[self.best].measure
        simple = {one: each[one][name][0] for one in self.evidence.baselines}
        low = min(simple, key=lambda one: simple[one], default="")
        text = ""
        if low and simple[low] <= min(float(np.mean(each[label][name])) for label in self.kept):
            value = measure.with_unit(measure.factor * simple[low])
            text = f"A simple predictor is as good or better: {low} has a {measure.of} {name} of {value}. "
        return (text + self._unbalanced(each)).strip()

    def _unbalanced(self, each: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
        classes = self.evidence.classes
        labels = self.pooled(self.best)[1]
        shares = np.bincount(labels, minlength=len(classes)) / len(labels) if classes else np.zeros(1)
        if shares.max() <= UNBALANCED:
            return ""
        measure = self.rows[self.best].measure
        figure = float(np.mean(each[self.best]["balanced accuracy"]))
        return (
            f"{100 * shares.max():.0f} % of the {measure.of} {self.evidence.what} are "
            f"{classes[int(shares.argmax())]!r}, so the error says little: the balanced accuracy of "
            f"{self.best} is {figure:.2f}, where a guess gets {1 / len(shares):.2f}."
        )

    @property
    def best(self) -> str:
        """The row with the lowest error, of those whose predictions were kept."""
        return min(self.kept, key=lambda label: self.rows[label].test.mean)

    def pooled(self, label: str) -> tuple[np.ndarray, np.ndarray]:
        """(outputs, labels) of all seeds of a row, one after the other."""
        pairs = list(self.kept[label].values())
        return np.concatenate([one for one, _ in pairs]), np.concatenate([one for _, one in pairs])

    def table(self) -> str:
        """All figures of merit as comma-separated text: a line a run, and the simple predictors."""
        text = io.StringIO()
        each = self.scores()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["method", "seed", *next(iter(each.values()), {})])
        for label, found in each.items():
            seeds = list(self.kept[label]) if label in self.kept else [""]
            rows = zip(*found.values(), strict=True)
            writer.writerows([label, seed, *row] for seed, row in zip(seeds, rows, strict=True))
        return text.getvalue()

    def scores(self) -> dict[str, dict[str, list[float]]]:
        """Row, or simple predictor -> figures of merit, a list over seeds."""
        pairs = {label: list(runs.values()) for label, runs in self.kept.items()}
        if len(self.evidence.labels):
            labels = self.evidence.labels
            pairs |= {name: [(values, labels)] for name, values in self.evidence.baselines.items()}
        each = {label: [scores(*pair) for pair in found] for label, found in pairs.items()}
        return {
            label: {name: [one[name] for one in found] for name in found[0]} for label, found in each.items()
        }


def comparison(
    rows: Sequence[Row],
    stored: Sequence[Stored],
    evidence: Evidence | None,
    tried: Mapping[str, Sequence[float]] = {},
) -> Comparison | None:
    """The comparison of these runs; None where no predictions were kept.

    Args:
        rows: of the runs.
        stored: the runs.
        evidence: what is known of the test data.
        tried: method -> the rates that it was tuned over.
    """
    if evidence is None:
        return None
    kept: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for label, runs in groups(stored).items():
        arrays = {run.config["seed"]: predictions(run.folder) for run in runs if run.status == "done"}
        found = {seed: (one["outputs"], one["labels"]) for seed, one in arrays.items() if one is not None}
        if found:
            kept[label] = found
    summaries = {row.label: summarise(row) for row in rows}
    held_out = 0.0 if len(evidence.labels) else float(stored[0].config["validation"])
    verdict = _verdict(kept, summaries, evidence, _rates(stored, tried), held_out)
    return Comparison(kept, summaries, evidence, verdict)


def _rates(stored: Sequence[Stored], tried: Mapping[str, Sequence[float]]) -> dict[str, Rate]:
    """The rate of each row, between the smallest and the largest that its method was tried with."""
    each = {label: runs[0].config for label, runs in groups(stored).items()}
    found = {}
    for label, config in each.items():
        name, own = config["method"], float(config["p"])
        mine = [float(other["p"]) for other in each.values() if other["method"] == name]
        mine += tried.get(name, ())
        found[label] = Rate(own, min(mine), max(mine))
    return found


def _verdict(
    kept: Kept, rows: Mapping[str, Summary], evidence: Evidence, rates: Mapping[str, Rate], held_out: float
) -> Verdict | None:
    if len(kept) < 2:
        return None
    other = BASELINE if BASELINE in kept else next(iter(kept))
    lost = {label: {seed: losses(*pair) for seed, pair in runs.items()} for label, runs in kept.items()}
    counts = bool(evidence.classes)
    found = differences(lost, other, counts=counts, held_out=held_out)
    return Verdict(found, other, rows, evidence.what, counts, rates) if found else None
