"""A user's own files: arrays in .npz; what is common to all."""

import os

import numpy as np
import pytest
from helpers.data import check, line, npz

from thinned.lab.data import files, table
from thinned.lab.data.registry import load


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def four(rng, **changed):
    """Two classes, three columns."""
    arrays = {
        "x_train": rng.normal(size=(30, 3)),
        "y_train": np.arange(30) % 2,
        "x_test": rng.normal(size=(10, 3)),
        "y_test": np.arange(10) % 2,
    }
    return arrays | changed


def test_npz_with_test_data(tmp_path, rng):
    x = rng.normal(5, 100, (40, 3)).astype(np.float32)
    x[:, 1] = 0.1  # constant
    arrays = four(rng, x_train=x[:30], x_test=x[30:])
    arrays["x_test"][0, 1] = 7.0  # constant in training alone
    dataset = check(load(npz(tmp_path, **arrays)))
    assert (dataset.name, dataset.classes, dataset.shape) == ("mine.npz", ("0", "1"), (3,))
    np.testing.assert_allclose(dataset.x_train[:, [0, 2]].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(dataset.x_train[:, [0, 2]].std(0), 1, rtol=1e-5)
    assert not dataset.x_train[:, 1].any()
    assert not dataset.x_test[:, 1].any()
    train = arrays["x_train"].astype(float)
    expected = (arrays["x_test"] - train.mean(0)) / np.where(train.std(0) > 1, train.std(0), np.inf)
    np.testing.assert_allclose(dataset.x_test, expected, rtol=1e-5, atol=1e-6)


def test_large_tables_are_scaled_in_blocks(tmp_path, rng, monkeypatch):
    path = npz(tmp_path, **four(rng))
    whole = load(path)
    monkeypatch.setattr(table, "BLOCK", 10)
    np.testing.assert_allclose(load(path).x_train, whole.x_train, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["?", "i1", "i8", "u2", "f2", "f8", ">f4"])
def test_numbers_of_any_type(tmp_path, rng, dtype):
    arrays = four(rng, x_train=rng.integers(0, 2, (30, 3)).astype(dtype), x_test=np.ones((10, 3), dtype))
    check(load(npz(tmp_path, **arrays)))


def test_npz_to_be_split(tmp_path, rng):
    y = np.repeat(["b", "a", "c"], [50, 30, 1])
    path = npz(tmp_path, x=rng.normal(size=(81, 2, 2)), y=y[:, None])
    dataset = check(load(path, test_share=0.1))
    assert dataset.classes == ("a", "b", "c")
    assert dataset.shape == (2, 2)
    assert np.bincount(dataset.y_test, minlength=3).tolist() == [3, 5, 0]
    assert np.bincount(dataset.y_train).tolist() == [27, 45, 1]
    assert load(path, test_share=0.1).fingerprint == dataset.fingerprint
    assert load(path).fingerprint != dataset.fingerprint
    assert len(load(path, limit=20).x_test) == 4


def test_uint8_is_images(tmp_path, rng):
    x = rng.integers(0, 256, (40, 5, 4, 3), dtype=np.uint8)
    arrays = four(rng, x_train=x[:30], x_test=x[30:])
    dataset = check(load(npz(tmp_path, **arrays)))
    assert dataset.shape == (5, 4, 3)
    np.testing.assert_array_equal(dataset.x_train, (x[:30] / 255).astype(np.float32).reshape(30, -1))


@pytest.mark.parametrize(
    ("labels", "classes", "codes"),
    [
        ([10, 9], ("9", "10"), [1, 0]),
        ([1.0, -2.0], ("-2", "1"), [1, 0]),
        ([True, False], ("0", "1"), [1, 0]),
        (["größer", "als"], ("als", "größer"), [1, 0]),
        ([b"x", b"y"], ("x", "y"), [0, 1]),
    ],
)
def test_labels_of_any_kind(tmp_path, rng, labels, classes, codes):
    y = np.array(labels * 20)
    dataset = check(load(npz(tmp_path, **four(rng, y_train=y[:30], y_test=y[:10]))))
    assert dataset.classes == classes
    np.testing.assert_array_equal(dataset.y_train, np.resize(codes, 30))
    np.testing.assert_array_equal(dataset.y_test, np.resize(codes, 10))


X, Y = np.zeros((30, 3)), np.arange(30) % 2


NAN = np.where(np.arange(90).reshape(30, 3) == 50, np.nan, 1.0)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"x_train": NAN}, "x_train: row 16, column 2 is nan"),
        ({"x_train": np.where(np.isnan(NAN), -np.inf, 1).reshape(30, 3, 1)}, "row 16, column (2, 0) is -inf"),
        ({"x_test": NAN[10:20]}, "x_test: row 6, column 2 is nan"),
        ({"x_train": np.full((30, 3), "a")}, "x_train must be an array of numbers, got <U1"),
        ({"x_train": X.astype(complex)}, "must be an array of numbers, got complex128"),
        ({"x_train": X[:, 0]}, "x_train must have the shape (examples, features, ...), got (30,)"),
        ({"x_train": X[:0]}, "x_train must have at least one example and one feature, got the shape (0, 3)"),
        ({"x_train": X[:, :0]}, "one feature, got the shape (30, 0)"),
        ({"x_test": X[:0], "y_test": Y[:0]}, "x_test must have at least one example"),
        ({"x_test": X[:10, :2]}, "x_train and x_test must have examples of one shape, got (3,) and (2,)"),
        ({"x_test": X[:10].astype(np.uint8)}, "or neither, got float64 and uint8"),
        ({"y_train": Y[:29]}, "y_train must have one label for each of 30 examples, got the shape (29,)"),
        (
            {"y_test": np.eye(10)},
            "y_test must have one label for each of 10 examples, got the shape (10, 10)",
        ),
        ({"y_train": Y + 0.5, "y_test": np.array(["a"] * 10)}, "y_test must be numbers for --task numbers"),
        ({"y_train": 0.5 + 0 * Y}, "y_train: labels must be two or more different numbers, got 0.5 alone"),
        ({"y_train": np.where(Y, np.nan, 0)}, "y_train must be finite numbers or strings, got nan in row 1"),
        ({"y_train": Y.astype(complex)}, "must be numbers or strings, got complex128"),
        (
            {"y_test": np.array(list("ababababab"))},
            "y_train and y_test must both be numbers, or both strings",
        ),
        ({"y_train": Y * 0}, "training examples must be of two or more classes, got '0' alone"),
        (
            {"y_test": np.arange(10)},
            "y_test: row 2 is 2, but the training data has the classes '0', '1' alone",
        ),
        ({"y_test": np.arange(10) - 4}, "y_test: row 0 is -4"),
        ({"x_train": np.where(np.arange(30)[:, None] == 3, 1e300, 0) + np.zeros(3)}, "column 0 is too large"),
        ({"x_train": np.arange(90.0).reshape(30, 3) * 1e-300}, "column 0 is too large, too small"),
        ({"x_train": np.arange(90.0).reshape(30, 3), "x_test": X[:10] + 1e300}, "or too far off"),
        ({"y_train": np.array([None] * 30)}, "pickle is never loaded"),
    ],
)
def test_npz_that_cannot_be_learnt_from(tmp_path, rng, changed, fault):
    path = npz(tmp_path, **four(rng, **changed))
    text = line(load, path)
    assert text.startswith(str(path))
    assert fault in text


