"""The layers of a chain that have weights, for the units that each group of rows keeps.

There are two ways. For `linear` in the CPU's memory, in single or double precision, `thinned.kernels.groups`
computes all groups in one go. For all else (`convolution`, compiled graphs, `torch.func`, gradients of
gradients) torch's own operations compute one group after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from thinned import _array, kernels
from thinned.kernels import autograd, survivors
from thinned.kernels import groups as kernel
from thinned.kernels.groups import Picks, Rows
from thinned.nn.thin.compact_gradient import CompactGradient, is_wanted
from thinned.nn.thin.selection import Selection, Units

Chosen = Units | None  # None: all units
Convolve = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # x, weight, bias -> y


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, out_units: Chosen, in_units: Chosen) -> Tensor:
    """s·X Wᵀ + b of the kept units, differentiable; s is the scale of the units that are read.

    (*, width of the read units) -> (*, width of the computed ones); all leading axes together are the rows.
    """
    if in_units is not None:
        in_units = in_units.repeated(weight.shape[1] // in_units.n)
    out_units, in_units = together(out_units, in_units)
    if torch.is_autocast_enabled(x.device.type) and not torch.compiler.is_compiling():
        x = x.to(torch.get_autocast_dtype(x.device.type))
    flat = x.reshape(-1, x.shape[-1])
    if native(flat, weight, bias, out_units, in_units):
        out = GroupLinear.apply(flat, weight, bias, out_units, in_units)
    else:
        out = by_group(torch.nn.functional.linear, flat, weight, bias, out_units, in_units)
    return out.view(*x.shape[:-1], out.shape[-1])


def convolution(
    call: Convolve, x: Tensor, weight: Tensor, bias: Tensor | None, out_units: Chosen, in_units: Chosen
) -> Tensor:
    """``call(x, weight, bias)`` of the kept units, differentiable; samples are the rows."""
    return by_group(call, x, weight, bias, *together(out_units, in_units))


def together(*units: Chosen) -> list[Chosen]:
    """The units on both sides, by the same groups. Of two numbers of groups, one divides the other."""
    most = max(1 if each is None else each.groups for each in units)
    return [None if each is None else each.over(most) for each in units]


def native(x: Tensor, weight: Tensor, bias: Tensor | None, *units: Chosen) -> bool:
    """Whether the kernels take these tensors. They do not take tangents and batches of calls."""
    if torch.compiler.is_compiling() or any(each is not None and each.picks is None for each in units):
        return False
    tensors = (x, weight) if bias is None else (x, weight, bias)
    if (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    ):
        return False
    return x.itemsize >= 4 and all(each.dtype == x.dtype and kernels.native(each) for each in tensors)


def by_group(
    call: Convolve, x: Tensor, weight: Tensor, bias: Tensor | None, out_units: Chosen, in_units: Chosen
) -> Tensor:
    """``call`` of each group's rows and its part of the weight, in torch's own operations."""
    groups = max(1 if each is None else each.groups for each in (out_units, in_units))
    spatial = [1] * (weight.dim() - 2)
    parts = []
    for g, part in enumerate(of_groups(x, groups)):
        w, b = weight, bias
        if out_units is not None:
            index, valid = (each[g].to(x.device) for each in (out_units.index, out_units.valid))
            w, b = w.index_select(0, index), None if b is None else b.index_select(0, index)
        if in_units is not None:
            read, there = (each[g].to(x.device) for each in (in_units.index, in_units.valid))
            w = w.index_select(1, read)
            if in_units.full:
                w = w * in_units.scale
            else:
                part = torch.where(there.view(-1, *spatial), part * in_units.scale, 0.0)
        y = call(part, w, b)
        every = out_units is None or out_units.full
        parts.append(y if every else torch.where(valid.view(-1, *spatial), y, 0.0))
    return interleaved(parts, len(x))


def of_groups(x: Tensor, groups: int) -> tuple[Tensor, ...]:
    """The rows of each group, differentiable: row i belongs to group i mod ``groups``."""
    if torch.compiler.is_compiling() or len(x) % groups or not len(x):
        return tuple(x[g::groups] for g in range(groups))
    return x.unflatten(0, (-1, groups)).unbind(1)  # whose gradient is one copy


def interleaved(parts: list[Tensor], n: int) -> Tensor:
    """The rows of all groups in the order of the n rows, differentiable."""
    if len(parts) == 1:
        return parts[0]
    whole = not torch.compiler.is_compiling() and n > 0 and n % len(parts) == 0
    if whole and parts[0].is_contiguous():
        return torch.stack(parts, 1).flatten(0, 1)
    rows = torch.arange(n, device=parts[0].device)
    order = torch.cat([rows[g :: len(parts)] for g in range(len(parts))])
    return torch.cat(parts).index_select(0, order.argsort())


@autograd.opaque
class GroupLinear(torch.autograd.Function):
    """Y = s·X Wᵀ + b of the kept units, by the kernels."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, out_units: Chosen, in_units: Chosen
    ) -> Tensor:
        """Y (rows, width), and keep what the backward pass needs."""
        ctx.save_for_backward(x, weight, bias)
        ctx.units = out_units, in_units
        ctx.compact = is_wanted(weight), bias is not None and is_wanted(bias)
        contiguous = (each if each is None else each.contiguous() for each in (weight, bias))
        y: Tensor = kernel.product(x, *contiguous, **_how(out_units, in_units))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """∂L/∂X = s·G W, ∂L/∂W = s·Gᵀ X, ∂L/∂b = Σ G, of the kept units; zeros elsewhere."""
        x, weight, bias = ctx.saved_tensors
        out_units, in_units = ctx.units
        wanted = ctx.needs_input_grad[:3]
        batched = grad.is_cpu and grad.numel() > 0 and not _array.address(grad)  # by ``is_grads_batched``
        if torch.is_grad_enabled() or batched:
            return *_differentiable(grad, (x, weight, bias), wanted, out_units, in_units), None, None
        how = _how(out_units, in_units)
        by_engine = isinstance(ctx, torch.autograd.function.BackwardCFunction)  # not by compiled autograd
        compact = ctx.compact if by_engine else (False, False)
        of_x = of_weight = of_bias = None
        if wanted[0]:
            of_x = kernel.gradient_of_input(grad, weight.contiguous(), **how)
        if wanted[1]:
            of_weight = _gradient_of_weight(grad, x, weight, out_units, in_units, compact[0])
        if wanted[2]:
            of_bias = _gradient_of_bias(grad, bias, out_units, how["rows"], compact[1])
        return of_x, of_weight, of_bias, None, None


