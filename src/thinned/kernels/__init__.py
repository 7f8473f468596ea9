"""Kernels: the fastest implementation that is there, all of them equal bit for bit.

``_cpu`` is the C++ extension. Where it was not built, NumPy does the work, and says so once.
"""

from __future__ import annotations

import functools
import math
import os
import warnings
from types import ModuleType

import numpy as np
from numpy.typing import DTypeLike, NDArray

from thinned.key import Key, bernoulli

DTYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}  # as kernel.hpp numbers them
POOLED = 1 << 18  # bytes; smaller arrays come from the allocator, which does not give their pages back


@functools.cache
def extension() -> ModuleType | None:
    """The C++ extension, or None; a missing one is reported once."""
    if os.environ.get("THINNED_KERNELS") == "numpy":
        return None
    try:
        from thinned.kernels import _cpu
    except ImportError:
        warnings.warn(
            "thinned runs on NumPy alone: its C++ kernels were not built. Results are the same, slower. "
            "Install a C++ compiler and reinstall, or set THINNED_KERNELS=numpy to silence this.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return _cpu


def threads() -> int:
    """Threads for NumPy arrays: $THINNED_NUM_THREADS, or the cores this process may use."""
    wanted = os.environ.get("THINNED_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else cores()


@functools.cache
def cores() -> int:
    """The cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mask(key: Key, n: int, limit: int, start: int = 0) -> NDArray[np.bool_]:
    """Kept bits of units ``start … start + n − 1``: `thinned.key.bernoulli`, fast."""
    cpu = extension()
    if cpu is None:
        return bernoulli(key, n, limit, start)
    out = np.empty(n, np.bool_)
    cpu.mask(address(out), n, start, *key.words, limit, threads())
    return out


def dropout(
    x: NDArray, out: NDArray, key: Key, limit: int, scale: float, workers: int, start: int = 0
) -> None:
    """``out = x·scale`` where kept, 0 where dropped, in one pass; both flat, contiguous, of one dtype."""
    cpu = extension()
    if cpu is not None and x.dtype in (np.float32, np.float64):
        dtype = DTYPES[x.dtype.name]
        cpu.dropout(dtype, address(x), address(out), x.size, start, *key.words, limit, scale, workers)
        return
    kept = mask(key, x.size, limit, start)
    wide = np.promote_types(x.dtype, np.float32)  # half precision is scaled in single, rounded once
    with np.errstate(over="ignore", invalid="ignore"):  # in units that are dropped, too
        out[...] = np.where(kept, x.astype(wide, copy=False) * wide.type(scale), wide.type(0))


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """An array for a result: where it is large, from memory that was used before."""
    cpu, size = extension(), math.prod(shape) * np.dtype(dtype).itemsize
    if cpu is None or size < POOLED:
        return np.empty(shape, dtype)
    return np.frombuffer(cpu.Block(size), dtype).reshape(shape)


def address(x: NDArray) -> int:
    """Where the first element lies."""
    return int(x.__array_interface__["data"][0])
