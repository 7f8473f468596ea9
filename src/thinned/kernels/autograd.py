"""The kernels as differentiable torch functions. Imported only when a caller brings a tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from thinned import _array, kernels
from thinned.kernels import connect, maps
from thinned.kernels.work import Draw, Map, Rule, Select, Words

CODES = {(dtype := getattr(torch, name)): (code, dtype.itemsize) for name, code in kernels.DTYPES.items()}
_transforming = torch._C._are_functorch_transforms_active
_place = _array.Torch().place


def apply(x: Tensor, how: Map, words: Words) -> Tensor:
    """The map of a tensor, recorded for the backward pass where the tensor needs one."""
    if _transforming():
        y: Tensor = Transformed.apply(x, how, words)
        return y
    if not (x.requires_grad and torch.is_grad_enabled()):
        return select(x, how, words)
    out: Tensor = _mapped(x, how, words)
    return out


def apply_(x: Tensor, how: Map, words: Words) -> Tensor:
    """The map written into x: directly, or by a copy where torch restricts writing in place."""
    recorded = x.requires_grad and torch.is_grad_enabled()
    if x._is_view() or x.is_inference() or (recorded and x.is_leaf) or _transforming():
        return x.copy_(apply(x, how, words))
    if recorded:
        out: Tensor = Written.apply(x, how, words)
        return out
    torch.autograd.graph.increment_version(x)
    return select(x, how, words, x)


def select(x: Tensor, how: Map, words: Words, out: Tensor | None = None) -> Tensor:
    """The map of a tensor by the kernel of its device: a new tensor, or ``out``, which then is x."""
    code, size = CODES.get(x.dtype, (None, 1))
    pointer, n, flat = _place(x, size)
    cpu, kind = kernels.extension(), type(how)
    if not pointer or code is None or cpu is None or kind is Rule:
        y = _plainly(x.detach(), how, words)
        return y if out is None else out.copy_(y)
    if out is None:
        out = torch.empty_like(x) if n * size < kernels.POOLED else _pooled_like(x)
    where: Any = n if flat else (x.shape, x.stride(), out.stride())
    threads = 1 if n < kernels.ALONE else -torch.get_num_threads()
    kernel = cpu.drop if kind is Select else cpu.noise
    kernel(code, pointer, out.data_ptr(), where, threads, *words, *how)
    return out


def _plainly(x: Tensor, how: Map, words: Words) -> Tensor:
    """The map of a tensor by a kernel of its GPU, or by torch's operations."""
    if x.layout not in (torch.strided, torch.jagged):
        raise TypeError(f"x must be a dense tensor, got layout {x.layout}")
    gpu = kernels.on_gpu(x)
    y: Tensor = (gpu.apply if gpu and gpu.takes(how) else maps.plainly)(x, how, words)
    return y


def _pooled_like(x: Tensor) -> Tensor:
    """`torch.empty_like`, in memory that was used before."""
    strides = x.stride() if x.is_contiguous() else torch.empty_like(x, device="meta").stride()
    return torch.frombuffer(kernels.buffer(x.nbytes), dtype=x.dtype).as_strided_(x.shape, strides)


class Mapped(torch.autograd.Function):
    """A map and its gradient, by the same factors. It keeps only the key, and makes the factors again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, how: Map, words: Words) -> Tensor:
        """The map of x."""
        ctx.how, ctx.words = how, words
        return select(x, how, words)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """∂L/∂x = f∘∂L/∂y, itself differentiable."""
        return apply(grad, ctx.how.gradient(), ctx.words), None, None


# `Mapped.apply` without the support for torch.func, which costs more than the kernel of a small array.
_mapped = super(torch.autograd.Function, Mapped).apply


class Written(Mapped):
    """`Mapped`, in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, how: Map, words: Words) -> Tensor:
        """The map of x, in x."""
        ctx.how, ctx.words = how, words
        ctx.mark_dirty(x)
        return select(x, how, words, x)


class Transformed(torch.autograd.Function):
    """`Mapped` in the form that torch.func needs, with which a small dropout takes 1.5 times as long."""

    @staticmethod
    def forward(x: Tensor, how: Map, words: Words) -> Tensor:
        """The map of x."""
        return select(x, how, words)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Map, Words], output: Any) -> None:
        """Keep the map and the key."""
        _, ctx.how, ctx.words = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """∂L/∂x = f∘∂L/∂y, itself differentiable."""
        return Transformed.apply(grad, ctx.how.gradient(), ctx.words), None, None


class Connect(torch.autograd.Function):
    """The product with a mask for each sample. It keeps x, W and the key."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, draw: Draw) -> Tensor:
        """y_n = scale·(R_n * W) x_n."""
        ctx.save_for_backward(x, weight)
        ctx.draw = draw
        with torch.autocast(x.device.type, enabled=False):
            return connect.forward(x, weight, draw)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, Any, None]:
        """∂L/∂x and ∂L/∂W, by the same masks."""
        with torch.autocast(grad.device.type, enabled=False):
            x, weight = ctx.saved_tensors
            return *connect.backward(grad, x, weight, ctx.draw, ctx.needs_input_grad[:2]), None
