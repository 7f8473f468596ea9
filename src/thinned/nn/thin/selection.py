"""Which units of a layer survive a pass, and which rows and columns of a parameter they are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from thinned.kernels import survivors
from thinned.kernels.survivors import Indices


class SurvivingUnits:
    """The units of a layer that survive one pass: ascending indices among n, on the CPU.

    ``scale`` is the factor that the layers that read these units apply to them.
    """

    def __init__(self, index: Tensor, n: int, scale: float) -> None:
        self.index, self.n, self.scale = index, n, scale
        self._on_device = index

    def on(self, device: torch.device) -> Tensor:
        """The indices on a device."""
        if self._on_device.device != device:
            self._on_device = self.index.to(device, non_blocking=True)
        return self._on_device

    def indices(self, device: torch.device) -> Any:
        """The indices, as the kernels take them for tensors on that device."""
        return self.index.numpy() if device.type == "cpu" else self.on(device)


Chosen = SurvivingUnits | None  # None: all units


class Selection:
    """The rows and columns of a parameter that survive.

    A layer that reads a flattened map has a run of several columns for each unit: then the parameter is seen
    as (rows, units, columns of a unit).
    """

    def __init__(self, weight: Tensor, rows: Chosen, cols: Chosen) -> None:
        self.rows, self.cols = rows, cols
        self.parameter_shape = weight.shape
        self.shape = unit_shape(weight, cols)
        self.sizes = survivors.compact_shape(self.shape, *self.indices(torch.device("cpu")))
        in_runs = len(self.shape) > weight.dim()
        self.compact_shape = (self.sizes[0], math.prod(self.sizes[1:])) if in_runs else self.sizes

    def indices(self, device: torch.device) -> tuple[Indices | None, Indices | None]:
        """The indices of rows and columns, as the kernels take them for tensors on that device."""
        rows, cols = (each.indices(device) if each else None for each in (self.rows, self.cols))
        return rows, cols

    def take(self, weight: Tensor) -> Tensor:
        """The survivors of a tensor of the parameter's shape."""
        whole = weight.detach().reshape(self.shape)
        compact: Tensor = survivors.take(whole, *self.indices(whole.device))
        return compact.view(self.compact_shape)

    def place(self, compact: Tensor) -> Tensor:
        """A tensor of the parameter's shape: ``compact`` at the survivors, zeros elsewhere."""
        compact = compact.detach().reshape(self.sizes).contiguous()
        whole: Tensor = survivors.place(compact, *self.indices(compact.device), self.shape)
        return whole.view(self.parameter_shape)

    def add(self, compact: Tensor, whole: Tensor) -> None:
        """Add ``compact`` to the survivors of a tensor of the parameter's shape, in place."""
        compact = compact.reshape(self.sizes).contiguous()
        survivors.add(whole.view(self.shape), compact, *self.indices(whole.device))


def unit_shape(weight: Tensor, cols: Chosen) -> tuple[int, ...]:
    """The shape of a parameter with one column for each unit that it reads."""
    if cols is None or cols.n == weight.shape[1]:
        return tuple(weight.shape)
    return (len(weight), cols.n, weight.shape[1] // cols.n)
