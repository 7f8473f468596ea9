"""A thinned network is the dense one with the same mask, and does not look at what is dropped."""

import itertools

import numpy as np
import pytest

from thinned import Key, kernels, masks
from thinned.key import normals
from thinned.scratch import (
    SGD,
    Adam,
    BatchNorm,
    DropConnect,
    Dropout,
    GaussianDropout,
    LayerNorm,
    Linear,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    Thin,
    ThinDropout,
    ThreeLayerNet,
    mlp,
)
from thinned.scratch import thin as thin_module
from thinned.scratch.layer import Gradient

N, SIZES = 13, (20, 16, 11, 5)
F64 = {"dtype": np.float64}
EPS = float(np.finfo(np.float64).eps)


def batch(t=0, n=N):
    x = normals(Key(100 + t), n * SIZES[0]).reshape(n, SIZES[0])
    return x, np.arange(n) % SIZES[-1]


def normalized(drop):
    """With BatchNorm, before and after the activation."""
    a, b, c = (Linear(n, m, key=Key(i), **F64) for i, (n, m) in enumerate(itertools.pairwise(SIZES)))
    norms = [BatchNorm(n, **F64) for n in SIZES[1:3]]
    return Sequential(a, norms[0], ReLU(), drop(0.5), b, ReLU(), norms[1], drop(0.3), c)


def inside(drop):
    """With layers around the chain that are not thinned, and drop as they stand."""
    first, norm = Linear(20, 20, key=Key(3), **F64), LayerNorm(20, **F64)
    rest = mlp(SIZES, key=Key(1), drop=drop, **F64).children.values()
    return Sequential(first, norm, Dropout(0.2), *rest, ReLU(), Dropout(0.5))


RATES = {"l1": 0.003, "l2": 0.02, "max_norm": 1.5}
NETS = {
    "relu": lambda drop: mlp(SIZES, key=Key(1), drop=drop, **F64),
    "sigmoid": lambda drop: mlp(SIZES, key=Key(1), drop=drop, activation="sigmoid", p=0.3, **F64),
    "maxout": lambda drop: mlp(SIZES, key=Key(1), drop=drop, activation="maxout", pieces=3, **RATES, **F64),
    "penalties": lambda drop: mlp(SIZES, key=Key(1), drop=drop, **RATES, **F64),
    "panels": lambda drop: mlp((20, 530, 70, 5), key=Key(1), drop=drop, p=0.4, **F64),
    "few": lambda drop: mlp((20, 4, 5), key=Key(1), drop=drop, p=0.1, **F64),  # p·n is no whole number
    "all dropped": lambda drop: mlp((20, 7, 5), key=Key(1), drop=drop, p=1.0, **F64),
    "none dropped": lambda drop: mlp((20, 7, 5), key=Key(1), drop=drop, p=0.0, **F64),
    "inside": inside,
}
RULES = {
    "sgd": lambda: SGD(0.1),
    "nesterov": lambda: SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: Adam(0.01, eps=1e-3),  # ε large, or a gradient that is a rounding becomes a step
}


def one_pass(net, key, t=0):
    """Forward and backward: the logits and the whole gradients, copied."""
    x, y = batch(t)
    loss = SoftmaxCrossEntropy()
    logits = net.forward(x, key)
    loss.forward(logits, y)
    net.param_grads(loss.backward())
    grads = {name: whole(grad, param) for name, param, grad in net.named_params()}
    return logits, grads


def whole(grad, param):
    return grad.whole(param) if isinstance(grad, Gradient) else grad.copy()


def close(a, b):
    """Equal to the roundings of a few sums of products; dictionaries too, to their largest number."""
    if not isinstance(a, dict):
        a, b = {"": a}, {"": b}
    scale = max([EPS, *(np.abs(value).max(initial=0.0) for value in b.values())])
    return a.keys() == b.keys() and all(
        np.allclose(a[name], b[name], rtol=0, atol=1e4 * EPS * scale) for name in b
    )


@pytest.fixture(params=["survivors", "survivors, NumPy", "whole"])
def path(request, monkeypatch):
    """The survivors alone, however small the layers are, natively or in NumPy; or all units."""
    always(monkeypatch, request.param != "whole")
    if request.param == "survivors, NumPy":
        monkeypatch.setattr(kernels, "extension", lambda: None)


