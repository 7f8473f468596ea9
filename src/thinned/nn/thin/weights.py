"""The survivors' part of a parameter, and its gradient, which stays compact until somebody looks at it."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from thinned.kernels import survivors
from thinned.kernels.survivors import Indices

SMALL = 1 << 18  # bytes: below it torch's own allocation costs nothing
KEPT = 4  # free blocks of one size
SIZES = 64
ALIGN = 64  # bytes: a cache line, and the widest vector

Block = NDArray[np.uint8]


class Pool:
    """Blocks of the CPU's memory that are lent again once every tensor in them has died.

    A fresh block of 12 MB costs more in page faults than filling it does. A block is free when the array that
    torch holds for its storage has died: no tensor, view or saved gradient can see it any more.
    """

    def __init__(self) -> None:
        self.free: dict[int, deque[Block]] = {}

    def __reduce__(self) -> tuple:
        return Pool, ()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Room of that shape, of which nothing is known."""
        size = math.prod(shape) * dtype.itemsize
        if device.type != "cpu" or size < SMALL:
            return torch.empty(shape, dtype=dtype, device=device)
        free = self.free.get(size)
        if free is None:
            if len(self.free) == SIZES:  # rates that change step by step
                self.free.clear()
            free = self.free[size] = deque(maxlen=KEPT)
        try:
            block = free.pop()
        except IndexError:
            block = _aligned(size)
        lent = block[:]
        weakref.finalize(lent, free.append, block).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)


def _aligned(size: int) -> Block:
    raw = np.empty(size + ALIGN, np.uint8)
    begin = -raw.ctypes.data % ALIGN
    return raw[begin : begin + size]


class Units:
    """The survivors among the n units of a layer, in one pass: ascending indices, on the CPU.

    ``scale`` is the factor that their readers put to them, ``pool`` the memory for their weights.
    """

    def __init__(self, index: Tensor, n: int, scale: float, pool: Pool) -> None:
        self.index, self.n, self.scale, self.pool = index, n, scale, pool
        self._there = index

    def on(self, device: torch.device) -> Tensor:
        """The indices on a device."""
        if self._there.device != device:
            self._there = self.index.to(device, non_blocking=True)
        return self._there


Chosen = Units | None  # None: all


def take(weight: Tensor, rows: Chosen = None, cols: Chosen = None) -> Tensor:
    """The rows and columns of a parameter that survive, differentiable; (R, C, *) -> (rows, cols, *)."""
    if rows is None and cols is None:
        return weight
    if torch.compiler.is_compiling():
        return _traced(weight, rows, cols)
    out: Tensor = Take.apply(weight, Place(weight, rows, cols))
    return out


Groups = Sequence[tuple[Chosen, ...]]  # the rows and the columns of each group of samples


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, groups: Groups) -> Tensor:
    """s·X Wᵀ + b with the survivors of W and b, differentiable; s is the factor of those that are read.

    Of several groups, x is (N, C), and sample i has the survivors of group i mod their number.
    """
    rows, cols = groups[0]
    scale = cols.scale if cols else 1.0
    if torch.compiler.is_compiling():
        part = None if bias is None else take(bias, rows)
        return nn.functional.linear(x * scale, _traced(weight, rows, cols), part)
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    places = [Place(weight, *each) for each in groups]
    of_bias = None if bias is None or rows is None else [Place(bias, each, None) for each, _ in groups]
    flat = x.reshape(-1, x.shape[-1])
    if not torch.is_grad_enabled():
        out = _products(flat, weight, bias, places, of_bias, scale, again=True)[0]
    else:
        out = Linear.apply(flat, weight, bias, places, of_bias, scale)
    return out.view(*x.shape[:-1], out.shape[-1])


