"""The statistics of samples against NumPy's."""

import numpy as np

from thinned.uncertainty import prediction


def test_statistics_against_numpy():
    y = np.random.default_rng(0).normal(size=(9, 4, 3, 2))
    found = prediction.summarise(y, "logits", (0.0, 0.3, 1.0))
    p = np.exp(y) / np.exp(y).sum(2, keepdims=True)
    assert np.allclose(found.mean, p.mean(0))
    assert np.allclose(found.std, p.std(0, ddof=1))
    assert np.allclose(found.quantiles, np.quantile(p, (0.0, 0.3, 1.0), axis=0))
    h = -(p.mean(0) * np.log(p.mean(0))).sum(1)
    assert np.allclose(found.entropy, h)
    assert np.allclose(found.mutual_information, h + (p * np.log(p)).sum(2).mean(0))
    labels = prediction.summarise(y, "labels", ())
    q = 1 / (1 + np.exp(-y))
    assert np.allclose(labels.mean, q.mean(0))
    assert np.allclose(
        labels.entropy, -(q.mean(0) * np.log(q.mean(0)) + (1 - q.mean(0)) * np.log(1 - q.mean(0)))
    )
    assert labels.quantiles.shape == (0, 4, 3, 2)
    certain = prediction.summarise(np.full((3, 2, 2), [1000.0, -1000.0]), "logits", (0.5,))
    assert np.array_equal(certain.entropy, np.zeros(2))
    assert np.array_equal(certain.mutual_information, np.zeros(2))