def _how(out_units: Chosen, in_units: Chosen) -> dict[str, Any]:
    """The arguments of the kernels."""
    picks: list[Picks | None] = [None if each is None else each.picks for each in (out_units, in_units)]
    groups = max(1 if each is None else each.groups for each in picks)
    scale = 1.0 if in_units is None else in_units.scale
    return {"out_units": picks[0], "in_units": picks[1], "rows": Rows(groups), "scale": scale}


def _differentiable(
    grad: Tensor, tensors: tuple[Tensor | None, ...], wanted: Any, out_units: Chosen, in_units: Chosen
) -> list[Tensor | None]:
    """The gradients of x, weight and bias, which can be differentiated again."""
    x, weight, bias = tensors
    assert x is not None
    assert weight is not None
    with torch.enable_grad():
        y = by_group(torch.nn.functional.linear, x, weight, bias, out_units, in_units)
    needed = [each for each, want in zip(tensors, wanted, strict=True) if want and each is not None]
    found = iter(torch.autograd.grad(y, needed, grad, create_graph=True, materialize_grads=True))
    return [next(found) if want else None for want in wanted]


def _gradient_of_weight(
    grad: Tensor, x: Tensor, weight: Tensor, out_units: Any, in_units: Any, compact: bool
) -> Tensor:
    """s·Gᵀ X; one group's stays compact if the optimizer takes it so."""
    how = _how(out_units, in_units)
    if not compact or how["rows"].n > 1:
        whole: Tensor = kernel.gradient_of_weight(grad, x, (len(weight), weight.shape[1]), **how)
        return whole
    rows, cols = (None if each is None else each.group(0) for each in (out_units, in_units))
    selection = Selection(weight, rows, cols)
    high, wide = selection.compact_shape
    room = survivors.room((high, wide), x)
    part = torch.addmm(x.new_empty(()), grad[:, :high].T, x[:, :wide], beta=0, alpha=how["scale"], out=room)
    return CompactGradient(part, selection)


def _gradient_of_bias(grad: Tensor, bias: Tensor, out_units: Any, rows: Rows, compact: bool) -> Tensor:
    """Σ G; one group's stays compact if the optimizer takes it so."""
    if not compact or out_units is None or rows.n > 1:
        picks = None if out_units is None else out_units.picks
        whole: Tensor = kernel.gradient_of_bias(grad, len(bias), out_units=picks, rows=rows)
        return whole
    selection = Selection(bias, out_units.group(0), None)
    return CompactGradient(grad[:, : selection.compact_shape[0]].sum(0), selection)
