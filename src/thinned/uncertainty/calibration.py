"""How good probabilities are: reliability, calibration error, scores, error against rejection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinned import _array, _checks

Floats = NDArray[np.float64]
LOOSE = 0.05  # rounding to half precision may change a sum by as much


@dataclass(frozen=True)
class Reliability:
    """The numbers of a reliability diagram, for each bin of confidence.

    Attributes:
        edges: (bins + 1,), ascending; a bin includes its upper edge.
        count: (bins,), the number of samples.
        confidence: (bins,), the mean probability of the predicted class; NaN in an empty bin.
        accuracy: (bins,), the share of correct predictions; NaN in an empty bin.
    """

    edges: Floats
    count: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over samples of |accuracy − confidence| in their bin."""
        full = self.count > 0
        gap = np.abs(self.accuracy[full] - self.confidence[full])
        return float(self.count[full] @ gap / self.count.sum())


def reliability(probabilities: Any, labels: Any, bins: int = 15, *, adaptive: bool = False) -> Reliability:
    """Accuracy and confidence in bins of equal width from 0 to 1, or, if ``adaptive``, of equal count.

    ``probabilities`` is (N, classes), such as `Prediction.mean`; ``labels`` (N,) holds class numbers. The
    confidence is the largest probability. Equal confidences are in the same bin.

    Raises TypeError or ValueError if an array has another shape or kind, N is 0, or ``bins`` is not positive.

    Niculescu-Mizil and Caruana 2005, doi:10.1145/1102351.1102430; Guo, Pleiss, Sun and Weinberger 2017,
    arXiv:1706.04599; bins of equal count: Nguyen and O'Connor 2015, arXiv:1508.05154.
    """
    p, y = _checked(probabilities, labels)
    bins = _checks.positive_int("bins", bins)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    edges = np.linspace(0.0, 1.0, bins + 1)
    if adaptive:
        edges = np.quantile(confidence, edges)
    place = np.searchsorted(edges[1:-1], confidence)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, bins) / count for values in (confidence, right)]
    return Reliability(edges, count, *means)


def calibration_error(probabilities: Any, labels: Any, bins: int = 15, *, adaptive: bool = False) -> float:
    """The expected calibration error, in [0, 1]. Arguments and errors are those of `reliability`.

    Naeini, Cooper and Hauskrecht 2015, AAAI; Guo, Pleiss, Sun and Weinberger 2017, arXiv:1706.04599.
    """
    return reliability(probabilities, labels, bins, adaptive=adaptive).error


@dataclass(frozen=True)
class Scores:
    """Scores of probabilities; less is better, except for ``overconfidence``, which is best at 0.

    Attributes:
        error: the share of wrong predictions.
        log_loss: the mean of −ln p of the label, where p is at least 10⁻¹².
        brier: the mean over samples of Σ_c (p_c − y_c)², where y is 1 for the label and 0 elsewhere.
        calibration: the expected calibration error, in bins of equal width.
        adaptive: the same, in bins of equal count.
        overconfidence: the mean confidence minus the accuracy.
    """

    error: float
    log_loss: float
    brier: float
    calibration: float
    adaptive: float
    overconfidence: float


def scores(probabilities: Any, labels: Any, bins: int = 15) -> Scores:
    """The `Scores` of probabilities on labelled data. Arguments and errors are those of `reliability`.

    The Brier score: Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2. Why it and the log loss
    reward the true probabilities: Gneiting and Raftery 2007, doi:10.1198/016214506000001437.
    """
    p, y = _checked(probabilities, labels)
    error, of_label = float(np.mean(p.argmax(axis=1) != y)), p[np.arange(len(p)), y]
    return Scores(
        error=error,
        log_loss=float(-np.log(np.maximum(of_label, 1e-12)).mean()),
        brier=float(np.mean(np.sum(p**2, axis=1) - 2.0 * of_label + 1.0)),
        calibration=calibration_error(p, y, bins),
        adaptive=calibration_error(p, y, bins, adaptive=True),
        overconfidence=float(p.max(axis=1).mean()) - (1.0 - error),
    )


def rejection(probabilities: Any, labels: Any, uncertainty: Any = None) -> tuple[Floats, Floats]:
    """The error of the remaining samples, when the most uncertain are rejected first.

    Returns two arrays (N,): the rejected share, and the error of the others. In entry r, r of N samples are
    rejected. ``uncertainty`` is (N,), such as an entropy; None takes 1 − the largest probability. Samples of
    equal uncertainty count as if they were rejected in random order.

    Raises TypeError or ValueError as `reliability` does.

    The risk-coverage curve: Geifman and El-Yaniv 2017, arXiv:1705.08500.
    """
    p, y = _checked(probabilities, labels)
    doubt = (
        1.0 - p.max(axis=1)
        if uncertainty is None
        else _array.to_numpy(_array.array("uncertainty", uncertainty))
    )
    if doubt.shape != y.shape:
        raise ValueError(f"uncertainty must have shape {y.shape}, one for each sample, got {doubt.shape}")
    _, group, size = np.unique(doubt, return_inverse=True, return_counts=True)
    wrong = np.bincount(group, p.argmax(axis=1) != y) / size  # the mean error at equal uncertainty
    errors = np.cumsum(np.repeat(wrong, size))[::-1]  # of the n most certain, n = N … 1
    n = len(y)
    return np.arange(n) / n, errors / np.arange(n, 0, -1)


def _checked(probabilities: Any, labels: Any) -> tuple[Floats, NDArray[np.int64]]:
    """Both arguments as checked arrays."""
    p = _array.to_numpy(_array.floating("probabilities", probabilities)).astype(np.float64)
    y = _array.to_numpy(_array.array("labels", labels))
    if p.ndim != 2 or not len(p) or not p.shape[1]:
        raise ValueError(f"probabilities must have shape (N, classes), N > 0, got {p.shape}")
    if not (p.min() >= 0.0 and p.max() <= 1.0 + 1e-3):
        raise ValueError(f"probabilities must be in [0, 1], got {p.min():g} to {p.max():g}")
    sums = p.sum(axis=1)
    if np.abs(sums - 1.0).max() > LOOSE:
        raise ValueError(f"probabilities must sum to 1 a row, got sums from {sums.min():g} to {sums.max():g}")
    if y.dtype.kind not in "iu":
        raise TypeError(f"labels must hold integers, got dtype {y.dtype}")
    if y.shape != (len(p),) or y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels must be {len(p)} class numbers in [0, {p.shape[1]}), got shape {y.shape}")
    return p, y.astype(np.int64)
