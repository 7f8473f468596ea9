"""Closed forms against brute force: every mask, every place, numerical integration."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinned import Key, keep_mask, theory

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


def both_rows(p16, panels, panel, n):
    """The survival of n units in two rows of a pair, for every order of the panels and every window.

    (orders · windows, 2, n) bool; a circle of 16 steps a panel holds all windows of p = p16/16.
    """
    around = 16 * panels
    return np.array(
        [
            [
                [
                    (16 * ranks[i // panel] - u - h * around // 2) % around < (16 - p16) * panels
                    for i in range(n)
                ]
                for h in (0, 1)
            ]
            for ranks in itertools.permutations(range(panels))
            for u in range(16)
        ]
    )


@pytest.mark.parametrize("p16", [0, 1, 5, 8, 13, 16])
@pytest.mark.parametrize(("n", "panel"), [(2, 1), (4, 1), (5, 1), (5, 2), (8, 2), (3, 4), (4, 4)])
def test_covariances_over_all_picks(p16, n, panel):
    """All orders of the units are as likely: so of two units, the mean over all pairs."""
    p = p16 / 16
    rows = both_rows(p16, -(-n // panel), panel, n).astype(float)
    assert rows.mean(axis=0) == pytest.approx(np.full((2, n), 1 - p), abs=1e-12)
    same_row, pair = (
        np.einsum("kn,km->nm", rows[:, 0], rows[:, h]) / len(rows) - (1 - p) ** 2 for h in (0, 1)
    )
    others = ~np.eye(n, dtype=bool)
    assert theory.thin_covariance(p, n, panel) == pytest.approx(same_row[others].mean(), abs=1e-12)
    want = np.diag(pair).mean(), pair[others].mean()
    assert theory.thin_pair_covariance(p, n, panel) == pytest.approx(want, abs=1e-12)


def test_thin_has_the_moments_of_dropout():
    for p in (0.0, 0.1, 0.5, 0.7, 1.0):
        assert theory.thin_moments(p) == theory.bernoulli_moments(p)


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


# Regression with dropout on the inputs: the closed form beside a simulation, within a computed bound.

Z = 5.0  # standard errors: chance exceeds them once in 1.7 million


def _regression(seed=0, n=30, d=4):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) * np.arange(1, d + 1)
    return x, x @ rng.normal(size=d) + rng.normal(size=n), rng.normal(size=d)


def _masked(x, p, draws=20_000, seed=1):
    return x * keep_mask((draws, *x.shape), p, key=Key(seed))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_linear_loss_is_the_mean_over_the_masks(p):
    x, y, w = _regression()
    losses = ((y - _masked(x, p) @ w) ** 2).sum(1)
    bound = Z * losses.std(ddof=1) / len(losses) ** 0.5
    assert abs(losses.mean() - theory.linear_loss(x, y, w, p)) < bound
    scaled = (1 - p) * w  # its form in the weights of evaluation
    ridge = np.sum((y - x @ scaled) ** 2) + p / (1 - p) * theory.gamma_squared(x) @ scaled**2
    assert math.isclose(theory.linear_loss(x, y, w, p), ridge, rel_tol=1e-12)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_linear_gradient_is_the_mean_over_the_masks(p):
    x, y, w = _regression()
    masked = _masked(x, p)
    grads = -np.einsum("knd,kn->kd", masked, y - masked @ w)
    bound = Z * grads.std(axis=0, ddof=1) / len(grads) ** 0.5
    assert (np.abs(grads.mean(0) - theory.linear_gradient(x, y, w, p)) < bound).all()


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_linear_minimiser_has_no_gradient_and_is_the_least(p):
    x, y, _ = _regression()
    w = theory.linear_minimiser(x, y, p)
    scale = np.abs(x.T @ y).max()
    assert np.abs(theory.linear_gradient(x, y, w, p)).max() < 1e-12 * scale
    least = theory.linear_loss(x, y, w, p)
    for step in np.random.default_rng(2).normal(size=(20, len(w))):
        assert theory.linear_loss(x, y, w + 0.01 * step, p) > least


def test_penalty_is_strongest_at_one_half():
    rates = np.linspace(0, 1, 101)
    assert rates[np.argmax([theory.penalty_weight(p) for p in rates])] == 0.5


def test_logistic_penalty_is_what_dropout_adds_to_second_order():
    x, _, w = _regression()
    labels = np.random.default_rng(3).integers(0, 2, len(x)) * 2 - 1
    p, v = 0.3, 0.02 * w
    noise = (_masked(x, p, 40_000) / (1 - p) - x) @ v * labels
    margin = x @ v * labels
    slope = -1 / (1 + np.exp(margin))  # noise has mean 0: taking its first order away leaves the mean
    added = (np.logaddexp(0, -margin - noise) - np.logaddexp(0, -margin) - slope * noise).sum(1)
    chance = Z * added.std(ddof=1) / len(added) ** 0.5
    third = (np.abs(noise) ** 3).sum(1).mean() / (6 * 6 * 3**0.5)  # the third derivative is at most 1/(6√3)
    penalty = theory.logistic_penalty(x, v, p)
    assert chance + third < 0.1 * penalty, "the bound says something"
    assert abs(added.mean() - penalty) < chance + third
    assert math.isclose(theory.logistic_penalty(-x, v, p), penalty), "the labels cancel"


def test_layer_penalty_is_the_variance_of_the_outputs():
    x, _, _ = _regression()
    weight, p = np.random.default_rng(4).normal(size=(3, x.shape[1])), 0.4
    exact = theory.drop_connect_moments(x, weight, p=p)[1].sum(1).mean()  # equal: no input meets itself twice
    assert math.isclose(theory.layer_penalty(x, weight, p), exact)


def test_subnetworks():
    assert theory.subnetworks(10) == 1024
    assert theory.subnetworks(10, 5) == 252
    assert sum(theory.subnetworks(10, k) for k in range(11)) == 1024
    assert math.isclose(theory.effective_subnetworks(10, 0.5), 1024)
    assert max((theory.effective_subnetworks(10, p), p) for p in np.linspace(0, 1, 21))[1] == 0.5
    assert theory.effective_subnetworks(10, 0.0) == theory.effective_subnetworks(10, 1.0) == 1.0
