"""One function a published method: NumPy array or torch tensor in, the same out.

Nothing but the key and p is kept for the backward pass: the mask is made again. For a NumPy array
the backward pass of a method that multiplies by factors is the method itself: apply it to the gradient,
with the same key. `alpha_gradient` and `drop_connect_gradient` do it for the two that do more.

In all of them ``p`` is the probability of dropping a unit, ``key`` where randomness comes from, and
``sample_offset`` the index of x's first sample in the whole batch, so that a shard of a batch gets exactly
its part of the mask. With p = 0, or in evaluation, the result is ``x`` itself, unless the docstring says
otherwise. Dropping selects: a NaN in a dropped unit is gone.

All raise TypeError where ``x`` holds no floating-point numbers or an argument is of the wrong kind,
ValueError where p is not in [0, 1] or a shape does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from thinned import _array, _checks, kernels, masks, theory
from thinned.kernels import Linear, Map, block, connect
from thinned.key import Key, is_key, threshold


def dropout(
    x: Any,
    p: float = 0.5,
    *,
    key: Key,
    training: bool = True,
    rescale: str = "train",
    sample_offset: int = 0,
) -> Any:
    """Dropout: zero each element with probability p.

    ``x``: any shape -> same, float16 to float64. ``rescale="train"`` divides the survivors by 1 − p
    (inverted dropout) and leaves evaluation alone; ``"test"`` leaves training alone and multiplies by
    1 − p in evaluation (the original rule).

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, JMLR 15:1929-1958
    (arXiv:1207.0580 for its first form).
    """
    p = _checked(x, p, key, sample_offset)
    _checks.one_of("rescale", rescale, ("train", "test"))
    if p == 0.0 or (not training and rescale == "train"):
        return x
    if not training:
        return _array.times(x, 1.0 - p)
    return _apply(x, plan("dropout", x.shape, p, sample_offset, rescale=rescale), key)


def spatial_dropout(
    x: Any, p: float = 0.5, *, key: Key, training: bool = True, sample_offset: int = 0
) -> Any:
    """Spatial dropout: zero each channel of each sample with probability p, divide the others by 1 − p.

    ``x``: (N, C, *spatial) -> same; torch's Dropout1d, Dropout2d and Dropout3d.

    Source: Tompson, Goroshin, Jain, LeCun and Bregler 2015, arXiv:1411.4280.
    """
    p = _checked(x, p, key, sample_offset, "(N, C, *spatial)", 2)
    if p == 0.0 or not training:
        return x
    return _apply(x, plan("spatial_dropout", x.shape, p, sample_offset), key)


def drop_block(
    x: Any,
    p: float = 0.1,
    block_size: int = 7,
    *,
    key: Key,
    training: bool = True,
    per_channel: bool = True,
    exact_rate: bool = True,
    sample_offset: int = 0,
) -> Any:
    """DropBlock: zero contiguous blocks, so that a share p of the map is expected to be dropped.

    ``x``: (N, C, L), (N, C, H, W) or (N, C, D, H, W) -> same. A block spans ``block_size`` places an axis,
    or the axis where that is shorter. ``per_channel=False`` drops the same blocks in all channels of a
    sample. The rate of the seeds is solved for the true share, edges and overlaps included (`theory`);
    ``exact_rate=False`` takes the paper's formula. What survives is multiplied by
    (units of the sample)/(kept units of the sample), by channels and places together, so the sum of a
    constant sample is kept, and no sample's result depends on another's.

    Source: Ghiasi, Lin and Le 2018, arXiv:1810.12890.
    """
    p = _checked(x, p, key, sample_offset, "(N, C, L), (N, C, H, W) or (N, C, D, H, W)", 3, 5)
    size = _checks.positive_int("block_size", block_size)
    if p == 0.0 or not training or 0 in x.shape:
        return x

    fall = masks.seeds(x.shape, p, size, key, sample_offset, per_channel=per_channel, exact_rate=exact_rate)

    def linear(t: Any) -> Any:
        if (gpu := kernels.on_gpu(t)) is not None:
            return gpu.drop_block(t, fall)
        if kernels.native(t):
            return _array.strided(block.drop(t, fall), t)
        kept = masks.blocks(t.shape, fall)
        survivors = kept.sum(axis=tuple(range(1, kept.ndim)), keepdims=True)
        return _array.strided(_select(t, kept, kept[0].size / np.maximum(survivors, 1)), t)

    return _apply(x, Linear(linear), key)


def drop_path(
    x: Any, p: float = 0.1, *, key: Key, training: bool = True, mode: str = "sample", sample_offset: int = 0
) -> Any:
    """Stochastic depth: zero a residual branch's output, for each sample with probability p.

    ``x``: (N, …) -> same; the survivors are divided by 1 − p. ``mode="batch"`` takes one decision for the
    whole batch, the same on all its shards.

    Source: Huang, Sun, Liu, Sedra and Weinberger 2016, arXiv:1603.09382.
    """
    p = _checked(x, p, key, sample_offset, "(N, …)", 1)
    _checks.one_of("mode", mode, ("sample", "batch"))
    if p == 0.0 or not training:
        return x
    return _apply(x, plan("drop_path", x.shape, p, sample_offset, mode), key)


def thin_dropout(
    x: Any, p: float = 0.5, *, key: Key, training: bool = True, groups: int = 1, sample_offset: int = 0
) -> Any:
    """Thin: keep exactly k of n columns or channels for the whole batch, multiplied by n/k.

    ``x``: (N, features) or (N, C, *spatial) -> same. k = max(1, n − round(p·n)): p = 1 leaves one. With
    ``groups`` > 1 sample i of the whole batch has the survivors of group i mod ``groups``. This is what
    `thinned.scratch.Thin` and `thinned.nn.thin` train, without the units that are dropped.

    Source: Graham, Reizenstein and Robinson 2015, arXiv:1502.02478, whose k is a random number.
    """
    p = _checked(x, p, key, sample_offset, "(N, features) or (N, C, *spatial)", 2)
    groups = _checks.positive_int("groups", groups)
    if p == 0.0 or not training or x.shape[1] == 0:
        return x
    gain = x.shape[1] / theory.survivor_count(x.shape[1], p)
    kept = masks.features(x.shape, p, key, sample_offset, groups=groups)
    return _apply(x, Linear(lambda t: _select(t, kept, gain)), key)


def gaussian_dropout(
    x: Any, p: float = 0.5, *, key: Key, training: bool = True, sample_offset: int = 0
) -> Any:
    """Gaussian dropout: multiply each element by a sample of N(1, p/(1 − p)).

    ``x``: any shape -> same, float16 to float64. The factor has the mean and the variance of dropout's;
    p = 1, whose variance is infinite, gives zeros.

    Source: Srivastava et al. 2014, JMLR 15:1929-1958, section 10.
    """
    p = _checked(x, p, key, sample_offset)
    if p == 0.0 or not training:
        return x
    return _apply(x, plan("gaussian_dropout", x.shape, p, sample_offset), key)


def alpha_dropout(x: Any, p: float = 0.5, *, key: Key, training: bool = True, sample_offset: int = 0) -> Any:
    """Alpha dropout: set each element to α′ with probability p, then y = a·x + b.

    ``x``: any shape -> same. α′ ≈ −1.7581 is where SELU saturates; a and b are such that inputs of mean 0
    and variance 1 keep both. p = 1 gives zeros.

    Source: Klambauer, Unterthiner, Mayr and Hochreiter 2017, arXiv:1706.02515.
    """
    p = _checked(x, p, key, sample_offset)
    if p == 0.0 or not training:
        return x
    return _apply(x, plan("alpha_dropout", x.shape, p, sample_offset), key)


def feature_alpha_dropout(
    x: Any, p: float = 0.5, *, key: Key, training: bool = True, sample_offset: int = 0
) -> Any:
    """Alpha dropout of whole channels: each channel of each sample is set to α′ with probability p.

    ``x``: (N, C, *spatial) -> same.

    Source: Klambauer et al. 2017, arXiv:1706.02515, by the unit of Tompson et al. 2015, arXiv:1411.4280.
    """
    p = _checked(x, p, key, sample_offset, "(N, C, *spatial)", 2)
    if p == 0.0 or not training:
        return x
    return _apply(x, plan("feature_alpha_dropout", x.shape, p, sample_offset), key)


def drop_connect(
    x: Any,
    weight: Any,
    bias: Any = None,
    p: float = 0.5,
    *,
    key: Key,
    training: bool = True,
    per_sample: bool = True,
    inference: str = "mean",
    sample_offset: int = 0,
) -> Any:
    """DropConnect: y_n = (R_n * W) x_n/(1 − p) + b, where R_n drops each weight with probability p.

    ``x``: (N, in), ``weight`` (out, in), ``bias`` (out,) -> (N, out); the bias is never dropped.
    ``per_sample=False`` takes one R for the whole batch. In evaluation: the mean network xWᵀ + b; or, with
    ``inference="gaussian"``, a sample of the normal distribution with the mean and the variance of training,
    p/(1 − p)·x²(W²)ᵀ: apply the activation, and average it over several keys. p = 1 leaves the bias.

    The N masks are made in blocks of samples, forward and backward, and never held all at once.

    Source: Wan, Zeiler, Zhang, LeCun and Fergus 2013, ICML, PMLR 28(3):1058-1066.
    """
    p = _checked(x, p, key, sample_offset, "(N, in)", 2, 2)
    _checked_weight(x, weight, bias)
    _checks.one_of("inference", inference, ("mean", "gaussian"))
    if p == 0.0 or (not training and inference == "mean"):
        return _array.linear(x, weight, bias)
    if not training and p < 1.0:
        return _gaussian_inference(x, weight, bias, p, key, sample_offset)
    if not per_sample and p < 1.0:
        return _array.linear(x, dropout(weight, p, key=key), bias)
    y = _connect(_array.widen(x), _array.widen(weight), _draw(weight, p, key, per_sample, sample_offset))
    return _array.cast(y if bias is None else y + _array.widen(bias), x)


def alpha_gradient(
    grad: Any, p: float = 0.5, *, key: Key, features: bool = False, sample_offset: int = 0
) -> Any:
    """The gradient of `alpha_dropout` in training: a·grad where kept.

    ``grad``: any shape -> same; ``features``: of `feature_alpha_dropout`, (N, C, *spatial).
    """
    p = _checked(grad, p, key, sample_offset)
    if p == 0.0:
        return grad
    function = "feature_alpha_dropout" if features else "alpha_dropout"
    return _apply(grad, plan(function, grad.shape, p, sample_offset).gradient(), key)


def drop_connect_gradient(
    grad: Any,
    x: Any,
    weight: Any,
    p: float = 0.5,
    *,
    key: Key,
    per_sample: bool = True,
    sample_offset: int = 0,
) -> tuple[Any, Any]:
    """The gradients of `drop_connect` in training by x and by W, from that by its output; b's is its sum.

    ``grad``: (N, out), ``x``: (N, in), ``weight``: (out, in) -> (N, in) and (out, in).
    """
    p = _checked(x, p, key, sample_offset, "(N, in)", 2, 2)
    _checked_weight(x, weight, None)
    _array.floating("grad", _array.same_kind("grad", grad, "x", x))
    if tuple(grad.shape) != (len(x), len(weight)):
        raise ValueError(f"grad must have shape {(len(x), len(weight))}, got {tuple(grad.shape)}")
    grad = _array.cast(grad, x)
    if not per_sample:
        kept = dropout(weight, p, key=key)
        return _array.linear(grad, kept.T), dropout(_array.linear(grad.T, x.T), p, key=key)
    draw = _draw(weight, p, key, per_sample, sample_offset)
    grads = connect.backward(_array.widen(grad), _array.widen(x), _array.widen(weight), draw)
    return _array.cast(grads[0], x), _array.cast(grads[1], weight)


def _checked(
    x: Any, p: Any, key: Any, sample_offset: Any, layout: str = "", low: int = 0, high: int | None = None
) -> float:
    """P, after the checks that all methods share."""
    _array.floating("x", x)
    if not (type(p) is float and 0.0 <= p <= 1.0):  # what is right is let through at once
        p = _checks.probability("p", p)
    if type(key) is not Key:
        is_key("key", key)
    if type(sample_offset) is not int or sample_offset != 0:
        _checks.integer("sample_offset", sample_offset, 0, 1 << 64)
    _checks.rank("x", x, layout, low, high)
    return float(p)


def _checked_weight(x: Any, weight: Any, bias: Any) -> None:
    """``weight`` (out, in) and ``bias`` (out,) that fit x: their kind, dtype and shape."""
    for name, value in (("weight", weight), ("bias", bias)):
        if name == "bias" and value is None:
            continue
        _array.floating(name, _array.same_kind(name, value, "x", x))
        if value.dtype != x.dtype:
            raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {value.dtype}")
    if weight.ndim != 2 or weight.shape[1] != x.shape[1]:
        raise ValueError(f"weight must have shape (out, {x.shape[1]}), got {tuple(weight.shape)}")
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(f"bias must have shape ({weight.shape[0]},), got {tuple(bias.shape)}")


def _gain(p: float) -> float:
    """What survivors are multiplied by: 1/(1 − p); 1 where there are none."""
    return 1.0 / (1.0 - p) if p < 1.0 else 1.0


def _select(x: Any, kept: masks.Mask, scale: Any) -> Any:
    """x·scale where kept, 0 where dropped."""
    return _array.where(kept, _array.times(x, scale), 0.0)


def _normals(shape: Any, key: Key, start: int) -> np.ndarray:
    """Standard normal numbers of that shape, counted from ``start``."""
    return kernels.normals(key, math.prod(shape), start).reshape(tuple(shape))


def _apply(x: Any, how: Map, key: Key) -> Any:
    """The map of x; a torch tensor's is recorded for the backward pass."""
    if _array.is_torch(x):
        from thinned.kernels import autograd

        return autograd.apply(x, how, key.words)
    return kernels.apply(x, how, key.words)


