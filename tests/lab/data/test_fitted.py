"""Fitted columns as plain arrays: they give what scikit-learn's transformers give, and say what is wrong."""

import json

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
from sklearn.base import clone  # noqa: E402

from thinned.lab.data import fitted, frames  # noqa: E402
from thinned.lab.data.columns import How, understand  # noqa: E402
from thinned.lab.data.encoding import pipeline  # noqa: E402
from thinned.lab.data.fitted import FittedColumns, loaded, stored  # noqa: E402
from thinned.lab.errors import LabError  # noqa: E402

N = 200
RNG = np.random.default_rng(0)
TABLE = {
    "kind": RNG.choice(["x", "y", "z"], N),
    "a": np.where(RNG.random(N) < 0.1, "", RNG.normal(size=N).round(3).astype(str)),
    "b": RNG.integers(0, 9, N).astype(str),
    "day": [f"{1 + i % 28}/{1 + i % 12}/2024" for i in range(N)],
    "iso": np.where(RNG.random(N) < 0.1, "", "2023-02-03"),
    "flag": RNG.choice(["yes", "no"], N),
    "few": RNG.choice(["u", "v", "w", "", "1"], N, p=[0.4, 0.4, 0.1, 0.09, 0.01]),
    "rare": np.where(np.arange(N) < 4, "r", "often"),
    "many": RNG.choice([f"city {i}" for i in range(60)], N),
    "other": RNG.choice([f"name {i}" for i in range(40)], N),
}
CODES = np.unique(TABLE["kind"], return_inverse=True)[1]


@pytest.fixture
def table(in_tmp):
    pd.DataFrame(TABLE).to_csv("t.csv", index=False)
    return frames.read(in_tmp / "t.csv")[0]


def made(table, y=CODES):
    """The fitted pipeline, the cells that it takes, and its plain form."""
    x, columns = understand("t.csv", table, How(label="kind"))
    values = {name: x[name].nunique() for name in x if x[name].dtype == object}
    seldom = {name: int(x[name].iloc[:150].value_counts().min()) for name in values}
    encode = pipeline(columns, values, seldom, y[:150])
    encode.fit(x.iloc[:150], y[:150])
    return encode, x, fitted.fitted(encode, x.iloc[:150], columns)


@pytest.mark.parametrize("numbers", [False, True], ids=["classes", "numbers"])
def test_as_scikit_learns(table, numbers):
    y = RNG.normal(size=N) if numbers else CODES
    encode, x, plain = made(table, y)
    expected = encode.transform(x)
    for same in (plain, clone(plain), again(plain)):
        np.testing.assert_allclose(same.transform(table), expected, rtol=1e-6, atol=1e-6)  # float32
    assert plain.width == expected.shape[1]
    assert plain.label == "kind"
    shuffled = table[table.columns[::-1]].assign(more=1).drop(columns="kind")
    np.testing.assert_array_equal(plain.transform(shuffled), plain.transform(table))


def again(plain):
    """What is left after it was stored."""
    about, arrays = stored(plain)
    return loaded(json.loads(json.dumps(about)), arrays, plain.label)


def test_one_row_is_read_as_all_were(table):
    """3/4/2024 alone does not say what comes first; new values count as rare ones do."""
    _, _, plain = made(table)
    whole = plain.transform(table)
    for i in (2, 3, 150):
        np.testing.assert_array_equal(plain.transform(table.iloc[[i]]), whole[[i]])
    one = table.iloc[[0]].assign(a="?", few="never seen", many=" city 0 ", b=3)
    typed = one.assign(a=np.nan, few="another", many="city 0", b=3.0, iso=pd.NaT)
    np.testing.assert_array_equal(plain.transform(one.assign(iso="")), plain.transform(typed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": "much"}, "column 'b' must hold numbers, as in training, got 'much'"),
        ({"day": "soon"}, "column 'day' must hold dates, as in training, got 'soon'"),
        ({"a": "1e300"}, "column 'a' must have numbers like those of training, got larger"),
    ],
)
def test_cells_that_cannot_be_read(table, change, message):
    with pytest.raises(LabError, match=f"^{message}$"):
        made(table)[2].transform(table.assign(**change))


def test_columns_that_are_missing(table):
    _, _, plain = made(table)
    with pytest.raises(LabError, match=r"^columns 'a', 'many' are missing; the model reads 'a', 'b', "):
        plain.transform(table.drop(columns=["a", "many"]))
    with pytest.raises(TypeError, match=r"^X must be a pandas DataFrame with the columns of training, got"):
        plain.transform(table.to_numpy())
    with pytest.raises(TypeError, match="thinned compare fits"):
        plain.fit(table)


@pytest.mark.parametrize("column", ["many", "rare", "a", "day"])
def test_a_table_of_one_column(table, column):
    encode, x, plain = made(table[["kind", column]])
    np.testing.assert_allclose(plain.transform(table), encode.transform(x), rtol=1e-6, atol=1e-6)


def test_damage_is_found(table):
    _, _, plain = made(table)
    about, arrays = stored(plain)
    for name, array in arrays.items():
        for wrong in (array[:-1], np.full(array.shape, np.nan)):
            if len(array):
                with pytest.raises((ValueError, TypeError)):
                    loaded(about, {**arrays, name: wrong}, "kind")
    with pytest.raises(ValueError, match="kind must be 'number' or 'date', got 'spell'"):
        loaded([{**about[0], "kind": "spell"}, *about[1:]], arrays, "kind")
    assert isinstance(loaded(about, arrays, "kind"), FittedColumns)
