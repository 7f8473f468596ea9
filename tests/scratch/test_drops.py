"""The layers that drop: each is its function, and its backward pass is the function's gradient."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers.by_hand import (
    F64,
    N,
    assert_same_grads,
    fill,
    gamma,
    magnitudes,
    operations,
    random,
    within,
)
from helpers.layers import KEYS, LINE, PLANE, ROOM

from thinned import Key, keep_mask, masks, scratch, theory
from thinned.methods import DROPS
from thinned.scratch import (
    DropConnect,
    Dropout,
    GaussianDropout,
    Layer,
    Linear,
    Sequential,
    SpatialDropout,
)
from thinned.scratch.drops import LAYERS, Drop

KEY = Key(2)
EACH = pytest.mark.parametrize("name", DROPS)


def layer_of(name: str, p: float = 0.3) -> tuple[Any, np.ndarray]:
    """The layer of a method, and an input for it."""
    kind, given = LAYERS[DROPS[name]], DROPS[name].given
    if issubclass(kind, Drop):
        return kind(p, **given), random("x", N, 6, 2)
    return kind(6, 4, p, key=Key(0), **given, **F64), random("x", N, 6)


def by_function(name: str, layer: Any, x: Any, torch: Any = None) -> Any:
    """What the public function gives, for the layer's rate and parameters."""
    params = [torch.from_numpy(one) if torch else one for one in layer.params.values()]
    return DROPS[name].function(x, *params, p=layer.p, key=KEY, **DROPS[name].given)


@EACH
def test_the_layer_is_the_function(name: str) -> None:
    layer, x = layer_of(name)
    expected = by_function(name, layer, x)
    for twin in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(twin) == repr(layer)
        np.testing.assert_array_equal(twin.forward(x, KEY), expected)


@EACH
def test_the_class_has_the_name_and_the_defaults_of_the_function(name: str) -> None:
    method, kind = DROPS[name], LAYERS[DROPS[name]]
    assert kind.__name__.lower() == method.name.replace("_", "")
    assert getattr(scratch, kind.__name__) is kind
    assert kind.__name__ in scratch.__all__
    assert "Source: " in (kind.__doc__ or "") or f"`thinned.{method.name}`" in (kind.__doc__ or "")
    if not issubclass(kind, Drop):
        return
    arguments, layer = inspect.signature(method.function).parameters, kind(**method.given)
    assert all(getattr(layer, name) == arguments[name].default for name in ("p", *method.names))
    with pytest.raises(TypeError, match="unknown"):
        LAYERS[method](0.5, unknown=1)
    with pytest.raises(TypeError, match=r"^p must be"):
        LAYERS[method](None)


@EACH
def test_backward_is_torchs_gradient_of_the_function(name: str, torch: Any) -> None:
    layer, x = layer_of(name)
    tensor = torch.tensor(x, requires_grad=True)
    y = by_function(name, layer, tensor, torch)
    grad = random("grad", *y.shape)
    y.backward(torch.from_numpy(grad.copy()))
    layer.forward(x, KEY)
    size: Any = 0.0  # the same kernels; but a linear layer may add its products in another order
    if isinstance(layer, scratch.Linear):
        size = np.abs(grad) @ np.abs(layer.params["weight"]) / (1 - layer.p)
    assert np.all(np.abs(layer.backward(grad) - tensor.grad.numpy()) <= 2 * gamma(8) * size)


@EACH
def test_backward_is_the_difference_of_two_outputs(name: str) -> None:
    """With its key each layer is affine: ⟨g, f(x + d) − f(x)⟩ = ⟨backward(g), d⟩, to rounding."""
    layer, x = layer_of(name)
    x, d = np.abs(x), np.abs(random("d", *x.shape))
    rise = layer.forward(x + d, KEY) - layer.forward(x, KEY)
    grad = random("grad", *rise.shape)
    came = np.vdot(grad, rise) - np.vdot(layer.backward(grad), d)
    large = magnitudes(layer)  # |a·x| + |b| of f(x) = a·x + b, and both inner products of absolute values
    zero, top = large.forward(np.zeros_like(x), KEY), large.forward(x + d, KEY)
    size = np.vdot(np.abs(grad), 2 * (np.abs(top - zero) + 2 * np.abs(zero)))
    size += np.vdot(large.backward(np.abs(grad)), d)
    assert abs(came) <= gamma(x.size + grad.size + operations(layer)) * size


