"""Many thinned networks of one perceptron, run on the same rows, by the C++ extension.

A network's survivors are the same for all rows, so that it is a small dense network. The rows' units are laid
out once, so that every network reads its survivors in place; each network copies its survivors' weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinned import kernels
from thinned.kernels import address
from thinned.kernels.survivors import Indices
from thinned.key import Key

Array = NDArray[Any]


class Dense(NamedTuple):
    """y = scale·W·x + b, then max(0, y) where ``clip`` is set, with k of its inputs; None means all."""

    weight: Array  # (out, in), of any strides
    bias: Array | None  # (out,)
    clip: bool
    k: int | None
    scale: float


class Masks(NamedTuple):
    """A mask for each row of each network: threshold and first unit."""

    limit: int
    start: int


def available(x: Array) -> bool:
    """Whether the kernel is as fast as a library's products, which takes a processor with AVX2."""
    cpu = kernels.extension()
    return cpu is not None and x.dtype in (np.float32, np.float64) and cpu.levels()[-1] != "plain"


class Networks:
    """Rows x (rows, units) and the layers of thinned networks that run on them, in the dtype of x.

    With ``masks`` each network has its own mask of all units of all rows, and the first layer reads all.
    """

    def __init__(
        self, x: Array, layers: Sequence[Dense], threads: int, masks: Masks | None = None, level: str = ""
    ) -> None:
        cpu = kernels.extension()
        assert cpu is not None
        self.cpu, self.threads, self.level = cpu, threads, level
        self.layers = [each._replace(bias=_contiguous(each.bias)) for each in layers]
        self.dtype, self.code, self.shape = x.dtype, kernels.DTYPES[x.dtype.name], x.shape
        self.x, self.masks = np.ascontiguousarray(x), masks
        if masks is None:
            panel: int = cpu.panel(self.code, level)
            room = kernels.buffer(-(-len(x) // panel) * panel * x.shape[1] * x.itemsize)
            laid_out = np.frombuffer(room, x.dtype)
            cpu.lay_out(self.code, address(self.x), *x.shape, address(laid_out), level)
            self.x = laid_out
        self.described = self._described()

    @property
    def terms(self) -> int:
        """The number of products in a network's sums, for all rows."""
        return self.shape[0] * sum(n_in * n_out for _, _, n_in, n_out, *_ in self.described)

    def run(self, picks: Indices, keys: Sequence[Key] | None = None) -> Array:
        """The outputs (networks, rows, out).

        ``picks`` (networks, Σk) has the indices of each layer that has a k, side by side; ``keys`` the key of
        each network's masks, where it has masks.
        """
        picks = np.ascontiguousarray(picks)
        words = np.array([key.words for key in keys or ()], np.uint32)
        out = kernels.empty((len(picks), self.shape[0], len(self.layers[-1].weight)), self.dtype)
        rows = (address(self.x), *self.shape, *((address(words), *self.masks) if self.masks else (0, 0, 0)))
        nets = (self.described, len(picks), address(picks), picks.shape[1])
        self.cpu.networks(self.code, *rows, *nets, address(out), self.threads, self.level)
        return out

    def _described(self) -> list[tuple[Any, ...]]:
        """The layers in the form that the extension takes."""
        begin, described = 0, []
        for layer, after in zip(self.layers, (*self.layers[1:], None), strict=True):
            out, n = layer.weight.shape
            end = begin + (layer.k or 0)
            by_out, by_in = (step // layer.weight.itemsize for step in layer.weight.strides)
            k_out = after.k if after else None
            where = (begin if layer.k else -1, end if k_out else -1)
            sizes = (layer.k or n, k_out or out, by_in, by_out)
            bias = 0 if layer.bias is None else address(layer.bias)
            described.append((address(layer.weight), bias, *sizes, *where, layer.scale, layer.clip))
            begin = end
        return described


def _contiguous(x: Array | None) -> Array | None:
    return None if x is None else np.ascontiguousarray(x)