def always(monkeypatch, thinned=True):
    """Compute the survivors alone, or all units, however large the layers are."""
    monkeypatch.setattr(thin_module, "WIDE", 0 if thinned else 1 << 60)
    monkeypatch.setattr(thin_module, "TALL", 0)
    monkeypatch.setattr(thin_module, "SHARE", 1.0)


def by_groups(groups):
    return lambda p: ThinDropout(p, groups)


@pytest.mark.parametrize("groups", [1, 2, 3, 16])
@pytest.mark.parametrize("name", NETS)
def test_it_trains_the_dense_network_with_the_same_mask(name, groups, path):
    dense, thin = NETS[name](by_groups(groups)), Thin(NETS[name](Dropout), groups)
    assert thin.thinned
    for rule in RULES.values():
        train_both(dense, thin, rule)
    assert close(thin.penalty(), dense.penalty())


def usual(p):
    return ThinDropout(p, masks.GROUPS)


def train_both(dense, thin, rule):
    """Both have the same outputs and gradients, and learn the same."""
    optimizers = [rule() for _ in range(2)]
    for t in range(3):
        key = Key(7).fold_in(t)
        (a, grads_a), (b, grads_b) = (one_pass(net, key, t) for net in (dense, thin))
        assert close(b, a)
        assert close(grads_b, grads_a)
        for optimizer, net in zip(optimizers, (dense, thin), strict=True):
            optimizer.step(net)
        assert close(learned(thin), learned(dense))


def learned(net):
    return {name: param for name, param, _ in net.named_params()}


@pytest.mark.parametrize("groups", [1, 2, 16])
def test_backward_gives_the_gradient_by_the_input(groups, path):
    dense, thin = inside(by_groups(groups)), Thin(inside(ThinDropout), groups)
    x, grad = batch()[0], normals(Key(5), N * 5).reshape(N, 5)
    for net in (dense, thin):
        net.forward(x, Key(3))
    want = dense.backward(grad)
    assert close(thin.backward(grad), want)
    for (name, w, g), (_, _, d) in zip(thin.named_params(), dense.named_params(), strict=True):
        assert close(whole(g, w), d), name


def test_what_is_dropped_is_not_looked_at(monkeypatch):
    """NaN in all weights of units that every group drops changes nothing, forward and backward."""
    always(monkeypatch)
    clean, spoilt = (Thin(mlp(SIZES, key=Key(1), drop=Dropout, p=0.7, **F64), 2) for _ in range(2))
    key, kept = Key(2), {}
    for name, n in (("2", 16), ("5", 11)):
        kept[name] = masks.picks(n, 0.7, key.fold_in(name), 2).units.any(axis=0)
    assert not all(units.all() for units in kept.values())
    params = spoilt.get_params()
    params["0.weight"][~kept["2"]] = params["0.bias"][~kept["2"]] = np.nan
    params["3.weight"][~kept["5"]] = params["3.bias"][~kept["5"]] = np.nan
    params["3.weight"][:, ~kept["2"]] = params["6.weight"][:, ~kept["5"]] = np.nan
    spoilt.set_params(params)
    (a, grads_a), (b, grads_b) = (one_pass(net, key) for net in (clean, spoilt))
    assert np.array_equal(a, b)
    assert all(np.array_equal(grads_a[name], grads_b[name]) for name in grads_a)
    assert not grads_a["0.weight"][~kept["2"]].any()


def test_a_small_rate_drops():
    """p·n = 0.4 units: each is still dropped with probability 0.1."""
    net = Thin(mlp((3, 4, 2), key=Key(0), drop=Dropout, p=0.1, **F64))
    x = normals(Key(1), 96).reshape(32, 3)
    assert not all(np.array_equal(net.forward(x, Key(i)), net.forward(x)) for i in range(3))


