"""DropConnect's product with a mask for each sample, of NumPy arrays and torch tensors.

The N masks never exist all at once: the extension makes them inside the products. Without it, or on another
device, they are made for a block of samples at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from thinned import _array, kernels
from thinned.kernels.work import Draw

BLOCK = 1 << 20  # weights in the masks of a block of samples: 1 MiB
FORWARD, BY_X, BY_WEIGHT = 0, 1, 2  # the products, as cpu.cpp numbers them


def masks(draw: Draw, n: int, weight: Any) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Blocks of samples, each with the masks of its weights: (block, out, in) bool."""
    step = max(1, BLOCK // max(1, weight.shape[0] * weight.shape[1]))
    for i in range(0, n, step):
        shape = min(step, n - i), weight.shape[0], weight.shape[1]
        unit = i * shape[1] * shape[2]
        kept = kernels.mask(draw.key, shape[0] * shape[1] * shape[2], draw.limit, draw.start + unit)
        yield slice(i, i + step), kept.reshape(shape)


def forward(x: Any, weight: Any, draw: Draw) -> Any:
    """y_n = scale·(R_n * W) x_n."""
    if (gpu := kernels.on_gpu(x)) is not None:
        return gpu.connect(x, weight, draw)
    if draw.limit == 0 or 0 in (*x.shape, *weight.shape):
        return _array.zeros((len(x), len(weight)), x)
    if _native(x, weight):
        return _product(FORWARD, x, weight, (len(x), *weight.shape), draw)
    y = _array.zeros((len(x), len(weight)), x)
    for n, kept in masks(draw, len(x), weight):
        y[n] = (_array.where(kept, weight, 0.0) @ x[n, :, None])[..., 0]
    return y * draw.scale


def backward(
    grad: Any, x: Any, weight: Any, draw: Draw, needed: tuple[bool, bool] = (True, True)
) -> tuple[Any, Any]:
    """∂L/∂x_n = scale·(R_n * W)ᵀ g_n, and ∂L/∂W = scale·Σ_n R_n * (g_n x_nᵀ); None where not needed."""
    if (gpu := kernels.on_gpu(x)) is not None:
        gradients: tuple[Any, Any] = gpu.connect_gradients(grad, x, weight, draw, needed)
        return gradients
    if draw.limit > 0 and 0 not in grad.shape and _native(grad, x, weight):
        shape = (len(x), *weight.shape)
        return (
            _product(BY_X, grad, weight, shape, draw) if needed[0] else None,
            _product(BY_WEIGHT, grad, x, shape, draw) if needed[1] else None,
        )
    grad_x = _array.zeros(tuple(x.shape), x) if needed[0] else None
    grad_weight = _array.zeros(tuple(weight.shape), weight) if needed[1] else None
    for n, kept in masks(draw, len(x), weight) if draw.limit > 0 and any(needed) else ():
        if grad_x is not None:
            grad_x[n] = draw.scale * (grad[n, None, :] @ _array.where(kept, weight, 0.0))[:, 0]
        if grad_weight is not None:
            grad_weight += draw.scale * _array.where(kept, grad[n, :, None] * x[n, None, :], 0.0).sum(0)
    return grad_x, grad_weight


def _native(*arrays: Any) -> bool:
    """Whether the extension takes them. Callers widen half precision to single."""
    return all(kernels.native(x) and x.dtype.itemsize >= 4 for x in arrays)


def _product(which: int, a: Any, b: Any, shape: tuple[int, int, int], draw: Draw) -> Any:
    """One of the extension's three products, of a and b; ``shape`` is (N, out, in)."""
    n, rows, columns = shape
    one, other = _array.flat(a), _array.flat(b)
    out = kernels.room(((n, rows), (n, columns), (rows, columns))[which], one)
    arrays = (_array.address(one), _array.address(other), _array.address(out))
    cpu = kernels.extension()
    assert cpu is not None
    cpu.connect(
        which,
        kernels.DTYPES[str(one.dtype).removeprefix("torch.")],
        *arrays,
        shape,
        draw.start,
        *draw.key.words,
        draw.limit,
        draw.scale,
        _array.threads(a) or kernels.threads(),
    )
    return out
