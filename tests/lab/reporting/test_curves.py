"""The geometry of curves: labels apart, scales that hold their values, every epoch once."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinned.lab.reporting import curves


@given(st.lists(st.floats(0, 280), max_size=17))
def test_labels_keep_their_distance(wanted: list[float]) -> None:
    places = curves.spread(wanted, 16, 6, 274)
    ordered = sorted(places)
    assert all(b - a >= 16 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert all(6 <= p <= 274 + 1e-9 for p in places)
    order = np.argsort(wanted, kind="stable")
    assert all(np.diff(np.asarray(places)[order]) > 0)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20), st.booleans())
def test_linear_scale_holds_its_values(whole: list[int], from_zero: bool) -> None:
    values = [v / 1e5 for v in whole]
    scale = curves.linear(values, from_zero)
    assert np.all((scale(values) >= -1e-9) & (scale(values) <= 1 + 1e-9))
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 9
    assert len({t.text for t in ticks}) == len(ticks)


@given(st.lists(st.floats(1e-12, 1e6), min_size=1, max_size=20), st.lists(st.floats(0, 1e6), max_size=5))
def test_curve_scale_shows_all_test_values(test: list[float], train: list[float]) -> None:
    scale = curves.curve_scale(np.array(test + train), np.array(test))
    places = scale(test + train)
    assert np.all((places >= -1e-9) & (places <= 1 + 1e-9))
    assert all(-1e-9 <= t.at <= 1 + 1e-9 for t in scale.ticks())


@pytest.mark.parametrize("n", [1, 2, 59, 60, 61, 100, 10_001])
def test_bins_cover_every_epoch_once(n: int) -> None:
    bins = curves._bins(n, 60)
    assert len(bins) <= 60
    assert np.concatenate([np.arange(n)[b] for b in bins]).tolist() == list(range(n))
    assert bins[-1] == slice(n - 1, n)
