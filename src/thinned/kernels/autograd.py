"""The kernels as differentiable torch functions; imported only once a caller brings a tensor."""

from __future__ import annotations

from typing import Any

import torch

from thinned import kernels
from thinned.key import Key


def select(x: torch.Tensor, key: Key, limit: int, scale: float) -> torch.Tensor:
    """x·scale where kept, 0 where dropped."""
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        flat = x.detach().contiguous()
        out = torch.empty(x.shape, dtype=x.dtype)
        kernels.dropout(
            flat.view(-1).numpy(), out.view(-1).numpy(), key, limit, scale, torch.get_num_threads()
        )
        return out
    kept = torch.from_numpy(kernels.mask(key, x.numel(), limit)).to(x.device).view(x.shape)
    return torch.where(kept, x * scale, 0)


def differentiable(x: torch.Tensor, key: Key, limit: int, scale: float) -> torch.Tensor:
    """`select`, recorded for the backward pass where one can come."""
    if x.requires_grad and torch.is_grad_enabled():
        return Select.apply(x, key, limit, scale)
    return select(x, key, limit, scale)


class Select(torch.autograd.Function):
    """`select`, whose gradient is `select` of the gradient: the key is all that is kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, key: Key, limit: int, scale: float) -> torch.Tensor:
        """X -> the survivors, scaled."""
        ctx.draw = key, limit, scale
        return select(x, key, limit, scale)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, None, None, None]:
        """∂L/∂x, by the same mask."""
        return differentiable(grad, *ctx.draw), None, None, None
