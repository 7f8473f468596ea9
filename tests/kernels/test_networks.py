"""Thinned networks by the extension: the survivors' sums, at every level, on any threads."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinned import Key, kernels
from thinned.kernels.networks import Dense, Masks, Networks
from thinned.key import bernoulli, threshold

cpu = kernels.extension()
LEVELS = cpu.levels() if cpu is not None else []
pytestmark = pytest.mark.skipif(cpu is None, reason="the C++ extension was not built")
DTYPES = ["float32", "float64"]
# around tiles of 6 and 12 units, panels of 4 to 32 rows, blocks of 516 units and 512 survivors
SIZES = st.one_of(
    st.lists(st.integers(1, 40), min_size=2, max_size=5),
    st.sampled_from([[1100, 300, 7], [30, 1200, 600, 3], [513, 12, 1], [1, 1, 1]]),
)


def perceptron(sizes, dtype, rng, masked=False):
    """Layers of those sizes: some weights in Fortran's order, some without bias, some of all their inputs."""
    for i, (n, out) in enumerate(itertools.pairwise(sizes)):
        weight = rng.normal(size=(out, n)).astype(dtype, order=rng.choice(["C", "F"]))
        bias = rng.normal(size=2 * out).astype(dtype)[::2] if rng.random() < 0.7 else None
        k = int(rng.integers(1, n + 1)) if rng.random() < 0.8 and not (masked and i == 0) else None
        yield Dense(weight, bias, rng.random() < 0.5, k, 1.0 + rng.random())


def picks_of(layers, networks, rng):
    """Survivors of each network, those of its layers side by side."""
    of_layers = [(layer.weight.shape[1], layer.k) for layer in layers if layer.k]
    rows = [[np.sort(rng.permutation(n)[:k]) for n, k in of_layers] for _ in range(networks)]
    return np.array([np.concatenate([np.zeros(0, np.int64), *row]) for row in rows], np.int64)


def by_layers(x, layers, picks):
    """A network's outputs and, beside each, the sum of what its terms are at most: by masks, in double."""
    y, bound, begin = x.astype(np.float64), np.abs(x).astype(np.float64), 0
    for layer in layers:
        kept = np.ones(layer.weight.shape[1])
        if layer.k:
            kept[np.setdiff1d(np.arange(len(kept)), picks[begin : begin + layer.k])] = 0.0
            begin += layer.k
        weight = layer.weight.astype(np.float64) * kept * layer.scale
        bias = np.float64(0) if layer.bias is None else layer.bias.astype(np.float64)
        y, bound = y @ weight.T + bias, bound @ np.abs(weight).T + np.abs(bias)
        y = np.maximum(y, 0) if layer.clip else y
    return y, bound


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", LEVELS)
@given(
    sizes=SIZES,
    n=st.integers(1, 70),
    networks=st.integers(1, 5),
    threads=st.integers(1, 4),
    masks=st.sampled_from([None, Masks(threshold(0.5), 0), Masks(threshold(0.3), 2**40 + 77)]),
    seed=st.integers(0, 2**32),
)
def test_networks_are_those_of_their_masks(level, dtype, sizes, n, networks, threads, masks, seed):
    rng = np.random.default_rng(seed)
    layers = list(perceptron(sizes, dtype, rng, masks is not None))
    x, picks = rng.normal(size=(n, sizes[0])).astype(dtype), picks_of(layers, networks, rng)
    keys = [Key(seed).fold_in(i) for i in range(networks)] if masks else None
    out = Networks(x, layers, threads, masks, level).run(picks, keys)
    assert out.shape == (networks, n, sizes[-1])
    assert out.dtype == x.dtype
    # n roundings of what the terms are at most: Higham 2002, doi:10.1137/1.9780898718027, section 3.1
    eps = np.finfo(dtype).eps * (sum(sizes) + 3 * len(sizes))
    for i in range(networks):
        given = x
        if masks:
            given = np.where(bernoulli(keys[i], x.size, *masks).reshape(x.shape), x, 0)
        expected, bound = by_layers(given, layers, picks[i])
        assert (np.abs(out[i] - expected) <= eps * bound).all()
    again = Networks(x, layers, 1, masks, level).run(picks, keys)
    assert (again == out).all(), "one order of sums, on any threads"
    half = n // 2
    rest = masks and masks._replace(start=masks.start + half * sizes[0])
    alone = Networks(x[half:], layers, 1, rest, level).run(picks[-1:], keys and keys[-1:])
    assert (alone[0] == out[-1, half:]).all(), "whatever rows and networks are beside"


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_comes_from_what_is_dropped(level):
    rng = np.random.default_rng(0)
    layers = [
        Dense(rng.normal(size=(20, 30)), rng.normal(size=20), True, 15, 2.0),
        Dense(rng.normal(size=(4, 20)), None, False, 10, 2.0),
    ]
    x, picks = rng.normal(size=(9, 30)), picks_of(layers, 1, rng)
    expected = Networks(x, layers, 1, None, level).run(picks)
    first, second = (
        np.setdiff1d(np.arange(n), picks[0, part]) for n, part in ((30, slice(15)), (20, slice(15, 25)))
    )
    x[:, first] = layers[0].weight[:, first] = layers[0].weight[second] = np.nan
    layers[0].bias[second] = layers[1].weight[:, second] = np.inf
    assert (Networks(x, layers, 1, None, level).run(picks) == expected).all()


@pytest.mark.parametrize("level", LEVELS)
def test_a_nan_stays_one(level):
    layers = [Dense(np.eye(3), None, True, None, 1.0), Dense(np.eye(3), None, True, 2, 1.0)]
    x = np.array([[np.nan, -1.0, 2.0], [1.0, np.inf, np.nan]])
    out = Networks(x, layers, 1, None, level).run(np.array([[0, 1]]))
    assert np.isnan(out[0, 0]).all(), "through weights of 0, as 0·NaN is"
    assert np.isnan(out[0, 1]).all()
    assert not np.isnan(
        Networks(x[:1, 1:], [Dense(np.eye(2), None, True, None, 1.0)], 1, None, level).run(
            np.zeros((1, 0), np.int64)
        )
    ).any()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("n", "networks"), [(0, 3), (5, 0)])
def test_nothing_gives_nothing(level, n, networks):
    layers = [Dense(np.ones((2, 3)), None, False, 2, 1.5)]
    out = Networks(np.ones((n, 3)), layers, 2, None, level).run(np.tile([0, 2], (networks, 1)))
    assert out.shape == (networks, n, 2)
