"""The two engines train the same network: same first weights, same masks, same figures to rounding."""

import numpy as np
import pytest

from thinned import Key
from thinned.key import normals, words
from thinned.lab import choices
from thinned.lab.data.dataset import Dataset
from thinned.lab.training import networks, train
from thinned.lab.training.config import Config

pytest.importorskip("torch")

BOTH = [name for name in choices.applicable("numpy") if name in choices.applicable("torch")]


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
    both = ["none", "dropout", "dropout-original", "gaussian", "drop-connect"]
    assert choices.applicable("numpy") == [*both[:3], "thin", *both[3:]]
    assert choices.applicable("torch") == both


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("method", BOTH)
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
