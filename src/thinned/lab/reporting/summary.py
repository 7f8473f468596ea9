"""The figures of a row over its seeds: mean and standard deviation of errors, gap and time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from thinned.lab.reporting.from_runs import Row
from thinned.lab.reporting.measure import ERROR, Measure

BASELINE = "none"


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (n - 1) of n figures; NaN where there are too few."""

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Stat:
        """The mean and standard deviation of these figures."""
        n = len(values)
        return cls(
            float(np.mean(values)) if n else math.nan, float(np.std(values, ddof=1)) if n > 1 else math.nan, n
        )

    def text(self, measure: Measure = ERROR) -> str:
        """`1.42 ± 0.05`, without ± for one seed."""
        return measure.text(self.mean) + (f" ± {measure.text(self.sd)}" if math.isfinite(self.sd) else "")


@dataclass(frozen=True)
class Summary:
    """The figures of a row over its finished seeds, as `measure` shows them; time in seconds per epoch."""

    label: str
    test: Stat
    train: Stat
    gap: Stat
    seconds: Stat
    parameters: int
    seeds: int
    tests: list[float]
    trains: list[float]
    lost: dict[str, int] = field(default_factory=dict)  # "diverged": 2
    measure: Measure = ERROR

    def stat(self, stat: Stat) -> str:
        """`1.42 ± 0.05`, without ± for one seed."""
        return stat.text(self.measure)

    @property
    def finished(self) -> bool:
        """Whether at least one seed ended with an error to show."""
        return self.test.n > 0

    @property
    def note(self) -> str:
        """The seeds that did not finish: "diverged", "1 of 5 seeds diverged", or nothing."""
        if not self.finished and len(self.lost) == 1:
            return next(iter(self.lost))
        return ", ".join(f"{n} of {self.seeds} seeds {state}" for state, n in self.lost.items())


def summarise(row: Row) -> Summary:
    """The figures of a row; a seed counts if it is done and its test error is finite."""
    status = list(row.status) or ["done"] * len(row.test_error)
    ended = [s == "done" and math.isfinite(e) for s, e in zip(status, row.test_error, strict=True)]
    factor = row.measure.factor
    tests = [factor * e for e, ok in zip(row.test_error, ended, strict=True) if ok]
    trains = [factor * e for e, ok in zip(row.train_error, ended, strict=True) if ok]
    lost = Counter("diverged" if s == "done" else s for s, ok in zip(status, ended, strict=True) if not ok)
    return Summary(
        label=row.label,
        test=Stat.of(tests),
        train=Stat.of(trains),
        gap=Stat.of([a - b for a, b in zip(tests, trains, strict=True)]),
        seconds=Stat.of([s for s in row.seconds_per_epoch if math.isfinite(s)]),
        parameters=row.parameters,
        seeds=len(row.test_error),
        tests=tests,
        trains=trains,
        lost=dict(lost),
        measure=row.measure,
    )


def best(values: Sequence[float], shown: Sequence[str]) -> list[bool]:
    """Which entries have the lowest finite value, or the same text; none if there are fewer than two."""
    finite = [i for i, v in enumerate(values) if math.isfinite(v)]
    if len(finite) < 2:
        return [False] * len(values)
    low = shown[min(finite, key=lambda i: values[i])]
    return [i in finite and shown[i] == low for i in range(len(values))]


def styles(labels: Sequence[str], baseline: str) -> dict[str, int]:
    """A style number for each label, the same in every picture: 0 for the baseline, 1, 2, … for others."""
    others = [label for label in labels if label != baseline]
    return {label: 0 if label == baseline else 1 + others.index(label) for label in labels}
