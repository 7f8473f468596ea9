"""Sections of a comparison's report: their figures against definitions, and what is there for which task."""

import csv
import io

import numpy as np
import pytest

from thinned.lab.reporting.comparison import Comparison
from thinned.lab.reporting.evidence import Evidence
from thinned.lab.reporting.from_runs import Row
from thinned.lab.reporting.measure import rmse
from thinned.lab.reporting.page import Figure
from thinned.lab.reporting.paired import differences
from thinned.lab.reporting.scores import losses
from thinned.lab.reporting.sections import reliability, sections
from thinned.lab.reporting.summary import styles, summarise
from thinned.lab.reporting.verdict import Verdict

rng = np.random.default_rng(8)
N = 60


def comparison(classes, **more):
    if classes:
        labels = rng.integers(0, len(classes), N)
        kept = {
            m: {s: (rng.dirichlet(np.ones(len(classes)), N), labels) for s in range(2)} for m in ("none", "a")
        }
    else:
        labels = rng.normal(size=N)
        kept = {m: {s: (labels + rng.normal(size=N), labels) for s in range(2)} for m in ("none", "a")}
    evidence = Evidence(more.pop("what", "rows"), classes, labels, **more)
    means = {
        m: [float(losses(*p).mean()) ** (1 if classes else 0.5) for p in runs.values()]
        for m, runs in kept.items()
    }
    measure = {} if classes else {"measure": rmse([1.0])}
    rows = {m: summarise(Row(m, e, e, [1.0], 5, **measure)) for m, e in means.items()}
    lost = {m: {s: losses(*pair) for s, pair in runs.items()} for m, runs in kept.items()}
    found = differences(lost, "none", counts=bool(classes))
    return Comparison(kept, rows, evidence, Verdict(found, "none", rows, evidence.what, bool(classes)))


def titles(c, over_p=()):
    return [one.title for one in sections(c, styles(list(c.rows), "none"), over_p)]


def test_classes():
    c = comparison(("x", "y", "z"))
    assert titles(c) == ["Difference from none", "Beside simple predictors", "Class by class", "Calibration"]
    assert (
        titles(c, [Figure("", "", "a picture", svg="<svg xmlns='http://www.w3.org/2000/svg'/>")])[1]
        == "Over the rate"
    )


def test_numbers():
    c = comparison(
        (),
        importance={"area": [0.5, 0.7]},
        of="a",
        index=np.array([1]),
        rows=[["7", "u"]],
        columns=["n", "c"],
    )
    assert titles(c)[2:] == ["Predictions over targets", "Columns that matter", "Predicted worst by a"]
    worst = sections(c, {})[-1].tables[0]
    assert worst.columns == ["true", "predicted", "n", "c"]
    assert worst.rows[0][2:] == ["7", "u"]


def test_images():
    more = {"of": "none", "index": np.array([3, 4]), "images": rng.random((2, 8, 8))}
    worst = sections(comparison(("x", "y"), what="images", **more), {})[-1]
    assert worst.gallery
    assert [one.caption.split(", predicted ")[0] in "xy" for one in worst.figures] == [True, True]


def test_many_classes_have_a_table_alone():
    made = sections(comparison(tuple(f"c{i}" for i in range(25))), {})[2]
    assert not made.figures
    assert len(made.tables[0].rows) == 20


def test_a_bin_is_a_mean():
    sure = np.array([0.95] * 30 + [0.65] * 20 + [0.55] * 3)
    outputs, labels = (
        np.column_stack([sure, 1 - sure]),
        np.array([0] * 24 + [1] * 6 + [0] * 13 + [1] * 7 + [0] * 3),
    )
    found, distance = reliability(outputs, labels)
    assert found == [pytest.approx((0.65, 0.65, 20 / 53)), pytest.approx((0.95, 0.8, 30 / 53))]
    assert distance == pytest.approx((20 * 0 + 30 * 0.15 + 3 * 0.45) / 53)


def test_the_table_of_runs():
    c = comparison(("x", "y"))
    lines = list(csv.DictReader(io.StringIO(c.table())))
    assert [(line["method"], line["seed"]) for line in lines] == [
        ("none", "0"),
        ("none", "1"),
        ("a", "0"),
        ("a", "1"),
    ]
    assert float(lines[0]["error"]) == pytest.approx(np.mean(losses(*c.kept["none"][0])))


def test_simple_predictors_and_unbalanced_classes_are_named():
    c = comparison(("x", "y"))
    labels = np.array([0] * 57 + [1] * 3)
    shares = np.tile([0.9, 0.1], (N, 1))
    evidence = Evidence("rows", ("x", "y"), labels, {"always the largest class": shares})
    kept = {m: {s: (p, labels) for s, (p, _) in runs.items()} for m, runs in c.kept.items()}
    text = Comparison(kept, c.rows, evidence, c.verdict).beside()
    assert (
        "A simple predictor is as good or better: always the largest class has a test error of 5.00 %."
        in text
    )
    assert "95 % of the test rows are 'x', so the error says little" in text
    assert comparison(("x", "y")).beside() == ""
