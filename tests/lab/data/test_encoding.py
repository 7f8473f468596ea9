"""Columns as numbers: each part against its definition, fitted on training data alone."""

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
from thinned.lab.data.columns import CATEGORY, DATE, NUMBER, Column  # noqa: E402
from thinned.lab.data.encoding import date_parts, pipeline  # noqa: E402


def encoded(kind, train, test, y=None):
    y = np.arange(len(train)) % 2 if y is None else y
    seldom = min(list(train).count(value) for value in train)
    fitted = pipeline([Column("a", kind)], {"a": len(set(train))}, {"a": seldom}, y)
    x = fitted.fit_transform(pd.DataFrame({"a": train}), y)
    assert x.dtype == np.float32
    return x, fitted.transform(pd.DataFrame({"a": test}))


def test_numbers():
    train = np.array([1.0, 2.0, 6.0, np.nan])
    x, x_test = encoded(NUMBER, train, np.array([10.0, np.nan]))
    filled = np.array([1, 2, 6, 2.0])  # the median
    missing = np.array([0, 0, 0, 1.0])
    for column, values, test in ((0, filled, [10, 2]), (1, missing, [0, 1])):
        scale = lambda v, values=values: (np.asarray(v) - values.mean()) / values.std()  # noqa: E731
        np.testing.assert_allclose(x[:, column], scale(values), rtol=1e-6)
        np.testing.assert_allclose(x_test[:, column], scale(test), rtol=1e-6)


def test_values_seen_rarely_or_never_share_a_column():
    train = np.array(["u"] * 50 + ["v"] * 46 + ["r", "s", "t", ""], object)
    x, x_test = encoded(CATEGORY, train, np.array(["v", "s", "new", "u"], object))
    np.testing.assert_array_equal(x.sum(axis=1), 1)
    np.testing.assert_array_equal(x_test, np.eye(3)[[1, 2, 2, 0]])


def test_few_examples_keep_their_values():
    x, _ = encoded(CATEGORY, np.array(["u", "v"] * 4, object), np.array(["u"], object))
    np.testing.assert_array_equal(x, np.tile(np.eye(2), (4, 1)))


def test_many_values_say_nothing_of_their_own_target():
    """A value seen once has no other example: it gets the mean of other folds, not its label."""
    names = np.array([f"n{i}" for i in range(200)], object)
    x, _ = encoded(CATEGORY, names, names[:1])
    assert x.shape == (200, 1)
    assert len(np.unique(x)) <= 5  # a number a fold
    again, _ = encoded(CATEGORY, names, names[:1])
    np.testing.assert_array_equal(x, again)


def test_classes_of_one_example_have_no_folds():
    names = np.array([f"n{i}" for i in range(30)], object)
    assert encoded(CATEGORY, names, names[:1], np.arange(30))[0].shape == (30, 30)


def test_dates_in_parts():
    dates = pd.DataFrame({"d": pd.to_datetime(["1970-01-02 06:00", None])})
    np.testing.assert_array_equal(date_parts(dates)[0], [1.25, 1970, 1, 2, 4, 6])
    assert np.isnan(date_parts(dates)[1]).all()
    x, _ = encoded(DATE, dates["d"], dates["d"])
    assert x.shape == (2, 12)
    assert np.isfinite(x).all()
