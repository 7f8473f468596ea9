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
from thinned.scratch.layer import CompactGradient

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
    "one": lambda drop: mlp((20, 7, 5), key=Key(1), drop=drop, p=1.0, **F64),  # one unit survives
    "none": lambda drop: mlp((20, 7, 5), key=Key(1), drop=drop, p=0.0, **F64),
    "inside": inside,
    "batch-norm": normalized,
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
    return grad.whole(param) if isinstance(grad, CompactGradient) else grad.copy()


def one_pick(p):
    """A dropout that makes one pick a batch."""
    return ThinDropout(p, groups=1)


def close(a, b):
    """Equal to the roundings of a few sums of products; dictionaries too, to their largest number."""
    if not isinstance(a, dict):
        a, b = {"": a}, {"": b}
    scale = max([EPS, *(np.abs(value).max(initial=0.0) for value in b.values())])
    return a.keys() == b.keys() and all(
        np.allclose(a[name], b[name], rtol=0, atol=1e4 * EPS * scale) for name in b
    )


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NETS)
def test_it_trains_the_dense_network_with_the_same_mask(name, rule, groups, backend, monkeypatch):
    if backend == "reference":
        monkeypatch.setattr(kernels, "extension", lambda: None)
    if name == "batch-norm" and groups > 1:
        pytest.skip("stays dense: tested below")
    dense, thin = NETS[name](lambda p: ThinDropout(p, groups)), Thin(NETS[name](Dropout), groups)
    assert thin.thinned
    optimizers = [RULES[rule]() for _ in range(2)]
    for t in range(4):
        key = Key(7).fold_in(t)
        (a, grads_a), (b, grads_b) = (one_pass(net, key, t) for net in (dense, thin))
        assert close(b, a)
        assert close(grads_b, grads_a)
        for optimizer, net in zip(optimizers, (dense, thin), strict=True):
            optimizer.step(net)
        assert close(learned(thin), learned(dense))
    assert close(thin.penalty(), dense.penalty())


def learned(net):
    return {name: param for name, param, _ in net.named_params()}


@pytest.mark.parametrize("groups", [1, 2])
def test_backward_gives_the_gradient_by_the_input(groups):
    dense, thin = inside(lambda p: ThinDropout(p, groups)), Thin(inside(ThinDropout), groups)
    x, grad = batch()[0], normals(Key(5), N * 5).reshape(N, 5)
    for net in (dense, thin):
        net.forward(x, Key(3))
    want = dense.backward(grad)
    assert close(thin.backward(grad), want)
    for (name, w, g), (_, _, d) in zip(thin.named_params(), dense.named_params(), strict=True):
        assert close(whole(g, w), d), name


def test_what_is_dropped_is_not_looked_at():
    """NaN in all weights of dropped units changes nothing, forward, backward, in the others' step."""
    clean, spoilt = (Thin(mlp(SIZES, key=Key(1), drop=Dropout, **F64)) for _ in range(2))
    key, kept = Key(2), {}
    for name, n in (("2", 16), ("5", 11)):
        kept[name] = np.isin(np.arange(n), masks.picks(n, 0.5, key.fold_in(name)).survivors[0])
    params = spoilt.get_params()
    params["0.weight"][~kept["2"]] = params["0.bias"][~kept["2"]] = np.nan
    params["3.weight"][~kept["5"]] = params["3.bias"][~kept["5"]] = np.nan
    params["3.weight"][:, ~kept["2"]] = params["6.weight"][:, ~kept["5"]] = np.nan
    spoilt.set_params(params)
    (a, _), (b, _) = (one_pass(net, key) for net in (clean, spoilt))
    assert np.array_equal(a, b)
    for (name, _, g), (_, _, h) in zip(clean.named_params(), spoilt.named_params(), strict=True):
        assert np.array_equal(g.values, h.values), name
    for net in (clean, spoilt):
        SGD(0.1, momentum=0.9).step(net)
    for name, value in spoilt.get_params().items():
        there = ~np.isnan(params[name])
        assert np.array_equal(value[there], clean.get_params()[name][there]), name


