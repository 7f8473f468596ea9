"""The samples of a batch that survive a `DropPath`: finds them, gathers them, puts them back among zeros."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thinned import _array
from thinned.nn.modules import DropPath
from thinned.nn.stream import Draw


def survivors(n: int, draw: Draw, drop: DropPath) -> Tensor:
    """The indices of the samples that survive, of n, ascending."""
    ones = torch.ones(n, dtype=torch.float64, device="cpu")
    return drop.by(draw, ones).nonzero().flatten()


def fits(modules: Iterable[nn.Module], survivors: int) -> bool:
    """Whether a branch may run on that many survivors.

    A batch norm in training needs at least two samples, SyncBatchNorm those of all processes.
    """
    norms = [module for module in modules if isinstance(module, _BatchNorm)]
    norms = [norm for norm in norms if norm.training or norm.running_mean is None]
    together = any(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    return not together and not (norms and survivors == 1)


def scaled(x: Tensor, drop: DropPath) -> Tensor:
    """x/(1 − p), rounded as in `drop_path`; x itself where the survivors are not scaled."""
    p = drop.p if drop.scale_by_keep else 0.0
    scaled: Tensor = x if p == 0.0 else _array.times(x, 1.0 / (1.0 - p))
    return scaled


def gathered(x: Tensor, index: Tensor) -> Tensor:
    """x[index]; its strides have the order of x's."""
    order, back = orders(x)
    return x.permute(order).index_select(0, index).permute(back)


def scattered(part: Tensor, index: Tensor, n: int) -> Tensor:
    """n samples: those of ``part`` at ``index``, zeros elsewhere; the strides have the order of ``part``."""
    order, back = orders(part)
    part = part.permute(order)
    return part.new_zeros(n, *part.shape[1:]).index_copy_(0, index, part).permute(back)


def orders(x: Tensor) -> tuple[list[int], list[int]]:
    """The dimensions of x, samples first, the others by falling stride; and the permutation back."""
    order = [0, *sorted(range(1, x.dim()), key=x.stride, reverse=True)]
    return order, [order.index(i) for i in range(x.dim())]
