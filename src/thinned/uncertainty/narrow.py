"""Layers of some units: a copy of a layer of `thinned.scratch` that computes the units which survive."""

from __future__ import annotations

import copy

import numpy as np

from thinned._plans import gain
from thinned.kernels import survivors
from thinned.kernels.survivors import Indices
from thinned.key import Key
from thinned.scratch import BatchNorm, Layer, Linear, Maxout
from thinned.scratch.drops import Drop
from thinned.scratch.layer import Array


class Narrow:
    """A copy of a layer for some of the n units of its stage; of a dropout, its survivors' factor 1/(1 − p).

    It has the parameters of the units ``rows``, which read the units ``cols``, None for all; no penalties.
    """

    def __init__(self, name: str, whole: Layer, n: int) -> None:
        self.name, self.whole, self.n = name, whole, n
        self.rows: Indices | None = None
        self.cols: Indices | None = None
        self.layer: Layer = Scale() if isinstance(whole, Drop) else copy.copy(whole)
        self.linear = self.layer  # what computes with a weight
        if isinstance(self.layer, Maxout):
            self.layer.linear = self.linear = copy.copy(self.layer.linear)
        if isinstance(self.linear, Linear):
            self.linear.l1 = self.linear.l2 = self.linear.bias_l1 = self.linear.bias_l2 = 0.0
        self.params: dict[str, Array] = {}
        for layer in (self.layer, self.linear):
            layer.params, layer.buffers = self.params, {}

    def pick(self, rows: Indices | None, cols: Indices | None) -> None:
        """Copy the parameters of these units into the arrays of the last pass."""
        if rows is not None and isinstance(self.layer, Maxout):  # the rows of all its pieces
            rows = (np.arange(self.layer.pieces)[:, None] * self.n + rows).ravel()
        self.rows, self.cols = rows, cols
        for name, param in self.whole.params.items():
            columns = cols if param.ndim > 1 else None
            shape = survivors.compact_shape(param.shape, rows, columns)
            if name not in self.params or self.params[name].shape != shape:
                self.params[name] = np.empty(shape, param.dtype)
            survivors.take(param, rows, columns, self.params[name])
        if rows is not None:
            self.layer.buffers = {name: buffer[rows] for name, buffer in self.whole.buffers.items()}
        self._fit()

    def _fit(self) -> None:
        """Set the sizes of the layer."""
        if isinstance(self.linear, Linear):
            self.linear.n_out, self.linear.n_in = self.params["weight"].shape
        if isinstance(self.layer, Maxout):
            self.layer.n_out = len(self.params["weight"]) // self.layer.pieces
            self.layer.n_in = self.params["weight"].shape[1]
        if isinstance(self.layer, BatchNorm) and self.rows is not None:
            self.layer.shape = (len(self.rows),)
        if isinstance(self.layer, Scale) and isinstance(self.whole, Drop):
            self.layer.scale = gain(self.whole.p)


class Scale(Layer):
    """y = s·x."""

    scale = 1.0

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Any shape -> same."""
        return x * self.scale
