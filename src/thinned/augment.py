"""Methods that mix or cover input images: NumPy arrays or torch tensors in, the same out.

Images are (N, C, H, W), or videos (N, T, C, H, W) with one region for all T. They hold floating-point
numbers, or integers such as uint8 (but for `mixup`). Labels are (N,) integers, with ``classes`` as their
number, or (N, K) shares such as one-hot rows. Mixed labels come back as (N, K): float32 for integers, else in
their own dtype. All of it is for training, and random by ``key`` alone: give every batch its own key.

All raise TypeError where an argument is of the wrong kind, ValueError where a shape or number does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from thinned import _array, _checks, masks
from thinned._array import X
from thinned.key import Key, is_key, normals, permutation, words


def cutout(
    images: X,
    size: int | tuple[int, int],
    *,
    key: Key,
    holes: int = 1,
    fill: float | Sequence[float] = 0.0,
    sample_offset: int = 0,
) -> X:
    """Cutout: cover squares of the images, each ``size`` wide, with ``fill``.

    ``images``: (N, C, H, W) -> same. Centres are uniform over the image, so squares are clipped at its edges;
    each image has its own ``holes`` squares, which may overlap. ``size=0`` covers nothing; (height, width) is
    a rectangle. ``fill`` is a number, or one for each channel. ``sample_offset`` is the index of the first
    image in the whole batch.

    Source: DeVries and Taylor 2017, arXiv:1708.04552.
    """
    _checked_images(images, key)
    sizes = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    height, width = (_checks.integer("size", each, 0) for each in sizes)
    holes = _checks.positive_int("holes", holes)
    fills = _fills(images, fill)
    offset = _checks.integer("sample_offset", sample_offset, 0, 1 << 64)
    if height == 0 or width == 0:
        return images
    n, c, *spatial = (images.shape[0], *images.shape[-3:])
    kept = masks.holes((n, c, *spatial), (height, width), holes, key, offset)
    return _array.where(kept.reshape(n, *[1] * (len(images.shape) - 4), 1, *spatial), images, fills)


def cutmix(
    images: X, labels: Any, *, key: Key, alpha: float = 1.0, classes: int | None = None
) -> tuple[X, Any]:
    """CutMix: paste a box of another image of the batch, and mix the labels by area.

    ``images``: (N, C, H, W) -> same; ``labels``: (N,) integers or (N, K) shares -> (N, K). Once a batch:
    λ ~ Beta(α, α), a box of H√(1 − λ) × W√(1 − λ) with its centre uniform over the image, clipped at its
    edges, and a permutation that gives each image its partner. Then λ is set to the share of the image
    outside the box, and the label is λ·own + (1 − λ)·partner's. Labels of each place, (N, H, W) or
    (N, *, H, W) of any kind, such as segmentation masks, are pasted like the images; ``classes`` is not read.

    Source: Yun, Han, Oh, Chun, Choe and Yoo 2019, arXiv:1905.04899.
    """
    _checked_images(images, key)
    of_places = _are_places(images, labels)
    shares = labels if of_places else _checked_labels(images, labels, classes)
    share = 1.0 - _beta(key.fold_in("lambda"), _checks.positive("alpha", alpha))
    if len(images) == 0:
        return images, shares
    partner = permutation(key.fold_in("partner"), len(images))
    kept = masks.box(images.shape[-2], images.shape[-1], share, key.fold_in("box"))
    if of_places:
        return _pasted(images, partner, kept), _pasted(labels, partner, kept)
    return _paste(images, shares, partner, kept, kept.mean() if kept.size else 1.0)


def mixup(
    images: X, labels: Any, *, key: Key, alpha: float = 1.0, classes: int | None = None
) -> tuple[X, Any]:
    """Mixup: mix each image and its label with those of another image of the batch.

    ``images``: (N, *) of floating-point numbers -> same; ``labels``: (N,) integers or (N, K) shares ->
    (N, K). Once a batch: λ ~ Beta(α, α) and a permutation that gives each image its partner; the result is
    λ·own + (1 − λ)·partner's, computed in float32 or better.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz 2018, arXiv:1710.09412.
    """
    _array.floating("images", images)
    is_key("key", key)
    _checks.rank("images", images, "(N, *)", 1)
    shares = _checked_labels(images, labels, classes)
    share = _beta(key.fold_in("lambda"), _checks.positive("alpha", alpha))
    if len(images) == 0:
        return images, shares
    partner = permutation(key.fold_in("partner"), len(images))
    return _mixed(images, partner, share), _mixed(shares, partner, share)


def attentive_cutmix(
    images: X,
    labels: Any,
    attention: Any,
    *,
    key: Key,
    patches: int = 6,
    grid: int = 7,
    classes: int | None = None,
) -> tuple[X, Any]:
    """Attentive CutMix: paste the cells of another image that matter most, at the same place.

    ``images``: (N, C, H, W) -> same; ``labels``: (N,) integers or (N, K) shares -> (N, K); ``attention``:
    (N, grid, grid), for each image how much a pretrained model attends to each cell. A permutation gives
    each image a partner; the ``patches`` cells of the partner's highest attention are pasted. The label is
    λ·partner's + (1 − λ)·own, λ = patches/grid². `thinned.nn.attention_map` makes ``attention``.

    Source: Walawalkar, Shen, Liu and Savvides 2020, arXiv:2003.13048.
    """
    _checked_images(images, key)
    n, (height, width) = len(images), images.shape[-2:]
    grid = _checks.integer("grid", grid, 1)
    patches = _checks.integer("patches", patches, 0, grid * grid + 1)
    if n and grid > min(height, width):
        raise ValueError(
            f"grid must be at most the images' height and width, {height} and {width}, got {grid}"
        )
    scores = _checked_attention(attention, n, grid)
    shares = _checked_labels(images, labels, classes)
    if n == 0:
        return images, shares
    partner = permutation(key.fold_in("partner"), n)
    kept = masks.cells(scores[partner], patches, height, width)
    kept = kept.reshape(n, *[1] * (len(images.shape) - 3), height, width)
    return _paste(images, shares, partner, kept, 1.0 - patches / grid**2)


def _checked_images(images: Any, key: Any) -> None:
    """``images`` (N, C, H, W) or (N, T, C, H, W) of numbers, and a key."""
    if not _array.is_integer(_array.array("images", images)):
        _array.floating("images", images)
    is_key("key", key)
    _checks.rank("images", images, "(N, C, H, W) or (N, T, C, H, W)", 4, 5)


def _fills(images: Any, fill: Any) -> Any:
    """``fill`` as a number, or as an array (C, 1, 1) like the images. Integer images take integers."""
    channels = images.shape[-3]
    several = not np.isscalar(fill) and hasattr(fill, "__len__")
    if several and len(fill) != channels:
        raise ValueError(f"fill must be a number or {channels}, one for each channel, got {len(fill)}")
    numbers = [_checks.number("fill", each) for each in (fill if several else [fill])]
    if _array.is_integer(images):
        values = np.iinfo(str(images.dtype).removeprefix("torch."))
        for each in numbers:
            if not each.is_integer() or not values.min <= each <= values.max:
                raise ValueError(f"fill must be a value of images of {images.dtype}, got {each}")
        numbers = [int(each) for each in numbers]
    if not several:
        return numbers[0]
    return _array.cast(_array.to_like(np.array(numbers).reshape(-1, 1, 1), images), images)


def _are_places(images: Any, labels: Any) -> bool:
    """Whether labels are those of each place: (N, *, H, W)."""
    shape = tuple(getattr(labels, "shape", ()))
    return len(shape) >= 3 and (shape[0], *shape[-2:]) == (len(images), *images.shape[-2:])


def _checked_labels(images: Any, labels: Any, classes: int | None) -> Any:
    """``labels`` as (N, K) shares; at least two samples, as one has no partner."""
    n = len(images)
    if n == 1:
        raise ValueError(
            "images must be at least 2, to be mixed with each other, got 1; leave such a batch unmixed"
        )
    _array.same_kind("labels", labels, "images", images)
    if len(labels.shape) not in (1, 2) or len(labels) != n:
        raise ValueError(f"labels must have shape ({n},) or ({n}, classes), got {tuple(labels.shape)}")
    if classes is not None:
        classes = _checks.positive_int("classes", classes)
    if labels.ndim == 2:
        if not _array.is_floating(labels):
            raise TypeError(
                f"labels of shape (N, classes) must hold floating-point numbers, got dtype {labels.dtype}"
            )
        if classes not in (None, labels.shape[1]):
            raise ValueError(f"classes must be {labels.shape[1]}, the columns of labels, got {classes}")
        return labels
    if not _array.is_integer(labels):
        raise TypeError(f"labels of shape (N,) must hold integers, got dtype {labels.dtype}")
    if classes is None:
        raise ValueError(
            "classes must be given with integer labels: a batch need not hold the largest, got None"
        )
    found = _array.to_numpy(labels)
    if n and not (found.min() >= 0 and found.max() < classes):
        raise ValueError(f"labels must be in [0, {classes}), got {found.min()} to {found.max()}")
    return _array.to_like(np.eye(classes, dtype=np.float32)[found.astype(np.int64)], images)


def _checked_attention(attention: Any, n: int, grid: int) -> np.ndarray:
    """``attention`` as an (N, grid, grid) NumPy array without NaN."""
    _array.floating("attention", attention)
    if tuple(attention.shape) != (n, grid, grid):
        raise ValueError(f"attention must have shape {(n, grid, grid)}, got {tuple(attention.shape)}")
    scores = _array.to_numpy(attention)
    if np.isnan(scores).any():
        raise ValueError("attention must hold numbers, got nan")
    return scores


def _paste(images: Any, labels: Any, partner: np.ndarray, kept: np.ndarray, share: float) -> tuple[Any, Any]:
    """Own where kept, else the partner's; and the labels share·own + (1 − share)·partner's."""
    return _pasted(images, partner, kept), _mixed(labels, partner, float(share))


def _pasted(x: Any, partner: np.ndarray, kept: np.ndarray) -> Any:
    """Own where kept, else the partner's."""
    return _array.where(kept, x, x[_array.to_like(partner, x)])


