"""Kernels: the fastest implementation that this machine has. All give the same bits.

``_cpu`` is the C++ extension. If it was not built, NumPy does the work, after one warning.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import warnings
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from thinned import _array
from thinned.key import Key, bernoulli
from thinned.key import choose as choose_by_sorting
from thinned.key import normals as reference_normals
from thinned.key import pick as reference_pick

DTYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}  # the numbers in kernel.hpp
CODES = {np.dtype(name): code for name, code in DTYPES.items() if name != "bfloat16"}
POOLED = 1 << 17  # bytes; the pool is for larger arrays, whose pages the allocator would give back each time
POOLED_RESULT = 1 << 18  # bytes; the same for results of drops on tensors, which torch allocates faster below
ALONE = 1 << 15  # elements; smaller arrays stay on one thread


@functools.cache
def extension() -> ModuleType | None:
    """The C++ extension; None, after one warning, if it was not built."""
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
    if (megabytes := os.environ.get("THINNED_POOL_MB", "")).isdecimal():
        _cpu.keep_at_most(int(megabytes) << 20)
    return _cpu


def on_gpu(x: Any) -> ModuleType | None:
    """The Triton kernels if ``x`` is a tensor on a GPU and they run there, else None."""
    return triton() if getattr(x, "is_cuda", False) else None


@functools.cache
def triton() -> ModuleType | None:
    """The Triton kernels; None without Triton, or, after one warning, if Triton does not run here."""
    if os.environ.get("THINNED_KERNELS") == "numpy":
        return None
    try:
        from thinned.kernels import gpu
    except ImportError:
        return None
    try:
        gpu.mask(Key(0), 1, 0, 0, "cuda")
    except Exception as error:  # no compiler for its launcher, too old a GPU, …
        warnings.warn(
            f"thinned draws masks on the CPU: Triton does not run here ({type(error).__name__}: {error}). "
            "Results are the same, slower. Set THINNED_KERNELS=numpy to silence this.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return gpu


def threads() -> int:
    """Threads for NumPy arrays: $THINNED_NUM_THREADS, else $OMP_NUM_THREADS, else `cores`."""
    for name in ("THINNED_NUM_THREADS", "OMP_NUM_THREADS"):
        wanted = os.environ.get(name, "").split(",")[0].strip()
        if wanted.isdecimal() and int(wanted) > 0:
            return int(wanted)
    return cores()


@functools.cache
def cores() -> int:
    """The number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def mask(key: Key, n: int, limit: int, start: int = 0) -> NDArray[np.bool_]:
    """The mask of units ``start … start + n − 1``, as `thinned.key.bernoulli` defines it."""
    cpu = extension()
    if cpu is None:
        return bernoulli(key, n, limit, start)
    out = np.empty(n, np.bool_)
    cpu.mask(address(out), n, start, *key.words, limit, workers(n))
    return out


def choose(key: Key, n: int, k: int) -> NDArray[np.int64]:
    """The ``k`` of ``n`` indices with the smallest (word, index), ascending; as `thinned.key.choose`."""
    cpu = extension()
    if cpu is None or n >= 1 << 32:
        return choose_by_sorting(key, n, k)
    out = np.empty(k, np.int64)
    cpu.choose(*key.words, n, k, address(out))
    return out


def pick(
    key: Key, n: int, panel: int, limit: int, groups: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The order of n units, and the panels of it that each group keeps: `thinned.key.pick`, fast."""
    cpu = extension()
    if cpu is None or n == 0:
        return reference_pick(key, n, panel, limit, groups)
    panels = -(-n // panel)
    order, kept = np.empty(n, np.int64), np.empty((groups, panels), np.bool_)
    cpu.pick(*key.words, n, panels, limit, groups, address(order), address(kept))
    return order, kept


def permutation(key: Key, n: int) -> NDArray[np.int64]:
    """The indices 0 … n − 1 in random order: `thinned.key.permutation`, fast."""
    return pick(key, n, max(n, 1), 0, 1)[0]


def normals(key: Key, n: int, start: int = 0) -> NDArray[np.float64]:
    """Normal numbers ``start … start + n − 1``: `thinned.key.normals` to a few units in the last place."""
    cpu = extension()
    if cpu is None:
        return reference_normals(key, n, start)
    out = empty((n,), np.float64)
    cpu.normals(address(out), n, start, *key.words, workers(n))
    return out


def workers(n: int) -> int:
    """Threads for a NumPy array of ``n`` elements."""
    return threads() if n >= ALONE else 1


def native(x: Any) -> bool:
    """Whether the extension can read x: it has an `_array.address`, and one of the `DTYPES`."""
    known = code(x.dtype) is not None and extension() is not None
    return known and bool(_array.address(x))


@functools.cache
def code(dtype: Any) -> int | None:
    """The number of a dtype, NumPy's or torch's, in kernel.hpp; None where there is none."""
    return DTYPES.get(str(dtype).removeprefix("torch."))


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:
    """An array for a result. A large one takes memory that was used before, from the pool."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < POOLED or extension() is None:
        return np.empty(shape, dtype)
    return np.frombuffer(buffer(size), dtype).reshape(shape)


def room(shape: tuple[int, ...], like: Any) -> Any:
    """`empty`, in the library, dtype and device of ``like``."""
    if not _array.is_torch(like):
        return empty(shape, like.dtype)
    size = math.prod(shape) * like.itemsize
    if size < POOLED or extension() is None or not _array.address(like):
        return like.new_empty(shape)
    return sys.modules["torch"].frombuffer(buffer(size), dtype=like.dtype).view(shape)


def buffer(size: int) -> Any:
    """A buffer of ``size`` bytes from the extension's pool; it returns there when it is no longer used."""
    cpu = extension()
    assert cpu is not None
    return cpu.Block(size)


def address(x: NDArray) -> int:
    """The address of the first element."""
    return int(x.__array_interface__["data"][0])
