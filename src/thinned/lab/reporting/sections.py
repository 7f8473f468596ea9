"""The sections of a comparison's report, from the predictions of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from thinned.lab.reporting import drawings
from thinned.lab.reporting.comparison import Comparison
from thinned.lab.reporting.measure import ERROR, Measure
from thinned.lab.reporting.page import Figure, Reference, Section
from thinned.lab.reporting.summary import Stat
from thinned.lab.reporting.verdict import Verdict

DRAWN, LISTED = 20, 20  # classes of a matrix; rows of a table
POINTS = 600  # discs of a scatter plot
BARS = 15
BINS = 10
FEW = 10  # answers in a bin
LINES = 5  # methods in one picture of calibration
MERITS = {
    "balanced accuracy": "Balanced accuracy is the mean share of right answers over the classes; a "
    "guess of K gets 1/K.",
    "log loss": "The log loss is low where probabilities are right.",
    "AUC": "The AUC is 1 at best, and 0.5 for a guess.",
    "R²": "R² is 1 at best, and 0 for the mean of the labels.",
}


def sections(c: Comparison, styles: Mapping[str, int], over_p: Sequence[Figure] = ()) -> list[Section]:
    """What a report shows of single examples, classes and columns, in order."""
    if not c.kept:
        return []
    made = [
        differences(c, styles),
        Section("Over the rate", figures=over_p) if over_p else None,
        merits(c), by_class(c), by_number(c), calibration(c, styles), important(c, styles), examples(c),
    ]  # fmt: skip
    return [one for one in made if one is not None]


def differences(c: Comparison, styles: Mapping[str, int]) -> Section | None:
    """Every difference with its interval, and whether it is decided."""
    v = c.verdict
    if v is None:
        return None
    unit = v.what if v.counts else _measure(c, "RMSE").name
    lines = [
        [one.label, v.amount(one, one.mean), v.interval(one), _p(one.p), _p(one.corrected), _yes(one.decided)]
        for one in v.found
    ]
    head = ["method", f"difference, {unit}", "95 % interval", "p", "p, corrected", "decided"]
    scale = v.found[0].examples if v.counts else 1
    axis = f"errors, of {scale:,} {v.what}" if v.counts else unit
    picture = drawings.intervals(
        "", f"difference in {axis}: below 0 is better",
        {one.label: (scale * one.mean, scale * one.low, scale * one.high) for one in v.found}, styles, "",
    )  # fmt: skip
    return Section(f"Difference from {v.other}", _how(v), [Reference(head, lines)], [picture])


def merits(c: Comparison) -> Section:
    """All figures of merit, a row a method, and the simple predictors."""
    each = c.scores()
    names = list(next(iter(each.values())))
    measures = {name: _measure(c, name) for name in names}
    lines = [
        [label, *(_stat(measures[name], found[name]) for name in names)] for label, found in each.items()
    ]
    head = ["method", *(measures[name].axis for name in names)]
    caption = " ".join(MERITS[name] for name in names if name in MERITS)
    return Section("Beside simple predictors", tables=[Reference(head, lines, caption)])


def by_class(c: Comparison) -> Section | None:
    """The confusion matrix of the best method, and its error a class."""
    names = c.evidence.classes
    if not names:
        return None
    outputs, labels = c.pooled(c.best)
    seeds = len(c.kept[c.best])
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (labels, outputs.argmax(axis=1)), 1 / seeds)
    figures = []
    if len(names) <= DRAWN:
        caption = "A row is a true class, a column what was predicted; the diagonal is right."
        caption += f" {_of(c).capitalize()} {c.evidence.what}" + (
            f", mean over {seeds} seeds." if seeds > 1 else "."
        )
        figures = [drawings.matrix("", names, counts, caption)]
    errors = 1 - counts.diagonal() / np.maximum(counts.sum(axis=1), 1e-12)
    order = [i for i in np.argsort(-errors, kind="stable").tolist() if counts[i].sum()]
    lines = [
        [names[i], _count(counts[i].sum()), ERROR.text(100 * errors[i]), _mistaken(names, counts[i], i)]
        for i in order
    ]
    head = ["class", f"{_of(c)} {c.evidence.what}", "error, %", "most often taken for"]
    more = f" The {LISTED} classes with the highest errors." if len(lines) > LISTED else ""
    table = Reference(head, lines[:LISTED], f"Of {c.best}, the lowest error.{more}")
    return Section("Class by class", tables=[table], figures=figures)


def by_number(c: Comparison) -> Section | None:
    """Predictions over targets, of the best method."""
    if c.evidence.classes or not len(c.evidence.labels):
        return None
    outputs = np.mean([one for one, _ in c.kept[c.best].values()], axis=0)
    labels = c.evidence.labels
    part = np.linspace(0, len(labels) - 1, min(POINTS, len(labels))).astype(int)
    seeds = len(c.kept[c.best])
    caption = f"{_of(c).capitalize()} rows; {c.best}" + (f", mean of {seeds} seeds." if seeds > 1 else ".")
    caption += " On the dotted line a prediction is exact."
    picture = drawings.scatter("", "target", "prediction", labels[part], outputs[part], caption)
    return Section("Predictions over targets", figures=[picture])


def calibration(c: Comparison, styles: Mapping[str, int]) -> Section | None:
    """Whether a predicted probability is the share of right answers."""
    if not c.evidence.classes:
        return None
    bins, errors = {}, []
    for label in list(c.kept)[:LINES]:
        outputs, labels = c.pooled(label)
        bins[label], error = reliability(outputs, labels)
        errors.append(f"{label} {100 * error:.1f}")
    caption = (
        "On the dotted line, a probability is the share of right answers; below it, the network is too sure. "
        f"The size of a disc is the share of answers. Mean distance, in points: {', '.join(errors)}."
    )
    return Section("Calibration", figures=[drawings.reliability("", bins, styles, caption)])


def reliability(outputs: np.ndarray, labels: np.ndarray) -> tuple[list[tuple[float, float, float]], float]:
    """(mean probability of the answer, share right, share of answers) in equal bins; the mean distance.

    Bins of fewer than `FEW` answers are not shown: chance moves them.

    Source: Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599.
    """
    sure, right = outputs.max(axis=1), outputs.argmax(axis=1) == labels
    where = np.minimum((sure * BINS).astype(int), BINS - 1)
    found = [
        (float(sure[where == i].mean()), float(right[where == i].mean()), float((where == i).mean()))
        for i in range(BINS)
        if (where == i).any()
    ]
    shown = [one for one in found if one[2] * len(sure) >= FEW] or found
    return shown, sum(weight * abs(x - y) for x, y, weight in found)


def important(c: Comparison, styles: Mapping[str, int]) -> Section | None:
    """By how much log loss or RMSE grows where a column is shuffled."""
    e = c.evidence
    if not e.importance:
        return None
    order = sorted(e.importance, key=lambda name: -float(np.mean(e.importance[name])))
    each = {name: np.asarray(e.importance[name]) for name in order[:BARS]}
    rows = {name: (float(v.mean()), float(v.min()), float(v.max())) for name, v in each.items()}
    axis = f"the {'log loss' if e.classes else 'RMSE'} grows by"
    many = f" The first {BARS} of {len(order)} columns." if len(order) > BARS else ""
    caption = (
        f"The test cells of one column are shuffled; {e.of}, mean and range over seeds.{many} Columns that "
        "say the same stand in for each other, and each alone then seems unimportant."
    )
    picture = drawings.intervals("", axis, rows, dict.fromkeys(rows, styles.get(e.of, 1)), caption)
    return Section("Columns that matter", figures=[picture])


def examples(c: Comparison) -> Section | None:
    """The examples that the best method predicts worst, as images or rows."""
    e = c.evidence
    if not len(e.index) or e.of not in c.kept:
        return None
    outputs = np.mean([one for one, _ in c.kept[e.of].values()], axis=0)
    answers = [_answer(c, outputs[i], e.labels[i]) for i in e.index]
    title = f"Predicted worst by {e.of}"
    text = "A wrong label in the data is often among these."
    if len(e.images):
        lo, hi = float(e.images.min()), float(e.images.max())
        figures = [
            Figure(
                "",
                f"{true}, predicted {answer}",
                f"a test image: {true}",
                png=drawings.picture(image, lo, hi),
            )
            for image, (true, answer) in zip(e.images, answers, strict=True)
        ]
        return Section(title, text, figures=figures, gallery=True)
    if not e.rows:
        return None
    lines = [[true, answer, *row] for (true, answer), row in zip(answers, e.rows, strict=True)]
    return Section(title, text, tables=[Reference(["true", "predicted", *e.columns], lines)])


def _answer(c: Comparison, output: np.ndarray, label: float) -> tuple[str, str]:
    """The label and the prediction, as text."""
    if not c.evidence.classes:
        measure = _measure(c, "RMSE")
        return measure.text(float(label)), measure.text(float(output))
    guess = int(np.argmax(output))
    return c.evidence.classes[int(label)], f"{c.evidence.classes[guess]} ({100 * output[guess]:.0f} %)"


def _mistaken(names: Sequence[str], counts: np.ndarray, own: int) -> str:
    """The two classes for which this one is most often taken."""
    order = [j for j in np.argsort(-counts, kind="stable").tolist() if j != own and counts[j] > 0]
    return ", ".join(f"{names[j]} ({_count(counts[j])})" for j in order[:2]) or "–"


def _measure(c: Comparison, name: str) -> Measure:
    if name == "error":
        return ERROR
    if name in ("RMSE", "MAE"):
        return Measure(name, "", "", 1.0, next(iter(c.rows.values())).measure.decimals)
    return Measure(name, "", "", 1.0, 3)


def _of(c: Comparison) -> str:
    return c.rows[c.best].measure.of


def _count(value: float) -> str:
    return f"{value:,.0f}" if abs(value - round(value)) < 0.05 else f"{value:,.1f}"


def _yes(decided: bool) -> str:
    return "yes" if decided else "no"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _stat(measure: Measure, values: Sequence[float]) -> str:
    return Stat.of([measure.factor * value for value in values]).text(measure)


def _how(v: Verdict) -> str:
    """How the differences were judged."""
    seeds, examples = v.found[0].seeds, f"{v.found[0].examples:,} {v.of} {v.what}"
    many = len(v.found) > 1
    level = f" for all {len(v.found)} comparisons together" if many else ""
    if seeds == 1:
        test = "McNemar's exact test" if v.counts else "a paired t-test"
        text = f"All methods saw the same {examples}. p is of {test}; one seed each decides nothing."
    elif v.held_out:
        text = (
            f"Each of the {seeds} seeds holds out its own {examples}, the same for all methods: methods are "
            "compared within a seed. Interval and p are of a t-test over the seeds, corrected because they "
            "share training data (Nadeau and Bengio 2003)."
        )
    else:
        agree = "; for p, the exact test of flipped signs must agree" if v.counts else ""
        text = (
            f"All methods saw the same {examples} with the same {seeds} seeds. "
            f"Both vary the difference, and both are in its interval (two-way random effects){agree}."
        )
    below = "Below 0: fewer errors" if v.counts else "Below 0: a lower error"
    corrected = " p is corrected by Holm." if many else ""
    return f"{below} than {v.other}. {text} Intervals hold with 95 %{level}.{corrected}"
