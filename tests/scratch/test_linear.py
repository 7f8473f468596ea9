"""Linear layers and Maxout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.by_hand import F64, N, fill, gamma, magnitudes, operations, random, within
from helpers.layers import KEYS

from thinned import Key
from thinned.scratch import SGD, Layer, Linear, Maxout, ReLU, Sequential, SpatialDropout


@pytest.mark.parametrize(
    ("init", "std"), [("he", (2 / 400) ** 0.5), ("xavier", (2 / 700) ** 0.5), (0.01, 0.01)]
)
def test_first_weights(init: Any, std: float) -> None:
    weight = Linear(400, 300, key=Key(0), init=init, **F64).params["weight"]
    # Σ z² of n normal numbers is within 2√(n·t) + 2t of n but for a chance of 2e⁻ᵗ (Laurent, Massart 2000)
    n, t = weight.size, math.log(2 / 1e-9)
    assert abs((weight**2).sum() / std**2 - n) <= 2 * math.sqrt(n * t) + 2 * t
    assert abs(weight.sum()) / std <= math.sqrt(2 * n * t)


# ---- Maxout ----


def test_maxout_is_the_largest_of_linear_layers() -> None:
    layer, x = fill(Maxout(6, 4, pieces=3, key=Key(0), **F64)), random("x", N, 6)
    w, b = layer.params["weight"].reshape(3, 4, 6), layer.params["bias"].reshape(3, 4)
    z = np.einsum("ni,joi->njo", x, w) + b
    size = magnitudes(layer).forward(np.abs(x))
    within(layer.forward(x, Key(1)), z.max(axis=1), 2 * gamma(operations(layer)) * size)
    np.testing.assert_array_equal(layer.forward(x, Key(1)), layer.forward(x))


def test_maxout_with_a_piece_of_zeros_is_relu() -> None:
    layer, x = fill(Maxout(6, 4, key=Key(0), **F64)), random("x", N, 6)
    for param in layer.params.values():
        param[4:] = 0
    chain = Sequential(Linear(6, 4, key=Key(0), **F64), ReLU())
    chain.set_params({f"0.{name}": param[:4].copy() for name, param in layer.params.items()})
    bound = 2 * gamma(operations(chain)) * magnitudes(chain).forward(np.abs(x))
    within(layer.forward(x), chain.forward(x), bound)


def test_among_equal_pieces_the_first_counts() -> None:
    layer, weights = Maxout(6, 4, pieces=3, key=Key(0), init=0.0, **F64), random("weights", N, 4)
    layer.forward(random("x", N, 6))
    layer.backward(weights)
    np.testing.assert_array_equal(layer.grads["bias"][:4], weights.sum(axis=0))
    assert not layer.grads["bias"][4:].any()


def test_maxout_shows_nan() -> None:
    layer = Maxout(6, 4, pieces=3, key=Key(0), **F64)
    layer.params["bias"][2 * 4 + 1] = np.nan
    assert (np.isnan(layer.forward(random("x", N, 6))) == [False, True, False, False]).all()


def test_max_norm_of_each_piece() -> None:
    layer = Maxout(6, 40, pieces=3, key=Key(0), max_norm=0.9, **F64)
    before = layer.params["weight"].copy()
    norm = np.sqrt((before**2).sum(axis=1))
    assert (norm > 0.9).any()
    assert (norm <= 0.9).any()
    SGD(0.1).step(layer)  # gradients are zero: the projection alone
    after = layer.params["weight"]
    np.testing.assert_array_equal(after[norm <= 0.9], before[norm <= 0.9])
    assert (np.sqrt((after**2).sum(axis=1)) <= 0.9 * (1 + gamma(20))).all()


@pytest.mark.parametrize(
    ("init", "std"), [("he", (1 / 400) ** 0.5), ("xavier", (2 / 500) ** 0.5), (0.01, 0.01)]
)
def test_first_weights_of_maxout(init: Any, std: float) -> None:
    weight = Maxout(400, 100, pieces=3, key=Key(0), init=init, **F64).params["weight"]
    # Σ z² of n normal numbers is within 2√(n·t) + 2t of n but for a chance of 2e⁻ᵗ (Laurent, Massart 2000)
    n, t = weight.size, math.log(2 / 1e-9)
    assert n == 400 * 100 * 3
    assert abs((weight**2).sum() / std**2 - n) <= 2 * math.sqrt(n * t) + 2 * t


# ---- bad input ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Linear(0, 3, key=Key(0)), ValueError, "n_in must be at least 1, got 0"),
        (lambda: Linear(2, 3, key=Key(0), init="zeros"), ValueError, "init must be one of 'he', 'xavier'"),
        (lambda: Linear(2, 3, key=Key(0), l2=-1), ValueError, "l2 must be finite and at least 0"),
        (
            lambda: Linear(2, 3, key=Key(0), max_norm=0),
            ValueError,
            "max_norm must be finite and greater than 0",
        ),
        (
            lambda: Linear(2, 3, key=Key(0), dtype=int),
            ValueError,
            "dtype must be float32 or float64, got int64",
        ),
        (lambda: Maxout(6, 4, pieces=0, key=Key(0)), ValueError, "pieces must be at least 1, got 0"),
        (lambda: Maxout(6, 0, key=Key(0)), ValueError, "n_out must be at least 1, got 0"),
        (lambda: Maxout(6, 4, key=Key(0), init="zeros"), ValueError, "init must be one of 'he', 'xavier'"),
        (lambda: Maxout(6, 4, key=Key(0), max_norm=0), ValueError, "max_norm must be finite and greater"),
    ],
)
def test_bad_arguments(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


FLAT_6 = r"x must have shape \(N, 6\), got"


@pytest.mark.parametrize(
    ("layer", "x", "error", "message"),
    [
        (Maxout(6, 4, key=Key(0)), np.zeros(6), ValueError, FLAT_6 + r" \(6,\)"),
    ],
)
@KEYS
def test_bad_inputs(layer: Layer, x: Any, error: type[Exception], message: str, key: Key | None) -> None:
    with pytest.raises(error, match=message):
        layer.forward(x, key)
    assert layer._saved is None or isinstance(layer, SpatialDropout)
