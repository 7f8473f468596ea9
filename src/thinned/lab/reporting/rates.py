"""Errors over the rate of dropping: the picture, and the best rate of each method in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from thinned.lab.reporting.figures import Point, lines
from thinned.lab.reporting.from_runs import Row
from thinned.lab.reporting.page import Figure
from thinned.lab.reporting.summary import BASELINE, Summary, summarise
from thinned.lab.storage.run import Stored

TITLE = "Error over the rate of dropping"
Tried = Mapping[str, Sequence[tuple[float, float]]]  # method -> (p, lowest held-out error)


def over_p(
    stored: Sequence[Stored], rows: Sequence[Row], labels: Sequence[str], tried: Tried
) -> list[Figure]:
    """The picture of a comparison of several rates, or of rates that were tried; none without.

    Args:
        stored: the runs.
        rows: of the report.
        labels: the label of each run's row.
        tried: what was tried on held-out data.
    """
    found = _curves(stored, rows, labels)
    measure = rows[0].measure
    if found:
        curves = {
            name: [Point(p, s.test.mean, s.test.sd) for p, s in points] for name, points in found.items()
        }
        ends = [p for points in found.values() for p, _ in points]
        base = next((summarise(row) for row in rows if row.label == BASELINE), None)
        if base is not None and base.finished:
            curves[BASELINE] = [Point(p, base.test.mean, base.test.sd) for p in (min(ends), max(ends))]
        caption = f"{measure.of.capitalize()} data; bars: one standard deviation over seeds."
    else:
        curves = {
            name: [Point(p, measure.factor * e) for p, e in points]
            for name, points in tried.items()
            if points
        }
        caption = (
            "Held-out training data: the lowest error that was found at each p, whatever the other settings."
        )
    if not any(math.isfinite(point.y) for points in curves.values() for point in points):
        return []
    return [lines(TITLE, "p", measure.axis, curves, caption=caption)]


def best_rates(stored: Sequence[Stored], rows: Sequence[Row], labels: Sequence[str]) -> str:
    """`dropout: lowest test error at p = 0.3, 2.10 %; …`, for methods with several rates; "" without."""
    words = []
    for name, points in _curves(stored, rows, labels).items():
        p, low = min(points, key=lambda point: point[1].test.mean)
        measure = low.measure
        text = f"{name}: lowest {measure.of} {measure.name} at p = {p:g}, {measure.with_unit(low.test.mean)}"
        others = [
            (q, s) for q, s in points if q != p and measure.text(s.test.mean) == measure.text(low.test.mean)
        ]
        words.append(text + "".join(f", as at p = {q:g}" for q, _ in others))
    return "; ".join(words)


def _curves(
    stored: Sequence[Stored], rows: Sequence[Row], labels: Sequence[str]
) -> dict[str, list[tuple[float, Summary]]]:
    """Method -> (p, its row) for each p, ascending, for methods with two rates or more."""
    summaries = {row.label: summarise(row) for row in rows}
    found: dict[str, dict[float, Summary]] = {}
    for run, label in zip(stored, labels, strict=True):
        if label in summaries and summaries[label].finished and run.config["method"] != BASELINE:
            found.setdefault(run.config["method"], {})[float(run.config["p"])] = summaries[label]
    return {name: sorted(at.items(), key=lambda one: one[0]) for name, at in found.items() if len(at) > 1}
