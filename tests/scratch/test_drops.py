"""The drop layers of all methods: each is its function, and its backward pass is the function's gradient."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import numpy as np
import pytest
from helpers.by_hand import F64, N, gamma, magnitudes, operations, random

from thinned import Key, scratch
from thinned.methods import DROPS
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
    assert layer.whole_batch == bool((y == y[0]).all())


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
    assert layer.whole_batch is whole
