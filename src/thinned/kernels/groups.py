"""Linear layers whose rows keep units of their own, group by group: the product and its gradients.

Row i of a batch belongs to group (first + i) mod g. A `Picks` says which units each group keeps. A compact
array (rows, width) has the units of a row's group side by side, ascending; columns that a group does not fill
hold zeros. Only kept units are computed.

Arrays are NumPy's or torch's. The C++ extension works on contiguous float32 and float64 in the CPU's memory;
all else runs group by group in NumPy's or torch's own products. Both give the same to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinned import _array, kernels
from thinned.kernels import survivors


@dataclass(frozen=True, eq=False)
class Picks:
    """Which of n units each group of rows keeps; P panels of units, each kept or dropped as a whole."""

    n: int
    panel: int  # units in a panel; the last panel may be smaller
    order: NDArray[np.int64]  # (n,) units; panel r is order[r·panel : (r + 1)·panel]
    kept: NDArray[np.bool_]  # (groups, P)

    @property
    def groups(self) -> int:
        """How many groups there are. Row i of the whole batch belongs to group i mod groups."""
        return len(self.kept)

    @cached_property
    def units(self) -> NDArray[np.bool_]:
        """(groups, n): True = kept."""
        panel_of = np.empty(self.n, np.int64)
        panel_of[self.order] = np.arange(self.n) // self.panel
        return np.take(self.kept, panel_of, axis=1)

    @cached_property
    def survivors(self) -> list[NDArray[np.int64]]:
        """The units that each group keeps, ascending."""
        return [np.flatnonzero(kept) for kept in self.units]

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(groups,): how many units each group keeps."""
        counts: NDArray[np.int64] = self.panel * self.kept.sum(axis=1, dtype=np.int64)
        if self.n:
            counts -= self.kept[:, -1] * (-self.n % self.panel)  # the last panel may be smaller
        return counts

    @property
    def width(self) -> int:
        """The columns of a compact array: as many as the largest group keeps, and at least one."""
        return int(self.counts.max(initial=min(self.n, 1)))

    @cached_property
    def columns(self) -> NDArray[np.int32]:
        """(groups, width): the unit of each column of a compact array; n where a group has no more."""
        index = np.full((self.groups, self.width), self.n, np.int32)
        index[np.arange(self.width) < self.counts[:, None]] = np.nonzero(self.units)[1]
        return index

    def rolled(self, first: int) -> Picks:
        """The picks of a batch whose row 0 is row ``first`` of the whole batch."""
        if first % self.groups == 0:
            return self
        return Picks(self.n, self.panel, self.order, np.roll(self.kept, -first % self.groups, axis=0))

    def of_rows(self, groups: NDArray[np.int64]) -> Picks:
        """The picks of a batch whose rows belong to these groups, as many groups as rows."""
        return Picks(self.n, self.panel, self.order, self.kept[groups])

    def over(self, groups: int) -> Picks:
        """The same for a multiple of the groups."""
        return Picks(self.n, self.panel, self.order, np.tile(self.kept, (groups // self.groups, 1)))

    def repeated(self, run: int) -> Picks:
        """The same for runs of neighbours: unit u is now the units run·u … run·u + run − 1."""
        order = (self.order[:, None] * run + np.arange(run)).reshape(-1)
        return Picks(self.n * run, self.panel * run, order, self.kept)

    @cached_property
    def native(self) -> Any:
        """The same for the extension."""
        cpu, width = kernels.extension(), self.width
        assert cpu is not None
        order, kept = np.ascontiguousarray(self.order), np.ascontiguousarray(self.kept)
        return cpu.Kept(self.n, self.panel, self.groups, width, kernels.address(order), kernels.address(kept))

    def __reduce__(self) -> Any:
        return Picks, (self.n, self.panel, self.order, self.kept)


@dataclass(frozen=True)
class Rows:
    """The groups of a batch's rows: row i belongs to group (first + i) mod n."""

    n: int
    first: int = 0

    def slices(self) -> list[slice]:
        """The rows of each group."""
        return [slice((g - self.first) % self.n, None, self.n) for g in range(self.n)]


def product(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    out_units: Picks | None = None,
    in_units: Picks | None = None,
    rows: Rows,
    scale: float = 1.0,
) -> Any:
    """scale·X Wᵀ + b of the kept units: (rows, width of in) -> (rows, width of out).

    ``weight`` is (out, in), ``bias`` (out,) or None. A side without picks has all units.
    """
    return _multiply(x, weight, bias, out_units, in_units, rows, scale, transposed=False)


def gradient_of_input(
    grad: Any,
    weight: Any,
    *,
    out_units: Picks | None = None,
    in_units: Picks | None = None,
    rows: Rows,
    scale: float = 1.0,
) -> Any:
    """∂L/∂X = scale·G W: (rows, width of out) -> (rows, width of in)."""
    return _multiply(grad, weight, None, in_units, out_units, rows, scale, transposed=True)


def gradient_of_weight(
    grad: Any,
    x: Any,
    shape: tuple[int, int],
    *,
    out_units: Picks | None = None,
    in_units: Picks | None = None,
    rows: Rows,
    scale: float = 1.0,
    out: Any = None,
) -> Any:
    """∂L/∂W = scale·Gᵀ X, (out, in): each entry over the rows whose group keeps both units, 0 without one.

    Written to ``out`` where that is given.
    """
    out = survivors.room(shape, x) if out is None else out
    if (found := _reach(grad, x, out)) is None:
        grad, x = _array.flat(grad), _array.flat(x)
        found = _reach(grad, x, out)
    if found is None:
        out[...] = 0.0
        for g, some in enumerate(rows.slices()):
            part = grad[some, : _count(out_units, g)].T @ x[some, : _count(in_units, g)] * scale
            survivors.add(out, part, _kept(out_units, g), _kept(in_units, g))
        return out
    cpu, (at_grad, at_x, at_out) = found
    sides = _side(in_units), _side(out_units)
    arrays = at_grad, at_x, shape, *sides, scale, at_out
    cpu.correlate(kernels.code(x.dtype), _groups(x, rows), *arrays, survivors.workers(x))
    return out


def gradient_of_bias(grad: Any, n: int, *, out_units: Picks | None = None, rows: Rows) -> Any:
    """∂L/∂b, (n,): the sums of G over the rows whose group keeps the unit."""
    if out_units is None:
        return grad.sum(0)
    grad = _array.flat(grad)
    out = survivors.room((n,), grad)
    if (found := _reach(grad, out)) is not None:
        cpu, (at_grad, at_out) = found
        cpu.sums(kernels.code(grad.dtype), _groups(grad, rows), at_grad, n, _side(out_units), at_out)
        return out
    out[...] = 0.0
    for g, some in enumerate(rows.slices()):
        survivors.add(out, grad[some, : _count(out_units, g)].sum(0), _kept(out_units, g))
    return out


def _multiply(
    x: Any,
    weight: Any,
    bias: Any,
    out_units: Picks | None,
    in_units: Picks | None,
    rows: Rows,
    scale: float,
    transposed: bool,
) -> Any:
    """scale·X Wᵀ + b, or scale·X W where ``transposed``, of the units on both sides."""
    n_in, n_out = weight.shape if transposed else weight.shape[::-1]
    out = survivors.room((x.shape[0], n_out if out_units is None else out_units.width), x)
    others = (weight, out) if bias is None else (weight, out, bias)
    if (found := _reach(x, *others)) is None:
        x = _array.flat(x)
        found = _reach(x, *others)
    if found is None:
        return _by_group(x, weight.T if transposed else weight, bias, out_units, in_units, rows, scale, out)
    cpu, (at_x, at_weight, at_out, *at_bias) = found
    layer = at_weight, (n_out, n_in), transposed, at_bias[0] if at_bias else 0
    sides = _side(in_units), _side(out_units)
    cpu.product(
        kernels.code(x.dtype), _groups(x, rows), at_x, *layer, *sides, scale, at_out, survivors.workers(x)
    )
    return out


def _by_group(
    x: Any,
    weight: Any,
    bias: Any,
    out_units: Picks | None,
    in_units: Picks | None,
    rows: Rows,
    scale: float,
    out: Any,
) -> Any:
    """`_multiply`, group by group."""
    for g, some in enumerate(rows.slices()):
        units, n = _kept(out_units, g), out.shape[1] if out_units is None else _count(out_units, g)
        part = survivors.take(weight, units, _kept(in_units, g))
        y = x[some, : _count(in_units, g)] @ part.T * scale
        out[some, :n] = y if bias is None else y + survivors.take(bias, units)
        out[some, n:] = 0.0
    return out


def _kept(units: Picks | None, group: int) -> survivors.Indices | None:
    return None if units is None else units.survivors[group]


def _count(units: Picks | None, group: int) -> int | None:
    return None if units is None else int(units.counts[group])


def _side(units: Picks | None) -> Any:
    """The units of one side, as the extension takes them."""
    return None if units is None else units.native


def _groups(x: Any, rows: Rows) -> tuple[int, int, int]:
    return x.shape[0], rows.n, rows.first % rows.n


def _reach(*arrays: Any) -> tuple[ModuleType, list[int]] | None:
    """The extension, where it takes these arrays and is as fast as a library's products: with AVX2."""
    return survivors.reach(arrays) if _fast() else None


@cache
def _fast() -> bool:
    """Whether the processor has AVX2."""
    cpu = kernels.extension()
    return cpu is not None and "avx2" in cpu.levels()
