"""The one "NumPy or torch?" switch. torch is looked up only where the caller brought a tensor."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def is_torch(x: Any) -> bool:
    """Whether ``x`` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def array(name: str, x: Any) -> Any:
    """``x`` itself: a NumPy array or torch tensor, of any dtype."""
    if not is_torch(x) and not isinstance(x, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array or a torch tensor, got {type(x).__name__}")
    return x


def is_floating(x: Any) -> bool:
    """Whether ``x`` holds floating-point numbers."""
    return bool(x.is_floating_point()) if is_torch(x) else x.dtype.kind == "f"


def is_integer(x: Any) -> bool:
    """Whether ``x`` holds integers; bool is none."""
    return not str(x.dtype).endswith("bool") and "int" in str(x.dtype)


def floating(name: str, x: Any) -> Any:
    """``x`` itself: a NumPy array or torch tensor of floating-point numbers."""
    if not is_floating(array(name, x)):
        raise TypeError(f"{name} must hold floating-point numbers, got dtype {x.dtype}")
    return x


def same_kind(name: str, value: Any, other: str, x: Any) -> Any:
    """``value`` itself: NumPy where ``x`` is, or a tensor on the device of ``x``; ``other`` names ``x``."""
    array(name, value)
    ours, theirs = _home(value), _home(x)
    if ours != theirs:
        raise TypeError(f"{name} must be {theirs}, as {other} is, got {ours}")
    return value


def to_like(array: np.ndarray, like: Any) -> Any:
    """``array`` as a torch tensor on the device of ``like`` where that is a tensor, else itself."""
    if not is_torch(like):
        return array
    return sys.modules["torch"].from_numpy(array).to(like.device)


def memory(x: Any) -> np.ndarray:
    """``x``, which is on the CPU, as a C-ordered array without gradient; bfloat16 as the int16 of its bits.

    A copy only where x is strided.
    """
    if is_torch(x):
        torch = sys.modules["torch"]
        x = x.detach().resolve_neg()
        x = (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()
    return np.require(x, requirements=("C_CONTIGUOUS", "ALIGNED"))


def from_memory(y: np.ndarray, like: Any) -> Any:
    """What `memory` gives, as a tensor in the dtype of ``like`` where that is one."""
    return sys.modules["torch"].from_numpy(y).view(like.dtype) if is_torch(like) else y


def strided(y: Any, like: Any) -> Any:
    """``y``, in the strides of ``like`` where that is a tensor, as torch's own functions keep them."""
    if not is_torch(like) or (y.is_contiguous() and like.is_contiguous()):
        return y
    return sys.modules["torch"].empty_like(like).copy_(y)


def threads(x: Any) -> int | None:
    """The threads that torch's user wants, where ``x`` is a tensor; negative: they are torch's own."""
    return -sys.modules["torch"].get_num_threads() if is_torch(x) else None


def widen(x: Any) -> Any:
    """``x`` in single precision where it is in half, else itself."""
    if is_torch(x):
        torch = sys.modules["torch"]
        return x.to(torch.promote_types(x.dtype, torch.float32))
    return x.astype(np.promote_types(x.dtype, np.float32), copy=False)


def cast(y: Any, like: Any) -> Any:
    """``y`` in the dtype of ``like``."""
    if is_torch(y):
        return y.to(like.dtype)
    with np.errstate(over="ignore"):
        return np.asarray(y, like.dtype)


def times(x: Any, factor: np.ndarray | float, shift: float = 0.0) -> Any:
    """``x·factor``, plus ``shift``, in the dtype of ``x``; half is computed in single and rounded once."""
    wide = widen(x)
    if isinstance(factor, np.ndarray):
        factor = cast(to_like(factor, x), wide)
    elif not is_torch(x):
        factor = wide.dtype.type(factor)
    with np.errstate(over="ignore", invalid="ignore"):  # in units that are dropped, too
        y = wide * factor
        return cast(y if shift == 0.0 else y + shift, x)


def where(kept: np.ndarray, x: Any, other: Any) -> Any:
    """``x`` where kept, else ``other``: a number, or an array like ``x``. It selects: no NaN passes."""
    if is_torch(x):
        return sys.modules["torch"].where(to_like(kept, x), x, other)
    return np.where(kept, x, x.dtype.type(other) if np.isscalar(other) else other)


def sqrt(x: Any) -> Any:
    """√x, with gradient 0 at 0."""
    if not is_torch(x):
        return np.sqrt(x)
    return x.masked_fill(x == 0, 1.0).sqrt().masked_fill(x == 0, 0.0)


def log(x: Any) -> Any:
    """ln x."""
    return x.log() if is_torch(x) else np.log(x)


def sigmoid(x: Any) -> Any:
    """1/(1 + e⁻ˣ), the logistic function; never overflows."""
    if is_torch(x):
        return x.sigmoid()
    y = np.exp(np.minimum(x, 0))  # e^min(x, 0)/(1 + e^−|x|): exponents are ≤ 0
    below = np.abs(x)
    np.negative(below, out=below)
    np.exp(below, out=below)
    below += 1
    y /= below
    return y


def softplus(x: Any) -> Any:
    """ln(1 + eˣ); never overflows."""
    return (
        sys.modules["torch"].logaddexp(x, x.new_zeros(()))
        if is_torch(x)
        else np.logaddexp(x, x.dtype.type(0))
    )


def zeros(shape: tuple[int, ...], like: Any) -> Any:
    """Zeros of that shape, in the dtype and on the device of ``like``."""
    return like.new_zeros(shape) if is_torch(like) else np.zeros(shape, like.dtype)


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """X Wᵀ + b, in the dtype of ``x``; half is summed in single."""
    if is_torch(x):
        return sys.modules["torch"].nn.functional.linear(x, weight, bias)
    y = widen(x) @ widen(weight).T
    return cast(y if bias is None else y + widen(bias), x)


def to_numpy(x: Any) -> np.ndarray:
    """``x`` as a NumPy array, without its gradient; half becomes single."""
    return np.asarray(widen(x.detach()).cpu().numpy() if is_torch(x) else x)


def _home(x: Any) -> str:
    """Where ``x`` lives, in words."""
    return f"a torch tensor on {x.device}" if is_torch(x) else "a NumPy array"
