"""What a training pass does to x: for each method, the map that its kernel applies.

A function here takes the unit, the shape of x, p with 0 < p ≤ 1, the index of the first sample in the whole
batch, and the options of the method.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from thinned import _array, kernels, masks, theory
from thinned.kernels import block
from thinned.kernels.work import Noise, Rule, Select
from thinned.key import Key, threshold
from thinned.masks import Unit

Shape = Sequence[int]


def inverted(unit: Unit, shape: Shape, p: float, sample_offset: int) -> Select:
    """x/(1 − p) where kept, else 0."""
    return Select(threshold(p), *_run(unit, shape, sample_offset), gain(p))


def unscaled(unit: Unit, shape: Shape, p: float, sample_offset: int) -> Select:
    """X where kept, else 0."""
    return Select(threshold(p), *_run(unit, shape, sample_offset), 1.0)


def affine(unit: Unit, shape: Shape, p: float, sample_offset: int) -> Select:
    """a·x + b where kept, else a·α′ + b."""
    a, b = theory.alpha_constants(p)
    return Select(threshold(p), *_run(unit, shape, sample_offset), a, b, a * theory.ALPHA_PRIME + b)


def noisy(unit: Unit, shape: Shape, p: float, sample_offset: int) -> Noise | Select:
    """x·(1 + √(p/(1 − p))·z); zeros where p = 1, which has no such z."""
    if p == 1.0:
        return inverted(unit, shape, p, sample_offset)
    start, _ = _run(unit, shape, sample_offset)
    return Noise(start, (p / (1.0 - p)) ** 0.5)


def whole_samples(unit: Unit, shape: Shape, p: float, sample_offset: int, mode: str, scale: bool) -> Select:
    """x/(1 − p), or x without ``scale``, where the sample is kept, or, with ``mode="batch"``, the batch."""
    start, inner = (masks.batch if mode == "batch" else masks.samples)(shape, sample_offset)
    return Select(threshold(p), start, inner, gain(p) if scale else 1.0)


def picked(unit: Unit, shape: Shape, p: float, sample_offset: int, groups: int) -> Rule:
    """x/(1 − p) where the sample's group keeps the column or channel, else 0."""

    def rule(x: Any, key: Key) -> Any:
        if 0 in shape:
            return _array.zeros(tuple(shape), x)
        return _select(x, masks.features(shape, p, key, sample_offset, groups=groups), gain(p))

    return Rule(rule)


def blocks(
    unit: Unit,
    shape: Shape,
    p: float,
    sample_offset: int,
    block_size: int | tuple[int, ...],
    per_channel: bool,
    exact_rate: bool,
) -> Rule:
    """x·(units of the sample)/(kept units of the sample) where no block fell, else 0."""
    options = {"per_channel": per_channel, "exact_rate": exact_rate}
    fall = masks.seeds(shape, p, block_size, Key(0), sample_offset, **options)

    def rule(x: Any, key: Key) -> Any:
        keyed = fall._replace(key=key)
        if 0 in shape:
            return _array.zeros(tuple(shape), x)
        if (gpu := kernels.on_gpu(x)) is not None:
            return gpu.drop_block(x, keyed)
        if kernels.native(x):
            return _array.strided(block.drop(x, keyed), x)
        kept = masks.blocks(shape, keyed)
        survivors = kept.sum(axis=tuple(range(1, kept.ndim)), keepdims=True)
        return _array.strided(_select(x, kept, kept[0].size / np.maximum(survivors, 1)), x)

    return Rule(rule)


def _run(unit: Unit, shape: Shape, sample_offset: int) -> masks.Run:
    """The first unit, and the elements of each, where units are runs of elements."""
    assert unit.run is not None
    return unit.run(shape, sample_offset)


def gain(p: float) -> float:
    """What survivors are multiplied by: 1/(1 − p); 1 where there are none."""
    return 1.0 / (1.0 - p) if p < 1.0 else 1.0


def _select(x: Any, kept: masks.Mask, scale: Any) -> Any:
    """x·scale where kept, 0 where dropped."""
    return _array.where(kept, _array.times(x, scale), 0.0)


def of_weights(unit: Unit, shape: Shape, p: float, sample_offset: int, *options: Any) -> Rule:
    """None: what is dropped are weights, so that no map of x alone describes it."""
    raise TypeError("a method that drops weights has no map of x alone")
