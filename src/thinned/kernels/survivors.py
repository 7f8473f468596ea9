"""The surviving rows and columns of an array: take them, put them back among zeros, step an optimizer.

An array is ``(R, C, *kernel)``, or ``(R,)``. ``rows`` and ``cols`` are ascending int64 indices, or None for
all. A compact array holds the survivors alone: ``(rows, cols, *kernel)``.

Arrays are NumPy's or torch's. The C++ extension works on contiguous ones that have an `_array.address`, in
one pass; without it, and for all others, the same rules run in NumPy's or torch's operations. Steps and
copies are equal bit for bit, `clip` up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinned import _array, kernels
from thinned.kernels import room as room

Indices = NDArray[np.int64]
BLOCK = 1 << 17  # elements: few enough that several blocks stay in cache, enough that calls cost nothing


@dataclass(frozen=True)
class Penalty:
    """The regularisation of a parameter w: the loss gets l1·‖w‖₁ + l2/2·‖w‖²."""

    l1: float = 0.0
    l2: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.l1 or self.l2)

    def value(self, w: NDArray[Any]) -> float:
        """l1·‖w‖₁ + l2/2·‖w‖²."""
        total = 0.0
        for rows in row_blocks(w):
            total += self.l1 * float(np.abs(w[rows]).sum()) if self.l1 else 0.0
            total += self.l2 / 2 * float(np.vdot(w[rows], w[rows])) if self.l2 else 0.0
        return total

    def add_gradient(self, grad: NDArray[Any], w: NDArray[Any]) -> None:
        """grad ← grad + l1·sign w + l2·w, in place."""
        for rows in row_blocks(w) if self else ():
            if self.l1:
                grad[rows] += self.l1 * np.sign(w[rows])
            if self.l2:
                grad[rows] += self.l2 * w[rows]


NONE = Penalty()


def compact_shape(shape: tuple[int, ...], rows: Indices | None, cols: Indices | None) -> tuple[int, ...]:
    """The shape of the survivors of an array."""
    sizes = list(shape)
    for axis, chosen in enumerate((rows, cols)):
        if chosen is not None:
            sizes[axis] = len(chosen)
    return tuple(sizes)


def take(w: Any, rows: Indices | None = None, cols: Indices | None = None, out: Any = None) -> Any:
    """The survivors of w, written to ``out`` where that is given."""
    if _out_of_reach(w):
        compact = select(w, rows, cols)
        return compact if out is None else out.copy_(compact)
    if out is None:
        out = room(compact_shape(tuple(w.shape), rows, cols), w)
    cpu = native((w,), (out,), sizes=(2, 4, 8))
    if cpu is None:
        out[...] = w[_index(rows, cols, w)]
    elif out.shape[0]:
        cpu.take(_array.address(w), _array.address(out), _part(w, rows, cols), w.dtype.itemsize, workers(w))
    return out


def select(w: Any, rows: Any = None, cols: Any = None) -> Any:
    """The survivors of a tensor by torch's own operations: on any device, differentiable, also compiled."""
    for axis, index in enumerate((rows, cols)):
        if index is not None:
            w = w.index_select(axis, _on_device(index, w))
    return w


def place(
    compact: Any,
    rows: Indices | None,
    cols: Indices | None,
    shape: tuple[int, ...],
    out: Any = None,
) -> Any:
    """An array of that shape: the survivors in their places, zeros elsewhere."""
    if _out_of_reach(compact):
        whole = _placed_elsewhere(compact, rows, cols, shape)
        return whole if out is None else out.copy_(whole)
    if out is None:
        out = room(shape, compact)
    cpu = native((compact,), (out,), sizes=(2, 4, 8))
    if cpu is None:
        out[...] = 0.0
        out[_index(rows, cols, out)] = compact
    else:
        cpu.place(
            _array.address(compact),
            _array.address(out),
            _part(out, rows, cols),
            out.dtype.itemsize,
            workers(out),
        )
    return out


