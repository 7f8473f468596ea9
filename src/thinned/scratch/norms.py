"""Normalisations: one layer. They differ only in the axes of their mean and variance.

| layer | x is seen as | mean and variance over | one γ and β for each |
| --- | --- | --- | --- |
| `BatchNorm` | (N, C, *spatial) | N, *spatial | channel |
| `InstanceNorm` | (N, C, *spatial) | *spatial | channel |
| `GroupNorm` | (N, G, C/G, *spatial) | C/G, *spatial | channel |
| `LayerNorm` | (*batch, *shape) | *shape | element of shape |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from thinned import _checks
from thinned.key import Key, is_key
from thinned.scratch.layer import Array, Layer, float_dtype, floats, same_shape


class Normalize(Layer):
    """y = γ·x̂ + β, x̂ = (x − μ)/√(σ² + ε): mean μ and variance σ² over some of the axes.

    Any shape that the subclass allows -> same; input of another floating dtype is converted to ``dtype``.
    μ and σ² are taken in float64; σ² is the mean square, without Bessel's correction. ``weight`` γ starts
    as ones, ``bias`` β as zeros; with ``affine=False`` there are none.

    A subclass defines `view`, the shape in which it sees x; `axes`, which it averages over; and `per`, the
    axes of x that have parameters.

    Raises ValueError where a mean is of fewer than two values: x̂ would be zero whatever x is.
    """

    def __init__(
        self, shape: tuple[int, ...], *, eps: float = 1e-5, affine: bool = True, dtype: DTypeLike = np.float32
    ) -> None:
        super().__init__()
        self.shape = shape
        self.eps = _checks.positive("eps", eps)
        self.dtype = float_dtype(dtype)
        if affine:
            self.params = {"weight": np.ones(shape, self.dtype), "bias": np.zeros(shape, self.dtype)}
            self.grads = {name: np.zeros_like(param) for name, param in self.params.items()}

    def view(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which x, of ``shape``, is normalised."""
        return shape

    def axes(self, ndim: int) -> tuple[int, ...]:
        """The axes of the view, of ``ndim`` axes, that mean and variance are taken over."""
        raise NotImplementedError

    def per(self, ndim: int) -> tuple[int, ...]:
        """The axes of x along which γ and β vary."""
        return (1,)

    def check(self, x: Any) -> Array:
        """``x``, checked: here (N, C, *spatial)."""
        x = floats("x", x, self.dtype)
        if x.ndim < 2 or x.shape[1:2] != self.shape:
            raise ValueError(f"x must have shape (N, {self.shape[0]}, *spatial), got {x.shape}")
        return x

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Same shape; the statistics of this x, whether in training or in evaluation."""
        x = self.check(x)
        return self._normalize(x, *self._moments(x), fixed=False)

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = (h − mean h − x̂·mean(h·x̂))/√(σ² + ε), h = γ·∂L/∂y; h/√(σ² + ε) where μ, σ² are fixed."""
        x_hat, scale, fixed = self.recall()
        g = same_shape("grad", grad, x_hat.shape).astype(self.dtype, copy=False)
        if self.params:
            others = tuple(i for i in range(g.ndim) if i not in self.per(g.ndim))
            self.grads["weight"][...] = np.sum(g * x_hat, axis=others, dtype=np.float64)
            self.grads["bias"][...] = np.sum(g, axis=others, dtype=np.float64)
            g = g * self._spread("weight", g.ndim)
        h, x_hat_view = g.reshape(self.view(g.shape)), x_hat.reshape(self.view(g.shape))
        if not fixed:
            axes = self.axes(h.ndim)
            h = (
                h
                - _mean(h, axes).astype(self.dtype)
                - x_hat_view * _mean(h * x_hat_view, axes).astype(self.dtype)
            )
        out: Array = (h * scale).reshape(g.shape)
        return out

    def _moments(self, x: Array) -> tuple[Array, Array]:
        """μ and σ² of x, in float64, with one value along the axes they are taken over."""
        view = x.reshape(self.view(x.shape))
        axes = self.axes(view.ndim)
        count = math.prod(view.shape[i] for i in axes)
        if count < 2:
            raise ValueError(
                f"x must give {type(self).__name__} at least 2 values for each mean, got {count} of "
                f"shape {x.shape}"
            )
        mean = _mean(view, axes)
        return mean, _mean(np.square(view - mean), axes)

    def _normalize(self, x: Array, mean: Array, variance: Array, *, fixed: bool) -> Array:
        """γ·x̂ + β; ``fixed``: mean and variance do not depend on x."""
        scale = (1.0 / np.sqrt(variance + self.eps)).astype(self.dtype)
        view = x.reshape(self.view(x.shape))
        x_hat = (view - mean).astype(self.dtype)
        x_hat *= scale
        x_hat = x_hat.reshape(x.shape)
        self._saved = (x_hat, scale, fixed)
        if not self.params:
            return x_hat.copy()
        y: Array = x_hat * self._spread("weight", x.ndim)
        y += self._spread("bias", x.ndim)
        return y

    def _spread(self, name: str, ndim: int) -> Array:
        """A parameter in a shape that broadcasts with x."""
        sizes = iter(self.shape)
        per = self.per(ndim)
        return self.params[name].reshape([next(sizes) if i in per else 1 for i in range(ndim)])


