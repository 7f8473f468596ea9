"""Whether probabilities mean what they say: reliability, calibration error, error against rejection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinned import _array, _checks

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Reliability:
    """What a reliability diagram shows, a value for each bin of confidence.

    Attributes:
        edges: (bins + 1,), from 0 to 1; a bin holds its upper edge.
        count: (bins,), samples in each.
        confidence: (bins,), the mean probability of the predicted class; NaN in an empty bin.
        accuracy: (bins,), the share predicted rightly; NaN in an empty bin.
    """

    edges: Floats
    count: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over samples of |accuracy − confidence| of their bin."""
        full = self.count > 0
        gap = np.abs(self.accuracy[full] - self.confidence[full])
        return float(self.count[full] @ gap / self.count.sum())


def reliability(probabilities: Any, labels: Any, bins: int = 15) -> Reliability:
    """Accuracy beside confidence, in bins of equal width.

    ``probabilities`` (N, classes), such as `Prediction.mean`; ``labels`` (N,) class numbers. The confidence
    is the largest probability.

    Raises TypeError or ValueError where they are no such arrays, N is 0, or ``bins`` is not positive.

    Niculescu-Mizil and Caruana 2005, doi:10.1145/1102351.1102430; Guo, Pleiss, Sun and Weinberger 2017,
    arXiv:1706.04599.
    """
    p, y = _checked(probabilities, labels)
    bins = _checks.positive_int("bins", bins)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, bins) / count for values in (confidence, right)]
    return Reliability(edges, count, *means)


def calibration_error(probabilities: Any, labels: Any, bins: int = 15) -> float:
    """The expected calibration error, in [0, 1]: arguments and errors are those of `reliability`.

    Naeini, Cooper and Hauskrecht 2015, AAAI; Guo, Pleiss, Sun and Weinberger 2017, arXiv:1706.04599.
    """
    return reliability(probabilities, labels, bins).error


def rejection(probabilities: Any, labels: Any, uncertainty: Any = None) -> tuple[Floats, Floats]:
    """The error of what is kept, where the most uncertain are rejected first: (share rejected, error), (N,).

    ``uncertainty`` (N,), such as an entropy; None is 1 − the largest probability. Samples of equal
    uncertainty count as if they were rejected in random order. Entry r has r of N rejected.

    Raises TypeError or ValueError as `reliability`.

    The risk-coverage curve: Geifman and El-Yaniv 2017, arXiv:1705.08500.
    """
    p, y = _checked(probabilities, labels)
    doubt = (
        1.0 - p.max(axis=1)
        if uncertainty is None
        else _array.to_numpy(_array.array("uncertainty", uncertainty))
    )
    if doubt.shape != y.shape:
        raise ValueError(f"uncertainty must have shape {y.shape}, one a sample, got {doubt.shape}")
    _, group, size = np.unique(doubt, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, p.argmax(axis=1) != y) / size  # the mean of those that are equally uncertain
    errors = np.cumsum(np.repeat(wrong, size))[::-1]  # of the n most certain, n = N … 1
    n = len(y)
    return np.arange(n) / n, errors / np.arange(n, 0, -1)


def _checked(probabilities: Any, labels: Any) -> tuple[Floats, NDArray[np.int64]]:
    """Both as arrays."""
    p = _array.to_numpy(_array.floating("probabilities", probabilities)).astype(np.float64)
    y = _array.to_numpy(_array.array("labels", labels))
    if p.ndim != 2 or not len(p) or not p.shape[1]:
        raise ValueError(f"probabilities must have shape (N, classes), N > 0, got {p.shape}")
    if not (p.min() >= 0.0 and p.max() <= 1.0 + 1e-3):
        raise ValueError(f"probabilities must be in [0, 1], got {p.min():g} to {p.max():g}")
    if y.dtype.kind not in "iu":
        raise TypeError(f"labels must hold integers, got dtype {y.dtype}")
    if y.shape != (len(p),) or y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels must be {len(p)} class numbers in [0, {p.shape[1]}), got shape {y.shape}")
    return p, y.astype(np.int64)
