"""The networks by hand, judged by finite differences, by torch's autograd and by the textbook rules."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
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
    numeric_gradient,
    operations,
    random,
    within,
)

from thinned import Key, keep_mask
from thinned.scratch import (
    SGD,
    Adam,
    Dropout,
    GaussianDropout,
    Layer,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    Softmax,
    SoftmaxCrossEntropy,
    Tanh,
    ThreeLayerNet,
    load_params,
    mlp,
    networks,
    save_params,
)

# ---- layers and networks under test; each with the width of its input ----

REGULARISED: dict[str, Any] = {"l1": 0.03, "l2": 0.2, "bias_l1": 0.05, "bias_l2": 0.3}


def small_sequential(rescale: str = "train") -> Sequential:
    return Sequential(
        Dropout(0.2, rescale),
        Linear(6, 8, key=Key(1), **REGULARISED, **F64),
        ReLU(),
        Dropout(0.5, rescale),
        Linear(8, 4, key=Key(2), l2=0.1, **F64),
    )


def three_layers(rescale: str = "train", **options: Any) -> ThreeLayerNet:
    settings = {"p": 0.4, "input_p": 0.2, "l2": 0.1, **F64, **options}
    return ThreeLayerNet(6, 8, 7, 4, key=Key(5), rescale=rescale, **settings)


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
KEYS = pytest.mark.parametrize("key", [Key(11), None], ids=["training", "evaluation"])
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


# ---- the loss ----


def test_loss_is_torchs_cross_entropy(torch: Any) -> None:
    logits, labels = random("logits", N, 4) * 3, np.array([0, 3, 1, 1, 2])
    loss = SoftmaxCrossEntropy()
    value = loss.forward(logits, labels)
    tensor = torch.tensor(logits, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(tensor, torch.from_numpy(labels))
    expected.backward()
    bound = 2 * gamma(N + 4 + 20) * (1 + np.ptp(logits))  # exponents up to the range of the logits
    assert abs(value - expected.item()) <= bound
    within(loss.backward(), tensor.grad.numpy(), bound / N)


def test_loss_gradient_is_the_finite_difference_through_a_network() -> None:
    net, loss = fill(three_layers()), SoftmaxCrossEntropy()
    x, labels, key = random("x", N, 6).copy(), np.array([0, 3, 1, 1, 2]), Key(11)

    def f() -> float:
        return loss.forward(net.forward(x, key), labels) + net.penalty()

    f()
    gradient = net.backward(loss.backward())
    # the loss moves by at most twice as much as a logit
    size = 2 * magnitudes(net).forward(np.abs(x), key).max() + net.penalty()
    error = gamma(operations(net) + N + 4 + 20) * size
    within(gradient, *numeric_gradient(f, x, error))
    for _, param, grad in net.named_params():
        within(grad, *numeric_gradient(f, param, error))


def test_loss_is_stable_and_shows_what_is_not_finite() -> None:
    loss = SoftmaxCrossEntropy()
    assert loss.forward(np.array([[1e4, 0.0], [0.0, -1e4]]), np.array([0, 0])) == 0.0
    assert loss.forward(np.array([[1e4, 0.0]], np.float32), np.array([1])) == 1e4
    assert np.isfinite(loss.backward()).all()
    for bad in (np.nan, np.inf):
        assert math.isnan(loss.forward(np.array([[bad, 0.0]]), np.array([1])))
    assert loss.forward(np.array([[-np.inf, 0.0]]), np.array([0])) == np.inf


@pytest.mark.parametrize("layer", [Sigmoid(), Softmax()], ids=repr)
def test_bounded_layers_do_not_overflow(layer: Layer) -> None:
    y = layer.forward(np.array([[-1e5, 0.0, 1e5]], np.float32))
    assert ((y >= 0) & (y <= 1)).all()
    assert np.isfinite(layer.backward(np.ones_like(y))).all()


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


# ---- dropout ----


@pytest.mark.parametrize(
    "layer", [Dropout(0.5), GaussianDropout(0.5), Dropout(0.0), Dropout(0.0, "test")], ids=repr
)
def test_evaluation_is_the_identity(layer: Layer) -> None:
    x = random("x", N, 6)
    np.testing.assert_array_equal(layer.forward(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)


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


# ---- networks ----


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


@pytest.mark.parametrize(
    ("init", "std"), [("he", (2 / 400) ** 0.5), ("xavier", (2 / 700) ** 0.5), (0.01, 0.01)]
)
def test_first_weights(init: Any, std: float) -> None:
    weight = Linear(400, 300, key=Key(0), init=init, **F64).params["weight"]
    # Σ z² of n normal numbers is within 2√(n·t) + 2t of n but for a chance of 2e⁻ᵗ (Laurent, Massart 2000)
    n, t = weight.size, math.log(2 / 1e-9)
    assert abs((weight**2).sum() / std**2 - n) <= 2 * math.sqrt(n * t) + 2 * t
    assert abs(weight.sum()) / std <= math.sqrt(2 * n * t)


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


# ---- optimizers ----


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


# ---- files ----


def test_save_and_load(tmp_path: Path) -> None:
    net, path = fill(three_layers()), tmp_path / "net.npz"
    save_params(path, net.get_params())
    params = load_params(path)
    assert list(params) == list(net.get_params())
    for name, param, _ in net.named_params():
        assert params[name].dtype == param.dtype
        np.testing.assert_array_equal(params[name], param)
    with np.load(path, allow_pickle=False) as plain:
        assert set(plain.files) == set(params)
    with pytest.raises(TypeError, match="floating-point"):
        save_params(path, {"a": np.zeros(2, int)})
    assert list(load_params(path)) == list(params)  # the earlier file is still there
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]


def test_files_that_are_no_parameters(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.npz", tmp_path / "net.npz"
    with pytest.raises(FileNotFoundError, match=r"net\.npz"):
        load_params(path)
    save_params(whole, three_layers().get_params())
    content = whole.read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"net\.npz"):
            load_params(path)
    path.write_text("no archive at all")
    with pytest.raises(ValueError, match=r"net\.npz"):
        load_params(path)
    np.savez(path, fc1=np.array([{"would": "be unpickled"}], dtype=object))
    with pytest.raises(ValueError, match=r"net\.npz"):
        load_params(path)
    np.savez(path, x_train=np.zeros((2, 2), np.uint8))
    with pytest.raises(
        ValueError, match=r"net\.npz must hold parameters, got uint8, not floats, in 'x_train'"
    ):
        load_params(path)


# ---- bad input ----


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Linear(0, 3, key=Key(0)), ValueError, "n_in must be at least 1, got 0"),
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
        (lambda: Dropout(50), ValueError, r"p must be in \[0, 1\], got 50"),
        (lambda: Dropout(math.nan), ValueError, "p must be a number, got nan"),
        (lambda: Dropout("half"), TypeError, "p must be a number"),  # type: ignore[arg-type]
        (lambda: Dropout(0.5, "both"), ValueError, "rescale must be one of 'train', 'test'"),
        (lambda: Dropout(0.5).forward(random("x", 2, 3), 0), TypeError, "key must be a thinned.Key"),  # type: ignore[arg-type]
        (lambda: three_layers().forward(random("x", 2, 6), 7), TypeError, "key must be a thinned.Key"),  # type: ignore[arg-type]
        (lambda: Sequential(ReLU, ReLU()), TypeError, "layer 0 must be a thinned.scratch.Layer, got type"),  # type: ignore[arg-type]
        (lambda: Sequential(*[ReLU()] * 2), ValueError, "must hold each layer once"),
        (lambda: SGD(-1), ValueError, "lr must be finite and at least 0"),
        (lambda: SGD(0.1, momentum=1.0), ValueError, r"momentum must be in \[0, 1\), got 1"),
        (lambda: Adam(0.1, beta2=1.5), ValueError, r"beta2 must be in \[0, 1\)"),
        (lambda: Adam(0.1, eps=0), ValueError, "eps must be finite and greater than 0"),
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


def test_bad_labels() -> None:
    loss, logits = SoftmaxCrossEntropy(), random("logits", 3, 10)
    with pytest.raises(RuntimeError, match="call forward first"):
        loss.backward()
    for labels, message in (
        ([0, 1, 10], "labels must be 0 to 9, got 10"),
        ([0, -1, 9], "labels must be 0 to 9, got -1"),
        ([0, 1], r"labels must have shape \(3,\), one for each row of logits, got \(2,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            loss.forward(logits, np.array(labels))
    for dtype in (float, bool):
        with pytest.raises(TypeError, match="labels must be integers"):
            loss.forward(logits, np.zeros(3, dtype))
    with pytest.raises(ValueError, match=r"logits must have shape \(N, K\)"):
        loss.forward(logits[:0], np.zeros(0, int))
