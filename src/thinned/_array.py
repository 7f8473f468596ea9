"""The one "NumPy or torch?" switch. torch is looked up only where the caller brought a tensor."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def is_torch(x: Any) -> bool:
    """Whether ``x`` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def floating(name: str, x: Any) -> Any:
    """``x`` itself: a NumPy array or torch tensor of floating-point numbers."""
    if is_torch(x):
        if not x.is_floating_point():
            raise TypeError(f"{name} must hold floating-point numbers, got dtype {x.dtype}")
    elif not isinstance(x, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    elif x.dtype.kind != "f":
        raise TypeError(f"{name} must hold floating-point numbers, got dtype {x.dtype}")
    return x


def to_like(array: np.ndarray, like: Any) -> Any:
    """``array`` as a torch tensor on the device of ``like`` where that is a tensor, else itself."""
    if not is_torch(like):
        return array
    return sys.modules["torch"].from_numpy(array).to(like.device)


def times(x: Any, factor: np.ndarray | np.float64) -> Any:
    """``x·factor`` in the dtype of ``x``; half precision is multiplied in single and rounded once."""
    if is_torch(x):
        torch = sys.modules["torch"]
        wide = torch.promote_types(x.dtype, torch.float32)
        return (x.to(wide) * to_like(np.asarray(factor), x).to(wide)).to(x.dtype)
    wide = np.promote_types(x.dtype, np.float32)
    return np.asarray(x.astype(wide, copy=False) * factor.astype(wide), x.dtype)
