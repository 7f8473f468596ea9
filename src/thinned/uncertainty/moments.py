"""`moments`: the prediction of many thinned networks in one pass, from means and variances."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np

from thinned import _array, _checks
from thinned.key import Key, normals
from thinned.uncertainty import moments_scratch
from thinned.uncertainty.moment_rules import Moments
from thinned.uncertainty.predict import prediction, rows_at_once, sampler_of
from thinned.uncertainty.prediction import Array, Choice, Prediction, Summary, summarise
from thinned.uncertainty.sample_scratch import ScratchSampler

POINTS = 32  # points of the normal distribution, in opposite pairs, over which the softmax is averaged


def moments(
    model: Any,
    x: Any,
    *,
    outputs: Choice = None,
    quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    batch_size: int | None = None,
) -> Prediction:
    """The statistics of `predict` without samples: one pass through the layers with means and variances.

    Arguments, shapes and errors are those of `predict`; there is no key. The layers before the first dropout
    are exact. After it, dropout, linear and convolutional layers, ReLU and batch normalisation compute the
    mean and variance of their outputs from those of their inputs.

    The elements of a layer count as independent and normal. After a linear layer with many inputs they are
    nearly normal. But they are correlated if they share a mask, so the spread is too small. The softmax is
    averaged over 32 fixed points of the normal logits.

    Raises ValueError if a layer after the first dropout has no rule.

    Wang and Manning 2013, ICML, PMLR 28(2):118-126; the moments of ReLU: Frey and Hinton 1999,
    doi:10.1162/089976699300016872.
    """
    shares = [_checks.probability(f"quantiles[{i}]", q) for i, q in enumerate(quantiles)]
    sampler, x, kind = sampler_of(model, x, outputs, thin=False, functions=False)
    if kind == "probabilities":
        raise ValueError("outputs must be 'logits', 'labels' or 'numbers' for moments, got 'probabilities'")
    through: Callable[[Any, Any], Moments] = moments_scratch.through
    if not isinstance(sampler, ScratchSampler):
        from thinned.uncertainty import moments_torch

        through = moments_torch.through
    rows, parts = rows_at_once(sampler, x, POINTS, batch_size), []
    for first in range(0, max(1, x.shape[0]), rows):
        mean, variance = map(_array.to_numpy, through(sampler, sampler.take(x, first, first + rows)))
        parts.append(_normal(mean, variance, kind, shares))
    return prediction(Summary.joined(parts), x, 0, sampler)


def _normal(mean: Array, variance: Array, outputs: str, quantiles: Sequence[float]) -> Summary:
    """The statistics of normal outputs (N, *out)."""
    sigma = np.sqrt(variance)
    if outputs == "numbers":
        inside = [min(max(q, 1e-12), 1.0 - 1e-12) for q in quantiles]
        z = np.reshape([NormalDist().inv_cdf(q) for q in inside], (-1, *[1] * mean.ndim)).astype(mean.dtype)
        return Summary(mean, sigma, None, None, mean + z * sigma)
    z = _points(math.prod(mean.shape[1:])).reshape(POINTS, 1, *mean.shape[1:]).astype(mean.dtype)
    return summarise(mean + sigma * z, outputs, quantiles)


@lru_cache(16)
def _points(size: int) -> Array:
    """Normal points in opposite pairs, scaled to variance 1: (POINTS, size)."""
    half = normals(Key(0), POINTS // 2 * size).reshape(POINTS // 2, size)
    half /= np.sqrt(np.mean(half**2, axis=0))
    return np.concatenate([half, -half])
