"""Figures of merit against scikit-learn's."""

import numpy as np
import pytest

metrics = pytest.importorskip("sklearn.metrics")
from thinned.lab.reporting.scores import losses, scores  # noqa: E402

rng = np.random.default_rng(2)


@pytest.mark.parametrize("classes", [2, 4])
def test_classes(classes):
    outputs = rng.dirichlet(np.ones(classes), 200)
    labels = rng.integers(0, classes, 200)
    found, guessed = scores(outputs, labels), outputs.argmax(axis=1)
    assert found["error"] == pytest.approx(1 - metrics.accuracy_score(labels, guessed))
    assert found["balanced accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, guessed))
    assert found["log loss"] == pytest.approx(metrics.log_loss(labels, outputs))
    assert losses(outputs, labels).mean() == found["error"]
    if classes == 2:
        assert found["AUC"] == pytest.approx(metrics.roc_auc_score(labels, outputs[:, 1]))


def test_numbers():
    labels = rng.normal(size=100)
    outputs = labels + 0.3 * rng.normal(size=100)
    found = scores(outputs, labels)
    assert found["RMSE"] == pytest.approx(metrics.root_mean_squared_error(labels, outputs))
    assert found["MAE"] == pytest.approx(metrics.mean_absolute_error(labels, outputs))
    assert found["R²"] == pytest.approx(metrics.r2_score(labels, outputs))
    assert np.sqrt(losses(outputs, labels).mean()) == pytest.approx(found["RMSE"])


def test_what_cannot_be_computed():
    assert np.isnan(scores(np.full((3, 2), 0.5), np.zeros(3, int))["AUC"])
    assert np.isnan(scores(np.ones(3), np.full(3, 2.0))["R²"])
    assert np.isfinite(scores(np.eye(2)[[0]], np.array([1]))["log loss"])
