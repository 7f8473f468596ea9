"""Moments against samples."""

import math

import numpy as np
import pytest
from helpers.ensembles import SIGMAS, assert_means, rows

from thinned import Key, scratch, uncertainty


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_moments_of_one_hidden_layer_are_exact(p):
    net, x, samples = scratch.mlp((4, 8, 2), key=Key(0), drop=scratch.Dropout, p=p), rows(6, 4), 20_000
    result = uncertainty.moments(net, x, outputs="numbers")
    drawn = uncertainty.predict(net, x, samples, key=Key(1), outputs="numbers", thin=False)
    assert_means(drawn.mean, result.mean, result.std, samples)
    # a sum of 8 bounded terms has a kurtosis of at most 3 + (1 − 6p(1 − p))/(p(1 − p))
    kurtosis = 3 + max(0.0, (1 - 6 * p * (1 - p)) / (p * (1 - p)))
    bound = SIGMAS * result.std**2 * math.sqrt((kurtosis - 1) / samples) + 1e-6
    assert (np.abs(drawn.std**2 - result.std**2) <= bound).all()


def test_a_layer_without_a_rule_is_named(torch):
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.LayerNorm(4))
    with pytest.raises(ValueError, match="got LayerNorm at 1"):
        uncertainty.moments(model, torch.randn(2, 4))
    net = scratch.Sequential(scratch.Dropout(), scratch.Tanh())
    with pytest.raises(ValueError, match="got Tanh at 1"):
        uncertainty.moments(net, rows(2, 4))
