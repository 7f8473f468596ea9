"""Applies maps to arrays, by the fastest kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from thinned import _array, kernels
from thinned.kernels.work import Map, Noise, Part, Rule, Select, Words, key_of


def apply(x: Any, how: Map, words: Words) -> Any:
    """The map of x, an array of any library but torch: a new array, NumPy's in C order."""
    if not isinstance(x, np.ndarray):
        return plainly(x, how, words)
    cpu, code = kernels.extension(), kernels.CODES.get(x.dtype)
    if cpu is None or code is None or type(how) not in (Select, Noise) or not x.flags.aligned or x.size == 0:
        return np.asarray(plainly(x, how, words))
    out = kernels.empty(x.shape, x.dtype)
    where: Any = x.size
    if not x.flags.c_contiguous:
        where = x.shape, *([step // x.itemsize for step in a.strides] for a in (x, out))
    kernel(cpu, how)(
        code, kernels.address(x), kernels.address(out), where, kernels.workers(x.size), *words, *how
    )
    return out


def plainly(x: Any, how: Map, words: Words) -> Any:
    """The map of x by a mask and a selection, for every library, device and dtype."""
    shape, key = tuple(x.shape), key_of(words)
    if isinstance(how, Rule):
        return how.of(x, key)
    if 0 in shape:
        return _array.zeros(shape, x)
    part = how if isinstance(how, Part) else Part(how, shape, (0,) * len(shape))
    how, axes = part.of, unit_axes(part.of, part.whole)
    if isinstance(how, Noise):
        z = _of_block(lambda n, start: kernels.normals(key, n, start), part, shape)
        return _array.times(x, 1.0 + how.deviation * z)
    gpu, limit = kernels.on_gpu(x), how.limit

    def mask(n: int, start: int) -> Any:
        return gpu.mask(key, n, limit, start, x.device) if gpu else kernels.mask(key, n, limit, start)

    kept = _of_block(mask, part, shape[:axes])
    y = _array.times(x, how.scale, how.shift)
    fill = how.fill if x.dtype.itemsize > 4 else float(np.float32(how.fill))  # half is rounded from single
    return _array.where(kept.reshape(shape[:axes] + (1,) * (len(shape) - axes)), y, fill)


def unit_axes(how: Select | Noise, whole: Sequence[int]) -> int:
    """How many leading axes number the units; the axes after them make up a unit."""
    axes, inner = len(whole), 1
    while isinstance(how, Select) and inner < how.inner:
        axes -= 1
        inner *= whole[axes]
    return axes


def _of_block(numbers: Callable[[int, int], Any], part: Part, shape: tuple[int, ...]) -> Any:
    """The random numbers of a block of units, in its shape: all from its first to its last are made."""
    whole = part.whole[: len(shape)]
    steps = [math.prod(whole[axis + 1 :]) for axis in range(len(whole))]
    first = sum(i * step for i, step in zip(part.first, steps, strict=False))
    found = numbers(
        1 + sum((n - 1) * step for n, step in zip(shape, steps, strict=True)), part.of.start + first
    )
    if isinstance(found, np.ndarray):
        return as_strided(found, shape, [step * found.itemsize for step in steps])
    return found.as_strided(shape, steps)


def kernel(cpu: Any, how: Map) -> Any:
    """The extension's kernel for a map."""
    return cpu.drop if type(how) is Select else cpu.noise
