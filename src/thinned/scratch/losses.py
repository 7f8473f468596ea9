"""Losses: a number, and its gradient by what went in."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinned.scratch.layers import Array, floats


class SoftmaxCrossEntropy:
    """L = −1/N Σ_n log y[n, label_n], y = softmax(logits); never overflows.

    After ``forward``, ``probabilities`` holds y, (N, K).
    """

    probabilities: Array | None = None
    _labels: NDArray[Any]

    def forward(self, logits: Array, labels: NDArray[Any]) -> float:
        """The mean loss of logits (N, K) and labels (N,), integers in [0, K).

        The loss is NaN where a logit is NaN or +∞. Raises TypeError or ValueError where shapes, dtypes or
        labels do not fit.
        """
        logits = floats("logits", logits)
        if logits.ndim != 2 or 0 in logits.shape:
            raise ValueError(f"logits: expected shape (N, K), N and K at least 1, came {logits.shape}")
        labels = check_labels(labels, *logits.shape)
        with np.errstate(invalid="ignore"):  # ∞ − ∞: NaN, and so is the loss
            y = logits - logits.max(axis=1, keepdims=True)  # the largest exponent is 0
        score = y[np.arange(len(y)), labels]
        np.exp(y, out=y)
        total = y.sum(axis=1, keepdims=True)
        y /= total
        self.probabilities, self._labels = y, labels
        return float(np.mean(np.log(total[:, 0]) - score, dtype=np.float64))

    def backward(self) -> Array:
        """∂L/∂logits = (y − onehot(labels))/N, of shape (N, K)."""
        if self.probabilities is None:
            raise RuntimeError("SoftmaxCrossEntropy.backward: call forward first")
        grad = self.probabilities.copy()
        grad[np.arange(len(grad)), self._labels] -= 1
        grad /= len(grad)
        return grad


def check_labels(labels: Any, n: int, classes: int) -> NDArray[Any]:
    """``labels`` as ``(n,)`` integers in [0, classes)."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels: expected integers, came dtype {labels.dtype}")
    if labels.shape != (n,):
        raise ValueError(f"labels: expected shape ({n},), one a row of logits, came {labels.shape}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels: expected 0 to {classes - 1}, came {low if low < 0 else high}")
    return labels
