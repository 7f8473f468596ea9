"""Which units a method drops: shapes and spreading, one short function a unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from thinned import _array, _checks, kernels
from thinned.key import Key, threshold


def keep_mask(shape: int | Sequence[int], p: float, *, key: Key, start: int = 0, like: Any = None) -> Any:
    """Which of an array of units survive: True = kept, each with probability 1 − p.

    ``shape`` is that of the units; ``start`` the index of the first one in a larger, C-ordered array,
    so that shards get their part. The result is a bool array of that shape: NumPy's, or a torch tensor
    on the device of ``like`` where ``like`` is a tensor. One key gives nested masks: what survives
    a larger p survives a smaller one. P(kept) is exact to 2⁻³².

    Raises TypeError or ValueError where an argument is of the wrong kind, or p not in [0, 1].
    """
    sizes = _checks.shape("shape", shape)
    p = _checks.probability("p", p)
    _checks.is_key("key", key)
    n = math.prod(sizes)
    start = _checks.integer("start", start, 0, 1 << 64)
    if start + n > 1 << 64:
        raise ValueError(f"start + number of units must be at most 2**64, got {start} + {n}")
    kept = kernels.mask(key, n, threshold(p), start).reshape(sizes)
    return _array.to_like(kept, like)
