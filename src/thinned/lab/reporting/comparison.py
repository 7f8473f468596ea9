"""A comparison from its runs' predictions: the verdict, the figures of merit, and what is shown of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinned.lab.reporting.evidence import Evidence
from thinned.lab.reporting.from_runs import Row, groups
from thinned.lab.reporting.measure import ERROR, Measure
from thinned.lab.reporting.page import Reference, Section
from thinned.lab.reporting.paired import differences
from thinned.lab.reporting.scores import losses, scores
from thinned.lab.reporting.summary import BASELINE, Stat, Summary, summarise
from thinned.lab.reporting.verdict import Verdict
from thinned.lab.storage.run import Stored, predictions

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
        return {
            "found": [text for text in found if text],
            "next": self.verdict.next() if self.verdict else "",
            "sections": self.sections(),
            "differences": self.verdict.found if self.verdict else (),
            "scores": self.scores(),
        }

    def sections(self) -> list[Section]:
        """The sections of a report, in order."""
        made = [self.differences(), self.merits()]
        return [one for one in made if one is not None]

    def differences(self) -> Section | None:
        """Every difference with its interval, and whether it can be told."""
        v = self.verdict
        if v is None:
            return None
        unit = v.what if v.counts else next(iter(self.rows.values())).measure.name
        lines = []
        for one in v.found:
            answer = "yes" if one.told else "no"
            lines.append(
                [one.label, v.amount(one, one.mean), v.interval(one), _p(one.p), _p(one.corrected), answer]
            )
        head = ["method", f"difference, {unit}", "95 % interval", "p", "p, corrected", "can be told"]
        return Section(
            f"Difference from {v.other}",
            tables=[Reference(head, lines)],
            text=_how(v),
        )

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

    def merits(self) -> Section | None:
        """All figures of merit, a row a method, and the simple predictors."""
        each = self.scores()
        names = list(next(iter(each.values()))) if each else []
        if not names:
            return None
        measures = {name: self._measure_of(name) for name in names}
        lines = [
            [label, *(_stat(measures[name], found[name]) for name in names)] for label, found in each.items()
        ]
        head = ["method", *(measures[name].axis for name in names)]
        return Section("Beside simple predictors", tables=[Reference(head, lines, MERITS)])

    def _measure_of(self, name: str) -> Measure:
        if name == "error":
            return ERROR
        if name in ("RMSE", "MAE"):
            return Measure(name, "", "", 1.0, next(iter(self.rows.values())).measure.decimals)
        return Measure(name, "", "", 1.0, 3)


MERITS = (
    "Balanced accuracy is the mean share of right answers over the classes; a guess gets 1/classes. The log "
    "loss is low where probabilities are right. AUC and R² are 1 at best; R² is 0 for the mean of the labels."
)


def comparison(rows: Sequence[Row], stored: Sequence[Stored], evidence: Evidence | None) -> Comparison | None:
    """The comparison of these runs; None where no predictions were kept."""
    if evidence is None:
        return None
    kept: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for label, runs in groups(stored).items():
        arrays = {run.config["seed"]: predictions(run.folder) for run in runs if run.status == "done"}
        found = {seed: (one["outputs"], one["labels"]) for seed, one in arrays.items() if one is not None}
        if found:
            kept[label] = found
    summaries = {row.label: summarise(row) for row in rows}
    return Comparison(kept, summaries, evidence, _verdict(kept, summaries, evidence))


def _verdict(kept: Kept, rows: Mapping[str, Summary], evidence: Evidence) -> Verdict | None:
    if len(kept) < 2:
        return None
    other = BASELINE if BASELINE in kept else next(iter(kept))
    lost = {label: {seed: losses(*pair) for seed, pair in runs.items()} for label, runs in kept.items()}
    counts = bool(evidence.classes)
    found = differences(lost, other, counts=counts, crossed=len(evidence.labels) > 0)
    return Verdict(found, other, rows, evidence.what, counts) if found else None


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _stat(measure: Measure, values: Sequence[float]) -> str:
    stat = Stat.of([measure.factor * value for value in values])
    return measure.text(stat.mean) + (f" ± {measure.text(stat.sd)}" if len(values) > 1 else "")


def _how(v: Verdict) -> str:
    """How the differences were judged."""
    seeds = v.found[0].seeds
    many = len(v.found) > 1
    level = f" for all {len(v.found)} comparisons together" if many else ""
    if seeds == 1:
        test = "McNemar's exact test" if v.counts else "a paired t-test"
        text = (
            f"All methods saw the same test {v.what}. p is of {test}; one seed each tells nothing for sure."
        )
    else:
        agree = "; for p, the exact test of flipped signs must agree" if v.counts else ""
        text = (
            f"All methods saw the same {v.found[0].examples:,} test {v.what} with the same {seeds} seeds. "
            f"Both vary the difference, and both are in its interval (two-way random effects){agree}."
        )
    below = "Below 0: fewer errors" if v.counts else "Below 0: a lower error"
    corrected = " p is corrected by Holm." if many else ""
    return f"{below} than {v.other}. {text} Intervals hold with 95 %{level}.{corrected}"
