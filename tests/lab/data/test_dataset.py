"""Holding out a part of the training data."""

import numpy as np
import pytest
from helpers.data import check

from thinned import Key
from thinned.lab.data.dataset import holdout
from thinned.lab.data.registry import load


def test_holdout_never_looks_at_the_test_data():
    whole = load("spiral")
    for n_or_share, n in ((600, 600), (0.2, 600), (np.float32(0.2), 600), (np.int64(5), 5)):
        part = check(holdout(whole, n_or_share, Key(3)))
        assert (len(part.x_train), len(part.x_test)) == (3000 - n, n)
        both = np.concatenate([part.x_train, part.x_test])
        assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, whole.x_train.tolist()))
        assert part.fingerprint != whole.fingerprint
        assert "held out" in part.note
    again, other = holdout(whole, 600, Key(3)), holdout(whole, 600, Key(4))
    assert holdout(whole, 600, Key(3)).fingerprint == again.fingerprint != other.fingerprint
    for wrong in (0, 3000, -1, 0.0, 1.0, 1e-9, float("nan")):
        with pytest.raises(ValueError, match="n_or_share"):
            holdout(whole, wrong, Key(0))
