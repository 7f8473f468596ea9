"""Rules for moments: the mean and variance of a layer's inputs -> those of its outputs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from thinned import _array, theory
from thinned.activations import Activation

TINY = 1e-20  # added to a variance that divides


class Moments(NamedTuple):
    """Mean and variance of each number, NumPy's or torch's; the numbers count as independent."""

    mean: Any
    variance: Any


def no_rule(name: str, kind: str) -> ValueError:
    """The error for a layer without a rule."""
    return ValueError(
        f"model must have layers behind its first dropout for which moments have a rule (dropout, linear, "
        f"convolution, ReLU, BatchNorm, flatten), got {kind} at {name}: sample with predict"
    )


def activation(row: Activation, x: Moments, name: str) -> Moments:
    """The moments of f(x), by the rule of its row. Raises ValueError where the row has none."""
    if row.moments is None:
        raise no_rule(name, row.scratch or row.torch or row.name)
    y: Moments = globals()[row.moments](x)
    return y


def identity(x: Moments) -> Moments:
    """x, unchanged."""
    return x


def factor(name: str, layer: Any, x: Moments) -> Moments:
    """The moments behind a layer or module that drops. Raises ValueError where its method has no factors."""
    if layer.p == 0.0:
        return x
    of_factor = layer.moments(tuple(x.mean.shape))
    if of_factor is None:
        raise no_rule(name, type(layer).__name__)
    return dropped(x, *of_factor)


def dropped(x: Moments, a: float, b: float) -> Moments:
    """r·x, for a factor r of mean a and variance b: a·μ and (a² + b)·σ² + b·μ²."""
    return Moments(a * x.mean, (a * a + b) * x.variance + b * x.mean**2)


def linear(x: Moments, weight: Any, bias: Any) -> Moments:
    """x Wᵀ + b: μ Wᵀ + b and σ² (W²)ᵀ."""
    mean = x.mean @ weight.T
    return Moments(mean if bias is None else mean + bias, x.variance @ (weight**2).T)


def connected(x: Moments, weight: Any, bias: Any, p: float) -> Moments:
    """x (M∘W)ᵀ/(1 − p) + b: a weight's factor has mean a and variance b, each its own."""
    a, b = theory.bernoulli_moments(p)
    mean = a * (x.mean @ weight.T)
    second = (a * a + b) * x.variance + b * x.mean**2
    return Moments(mean if bias is None else mean + bias, second @ (weight**2).T)


def relu(x: Moments) -> Moments:
    """max(0, x) of a normal x: its mean is μΦ(α) + σφ(α), its mean square (μ² + σ²)Φ(α) + μσφ(α), α = μ/σ."""
    sigma = (x.variance + TINY) ** 0.5
    alpha = x.mean / sigma
    density, below = normal(alpha)
    density *= sigma
    mean = x.mean * below + density
    square = (x.mean**2 + x.variance) * below + x.mean * density
    return Moments(mean, (square - mean**2).clip(0.0))


def normal(alpha: Any) -> tuple[Any, Any]:
    """φ(α) and Φ(α) of the standard normal distribution."""
    return _array.exp(-0.5 * alpha * alpha) / math.sqrt(2.0 * math.pi), _array.normal_cdf(alpha)