@EACH
def test_evaluation(name: str) -> None:
    """The function's, forward and back."""
    layer, x = layer_of(name)
    params = layer.params.values()
    expected = DROPS[name].function(x, *params, p=0.3, key=KEY, training=False, **DROPS[name].given)
    np.testing.assert_array_equal(layer.forward(x), expected)
    if isinstance(layer, Drop):
        np.testing.assert_array_equal(layer.backward(x), expected)


@EACH
def test_layers_that_share_a_mask_say_so(name: str) -> None:
    layer, x = layer_of(name, 0.5)
    x = np.ones((1 << 10, *x.shape[1:]))
    y = layer.forward(x, KEY).reshape(len(x), -1)
    assert layer.shares_mask == bool((y[masks.GROUPS :] == y[: -masks.GROUPS]).all())


@pytest.mark.parametrize(
    ("layer", "whole"),
    [
        (LAYERS[DROPS["drop-path"]](0.5, mode="batch"), True),
        (LAYERS[DROPS["drop-path"]](0.5, mode="sample"), False),
        (scratch.DropConnect(3, 2, key=Key(0), per_sample=False), True),
        (scratch.ThinDropout(0.5), True),
    ],
    ids=str,
)
def test_options_may_decide_it(layer: Any, whole: bool) -> None:
    assert layer.shares_mask is whole