def _products(
    x: Tensor, weight: Tensor, bias: Tensor | None, places: list[Place], of_bias: list[Place] | None,
    scale: float, again: bool = False,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """s·X Wᵀ + b, and the parts of W; ``again``: in memory that is used again, since nobody saves it."""
    parts = [place.out_of(weight).to(x.dtype) for place in places]
    shape = (len(x), len(parts[0]))
    out = places[0].room(shape, x) if again else x.new_empty(shape)
    for g, part in enumerate(parts):
        mine = slice(g, None, len(parts))
        if bias is None:
            _product(x[mine], part.T, scale, out[mine])
        else:
            b = of_bias[g].out_of(bias) if of_bias else bias
            torch.addmm(b.to(x.dtype), x[mine], part.T, alpha=scale, out=out[mine])
    return out, parts


def _traced(weight: Tensor, rows: Chosen, cols: Chosen) -> Tensor:
    """As torch.compile takes it: in operators that it knows."""
    if rows is not None:
        weight = weight.index_select(0, rows.on(weight.device))
    if cols is not None:
        runs = weight if weight.shape[1] == cols.n else weight.unflatten(1, (cols.n, -1))
        weight = runs.index_select(1, cols.on(weight.device)).reshape(len(weight), -1, *weight.shape[2:])
    return weight


class Place:
    """Where in a parameter a part is: rows and columns; of a flattened map a column is a run of several."""

    def __init__(self, weight: Tensor, rows: Chosen, cols: Chosen) -> None:
        self.rows, self.cols = rows, cols
        # its gradient may stay compact: the optimizer says so
        self.compact_gradient = weight.is_leaf and getattr(weight, COMPACT, False)
        self.whole = weight.shape
        runs = cols is not None and cols.n != weight.shape[1]
        self.shape = tuple(weight.shape)
        if runs and cols:
            self.shape = (len(weight), cols.n, weight.shape[1] // cols.n)
        self.sizes = survivors.compact_shape(self.shape, *self.arrays)  # of the part
        self.compact = (self.sizes[0], math.prod(self.sizes[1:])) if runs else self.sizes

    @property
    def arrays(self) -> tuple[Indices | None, Indices | None]:
        """The indices of the rows and of the columns, as the kernels take them."""
        rows, cols = (None if each is None else each.index.numpy() for each in (self.rows, self.cols))
        return rows, cols

    def room(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Memory of that shape, in the dtype and on the device of ``like``."""
        owner = self.rows or self.cols
        assert owner is not None
        return owner.pool.empty(shape, like.dtype, like.device)

    def out_of(self, weight: Tensor) -> Tensor:
        """The part of a tensor of the parameter's shape."""
        whole = weight.detach().reshape(self.shape)
        if whole.device.type == "cpu":
            return survivors.take(whole, *self.arrays, out=self.room(self.sizes, whole)).view(self.compact)
        for axis, chosen in enumerate((self.rows, self.cols)):
            if chosen is not None:
                whole = whole.index_select(axis, chosen.on(whole.device))
        return whole.view(self.compact)

    def among_zeros(self, part: Tensor) -> Tensor:
        """A tensor of the parameter's shape: the part in its place, zeros elsewhere."""
        part = part.detach().reshape(self.sizes)
        if part.device.type == "cpu":
            room = self.room(self.shape, part)
            return survivors.place(part.contiguous(), *self.arrays, self.shape, out=room).view(self.whole)
        for axis, chosen in ((1, self.cols), (0, self.rows)):
            if chosen is not None:
                sizes = (*part.shape[:axis], self.shape[axis], *part.shape[axis + 1 :])
                part = part.new_zeros(sizes).index_copy_(axis, chosen.on(part.device), part)
        return part.view(self.whole)

    def add(self, part: Tensor, whole: Tensor) -> None:
        """Add a part to a tensor of the parameter's shape."""
        survivors.add(whole.view(self.shape), part.reshape(self.sizes).contiguous(), *self.arrays)

    def gradient(self, part: Tensor) -> Tensor:
        """The gradient of the parameter, from that of the part."""
        return CompactGradient(part, self) if self.compact_gradient else self.among_zeros(part)


class Take(torch.autograd.Function):
    """A parameter's part. The gradient is `Among`, whose gradient is this."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, place: Place) -> Tensor:
        """The part."""
        ctx.place = place
        return place.out_of(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The part's gradient in its place."""
        return (Among.apply(grad, ctx.place) if torch.is_grad_enabled() else ctx.place.gradient(grad)), None


class Among(torch.autograd.Function):
    """A part in its place among zeros, where the gradient itself is differentiated."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, place: Place) -> Tensor:
        """The whole."""
        ctx.place = place
        return place.among_zeros(part)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The part of the whole's gradient."""
        return Take.apply(grad, ctx.place), None


class Linear(torch.autograd.Function):
    """Y = s·X Wᵀ + b with parts of W and b: the products with `Take`, in memory that is used again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        places: list[Place],
        of_bias: list[Place] | None,
        scale: float,
    ) -> Tensor:
        """Y."""
        out, parts = _products(x, weight, bias, places, of_bias, scale)
        ctx.save_for_backward(x, weight, *parts)
        ctx.places, ctx.of_bias, ctx.scale = places, of_bias, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """∂L/∂X = s·G W, ∂L/∂W = s·Gᵀ X, ∂L/∂b = Σ G, the latter two in their places; of each group."""
        x, weight, *parts = ctx.saved_tensors
        places, of_bias, scale, groups = ctx.places, ctx.of_bias, ctx.scale, len(parts)
        needed, again = ctx.needs_input_grad, torch.is_grad_enabled()
        of_x = of_weight = of_b = None
        if needed[0] and again:
            parts = [Take.apply(weight, place).to(x.dtype) for place in places]
            of_x = interleaved([_product(grad[g::groups], w, scale) for g, w in enumerate(parts)], len(x))
        elif needed[0]:
            of_x = torch.empty_like(x, memory_format=torch.contiguous_format)
            for g, w in enumerate(parts):
                _product(grad[g::groups], w, scale, of_x[g::groups])
        if needed[1]:

            def correlated(g: int) -> Tensor:
                room = None if again else places[g].room(places[g].compact, x)
                return _product(grad[g::groups].T, x[g::groups], scale, room).to(weight.dtype)

            of_weight = _placed(correlated, places)
        if needed[2]:
            dtype = torch.promote_types(weight.dtype, grad.dtype)

            def summed(g: int, step: int = groups) -> Tensor:
                return grad[g::step].sum(0, dtype=dtype).to(weight.dtype)

            of_b = _placed(summed, of_bias) if of_bias else summed(0, 1)
        return of_x, of_weight, of_b, None, None, None


def _placed(gradient: Callable[[int], Tensor], places: list[Place]) -> Tensor:
    """The gradient of a parameter, from those of its parts, one of each group; differentiable if that is."""
    if torch.is_grad_enabled():
        whole: Tensor = sum(Among.apply(gradient(g), place) for g, place in enumerate(places))
        return whole
    if len(places) == 1:
        return places[0].gradient(gradient(0))
    whole = places[0].among_zeros(gradient(0))
    for g, place in enumerate(places[1:], 1):
        place.add(gradient(g), whole)
    return whole


def interleaved(parts: list[Tensor], n: int) -> Tensor:
    """The rows of all groups in the order of the n samples, differentiable."""
    if len(parts) == 1:
        return parts[0]
    samples = torch.arange(n, device=parts[0].device)
    order = torch.cat([samples[g :: len(parts)] for g in range(len(parts))])
    return torch.cat(parts).index_select(0, order.argsort())


def _product(a: Tensor, b: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """s·A B, the factor inside the product's own pass."""
    if out is None and scale == 1.0:
        return a @ b
    room = a.new_empty(()) if out is None else out  # of which β = 0 reads nothing
    return torch.addmm(room, a, b, beta=0, alpha=scale, out=out)


COMPACT = "compact_gradient"  # a parameter that has it gets its gradient as a `CompactGradient`


class CompactGradient(torch.Tensor):
    """A gradient that is zero outside a part, which alone is stored until something else is asked.

    `thinned.nn.SGD` reads ``compact``. To everything else this is the dense tensor: the first operation on
    it makes that, and from then on it is only that.
    """

    _held: _Held

    @staticmethod
    def __new__(cls, part: Tensor, place: Place, held: _Held | None = None) -> CompactGradient:
        """A tensor of the parameter's shape without memory of its own."""
        self = torch.Tensor._make_wrapper_subclass(cls, place.whole, dtype=part.dtype, device=part.device)
        self._held = held or _Held(part, place)
        return self

    def __init__(self, *_: Any) -> None:
        super().__init__()

    @property
    def compact(self) -> tuple[Tensor, Place] | None:
        """The part and its place; None where the gradient has become dense."""
        held = self._held
        return None if held.whole is not None else (held.part, held.place)

    def dense(self) -> Tensor:
        """The gradient as a plain tensor."""
        return self._held.dense()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.dense().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.dense().clone()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return repr(self.dense())

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The operation on the dense tensor; one in place returns what it was called on."""
        if func is torch.ops.aten.detach.default:
            held = args[0]._held
            return CompactGradient(held.part, held.place, held)
        wrappers: dict[int, CompactGradient] = {}

        def dense(gradient: CompactGradient) -> Tensor:
            whole = gradient.dense()
            wrappers[id(whole)] = gradient
            return whole

        args, kwargs = tree_map_only(CompactGradient, dense, (args, kwargs or {}))
        out = func(*args, **kwargs)
        return tree_map_only(Tensor, lambda t: wrappers.get(id(t), t), out)


class _Held:
    """What a gradient and those detached from it share: the part, and the whole once it is made."""

    def __init__(self, part: Tensor, place: Place) -> None:
        self.part, self.place = part, place
        self.whole: Tensor | None = None

    def dense(self) -> Tensor:
        """The whole, made at the first call."""
        if self.whole is None:
            self.whole = self.place.among_zeros(self.part)
            self.part = self.part.new_empty(0)
        return self.whole
