"""Losses: a number, and its gradient with respect to the network's outputs.

All are means over the samples. With ``weights`` w of shape (N,), at least 0 and not all 0, they are
weighted means, Σ_n w_n L_n/Σ_n w_n: a sample of weight 2 counts twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinned.scratch.activations import Sigmoid
from thinned.scratch.layer import Array, floats, same_shape


class Loss:
    """A mean over samples; ``backward`` is for the last ``forward``."""

    _shares: Array | None = None  # w_n/Σ w_n; None: 1/N

    def forward(self, x: Array, targets: NDArray[Any], weights: Array | None = None) -> float:
        """The mean loss; TypeError or ValueError where shapes, dtypes or labels do not fit."""
        raise NotImplementedError

    def backward(self) -> Array:
        """∂L/∂x, of the shape of x."""
        raise NotImplementedError

    def _mean(self, losses: Array, weights: Array | None) -> float:
        """Σ_n w_n L_n/Σ_n w_n, of losses (N,)."""
        if weights is None:
            self._shares = None
            return float(np.mean(losses, dtype=np.float64))
        weights = same_shape("weights", weights, losses.shape)
        total = float(weights.sum(dtype=np.float64))
        if not total > 0 or weights.min() < 0:
            raise ValueError("weights must be at least 0, and not all 0, got others")
        self._shares = weights / total
        return float(np.vdot(self._shares, losses))

    def _weighed(self, grad: Array) -> Array:
        """``grad`` (N, K) with each row times w_n/Σ w_n, in place."""
        if self._shares is None:
            grad /= len(grad)
        else:
            grad *= self._shares[:, None]
        return grad


class SoftmaxCrossEntropy(Loss):
    """L = −1/N Σ_n Σ_k t[n, k] log y[n, k], y = softmax(logits), t one-hot rows or shares; never overflows.

    After ``forward``, ``probabilities`` holds y, (N, K).
    """

    probabilities: Array | None = None
    _labels: NDArray[Any]

    def forward(self, logits: Array, labels: NDArray[Any], weights: Array | None = None) -> float:
        """The mean loss of logits (N, K) and labels: (N,) integers in [0, K), or (N, K) shares that sum to 1.

        The loss is NaN where a logit is NaN or +∞. Raises TypeError or ValueError where shapes, dtypes or
        labels do not fit.
        """
        logits = outputs("logits", logits)
        labels = np.asarray(labels)
        labels = shares(labels, logits) if labels.ndim == 2 else check_labels(labels, *logits.shape)
        with np.errstate(invalid="ignore"):  # ∞ − ∞: NaN, and so is the loss
            y = logits - logits.max(axis=1, keepdims=True)  # the largest exponent is 0
        score = _score(y, labels)
        np.exp(y, out=y)
        total = y.sum(axis=1, keepdims=True)
        y /= total
        self.probabilities, self._labels = y, labels
        return self._mean(np.log(total[:, 0]) - score, weights)

    def backward(self) -> Array:
        """∂L/∂logits = (y − t)/N, of shape (N, K)."""
        if self.probabilities is None:
            raise RuntimeError("SoftmaxCrossEntropy.backward: call forward first")
        grad = self.probabilities.copy()
        if self._labels.ndim == 2:
            grad -= self._labels
        else:
            grad[np.arange(len(grad)), self._labels] -= 1
        return self._weighed(grad)


class LogisticCrossEntropy(Loss):
    """L = −1/N Σ_n Σ_k t·log y + (1 − t)·log(1 − y), y = 1/(1 + e^−logits): K yes-or-no questions.

    After ``forward``, ``probabilities`` holds y, (N, K).
    """

    probabilities: Array | None = None
    _targets: Array

    def forward(self, logits: Array, targets: NDArray[Any], weights: Array | None = None) -> float:
        """The mean loss of logits (N, K) and targets (N, K), floating-point numbers in [0, 1]."""
        logits = outputs("logits", logits)
        targets = same_shape("targets", targets, logits.shape)
        self.probabilities, self._targets = Sigmoid().forward(logits), targets
        softplus = np.log1p(np.exp(-np.abs(logits))) + np.maximum(logits, 0)  # log(1 + eˣ): exponents are ≤ 0
        return self._mean((softplus - targets * logits).sum(axis=1), weights)

    def backward(self) -> Array:
        """∂L/∂logits = (y − t)/N, of shape (N, K)."""
        if self.probabilities is None:
            raise RuntimeError("LogisticCrossEntropy.backward: call forward first")
        return self._weighed(self.probabilities - self._targets)


class SquaredError(Loss):
    """L = 1/(2N) Σ_n ‖y_n − t_n‖²."""

    _error: Array | None = None

    def forward(self, y: Array, targets: NDArray[Any], weights: Array | None = None) -> float:
        """The mean loss of outputs (N, K) and targets (N, K)."""
        y = outputs("y", y)
        self._error = y - same_shape("targets", targets, y.shape)
        return self._mean(np.einsum("nk,nk->n", self._error, self._error) / 2, weights)

    def backward(self) -> Array:
        """∂L/∂y = (y − t)/N, of shape (N, K)."""
        if self._error is None:
            raise RuntimeError("SquaredError.backward: call forward first")
        return self._weighed(self._error.copy())


class PoissonDeviance(Loss):
    """L = 1/N Σ_n Σ_k e^x − t − t·(x − log t), half the deviance of counts t of which e^x are expected."""

    _error: Array | None = None

    def forward(self, x: Array, targets: NDArray[Any], weights: Array | None = None) -> float:
        """The mean loss of logarithms x (N, K) and targets (N, K) of at least 0; ∞ where e^x overflows."""
        x = outputs("x", x)
        targets = same_shape("targets", targets, x.shape)
        if targets.min() < 0:
            raise ValueError(f"targets must be at least 0, got {targets.min():g}")
        with np.errstate(over="ignore"):
            self._error = np.exp(x) - targets
        log = np.log(targets, out=np.zeros_like(targets), where=targets > 0)
        return self._mean((self._error - targets * (x - log)).sum(axis=1), weights)

    def backward(self) -> Array:
        """∂L/∂x = (e^x − t)/N, of shape (N, K)."""
        if self._error is None:
            raise RuntimeError("PoissonDeviance.backward: call forward first")
        return self._weighed(self._error.copy())


def _score(y: Array, labels: NDArray[Any]) -> Array:
    """Σ_k t[n, k] y[n, k]; where t is 0, so is the term, also for y = −∞."""
    if labels.ndim == 1:
        return y[np.arange(len(y)), labels]
    return np.multiply(labels, y, out=np.zeros_like(y), where=labels > 0).sum(axis=1)


def outputs(name: str, value: Any) -> Array:
    """``value`` as a floating-point array (N, K), neither of them 0."""
    value = floats(name, value)
    if value.ndim != 2 or 0 in value.shape:
        raise ValueError(f"{name} must have shape (N, K), N and K at least 1, got {value.shape}")
    return value


def check_labels(labels: Any, n: int, classes: int) -> NDArray[Any]:
    """``labels`` as ``(n,)`` integers in [0, classes)."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels must be integers, got dtype {labels.dtype}")
    if labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one for each row of logits, got {labels.shape}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must be 0 to {classes - 1}, got {low if low < 0 else high}")
    return labels


def shares(labels: NDArray[Any], logits: Array) -> Array:
    """``labels`` as shares of the classes, (N, K) as ``logits``: from 0, with the sum 1 in each row."""
    labels = same_shape("labels", labels, logits.shape)
    worst = float(np.abs(labels.sum(axis=1) - 1).max())
    rounding = labels.shape[1] * float(np.finfo(labels.dtype).eps)
    if not (labels.min() >= 0 and worst <= rounding):
        raise ValueError(
            f"labels must be shares of at least 0 with the sum 1 in each row, got {labels.min():g} as the "
            f"least and sums up to {worst:g} from 1"
        )
    return labels.astype(logits.dtype, copy=False)
