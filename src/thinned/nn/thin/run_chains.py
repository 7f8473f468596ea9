"""The layers of a thinned chain: each does its part on the survivors, where a pass has picked some.

A pass begins at the layer whose units are dropped: it draws the survivors from the dropout module's
stream and computes only them. The layers after it see the narrower tensor, and the readers at the end
take the survivors' columns of their weights. Outside a call of the model that was thinned, and in evaluation,
each layer is what it was before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thinned import masks
from thinned.kernels import autograd
from thinned.key import Key
from thinned.nn import modules
from thinned.nn.batches import Batch
from thinned.nn.compiled import unpack
from thinned.nn.thin.find_chains import FoundChain
from thinned.nn.thin.norms import batch_norm
from thinned.nn.thin.passes import ModelHooks, Running, thread
from thinned.nn.thin.products import convolution, linear
from thinned.nn.thin.selection import Units
from thinned.nn.thin.tracing import hooked, join, partly_outside

torch.library.define(
    "thinned::picks",
    "(Tensor ticket, int n, int groups, int width, int rank, SymInt[] shape) -> (Tensor, Tensor)",
)


@torch.library.impl("thinned::picks", "CompositeExplicitAutograd")
def _picks(
    ticket: Tensor, n: int, groups: int, width: int, rank: int, shape: list[int]
) -> tuple[Tensor, Tensor]:
    key, sample_offset, p, batch = unpack(ticket)
    rows = _rows(shape, rank) * _rows_of_samples(shape, batch, sample_offset, rank)
    units = Units.of(masks.picks(n, p, key, groups).rolled(sample_offset * rows), 1.0)
    index, valid = ticket.new_zeros(groups, width), ticket.new_zeros(groups, width, dtype=torch.bool)
    index[:, : units.width], valid[:, : units.width] = units.index, units.valid
    return index, valid


@torch.library.register_fake("thinned::picks")
def _picks_fake(
    ticket: Tensor, n: int, groups: int, width: int, rank: int, shape: list[int]
) -> tuple[Tensor, Tensor]:
    return ticket.new_empty(groups, width), ticket.new_empty(groups, width, dtype=torch.bool)


def _rows(shape: Sequence[int], rank: int) -> int:
    """The rows of each place along the first axis of an input of a chain of that rank."""
    return math.prod(shape[1:-1]) if rank == 0 and len(shape) > 1 else 1


def _rows_of_samples(shape: Sequence[int], batch: Batch, sample_offset: int, rank: int) -> int:
    """The places along the first axis that each sample has."""
    where = batch.find(shape, sample_offset, movable=rank == 0 and len(shape) > 2)
    if where.axis == 1 and sample_offset:
        raise ValueError(
            f"with sample_offset, a thinned chain must get the samples first, got shape {tuple(shape)}: "
            "leave it dense, or set batch_first=True"
        )
    return where.rows


# When the kernel pays. Else all units are computed, and the same picks are applied to them.
PAYS_ABOVE = 0.2  # the rate from which on the multiplications that are saved are more than the kernel loses
ROWS_OF_GROUP = 6  # at least; a tile of the kernel has 8 rows or 16
SAVED = 6_000_000  # products (of input, weight) that cost as much as the calls of a pass


@dataclass
class ChainPass:
    """One forward pass of a chain: the units that each group of rows keeps."""

    units: Units
    scale: float  # 1/(1 − p)
    narrow: bool  # only they are computed; else all, and the others are zeroed
    reads: int = 0


class RunningChain(Running):
    """A chain at work: its dropout module, its layers, and the state of the pass.

    ``owner`` is the module that was traced, ``name`` its name in the model.
    """

    def __init__(
        self, owner: nn.Module, name: str, found: FoundChain, groups: int, hooks: ModelHooks | None
    ) -> None:
        producer: Any = owner.get_submodule(found.producer)
        self.drop: Any = owner.get_submodule(found.drop)
        self.n, self.groups = len(producer.weight), groups
        self.rank = found.rank  # of a unit's map
        self.names = [join(name, each) for each in (found.producer, *found.readers)]
        self.readers = len(found.readers)
        readers: list[Any] = [owner.get_submodule(each) for each in found.readers]
        self.neighbours = producer.weight[0].numel() + sum(len(each.weight) for each in readers)
        self.folded = found.folded  # the factor 1/(1 − p) is in the readers' products
        self.matrix_only = found.rank == 0 and bool(found.between)  # a layer between takes (N, C) alone
        self.watched = [owner.get_submodule(each) for each in (*found.names, *partly_outside(found.names))]
        self.flat = found.flat
        self.hooks = hooks
        self.forget()

    def __str__(self) -> str:
        first, *readers = self.names
        groups = (
            f" in {self.groups} groups of {'samples' if self.rank else 'rows'}" if self.groups > 1 else ""
        )
        return f"{1 - self.drop.p:.4g} of the {self.n} units of {first} → {', '.join(readers)}{groups}"

    @property
    def units(self) -> Units | None:
        """The units that are kept, where they alone are computed."""
        now = self.now
        return now.units if now is not None and now.narrow else None

    def begin(self, x: Tensor) -> Units | None:
        """Begin a pass, if the dropout is to drop; the units that are kept, where they alone are computed."""
        self.close()
        p = self.drop.p
        if not self.drop.training or (self.flat and x.dim() != 2):
            return None
        scale = 1.0 if p == 1.0 else 1.0 / (1.0 - p)
        seen = (
            autograd.transforming() or any(map(hooked, self.watched)) or (self.matrix_only and x.dim() != 2)
        )
        drawn = self._draw(x, scale if self.folded else 1.0)
        if drawn is None:
            return None
        units, in_order = drawn
        narrow = p > 0.0 and in_order and not seen and self._pays(x)
        self.passes[thread()] = ChainPass(units, scale, narrow)
        return self.units

    def _pays(self, x: Tensor) -> bool:
        """Whether it is faster to compute only the units that are kept; of one group, always."""
        if self.groups == 1 or self.rank or torch.compiler.is_compiling() or not x.is_cpu:
            return True
        rows = x.numel() // max(x.shape[-1], 1)
        saved = (self.drop.p - PAYS_ABOVE) * rows * self.n * self.neighbours
        return rows >= ROWS_OF_GROUP * self.groups and saved >= SAVED

    def _draw(self, x: Tensor, scale: float) -> tuple[Units, bool] | None:
        """The units of a new pass, and whether the rows of x are in order; None outside a thinned call."""
        rows = _rows(x.shape, self.rank)
        if torch.compiler.is_compiling():
            if not self.hooks.open:
                return None
            width = masks.most_kept(self.n, self.drop.p)
            how = self.n, self.groups, width, self.rank, x.shape
            index, valid = torch.ops.thinned.picks(self.drop.ticket(), *how)
            return Units(self.n, index, valid, scale), True
        if not self.due():
            return None
        seed, sample_offset, places, batch = self.drop.stream.draw()
        if places is None:
            rows *= _rows_of_samples(x.shape, batch, sample_offset, self.rank)
        picks = masks.picks(self.n, self.drop.p, Key(seed), self.groups)
        if places is None or self.groups == 1:
            return Units.of(picks.rolled(sample_offset * rows), scale), True
        row = ((sample_offset + places)[:, None] * rows + np.arange(rows)).reshape(-1)
        return Units.of(picks.of_rows(row % self.groups), scale), False

    def dropped(self, x: Tensor) -> Tensor | None:
        """The result of the dropout module in a pass; None where it drops elements as before."""
        now = self.now
        if now is None:
            self.unmark()
            return None
        if self.drop.p == 0.0:
            return x
        if now.narrow:
            return x if self.folded else x * now.scale
        rows = x.shape[: x.dim() - 1 - self.rank]
        kept = now.units.mask(math.prod(rows), x.device).view(*rows, self.n, *[1] * self.rank)
        return torch.where(kept, x * now.scale, 0.0)

    def read(self) -> Units | None:
        """The units that are kept, for one of the readers."""
        if self.units is not None:
            self.passes[thread()].reads += 1
        return self.units

    def check(self) -> None:
        """Raises RuntimeError if a reader was not called in this pass."""
        now = self.now
        if now is not None and now.narrow and now.reads != self.readers:
            raise RuntimeError(
                f"the model must run as when it was thinned, but the survivors of {self.drop} were read "
                f"{now.reads} times, not {self.readers}; call thinned.nn.thin(model) again after a change"
            )


class _Thin:
    """A layer of a chain: in a pass it computes the kept units, else it is torch's layer."""

    def forward(self, input: Any) -> Any:
        """The layer on the kept units; as it was before where there is no pass."""
        if isinstance(input, torch.fx.Proxy):
            tracer: Any = input.tracer
            return tracer.create_proxy("call_module", tracer.path_of_module(self), (input,), {})
        units = self.begin(input)
        if all(each is None for each in units):
            return super().forward(input)  # type: ignore[misc]
        if input.dim() > self.rank:
            return self.compute(input, *units)
        return self.compute(input.unsqueeze(0), *units).squeeze(0)

    rank: int  # of an input without a batch

    def begin(self, input: Tensor) -> tuple[Units | None, ...]:
        """The arguments of `compute`: the kept units, or None for all; all None where there is no pass."""
        raise NotImplementedError

    compute: Callable[..., Tensor]


