"""The layers of a thinned chain: each does its part on the survivors, where a pass has picked some.

A pass begins at the layer whose units are dropped: it draws the survivors from the dropout module's
stream and computes only them. The layers after it see the narrower tensor, and the readers at the end
take the survivors' columns of their weights. Outside a call of the model that was thinned, and in evaluation,
each layer is what it was before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thinned import masks, theory
from thinned.key import Key
from thinned.nn import modules
from thinned.nn.compiled import unpack
from thinned.nn.thin.find_chains import FoundChain
from thinned.nn.thin.passes import ModelHooks, Running, thread
from thinned.nn.thin.selection import Chosen, SurvivingUnits
from thinned.nn.thin.survivor_weights import interleaved, linear, take
from thinned.nn.thin.tracing import hooked, join, partly_outside

torch.library.define("thinned::survivors", "(Tensor ticket, int n, int k, int groups) -> Tensor")


@torch.library.impl("thinned::survivors", "CompositeExplicitAutograd")
def _survivors(ticket: Tensor, n: int, k: int, groups: int) -> Tensor:
    key, sample_offset, p = unpack(ticket)
    return _picks(n, p, key, groups, sample_offset)


@torch.library.register_fake("thinned::survivors")
def _survivors_fake(ticket: Tensor, n: int, k: int, groups: int) -> Tensor:
    return ticket.new_empty(groups, k)


def _picks(n: int, p: float, key: Key, groups: int, sample_offset: int) -> Tensor:
    """Row g: the survivors of samples g, g + groups, … of this batch, whose first is ``sample_offset``."""
    return torch.from_numpy(np.roll(masks.survivors(n, p, key, groups), -sample_offset % groups, axis=0))


@dataclass
class ChainPass:
    """The survivors of one chain in one forward pass, those of each group of samples."""

    units: list[SurvivingUnits]
    scale: float  # n/k
    narrow: bool  # only they are computed; else all, and the others are zeroed
    reads: int = 0


class RunningChain(Running):
    """One dropout module, and what the layers around it know of the pass that is under way.

    ``owner`` is the module that was traced, ``name`` its name in the model.
    """

    def __init__(
        self, owner: nn.Module, name: str, found: FoundChain, groups: int, hooks: ModelHooks | None
    ) -> None:
        producer: Any = owner.get_submodule(found.producer)
        self.drop: Any = owner.get_submodule(found.drop)
        self.n, self.groups = len(producer.weight), groups
        self.axis = -1 - found.rank  # of the units
        self.names = [join(name, each) for each in (found.producer, *found.readers)]
        self.readers = len(found.readers)
        self.folded = found.folded  # the factor n/k is in the readers' products
        self.matrix_only = found.rank == 0 and bool(found.between)  # a layer between takes (N, C) alone
        self.watched = [owner.get_submodule(each) for each in (*found.names, *partly_outside(found.names))]
        self.hooks = hooks
        self.forget()

    def __str__(self) -> str:
        first, *readers = self.names
        return f"{self.k} of the {self.n} units of {first} → {', '.join(readers)}"

    @property
    def k(self) -> int:
        """How many of the n units survive."""
        return theory.survivor_count(self.n, self.drop.p)

    @property
    def units(self) -> list[SurvivingUnits] | None:
        """The survivors, where they alone are computed."""
        now = self.now
        return now.units if now is not None and now.narrow else None

    def begin(self, x: Tensor) -> list[SurvivingUnits] | None:
        """A new pass, where there is one: the rows that survive, where they alone are computed."""
        self.close()
        picked = self._draw() if self.drop.training else None
        if picked is None:
            return None
        scale = self.n / picked.shape[1]
        seen = any(map(hooked, self.watched)) or (self.matrix_only and x.dim() != 2)
        of_readers = scale if self.folded else 1.0
        units = [SurvivingUnits(row, self.n, of_readers) for row in picked.unbind(0)]
        self.passes[thread()] = ChainPass(units, scale, narrow=scale > 1.0 and not seen)
        return self.units

    def _draw(self) -> Tensor | None:
        """The survivors of a new pass, (groups, k); None where the model was not called as it was thinned."""
        if torch.compiler.is_compiling():
            if not self.hooks.open:
                return None
            picked: Tensor = torch.ops.thinned.survivors(self.drop.ticket(), self.n, self.k, self.groups)
            return picked
        if not self.due():
            return None
        seed, sample_offset, *_ = self.drop.stream.draw()
        return _picks(self.n, self.drop.p, Key(seed), self.groups, sample_offset)

    def dropped(self, x: Tensor) -> Tensor | None:
        """What the dropout module makes of the units in a pass; None where it drops elements as before."""
        now = self.now
        if now is not None:
            return _scaled(x, now, self.axis, self.folded) if now.scale > 1.0 else x
        self.unmark()
        return None

    def read(self) -> list[SurvivingUnits] | None:
        """The columns that survive, for one of the readers."""
        if self.units is not None:
            self.passes[thread()].reads += 1
        return self.units

    def check(self) -> None:
        """At the end of a pass all readers must have read."""
        now = self.now
        if now is not None and now.narrow and now.reads != self.readers:
            raise RuntimeError(
                f"the model ran another way than when it was thinned: the survivors of {self.drop} were read "
                f"{now.reads} times, not {self.readers}; call thinned.nn.thin(model) again after a change"
            )


def _scaled(x: Tensor, now: ChainPass, axis: int, folded: bool) -> Tensor:
    """x·n/k, of narrow units where the readers do not see to it; of all units with zeros at the dropped."""
    if now.narrow:
        return x if folded else x * now.scale

    def among_zeros(part: Tensor, units: SurvivingUnits) -> Tensor:
        kept = torch.zeros(units.n, dtype=torch.bool, device=part.device)
        kept = kept.index_fill(0, units.on(part.device), True)
        return torch.where(kept.view(-1, *[1] * (-1 - axis)), part * now.scale, 0.0)

    return by_group(among_zeros, x, -axis, now.units)


def by_group(
    call: Callable[..., Tensor], x: Tensor, rank: int, *units: list[SurvivingUnits] | None
) -> Tensor:
    """``call(samples of a group, its units…)`` for each; sample i is of group i mod groups.

    ``rank`` is that of x without a batch.
    """
    groups = _of_groups(*units)
    if len(groups) == 1 or x.dim() <= rank:
        return call(x, *groups[0])
    return interleaved([call(x[g :: len(groups)], *each) for g, each in enumerate(groups)], len(x))


def _of_groups(*units: list[SurvivingUnits] | None) -> list[tuple[Chosen, ...]]:
    """The units of each group."""
    groups = max(1 if each is None else len(each) for each in units)
    return list(zip(*([None] * groups if each is None else each for each in units), strict=True))


class _Thin:
    """Torch's layer outside a pass and for torch.fx; `compute` of it on the survivors in a pass."""

    def forward(self, input: Any) -> Any:
        """The layer on the survivors; as it was before where there is no pass."""
        if isinstance(input, torch.fx.Proxy):
            tracer: Any = input.tracer
            return tracer.create_proxy("call_module", tracer.path_of_module(self), (input,), {})
        units = self.begin(input)
        if all(each is None for each in units):
            return super().forward(input)  # type: ignore[misc]
        return self.compute_groups(input, *units)

    def compute_groups(self, input: Tensor, *units: list[SurvivingUnits] | None) -> Tensor:
        """`compute` of each group of samples."""
        return by_group(self.compute, input, self.rank, *units)

    rank: int  # of an input without a batch

    def begin(self, input: Tensor) -> tuple[list[SurvivingUnits] | None, ...]:
        """What `compute` is given: survivors, or None for all; all None where there is no pass."""
        raise NotImplementedError

    compute: Callable[..., Tensor]