@pytest.mark.parametrize(
    "layer", [Dropout(0.5), GaussianDropout(0.5), Dropout(0.0), Dropout(0.0, "test")], ids=repr
)
def test_evaluation_is_the_identity(layer: Layer) -> None:
    x = random("x", N, 6)
    np.testing.assert_array_equal(layer.forward(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)


def test_the_moments_of_paths_that_are_not_scaled() -> None:
    assert scratch.DropPath(p=0.2).moments() == theory.bernoulli_moments(0.2)
    assert scratch.DropPath(p=0.2, scale_by_keep=False).moments() == theory.mask_moments(0.2)


def test_the_two_rules() -> None:
    x, key = random("x", 40, 6), Key(3)
    kept = keep_mask(x.shape, 0.3, key=key)
    np.testing.assert_array_equal(Dropout(0.3, "test").forward(x, key), np.where(kept, x, 0))
    np.testing.assert_array_equal(Dropout(0.3, "test").forward(x), x * 0.7)
    np.testing.assert_array_equal(Dropout(0.3).forward(x, key), np.where(kept, x * (1 / 0.7), 0))
    for rescale in ("train", "test"):
        layer = Dropout(1.0, rescale)
        assert not layer.forward(x, key).any()
        assert not layer.backward(x).any()


def test_dropout_keeps_nothing_but_the_key() -> None:
    layer = Dropout(0.5)
    layer.forward(random("x", 100, 100), Key(4))
    assert layer.__dict__ == {
        "params": {},
        "grads": {},
        "buffers": {},
        "p": 0.5,
        "rescale": "train",
        "_saved": (Key(4),),
    }


@pytest.mark.parametrize(
    "drop", [Dropout(0.3), Dropout(0.8), Dropout(0.3, "test"), GaussianDropout(0.3)], ids=repr
)
def test_training_means_evaluation_for_a_linear_net(drop: Dropout | GaussianDropout) -> None:
    """The mean over M masks of Σ_j w_j x_j r_j is that of evaluation, as far as chance allows.

    With probability 1 − δ it is within √(Σ_j (w_j x_j s)²·ln(2/δ)/(2M)) where r_j has the range s
    (Hoeffding 1963), and within √(2·Σ_j (w_j x_j σ)²·ln(2/δ)/M) where r_j is normal: s = 2σ.
    """
    trials, delta = 4096, 1e-9
    net = Sequential(drop, Linear(6, 4, key=Key(0), **F64))
    x = random("x", 6)
    y = net.forward(np.tile(x, (trials, 1)), Key(8)).mean(axis=0)
    if isinstance(drop, GaussianDropout):
        width = 2 * math.sqrt(drop.p / (1 - drop.p))
    else:
        width = 1.0 if drop.rescale == "test" else 1 / (1 - drop.p)
    terms = net.get_params()["1.weight"] * x * width
    chance = np.sqrt((terms**2).sum(axis=1) * math.log(2 * 4 / delta) / (2 * trials))
    within(y, net.predict(x[None])[0], chance + gamma(trials + 16) * np.abs(terms).sum(axis=1))


@pytest.mark.parametrize("shape", [LINE, PLANE, ROOM])
def test_spatial_dropout_drops_channels(shape: tuple[int, ...]) -> None:
    layer, x, key = SpatialDropout(0.3), random("x", *shape), Key(3)
    kept = keep_mask(shape[:2], 0.3, key=key).reshape(*shape[:2], *[1] * (len(shape) - 2))
    y = layer.forward(x, key)
    within(y, np.where(kept, x / 0.7, 0), gamma(3) * np.abs(y))
    np.testing.assert_array_equal(layer.forward(x), x)
    assert layer.__dict__ == {"params": {}, "grads": {}, "buffers": {}, "p": 0.3, "_saved": (None,)}


# ---- DropConnect ----


def test_drop_connect_masks_each_samples_weights() -> None:
    layer, x, key = fill(DropConnect(6, 4, 0.4, key=Key(0), **F64)), random("x", N, 6), Key(3)
    w, b = layer.params["weight"], layer.params["bias"]
    kept = keep_mask((N, 4, 6), 0.4, key=key)
    for one, units, xn in zip(layer.forward(x, key), kept, x, strict=True):
        size = (np.abs(w) @ np.abs(xn)) / 0.6 + np.abs(b)
        within(one, (np.where(units, w, 0) / 0.6) @ xn + b, gamma(2 * 6 + 8) * size)
    layer.per_sample = False
    shared = np.where(keep_mask((4, 6), 0.4, key=key), w, 0) / 0.6
    size = np.abs(x) @ np.abs(shared).T + np.abs(b)
    within(layer.forward(x, key), x @ shared.T + b, gamma(2 * 6 + 8) * size)


@pytest.mark.parametrize("per_sample", [True, False])
def test_drop_connect_evaluates_the_mean_network(per_sample: bool) -> None:
    drop = fill(DropConnect(6, 4, 0.4, key=Key(0), per_sample=per_sample, **F64))
    mean = fill(Linear(6, 4, key=Key(0), **F64))
    x, weights = random("x", N, 6), random("weights", N, 4)
    size = magnitudes(mean).forward(np.abs(x))
    within(drop.forward(x), mean.forward(x), 2 * gamma(operations(mean)) * size)
    np.testing.assert_array_equal(drop.backward(weights), mean.backward(weights))
    assert_same_grads(drop, mean)


def test_drop_connect_keeps_nothing_but_x_and_the_key() -> None:
    layer, x = DropConnect(6, 4, key=Key(0), **F64), random("x", N, 6)
    layer.forward(x, Key(4))
    assert layer.recall()[0] is x
    assert layer.recall()[1:] == (Key(4),)
    assert not any(
        isinstance(value, np.ndarray) for name, value in layer.__dict__.items() if name not in ("_saved",)
    )


def test_drop_connect_of_all_weights() -> None:
    for per_sample in (True, False):
        layer = fill(DropConnect(6, 4, 1.0, key=Key(0), per_sample=per_sample, **F64))
        y = layer.forward(random("x", N, 6), Key(1))
        np.testing.assert_array_equal(y, np.tile(layer.params["bias"], (N, 1)))
        assert not layer.backward(y).any()
        assert not layer.grads["weight"].any()
        np.testing.assert_array_equal(layer.grads["bias"], y.sum(axis=0))


def test_drop_connect_selects() -> None:
    """A NaN among the dropped weights of a sample is gone, there and back."""
    layer, x, key = DropConnect(6, 4, 0.5, key=Key(0), **F64), random("x", 40, 6), Key(3)
    layer.params["weight"][1, 2] = np.nan
    kept = keep_mask((40, 4, 6), 0.5, key=key)[:, 1, 2]
    assert 0 < kept.sum() < 40
    np.testing.assert_array_equal(np.isnan(layer.forward(x, key)[:, 1]), kept)
    back = layer.backward(random("weights", 40, 4))
    np.testing.assert_array_equal(np.isnan(back[:, 2]), kept)
    assert np.isfinite(np.delete(back, 2, axis=1)).all()
    assert np.isfinite(layer.grads["weight"]).all()


def test_a_sample_does_not_depend_on_the_others() -> None:
    """As many samples as it takes for several blocks of masks: each as in a batch of its own first part."""
    n_in, n_out, n = 300, 200, 40  # 60,000 weights a mask
    layer, key = DropConnect(n_in, n_out, key=Key(0), **F64), Key(3)
    x, weights = random("x", n, n_in), random("weights", n, n_out)
    y, gradient = layer.forward(x, key), layer.backward(weights)
    size, size_back = (
        magnitudes(layer).forward(np.abs(x), key),
        2 * np.abs(weights) @ np.abs(layer.params["weight"]),
    )
    for part in (1, 3, 21):
        y_part = layer.forward(x[:part], key)
        within(y_part, y[:part], 2 * gamma(operations(layer)) * size[:part])
        gradient_part = layer.backward(weights[:part])
        within(gradient_part, gradient[:part], 2 * gamma(operations(layer)) * size_back[:part])


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_drop_connect_in_training_means_evaluation(p: float) -> None:
    """As for dropout, by Hoeffding 1963: terms w_j x_j r_j of range w_j x_j/(1 − p)."""
    trials, delta = 4096, 1e-9
    layer, x = fill(DropConnect(6, 4, p, key=Key(0), **F64)), random("x", 6)
    y = layer.forward(np.tile(x, (trials, 1)), Key(8)).mean(axis=0)
    terms = layer.params["weight"] * x / (1 - p)
    chance = np.sqrt((terms**2).sum(axis=1) * math.log(2 * 4 / delta) / (2 * trials))
    size = np.abs(terms).sum(axis=1) + np.abs(layer.params["bias"])
    within(y, layer.forward(x[None])[0], chance + gamma(trials + 40) * size)


# ---- bad input ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Dropout(50), ValueError, r"p must be in \[0, 1\], got 50"),
        (lambda: Dropout(math.nan), ValueError, "p must be a number, got nan"),
        (lambda: Dropout("half"), TypeError, "p must be a number"),  # type: ignore[arg-type]
        (lambda: Dropout(0.5, "both"), ValueError, "rescale must be one of 'train', 'test'"),
        (lambda: Dropout(0.5).forward(random("x", 2, 3), 0), TypeError, "key must be a thinned.Key"),  # type: ignore[arg-type]
        (lambda: SpatialDropout(50), ValueError, r"p must be in \[0, 1\], got 50"),
        (lambda: DropConnect(6, 4, 50, key=Key(0)), ValueError, r"p must be in \[0, 1\], got 50"),
        (lambda: DropConnect(6, 4, math.nan, key=Key(0)), ValueError, "p must be a number, got nan"),
        (lambda: DropConnect(0, 4, key=Key(0)), ValueError, "n_in must be at least 1"),
        (lambda: DropConnect(6, 4, key=0), TypeError, "key must be a thinned.Key"),  # type: ignore[arg-type]
        (lambda: DropConnect(6, 4, key=Key(0), rate=1), TypeError, "unexpected keyword argument 'rate'"),
    ],
)
def test_bad_arguments(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


FLAT_6 = r"x must have shape \(N, 6\), got"


@pytest.mark.parametrize(
    ("layer", "x", "error", "message"),
    [
        (DropConnect(6, 4, key=Key(0)), np.zeros((2, 5)), ValueError, FLAT_6 + r" \(2, 5\)"),
        (SpatialDropout(), np.zeros(6), ValueError, r"^x must"),
        (SpatialDropout(), np.zeros((2, 6, 2), int), TypeError, r"^x must"),
    ],
)
@KEYS
def test_bad_inputs(layer: Layer, x: Any, error: type[Exception], message: str, key: Key | None) -> None:
    with pytest.raises(error, match=message):
        layer.forward(x, key)
    assert layer._saved is None or isinstance(layer, SpatialDropout)
