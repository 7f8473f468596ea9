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
Kept = NDArray[np.bool_]


class Dense(NamedTuple):
    """y = scale·W·x + b, then max(0, y) where ``clip`` is set; with ``drops`` x is the survivors alone."""

    weight: Array  # (out, in), of any strides
    bias: Array | None  # (out,)
    clip: bool
    drops: bool
    scale: float


class Masks(NamedTuple):
    """A mask for each row of each network: threshold and first unit."""

    limit: int
    start: int


def available(x: Array) -> bool:
    """Whether the kernel is as fast as a library's products, which takes a processor with AVX2."""
    cpu = kernels.extension()
    return cpu is not None and x.dtype in (np.float32, np.float64) and "avx2" in cpu.levels()


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

    @property
    def terms(self) -> int:
        """The number of products in the sums of all units, for all rows."""
        return self.shape[0] * sum(layer.weight.size for layer in self.layers)

    def run(self, networks: int, kept: Sequence[Kept], keys: Sequence[Key] | None = None) -> Array:
        """The outputs (networks, rows, out).

        ``kept`` has the units that survive in each network, (networks, in), for each layer that drops;
        ``keys`` the key of each network's masks, where it has masks.
        """
        lists = [_lists(each) for each in kept]
        side_by_side = np.concatenate([np.zeros((networks, 0), np.int64), *lists], axis=1)
        words = np.array([key.words for key in keys or ()], np.uint32)
        out = kernels.empty((networks, self.shape[0], len(self.layers[-1].weight)), self.dtype)
        rows = (address(self.x), *self.shape, *((address(words), *self.masks) if self.masks else (0, 0, 0)))
        layers = self._described([each.shape[1] for each in lists])
        nets = (layers, networks, address(side_by_side), side_by_side.shape[1])
        self.cpu.networks(self.code, *rows, *nets, address(out), self.threads, self.level)
        return out

    def _described(self, lengths: list[int]) -> list[tuple[Any, ...]]:
        """The layers in the form that the extension takes; ``lengths`` of the lists of survivors."""
        begin, rest, sides = 0, iter(lengths), []  # the most units of each side, and where their list begins
        for layer in self.layers:
            length = next(rest) if layer.drops else 0
            sides.append((length - 1, begin) if layer.drops else (layer.weight.shape[1], -1))
            begin += length
        sides.append((len(self.layers[-1].weight), -1))
        described = []
        for layer, (n_in, list_in), (n_out, list_out) in zip(self.layers, sides, sides[1:], strict=False):
            by_out, by_in = (step // layer.weight.itemsize for step in layer.weight.strides)
            bias = 0 if layer.bias is None else address(layer.bias)
            sizes = (n_in, n_out, by_in, by_out, list_in, list_out)
            described.append((address(layer.weight), bias, *sizes, layer.scale, layer.clip))
        return described


def _lists(kept: Kept) -> Indices:
    """The survivors of each network: how many, and their indices, ascending; (networks, 1 + the most)."""
    counts = np.count_nonzero(kept, axis=1)
    lists = np.zeros((len(kept), 1 + int(counts.max(initial=0))), np.int64)
    lists[:, 0] = counts
    lists[:, 1:][np.arange(lists.shape[1] - 1) < counts[:, None]] = np.nonzero(kept)[1]
    return lists


def _contiguous(x: Array | None) -> Array | None:
    return None if x is None else np.ascontiguousarray(x)