def test_evaluation_is_the_dense_network():
    net = mlp(SIZES, key=Key(1), drop=Dropout, input_p=0.2, **F64)
    thin, (x, _) = Thin(net), batch()
    assert np.array_equal(thin.predict(x), net.predict(x))
    grads = one_pass(thin, Key(0))[1]
    assert np.array_equal(thin.predict(x), net.predict(x))
    after = {name: whole(grad, param) for name, param, grad in thin.named_params()}
    assert all(np.array_equal(after[name], grads[name]) for name in grads), "evaluation forgets no gradient"
    assert list(thin.get_params()) == list(net.get_params())
    assert all(a is b for (_, a), (_, b) in zip(thin.named_arrays(), net.named_arrays(), strict=True))
    upstream = np.ones((N, 5))
    thin.forward(x)
    net.forward(x)
    assert np.array_equal(thin.backward(upstream), net.backward(upstream))
    assert all(isinstance(grad, np.ndarray) for _, _, grad in thin.named_params())


@pytest.mark.parametrize(("groups", "n"), [(1, N), (3, N), (16, 40), (16, 2)])
def test_batch_norm_averages_over_the_rows_that_keep_a_unit(groups, n, path, torch):
    """Against torch, on the same masks: outputs, gradients, running statistics."""
    net, key = Thin(normalized(Dropout), groups), Key(4)
    assert net.thinned == ["3", "7"]
    x, grad = normals(Key(5), n * 20).reshape(n, 20), normals(Key(6), n * 5).reshape(n, 5)
    given = torch.tensor(x, requires_grad=True)
    params = {name: torch.tensor(value, requires_grad=True) for name, value in learned(net).items()}
    y, running = given, {}
    kept = {
        name: torch.tensor(masks.features((n, size), net.children[name].p, key.fold_in(name), groups=groups))
        for name, size in (("3", 16), ("7", 11))
    }
    y = y @ params["0.weight"].T + params["0.bias"]
    y, running["1"] = normalize(torch, y, kept["3"], params["1.weight"], params["1.bias"])
    y = torch.where(kept["3"], torch.relu(y) / 0.5, 0.0) @ params["4.weight"].T + params["4.bias"]
    y, running["6"] = normalize(torch, torch.relu(y), kept["7"], params["6.weight"], params["6.bias"])
    y = torch.where(kept["7"], y / 0.7, 0.0) @ params["8.weight"].T + params["8.bias"]
    y.backward(torch.tensor(grad))
    assert close(net.forward(x, key), y.detach().numpy())
    assert close(net.backward(grad), given.grad.numpy())
    ours = {name: whole(g, w) for name, w, g in net.named_params()}
    assert close(ours, {name: param.grad.numpy() for name, param in params.items()})
    for name, (mean, variance, often) in running.items():
        buffers = net.children[name].buffers
        assert close(buffers["running_mean"], np.where(often, 0.1 * mean, 0.0))
        assert close(buffers["running_var"], np.where(often, 0.9 + 0.1 * variance, 1.0))


def normalize(torch, x, kept, weight, bias):
    """BatchNorm of the kept numbers; mean, variance with Bessel's correction, and where two are kept."""
    kept = kept.expand(x.shape)
    count = kept.sum(0)
    mean = torch.where(kept, x, 0.0).sum(0) / count.clamp(min=1)
    squares = torch.where(kept, (x - mean) ** 2, 0.0).sum(0)
    y = (x - mean) / torch.sqrt(squares / count.clamp(min=1) + 1e-5) * weight + bias
    statistics = (mean, squares / (count - 1).clamp(min=1), count > 1)
    return torch.where(kept, y, 0.0), tuple(value.detach().numpy() for value in statistics)


def test_a_rate_may_change(path):
    dense, thin = NETS["relu"](usual), Thin(NETS["relu"](Dropout))
    for t, p in enumerate((0.5, 0.25, 0.0, 0.75)):
        for net in (dense, thin):
            net.children["2"].p = p
        (a, _), (b, _) = (one_pass(net, Key(t)) for net in (dense, thin))
        assert close(b, a)


