"""What every layer must do: gradients, dtypes, buffers, and what it leaves alone."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.by_hand import (
    N,
    assert_same_grads,
    gamma,
    judge_by_differences,
    judge_by_torch,
    magnitudes,
    operations,
    random,
    within,
)
from helpers.layers import CASES, KEYS, LAYERS, NORMS, case, three_layers

from thinned import Key
from thinned.scratch import (
    SGD,
    Adam,
    BatchNorm,
    DropConnect,
    Dropout,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    Maxout,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    SpatialDropout,
    load_params,
    save_params,
)


@KEYS
@LAYERS
def test_backward_is_the_finite_difference(name: str, key: Key | None) -> None:
    layer, x = case(name)
    judge_by_differences(layer, x, key)


@KEYS
@LAYERS
def test_backward_is_torchs_autograd(name: str, key: Key | None, torch: Any) -> None:
    layer, x = case(name)
    judge_by_torch(torch, layer, x, key)


@LAYERS
def test_input_and_gradient_are_left_alone_and_grads_are_filled_in_place(name: str) -> None:
    layer, x = case(name)  # x must not be written to: its flag says so
    held = {n: grad for n, _, grad in layer.named_params()}
    y = layer.forward(x, Key(1))
    weights = random("weights", *y.shape)
    first = layer.backward(weights).copy()
    grads = {n: grad.copy() for n, grad in held.items()}
    y *= 0  # what a caller does to the output is not the layer's business
    np.testing.assert_array_equal(layer.backward(weights), first)
    for n, _, grad in layer.named_params():
        assert grad is held[n]
        np.testing.assert_array_equal(grad, grads[n])


@LAYERS
def test_param_grads_are_those_of_backward(name: str) -> None:
    full, x = case(name)
    short, key = copy.deepcopy(full), Key(6)
    weights = random("weights", *full.forward(x, key).shape)
    full.backward(weights)
    short.forward(x, key)
    assert short.param_grads(weights) is None
    assert_same_grads(full, short)


@LAYERS
def test_backward_checks_that_forward_was_and_the_shape(name: str) -> None:
    layer, x = case(name)
    fresh = CASES[name][0]()
    with pytest.raises(RuntimeError, match="backward: call forward first"):
        fresh.backward(random("x", N, 4))
    if not isinstance(layer, SpatialDropout):  # linear: any gradient will do
        layer.forward(x, Key(1))
        with pytest.raises(ValueError, match=r"grad must have shape .* as in the last forward pass, got"):
            layer.backward(random("x", 7, 7))


@LAYERS
def test_key_is_checked(name: str) -> None:
    layer, x = case(name)
    if not isinstance(layer, (Maxout, InstanceNorm, GroupNorm, LayerNorm)):  # the same with a key as without
        with pytest.raises(TypeError, match=r"key must be a thinned\.Key"):
            layer.forward(x, 7)


@pytest.mark.parametrize("name", [n for n in CASES if "connect" in n or "maxout" in n or n in NORMS])
def test_float32_is_float64_rounded(name: str) -> None:
    wide, x = case(name)
    narrow = CASES[name][0]()
    stack = [narrow, *getattr(narrow, "children", {}).values()]
    for layer in (*stack, *(inner.linear for inner in stack if isinstance(inner, Maxout))):
        layer.dtype = np.dtype(np.float32)
        for arrays in (layer.params, layer.grads, layer.buffers):
            arrays.update({n: a.astype(np.float32) for n, a in arrays.items()})
    for (_, to), (_, array) in zip(narrow.named_arrays(), wide.named_arrays(), strict=True):
        to[...] = array
        array[...] = to
    key, x = Key(11), x.astype(np.float32)
    y = narrow.forward(x, key)
    weights = random("weights", *y.shape).astype(np.float32)
    gradient, twin = narrow.backward(weights), magnitudes(wide)
    bound = 2 * gamma(operations(wide), 2.0**-24)
    within(y, wide.forward(x.astype(np.float64), key), bound * twin.forward(np.abs(x), key))
    within(gradient, wide.backward(weights.astype(np.float64)), bound * twin.backward(np.abs(weights)))
    assert y.dtype == gradient.dtype == np.float32
    for (_, _, grad), (_, _, exact), (_, _, size) in zip(
        narrow.named_params(), wide.named_params(), twin.named_params(), strict=True
    ):
        assert grad.dtype == np.float32
        within(grad, exact, bound * size)


def test_empty_batches() -> None:
    for layer, shape in (
        (BatchNorm(6), (0, 6)),  # in evaluation
        (InstanceNorm(6), (0, 6, 3)),
        (GroupNorm(2, 6), (0, 6)),
        (LayerNorm(6), (0, 6)),
        (DropConnect(6, 6, key=Key(0)), (0, 6)),
        (Maxout(6, 6, key=Key(0)), (0, 6)),
    ):
        x = np.zeros(shape, np.float32)
        assert layer.forward(x).shape == shape
        assert layer.backward(x).shape == shape
        assert not any(grad.any() for grad in layer.grads.values())
    drop = DropConnect(6, 4, key=Key(0))
    assert drop.forward(np.zeros((0, 6), np.float32), Key(1)).shape == (0, 4)
    assert drop.backward(np.zeros((0, 4), np.float32)).shape == (0, 6)


def test_non_finite_parameters_show() -> None:
    net, loss, labels = three_layers(p=0.0, input_p=0.0), SoftmaxCrossEntropy(), np.zeros(N, int)
    assert net.finite()
    net.fc1.params["weight"][0, 0] = np.nan
    assert not net.finite()
    assert math.isnan(loss.forward(net.forward(random("x", N, 6)), labels))
    net.fc1.params["weight"][0] = 0.0
    net.fc1.params["bias"][0] = -np.inf  # the ReLU's zero hides it from the loss
    assert math.isfinite(loss.forward(net.forward(random("x", N, 6)), labels))
    assert not net.finite()


# ---- buffers ----


def batch_net(seed: int = 0) -> Sequential:
    return Sequential(
        Linear(6, 16, key=Key(seed), l2=1e-3), BatchNorm(16), ReLU(), Dropout(0.3), Linear(16, 4, key=Key(9))
    )


def train(net: Sequential, optimizer: Any, start: int, stop: int) -> None:
    loss, x, labels = SoftmaxCrossEntropy(), random("x", 32, 6).astype(np.float32), np.arange(32) % 4
    for t in range(start, stop):
        loss.forward(net.forward(x, Key(1).fold_in(t)), labels)
        net.param_grads(loss.backward())
        optimizer.step(net)


def test_buffers_are_saved_and_not_learned() -> None:
    net = batch_net()
    saved, learned = net.get_params(), [name for name, _, _ in net.named_params()]
    assert [name for name in saved if name not in learned] == ["1.running_mean", "1.running_var"]
    train(net, SGD(0.1), 0, 1)
    buffers = {name: array for name, array in net.get_params().items() if "running" in name}
    optimizer = Adam(0.1)
    optimizer.step(net)
    assert not any("running" in name for name in optimizer.state())
    for name, array in buffers.items():
        np.testing.assert_array_equal(net.get_params()[name], array)
        assert (array != saved[name]).any()
    net.children["1"].buffers["running_var"][0] = np.inf
    assert not net.finite()


def test_training_with_buffers_goes_on_bit_for_bit(tmp_path: Path) -> None:
    whole, half, x = batch_net(), batch_net(), random("x", 32, 6)
    train(whole, SGD(0.1, 0.9), 0, 10)
    optimizer = SGD(0.1, 0.9)
    train(half, optimizer, 0, 5)
    half.predict(x)  # an evaluation in between
    save_params(tmp_path / "net.npz", half.get_params())
    fresh, later = batch_net(seed=99), SGD(0.1, 0.9)
    fresh.set_params(load_params(tmp_path / "net.npz"))
    np.testing.assert_array_equal(fresh.predict(x), half.predict(x))
    later.load(optimizer.state())
    train(fresh, later, 5, 10)
    for (name, one), (_, other) in zip(whole.named_arrays(), fresh.named_arrays(), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
    np.testing.assert_array_equal(fresh.predict(x), whole.predict(x))


def test_set_params_checks_buffers() -> None:
    net = batch_net()
    params = net.get_params()
    held = net.children["1"].buffers["running_mean"]
    with pytest.raises(ValueError, match=r"missing 1\.running_var, unknown none"):
        net.set_params({name: array for name, array in params.items() if name != "1.running_var"})
    with pytest.raises(ValueError, match=r"1.running_mean'\] must have shape \(16,\), got \(3,\)"):
        net.set_params({**params, "1.running_mean": np.zeros(3)})
    net.set_params({**params, "1.running_mean": np.ones(16)})
    assert net.children["1"].buffers["running_mean"] is held
    assert (held == 1).all()
