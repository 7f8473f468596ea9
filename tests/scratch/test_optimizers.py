"""Optimizers, against torch's; training that stops and goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.by_hand import F64, fill, gamma, random, within
from helpers.layers import three_layers

from thinned import Key
from thinned.scratch import (
    SGD,
    Adam,
    Dropout,
    Linear,
    SoftmaxCrossEntropy,
    ThreeLayerNet,
    load_params,
    mlp,
    networks,
    save_params,
)


def optimizer_pair(torch: Any, kind: str, params: list[Any]) -> tuple[Any, Any]:
    lr = 0.05
    if kind == "adam":
        return Adam(lr, eps=1e-7), torch.optim.Adam(params, lr=lr, eps=1e-7)
    momentum, nesterov = {"sgd": (0.0, False), "momentum": (0.9, False), "nesterov": (0.9, True)}[kind]
    return SGD(lr, momentum, nesterov), torch.optim.SGD(params, lr=lr, momentum=momentum, nesterov=nesterov)


@pytest.mark.parametrize("kind", ["sgd", "momentum", "nesterov", "adam"])
def test_optimizer_is_torchs_step_for_step(kind: str, torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thinned.kernels.survivors.BLOCK", 12)  # so that one parameter takes several blocks
    layer = fill(Linear(6, 4, key=Key(0), **F64))
    tensors = {
        name: torch.tensor(param.copy(), requires_grad=True) for name, param, _ in layer.named_params()
    }
    ours, theirs = optimizer_pair(torch, kind, list(tensors.values()))
    # sums of absolute values, for the bound: of w, and of g in the moment
    size = {name: np.abs(param) for name, param, _ in layer.named_params()}
    moment: dict[str, Any] = dict.fromkeys(tensors, 0.0)
    square: dict[str, Any] = dict.fromkeys(tensors, 0.0)
    for t in range(1, 21):
        ours.lr = theirs.param_groups[0]["lr"] = 0.05 / t**0.5
        for name, _, grad in layer.named_params():
            grad[...] = random(f"{name} {t}", *grad.shape)
            tensors[name].grad = torch.tensor(grad)
            if kind == "adam":
                moment[name] = 0.9 * moment[name] + 0.1 * np.abs(grad)
                square[name] = 0.999 * square[name] + 0.001 * grad**2
                step = moment[name] / (1 - 0.9**t) / np.sqrt(square[name] / (1 - 0.999**t))
            else:
                moment[name] = (0.0 if kind == "sgd" else 0.9) * moment[name] + np.abs(grad)
                step = moment[name] * (0.9 if kind == "nesterov" else 1.0) + np.abs(grad)
            size[name] = size[name] + ours.lr * step
        ours.step(layer)
        theirs.step()
        for name, param, _ in layer.named_params():
            # about 12 roundings a step on either side; 1 − β₂ᵗ loses the digits of β₂ᵗ ≈ 1
            lost = 1 / (1 - 0.999**t) if kind == "adam" else 1.0
            within(
                param, tensors[name].detach().numpy(), 2 * gamma(12 * t + math.ceil(4 * lost)) * size[name]
            )
    assert ours.t == 20


def test_adam_decays_its_rate_as_the_source_prints_it() -> None:
    adam = Adam(0.05, decay=5e-5)
    for epoch, printed in (
        (9500, 0.03389945421878708),
        (9900, 0.0334459346466437),
        (10000, 0.03333444448148271),
    ):
        adam.t = epoch - 1  # printed after the forward pass, before the step: the rate of the epoch before
        assert abs(adam.rate - printed) <= gamma(4) * printed
    layer = Linear(1, 1, key=Key(0), init=0.0, **F64)
    adam = Adam(0.5, decay=1.0)
    expected = 0.0
    for t in range(1, 6):  # with g = 1, m̂ = v̂ = 1
        layer.grads["weight"][...] = 1.0
        adam.step(layer)
        expected -= 0.5 / t / (1 + 1e-7)
        # 1 − βᵗ, computed either way, is known to 2u/(1 − β₂)
        assert abs(layer.params["weight"].item() - expected) <= gamma(math.ceil(40 * t / 1e-3)) * abs(
            expected
        )


def test_max_norm_after_each_step() -> None:
    c = 0.7
    layer = Linear(6, 40, key=Key(0), max_norm=c, **F64)
    before = layer.params["weight"].copy()
    norm = np.sqrt((before**2).sum(axis=1))
    assert (norm > c).any()
    assert (norm <= c).any()
    SGD(0.1).step(layer)  # gradients are zero: the projection alone
    weight = layer.params["weight"]
    np.testing.assert_array_equal(weight[norm <= c], before[norm <= c])
    over = norm > c
    within(weight[over], before[over] * (c / norm[over])[:, None], gamma(20) * np.abs(weight[over]))
    assert (np.sqrt((weight**2).sum(axis=1)) <= c * (1 + gamma(20))).all()
    again = weight.copy()
    layer.project()
    within(weight, again, gamma(20) * np.abs(again))


def test_max_norm_is_for_hidden_units() -> None:
    def limits(net: networks.Network) -> list[float | None]:
        return [layer.max_norm for layer in net.children.values() if isinstance(layer, Linear)]

    assert limits(mlp((6, 8, 7, 4), key=Key(0), drop=None, max_norm=3.0)) == [3.0, 3.0, None]
    assert limits(three_layers(max_norm=3.0)) == [3.0, 3.0, None]


def train(seed: int, steps: int, net: Any = None, optimizer: Any = None, start: int = 0) -> tuple[Any, Any]:
    net = net or mlp((6, 16, 16, 4), key=Key(seed), drop=Dropout, input_p=0.2, l2=1e-3, max_norm=2.0)
    optimizer = optimizer or SGD(0.1, momentum=0.9, nesterov=True)
    loss, x, labels = SoftmaxCrossEntropy(), random("x", 32, 6).astype(np.float32), np.arange(32) % 4
    for t in range(start, start + steps):
        loss.forward(net.forward(x, Key(seed).fold_in("step").fold_in(t)), labels)
        net.param_grads(loss.backward())
        optimizer.step(net)
    return net, optimizer


def assert_same_params(one: Any, other: Any) -> None:
    for (_, a, _), (_, b, _) in zip(one.named_params(), other.named_params(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_same_key_same_training_bit_for_bit() -> None:
    first, again, other = train(1, 20)[0], train(1, 20)[0], train(2, 20)[0]
    assert_same_params(first, again)
    assert (first.children["1"].params["weight"] != other.children["1"].params["weight"]).any()


@pytest.mark.parametrize("make", [lambda: SGD(0.1), lambda: SGD(0.1, 0.9), lambda: Adam(0.01, decay=0.1)])
def test_training_goes_on_from_a_saved_state(make: Callable[[], Any], tmp_path: Path) -> None:
    whole, _ = train(1, 10, optimizer=make())
    half, optimizer = train(1, 5, optimizer=make())
    save_params(tmp_path / "net.npz", half.get_params())
    fresh = mlp((6, 16, 16, 4), key=Key(99), drop=Dropout, input_p=0.2, l2=1e-3, max_norm=2.0)
    fresh.set_params(load_params(tmp_path / "net.npz"))
    later = make()
    later.load(optimizer.state())
    train(1, 5, net=half, optimizer=optimizer, start=5)  # the state was a copy
    assert_same_params(train(1, 5, net=fresh, optimizer=later, start=5)[0], whole)
    assert_same_params(half, whole)


def test_optimizer_state_of_another_network() -> None:
    sgd = SGD(0.1, 0.9)
    with pytest.raises(ValueError, match="step count"):
        sgd.load({})
    with pytest.raises(ValueError, match=r"SGD has no 'm\.weight'"):
        sgd.load({"t": np.array(1), "m.weight": np.zeros(2)})
    with pytest.raises(TypeError, match="floating-point"):
        sgd.load({"t": np.array(1), "velocity.weight": np.zeros(2, int)})
    assert sgd.t == 0
    layer = Linear(2, 1, key=Key(0), **F64)
    layer.grads["weight"][...] = 1.0
    before = layer.params["weight"].copy()
    sgd.load({"t": np.array(1), "velocity.weight": np.zeros((1, 2)), "velocity.bias": np.zeros(5)})
    with pytest.raises(ValueError, match=r"velocity.bias'\] must be \(1,\) float64, got \(5,\) float64"):
        sgd.step(layer)
    sgd.load({"t": np.array(1), "velocity.weight": np.zeros((1, 2))})
    with pytest.raises(ValueError, match="got none"):
        sgd.step(layer)
    np.testing.assert_array_equal(layer.params["weight"], before)  # nothing is half done


def test_three_layer_net_learns() -> None:
    x, labels = random("x", 32, 6), np.arange(32) % 4
    net = ThreeLayerNet(6, 64, 64, 4, key=Key(0), p=0.2, momentum=0.9, nesterov=True)
    loss = SoftmaxCrossEntropy()
    for t in range(200):
        loss.forward(net.forward(x, Key(0).fold_in(t)), labels)
        net.backward(loss.backward())
        net.update(lr=0.05)
    np.testing.assert_array_equal(net.predict(x).argmax(axis=1), labels)  # random labels, by heart


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: SGD(-1), ValueError, "lr must be finite and at least 0"),
        (lambda: SGD(0.1, momentum=1.0), ValueError, r"momentum must be in \[0, 1\), got 1"),
        (lambda: Adam(0.1, beta2=1.5), ValueError, r"beta2 must be in \[0, 1\)"),
        (lambda: Adam(0.1, eps=0), ValueError, "eps must be finite and greater than 0"),
    ],
)
def test_bad_arguments(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
