"""Data sets without files: digits and the spiral."""

import sys

import numpy as np
import pytest
from helpers.data import check, line

from thinned import Key
from thinned.lab.data.registry import load
from thinned.lab.data.small import spiral


def test_digits_are_split_the_same_way_everywhere():
    pytest.importorskip("sklearn")
    digits = check(load("digits"))
    assert (digits.x_train.shape, digits.x_test.shape, digits.shape) == ((1438, 64), (359, 64), (8, 8))
    assert digits.x_train.min() == 0.0
    assert digits.x_train.max() == 1.0
    assert np.bincount(digits.y_test).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert digits.fingerprint == load("digits").fingerprint == "c0b953bb1c335a544c1ea72626603b19"
    assert len(load("digits", test_share=0.5).x_test) == pytest.approx(1797 / 2, abs=10)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert 'pip install "thinned[lab]"' in line(load, "digits")


def test_spiral_is_the_sources():
    dataset = check(load("spiral"))
    assert dataset.x_train.shape == dataset.x_test.shape == (3000, 2)
    assert dataset.classes == ("0", "1", "2")
    x, y = spiral(key=Key(0).fold_in("spiral").fold_in("points"))
    assert np.bincount(y).tolist() == [2000, 2000, 2000]
    r = np.hypot(x[:, 0], x[:, 1]).reshape(3, 2000)
    np.testing.assert_allclose(r, np.tile(np.linspace(0, 1, 2000), (3, 1)), atol=1e-6)
    angle = np.unwrap(
        np.arctan2(x[:, 0], x[:, 1]).reshape(3, 2000)[:, 400:] - 2.5 * np.linspace(0, 4, 2000)[400:]
    )
    turned = angle - 10 * np.arange(3)[:, None]
    noise = np.angle(np.exp(1j * turned)) / 2.5
    n = noise.size  # the noise is N(0, 0.2²): five standard errors of mean and deviation
    assert abs(noise.mean()) < 5 * 0.2 / n**0.5
    assert abs(noise.std() - 0.2) < 5 * 0.2 / (2 * n) ** 0.5
    everything = np.concatenate([dataset.x_train, dataset.x_test])
    assert sorted(map(tuple, everything.tolist())) == sorted(map(tuple, x.tolist()))


def test_spiral_checks_its_arguments():
    with pytest.raises(ValueError, match="samples"):
        spiral(0, key=Key(0))
    with pytest.raises(TypeError, match="key"):
        spiral(key=0)
    assert spiral(1, 2, key=Key(0))[0].tolist() == [[0.0, 0.0], [0.0, 0.0]]