def add(whole: Any, compact: Any, rows: Indices | None = None, cols: Indices | None = None) -> None:
    """whole ← whole + compact at the places of the survivors, which alone are touched."""
    if native((compact,), (whole,)) is None:
        whole[_index(rows, cols, whole)] += compact
    else:
        sgd(whole, None, compact, rows, cols, lr=-1.0)  # w − (−1)·g


def sgd(
    w: Any,
    v: Any,
    g: Any,
    rows: Indices | None = None,
    cols: Indices | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    penalty: Penalty = NONE,
) -> None:
    """v ← μ·v + g, w ← w − lr·v, in place; with Nesterov's momentum w ← w − lr·(g + μ·v).

    ``g`` is compact, and 0 elsewhere; the gradient of ``penalty`` is added to it everywhere. ``v`` is None
    where the momentum μ is 0. With no momentum and no penalty only the survivors are touched.
    """
    if (found := reach((g,), (w,) if v is None else (w, v))) is not None:
        cpu, (at_g, at_w, *at_v) = found
        part, rates = _part(w, rows, cols), (penalty.l1, penalty.l2)
        arrays = (at_w, at_v[0] if at_v else 0, at_g)
        cpu.sgd(*arrays, part, w.dtype.itemsize, lr, momentum, nesterov, *rates, workers(w))
        return
    w, v, g = _array.view(w), None if v is None else _array.view(v), _array.view(g)
    if v is None and not penalty:
        w[_index(rows, cols, w)] -= g * lr
        return
    for block, grad in _blocks(w, g, rows, cols, penalty):
        direction = grad
        if v is not None:
            v[block] *= momentum
            v[block] += grad
            direction = v[block] * momentum + grad if nesterov else v[block]
        w[block] -= direction * lr


def adam(
    w: Any,
    m: Any,
    v: Any,
    g: Any,
    rows: Indices | None = None,
    cols: Indices | None = None,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    shrink: float = 0.0,
    penalty: Penalty = NONE,
) -> None:
    """m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², w ← w·(1 − shrink) − lr·m̂/(√v̂ + ε), in place.

    m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ) at ``step`` t = 1, 2, … ``g`` and ``penalty`` as of `sgd`.
    """
    unbias1, unbias2 = 1 - betas[0] ** step, (1 - betas[1] ** step) ** 0.5
    # m̂/(√v̂ + ε) = m/(√v + ε·unbias2)·unbias2/unbias1: the paper's order, section 2
    rate, small = lr * unbias2 / unbias1, eps * unbias2
    if (found := reach((g,), (w, m, v))) is not None:
        cpu, (at_g, *at) = found
        part, rates = _part(w, rows, cols), (penalty.l1, penalty.l2)
        rests = (1 - betas[0], 1 - betas[1])
        cpu.adam(
            *at, at_g, part, w.dtype.itemsize, *betas, *rests, rate, small, 1 - shrink, *rates, workers(w)
        )
        return
    w, m, v, g = map(_array.view, (w, m, v, g))
    for block, grad in _blocks(w, g, rows, cols, penalty):
        m[block] *= betas[0]
        m[block] += grad * (1 - betas[0])
        v[block] *= betas[1]
        v[block] += grad * grad * (1 - betas[1])
        w[block] *= 1 - shrink
        w[block] -= m[block] / (np.sqrt(v[block]) + small) * rate


def clip(w: Any, rows: Indices | None, bound: float) -> None:
    """w ← w·min(1, c/‖w‖) in place, for each row w that survives; norms in double precision."""
    cpu = native((), (w,))
    if cpu is not None:
        cpu.clip(_array.address(w), _part(w, rows, None), w.dtype.itemsize, bound, workers(w))
        return
    w = _array.view(w)
    flat = w.reshape(len(w), math.prod(w.shape[1:]))
    for block in row_blocks(flat):
        chosen = block if rows is None else rows[(block.start <= rows) & (rows < block.stop)]
        some = flat[chosen]
        norm = np.sqrt(np.einsum("ij,ij->i", some, some, dtype=np.float64))
        if (norm > bound).any():
            flat[chosen] = some * (bound / np.maximum(norm, bound))[:, None].astype(w.dtype)


