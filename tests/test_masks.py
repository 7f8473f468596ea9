"""keep_mask and picks: known answers, shapes, shards, torch, and bad arguments."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers.family import SEEDS, on
from helpers.picks import by_rank, kept_units
from hypothesis import given
from hypothesis import strategies as st

from thinned import Key, keep_mask, masks, theory
from thinned.key import words

KNOWN = json.loads(Path(__file__).with_name("known_answers.json").read_text())


@pytest.mark.parametrize(
    "row", KNOWN["keep_mask"], ids=lambda r: f"{r['seed']}-{r['p']}-{r['n']}-{r['start']}"
)
def test_known_answers(row):
    kept = keep_mask((row["n"],), row["p"], key=Key(int(row["seed"])), start=int(row["start"]))
    assert kept.dtype == bool
    assert np.packbits(kept, bitorder="little").tobytes().hex() == row["kept_hex"]


def test_units_are_counted_in_c_order():
    flat = keep_mask(60, 0.4, key=Key(1))
    assert np.array_equal(keep_mask((3, 4, 5), 0.4, key=Key(1)), flat.reshape(3, 4, 5))
    assert np.array_equal(keep_mask((2, 4, 5), 0.4, key=Key(1), start=20), flat.reshape(3, 4, 5)[1:])
    assert keep_mask((), 0.5, key=Key(1)).shape == ()
    assert keep_mask((4, 0), 0.5, key=Key(1)).shape == (4, 0)


def test_like_a_tensor_gives_a_tensor(torch):
    kept = keep_mask((3, 5), 0.4, key=Key(1), like=torch.zeros(1))
    assert kept.dtype == torch.bool
    assert np.array_equal(kept.numpy(), keep_mask((3, 5), 0.4, key=Key(1)))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"p": 50}, ValueError, r"p must be in \[0, 1\], got 50 \(did you mean 0.5\?\)"),
        ({"p": -0.1}, ValueError, r"p must be in \[0, 1\], got -0.1"),
        ({"p": float("nan")}, ValueError, "p must be a number, got nan"),
        ({"p": "0.5"}, TypeError, r"p must be a number, got '0.5' \(str\)"),
        ({"p": None}, TypeError, "p must be a number"),
        ({"shape": (3, -1)}, ValueError, r"shape\[1\] must be at least 0, got -1"),
        ({"shape": 2.5}, TypeError, "shape must be a tuple of sizes"),
        ({"key": 7}, TypeError, "key must be a thinned.Key"),
        ({"start": -1}, ValueError, "start must be in"),
        ({"start": 2**64 - 1}, ValueError, r"start \+ number of units must be at most 2\*\*64"),
    ],
)
def test_bad_arguments(arguments, kind, message):
    with pytest.raises(kind, match=message):
        keep_mask(**({"shape": (3,), "p": 0.5, "key": Key(0)} | arguments))


# Which units a group of rows keeps


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("row", KNOWN["picks"], ids=lambda r: f"{r['seed']}-{r['p']}-{r['n']}-{r['groups']}")
def test_picks_known_answers(row, backend):
    with on(backend):
        picks = masks.picks(row["n"], row["p"], Key(int(row["seed"])), row["groups"])
    assert np.packbits(picks.units, bitorder="little").tobytes().hex() == row["kept_hex"]


RATES = st.one_of(st.sampled_from([0.0, 1e-12, 0.2, 0.5, 0.8, 1 - 2**-53, 1.0]), st.floats(0, 1))


@given(seed=SEEDS, n=st.one_of(st.integers(0, 40), st.integers(41, 700)), p=RATES, groups=st.integers(1, 7))
def test_picks_are_those_of_brute_force(seed, n, p, groups):
    for backend in ("cpu", "reference"):
        with on(backend):
            picks = masks.picks(n, p, Key(seed), groups)
        assert picks.units.tolist() == kept_units(n, p, Key(seed), groups), backend
        assert picks.order.tolist() == by_rank(Key(seed), n)
        assert (picks.n, picks.groups) == (n, groups)
        assert all(
            np.array_equal(s, np.flatnonzero(u)) for s, u in zip(picks.survivors, picks.units, strict=True)
        )


@given(seed=SEEDS, n=st.integers(0, 2000), p=RATES, groups=st.integers(1, 5))
def test_a_group_keeps_its_share_of_the_panels_and_a_panel_as_a_whole(seed, n, p, groups):
    picks = masks.picks(n, p, Key(seed), groups)
    panels = picks.kept.shape[1]
    share = Fraction(round((1 - p) * 2**32), 2**32) * panels
    assert all(math.floor(share) <= kept <= math.ceil(share) for kept in picks.kept.sum(axis=1))
    assert panels == -(-n // picks.panel)
    assert picks.panel == 1 or panels >= 16
    for r, kept in enumerate(picks.kept.T):
        assert np.all(picks.units[:, picks.order[r * picks.panel : (r + 1) * picks.panel]] == kept[:, None])


@given(seed=SEEDS, n=st.integers(0, 600), pairs=st.integers(1, 3))
def test_two_groups_of_a_pair_share_the_units_at_one_half(seed, n, pairs):
    first, second = masks.picks(n, 0.5, Key(seed), 2 * pairs).units.reshape(pairs, 2, n).swapaxes(0, 1)
    assert np.array_equal(first, ~second)


@given(seed=SEEDS, n=st.integers(0, 300), p=RATES, groups=st.integers(1, 8))
def test_more_groups_change_none(seed, n, p, groups):
    few, all_ = masks.picks(n, p, Key(seed), groups), masks.picks(n, p, Key(seed), 8)
    assert np.array_equal(few.kept, all_.kept[:groups])
    assert np.array_equal(few.order, all_.order)


@given(seed=SEEDS, n=st.integers(0, 300), p=RATES, larger=RATES)
def test_picks_are_nested(seed, n, p, larger):
    p, larger = sorted([p, larger])
    assert np.all(masks.picks(n, p, Key(seed), 3).units >= masks.picks(n, larger, Key(seed), 3).units)


@pytest.mark.parametrize(
    ("n", "size"), [(0, 1), (31, 1), (32, 2), (63, 2), (64, 4), (128, 8), (255, 8), (256, 16), (9999, 16)]
)
def test_panels_are_powers_of_two(n, size):
    assert masks.panel_size(n) == size


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("n", [1, 3, 4, 40, 100])
def test_each_unit_survives_with_probability_1_minus_p(n, p):
    """Also where p·n is no whole number, where no fixed number of survivors has that rate."""
    keys = 3000
    kept = np.mean([masks.picks(n, p, Key(i), 3).units for i in range(keys)], axis=0)
    assert np.all(abs(kept - (1 - p)) <= 6 * math.sqrt(p * (1 - p) / keys))


@pytest.mark.parametrize("p", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("n", [3, 6, 70])
def test_units_and_rows_go_together_as_theory_says(n, p):
    """Units 0 and 1 in a row, in the rows of a pair, and in rows of two pairs."""
    keys = 4000
    kept = np.array([masks.picks(n, p, Key(i), 3).units[:, :2] for i in range(keys)], float)
    bound = 6 * math.sqrt(0.25 / keys)  # of the mean of numbers in {0, 1}
    cov = np.einsum("kga,khb->gahb", kept, kept) / keys - (1 - p) ** 2
    panel = masks.panel_size(n)
    same, two = theory.thin_pair_covariance(p, n, panel)
    assert abs(cov[0, 0, 0, 1] - theory.thin_covariance(p, n, panel)) <= bound
    assert np.all(abs(cov[0, :, 1, :] - [[same, two], [two, same]]) <= bound)
    assert np.all(abs(cov[:2, :, 2, :]) <= bound)


# What each method drops: brute force is in helpers/family.py, by test_laws.py


def test_units_of_the_contract():
    shape, key = (4, 5, 6, 7), Key(3)
    assert masks.elements(shape, 3) == (3 * 5 * 6 * 7, 1)
    assert masks.channels(shape, 3) == (3 * 5, 6 * 7)
    assert masks.samples(shape, 3) == (3, 5 * 6 * 7)
    assert masks.batch(shape, 3) == (0, 4 * 5 * 6 * 7)
    assert masks.blocks(shape, masks.seeds(shape, 0.5, 3, key)).shape == shape
    assert masks.blocks(shape, masks.seeds(shape, 0.5, 3, key, per_channel=False)).shape == (4, 1, 6, 7)
    assert masks.holes(shape, 3, 2, key).shape == (4, 1, 6, 7)
    assert masks.box(6, 7, 0.5, key).shape == (6, 7)
    assert masks.cells(np.ones((4, 3, 3)), 2, 6, 7).shape == (4, 1, 6, 7)


@given(width=st.integers(1, 12), size=st.integers(1, 12), axis=st.integers(0, 2))
def test_spread_is_a_running_or(width, size, axis):
    bits = keep_mask((size,) * 3, 0.7, key=Key(width))
    out = masks._spread(~bits, width, axis)
    want = np.zeros(out.shape, bool)
    for place in np.argwhere(~bits):
        run = [slice(i, i + 1) for i in place]
        run[axis] = slice(place[axis], place[axis] + width)
        want[tuple(run)] = True
    assert out.shape[axis] == size + width - 1
    assert np.array_equal(out, want)


def test_integers_are_words_scaled():
    below = np.array([1, 2, 10, 1000, 2**31])
    drawn = masks.integers(Key(1), 5, 0, below)
    assert np.array_equal(
        drawn, [int(w) * int(b) >> 32 for w, b in zip(words(Key(1), 5), below, strict=True)]
    )
    assert np.all((drawn >= 0) & (drawn < below))