class _ThinWeight(_Thin):
    """A layer with a weight: it begins a chain, or reads one's survivors, or both."""

    reads_chain: RunningChain | None = None
    begins_chain: RunningChain | None = None

    def begin(self, input: Tensor) -> tuple[list[SurvivingUnits] | None, ...]:
        """The rows and the columns that survive."""
        cols = self.reads_chain.read() if self.reads_chain else None
        return self.begins_chain.begin(input) if self.begins_chain else None, cols


class ThinLinear(_ThinWeight, nn.Linear):
    """`torch.nn.Linear` in a chain."""

    rank = 1

    def compute(self, x: Tensor, rows: Chosen, cols: Chosen) -> Tensor:
        """X Wᵀ + b with the survivors of W and b."""
        return linear(x, self.weight, self.bias, [(rows, cols)])

    def compute_groups(self, input: Tensor, *units: list[SurvivingUnits] | None) -> Tensor:
        """Of the rows of a matrix, all groups in one go."""
        if self.reads_chain is None and input.shape[-1:] != (self.in_features,):
            return nn.Linear.forward(self, input)  # which says so, with the sizes that the user knows
        if input.dim() != 2 or torch.compiler.is_compiling():
            return super().compute_groups(input, *units)
        return linear(input, self.weight, self.bias, _of_groups(*units))


class _ThinConv(_ThinWeight):
    def compute(self: Any, x: Tensor, rows: Chosen, cols: Chosen) -> Tensor:
        """The convolution with the survivors of weight and bias."""
        weight = take(self.weight, rows, cols)
        bias = None if self.bias is None else take(self.bias, rows)
        if cols and cols.scale != 1.0:
            weight = weight * cols.scale
        out: Tensor = self._conv_forward(x, weight, bias)
        return out


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

    def begin(self, input: Tensor) -> tuple[list[SurvivingUnits] | None, ...]:
        """The survivors of the pass under way."""
        return (self.chain.units,)


class ThinPReLU(_ThinBetween, nn.PReLU):
    """`torch.nn.PReLU` with a slope for each unit, in a chain."""

    def compute(self, x: Tensor, units: SurvivingUnits) -> Tensor:
        """The survivors' slopes."""
        return nn.functional.prelu(x, take(self.weight, units))


class _ThinNorm(_ThinBetween):
    def compute(self: Any, x: Tensor, units: SurvivingUnits) -> Tensor:
        """Batch normalisation of the survivors, whose running statistics alone move."""
        self._check_input_dim(x)
        weight, bias = (each if each is None else take(each, units) for each in (self.weight, self.bias))
        index, whole = units.on(x.device), (self.running_mean, self.running_var)
        mean, var = (each if each is None else each.index_select(0, index) for each in whole)
        batch = self.training or mean is None
        out = nn.functional.batch_norm(x, mean, var, weight, bias, batch, self.momentum, self.eps)
        if self.training and mean is not None:
            self.num_batches_tracked.add_(1)
            for running, moved in zip(whole, (mean, var), strict=True):
                running.index_copy_(0, index, moved)
        return out


class ThinBatchNorm1d(_ThinNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` in a chain."""


class ThinBatchNorm2d(_ThinNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` in a chain."""


class ThinBatchNorm3d(_ThinNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` in a chain."""


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


KINDS: tuple[type[nn.Module], ...] = (
    *(ThinLinear, ThinConv1d, ThinConv2d, ThinConv3d, ThinPReLU),
    *(ThinBatchNorm1d, ThinBatchNorm2d, ThinBatchNorm3d),
    *(ThinDropout, ThinDropout1d, ThinDropout2d, ThinDropout3d),
)
THIN: dict[type[nn.Module], type[nn.Module]] = {kind.__bases__[-1]: kind for kind in KINDS}
