"""Checks of arguments at the public edge. Each returns the value, or says what it must be."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable
from typing import Any


def number(name: str, value: Any) -> float:
    """A real number that is not NaN."""
    if getattr(value, "shape", None) == () and not isinstance(value, numbers.Real):
        value = value.item()  # an array or a tensor of one number
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    value = float(value)
    if math.isnan(value):
        raise ValueError(f"{name} must be a number, got nan")
    return value


def probability(name: str, value: Any) -> float:
    """A number in [0, 1]."""
    value = number(name, value)
    if not 0.0 <= value <= 1.0:
        hint = f" (did you mean {value / 100:g}?)" if 1.0 < value <= 100.0 else ""
        raise ValueError(f"{name} must be in [0, 1], got {value:g}{hint}")
    return value


def non_negative(name: str, value: Any) -> float:
    """A finite number ≥ 0."""
    value = number(name, value)
    if value < 0 or math.isinf(value):
        raise ValueError(f"{name} must be finite and at least 0, got {value:g}")
    return value


def positive(name: str, value: Any) -> float:
    """A finite number > 0."""
    value = number(name, value)
    if value <= 0 or math.isinf(value):
        raise ValueError(f"{name} must be finite and greater than 0, got {value:g}")
    return value


def integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """An integer with low ≤ value, and value < high where high is given."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r} (bool)")
    try:
        value = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})") from None
    if value < low or (high is not None and value >= high):
        rule = f"at least {low}" if high is None else f"in [{low}, {_show(high)})"
        raise ValueError(f"{name} must be {rule}, got {value}")
    return value


def positive_int(name: str, value: Any) -> int:
    """An integer ≥ 1."""
    return integer(name, value, 1)


def one_of(name: str, value: Any, choices: Iterable[Any]) -> Any:
    """One of the choices."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def shape(name: str, value: Any) -> tuple[int, ...]:
    """A tuple of sizes ≥ 0; one integer stands for one dimension."""
    if isinstance(value, int):
        value = (value,)
    try:
        sizes = tuple(value)
    except TypeError:
        raise TypeError(f"{name} must be a tuple of sizes, got {value!r} ({type(value).__name__})") from None
    return tuple(integer(f"{name}[{i}]", size, 0) for i, size in enumerate(sizes))


def _show(bound: int) -> str:
    return "2**64" if bound == 1 << 64 else str(bound)


def rank(name: str, x: Any, layout: str, low: int, high: int | None = None) -> Any:
    """``x`` itself: an array of ``low`` … ``high`` dimensions, whose layout the message names."""
    if x.ndim < low or (high is not None and x.ndim > high):
        raise ValueError(f"{name} must have shape {layout}, got {tuple(x.shape)}")
    return x
