"""`small-tables`: what one split measures, and how splits become rows."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from types import SimpleNamespace

from thinned.lab.experiments import small_tables


def groups(*measured):
    return {"both": [SimpleNamespace(status="done", measured=m) for m in measured]}


def split(error, theirs):
    return {"iris": {"error": error, "their error": theirs, "seconds": 1.0, "their seconds": 4.0}}


def test_differences_are_taken_split_by_split():
    found = groups(split(3.0, 2.0), split(5.0, 4.0))
    (table,) = small_tables.tables(found)
    assert list(table.rows[0]) == ["iris", "error, %", "4.0", "3.0", "+1.0 ± 0.0", "0.25"]
    text = small_tables.headline(found)
    assert "lower error on 0 of 1 tables, by more than two standard errors, and the higher on 1;" in text
    assert "0.25 of scikit-learn's time" in text


def test_nothing_is_said_of_no_runs():
    assert small_tables.headline(groups()) == ""
    assert small_tables.tables(groups())[0].rows == []


def test_the_test_part_is_scaled_as_the_training_part():
    x, y = small_tables.NUMBERS["diabetes"]()
    halves = small_tables.Split.halves
    a, b, a_test, b_test = halves(None, x, y, 10, False)
    assert (len(a), len(a_test)) == (353, 89)
    assert np.allclose([a.mean(), a.std(), b.mean(), b.std()], [0, 1, 0, 1])
    assert not np.allclose(b_test.mean(), 0.0, atol=1e-6)


def test_the_table_in_the_docs_is_the_published_one():
    docs = Path(__file__).parents[3] / "docs"
    (table,) = json.loads((docs / "results/small-tables.json").read_text("utf-8"))["texts"]["quick"]["tables"]
    text = (docs / "estimators.md").read_text("utf-8")
    for row in [table["columns"], *table["rows"]]:
        assert f"| {' | '.join(row)} |\n" in text