UNITS: dict[str, Callable[[Sequence[int], int], masks.Units]] = {
    "dropout": masks.elements,
    "spatial_dropout": masks.channels,
    "drop_path": masks.samples,
    "gaussian_dropout": masks.elements,
    "alpha_dropout": masks.elements,
    "feature_alpha_dropout": masks.channels,
}


@lru_cache(1024)
def plan(
    function: str, shape: Sequence[int], p: float, sample_offset: int, mode: str = "", rescale: str = "train"
) -> Any:
    """What a pass of a method in `UNITS` is to the kernels, but for the key; 0 < p ≤ 1."""
    start, inner = (masks.batch if mode == "batch" else UNITS[function])(shape, sample_offset)
    if function == "gaussian_dropout" and p < 1.0:
        return kernels.Noise(start, (p / (1.0 - p)) ** 0.5)
    if "alpha" in function:
        a, b = theory.alpha_constants(p)
        return kernels.Drop(threshold(p), start, inner, a, b, a * theory.ALPHA_PRIME + b)
    return kernels.Drop(threshold(p), start, inner, _gain(p) if rescale == "train" else 1.0)


def _draw(weight: Any, p: float, key: Key, per_sample: bool, sample_offset: int) -> connect.Draw:
    """The masks of DropConnect."""
    start = masks.first((1, *weight.shape), sample_offset) if per_sample else 0
    return connect.Draw(key, threshold(p), _gain(p), start)


def _connect(x: Any, weight: Any, draw: connect.Draw) -> Any:
    """y_n = (R_n * W) x_n/(1 − p)."""
    if _array.is_torch(x):
        from thinned.kernels import autograd

        return autograd.Connect.apply(x, weight, draw)
    return connect.forward(x, weight, draw)


def _gaussian_inference(x: Any, weight: Any, bias: Any, p: float, key: Key, sample_offset: int) -> Any:
    """xWᵀ + b + √(p/(1 − p)·x²(W²)ᵀ)·z, z ~ N(0, 1); b where p = 1."""
    x_, w = _array.widen(x), _array.widen(weight)
    shape = (len(x), len(weight))
    z = _normals(shape, key, masks.first(shape, sample_offset))
    variance = p / (1.0 - p) * _array.linear(x_ * x_, w * w)
    y = _array.linear(x_, w) + _array.times(_array.sqrt(variance), z)
    return _array.cast(y if bias is None else y + _array.widen(bias), x)
