"""Calibration and scores of known predictions."""

import math

import numpy as np
import pytest
from helpers.ensembles import SIGMAS

from thinned import uncertainty


def test_calibration_of_known_bins():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [1.0, 0.0]])
    result = uncertainty.reliability(p, np.array([0, 1, 1, 0]), bins=10)
    assert result.count.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 2, 1]
    assert result.accuracy[[5, 8, 9]].tolist() == [1.0, 0.5, 1.0]
    assert uncertainty.calibration_error(p, np.array([0, 1, 1, 0]), 10) == pytest.approx((0.4 + 2 * 0.4) / 4)


def test_bins_of_equal_count():
    p = np.linspace(0.5, 0.99, 30)
    result = uncertainty.reliability(np.stack([p, 1 - p], 1), np.zeros(30, int), 5, adaptive=True)
    assert result.count.tolist() == [6] * 5
    assert result.edges[[0, -1]].tolist() == [0.5, 0.99]
    assert result.error == pytest.approx(np.mean(1 - p)), "all are right, none is sure"
    same = uncertainty.reliability(np.full((30, 2), 0.5), np.arange(30) % 2, 5, adaptive=True)
    assert same.count.tolist() == [30, 0, 0, 0, 0], "equals are not parted"
    assert same.error == 0.0


def test_scores_of_known_predictions():
    p, labels = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1]]), np.array([0, 1])
    result = uncertainty.scores(p, labels)
    assert result.error == 0.5
    assert result.log_loss == pytest.approx(-np.log([0.9, 0.3]).mean())
    assert result.brier == pytest.approx(((p - np.eye(3)[labels]) ** 2).sum(1).mean())
    assert result.overconfidence == pytest.approx(0.75 - 0.5)
    assert result.calibration == pytest.approx((0.1 + 0.6) / 2)
    assert np.isfinite(uncertainty.scores(np.eye(3)[[0]], np.array([1])).log_loss)


def test_labels_drawn_from_the_probabilities_are_calibrated():
    rng, n, bins = np.random.default_rng(0), 20_000, 10
    p = rng.dirichlet((0.5, 0.5, 0.5), n)
    labels = (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=2)
    result = uncertainty.reliability(p, labels, bins)
    full = result.count > 0
    bound = SIGMAS * 0.5 / np.sqrt(result.count[full])
    assert (np.abs(result.accuracy - result.confidence)[full] <= bound).all()
    # E|gap| ≤ its standard deviation, ½√(1/count): Σ count/n·½/√count ≤ ½√(bins/n)
    assert result.error <= SIGMAS * 0.5 * math.sqrt(bins / n)
    bound = SIGMAS * 0.5 / math.sqrt(n)
    flat, sharp = (p**power / (p**power).sum(1, keepdims=True) for power in (0.5, 3))
    assert uncertainty.calibration_error(sharp, labels) > 0.05, "probabilities that say too much are found"
    little, right, much = (uncertainty.scores(q, labels) for q in (flat, p, sharp))
    assert little.overconfidence < -bound
    assert abs(right.overconfidence) <= bound
    assert much.overconfidence > bound
    for other in (little, much):
        assert right.brier < other.brier
        assert right.log_loss < other.log_loss
        assert right.adaptive < other.adaptive


def test_rejection_keeps_the_certain():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]])
    share, error = uncertainty.rejection(p, np.array([0, 1, 1, 0]))
    assert share.tolist() == [0, 0.25, 0.5, 0.75]
    assert error == pytest.approx([0.5, 1 / 3, 0, 0])
    _, equal = uncertainty.rejection(p, np.array([0, 1, 1, 0]), np.ones(4))
    assert equal == pytest.approx([0.5] * 4), "equals are in no order"


def test_bad_calibration_input_is_refused():
    p = np.full((3, 2), 0.5)
    with pytest.raises(TypeError, match="labels must hold integers"):
        uncertainty.calibration_error(p, np.zeros(3))
    with pytest.raises(ValueError, match="labels must be 3 class numbers"):
        uncertainty.calibration_error(p, np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"probabilities must be in \[0, 1\]"):
        uncertainty.calibration_error(p * 3, np.zeros(3, int))
    with pytest.raises(ValueError, match=r"must sum to 1 a row, got sums from 0\.8 to 0\.8"):
        uncertainty.scores(p * 0.8, np.zeros(3, int))
    with pytest.raises(ValueError, match=r"uncertainty must have shape \(3,\)"):
        uncertainty.rejection(p, np.zeros(3, int), np.zeros(2))
