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
        drops = rng.random() < 0.8 and not (masked and i == 0)
        yield Dense(weight, bias, rng.random() < 0.5, drops, 1.0 + rng.random())


def survivors_of(layers, networks, rng):
    """The units that survive in each network: of each layer that drops, none to all."""
    sizes = [layer.weight.shape[1] for layer in layers if layer.drops]
    return [rng.random((networks, n)) < rng.random((networks, 1)) * 1.2 - 0.1 for n in sizes]


def by_layers(x, layers, kept):
    """A network's outputs and, beside each, the sum of what its terms are at most: by masks, in double."""
    y, bound, kept = x.astype(np.float64), np.abs(x).astype(np.float64), iter(kept)
    for layer in layers:
        survives = next(kept) if layer.drops else np.ones(layer.weight.shape[1])
        weight = layer.weight.astype(np.float64) * survives * layer.scale
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
    x, kept = rng.normal(size=(n, sizes[0])).astype(dtype), survivors_of(layers, networks, rng)
    keys = [Key(seed).fold_in(i) for i in range(networks)] if masks else None
    out = Networks(x, layers, threads, masks, level).run(networks, kept, keys)
    assert out.shape == (networks, n, sizes[-1])
    assert out.dtype == x.dtype
    # n roundings of what the terms are at most: Higham 2002, doi:10.1137/1.9780898718027, section 3.1
    eps = np.finfo(dtype).eps * (sum(sizes) + 3 * len(sizes))
    for i in range(networks):
        given = x
        if masks:
            given = np.where(bernoulli(keys[i], x.size, *masks).reshape(x.shape), x, 0)
        expected, bound = by_layers(given, layers, [each[i] for each in kept])
        assert (np.abs(out[i] - expected) <= eps * bound).all()
    again = Networks(x, layers, 1, masks, level).run(networks, kept, keys)
    assert (again == out).all(), "one order of sums, on any threads"
    half = n // 2
    rest = masks and masks._replace(start=masks.start + half * sizes[0])
    last = [each[-1:] for each in kept]
    alone = Networks(x[half:], layers, 1, rest, level).run(1, last, keys and keys[-1:])
    assert (alone[0] == out[-1, half:]).all(), "whatever rows and networks are beside"


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_comes_from_what_is_dropped(level):
    rng = np.random.default_rng(0)
    layers = [
        Dense(rng.normal(size=(20, 30)), rng.normal(size=20), True, True, 2.0),
        Dense(rng.normal(size=(4, 20)), None, False, True, 2.0),
    ]
    x = rng.normal(size=(9, 30))
    kept = [np.stack([rng.permutation(n) < k for k in (n // 2, n // 3)]) for n in (30, 20)]
    expected = Networks(x, layers, 1, None, level).run(2, kept)
    first, second = (~(each[0] | each[1]) for each in kept)
    assert first.any()
    assert second.any()
    x[:, first] = layers[0].weight[:, first] = layers[0].weight[second] = np.nan
    layers[0].bias[second] = layers[1].weight[:, second] = np.inf
    assert (Networks(x, layers, 1, None, level).run(2, kept) == expected).all()


@pytest.mark.parametrize("level", LEVELS)
def test_without_survivors_the_biases_are_left(level):
    one, two = np.array([-1.0, 2.0]), np.array([0.5, -3.0, 1.0])
    layers = [Dense(np.ones((2, 5)), one, True, True, 2.0), Dense(np.ones((3, 2)), two, False, True, 2.0)]
    x, every = np.ones((4, 5)), [np.zeros((3, 5), bool), np.zeros((3, 2), bool)]
    every[1][1:] = True
    every[0][2] = True
    out = Networks(x, layers, 1, None, level).run(3, every)
    assert (out[0] == two).all()
    assert (out[1] == two + 2.0 * 2.0).all()
    assert (out[2] == two + 2.0 * (9.0 + 12.0)).all()


@pytest.mark.parametrize("level", LEVELS)
def test_a_nan_stays_one(level):
    layers = [Dense(np.eye(3), None, True, False, 1.0), Dense(np.eye(3), None, True, True, 1.0)]
    x = np.array([[np.nan, -1.0, 2.0], [1.0, np.inf, np.nan]])
    out = Networks(x, layers, 1, None, level).run(1, [np.array([[True, True, False]])])
    assert np.isnan(out[0, 0]).all(), "through weights of 0, as 0·NaN is"
    assert np.isnan(out[0, 1]).all()
    whole = Networks(x[:1, 1:], [Dense(np.eye(2), None, True, False, 1.0)], 1, None, level)
    assert not np.isnan(whole.run(1, [])).any()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("n", "networks"), [(0, 3), (5, 0)])
def test_nothing_gives_nothing(level, n, networks):
    layers = [Dense(np.ones((2, 3)), None, False, True, 1.5)]
    kept = np.tile([True, False, True], (networks, 1))
    out = Networks(np.ones((n, 3)), layers, 2, None, level).run(networks, [kept])
    assert out.shape == (networks, n, 2)
