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


def masks(draw: Draw, n: int, weight: tuple[int, int]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Blocks of samples, each with the masks of its weights, (out, in): (block, out, in) bool."""
    step = max(1, BLOCK // max(1, weight[0] * weight[1]))
    for i in range(0, n, step):
        shape = min(step, n - i), *weight
        unit = i * shape[1] * shape[2]
        kept = kernels.mask(draw.key, shape[0] * shape[1] * shape[2], draw.limit, draw.start + unit)
        yield slice(i, i + step), kept.reshape(shape)


def forward(x: Any, weight: Any, draw: Draw) -> Any:
    """y_n = scale·(R_n * W) x_n."""
    return product(FORWARD, x, weight, draw)


def backward(
    grad: Any, x: Any, weight: Any, draw: Draw, needed: tuple[bool, bool] = (True, True)
) -> tuple[Any, Any]:
    """∂L/∂x_n = scale·(R_n * W)ᵀ g_n, and ∂L/∂W = scale·Σ_n R_n * (g_n x_nᵀ); None where not needed."""
    return (
        product(BY_X, grad, weight, draw) if needed[0] else None,
        product(BY_WEIGHT, grad, x, draw) if needed[1] else None,
    )


def product(which: int, a: Any, b: Any, draw: Draw) -> Any:
    """A gradient of scale·Σ_n g_nᵀ (R_n * W) x_n: by g of x and W; by x of g and W; by W of g and x."""
    shape = len(a), a.shape[1] if which == BY_WEIGHT else len(b), b.shape[1]  # (N, out, in)
    if draw.limit == 0 or 0 in shape:
        return _array.zeros(_sizes(shape)[which], a)
    if (gpu := kernels.on_gpu(a)) is not None:
        return gpu.connect(which, a, b, shape, draw)
    return (_product if _native(a, b) else _plainly)(which, a, b, shape, draw)


def _sizes(shape: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    """The sizes of the three products."""
    n, rows, columns = shape
    return (n, rows), (n, columns), (rows, columns)


def _plainly(which: int, a: Any, b: Any, shape: tuple[int, int, int], draw: Draw) -> Any:
    """`product` by masks of a block of samples at a time."""
    parts: list[Any] = []  # for gradients by W their sum
    for n, kept in masks(draw, shape[0], shape[1:]):
        if which == FORWARD:
            parts.append((_array.where(kept, b, 0.0) @ a[n, :, None])[..., 0])
        elif which == BY_X:
            parts.append((a[n, None, :] @ _array.where(kept, b, 0.0))[:, 0])
        else:
            part = _array.where(kept, a[n, :, None] * b[n, None, :], 0.0).sum(0)
            parts = [sum(parts, part)]
    return _array.joined(parts) * draw.scale


def _native(*arrays: Any) -> bool:
    """Whether the extension takes them. Callers widen half precision to single."""
    return all(kernels.native(x) and x.dtype.itemsize >= 4 for x in arrays)


def _product(which: int, a: Any, b: Any, shape: tuple[int, int, int], draw: Draw) -> Any:
    """`product` by the extension."""
    one, other = _array.flat(a), _array.flat(b)
    out = kernels.room(_sizes(shape)[which], one)
    arrays = (_array.address(one), _array.address(other), _array.address(out))
    cpu = kernels.extension()
    assert cpu is not None
    cpu.connect(
        which,
        kernels.code(one.dtype),
        *arrays,
        shape,
        draw.start,
        *draw.key.words,
        draw.limit,
        draw.scale,
        _array.threads(a) or kernels.threads(),
    )
    return out
