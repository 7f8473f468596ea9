"""The kind of each column, and what a network gets of it."""

import numpy as np
import pytest
from helpers.data import line

pd = pytest.importorskip("pandas")
from thinned.lab.data.columns import (  # noqa: E402
    CATEGORY,
    CONSTANT,
    DATE,
    EMPTY,
    ID,
    NUMBER,
    ROW_NUMBER,
    TEXT,
    YES_NO,
    Column,
    How,
    as_dates,
    as_numbers,
    understand,
)

N = 40
COUNT = np.arange(N)


def text(values):
    return pd.Series([None if value is None else str(value) for value in values], dtype="str")


def kinds(how=How("y"), **columns):
    frame = pd.DataFrame(
        {"y": text(COUNT % 2), "z": text(np.sin(COUNT))} | {k: text(v) for k, v in columns.items()}
    )
    x, found = understand("t", frame, how)
    assert [one.name for one in found] == list(frame.columns)
    assert list(x) == [one.name for one in found if one.kind in (NUMBER, CATEGORY, YES_NO, DATE)]
    return x, {one.name: one for one in found[2:]}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (COUNT**2, NUMBER),
        ([None, "1e3", "inf", "None", *COUNT[4:] ** 2], NUMBER),
        (COUNT + 1990, ROW_NUMBER),
        (["02134", "2134"] * 20, CATEGORY),
        (["red", "blue"] * 20, CATEGORY),
        (["Yes", "no"] * 20, YES_NO),
        (["2024-01-31", None] * 20, DATE),
        (["2024-01-31 12:30", "2023/2/1"] * 20, DATE),
        (["31.12.2023", "1.2.2023"] * 20, DATE),
        (["2024-01-31", "soon"] * 20, CATEGORY),
        ([f"A{i}" for i in COUNT], ID),
        ([f"the {i}th remark on this" for i in COUNT], TEXT),
        (["x"] * N, CONSTANT),
        ([None] * N, EMPTY),
        (["x", None] * 20, CATEGORY),
    ],
)
def test_kinds(values, kind):
    assert kinds(a=values)[1]["a"].kind == kind


@pytest.mark.parametrize("name", ["id", "ID", "PassengerId", "customer_id", "unnamed 0", "row.names"])
def test_numbers_named_as_ids(name):
    assert kinds(**{name: COUNT * 7 % 41})[1][name].kind == ID
    assert kinds(**{name: COUNT % 5})[1][name].kind == NUMBER  # repeated: it says something
    assert kinds(width=COUNT * 7 % 41)[1]["width"].kind == NUMBER


def test_the_users_word_holds():
    columns = {"a": COUNT**2, "b": COUNT, "c": ["u", "v"] * 20, "d": COUNT % 3}
    how = How("y", drop=("a",), numeric=("b",), id=("c",), categorical=("d",))
    x, found = kinds(how, **columns)
    assert {name: str(one) for name, one in found.items()} == {
        "a": "dropped, left out", "b": "number", "c": "id, left out", "d": "category, 3 values",
    }  # fmt: skip
    np.testing.assert_array_equal(x["b"], COUNT)
    assert list(x["d"].iloc[:4]) == ["0", "1", "2", "0"]


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        (How("y", drop=("zz",)), "--drop must be the name of one column: 'y', 'z', 'a', got 'zz'"),
        (How("y", drop=("A",)), "got 'A' (did you mean 'a'?)"),
        (How("y", id=("y",)), "--id must be columns other than the label"),
        (How("y", id=("a",), drop=("a",)), "a column must have one kind"),
        (How("y", numeric=("a",)), "--numeric must be columns of numbers, got 'u' in 'a'"),
        (How("y", drop=("z", "a")), "nothing to learn from ('z': dropped, left out; 'a': dropped, left out)"),
    ],
)
def test_wrong_words(how, fault):
    assert fault in line(kinds, how, a=["u", "1"] * 20)


def test_numbers_too_large_to_square():
    assert "column 'a' must have numbers up to 1e+100, got 1e+300" in line(
        kinds, a=["1e300", *COUNT[1:] ** 2]
    )


def test_numbers():
    np.testing.assert_array_equal(
        as_numbers(text(["1", None, "-2.5e1", "Inf", "none"])), [1, np.nan, -25, np.nan, np.nan]
    )
    assert as_numbers(text(["1", "x"])) is None
    assert as_numbers(text(["1", "01"])) is None
    assert as_numbers(text(["none", "-"])) is None
    assert as_numbers(pd.Series([True, False])) is None
    np.testing.assert_array_equal(as_numbers(pd.Series([2, 3])), [2.0, 3.0])


@pytest.mark.parametrize(
    ("cells", "expected", "remark"),
    [
        (["2024-02-01", None], "2024-02-01", ""),
        (["01/02/2024", "13/02/2024"], "2024-02-01", "day first"),
        (["02/01/2024", "02/13/2024"], "2024-02-01", "month first"),
        (["02/01/2024", "02/02/2024"], "2024-02-01", "month first, as it seems"),
        (["1.2.2024", None], "2024-02-01", "day first"),
    ],
)
def test_dates(cells, expected, remark):
    dates, said = as_dates(text(cells))
    assert dates[0] == pd.Timestamp(expected)
    assert said == remark
    assert [pd.isna(date) for date in dates] == [cell is None for cell in cells]


def test_a_column_in_a_line():
    assert str(Column("a", NUMBER, ("3 missing",))) == "number, 3 missing"
    assert str(Column("a", TEXT)) == "text, left out"
