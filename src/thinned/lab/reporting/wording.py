"""Figures, times and counts as text, and what a comparison found, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from thinned.lab.reporting.from_runs import Row
from thinned.lab.reporting.measure import ERROR
from thinned.lab.reporting.summary import BASELINE, Stat, Summary, summarise


def plural(n: int, word: str) -> str:
    """`1 seed`, `5 seeds`."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def shorten(text: str, most: int = 20) -> str:
    """The text, or as much of it as fits into `most` characters with "…"."""
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def seconds_text(value: float) -> str:
    """Seconds with three digits: 0.0123, 1.23, 123; "–" for NaN."""
    if not math.isfinite(value):
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if value >= 1e-4 else f"{value:.1e}"


def number(value: float) -> str:
    """A figure in % or points with two decimals and a true minus; "–" for NaN."""
    return ERROR.text(value)


def stat_text(stat: Stat) -> str:
    """`1.42 ± 0.05`, without ± for one seed."""
    return stat.text()


def time_text(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def seeds_text(summaries: Sequence[Summary]) -> str:
    """`mean ± s.d., 5 seeds`, `1 seed`, or with the smallest and largest number where rows differ."""
    counts = sorted({s.seeds for s in summaries}) or [0]
    seeds = plural(counts[0], "seed") if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
    return f"mean ± s.d., {seeds}" if any(s.test.n > 1 for s in summaries) else seeds


def finding(rows: Sequence[Row], baseline: str = BASELINE) -> str:
    """One sentence: which row has the lowest test error, against `baseline`, and whether it beats the spread.

    The spread is the larger of the two rows' standard deviations over seeds. Runs that did not finish do
    not count; the sentence names them.
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
        unit = only.measure.unit and f" {only.measure.unit}"
        value = f"{only.stat(only.test)}{unit}"
        what = f"{only.measure.of} {only.measure.name}"
        text = f"{only.label} has a {what} of {value}, with nothing to compare it with"
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
    """`a` has the lowest test error; `b` is what it is compared with."""
    difference = b.test.mean - a.test.mean
    show, name, of = a.measure.with_unit, a.measure.name, a.measure.of
    if show(a.test.mean) == show(b.test.mean):
        return f"{a.label} and {b.label} share the lowest {of} {name}, {show(a.test.mean)}"
    share = 100 * difference / b.test.mean
    relative = f"{share:.0f} %" if share >= 1 else "less than 1 %"
    return (
        f"{a.label} has the lowest {of} {name}: {show(a.test.mean)} against {show(b.test.mean)} for "
        f"{b.label}{which}, which is {_difference(b, a)} or, in relative terms, {relative} "
        f"lower; {_against_spread(a, b, difference)}"
    )


def _not_lower(a: Summary, base: Summary) -> str:
    """No row is better than the baseline `base`; `a` comes closest."""
    difference = a.test.mean - base.test.mean
    show, name = a.measure.with_unit, a.measure.name
    start = f"No method has a lower {a.measure.of} {name} than {base.label}, {show(base.test.mean)}"
    if show(a.test.mean) == show(base.test.mean):
        return f"{start}: {a.label} has the same"
    share = 100 * difference / base.test.mean if base.test.mean > 0 else math.inf
    relative = f" or, in relative terms, {share:.0f} %" if 1 <= share < math.inf else ""
    return (
        f"{start}: {a.label} comes closest with {show(a.test.mean)}, {_difference(a, base)}"
        f"{relative} higher; {_against_spread(a, base, difference)}"
    )


def _against_spread(a: Summary, b: Summary, difference: float) -> str:
    sds = [s.test.sd for s in (a, b) if math.isfinite(s.test.sd)]
    if not sds:
        return "with one seed each, this may be chance"
    least = 10.0**-a.measure.decimals
    most = f"up to {a.measure.text(max(sds))}" if max(sds) >= least / 2 else f"under {a.measure.text(least)}"
    unit = a.measure.difference and f" {a.measure.difference}"
    spread = f"the spread over seeds (standard deviation {most}{unit})"
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
    show = low.measure.text
    if show(low.gap.mean) == show(other.gap.mean):
        return ""
    sds = [s.gap.sd for s in (low, other) if math.isfinite(s.gap.sd)]
    within = (
        ", within the spread over seeds"
        if sds and abs(other.gap.mean) - abs(low.gap.mean) <= max(sds)
        else ""
    )
    unit = low.measure.difference and f" {low.measure.difference}"
    return (
        f"The gap between training and {low.measure.of} {low.measure.name} is smallest for {low.label}: "
        f"{show(low.gap.mean)}{unit} against {show(other.gap.mean)} for {other.label}{within}."
    )


def _difference(a: Summary, b: Summary) -> str:
    """`a` − `b`, computed from the rounded figures, so that a reader gets the same."""
    digits, least = a.measure.decimals, 10.0**-a.measure.decimals
    value = round(round(a.test.mean, digits) - round(b.test.mean, digits), digits)
    unit = a.measure.difference and f" {a.measure.difference}"
    return (a.measure.text(value) if value >= least / 2 else f"less than {a.measure.text(least)}") + unit
