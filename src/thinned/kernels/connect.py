"""The product with a mask per sample, block by block: never all N masks at once. NumPy and torch alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from thinned import _array, kernels
from thinned.key import Key

BLOCK = 1 << 20  # weights of a block of samples: a few MiB


@dataclass(frozen=True)
class Draw:
    """A mask for each sample: all that is kept for the backward pass."""

    key: Key
    limit: int
    scale: float
    start: int  # the first unit of the first sample

    def masks(self, n: int, weight: Any) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Blocks of samples, and their kept weights: (block, out, in) bool."""
        step = max(1, BLOCK // max(1, weight.shape[0] * weight.shape[1]))
        for i in range(0, n, step):
            shape = min(step, n - i), weight.shape[0], weight.shape[1]
            unit = i * shape[1] * shape[2]
            kept = kernels.mask(self.key, shape[0] * shape[1] * shape[2], self.limit, self.start + unit)
            yield slice(i, i + step), kept.reshape(shape)


def forward(x: Any, weight: Any, draw: Draw) -> Any:
    """y_n = scale·(R_n * W) x_n."""
    y = _array.zeros((len(x), len(weight)), x)
    if draw.limit == 0:
        return y
    for n, kept in draw.masks(len(x), weight):
        y[n] = (_array.where(kept, weight, 0.0) @ x[n, :, None])[..., 0]
    return y * draw.scale


def backward(grad: Any, x: Any, weight: Any, draw: Draw) -> tuple[Any, Any]:
    """∂L/∂x_n = scale·(R_n * W)ᵀ g_n, and ∂L/∂W = scale·Σ_n R_n * (g_n x_nᵀ)."""
    grad_x, grad_weight = _array.zeros(tuple(x.shape), x), _array.zeros(tuple(weight.shape), weight)
    if draw.limit == 0:
        return grad_x, grad_weight
    for n, kept in draw.masks(len(x), weight):
        grad_x[n] = (grad[n, None, :] @ _array.where(kept, weight, 0.0))[:, 0]
        grad_weight += _array.where(kept, grad[n, :, None] * x[n, None, :], 0.0).sum(0)
    return grad_x * draw.scale, grad_weight * draw.scale
