"""One function for each published method: NumPy array or torch tensor in, the same out.

Below each function is its `Method`, the object with all that is known of it. The backward pass needs only the
key and p: it makes the mask again. For NumPy arrays it is `Method.gradient`, and `drop_connect_gradient` for
the one method that has weights.

In all functions ``p`` is the probability that a unit is dropped, and ``key`` decides which units.
``sample_offset`` is the index of x's first sample in the whole batch; with it, a shard of a batch gets its
part of the mask. With p = 0, and in evaluation, the result is ``x`` itself, unless the docstring says
otherwise. A dropped unit is replaced, not multiplied by 0: a NaN in it is gone.

All functions raise TypeError if ``x`` holds no floating-point numbers or an argument is of the wrong kind,
and ValueError if p is not in [0, 1] or a shape does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from thinned import _array, _checks, _plans, kernels, masks, theory
from thinned._array import X
from thinned._method import Method, flag, one_of
from thinned.kernels import connect
from thinned.kernels.work import Draw
from thinned.key import Key, threshold


def dropout(
    x: X,
    p: float = 0.5,
    *,
    key: Key,
    training: bool = True,
    rescale: Literal["train", "test"] = "train",
    noise_shape: Sequence[int | None] | None = None,
    sample_offset: int = 0,
) -> X:
    """Dropout: zero each element with probability p.

    ``x``: any shape -> same, float16 to float64. With ``rescale="train"`` training divides the survivors by
    1 − p and evaluation does nothing (inverted dropout). With ``"test"`` training leaves the survivors as
    they are, and evaluation multiplies by 1 − p (the original rule).

    ``noise_shape`` is the shape of the mask: that of x, with 1 for each axis along which elements share a
    decision; None is the size of x. (N, 1, C) drops features of sequences (N, L, C) for all L ("locked" or
    variational dropout).

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, JMLR 15:1929-1958
    (arXiv:1207.0580 for its first form).
    """
    _checks.one_of("rescale", rescale, ("train", "test"))
    method = ORIGINAL if rescale == "test" else DROPOUT
    if noise_shape is not None:
        p = method.checked(x, p, key, sample_offset)
        units = _units(tuple(x.shape), noise_shape)
        if training:
            return _shared_along(method, x, p, key, units, sample_offset)
    return method(x, p, key, training, sample_offset)


def _shared_along(
    method: Method, x: Any, p: float, key: Key, units: tuple[int, ...], sample_offset: int
) -> Any:
    """Dropout with a mask of another shape, which is broadcast."""
    shared = bool(units) and units[0] == 1 != x.shape[0]  # by all samples
    start = 0 if shared else masks.first(units, sample_offset)
    kept = masks.keep_mask(units, p, key=key, start=start)
    return _array.where(kept, _array.times(x, 1.0 if method is ORIGINAL else _plans.gain(p)), 0.0)


def _units(shape: tuple[int, ...], noise_shape: Sequence[int | None]) -> tuple[int, ...]:
    """The shape of the mask that ``noise_shape`` asks for. Raises TypeError or ValueError."""
    try:
        asked = tuple(noise_shape)
    except TypeError:
        raise TypeError(f"noise_shape must be a sequence of sizes or None, got {noise_shape!r}") from None
    sizes = [m if m is None else _checks.integer(f"noise_shape[{i}]", m, 0) for i, m in enumerate(asked)]
    units = tuple(n if m is None else m for n, m in zip(shape, sizes, strict=False))
    if len(sizes) != len(shape) or any(m not in (1, n) for n, m in zip(shape, units, strict=True)):
        raise ValueError(f"noise_shape must have 1 or the size of x along each axis of {shape}, got {asked}")
    return units


DROPOUT = Method(dropout, masks.ELEMENT, _plans.inverted, theory.bernoulli_moments)
ORIGINAL = Method(
    dropout,
    masks.ELEMENT,
    _plans.unscaled,
    theory.mask_moments,
    given={"rescale": "test"},
    evaluation=lambda p: 1.0 - p,
)


def spatial_dropout(
    x: X,
    p: float = 0.5,
    *,
    key: Key,
    training: bool = True,
    data_format: Literal["channels_first", "channels_last"] = "channels_first",
    sample_offset: int = 0,
) -> X:
    """Spatial dropout: zero each channel of each sample with probability p, divide the others by 1 − p.

    ``x``: (N, C, *spatial) -> same; torch's Dropout1d, Dropout2d and Dropout3d. With
    ``data_format="channels_last"`` it is (N, *spatial, C), with the mask of the same channels.

    Source: Tompson, Goroshin, Jain, LeCun and Bregler 2015, arXiv:1411.4280.
    """
    if _checks.one_of("data_format", data_format, ("channels_first", "channels_last")) == "channels_last":
        SPATIAL.checked(x, p, key, sample_offset)
        moved = _array.move_axis(x, -1, 1)
        return _array.move_axis(SPATIAL(moved, p, key, training, sample_offset), 1, -1)
    return SPATIAL(x, p, key, training, sample_offset)


SPATIAL = Method(spatial_dropout, masks.CHANNEL, _plans.inverted, theory.bernoulli_moments)


def drop_block(
    x: X,
    p: float = 0.1,
    block_size: int | tuple[int, ...] = 7,
    *,
    key: Key,
    training: bool = True,
    per_channel: bool = True,
    exact_rate: bool = True,
    sample_offset: int = 0,
) -> X:
    """DropBlock: zero contiguous blocks, so that a share p of the map is expected to be dropped.

    ``x``: (N, C, L), (N, C, H, W) or (N, C, D, H, W) -> same. A block has ``block_size`` places along each
    axis (a tuple: one for each), or the whole axis if that is shorter. ``per_channel=False`` drops the same
    blocks in all channels of a sample. `theory` solves for the rate of blocks whose expected share is p, with
    their edges and overlaps; ``exact_rate=False`` takes the paper's formula. The survivors of a sample are
    multiplied by (its places)/(its kept places), counted over all channels. So the sum of a constant sample
    is kept, and no sample's result depends on another sample.

    Source: Ghiasi, Lin and Le 2018, arXiv:1810.12890.
    """
    p = DROP_BLOCK.checked(x, p, key, sample_offset)
    theory.block_sizes(_block("block_size", block_size), x.shape[2:])
    return DROP_BLOCK(x, p, key, training, sample_offset, block_size, per_channel, exact_rate)


def _block(name: str, value: Any) -> int | tuple[int, ...]:
    """A positive integer, or one for each axis."""
    if isinstance(value, tuple | list):
        return tuple(_checks.positive_int(f"{name}[{i}]", each) for i, each in enumerate(value))
    return _checks.positive_int(name, value)


DROP_BLOCK = Method(
    drop_block,
    masks.BLOCK,
    _plans.blocks,
    theory.drop_block_moments,
    options={"block_size": _block, "per_channel": flag, "exact_rate": flag},
    factors=False,  # its moments are those of a large map
)


def drop_path(
    x: X,
    p: float = 0.1,
    *,
    key: Key,
    training: bool = True,
    mode: Literal["sample", "batch"] = "sample",
    scale_by_keep: bool = True,
    sample_offset: int = 0,
) -> X:
    """Stochastic depth: zero the output of a residual branch, for each sample with probability p.

    ``x``: (N, …) -> same; the survivors are divided by 1 − p. ``mode="batch"`` keeps or drops the whole
    batch, and all its shards alike. ``scale_by_keep=False`` leaves the survivors as they are.

    Source: Huang, Sun, Liu, Sedra and Weinberger 2016, arXiv:1603.09382.
    """
    return DROP_PATH(x, p, key, training, sample_offset, mode, scale_by_keep)


DROP_PATH = Method(
    drop_path,
    masks.SAMPLE,
    _plans.whole_samples,
    theory.bernoulli_moments,
    options={"mode": one_of("sample", "batch"), "scale_by_keep": flag},
    shared=lambda mode, scale_by_keep: mode == "batch",
    unscaled=lambda mode, scale_by_keep: not scale_by_keep,
)


def thin_dropout(
    x: X,
    p: float = 0.5,
    *,
    key: Key,
    training: bool = True,
    groups: int = masks.GROUPS,
    sample_offset: int = 0,
) -> X:
    """Thin: groups of samples share which columns or channels they keep; these are divided by 1 − p.

    ``x``: (N, features) or (N, C, *spatial) -> same. Sample i of the whole batch has the survivors of group
    i mod ``groups``. Each unit survives with probability 1 − p, and a group keeps (1 − p)·n of n units to
    within a panel (contract 1: picks). At p = ½ two groups of a pair keep complementary units. This is what
    `thinned.scratch.Thin` and `thinned.nn.thin` train, without the units that are dropped.

    Source: Graham, Reizenstein and Robinson 2015, arXiv:1502.02478, where the batch shares one pick of
    single units.
    """
    return THIN(x, p, key, training, sample_offset, groups)


THIN = Method(
    thin_dropout,
    masks.FEATURE,
    _plans.picked,
    theory.thin_moments,
    options={"groups": _checks.positive_int},
    shared=lambda groups: True,
)


def gaussian_dropout(x: X, p: float = 0.5, *, key: Key, training: bool = True, sample_offset: int = 0) -> X:
    """Gaussian dropout: multiply each element by a sample of N(1, p/(1 − p)).

    ``x``: any shape -> same, float16 to float64. The factor has the mean and the variance of dropout's
    factor. p = 1, with infinite variance, gives zeros.

    Source: Srivastava et al. 2014, JMLR 15:1929-1958, section 10.
    """
    return GAUSSIAN(x, p, key, training, sample_offset)


GAUSSIAN = Method(gaussian_dropout, masks.ELEMENT, _plans.noisy, theory.gaussian_moments)


def alpha_dropout(x: X, p: float = 0.5, *, key: Key, training: bool = True, sample_offset: int = 0) -> X:
    """Alpha dropout: set each element to α′ with probability p, then y = a·x + b.

    ``x``: any shape -> same. α′ ≈ −1.7581 is the value at which SELU saturates. a and b keep mean 0 and
    variance 1. p = 1 gives zeros.

    Source: Klambauer, Unterthiner, Mayr and Hochreiter 2017, arXiv:1706.02515.
    """
    return ALPHA(x, p, key, training, sample_offset)


ALPHA = Method(alpha_dropout, masks.ELEMENT, _plans.affine, theory.alpha_moments, factors=False)


def feature_alpha_dropout(
    x: X, p: float = 0.5, *, key: Key, training: bool = True, sample_offset: int = 0
) -> X:
    """Alpha dropout of whole channels: set each channel of each sample to α′ with probability p.

    ``x``: (N, C, *spatial) -> same.

    Source: Klambauer et al. 2017, arXiv:1706.02515; the unit is that of Tompson et al. 2015,
    arXiv:1411.4280.
    """
    return FEATURE_ALPHA(x, p, key, training, sample_offset)


FEATURE_ALPHA = Method(
    feature_alpha_dropout, masks.CHANNEL, _plans.affine, theory.alpha_moments, factors=False
)


def drop_connect(
    x: X,
    weight: X,
    bias: X | None = None,
    p: float = 0.5,
    *,
    key: Key,
    training: bool = True,
    per_sample: bool = True,
    inference: Literal["mean", "gaussian"] = "mean",
    sample_offset: int = 0,
) -> X:
    """DropConnect: y_n = (R_n * W) x_n/(1 − p) + b, where R_n drops each weight with probability p.

    ``x``: (N, in), ``weight`` (out, in), ``bias`` (out,) -> (N, out); the bias is never dropped.
    ``per_sample=False`` takes one R for the whole batch. Evaluation is the mean network, xWᵀ + b. With
    ``inference="gaussian"`` it is a sample of the normal distribution with the mean and the variance of
    training, p/(1 − p)·x²(W²)ᵀ: apply the activation to it, and average over several keys. p = 1 leaves the
    bias.

    Both passes make the N masks in blocks of samples: they are never in memory all at once.

    Source: Wan, Zeiler, Zhang, LeCun and Fergus 2013, ICML, PMLR 28(3):1058-1066.
    """
    p = DROP_CONNECT.checked(x, p, key, sample_offset)
    _checked_weight(x, weight, bias)
    _checks.one_of("inference", inference, ("mean", "gaussian"))
    if p == 0.0 or (not training and inference == "mean"):
        return _array.linear(x, weight, bias)
    if not training and p < 1.0:
        return _gaussian_inference(x, weight, bias, p, key, sample_offset)
    if not per_sample and p < 1.0:
        return _array.linear(x, dropout(weight, p, key=key), bias)
    y = _connect(_array.widen(x), _array.widen(weight), p, key, sample_offset)
    return _array.cast(y if bias is None else y + _array.widen(bias), x)


DROP_CONNECT = Method(
    drop_connect,
    masks.WEIGHT,
    _plans.of_weights,
    theory.bernoulli_moments,
    options={"per_sample": flag, "inference": one_of("mean", "gaussian")},
    factors=False,
    shared=lambda per_sample, inference: not per_sample,
)


def alpha_gradient(
    grad: Any, p: float = 0.5, *, key: Key, features: bool = False, sample_offset: int = 0
) -> Any:
    """The gradient of `alpha_dropout` in training: a·grad where kept.

    ``grad``: any shape -> same. With ``features`` it is that of `feature_alpha_dropout`, (N, C, *spatial).
    """
    method = FEATURE_ALPHA if features else ALPHA
    return method.gradient(grad, p, key, sample_offset)


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
    """The gradients of `drop_connect` in training with respect to x and W.

    ``grad``, with respect to the output: (N, out), ``x``: (N, in), ``weight``: (out, in) -> (N, in) and
    (out, in). The gradient with respect to b is the sum of ``grad`` over the samples.
    """
    p = DROP_CONNECT.checked(x, p, key, sample_offset)
    _checked_weight(x, weight, None)
    _array.floating("grad", _array.same_kind("grad", grad, "x", x))
    if tuple(grad.shape) != (len(x), len(weight)):
        raise ValueError(f"grad must have shape {(len(x), len(weight))}, got {tuple(grad.shape)}")
    grad = _array.cast(grad, x)
    if not per_sample:
        kept = dropout(weight, p, key=key)
        return _array.linear(grad, kept.T), dropout(_array.linear(grad.T, x.T), p, key=key)
    draw = weight_masks(weight.shape, p, key, sample_offset)
    grads = connect.backward(_array.widen(grad), _array.widen(x), _array.widen(weight), draw)
    return _array.cast(grads[0], x), _array.cast(grads[1], weight)


def _checked_weight(x: Any, weight: Any, bias: Any) -> None:
    """Check that ``weight`` (out, in) and ``bias`` (out,) fit x in kind, dtype and shape."""
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


def _normals(shape: Any, key: Key, start: int) -> np.ndarray:
    """Standard normal numbers in that shape; the first has the index ``start``."""
    return kernels.normals(key, math.prod(shape), start).reshape(tuple(shape))


def weight_masks(shape: Any, p: float, key: Key, sample_offset: int) -> Draw:
    """The masks of `drop_connect` for each sample, of a weight of that shape."""
    return Draw(key, threshold(p), _plans.gain(p), masks.first((1, *shape), sample_offset))


def _connect(x: Any, weight: Any, p: float, key: Key, sample_offset: int) -> Any:
    """y_n = (R_n * W) x_n/(1 − p)."""
    draw = weight_masks(weight.shape, p, key, sample_offset)
    if _array.is_torch(x):
        from thinned.kernels import autograd

        return autograd.connected(x, weight, None, lambda *_: draw)
    return connect.forward(x, weight, draw)


def _gaussian_inference(x: Any, weight: Any, bias: Any, p: float, key: Key, sample_offset: int) -> Any:
    """xWᵀ + b + √(p/(1 − p)·x²(W²)ᵀ)·z, z ~ N(0, 1); b where p = 1."""
    x_, w = _array.widen(x), _array.widen(weight)
    shape = (len(x), len(weight))
    z = _normals(shape, key, masks.first(shape, sample_offset))
    variance = p / (1.0 - p) * _array.linear(x_ * x_, w * w)
    y = _array.linear(x_, w) + _array.times(_array.sqrt(variance), z)
    return _array.cast(y if bias is None else y + _array.widen(bias), x)
