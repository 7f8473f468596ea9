"""What a comparison says: figures a method over its seeds, the one-sentence finding, the terminal's table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

STATES = ("done", "diverged", "failed", "stopped")
BASELINE = "none"


@dataclass(frozen=True)
class Row:
    """One method's runs, one entry a seed.

    Args:
        label: the method's name.
        test_error: shares 0…1; NaN where a run has none.
        train_error: the same, as many.
        seconds_per_epoch: seconds, any number of entries.
        parameters: trainable numbers in the network.
        status: "done", "diverged", "failed" or "stopped" for each seed; empty if all are done.

    Raises:
        ValueError: lengths differ, or an unknown status.
    """

    label: str
    test_error: Sequence[float]
    train_error: Sequence[float]
    seconds_per_epoch: Sequence[float]
    parameters: int
    status: Sequence[str] = ()

    def __post_init__(self) -> None:
        n = len(self.test_error)
        if len(self.train_error) != n or len(self.status) not in (0, n):
            came = f"{n}, {len(self.train_error)} and {len(self.status)}"
            raise ValueError(
                f"row {self.label!r}: expected as many test errors, training errors and states, got {came}"
            )
        for state in self.status:
            if state not in STATES:
                raise ValueError(f"status: expected one of {', '.join(STATES)}, got {state!r}")


@dataclass(frozen=True)
class Stat:
    """Mean and sample standard deviation (n - 1) of n figures; NaN where there are too few."""

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Stat:
        """The figures' Stat."""
        n = len(values)
        return cls(
            float(np.mean(values)) if n else math.nan, float(np.std(values, ddof=1)) if n > 1 else math.nan, n
        )


@dataclass(frozen=True)
class Summary:
    """One row's figures over the seeds that finished: errors and gap in %, time in seconds an epoch."""

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

    @property
    def finished(self) -> bool:
        """Whether at least one seed ended with an error to show."""
        return self.test.n > 0

    @property
    def note(self) -> str:
        """What befell the seeds that did not finish: "diverged", "1 of 5 seeds diverged", or nothing."""
        if not self.finished and len(self.lost) == 1:
            return next(iter(self.lost))
        return ", ".join(f"{n} of {self.seeds} seeds {state}" for state, n in self.lost.items())


def summarise(row: Row) -> Summary:
    """The row's figures; a seed counts where it is done and its errors are finite."""
    status = list(row.status) or ["done"] * len(row.test_error)
    ended = [s == "done" and math.isfinite(e) for s, e in zip(status, row.test_error, strict=True)]
    tests = [100 * e for e, ok in zip(row.test_error, ended, strict=True) if ok]
    trains = [100 * e for e, ok in zip(row.train_error, ended, strict=True) if ok]
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
    )


# --- numbers as text ----------------------------------------------------------------------------------------


