"""The layers' weights, with the rows and columns of the survivors alone: `take` and `linear`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thinned.kernels import survivors
from thinned.nn.thin.compact_gradient import CompactGradient, is_wanted
from thinned.nn.thin.selection import Chosen, Selection, unit_shape

Groups = Sequence[tuple[Chosen, ...]]  # the rows and the columns of each group of samples


def take(weight: Tensor, rows: Chosen = None, cols: Chosen = None) -> Tensor:
    """The surviving rows and columns of a parameter, differentiable; (R, C, *) -> (rows, cols, *)."""
    if rows is None and cols is None:
        return weight
    if torch.compiler.is_compiling():
        return _traced(weight, rows, cols)
    out: Tensor = TakeSurvivors.apply(weight, Selection(weight, rows, cols))
    return out


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, groups: Groups) -> Tensor:
    """s·X Wᵀ + b with the survivors of W and b, differentiable; s is the scale of the units that are read.

    With several groups, x is (N, C), and sample i has the survivors of group i mod their number.
    """
    rows, cols = groups[0]
    scale = cols.scale if cols else 1.0
    if torch.compiler.is_compiling():
        compact_bias = None if bias is None else take(bias, rows)
        return nn.functional.linear(x * scale, _traced(weight, rows, cols), compact_bias)
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    of_weight = [Selection(weight, *each) for each in groups]
    of_bias = None if bias is None or rows is None else [Selection(bias, each, None) for each, _ in groups]
    flat = x.reshape(-1, x.shape[-1])
    if not torch.is_grad_enabled():
        out = _products(flat, weight, bias, of_weight, of_bias, scale, saved=False)[0]
    else:
        out = SurvivorLinear.apply(flat, weight, bias, of_weight, of_bias, scale)
    return out.view(*x.shape[:-1], out.shape[-1])


def interleaved(groups: list[Tensor], n: int) -> Tensor:
    """The rows of all groups in the order of the n samples, differentiable."""
    if len(groups) == 1:
        return groups[0]
    samples = torch.arange(n, device=groups[0].device)
    order = torch.cat([samples[g :: len(groups)] for g in range(len(groups))])
    return torch.cat(groups).index_select(0, order.argsort())


class TakeSurvivors(torch.autograd.Function):
    """The survivors of a parameter. Its gradient is `PlaceSurvivors`, whose gradient is this."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, selection: Selection) -> Tensor:
        """The surviving rows and columns."""
        ctx.selection, ctx.compact = selection, is_wanted(weight)
        return selection.take(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The survivors' gradient, zeros elsewhere."""
        if torch.is_grad_enabled():
            return PlaceSurvivors.apply(grad, ctx.selection), None
        return _gradient(grad, ctx.selection, ctx.compact), None


class PlaceSurvivors(torch.autograd.Function):
    """The survivors in their places among zeros, where the gradient itself is differentiated."""

    @staticmethod
    def forward(ctx: Any, compact: Tensor, selection: Selection) -> Tensor:
        """A tensor of the parameter's shape."""
        ctx.selection = selection
        return selection.place(compact)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """The survivors of the gradient."""
        return TakeSurvivors.apply(grad, ctx.selection), None


class SurvivorLinear(torch.autograd.Function):
    """Y = s·X Wᵀ + b with the survivors of W and b, in memory of the pool."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        of_weight: list[Selection],
        of_bias: list[Selection] | None,
        scale: float,
    ) -> Tensor:
        """Y (N, rows), and keep what the backward pass needs: x, the weight and its survivors."""
        out, compact = _products(x, weight, bias, of_weight, of_bias, scale, saved=True)
        ctx.save_for_backward(x, weight, *compact)
        ctx.of_weight, ctx.of_bias, ctx.scale = of_weight, of_bias, scale
        ctx.compact = is_wanted(weight), bias is not None and is_wanted(bias)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        """∂L/∂X = s·G W, ∂L/∂W = s·Gᵀ X, ∂L/∂b = Σ G, the latter two in their places; of each group."""
        x, weight, *compact = ctx.saved_tensors
        scale, groups, again = ctx.scale, len(compact), torch.is_grad_enabled()
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        of_x = of_weight = of_bias = None
        if needs_x:
            if again:
                compact = [TakeSurvivors.apply(weight, each).to(x.dtype) for each in ctx.of_weight]
            of_x = _gradient_of_input(grad, x, compact, scale)
        if needs_weight:

            def correlated(g: int) -> Tensor:
                room = None if again else survivors.room(ctx.of_weight[g].compact_shape, x)
                return _product(grad[g::groups].T, x[g::groups], scale, room).to(weight.dtype)

            of_weight = _placed(correlated, ctx.of_weight, ctx.compact[0])
        if needs_bias:
            dtype = torch.promote_types(weight.dtype, grad.dtype)

            def summed(g: int, step: int = groups) -> Tensor:
                return grad[g::step].sum(0, dtype=dtype).to(weight.dtype)

            of_bias = _placed(summed, ctx.of_bias, ctx.compact[1]) if ctx.of_bias else summed(0, 1)
        return of_x, of_weight, of_bias, None, None, None


def _products(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    of_weight: list[Selection],
    of_bias: list[Selection] | None,
    scale: float,
    saved: bool,
) -> tuple[Tensor, list[Tensor]]:
    """s·X Wᵀ + b, and the survivors of W in each group; Y is memory of the pool where it is not ``saved``."""
    compact = [selection.take(weight).to(x.dtype) for selection in of_weight]
    shape = (len(x), len(compact[0]))
    out = x.new_empty(shape) if saved else survivors.room(shape, x)
    for g, w in enumerate(compact):
        samples = slice(g, None, len(compact))
        if bias is None:
            _product(x[samples], w.T, scale, out[samples])
        else:
            b = of_bias[g].take(bias) if of_bias else bias
            torch.addmm(b.to(x.dtype), x[samples], w.T, alpha=scale, out=out[samples])
    return out, compact


def _gradient_of_input(grad: Tensor, x: Tensor, compact: list[Tensor], scale: float) -> Tensor:
    """s·G W, of each group; differentiable where gradients are."""
    groups = len(compact)
    if torch.is_grad_enabled():
        return interleaved([_product(grad[g::groups], w, scale) for g, w in enumerate(compact)], len(x))
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    for g, w in enumerate(compact):
        _product(grad[g::groups], w, scale, out[g::groups])
    return out


def _product(a: Tensor, b: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """s·A B, the factor inside the product's own pass."""
    if out is None and scale == 1.0:
        return a @ b
    unread = a.new_empty(()) if out is None else out  # with β = 0 its values are not read
    return torch.addmm(unread, a, b, beta=0, alpha=scale, out=out)


def _placed(of_group: Callable[[int], Tensor], selections: list[Selection], compact: bool) -> Tensor:
    """The gradient of a parameter, from that of each group's survivors; differentiable where those are."""
    if torch.is_grad_enabled():
        whole: Tensor = sum(PlaceSurvivors.apply(of_group(g), each) for g, each in enumerate(selections))
        return whole
    if len(selections) == 1:
        return _gradient(of_group(0), selections[0], compact)
    whole = selections[0].place(of_group(0))
    for g, selection in enumerate(selections[1:], 1):
        selection.add(of_group(g), whole)
    return whole


def _gradient(of_survivors: Tensor, selection: Selection, compact: bool) -> Tensor:
    """The gradient of a parameter, from that of its survivors."""
    return CompactGradient(of_survivors, selection) if compact else selection.place(of_survivors)


def _traced(weight: Tensor, rows: Chosen, cols: Chosen) -> Tensor:
    """The survivors in operators that torch.compile knows."""
    indices = (each and each.on(weight.device) for each in (rows, cols))
    compact: Tensor = survivors.select(weight.reshape(unit_shape(weight, cols)), *indices)
    return compact if compact.dim() == weight.dim() else compact.flatten(1)
