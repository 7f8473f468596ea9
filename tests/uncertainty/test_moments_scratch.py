"""Moments of networks in NumPy against those of torch models."""

import numpy as np
from helpers.ensembles import as_torch, rows, small

from thinned import uncertainty


def test_moments_are_the_same_by_hand_and_in_torch(torch):
    net, x = small(p=0.4), rows(6, 4)
    by_hand, given = (
        uncertainty.moments(net, x),
        uncertainty.moments(as_torch(torch, net), torch.from_numpy(x)),
    )
    assert np.allclose(given.mean.numpy(), by_hand.mean, atol=1e-5)
    assert np.allclose(given.std.numpy(), by_hand.std, atol=1e-5)
