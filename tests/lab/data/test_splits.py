"""Which rows become test data: groups stay whole, time goes forward, classes keep their shares."""

import numpy as np
import pytest
from helpers.data import line

pd = pytest.importorskip("pandas")
from thinned.key import Key  # noqa: E402
from thinned.lab.data.dataset import holdout  # noqa: E402
from thinned.lab.data.registry import load  # noqa: E402
from thinned.lab.data.splits import by_group, by_time  # noqa: E402


def table(tmp_path, **columns):
    path = tmp_path / "mine.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def test_groups_are_never_divided():
    cells = pd.Series([f"g{i % 17}" for i in range(200)])
    found = by_group("mine.csv", cells, "g", 0.2)
    assert not set(cells[found.train]) & set(cells[found.test])
    assert sorted([*found.train, *found.test]) == list(range(200))
    assert abs(len(found.test) - 40) <= 6  # half a group
    assert found.words == f"{cells[found.test].nunique()} of 17 groups (g) are test data"


def test_rows_without_a_group_are_groups():
    found = by_group("mine.csv", pd.Series([None, "a", None, "a", None]), "g", 0.4)
    assert {1, 3} <= set(found.train) or {1, 3} <= set(found.test)


@pytest.mark.parametrize(
    "cells",
    [
        np.arange(50) // 3,
        pd.date_range("2020-01-01", periods=50).strftime("%d.%m.%Y").to_numpy(),
    ],
)
def test_test_data_is_the_latest(cells):
    order = np.random.default_rng(0).permutation(50)
    found = by_time("mine.csv", pd.Series(cells[order]), "t", 0.2)
    assert order[found.train].max() < order[found.test].min()
    assert cells[order[found.train].max()] != cells[order[found.test].min()]
    assert 8 <= len(found.test) <= 12
    assert (np.diff(found.groups) >= 0).all()


def test_held_out_groups_stay_whole(tmp_path):
    n = 120
    path = table(tmp_path, a=np.arange(n) % 7 + 0.5, g=np.arange(n) % 11, y=["u", "v"] * (n // 2))
    data = load(path, label="y", group="g")
    assert {one.name: str(one) for one in data.columns}[
        "g"
    ] == "group, left out, it decides what is test data"
    part = holdout(data, 0.25, Key(1))
    assert part.groups is not None
    assert len(part.x_train) + len(part.x_test) == len(data.x_train)
    assert len(set(data.groups)) - len(set(part.groups)) in (2, 3)
    later = load(path, label="y", time="g")
    assert later.ordered
    assert set(holdout(later, 0.25, Key(1)).groups) == set(range(7))


def test_columns_of_a_split_can_be_read_too(tmp_path):
    n = 60
    path = table(tmp_path, a=np.arange(n) % 7 + 0.5, t=np.arange(n) // 2, y=["u", "v"] * (n // 2))
    assert load(path, label="y", time="t").x_train.shape[1] == 1
    assert load(path, label="y", time="t", numeric=("t",)).x_train.shape[1] == 2


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ({"group": "one"}, "--group must be a column of two or more groups, got one in 'one'"),
        ({"time": "one"}, "--time must be a column of two or more times, got one in 'one'"),
        ({"time": "word"}, "--time must be a column of dates or numbers, got others in 'word'"),
        ({"time": "gap"}, "--time must be a column without missing cells, got 1 in 'gap'"),
        ({"time": "gap", "group": "one"}, "must not be given together"),
        ({"group": "y"}, "--group must be a column other than the label"),
        ({"group": "gorp"}, "--group must be the name of one column"),
        (
            {"time": "late"},
            "--time must leave examples of each class to train on, but 'v' would be test data",
        ),
    ],
)
def test_splits_that_cannot_be_made(tmp_path, how, fault):
    n = 40
    y = np.array(["u"] * 35 + ["v"] * 5)
    columns = {
        "one": np.ones(n),
        "word": ["x", "y"] * 20,
        "gap": [None, *range(39)],
        "late": np.arange(n) / 2,
    }
    assert fault in line(load, table(tmp_path, a=np.arange(n) % 9 + 0.5, **columns, y=y), label="y", **how)
