"""The rules of moments against numerical integration."""

import numpy as np
import pytest


def test_the_moments_of_relu_against_numerical_integration():
    from thinned.uncertainty.moment_rules import Moments, relu

    z = np.linspace(-12, 12, 200_001)
    weight = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    for mean, sigma in ((0.0, 1.0), (-2.0, 0.5), (3.0, 2.0), (1.0, 0.01)):
        y = np.maximum(mean + sigma * z, 0)
        first, second = weight @ y, weight @ y**2
        result = relu(Moments(np.array([mean]), np.array([sigma**2])))
        assert result.mean == pytest.approx(first, abs=1e-6)
        assert result.variance == pytest.approx(second - first**2, abs=2e-6 * max(1.0, mean**2))
    exact = relu(Moments(np.array([-1.0, 2.0]), np.zeros(2)))
    assert np.allclose(exact.mean, [0, 2])
    assert np.allclose(exact.variance, 0)