class _ThinWeight(_Thin):
    """A layer with a weight: it begins a chain, or reads the units of one, or both."""

    reads_chain: RunningChain | None = None
    begins_chain: RunningChain | None = None

    def begin(self, input: Tensor) -> tuple[Units | None, ...]:
        """The units that it computes and those that it reads."""
        read = self.reads_chain.read() if self.reads_chain else None
        return self.begins_chain.begin(input) if self.begins_chain else None, read


class ThinLinear(_ThinWeight, nn.Linear):
    """`torch.nn.Linear` in a chain."""

    rank = 1

    def compute(self, x: Tensor, out_units: Units | None, in_units: Units | None) -> Tensor:
        """X Wᵀ + b of the kept units."""
        if in_units is None and x.shape[-1] != self.in_features:
            return nn.Linear.forward(self, x)  # raises torch's error, with the sizes that the user knows
        return linear(x, self.weight, self.bias, out_units, in_units)


class _ThinConv(_ThinWeight):
    def compute(self: Any, x: Tensor, out_units: Units | None, in_units: Units | None) -> Tensor:
        """The convolution of the kept units."""
        return convolution(self._conv_forward, x, self.weight, self.bias, out_units, in_units)


class ThinConv1d(_ThinConv, nn.Conv1d):
    """`torch.nn.Conv1d` in a chain."""

    rank = 2