def test_gradients_hold_the_survivors_alone():
    net = Thin(mlp(SIZES, key=Key(1), drop=Dropout, l2=0.1, input_p=0.2, **F64))
    assert all(isinstance(grad, np.ndarray) for _, _, grad in net.named_params())
    one_pass(net, Key(0))
    shapes = {name: grad.values.shape for name, _, grad in net.named_params()}
    assert shapes == {
        **{"1.weight": (8, 20), "1.bias": (8,), "4.weight": (5, 8)},
        **{"4.bias": (5,), "7.weight": (5, 5), "7.bias": (5,)},
    }
    assert {grad.penalty.l2 for name, _, grad in net.named_params() if "weight" in name} == {0.1}


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


def test_batch_norm_counts_the_survivors():
    dense, thin = normalized(one_pick), Thin(normalized(Dropout))
    for net in (dense, thin):
        one_pass(net, Key(4))
    for layer, drop, n in (("1", "3", 16), ("6", "7", 11)):
        p = thin.children[drop].p
        kept = np.isin(np.arange(n), masks.picks(n, p, Key(4).fold_in(drop)).survivors[0])
        for name, start in (("running_mean", 0.0), ("running_var", 1.0)):
            ours, theirs = (net.children[layer].buffers[name] for net in (thin, dense))
            assert close(ours[kept], theirs[kept])
            assert np.all(ours[~kept] == start)


def test_a_rate_may_change():
    dense, thin = (make(mlp(SIZES, key=Key(1), drop=one_pick, **F64)) for make in (lambda net: net, Thin))
    for t, p in enumerate((0.5, 0.25, 0.75, 0.75)):
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
    net.drop1, net.drop2 = one_pick(0.5), one_pick(0.5)
    assert close(logits, net.forward(batch()[0], Key(3)))


@pytest.mark.parametrize(
    ("layers", "groups", "reason"),
    [
        (
            [Linear(4, 4, key=Key(0)), GaussianDropout(), Linear(4, 2, key=Key(1))],
            1,
            "it drops no whole units",
        ),
        ([DropConnect(4, 4, key=Key(0)), ReLU(), Linear(4, 2, key=Key(1))], 1, "it drops no whole units"),
        ([Linear(4, 4, key=Key(0)), Dropout(0.5, "test"), Linear(4, 2, key=Key(1))], 1, "it rescales"),
        ([ReLU(), Dropout(), Linear(4, 2, key=Key(1))], 1, "no linear layer computes its units"),
        ([Dropout(), Linear(4, 2, key=Key(1))], 1, "no linear layer computes its units"),
        ([LayerNorm(4), Dropout(), Linear(4, 2, key=Key(1))], 1, "no linear layer computes its units"),
        ([DropConnect(4, 4, key=Key(0)), Dropout(), Linear(4, 2, key=Key(1))], 1, "no linear layer computes"),
        ([Linear(4, 4, key=Key(0)), ReLU(), Dropout()], 1, "no linear layer reads its units"),
        ([Linear(4, 4, key=Key(0)), Dropout(), ReLU(), Linear(4, 2, key=Key(1))], 1, "no linear layer reads"),
        ([Linear(4, 4, key=Key(0)), BatchNorm(4), Dropout(), Linear(4, 2, key=Key(1))], 2, "BatchNorm takes"),
    ],
)
def test_what_stays_dense_is_reported(layers, groups, reason):
    net = Sequential(*layers)
    thin, x = Thin(net, groups), normals(Key(1), 24).reshape(6, 4).astype(np.float32)
    assert thin.thinned == []
    assert any(why.startswith(reason) for why in thin.dense.values())
    assert f"{next(iter(thin.dense))}, as " in repr(thin)
    assert np.array_equal(thin.forward(x, Key(5)), net.forward(x, Key(5)))


def test_more_groups_than_samples():
    thin, dense = (
        Thin(mlp(SIZES, key=Key(1), drop=Dropout, **F64), 5),
        mlp(SIZES, key=Key(1), drop=lambda p: ThinDropout(p, 5), **F64),
    )
    for n in (0, 1, 4):
        x = batch(n=n)[0]
        assert thin.forward(x, Key(1)).shape == (n, 5)
        assert close(thin.forward(x, Key(1)), dense.forward(x, Key(1)))
        assert thin.backward(np.ones((n, 5))).shape == x.shape


def test_a_thinned_network_inside_another():
    inner = Thin(mlp(SIZES, key=Key(1), drop=Dropout, **F64))
    outer = Sequential(inner, ReLU())
    x = batch()[0]
    outer.forward(x, Key(1))
    outer.backward(np.ones((N, 5)))
    assert all(isinstance(grad, CompactGradient) for _, _, grad in outer.named_params())
    SGD(0.1).step(outer)


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
