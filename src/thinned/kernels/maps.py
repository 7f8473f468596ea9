"""Applies maps to arrays, by the fastest kernel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from thinned import _array, kernels
from thinned.kernels.work import Map, Noise, Rule, Select, Words, key_of


def apply(x: Any, how: Map, words: Words) -> Any:
    """The map of x, an array of any library but torch: a new array, NumPy's in C order."""
    if not isinstance(x, np.ndarray):
        return plainly(x, how, words)
    cpu, code = kernels.extension(), kernels.CODES.get(x.dtype)
    if cpu is None or code is None or type(how) is Rule or not x.flags.aligned or x.size == 0:
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
    if isinstance(how, Noise):
        return _array.times(
            x, 1.0 + how.deviation * kernels.normals(key, math.prod(shape), how.start).reshape(shape)
        )
    if 0 in shape:
        return _array.zeros(shape, x)
    axes, inner = len(shape), 1
    while inner < how.inner:  # the last axes make up a unit
        axes -= 1
        inner *= shape[axes]
    n, gpu = math.prod(shape[:axes]), kernels.on_gpu(x)
    kept: Any = (
        gpu.mask(key, n, how.limit, how.start, x.device)
        if gpu
        else kernels.mask(key, n, how.limit, how.start)
    )
    y = _array.times(x, how.scale, how.shift)
    fill = how.fill if x.dtype.itemsize > 4 else float(np.float32(how.fill))  # half is rounded from single
    return _array.where(kept.reshape(shape[:axes] + (1,) * (len(shape) - axes)), y, fill)


def kernel(cpu: Any, how: Map) -> Any:
    """The extension's kernel for a map."""
    return cpu.drop if type(how) is Select else cpu.noise
