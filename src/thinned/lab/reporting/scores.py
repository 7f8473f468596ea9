"""Figures of merit of predictions: error, balanced accuracy, log loss, AUC; RMSE, MAE, R²."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

CERTAIN = 1e-7  # a probability of 0 costs −ln of this: float32 has about seven digits


def losses(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) what a comparison counts: 1 for a wrong class, or the squared error of a number."""
    if outputs.ndim == 2:
        return (outputs.argmax(axis=1) != labels).astype(np.float64)
    return np.square(outputs - labels).astype(np.float64)


def scores(outputs: np.ndarray, labels: np.ndarray) -> Mapping[str, float]:
    """The figures by name, errors in shares.

    Args:
        outputs: (N, K) probabilities or (N,) numbers.
        labels: (N,) classes or numbers.
    """
    return _of_classes(outputs, labels) if outputs.ndim == 2 else _of_numbers(outputs, labels)


def _of_classes(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    wrong = outputs.argmax(axis=1) != labels
    present = np.unique(labels)
    recalls = [1 - wrong[labels == one].mean() for one in present]
    chosen = outputs[np.arange(len(labels)), labels].astype(np.float64)
    found = {
        "error": float(wrong.mean()),
        "balanced accuracy": float(np.mean(recalls)),
        "log loss": float(-np.log(np.maximum(chosen, CERTAIN)).mean()),
    }
    if outputs.shape[1] == 2:
        found["AUC"] = auc(outputs[:, 1], labels == 1)
    return found


def _of_numbers(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    squares = np.square(outputs - labels)
    spread = float(labels.var())
    return {
        "RMSE": math.sqrt(float(squares.mean())),
        "MAE": float(np.abs(outputs - labels).mean()),
        "R²": 1 - float(squares.mean()) / spread if spread else math.nan,
    }


def auc(values: np.ndarray, positive: np.ndarray) -> float:
    """The area under the receiver operating characteristic; NaN where one class is missing."""
    from sklearn.metrics import roc_auc_score

    if positive.all() or not positive.any():
        return math.nan
    return float(roc_auc_score(positive, values))