def plural(n: int, word: str) -> str:
    """`1 seed`, `5 seeds`."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def seconds_text(value: float) -> str:
    """Seconds with three digits: 0.0123, 1.23, 123; "–" for none."""
    if not math.isfinite(value):
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if value >= 1e-4 else f"{value:.1e}"


def number(value: float) -> str:
    """A figure in % or points with two decimals, a true minus, "–" for none."""
    return f"{value + 0.0:.2f}".replace("-", "−") if math.isfinite(value) else "–"


def stat_text(stat: Stat) -> str:
    """`1.42 ± 0.05`, without ± for one seed."""
    return number(stat.mean) + (f" ± {number(stat.sd)}" if math.isfinite(stat.sd) else "")


def _shown(a: Stat, b: Stat) -> float:
    """`a` less `b` as a reader of the rounded figures would reckon it."""
    return round(round(a.mean, 2) - round(b.mean, 2), 2)


def _points(value: float) -> str:
    return f"{number(value)} points" if value >= 0.005 else "less than 0.01 points"


def best(values: Sequence[float], shown: Sequence[str]) -> list[bool]:
    """Which entries are the lowest finite value, or look the same; none where there is nothing to compare."""
    finite = [i for i, v in enumerate(values) if math.isfinite(v)]
    if len(finite) < 2:
        return [False] * len(values)
    low = shown[min(finite, key=lambda i: values[i])]
    return [i in finite and shown[i] == low for i in range(len(values))]


# --- the finding --------------------------------------------------------------------------------------------


def finding(rows: Sequence[Row], baseline: str = BASELINE) -> str:
    """One sentence: which row has the lowest test error, against `baseline`, and whether it beats the spread.

    The spread is the larger of the two rows' standard deviations over seeds. Runs that did not finish do
    not count, and are named.
    """
    every = [summarise(row) for row in rows]
    ended = [s for s in every if s.finished]
    lost = [s for s in every if s.note]
    if not every:
        return "There are no runs to compare."
    if not ended:
        return "No run finished: " + ", ".join(f"{s.label} {s.note}" for s in lost) + "."
    base = next((s for s in ended if s.label == baseline), None)
    others = [s for s in ended if s is not base]
    if not others or len(ended) == 1:
        only = ended[0]
        text = f"{only.label} has a test error of {stat_text(only.test)} %, with nothing to compare it with"
    else:
        first = min(others, key=lambda s: s.test.mean)
        if base is None:
            second = min((s for s in others if s is not first), key=lambda s: s.test.mean)
            text = _lower(first, second, ", the next best")
        elif first.test.mean < base.test.mean:
            text = _lower(first, base)
        else:
            text = _not_lower(first, base)
    tail = "; not counted: " + ", ".join(f"{s.label} ({s.note})" for s in lost) if lost else ""
    return text + tail + "."


def _lower(a: Summary, b: Summary, which: str = "") -> str:
    """`a` has the lowest error, against `b`."""
    difference = b.test.mean - a.test.mean
    if difference == 0:
        return f"{a.label} and {b.label} share the lowest test error, {number(a.test.mean)} %"
    share = 100 * difference / b.test.mean
    relative = f"{share:.0f} %" if share >= 1 else "less than 1 %"
    return (
        f"{a.label} has the lowest test error: {number(a.test.mean)} % against {number(b.test.mean)} % for "
        f"{b.label}{which}, which is {_points(_shown(b.test, a.test))} or, in relative terms, {relative} "
        f"lower; {_against_spread(a, b, difference)}"
    )


def _not_lower(a: Summary, base: Summary) -> str:
    """Nothing is better than the baseline; `a` comes closest."""
    difference = a.test.mean - base.test.mean
    start = f"No method has a lower test error than {base.label}, {number(base.test.mean)} %"
    if difference == 0:
        return f"{start}: {a.label} has the same"
    share = 100 * difference / base.test.mean if base.test.mean > 0 else math.inf
    relative = f" or, in relative terms, {share:.0f} %" if 1 <= share < math.inf else ""
    return (
        f"{start}: {a.label} comes closest with {number(a.test.mean)} %, {_points(_shown(a.test, base.test))}"
        f"{relative} higher; {_against_spread(a, base, difference)}"
    )


def _against_spread(a: Summary, b: Summary, difference: float) -> str:
    sds = [s.test.sd for s in (a, b) if math.isfinite(s.test.sd)]
    if not sds:
        return "with one seed each, whether this is chance cannot be told"
    most = f"up to {number(max(sds))}" if max(sds) >= 0.005 else "under 0.01"
    spread = f"the spread over seeds (standard deviation {most} points)"
    if difference > max(sds):
        return f"the difference is larger than {spread}"
    return f"the difference is not larger than {spread}, so it may be chance"


def gap_finding(rows: Sequence[Row], baseline: str = BASELINE) -> str:
    """One sentence on the gap between training and test error: the smallest, and the baseline's; or ""."""
    ended = [s for s in map(summarise, rows) if s.finished and math.isfinite(s.gap.mean)]
    if len(ended) < 2:
        return ""
    low, high = (f(ended, key=lambda s: abs(s.gap.mean)) for f in (min, max))
    other = next((s for s in ended if s.label == baseline and s is not low), high)
    if number(low.gap.mean) == number(other.gap.mean):
        return ""
    sds = [s.gap.sd for s in (low, other) if math.isfinite(s.gap.sd)]
    within = (
        ", within the spread over seeds"
        if sds and abs(other.gap.mean) - abs(low.gap.mean) <= max(sds)
        else ""
    )
    return (
        f"The gap between training and test error is smallest for {low.label}: {number(low.gap.mean)} points "
        f"against {number(other.gap.mean)} for {other.label}{within}."
    )


# --- the table in the terminal ------------------------------------------------------------------------------


def seeds_text(summaries: Sequence[Summary]) -> str:
    """`mean ± s.d., 5 seeds`, `1 seed`, or with the smallest and largest number where rows differ."""
    counts = sorted({s.seeds for s in summaries}) or [0]
    seeds = plural(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    return f"mean ± s.d., {seeds}" if any(s.test.n > 1 for s in summaries) else seeds


def table_text(rows: Sequence[Row]) -> Table:
    """The report's table for the terminal: best figures bold, runs that did not finish named."""
    every = [summarise(row) for row in rows]
    caption = f"errors in %, {seeds_text(every)}; gap in points"
    table = Table(caption=caption, caption_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("\nmethod", overflow="fold")
    for head in ("test\nerror", "training\nerror", "\ngap", "seconds\nan epoch", "\nparameters"):
        table.add_column(head, justify="right", no_wrap=True)
    columns = [
        [stat_text(s.test) for s in every],
        [stat_text(s.train) for s in every],
        [number(s.gap.mean) for s in every],
        [seconds_text(s.seconds.mean) for s in every],
    ]
    bold = [
        best([s.test.mean for s in every], [number(s.test.mean) for s in every]),
        [False] * len(every),
        best([abs(s.gap.mean) for s in every], columns[2]),
        best([s.seconds.mean for s in every], columns[3]),
    ]
    for i, s in enumerate(every):
        cells = [
            Text(column[i], style="bold" if b[i] else "") for column, b in zip(columns, bold, strict=True)
        ]
        name = Text(s.label)
        if s.note:
            name.append(f"\n{s.note}", style="red")
        table.add_row(name, *cells, Text(f"{s.parameters:,}"))
    return table
