"""The split of undivided data."""

import numpy as np
import pytest

from thinned import Key
from thinned.lab.data import table


@pytest.mark.parametrize("seed", range(5))
def test_stratified_is_a_split(seed):
    rng = np.random.default_rng(seed)
    y = rng.choice(rng.integers(-5, 5, 4), rng.integers(1, 200))
    share = rng.uniform(0.01, 0.99)
    train, test = table.stratified(y, share, Key(seed))
    assert sorted([*train, *test]) == list(range(len(y)))
    for label, count in zip(*np.unique(y, return_counts=True), strict=True):
        mine = int((y[test] == label).sum())
        assert abs(mine - share * count) <= 1
        assert mine < count