def test_npz_with_other_names_or_no_npz(tmp_path, rng):
    assert "got X, Y" in line(load, npz(tmp_path, X=X, Y=Y))
    assert "or x, y, got none" in line(load, npz(tmp_path))
    assert "no class has two examples" in line(load, npz(tmp_path, x=X[:2], y=Y[:2]))
    assert "x must have at least one example" in line(load, npz(tmp_path, x=X[:0], y=Y[:0]))
    path = npz(tmp_path, **four(rng))
    path.write_bytes(path.read_bytes()[:-100])
    assert line(load, path).startswith(f"{path}: the file must be an .npz archive, got one that is truncated")


def test_npz_of_numbers(tmp_path, rng):
    """Real labels are numbers; integers are classes, any number of them, unless they are nearly unique."""
    x = rng.normal(size=(60, 2))
    reals = load(npz(tmp_path, x=x, y=np.arange(60) / 7))
    assert (reals.classes, reals.outputs, reals.y_train.dtype) == ((), 1, np.float64)
    assert sorted([*reals.y_train, *reals.y_test]) == sorted(np.arange(60) / 7)
    assert len(reals.y_test) == 12
    assert len(load(npz(tmp_path, x=x, y=np.arange(60) // 2)).classes) == 30
    assert load(npz(tmp_path, x=x, y=np.arange(60))).classes == ()
    assert load(npz(tmp_path, x=x, y=np.arange(60) // 2), task="numbers").classes == ()
    assert "whole numbers or strings for --task classes, got 0.14" in line(
        load, npz(tmp_path, x=x, y=np.arange(60) / 7), task="classes"
    )


def csv_file(tmp_path, text):
    (tmp_path / "mine.csv").write_text(text, newline="")
    return tmp_path / "mine.csv"


GOOD = 'length, width ,kind\n1,2.5,"a"\n2,-1e3, b \n3,0,a\n\n4,1,b\n'


@pytest.mark.parametrize("option", [{"label": "y"}, {"header": False}, {"drop": ("a",)}])
def test_npz_is_no_table(tmp_path, rng, option):
    assert "is for a table; leave it out here" in line(load, npz(tmp_path, **four(rng)), **option)
    assert "are for tables; leave them out here" in line(load, "digits", **option)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = csv_file(tmp_path, GOOD)
    path.chmod(0)
    assert "cannot be read" in line(load, path, label="kind")


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    def broken(*args, **options):
        raise PermissionError(13, "Permission denied", "mine.csv")

    monkeypatch.setitem(files.READERS, ".csv", broken)
    assert line(load, csv_file(tmp_path, GOOD)) == "mine.csv: cannot be read: Permission denied"
