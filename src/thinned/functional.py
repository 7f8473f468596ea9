"""One function a published method: NumPy array or torch tensor in, the same out.

Nothing but the key and p is kept for the backward pass: the mask is made again. For a NumPy array
the backward pass of `dropout` is `dropout` of the gradient, with the same key.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from thinned import _array, _checks, kernels
from thinned.key import Key, normals, threshold


def dropout(x: Any, p: float = 0.5, *, key: Key, training: bool = True, rescale: str = "train") -> Any:
    """Dropout: zero each element with probability p.

    ``x``: any shape -> same, float16 to float64. ``rescale="train"`` divides the survivors by 1 − p
    (inverted dropout) and leaves evaluation alone; ``"test"`` leaves training alone and multiplies by
    1 − p in evaluation (the original rule). With p = 0, or in evaluation under ``"train"``, the result
    is ``x`` itself. Dropping selects: a NaN in a dropped element is gone.

    Raises TypeError where ``x`` holds no floating-point numbers, ValueError where p is not in [0, 1].

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, JMLR 15:1929-1958
    (arXiv:1207.0580 for its first form).
    """
    _array.floating("x", x)
    p = _checks.probability("p", p)
    _checks.is_key("key", key)
    _checks.one_of("rescale", rescale, ("train", "test"))
    if p == 0.0 or (not training and rescale == "train"):
        return x
    if not training:
        return _array.times(x, np.float64(1.0 - p))
    return _select(x, key, threshold(p), 1.0 / (1.0 - p) if rescale == "train" and p < 1.0 else 1.0)


def gaussian_dropout(x: Any, p: float = 0.5, *, key: Key, training: bool = True) -> Any:
    """Gaussian dropout: multiply each element by a sample of N(1, p/(1 − p)).

    ``x``: any shape -> same, float16 to float64. The factor has the mean and the variance of dropout's;
    p = 1, whose variance is infinite, gives zeros. In evaluation and with p = 0 the result is ``x`` itself.

    Raises TypeError where ``x`` holds no floating-point numbers, ValueError where p is not in [0, 1].

    Source: Srivastava et al. 2014, JMLR 15:1929-1958, section 10.
    """
    _array.floating("x", x)
    p = _checks.probability("p", p)
    _checks.is_key("key", key)
    if p == 0.0 or not training:
        return x
    if p == 1.0:
        return _select(x, key, 0, 1.0)
    noise = 1.0 + (p / (1.0 - p)) ** 0.5 * normals(key, math.prod(x.shape)).reshape(x.shape)
    return _array.times(x, noise)


def _select(x: Any, key: Key, limit: int, scale: float) -> Any:
    """x·scale where kept, 0 where dropped; differentiable for a torch tensor."""
    if _array.is_torch(x):
        from thinned.kernels import autograd

        return autograd.differentiable(x, key, limit, scale)
    out = np.empty(x.shape, x.dtype)
    kernels.dropout(
        np.ascontiguousarray(x).reshape(-1), out.reshape(-1), key, limit, scale, kernels.threads()
    )
    return out