class ThinConv2d(_ThinConv, nn.Conv2d):
    """`torch.nn.Conv2d` in a chain."""

    rank = 3


class ThinConv3d(_ThinConv, nn.Conv3d):
    """`torch.nn.Conv3d` in a chain."""

    rank = 4


class _ThinBetween(_Thin):
    """A layer between: it has a row of parameters for each unit."""

    chain: RunningChain
    rank = 1

    def begin(self, input: Tensor) -> tuple[Units | None, ...]:
        """The kept units of the pass under way."""
        return (self.chain.units,)


class ThinPReLU(_ThinBetween, nn.PReLU):
    """`torch.nn.PReLU` with a slope for each unit, in a chain."""

    def compute(self, x: Tensor, units: Units) -> Tensor:
        """max(0, x) + a·min(0, x), with the slope a of each row's units."""
        slopes = self.weight[units.columns(len(x), x.device)[0]]
        return torch.where(x > 0, x, slopes.view(*slopes.shape, *[1] * (x.dim() - 2)) * x)


class _ThinNorm(_ThinBetween):
    def begin(self, input: Tensor) -> tuple[Units | None, ...]:
        """The kept units; those of the rows that keep them, where all are computed for several groups."""
        now = self.chain.now
        if now is not None and not now.narrow and now.units.groups > 1:
            return (now.units.among_all(),)
        return super().begin(input)

    def compute(self: Any, x: Tensor, units: Units) -> Tensor:
        """Batch normalisation: a unit's statistics are those of the rows that keep it."""
        self._check_input_dim(x)
        return batch_norm(self, x, units)


class ThinBatchNorm1d(_ThinNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` in a chain."""


class ThinBatchNorm2d(_ThinNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` in a chain."""


class ThinBatchNorm3d(_ThinNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` in a chain."""


class ThinNormAct(_ThinNorm, nn.BatchNorm2d):
    """A `torch.nn.BatchNorm2d` that also applies an activation, as timm has it, in a chain."""

    former: type[nn.Module]  # its class outside of chains
    act: nn.Module

    def forward(self, input: Any) -> Any:
        """The norm as `ThinBatchNorm2d` computes it, then the activation."""
        out = super().forward(input)
        return out if isinstance(out, torch.fx.Proxy) else self.act(out)


class _ThinDrop:
    chain: RunningChain

    def drop(self, input: Tensor) -> Tensor:
        """Survivors times n/k; outside a pass, what the module did before."""
        out = self.chain.dropped(input)
        if out is None:
            out = super().drop(input)  # type: ignore[misc]
        return out


class ThinDropout(_ThinDrop, modules.Dropout):
    """`thinned.nn.Dropout` in a chain."""


class ThinDropout1d(_ThinDrop, modules.Dropout1d):
    """`thinned.nn.Dropout1d` in a chain."""


class ThinDropout2d(_ThinDrop, modules.Dropout2d):
    """`thinned.nn.Dropout2d` in a chain."""


class ThinDropout3d(_ThinDrop, modules.Dropout3d):
    """`thinned.nn.Dropout3d` in a chain."""


_OF_TORCH: tuple[type[nn.Module], ...] = (
    *(ThinLinear, ThinConv1d, ThinConv2d, ThinConv3d, ThinPReLU),
    *(ThinBatchNorm1d, ThinBatchNorm2d, ThinBatchNorm3d),
    *(ThinDropout, ThinDropout1d, ThinDropout2d, ThinDropout3d),
)
KINDS = (*_OF_TORCH, ThinNormAct)
_THIN = {kind.__bases__[-1]: kind for kind in _OF_TORCH}


def make_thin(layer: nn.Module) -> None:
    """Give a layer of a chain its thin class; other layers keep theirs."""
    former = type(layer)
    if former in KINDS:
        return
    layer.__class__ = _THIN.get(former) or (ThinNormAct if isinstance(layer, nn.BatchNorm2d) else former)
    if type(layer) is ThinNormAct:
        layer.former = former


def make_plain(layer: nn.Module) -> None:
    """Give a thin layer its former class."""
    layer.__class__ = vars(layer).pop("former", type(layer).__bases__[-1])