def native(
    read: tuple[Any, ...], written: tuple[Any, ...] = (), sizes: tuple[int, ...] = (4, 8)
) -> ModuleType | None:
    """The extension, where it may touch all arrays, and they are of one dtype, without gaps. Else None."""
    found = reach(read, written, sizes)
    return None if found is None else found[0]


def reach(
    read: tuple[Any, ...], written: tuple[Any, ...] = (), sizes: tuple[int, ...] = (4, 8)
) -> tuple[ModuleType, list[int]] | None:
    """`native`, and the addresses of the arrays."""
    first = (read or written)[0]
    dtype, addresses = first.dtype, []
    for arrays, write in ((read, False), (written, True)):
        for x in arrays:
            if x.dtype != dtype or not (at := _array.flat_address(x, write)):
                return None
            addresses.append(at)
    cpu = kernels.extension()
    known = dtype.itemsize in sizes and _array.is_floating(first)
    return (cpu, addresses) if known and cpu is not None else None


def _out_of_reach(x: Any) -> bool:
    """Whether x is a tensor that has torch's operations alone."""
    return _array.is_torch(x) and not _array.address(x)


def _part(w: Any, rows: Indices | None, cols: Indices | None) -> tuple[int, int, int, int, int, int, int]:
    """(rows, columns, kernel, address and number of the surviving rows, of the columns), for the extension.

    A vector is one row, whose columns survive.
    """
    if len(w.shape) == 1:
        sizes, rows, cols = (1, w.shape[0], 1), None, rows
    else:
        sizes = (w.shape[0], w.shape[1], math.prod(w.shape[2:]))
    which = [
        (0, n) if i is None else (i.ctypes.data, len(i)) for i, n in ((rows, sizes[0]), (cols, sizes[1]))
    ]
    return (*sizes, *which[0], *which[1])


def workers(x: Any) -> int:
    """Threads: torch's for a tensor, ours for an array."""
    return _array.threads(x) or kernels.threads()


def _on_device(index: Any, like: Any) -> Any:
    """An index where ``like`` is; a tensor is there already."""
    return index if _array.is_torch(index) else _array.to_like(index, like)


def _placed_elsewhere(compact: Any, rows: Any, cols: Any, shape: tuple[int, ...]) -> Any:
    """`place`, by torch's own operations."""
    for axis, index in ((1, cols), (0, rows)):
        if index is not None:
            sizes = (*compact.shape[:axis], shape[axis], *compact.shape[axis + 1 :])
            compact = compact.new_zeros(sizes).index_copy_(axis, _on_device(index, compact), compact)
    return compact


def _index(rows: Indices | None, cols: Indices | None, like: Any) -> Any:
    """The index that picks rows × cols out of an array."""
    r, c = (None if i is None else _on_device(i, like) for i in (rows, cols))
    if c is None:
        return slice(None) if r is None else r
    return (slice(None), c) if r is None else (r[:, None], c)


def row_blocks(w: NDArray[Any]) -> Iterator[slice]:
    """Slices of rows: a chain of cheap operations runs on one block after the other, in cache."""
    step = max(1, BLOCK * len(w) // max(1, w.size))
    return (slice(i, min(i + step, len(w))) for i in range(0, len(w), step))


def _blocks(
    w: NDArray[Any], g: NDArray[Any], rows: Indices | None, cols: Indices | None, penalty: Penalty
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Blocks of rows and their whole gradients, with the penalty's: a chain of cheap operations in cache."""
    dense = rows is None and cols is None
    for block in row_blocks(w):
        grad = g[block] if dense else np.zeros_like(w[block])
        if not dense:
            low, high = (
                (block.start, block.stop)
                if rows is None
                else np.searchsorted(rows, [block.start, block.stop])
            )
            inside = None if rows is None else rows[low:high] - block.start
            grad[_index(inside, cols, w)] = g[low:high]
        elif penalty:
            grad = grad.copy()
        penalty.add_gradient(grad, w[block])
        yield block, grad