def test_three_layers():
    rest = {"p": 0.5, "input_p": 0.2, "l2": 0.01, "max_norm": 2.0, **F64}
    net = ThreeLayerNet(*SIZES, key=Key(1), **rest)
    thin = Thin(net)
    assert thin.thinned == ["drop1", "drop2"]
    assert thin.dense == {"drop0": "no linear layer computes its units"}
    logits, _ = one_pass(thin, Key(3))
    net.drop1, net.drop2 = usual(0.5), usual(0.5)
    assert close(logits, net.forward(batch()[0], Key(3)))


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (
            [Linear(4, 4, key=Key(0)), GaussianDropout(), Linear(4, 2, key=Key(1))],
            "it drops no whole units",
        ),
        ([DropConnect(4, 4, key=Key(0)), ReLU(), Linear(4, 2, key=Key(1))], "it drops no whole units"),
        ([Linear(4, 4, key=Key(0)), Dropout(0.5, "test"), Linear(4, 2, key=Key(1))], "it rescales"),
        ([ReLU(), Dropout(), Linear(4, 2, key=Key(1))], "no linear layer computes its units"),
        ([Dropout(), Linear(4, 2, key=Key(1))], "no linear layer computes its units"),
        ([LayerNorm(4), Dropout(), Linear(4, 2, key=Key(1))], "no linear layer computes its units"),
        ([DropConnect(4, 4, key=Key(0)), Dropout(), Linear(4, 2, key=Key(1))], "no linear layer computes"),
        ([Linear(4, 4, key=Key(0)), ReLU(), Dropout()], "no linear layer reads its units"),
        ([Linear(4, 4, key=Key(0)), Dropout(), ReLU(), Linear(4, 2, key=Key(1))], "no linear layer reads"),
    ],
)
def test_what_stays_dense_is_reported(layers, reason):
    net = Sequential(*layers)
    thin, x = Thin(net), normals(Key(1), 24).reshape(6, 4).astype(np.float32)
    assert thin.thinned == []
    assert any(why.startswith(reason) for why in thin.dense.values())
    assert f"{next(iter(thin.dense))}, as " in repr(thin)
    assert np.array_equal(thin.forward(x, Key(5)), net.forward(x, Key(5)))


def test_more_groups_than_samples(path):
    thin, dense = Thin(NETS["relu"](Dropout), 5), NETS["relu"](by_groups(5))
    for n in (0, 1, 4):
        x = batch(n=n)[0]
        assert thin.forward(x, Key(1)).shape == (n, 5)
        assert close(thin.forward(x, Key(1)), dense.forward(x, Key(1)))
        assert close(thin.backward(np.ones((n, 5))), dense.backward(np.ones((n, 5))))


@pytest.mark.parametrize(
    ("width", "p", "rows", "pays"),
    [
        (512, 0.5, 32, True),
        (511, 0.5, 32, False),
        (512, 0.5, 31, False),
        (512, 0.4, 32, False),  # 0.6 of the multiplications
        (512, 0.0, 32, False),
    ],
)
def test_survivors_alone_are_computed_where_that_takes_less_time(width, p, rows, pays):
    net = Thin(mlp((20, width, 5), key=Key(1), drop=Dropout, p=p, **F64), 4)
    net.forward(batch(n=rows)[0], Key(0))
    assert net.passed()[0].recall() == (pays,)


def test_a_thinned_network_inside_another(path):
    inner, dense = Thin(NETS["penalties"](Dropout)), NETS["penalties"](usual)
    outer, plain = Sequential(inner, ReLU()), Sequential(dense, ReLU())
    for net in (outer, plain):
        net.forward(batch()[0], Key(1))
        net.backward(np.ones((N, 5)))
        SGD(0.1).step(net)
    assert close(learned(outer), learned(plain))


def test_bad_arguments():
    net = mlp(SIZES, key=Key(1), drop=Dropout, **F64)
    with pytest.raises(TypeError, match=r"net must be a thinned.scratch.Network, got ReLU"):
        Thin(ReLU())
    with pytest.raises(ValueError, match="groups must be at least 1, got 0"):
        Thin(net, 0)
    with pytest.raises(TypeError, match=r"key must be a thinned.Key"):
        Thin(net).forward(batch()[0], 3)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 20\), got \(13, 19\)"):
        Thin(net).forward(batch()[0][:, 1:], Key(0))
    with pytest.raises(RuntimeError, match="call forward first"):
        Thin(net).backward(np.ones((N, 5)))
    thin = Thin(net)
    thin.forward(batch()[0], Key(0))
    with pytest.raises(ValueError, match=r"grad must have shape \(13, 5\).*got \(13, 4\)"):
        thin.backward(np.ones((N, 4)))
