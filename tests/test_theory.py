"""Closed forms against brute force: every mask, every place, numerical integration."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinned import theory

P = pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.9])


@P
def test_factors_of_two_points(p):
    for kept, moments in ((1 / (1 - p), theory.bernoulli_moments), (1.0, theory.mask_moments)):
        mean = (1 - p) * kept
        assert moments(p) == pytest.approx((mean, (1 - p) * kept**2 - mean**2), rel=1e-12)
    assert theory.gaussian_moments(p) == theory.bernoulli_moments(p)
    assert theory.drop_block_moments(p) == theory.bernoulli_moments(p)


def test_all_is_zero_at_one():
    assert theory.bernoulli_moments(1.0) == theory.gaussian_moments(1.0) == (0.0, 0.0)
    assert theory.mask_moments(1.0) == theory.alpha_moments(1.0) == theory.alpha_constants(1.0) == (0.0, 0.0)


@P
def test_alpha_keeps_mean_0_and_variance_1(p):
    a, b = theory.alpha_constants(p)
    mean = p * (a * theory.ALPHA_PRIME + b) + (1 - p) * b
    second = p * (a * theory.ALPHA_PRIME + b) ** 2 + (1 - p) * (a**2 + b**2)
    assert mean == pytest.approx(0, abs=1e-12)
    assert second == pytest.approx(1, rel=1e-12)
    values, shares = np.array([a + b, a * theory.ALPHA_PRIME + b]), np.array([1 - p, p])
    mean = shares @ values
    assert theory.alpha_moments(p) == pytest.approx((mean, shares @ (values - mean) ** 2), rel=1e-9)


def test_alpha_prime_is_the_papers():
    assert pytest.approx(-1.7580993408473766, abs=1e-15) == theory.ALPHA_PRIME


@P
def test_drop_connect_over_all_masks(p):
    x, w, b = (
        np.array([[0.5, -1.0, 2.0]]),
        np.array([[1.0, 0.3, -0.7], [0.2, 0.0, 1.5]]),
        np.array([0.1, -3.0]),
    )
    first, second = np.zeros((1, 2)), np.zeros((1, 2))
    for mask in itertools.product([0, 1], repeat=6):
        chance = math.prod(1 - p if m else p for m in mask)
        y = x @ (w * np.reshape(mask, (2, 3))).T / (1 - p) + b
        first, second = first + chance * y, second + chance * y**2
    mean, variance = theory.drop_connect_moments(x, w, b, p)
    assert np.allclose(mean, first, rtol=1e-12)
    assert np.allclose(variance, second - first**2, rtol=1e-9)


def all_maps(block, spatial):
    """Every set of fallen seeds, and the map it makes: (how many fell, dropped)."""
    sizes = [min(block, s) for s in spatial]
    valid = list(itertools.product(*(range(s - b + 1) for s, b in zip(spatial, sizes, strict=True))))
    for fallen in itertools.product([False, True], repeat=len(valid)):
        dropped = np.zeros(spatial, bool)
        for corner in itertools.compress(valid, fallen):
            dropped[tuple(slice(a, a + b) for a, b in zip(corner, sizes, strict=True))] = True
        yield sum(fallen), len(valid), dropped


SMALL = [
    (2, (6,)),
    (7, (4,)),
    (3, (3, 3)),
    (2, (4, 3)),
    (2, (4, 4)),
    (4, (5, 2)),
    (2, (3, 2, 3)),
    (1, (2, 3)),
]


@pytest.mark.parametrize(("block", "spatial"), SMALL)
@pytest.mark.parametrize("rate", [0.05, 0.4, 1.0])
def test_drop_block_over_all_seeds(block, spatial, rate):
    mean = square = 0.0
    for fell, seeds, dropped in all_maps(block, spatial):
        chance = rate**fell * (1 - rate) ** (seeds - fell)
        mean, square = mean + chance * dropped.mean(), square + chance * dropped.mean() ** 2
    assert theory.drop_block_share(rate, block, spatial) == pytest.approx(mean, rel=1e-10)
    variance = theory.drop_block_variance(rate, block, spatial)
    assert variance == pytest.approx(square - mean**2, rel=1e-8, abs=1e-12)


@given(
    p=st.floats(0, 1, exclude_min=True, exclude_max=True),
    block=st.integers(1, 9),
    spatial=st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple),
)
def test_the_rate_of_seeds_drops_p(p, block, spatial):
    rate = theory.drop_block_rate(p, block, spatial)
    assert 0 <= rate <= 1
    # an error of a few roundings of s = −ln(1 − γ) or of 1 − γ, times at most blockᵈ seeds
    bound = 8 * np.finfo(float).eps * (1 + block ** len(spatial))
    assert abs(theory.drop_block_share(rate, block, spatial) - p) <= bound


@pytest.mark.parametrize("p", [5e-324, 1e-300, 1e-12, 1 - 1e-12, 1 - 2**-53])
@pytest.mark.parametrize("spatial", [(3,), (14, 14), (9, 5, 30)])
@pytest.mark.parametrize("block", [2, 7])
def test_the_rate_of_seeds_next_to_the_ends(p, spatial, block):
    rate = theory.drop_block_rate(p, block, spatial)
    assert 0 <= rate <= 1
    if p < 0.5:  # so rare that blocks do not overlap: p over the mean number of seeds above a place
        places = [min(block, n) * (n - min(block, n) + 1) / n for n in spatial]
        assert rate == pytest.approx(p / math.prod(places), rel=1e-9, abs=5e-324)
    else:
        bound = 8 * np.finfo(float).eps * (1 + block ** len(spatial))
        assert abs(theory.drop_block_share(rate, block, spatial) - p) <= bound


@pytest.mark.parametrize("exact", [True, False])
def test_rates_at_the_ends(exact):
    assert theory.drop_block_rate(0.0, 7, (14, 14), exact=exact) == 0.0
    assert theory.drop_block_rate(1.0, 7, (14, 14), exact=exact) == 1.0
    assert theory.drop_block_rate(0.3, 1, (14, 14), exact=exact) == 0.3, "blocks of one are dropout"
    assert theory.drop_block_rate(0.3, 9, (7, 5), exact=exact) == pytest.approx(0.3), "one block is the map"


def test_the_papers_rate():
    """γ = p/block²·size²/(size − block + 1)²: 0.1/49·196/64 at 14 × 14."""
    assert theory.drop_block_rate(0.1, 7, (14, 14), exact=False) == pytest.approx(0.1 / 49 * 196 / 64)
    assert theory.drop_block_rate(0.9, 7, (8, 8), exact=False) <= 1.0


def test_the_rate_of_a_large_map_takes_no_memory():
    """An hour of sound at 48 kHz; a table of places by seeds would take 10¹⁶ bytes."""
    spatial = (3600 * 48_000,)
    rate = theory.drop_block_rate(0.1, 480, spatial)
    assert theory.drop_block_share(rate, 480, spatial) == pytest.approx(0.1, rel=1e-10)


@pytest.mark.parametrize(
    ("size", "spatial"), [(1, (4, 4)), (2, (5, 3)), (3, (5, 4)), (4, (6, 6)), (9, (4, 7)), (20, (4, 4))]
)
@pytest.mark.parametrize("holes", [1, 2, 5])
def test_cutout_over_all_centres(size, spatial, holes):
    covered = np.zeros(spatial)
    for centre in itertools.product(*map(range, spatial)):
        hole = np.zeros(spatial)
        hole[tuple(slice(max(c - size // 2, 0), max(c - size // 2 + size, 0)) for c in centre)] = 1
        covered += hole / math.prod(spatial)
    assert theory.cutout_share(size, spatial, holes) == pytest.approx(np.mean(1 - (1 - covered) ** holes))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_cutmix_over_all_centres(share):
    spatial = (6, 9)
    sides = [int(length * share**0.5) for length in spatial]
    areas = []
    for centre in itertools.product(*map(range, spatial)):
        edges = [
            (max(c - s // 2, 0), min(c - s // 2 + s, n))
            for c, s, n in zip(centre, sides, spatial, strict=True)
        ]
        areas.append(math.prod(b - a for a, b in edges) / math.prod(spatial))
    assert theory.cutmix_share(share, spatial) == pytest.approx(np.mean(areas))


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_beta(alpha):
    """∫ over a fine grid, in t with λ = sin²(t), which takes the poles away."""
    t = (np.arange(200_000) + 0.5) / 200_000 * np.pi / 2
    density = (np.sin(t) * np.cos(t)) ** (2 * alpha - 1)
    lam = np.sin(t) ** 2
    mean = (density @ lam) / density.sum()
    assert theory.beta_moments(alpha) == pytest.approx(
        (mean, density @ (lam - mean) ** 2 / density.sum()), rel=1e-3
    )


def test_attentive():
    assert theory.attentive_share(6, 7) == 6 / 49