class BatchNorm(Normalize):
    """Mean and variance of each channel over the batch; running ones in evaluation.

    ``x``: (N, C, *spatial), with any number of spatial axes -> same; C is ``channels``. A training pass, one
    with a key, updates the buffers ``running_mean`` and ``running_var`` (C,):
    running ← (1 − momentum)·running + momentum·new, σ² with Bessel's correction n/(n − 1). A pass without a
    key uses them.

    Source: Ioffe and Szegedy 2015, ICML, arXiv:1502.03167.
    """

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__((_checks.positive_int("channels", channels),), eps=eps, affine=affine, dtype=dtype)
        self.momentum = _checks.probability("momentum", momentum)
        self.buffers = {
            "running_mean": np.zeros(self.shape, self.dtype),
            "running_var": np.ones(self.shape, self.dtype),
        }

    def axes(self, ndim: int) -> tuple[int, ...]:
        """All axes but that of the channels."""
        return (0, *range(2, ndim))

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(N, C, *spatial) -> same; a key: statistics of this batch; no key: the running ones."""
        x = self.check(x)
        if key is None:
            mean, variance = (
                buffer.reshape(-1, *[1] * (x.ndim - 2)).astype(np.float64) for buffer in self.buffers.values()
            )
            return self._normalize(x, mean, variance, fixed=True)
        is_key("key", key)
        mean, variance = self._moments(x)
        n = x.size // self.shape[0]
        for name, new in (("running_mean", mean), ("running_var", variance * (n / (n - 1)))):
            running = self.buffers[name]
            with np.errstate(over="ignore"):  # σ² beyond float32: ∞, which `Network.finite` finds
                running[...] = (1 - self.momentum) * running + self.momentum * new.reshape(self.shape)
        return self._normalize(x, mean, variance, fixed=False)

    def __repr__(self) -> str:
        return f"BatchNorm({self.shape[0]})"


class GroupNorm(Normalize):
    """Mean and variance of each sample's groups of channels.

    ``x``: (N, C, *spatial), with any number of spatial axes -> same; C is ``channels``, cut into ``groups``
    of neighbours.

    Raises ValueError where ``channels`` is not a multiple of ``groups``.

    Source: Wu and He 2018, ECCV, arXiv:1803.08494.
    """

    def __init__(
        self,
        groups: int,
        channels: int,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__((_checks.positive_int("channels", channels),), eps=eps, affine=affine, dtype=dtype)
        self.groups = _checks.positive_int("groups", groups)
        if channels % groups:
            raise ValueError(f"channels must be a multiple of groups = {groups}, got {channels}")

    def view(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(N, G, C/G, *spatial)."""
        return shape[0], self.groups, shape[1] // self.groups, *shape[2:]

    def axes(self, ndim: int) -> tuple[int, ...]:
        """The channels of a group, and space."""
        return tuple(range(2, ndim))

    def __repr__(self) -> str:
        return f"GroupNorm({self.groups}, {self.shape[0]})"


class InstanceNorm(Normalize):
    """Mean and variance of each channel of each sample.

    ``x``: (N, C, *spatial), at least one spatial axis -> same; C is ``channels``. As in torch it has no
    parameters unless ``affine=True``, and no running statistics.

    Source: Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022.
    """

    def __init__(
        self, channels: int, *, eps: float = 1e-5, affine: bool = False, dtype: DTypeLike = np.float32
    ) -> None:
        super().__init__((_checks.positive_int("channels", channels),), eps=eps, affine=affine, dtype=dtype)

    def axes(self, ndim: int) -> tuple[int, ...]:
        """The spatial axes."""
        return tuple(range(2, ndim))

    def __repr__(self) -> str:
        return f"InstanceNorm({self.shape[0]})"


class LayerNorm(Normalize):
    """Mean and variance of each sample over the trailing axes, of sizes ``shape``.

    ``x``: (*batch, *shape) -> same. γ and β are of ``shape``; one integer stands for one axis.

    Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450.
    """

    def __init__(
        self,
        shape: int | Sequence[int],
        *,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: DTypeLike = np.float32,
    ) -> None:
        sizes = _checks.shape("shape", shape)
        if not sizes:
            raise ValueError("shape must have at least one axis, got ()")
        sizes = tuple(_checks.positive_int(f"shape[{i}]", size) for i, size in enumerate(sizes))
        super().__init__(sizes, eps=eps, affine=affine, dtype=dtype)

    def check(self, x: Any) -> Array:
        """``x`` as (*batch, *shape)."""
        x = floats("x", x, self.dtype)
        if x.shape[-len(self.shape) :] != self.shape:
            raise ValueError(f"x must have shape (*batch, {', '.join(map(str, self.shape))}), got {x.shape}")
        return x

    def axes(self, ndim: int) -> tuple[int, ...]:
        """The axes of ``shape``."""
        return tuple(range(ndim - len(self.shape), ndim))

    def per(self, ndim: int) -> tuple[int, ...]:
        """The axes of ``shape``."""
        return self.axes(ndim)

    def __repr__(self) -> str:
        return f"LayerNorm({self.shape})"


def _mean(x: Array, axes: tuple[int, ...]) -> Array:
    """The mean over ``axes``, which stay with one value, in float64."""
    mean: Array = x.mean(axis=axes, dtype=np.float64, keepdims=True)
    return mean
