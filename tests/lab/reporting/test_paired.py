"""Paired differences: against definitions, other libraries' tests, and simulated runs that do not differ."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from thinned.lab.reporting.paired import Difference, differences, holm, sign_flips, two_way

rng = np.random.default_rng(7)


def test_one_seed_is_mcnemars_test():
    a, b = rng.random(300) < 0.2, rng.random(300) < 0.3
    (found,) = differences({"a": {0: a}, "b": {0: b}}, "b", counts=True)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert found.p == pytest.approx(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    half = stats.t.ppf(0.975, 299) * (a.astype(float) - b).std(ddof=1) / math.sqrt(300)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))
    assert not found.decided  # one seed


def test_signs_are_flipped_exactly():
    totals = np.array([3, -1, 2, 2, 0, -3, 1])
    sums = [
        sum(s * t for s, t in zip(signs, totals, strict=True))
        for signs in itertools.product((-1, 1), repeat=7)
    ]
    expected = np.mean([abs(one) >= abs(totals.sum()) for one in sums])
    assert sign_flips(totals) == pytest.approx(expected)
    assert sign_flips(np.zeros(5, int)) == 1.0


def test_the_variance_is_that_of_two_way_random_effects():
    """The mean squares against their definitions, and the two limits: no seed effect, no example effect."""
    d = rng.normal(size=(4, 50)) + rng.normal(size=(4, 1)) + rng.normal(size=50)
    mean, variance, freedom, by_seeds = two_way(d)
    rows, columns = d.mean(axis=1, keepdims=True), d.mean(axis=0, keepdims=True)
    rest = ((d - rows - columns + d.mean()) ** 2).sum() / (3 * 49)
    of_seeds = 50 * ((rows - mean) ** 2).sum() / 3
    of_examples = 4 * ((columns - mean) ** 2).sum() / 49
    assert variance == pytest.approx((of_seeds + of_examples - rest) / 200)
    assert by_seeds == pytest.approx(of_seeds / (of_seeds + of_examples - rest))
    assert 3 <= freedom <= 49 + 3
    same = np.tile(rng.normal(size=50), (4, 1))  # seeds change nothing
    assert two_way(same)[1] == pytest.approx(same[0].var(ddof=1) / 50)
    level = np.tile(rng.normal(size=(4, 1)), 50)  # examples change nothing
    assert two_way(level)[1:3] == pytest.approx((level[:, 0].var(ddof=1) / 4, 3))


def test_roots_of_mean_squares_differ_by_the_mean():
    a, b = (rng.normal(size=(3, 40)) ** 2 for _ in range(2))
    (found,) = differences({"b": dict(enumerate(b)), "a": dict(enumerate(a))}, "b", counts=False)
    expected = np.mean(np.sqrt(a.mean(axis=1)) - np.sqrt(b.mean(axis=1)))
    assert found.mean == pytest.approx(expected)


def test_runs_without_a_difference_are_rarely_decided():
    """200 comparisons of two methods whose errors have effects of seeds and examples, and no difference."""
    trials, decided = 200, 0
    for _ in range(trials):
        hard, luck = rng.normal(size=(1, 300)), 0.3 * rng.normal(size=(2, 3, 1))
        wrong = rng.normal(size=(2, 3, 300)) + hard + luck > 1.5
        losses = {"ab"[m]: dict(enumerate(wrong[m].astype(float))) for m in range(2)}
        decided += differences(losses, "a", counts=True)[0].decided
    assert decided <= stats.binom.isf(1e-6, trials, 0.05)


def test_a_large_difference_is_decided():
    base = rng.random(500) < 0.4
    losses = {
        "a": {s: (base & (rng.random(500) < 0.9)).astype(float) for s in range(3)},
        "b": {s: (base & (rng.random(500) < 0.3)).astype(float) for s in range(3)},
    }
    (found,) = differences(losses, "a", counts=True)
    assert found.decided
    assert found.high < 0


def test_equal_runs():
    losses = {name: {s: np.array([0.0, 1, 0, 1]) for s in range(3)} for name in "ab"}
    (found,) = differences(losses, "a", counts=True)
    assert found.same
    assert (found.mean, found.low, found.high, found.p, found.decided) == (0, 0, 0, 1, False)


def test_seeds_that_hold_out_their_own_examples_are_compared_seed_by_seed():
    """A t-test of the seeds' mean differences, corrected: s² · (1/S + held out/training)."""
    sizes = (80, 80, 79, 83, 78)
    a, b = ({s: rng.random(n) for s, n in enumerate(sizes)} for _ in range(2))
    (found,) = differences({"a": a, "b": b}, "b", counts=True, held_out=0.2)
    d = np.array([a[s].mean() - b[s].mean() for s in a])
    error = d.std(ddof=1) * math.sqrt(1 / 5 + 0.2 / 0.8)
    assert found.mean == pytest.approx(d.mean())
    assert found.p == pytest.approx(2 * stats.t.sf(abs(d.mean()) / error, 4))
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 4) * error)
    assert found.by_seeds == pytest.approx((1 / 5) / (1 / 5 + 1 / 4))
    assert (found.own, found.seeds, found.examples) == (True, 5, 80)


def test_the_order_of_a_seeds_own_examples_does_not_matter():
    """Nothing pairs the examples of one seed with those of another."""
    a, b = ({s: (rng.random(60) < 0.3).astype(float) for s in range(4)} for _ in range(2))
    (first,) = differences({"a": a, "b": b}, "b", counts=True, held_out=0.25)
    orders = [rng.permutation(60) for _ in range(4)]
    a, b = ({s: one[s][orders[s]] for s in one} for one in (a, b))
    (second,) = differences({"a": a, "b": b}, "b", counts=True, held_out=0.25)
    assert (second.mean, second.p, second.low) == pytest.approx((first.mean, first.p, first.low))


def test_one_seed_that_holds_out_is_mcnemars_test_too():
    a, b = rng.random(90) < 0.2, rng.random(90) < 0.3
    losses = {"a": {0: a}, "b": {0: b}}
    assert differences(losses, "b", counts=True, held_out=0.2) == differences(losses, "b", counts=True)


def test_held_out_examples_without_a_difference_are_rarely_decided():
    """200 comparisons of two equal methods, five seeds that hold out 60 of 300 examples each."""
    trials, decided = 200, 0
    for _ in range(trials):
        chance = np.clip(rng.normal(0.2, 0.15, (2, 300)), 0, 1)
        losses: dict[str, dict[int, np.ndarray]] = {"a": {}, "b": {}}
        for s in range(5):
            part = rng.choice(300, 60, replace=False)
            for m, name in enumerate("ab"):
                losses[name][s] = (rng.random(60) < chance[m, part]).astype(float)
        decided += differences(losses, "a", counts=True, held_out=0.2)[0].decided
    assert decided <= stats.binom.isf(1e-6, trials, 0.05)


def test_seeds_that_one_lacks_do_not_count():
    losses = {"a": {s: rng.random(9) for s in (0, 1, 2)}, "b": {s: rng.random(9) for s in (1, 2, 3)}, "c": {}}
    (found,) = differences(losses, "a", counts=False)
    assert (found.label, found.seeds) == ("b", 2)


def test_holm():
    ps = [0.01, 0.04, 0.03, 0.005]
    found = holm([Difference("a", "b", 0, 0, 0, p, p, 3, 9, 0.5, False) for p in ps])
    assert [one.corrected for one in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
