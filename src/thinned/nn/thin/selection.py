"""Which units of a layer survive a pass, and which rows and columns of a parameter they are."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinned.kernels import survivors
from thinned.kernels.groups import Picks
from thinned.kernels.survivors import Indices


class SurvivingUnits:
    """The units of a layer that one group of rows keeps: ascending indices among n, on the CPU."""

    def __init__(self, index: Tensor, n: int) -> None:
        self.index, self.n = index, n
        self._on_device = index

    def on(self, device: torch.device) -> Tensor:
        """The indices on a device."""
        if self._on_device.device != device:
            self._on_device = self.index.to(device, non_blocking=True)
        return self._on_device

    def indices(self, device: torch.device) -> Any:
        """The indices, as the kernels take them for tensors on that device."""
        return self.index.numpy() if device.type == "cpu" else self.on(device)


class Units:
    """The units of a layer that survive a pass: those that each group of rows keeps.

    Row i belongs to group i mod groups. A compact tensor has ``width`` columns: the units of a row's
    group side by side, then columns without a unit. ``index`` (groups, width) has the unit of each column,
    and 0 where ``valid`` is False. The layers that read these units multiply them by ``scale``.
    """

    picks: Picks | None = None  # None in a compiled graph, which knows index and valid alone
    full = False  # whether each column of each group is known to have a unit

    def __init__(self, n: int, index: Tensor, valid: Tensor, scale: float) -> None:
        self.n, self.index, self.valid, self.scale = n, index, valid, scale

    @classmethod
    def of(cls, picks: Picks, scale: float) -> Units:
        """The units of some picks."""
        return _PickedUnits(picks, scale)

    @property
    def groups(self) -> int:
        """How many groups there are."""
        return len(self.index)

    @property
    def width(self) -> int:
        """The columns of a compact tensor."""
        return self.index.shape[1]

    def columns(self, rows: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The unit of each column of each of so many rows, and whether there is one; each (rows, width)."""
        group = torch.arange(rows, device=device) % self.groups
        return self.index.to(device)[group], self.valid.to(device)[group]

    def mask(self, rows: int, device: torch.device) -> Tensor:
        """(rows, n): True = kept."""
        index, valid = self.columns(rows, device)
        kept = torch.zeros(rows, self.n, dtype=torch.int32, device=device)
        return kept.scatter_add(1, index, valid.int()).bool()

    def among_all(self) -> Units:
        """The same for tensors with a column for each of the n units."""
        index = torch.arange(self.n).expand(self.groups, self.n)
        return Units(self.n, index, self.mask(self.groups, torch.device("cpu")), self.scale)

    def repeated(self, run: int) -> Units:
        """The same for columns of a weight, of which each unit has a run."""
        if run == 1:
            return self
        index = (self.index[:, :, None] * run + torch.arange(run)).flatten(1)
        return Units(self.n * run, index, self.valid.repeat_interleave(run, dim=1), self.scale)

    def over(self, groups: int) -> Units:
        """The same for a multiple of the groups."""
        times = groups // self.groups
        return Units(self.n, self.index.repeat(times, 1), self.valid.repeat(times, 1), self.scale)


class _PickedUnits(Units):
    """The units of some picks, whose tensors are made when they are needed."""

    def __init__(self, picks: Picks, scale: float) -> None:
        self.picks: Picks = picks
        self.n, self.scale = picks.n, scale
        self.full = bool((picks.counts == picks.width).all())
        self._group: dict[int, SurvivingUnits] = {}
        self._repeated: dict[int, Units] = {}

    @property
    def groups(self) -> int:
        return self.picks.groups

    @property
    def width(self) -> int:
        return self.picks.width

    @cached_property
    def index(self) -> Tensor:  # type: ignore[override]
        columns = self.picks.columns.astype(np.int64)
        return torch.from_numpy(np.where(columns < self.n, columns, 0))

    @cached_property
    def valid(self) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(self.picks.columns < self.n)

    def mask(self, rows: int, device: torch.device) -> Tensor:
        kept = torch.from_numpy(self.picks.units).to(device)
        return kept[torch.arange(rows, device=device) % self.groups]

    def group(self, g: int) -> SurvivingUnits:
        """The units of one group."""
        if g not in self._group:
            self._group[g] = SurvivingUnits(torch.from_numpy(self.picks.survivors[g]), self.n)
        return self._group[g]

    def repeated(self, run: int) -> Units:
        if run == 1:
            return self
        if run not in self._repeated:
            self._repeated[run] = _PickedUnits(self.picks.repeated(run), self.scale)
        return self._repeated[run]

    def over(self, groups: int) -> Units:
        return self if groups == self.groups else _PickedUnits(self.picks.over(groups), self.scale)


Chosen = SurvivingUnits | None  # None: all units


class Selection:
    """The rows and columns of a parameter (R, C, *) that survive in a pass with one group."""

    def __init__(self, weight: Tensor, rows: Chosen, cols: Chosen) -> None:
        self.rows, self.cols = rows, cols
        self.shape = tuple(weight.shape)
        self.compact_shape = survivors.compact_shape(self.shape, *self.indices(torch.device("cpu")))

    def indices(self, device: torch.device) -> tuple[Indices | None, Indices | None]:
        """The indices of rows and columns, as the kernels take them for tensors on that device."""
        rows, cols = (each.indices(device) if each else None for each in (self.rows, self.cols))
        return rows, cols

    def place(self, compact: Tensor) -> Tensor:
        """A tensor of the parameter's shape: ``compact`` at the survivors, zeros elsewhere."""
        compact = compact.detach().contiguous()
        whole: Tensor = survivors.place(compact, *self.indices(compact.device), self.shape)
        return whole
