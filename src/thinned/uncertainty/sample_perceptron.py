"""Samples of a perceptron, from its first dropout on, by one kernel for all layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from thinned._plans import gain
from thinned.kernels import networks
from thinned.kernels.networks import Masks
from thinned.key import Key, threshold
from thinned.masks import keep_mask
from thinned.uncertainty.prediction import Array

TERMS = 1 << 32  # multiplications in one call of the kernel: about a tenth of a second


@dataclass(frozen=True)
class Survivors:
    """A dropout of units. In each sample the same units survive in all rows, by its key and ``name``."""

    name: str
    p: float


@dataclass(frozen=True)
class InputMask:
    """A dropout of the inputs with a mask for each row; p < 1."""

    name: str
    p: float


@dataclass(frozen=True)
class Affine:
    """y = W·x + b, where x is all units, or those that a dropout keeps."""

    weight: Array  # (out, in)
    bias: Array | None
    drop: Survivors | InputMask | None = None
    clip: bool = False  # whether y becomes max(0, y)

    @property
    def dense(self) -> networks.Dense:
        """The layer as the kernel takes it; the weights include the survivors' factor."""
        scale = gain(self.drop.p) if self.drop else 1.0
        return networks.Dense(self.weight, self.bias, self.clip, isinstance(self.drop, Survivors), scale)


class Clip:
    """max(0, y)."""


Operation = Survivors | InputMask | Affine | Clip


def recognise(operations: Iterable[Operation | None]) -> Perceptron | None:
    """The perceptron that these operations, in the order of a pass, are.

    It is None if an operation is None, or if a perceptron cannot have it in this place.
    """
    layers: list[Affine] = []
    drop: Survivors | InputMask | None = None
    for operation in operations:
        if isinstance(operation, Affine):
            layers.append(replace(operation, drop=drop))
            drop = None
        elif drop is None and (
            isinstance(operation, Survivors) or (isinstance(operation, InputMask) and not layers)
        ):
            drop = operation
        elif isinstance(operation, Clip) and layers:  # before or after the dropout of its units
            layers[-1] = replace(layers[-1], clip=True)
        else:
            return None
    return Perceptron(layers) if layers and drop is None else None


@dataclass(frozen=True)
class Perceptron:
    """Affine layers one after the other."""

    layers: list[Affine]

    def takes(self, x: Array) -> bool:
        """Whether the kernel can run for inputs like x, (rows, units)."""
        given = [array for layer in self.layers for array in (layer.weight, layer.bias) if array is not None]
        fits = x.ndim == 2 and x.shape[1] == self.layers[0].weight.shape[1]
        return fits and all(array.dtype == x.dtype for array in given) and networks.available(x)

    def draw(
        self, x: Array, first: int, samples: int, key: Key, progress: Callable[[float], object], threads: int
    ) -> Array:
        """The outputs of the samples, (S, rows, out). Sample s takes its keys from ``key.fold_in(s)``.

        ``first`` is the index of the first row in the caller's x.
        """
        drop = self.layers[0].drop
        mask = drop if isinstance(drop, InputMask) else None
        masks = Masks(threshold(mask.p), first * x.shape[1]) if mask else None
        runs = networks.Networks(x, [layer.dense for layer in self.layers], threads, masks)
        step, out = math.ceil(max(1, TERMS // max(1, runs.terms)) / abs(threads)) * abs(threads), []
        for begin in range(0, samples, step):
            end = min(samples, begin + step)
            keys = [key.fold_in(s) for s in range(begin, end)]
            masks_of = [each.fold_in(mask.name) for each in keys] if mask else None
            out.append(runs.run(len(keys), list(self._kept(keys)), masks_of))
            progress(end / samples)
        return np.concatenate(out)

    def _kept(self, keys: list[Key]) -> Iterator[Array]:
        """For each dropout of units, those that survive in each sample: (samples, n)."""
        for layer in self.layers:
            if isinstance(drop := layer.drop, Survivors):
                n = layer.weight.shape[1]
                yield np.stack([keep_mask(n, drop.p, key=key.fold_in(drop.name)) for key in keys])
