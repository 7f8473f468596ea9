"""Mean and variance through the layers, in one pass: what sampling finds, without samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from thinned import _array, _checks, scratch, theory
from thinned.activations import Activation
from thinned.key import Key, normals
from thinned.scratch.activations import ROWS
from thinned.scratch.drops import Drop
from thinned.uncertainty.predict import prediction, rows_at_once, sampler_of
from thinned.uncertainty.prediction import Array, Prediction, Summary, summarise
from thinned.uncertainty.sample_scratch import Hand

POINTS = 32  # of the normal distribution, in opposite pairs, on which the softmax is averaged
TINY = 1e-20  # a variance that divides nothing by 0


class Moments(NamedTuple):
    """Mean and variance of each number, NumPy's or torch's; the numbers count as independent."""

    mean: Any
    variance: Any


def moments(
    model: Any,
    x: Any,
    *,
    outputs: str | None = None,
    quantiles: Sequence[float] = (0.05, 0.5, 0.95),
    batch_size: int | None = None,
) -> Prediction:
    """What `predict` tells, by mean and variance through the layers in one pass; no samples, no key.

    Arguments, shapes and errors are those of `predict`. Everything before the first random layer is exact;
    from there on dropout, linear and convolutional layers, ReLU and batch normalisation each map a mean and
    a variance to those of their outputs. The numbers of a layer count as independent and normal: a linear
    layer of many inputs makes them nearly normal, but what two units share of a mask is lost, so that the
    spread comes out too small. The softmax of the normal logits is averaged over 32 fixed points.

    Raises ValueError where a layer behind the first random one has no rule.

    Wang and Manning 2013, ICML, PMLR 28(2):118-126; the moments of ReLU: Frey and Hinton 1999,
    doi:10.1162/089976699300016872.
    """
    shares = [_checks.probability(f"quantiles[{i}]", q) for i, q in enumerate(quantiles)]
    sampler, x, outputs = sampler_of(model, x, outputs, thin=False)
    if outputs == "probabilities":
        raise ValueError("outputs must be 'logits', 'labels' or 'numbers' for moments, got 'probabilities'")
    if isinstance(sampler, Hand):
        through: Callable[[Any], Moments] = lambda part: by_hand(sampler, part)  # noqa: E731
    else:
        from thinned.uncertainty.moments_torch import through as of_graph

        through = lambda part: of_graph(sampler, part)  # type: ignore[arg-type] # noqa: E731
    rows, parts = rows_at_once(sampler, x, POINTS, batch_size), []
    for first in range(0, max(1, x.shape[0]), rows):
        mean, variance = map(_array.to_numpy, through(sampler.take(x, first, first + rows)))
        parts.append(_normal(mean, variance, outputs, shares))
    return prediction(Summary.joined(parts), x, 0, sampler)


def by_hand(net: Hand, x: Array) -> Moments:
    """The moments of a network's outputs."""
    mean = net.before(x)
    now = Moments(mean, np.zeros_like(mean))
    for step in net.tail:
        now = _layer(step.name, step.layer, now)
    return now


def _layer(name: str, layer: scratch.Layer, x: Moments) -> Moments:
    """The moments of a layer's outputs."""
    if isinstance(layer, Drop) and layer.p == 0.0:
        return x
    if isinstance(layer, scratch.Dropout):
        original = layer.rescale == "test"
        return dropped(x, *(theory.mask_moments if original else theory.bernoulli_moments)(layer.p))
    if isinstance(layer, scratch.ThinDropout):
        return dropped(x, *theory.thin_moments(layer.p, x.mean.shape[1]))
    if isinstance(layer, scratch.SpatialDropout | scratch.GaussianDropout):
        return dropped(x, *theory.bernoulli_moments(layer.p))
    if isinstance(layer, scratch.DropConnect):
        return connected(x, layer.params["weight"], layer.params["bias"], layer.p)
    if isinstance(layer, scratch.Linear):
        return linear(x, layer.params["weight"], layer.params["bias"])
    if type(layer) in ROWS:
        return activation(ROWS[type(layer)], x, name)
    if isinstance(layer, scratch.BatchNorm):
        at = layer.forward
        slope = at(np.ones_like(x.mean[:1])) - at(np.zeros_like(x.mean[:1]))
        return Moments(at(x.mean), slope**2 * x.variance)
    if getattr(layer, "moves_only", False):
        return Moments(layer.forward(x.mean), layer.forward(x.variance))
    raise no_rule(name, type(layer).__name__)


def no_rule(name: str, kind: str) -> ValueError:
    """What is raised where a layer's moments are not known."""
    return ValueError(
        f"model must have layers behind its first dropout that moments know (dropout, linear, convolution, "
        f"ReLU, BatchNorm, flatten), got {kind} at {name}: sample with predict"
    )


def activation(row: Activation, x: Moments, name: str) -> Moments:
    """The moments of f(x), by the rule of its row. Raises ValueError where the row has none."""
    if row.moments is None:
        raise no_rule(name, row.scratch or row.torch or row.name)
    y: Moments = globals()[row.moments](x)
    return y


def identity(x: Moments) -> Moments:
    """x itself."""
    return x


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
    """φ(α) and Φ(α) of the standard normal distribution.

    Of NumPy arrays, which have no erf, Φ is that of Abramowitz and Stegun 1964, 26.2.17, good to 8·10⁻⁸.
    """
    root = math.sqrt(2.0 * math.pi)
    if _array.is_torch(alpha):
        return (alpha * alpha * -0.5).exp() / root, 0.5 * (1.0 + (alpha * math.sqrt(0.5)).erf())
    density = np.exp(-0.5 * alpha * alpha) / root
    t = 1.0 / (1.0 + 0.2316419 * np.abs(alpha))
    terms = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)
    above = density * np.polyval((*terms[::-1], 0.0), t)
    return density, np.where(alpha < 0, above, 1.0 - above)


def _normal(mean: Array, variance: Array, outputs: str, quantiles: Sequence[float]) -> Summary:
    """What normal outputs (N, *out) tell."""
    sigma = np.sqrt(variance)
    if outputs == "numbers":
        inside = [min(max(q, 1e-12), 1.0 - 1e-12) for q in quantiles]
        z = np.reshape([NormalDist().inv_cdf(q) for q in inside], (-1, *[1] * mean.ndim)).astype(mean.dtype)
        return Summary(mean, sigma, None, None, mean + z * sigma)
    z = _points(math.prod(mean.shape[1:])).reshape(POINTS, 1, *mean.shape[1:]).astype(mean.dtype)
    return summarise(mean + sigma * z, outputs, quantiles)


@lru_cache(16)
def _points(size: int) -> Array:
    """Normal points in opposite pairs, (POINTS, size), scaled to variance 1."""
    half = normals(Key(0), POINTS // 2 * size).reshape(POINTS // 2, size)
    half /= np.sqrt(np.mean(half**2, axis=0))
    return np.concatenate([half, -half])
