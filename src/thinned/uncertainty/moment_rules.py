"""The rules of `moments`: from mean and variance of a layer's inputs to those of its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from thinned import _array, theory
from thinned.activations import Activation

TINY = 1e-20  # added to a variance before dividing by it


class Moments(NamedTuple):
    """Mean and variance of each element, as NumPy arrays or tensors. The elements count as independent."""

    mean: Any
    variance: Any


def no_rule(name: str, kind: str) -> ValueError:
    """The error for a layer without a rule."""
    return ValueError(
        "model must have only layers with a rule after its first dropout (dropout, linear, convolution, "
        f"ReLU, BatchNorm, flatten), got {kind} at {name}: use predict, which samples"
    )


def activation(row: Activation, x: Moments, name: str) -> Moments:
    """The moments of f(x), by the rule in its row. Raises ValueError if the row has none."""
    if row.moments is None:
        raise no_rule(name, row.scratch or row.torch or row.name)
    return RULES[row.moments](x)


def identity(x: Moments) -> Moments:
    """The moments of x."""
    return x


def factor(name: str, layer: Any, x: Moments) -> Moments:
    """The moments after a drop layer or module. Raises ValueError if its method has no moments."""
    if layer.p == 0.0:
        return x
    of_factor = layer.moments()
    if of_factor is None:
        raise no_rule(name, type(layer).__name__)
    return dropped(x, *of_factor)


def dropped(x: Moments, a: float, b: float) -> Moments:
    """The moments of r·x for a factor r of mean a and variance b: a·μ and (a² + b)·σ² + b·μ²."""
    return Moments(a * x.mean, (a * a + b) * x.variance + b * x.mean**2)


def linear(x: Moments, weight: Any, bias: Any) -> Moments:
    """The moments of x Wᵀ + b: μ Wᵀ + b and σ² (W²)ᵀ."""
    mean = x.mean @ weight.T
    return Moments(mean if bias is None else mean + bias, x.variance @ (weight**2).T)


def connected(x: Moments, weight: Any, bias: Any, p: float) -> Moments:
    """The moments of x (M∘W)ᵀ/(1 − p) + b. Each weight has its own factor, of mean a and variance b."""
    a, b = theory.bernoulli_moments(p)
    mean = a * (x.mean @ weight.T)
    second = (a * a + b) * x.variance + b * x.mean**2
    return Moments(mean if bias is None else mean + bias, second @ (weight**2).T)


def relu(x: Moments) -> Moments:
    """The moments of max(0, x) for a normal x.

    With α = μ/σ, the mean is μΦ(α) + σφ(α), and the mean square is (μ² + σ²)Φ(α) + μσφ(α).
    """
    sigma = (x.variance + TINY) ** 0.5
    alpha = x.mean / sigma
    density, below = normal(alpha)
    density *= sigma
    mean = x.mean * below + density
    square = (x.mean**2 + x.variance) * below + x.mean * density
    return Moments(mean, (square - mean**2).clip(0.0))


RULES: dict[str, Callable[[Moments], Moments]] = {"identity": identity, "relu": relu}  # of activations


def normal(alpha: Any) -> tuple[Any, Any]:
    """φ(α) and Φ(α) of the standard normal distribution."""
    return _array.exp(-0.5 * alpha * alpha) / math.sqrt(2.0 * math.pi), _array.normal_cdf(alpha)
