"""The scaling of new arrays: as that of training, after it was stored too; what does not fit is refused."""

import json

import numpy as np
import pytest

from thinned.lab.data.arrays import FittedArrays
from thinned.lab.data.fitted import loaded, stored
from thinned.lab.data.registry import load
from thinned.lab.errors import LabError

rng = np.random.default_rng(5)


def saved(inputs):
    about, arrays = stored(inputs)
    return loaded(json.loads(json.dumps(about)), arrays, inputs.label)


@pytest.mark.parametrize("images", [False, True])
def test_new_arrays_are_scaled_as_in_training(tmp_path, images):
    x = rng.integers(0, 256, (40, 3, 4), np.uint8) if images else rng.normal(5, 3, (40, 3, 4))
    np.savez(tmp_path / "t.npz", x_train=x[:30], y_train=np.arange(30) % 2, x_test=x[30:], y_test=[0, 1] * 5)
    data = load(tmp_path / "t.npz")
    for inputs in (data.fitted, saved(data.fitted)):
        np.testing.assert_allclose(inputs.transform(x[30:]), data.x_test, rtol=1e-6, atol=1e-7)
        flat = x[30:].reshape(10, -1)
        np.testing.assert_array_equal(inputs.transform(flat), inputs.transform(x[30:]))
        assert inputs.width == 12


def test_digits_are_scaled_as_scikit_learn_gives_them():
    from sklearn.datasets import load_digits

    data = load("digits")
    assert data.fitted is not None
    x = data.fitted.transform(load_digits().images)
    known = {row.tobytes() for row in x}
    assert all(row.tobytes() in known for row in data.x_test)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((2, 3), np.uint8), r"must have the shape \(N, 2, 2\), as in training, got \(2, 3\)"),
        (np.zeros((2, 2)), r"must have the shape \(N, 2, 2\), as in training, got \(2, 2\)"),
        (np.zeros((1, 2, 2)), "must be uint8, as in training, got float64"),
        (np.array([["a"] * 4]), "must be uint8, as in training, got <U1"),
    ],
)
def test_other_arrays_are_refused(x, message):
    with pytest.raises(LabError, match=f"examples {message}"):
        FittedArrays.scaled((2, 2), 1 / 255, images=True).transform(x)


def test_bytes_are_refused_where_training_had_numbers():
    with pytest.raises(
        LabError, match="examples must be numbers other than uint8, as in training, got uint8"
    ):
        FittedArrays.scaled((2,), 1.0).transform(np.zeros((1, 2), np.uint8))


def test_a_damaged_scaling_is_refused():
    for mean in (np.zeros(3), np.full(1, np.nan)):
        with pytest.raises(ValueError, match="mean must be one number, or one a feature"):
            FittedArrays((2,), mean, np.ones(1))
    with pytest.raises(TypeError, match="thinned compare fits it"):
        FittedArrays.scaled((2,), 1.0).fit(np.zeros((1, 2)))
