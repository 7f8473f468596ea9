"""The two engines train the same network: same first weights, same masks, same figures to rounding."""

import numpy as np
import pytest

from thinned import Key, masks, scratch
from thinned.key import normals, words
from thinned.lab import choices
from thinned.lab.data.dataset import Dataset
from thinned.lab.training import networks, train
from thinned.lab.training.config import Config

pytest.importorskip("torch")
from thinned import nn


def clouds() -> Dataset:
    """Three clouds of points in ten dimensions."""
    y = (words(Key(3), 120) % 3).astype(np.int64)
    x = normals(Key(4), 1200).reshape(120, 10).astype(np.float32)
    x[np.arange(120), y] += 3
    return Dataset("clouds", x[:90], y[:90], x[90:], y[90:], ("a", "b", "c"), (10,), "made by the test")


def config(method, engine, **more):
    usual = {
        "hidden": (16, 8),
        "batch": 30,
        "epochs": 4,
        "lr": 0.05,
        "input_p": 0.2,
        "l2": 0.01,
        "max_norm": 2.0,
    }
    return Config(
        data="clouds", fingerprint="", method=method, engine=engine, dtype="float64", **usual | more
    )


def test_what_fits_a_dense_network():
    assert choices.applicable() == [
        "none", "dropout", "dropout-original", "thin", "gaussian", "drop-connect",
    ]  # fmt: skip


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("method", choices.applicable())
def test_the_engines_agree(method, activation, tmp_path):
    ours, theirs = (
        train.train(config(method, engine, activation=activation), clouds(), tmp_path)
        for engine in choices.ENGINES
    )
    for column in ("loss", "train_loss", "test_loss", "penalty"):
        # 12 steps in float64, each a few hundred roundings deep: 1e-9 is 1e4 times what they add up to
        assert np.allclose(ours.history[column], theirs.history[column], rtol=1e-9, atol=0), column
    assert ours.result["test_error"] == theirs.result["test_error"]
    assert ours.result["parameters"] == theirs.result["parameters"]
    assert ours.folder != theirs.folder


# (sizes, rows, rates): all units are computed and some are zeroed; the survivors alone; a small rate too
THINNED = [((10, 16, 8, 3), 30, 0.5), ((10, 512, 512, 3), 128, 0.5), ((10, 512, 512, 3), 131, 0.1)]


@pytest.mark.parametrize(("sizes", "rows", "p"), THINNED)
def test_thin_by_torch_is_the_dense_network_with_the_same_masks(sizes, rows, p):
    c = config("thin", "torch", hidden=sizes[1:-1], input_p=0.0, p=p)
    thin = networks.build(c, clouds())
    dense = scratch.mlp(
        sizes, key=Key(c.seed).fold_in("init"), drop=lambda p: scratch.ThinDropout(p, masks.GROUPS),
        p=p, l2=c.l2, max_norm=c.max_norm, dtype=np.float64,
    )  # fmt: skip
    x = normals(Key(5), rows * 10).reshape(rows, 10)
    grad = normals(Key(6), rows * 3).reshape(rows, 3) / rows
    outputs = [networks.training_pass(net, x, Key(7), 2) for net in (thin, dense)]
    # float64: products of at most 512 numbers, three of them deep; 1e-11 is 1e5 roundings
    assert np.allclose(*outputs, rtol=1e-11, atol=1e-11)
    for net in (thin, dense):
        net.param_grads(grad)
        scratch.SGD(0.1, momentum=0.9, nesterov=True).step(net)
    for (name, ours, _), (_, theirs, _) in zip(thin.named_params(), dense.named_params(), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-11, atol=1e-11), name


@pytest.mark.parametrize("optimizer", choices.OPTIMIZERS)
def test_the_optimizer_steps_as_the_one_for_torch_does(optimizer):
    """The optimizers of `scratch` and of `thinned.nn` are one kernel; runs keep the state of the former."""
    c = config("thin", "torch", input_p=0.0, max_norm=None)
    ours, theirs = networks.build(c, clouds()), networks.build(c, clouds())
    by_hand = scratch.Adam(0.01) if optimizer == "adam" else scratch.SGD(0.01, momentum=0.9, nesterov=True)
    weights = [[p for p in theirs.module.parameters() if (p.dim() > 1) == many] for many in (True, False)]
    groups = [{"params": weights[0], "weight_decay": c.l2}, {"params": weights[1]}]
    rule = (
        nn.Adam(groups, lr=0.01, eps=1e-7)
        if optimizer == "adam"
        else nn.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
    )
    x = normals(Key(5), 300).reshape(30, 10)
    grad = normals(Key(6), 90).reshape(30, 3) / 30
    for step in range(3):
        for net in (ours, theirs):
            networks.training_pass(net, x, Key(7), step)
            net.param_grads(grad)
        by_hand.step(ours)
        rule.step()
    for (name, mine, _), (_, other, _) in zip(ours.named_params(), theirs.named_params(), strict=True):
        assert np.array_equal(mine, other), name


def test_the_torch_net_shares_its_memory():
    dataset = clouds()
    net = networks.build(config("dropout", "torch"), dataset)
    before = net.predict(dataset.x_test.astype(np.float64))
    net.set_params({name: 0 * array for name, array in net.get_params().items()})
    assert before.any()
    assert not net.predict(dataset.x_test.astype(np.float64)).any()


def test_the_torch_net_takes_other_dtypes_as_the_one_by_hand_does():
    x = clouds().x_test
    hand, by_torch = (networks.build(config("dropout", engine), clouds()) for engine in choices.ENGINES)
    assert x.dtype == np.float32
    # in float64, sums of 16 and fewer products, of numbers of at most 10
    assert np.allclose(by_torch.predict(x), hand.predict(x), rtol=0, atol=1e-12)


def test_a_method_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="method must be one of"):
        config("spatial", "numpy")
    with pytest.raises(ValueError, match="engine must be one of 'numpy', 'torch', got 'jax'"):
        config("dropout", "jax")
