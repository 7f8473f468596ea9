"""Networks, judged by finite differences, by torch's autograd and by the textbook rules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers.by_hand import (
    F64,
    N,
    assert_same_grads,
    fill,
    gamma,
    judge_by_differences,
    judge_by_torch,
    magnitudes,
    operations,
    random,
    within,
)
from helpers.layers import KEYS, REGULARISED, three_layers

from thinned import Key
from thinned.scratch import (
    Adam,
    BatchNorm,
    DropConnect,
    Dropout,
    GaussianDropout,
    LayerNorm,
    Linear,
    Maxout,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
    ThreeLayerNet,
    mlp,
    networks,
)


def small_sequential(rescale: str = "train") -> Sequential:
    return Sequential(
        Dropout(0.2, rescale),
        Linear(6, 8, key=Key(1), **REGULARISED),
        ReLU(),
        Dropout(0.5, rescale),
        Linear(8, 4, key=Key(2), l2=0.1, **F64),
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "linear": lambda: Linear(6, 4, key=Key(0), **F64),
    "linear-l1": lambda: Linear(6, 4, key=Key(0), l1=0.3, bias_l1=0.2, **F64),
    "linear-l2": lambda: Linear(6, 4, key=Key(0), l2=0.3, bias_l2=0.2, **F64),
    "relu": ReLU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "softmax": Softmax,
    "dropout": lambda: Dropout(0.3),
    "dropout-original": lambda: Dropout(0.3, "test"),
    "gaussian": lambda: GaussianDropout(0.3),
    "sequential": small_sequential,
    "sequential-original": lambda: small_sequential("test"),
    "three": three_layers,
    "three-original": lambda: three_layers("test"),
    "three-no-dropout": lambda: three_layers(p=0.0, input_p=0.0),
    "mlp-sigmoid": lambda: mlp((6, 7, 4), key=Key(3), drop=Dropout, input_p=0.2, activation="sigmoid", **F64),
    "mlp-gaussian": lambda: mlp(
        (6, 7, 5, 4), key=Key(3), drop=GaussianDropout, p=0.3, l1=0.01, l2=0.1, **F64
    ),
    "mlp-tanh": lambda: mlp((6, 7, 4), key=Key(3), drop=Dropout, activation="tanh", **F64),
    "mlp-identity": lambda: mlp((6, 7, 4), key=Key(3), drop=Dropout, activation="identity", **F64),
    "nested": lambda: Sequential(small_sequential(), ReLU(), Linear(4, 3, key=Key(4), **F64)),
}
LAYERS = pytest.mark.parametrize("name", MAKERS)


@KEYS
@LAYERS
def test_backward_is_the_finite_difference(name: str, key: Key | None) -> None:
    judge_by_differences(fill(MAKERS[name]()), random("x", N, 6), key)


@KEYS
@LAYERS
def test_backward_is_torchs_autograd(name: str, key: Key | None, torch: Any) -> None:
    judge_by_torch(torch, fill(MAKERS[name]()), random("x", N, 6), key)


@KEYS
@pytest.mark.parametrize("maker", [small_sequential, three_layers])
def test_float32_is_float64_rounded(maker: Callable[[], Any], key: Key | None) -> None:
    wide = fill(maker())
    narrow = copy.deepcopy(wide)
    for layer in narrow.children.values():
        if isinstance(layer, Linear):
            layer.dtype = np.dtype(np.float32)
            layer.params = {n: p.astype(np.float32) for n, p in layer.params.items()}
            layer.grads = {n: np.zeros_like(p) for n, p in layer.params.items()}
    wide.set_params(narrow.get_params())
    x, weights = random("x", N, 6).astype(np.float32), random("weights", N, 4).astype(np.float32)
    y, gradient = narrow.forward(x, key), narrow.backward(weights)
    twin, bound = magnitudes(wide), 2 * gamma(operations(wide), 2.0**-24)
    within(y, wide.forward(x.astype(np.float64), key), bound * twin.forward(np.abs(x), key))
    within(gradient, wide.backward(weights.astype(np.float64)), bound * twin.backward(np.abs(weights)))
    assert y.dtype == gradient.dtype == np.float32
    triples = zip(narrow.named_params(), wide.named_params(), twin.named_params(), strict=True)
    for (_, _, grad), (_, _, exact), (_, _, size) in triples:
        assert grad.dtype == np.float32
        within(grad, exact, bound * size)


def test_children_get_keys_folded_by_name() -> None:
    net, x, key = small_sequential(), random("x", N, 6), Key(6)
    y = x
    for name, layer in net.children.items():
        y = layer.forward(y, key.fold_in(name))
    np.testing.assert_array_equal(net.forward(x, key), y)


def test_three_layer_net_is_its_chain_of_layers() -> None:
    net, x, key = fill(three_layers()), random("x", N, 6), Key(6)
    chain = networks.Network(copy.deepcopy(net.children))
    np.testing.assert_array_equal(net.forward(x, key), chain.forward(x, key))
    weights = random("weights", N, 4)
    np.testing.assert_array_equal(net.backward(weights), chain.backward(weights))
    assert_same_grads(net, chain)
    assert [name for name, _, _ in net.named_params()] == [
        f"{fc}.{name}" for fc in ("fc1", "fc2", "fc3") for name in ("weight", "bias")
    ]


@pytest.mark.parametrize("name", ["sequential", "three", "nested", "mlp-gaussian", "linear"])
def test_param_grads_are_those_of_backward(name: str) -> None:
    full = fill(MAKERS[name]())
    short, x, key = copy.deepcopy(full), random("x", N, 6), Key(6)
    weights = random("weights", *full.forward(x, key).shape)
    full.backward(weights)
    short.forward(x, key)
    assert short.param_grads(weights) is None
    assert_same_grads(full, short)


def test_mlp_starts_alike_with_every_method() -> None:
    nets = [
        mlp((6, 8, 7, 4), key=Key(1), drop=drop, input_p=0.2) for drop in (None, Dropout, GaussianDropout)
    ]
    first, *others = [[param for _, param, _ in net.named_params()] for net in nets]
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)
    kinds = [type(layer).__name__ for layer in nets[1].children.values()]
    assert kinds == ["Dropout", *["Linear", "ReLU", "Dropout"] * 2, "Linear"]
    assert [type(layer) for layer in nets[0].children.values()] == [Linear, ReLU, Linear, ReLU, Linear]
    assert all(param.dtype == np.float32 for param in first)


def test_predict_in_parts_is_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = fill(three_layers()), random("x", 10, 6)
    whole = net.predict(x)
    np.testing.assert_array_equal(whole, net.forward(x))
    monkeypatch.setattr(networks, "PREDICT_ROWS", 3)
    size = magnitudes(net).forward(np.abs(x))
    within(net.predict(x), whole, 2 * gamma(operations(net)) * size)
    assert net.predict(x[:0]).shape == (0, 4)


def test_get_and_set_params() -> None:
    net, other = three_layers(), three_layers()
    params = {name: param + 1 for name, param in net.get_params().items()}
    assert net.get_params()["fc1.weight"] is not net.fc1.params["weight"]
    held = net.fc1.params["weight"]
    net.set_params(params)
    assert net.fc1.params["weight"] is held  # in place
    for name, param in net.get_params().items():
        np.testing.assert_array_equal(param, params[name])
    x = random("x", N, 6)
    other.set_params(net.get_params())
    np.testing.assert_array_equal(net.predict(x), other.predict(x))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p: p.pop("fc3.bias"), ValueError, "missing fc3.bias, unknown none"),
        (lambda p: p.update(extra=p["fc1.bias"]), ValueError, "missing none, unknown extra"),
        (
            lambda p: p.update({"fc3.bias": np.zeros(3)}),
            ValueError,
            r"fc3.bias'\] must have shape \(4,\), got \(3,\)",
        ),
        (lambda p: p.update({"fc3.bias": np.zeros(4, int)}), TypeError, "fc3.bias.*floating-point.*int64"),
        (lambda p: p.update({"fc3.bias": [0.0] * 4}), TypeError, "fc3.bias.*NumPy array, got list"),
    ],
)
def test_set_params_takes_all_or_nothing(
    change: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    net = three_layers()
    before = net.get_params()
    params = {name: param + 1 for name, param in before.items()}
    change(params)
    with pytest.raises(error, match=message):
        net.set_params(params)
    for name, param in net.get_params().items():
        np.testing.assert_array_equal(param, before[name])


def test_a_net_with_everything_learns() -> None:
    x, labels, loss = random("x", 32, 6).astype(np.float32), np.arange(32) % 4, SoftmaxCrossEntropy()
    net = Sequential(
        Maxout(6, 32, pieces=3, key=Key(0), max_norm=4.0),
        BatchNorm(32),
        DropConnect(32, 32, 0.2, key=Key(1)),
        LayerNorm(32),
        ReLU(),
        Linear(32, 4, key=Key(2)),
    )
    optimizer = Adam(0.01)
    for t in range(200):
        loss.forward(net.forward(x, Key(3).fold_in(t)), labels)
        net.backward(loss.backward())
        optimizer.step(net)
    np.testing.assert_array_equal(net.predict(x).argmax(axis=1), labels)  # random labels, by heart


def test_mlp_of_each_kind() -> None:
    def kinds(net: Sequential) -> list[str]:
        return [type(layer).__name__ for layer in net.children.values()]

    sizes, key = (6, 8, 7, 4), Key(1)
    maxout = mlp(sizes, key=key, drop=Dropout, input_p=0.2, activation="maxout", pieces=3, max_norm=2.0)
    assert kinds(maxout) == ["Dropout", *["Maxout", "Dropout"] * 2, "Linear"]
    assert maxout.children["1"].pieces == 3
    assert [maxout.children[i].linear.max_norm for i in "13"] == [2.0, 2.0]
    assert maxout.children["5"].max_norm is None
    shared = partial(DropConnect, per_sample=False)
    connect = mlp(sizes, key=key, drop=None, connect=shared, p=0.4, input_p=0.1)
    assert kinds(connect) == [*["DropConnect", "ReLU"] * 2, "DropConnect"]
    assert [connect.children[i].p for i in "024"] == [0.1, 0.4, 0.4]
    plain = mlp(sizes, key=key, drop=None)
    for (_, a), (_, b) in zip(connect.named_arrays(), plain.named_arrays(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ThreeLayerNet(6, 0, 3, 2, key=Key(0)), ValueError, "n_hidden1 must be at least 1, got 0"),
        (lambda: ThreeLayerNet(6, 3, 3, 2, key=Key(0), p=50), ValueError, r"p must be in \[0, 1\], got 50"),
        (
            lambda: ThreeLayerNet(6, 3, 3, 2, key=Key(0), input_p=2),
            ValueError,
            r"input_p must be in \[0, 1\]",
        ),
        (
            lambda: ThreeLayerNet(6, 3, 3, 2, key=Key(0), nesterov=True),
            ValueError,
            "nesterov must be False without momentum",
        ),
        (lambda: ThreeLayerNet(6, 3, 3, 2, key=0), TypeError, r"key must be a thinned.Key.*got 0 \(int\)"),  # type: ignore[arg-type]
        (lambda: mlp((6, 0, 2), key=Key(0), drop=None), ValueError, r"sizes\[1\] must be at least 1, got 0"),
        (
            lambda: mlp((6,), key=Key(0), drop=None),
            ValueError,
            r"sizes must be \(n_in, \*hidden, n_out\), got \(6,\)",
        ),
        (
            lambda: mlp((6, 2), key=Key(0), drop=None, activation="swish"),
            ValueError,
            "activation must be one of 'relu'",
        ),
        (lambda: mlp((6, 2), key=Key(0), drop=None, p=50), ValueError, r"p must be in \[0, 1\], got 50"),
        (lambda: three_layers().forward(random("x", 2, 6), 7), TypeError, "key must be a thinned.Key"),  # type: ignore[arg-type]
        (lambda: Sequential(ReLU, ReLU()), TypeError, "layer 0 must be a thinned.scratch.Layer, got type"),  # type: ignore[arg-type]
        (lambda: Sequential(*[ReLU()] * 2), ValueError, "must hold each layer once"),
        (
            lambda: mlp((6, 4), key=Key(0), drop=Dropout, connect=DropConnect),
            ValueError,
            "connect must be None with a drop",
        ),
        (
            lambda: mlp((6, 5, 4), key=Key(0), drop=None, connect=DropConnect, activation="maxout"),
            ValueError,
            "connect must be None with a drop or with maxout",
        ),
    ],
)
def test_bad_arguments(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_bad_shapes_and_types() -> None:
    net = mlp((784, 4, 3), key=Key(0), drop=Dropout)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 784\), got \(5, 64\)"):
        net.forward(random("x", 5, 64))
    with pytest.raises(ValueError, match=r"x must have shape \(N, 784\), got \(784,\)"):
        net.predict(random("x", 784))
    with pytest.raises(TypeError, match="x must hold floating-point numbers, got dtype uint8"):
        net.forward(np.zeros((5, 784), np.uint8))
    with pytest.raises(TypeError, match="x must be a NumPy array, got list"):
        net.forward([[0.0]])  # type: ignore[arg-type]
    net.forward(random("x", 5, 784))
    with pytest.raises(
        ValueError, match=r"grad must have shape \(5, 3\), as in the last forward pass, got \(5, 4\)"
    ):
        net.backward(random("grad", 5, 4))


@LAYERS
def test_backward_before_forward(name: str) -> None:
    with pytest.raises(RuntimeError, match="backward: call forward first"):
        MAKERS[name]().backward(random("x", N, 4))
