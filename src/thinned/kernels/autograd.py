"""The kernels as differentiable torch functions; imported only once a caller brings a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from thinned import _array, kernels
from thinned.kernels import connect
from thinned.key import Key

Map = Callable[[torch.Tensor], torch.Tensor]


def select(x: torch.Tensor, key: Key, limit: int, scale: float, start: int = 0) -> torch.Tensor:
    """x·scale where kept, 0 where dropped, by element; units are counted from ``start``."""
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        flat = x.detach().contiguous()
        out = kernels.empty(tuple(x.shape), flat.numpy().dtype)
        kernels.dropout(
            flat.view(-1).numpy(), out.reshape(-1), key, limit, scale, torch.get_num_threads(), start
        )
        return torch.from_numpy(out)
    kept = kernels.mask(key, x.numel(), limit, start).reshape(x.shape)
    return _array.where(kept, x * scale, 0.0)


def apply(x: torch.Tensor, linear: Map, affine: Map | None = None) -> torch.Tensor:
    """``affine(x)``, recorded for the backward pass where one can come."""
    if x.requires_grad and torch.is_grad_enabled():
        return Elementwise.apply(x, linear, affine or linear)
    return (affine or linear)(x.detach())


class Elementwise(torch.autograd.Function):
    """y = f∘x + c with factors f made from a key: the gradient is f∘∂L/∂y, by the same maps.

    ``linear`` is f∘, ``affine`` f∘ + c. They hold the key, and make the factors again: nothing else is kept.
    """

    @staticmethod
    def forward(x: torch.Tensor, linear: Map, affine: Map) -> torch.Tensor:
        """``affine(x)``."""
        return affine(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, Map, Map], output: Any) -> None:
        """Keep the map."""
        ctx.linear = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, None, None]:
        """∂L/∂x = f∘∂L/∂y, itself differentiable."""
        return apply(grad, ctx.linear), None, None


class Connect(torch.autograd.Function):
    """The product with a mask per sample: keeps x, W and the key."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, draw: connect.Draw) -> torch.Tensor:
        """y_n = scale·(R_n * W) x_n."""
        ctx.save_for_backward(x, weight)
        ctx.draw = draw
        with torch.autocast(x.device.type, enabled=False):
            return connect.forward(x, weight, draw)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, Any, None]:
        """∂L/∂x and ∂L/∂W, by the same masks."""
        with torch.autocast(grad.device.type, enabled=False):
            x, weight = ctx.saved_tensors
            return *connect.backward(grad, x, weight, ctx.draw), None
