"""Batch normalisation of a chain's units, each over the rows whose group keeps it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import batch_norm as batch_norm_of
from torch.nn.modules.batchnorm import _BatchNorm

from thinned.nn.thin.products import interleaved, of_groups
from thinned.nn.thin.selection import Units

VALUES = 32  # of a unit in a group: with fewer, its own statistics are too noisy (docs/thin.md)


def batch_norm(norm: _BatchNorm, x: Tensor, units: Units) -> Tensor:
    """(N, width, *spatial) -> same: (x − mean)/√(var + ε)·w + b, by each row's units.

    With at least 32 values of a unit in each group, the statistics are those of each group, whose rows read
    the same units. With fewer, they are those of all rows that keep the unit. Running statistics change for
    the units that some row keeps. A batch with one value of a unit in all raises ValueError, as torch does.
    So does a vmap whose examples would share running statistics.
    """
    _check_examples(norm, x)
    if len(x) // units.groups * x[:1, 0].numel() >= VALUES:
        return _by_group(norm, x, units)
    index, valid = units.columns(len(x), x.device)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if norm.training or norm.running_mean is None:
        if len(x) * x[0, 0].numel() == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {x.shape}"
            )
        count, mean, var = _statistics(wide, index, valid, units.n)
        if norm.training and norm.running_mean is not None:
            _move(norm, count, mean.detach(), var.detach())
    else:
        assert norm.running_var is not None
        mean, var = norm.running_mean, norm.running_var
    gain = torch.rsqrt(var + norm.eps) if norm.weight is None else norm.weight * torch.rsqrt(var + norm.eps)
    shift = -mean * gain if norm.bias is None else norm.bias - mean * gain
    y = torch.addcmul(_of_rows(shift, index, x), wide, _of_rows(gain, index, x))
    return y.to(x.dtype)


def _check_examples(norm: _BatchNorm, x: Tensor) -> None:
    """Raises ValueError if examples of a vmap would change the same running statistics."""
    batched = torch._C._functorch.is_batchedtensor
    if norm.training and norm.running_mean is not None and batched(x) and not batched(norm.running_mean):
        raise ValueError(
            "running statistics of a BatchNorm inside vmap must be given for each example, got those of all: "
            "set track_running_stats=False, or use torch.func.stack_module_state"
        )


def _by_group(norm: _BatchNorm, x: Tensor, units: Units) -> Tensor:
    """Torch's batch norm of each group."""
    whole = (norm.running_mean, norm.running_var)
    training = norm.training or norm.running_mean is None
    parts: list[Tensor] = []
    moved: list[tuple[Tensor, Any, Any]] = []
    for g, part in enumerate(of_groups(x, units.groups)):
        index = units.index[g].to(x.device)
        weight, bias, mean, var = (
            None if each is None else each[index] for each in (norm.weight, norm.bias, *whole)
        )
        if len(part):
            part = batch_norm_of(part, mean, var, weight, bias, training, norm.momentum or 0.0, norm.eps)
            moved.append((index, units.valid[g].to(x.device), (mean, var)))
        parts.append(part)
    if norm.training and norm.running_mean is not None:
        _average(norm, moved)
    return interleaved(parts, len(x))


@torch.no_grad()
def _average(norm: _BatchNorm, moved: list[tuple[Tensor, Any, Any]]) -> None:
    """The running statistics: the mean of those of the groups that keep a unit."""
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    for i, old in enumerate((norm.running_mean, norm.running_var)):
        assert isinstance(old, Tensor)
        total, count = torch.zeros_like(old), torch.zeros_like(old)
        for index, valid, statistics in moved:
            total.index_add_(0, index, torch.where(valid, statistics[i], 0.0))
            count.index_add_(0, index, valid.to(old.dtype))
        old.copy_(torch.where(count > 0, total / count.clamp(min=1), old))


def _of_rows(values: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """(n,) -> (N, width, 1, …): the values of each row's units."""
    return values[index].view(*index.shape, *[1] * (like.dim() - 2))


def _statistics(x: Tensor, index: Tensor, valid: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each of n units: how many values, their mean and variance; (n,) each."""
    places = x[0, 0].numel() if len(x) else 1
    count = _sums(valid.to(x.dtype) * places, index, valid, n)
    some = count.clamp(min=1)
    mean = _sums(x.flatten(2).sum(2) if x.dim() > 2 else x, index, valid, n) / some
    off = x - _of_rows(mean, index, x)
    square = off.square()
    var = _sums(square.flatten(2).sum(2) if x.dim() > 2 else square, index, valid, n) / some
    return count, mean, var


def _sums(values: Tensor, index: Tensor, valid: Tensor, n: int) -> Tensor:
    """Of (N, width): the sum of each unit's values, (n,)."""
    kept = torch.where(valid, values, 0.0)
    return values.new_zeros(n).index_add(0, index.reshape(-1), kept.reshape(-1))


@torch.no_grad()
def _move(norm: _BatchNorm, count: Tensor, mean: Tensor, var: Tensor) -> None:
    """The running statistics of units with values: (1 − m)·old + m·new, the variance without bias."""
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    unbiased = var * count / (count - 1).clamp(min=1)
    for old, new in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        assert isinstance(old, Tensor)
        old.copy_(torch.where(count > 0, old.lerp(new.to(old.dtype), norm.momentum or 0.0), old))