def _mixed(x: Any, partner: np.ndarray, share: float) -> Any:
    """share·own + (1 − share)·partner's."""
    wide = _array.widen(x)
    return _array.cast(wide * share + wide[_array.to_like(partner, x)] * (1.0 - share), x)


def _beta(key: Key, alpha: float) -> float:
    """A sample of Beta(α, α): a/(a + b) of two gamma variables, by logarithms for the sake of small α."""
    a, b = (_log_gamma_variable(key.fold_in(name), alpha) for name in ("a", "b"))
    return 1.0 / (1.0 + math.exp(min(b - a, 700.0)))


def _log_gamma_variable(key: Key, alpha: float) -> float:
    """The logarithm of a sample of Gamma(α, 1); attempt i draws from ``key.fold_in(i)``.

    Marsaglia and Tsang 2000, doi:10.1145/358407.358414; for α < 1, Gamma(α + 1)·U^(1/α).
    """
    if alpha < 1.0:
        u = (float(words(key.fold_in("boost"), 1)[0]) + 0.5) / 2.0**32
        return _log_gamma_variable(key, alpha + 1.0) + math.log(u) / alpha
    d = alpha - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    attempt = 0
    while True:
        draw = key.fold_in(attempt)
        x = float(normals(draw, 1)[0])  # words 0 and 1; u is word 2
        u = (float(words(draw, 1, 2)[0]) + 0.5) / 2.0**32
        v = (1.0 + c * x) ** 3
        if v > 0.0 and math.log(u) < x * x / 2.0 + d - d * v + d * math.log(v):
            return math.log(d) + math.log(v)
        attempt += 1
