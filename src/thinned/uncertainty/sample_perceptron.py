"""Samples of a perceptron, from its first dropout on, by one kernel for all layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from thinned import theory
from thinned.kernels import networks
from thinned.kernels.networks import Masks
from thinned.key import Key, threshold
from thinned.masks import survivors
from thinned.uncertainty.prediction import Array

TERMS = 1 << 32  # multiplications in one call of the kernel: about a tenth of a second


@dataclass(frozen=True)
class Survivors:
    """A dropout of whole units. Each sample picks the survivors for all rows, by its key and ``name``."""

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
    def k(self) -> int | None:
        """The number of units that survive; None: all."""
        n = self.weight.shape[1]
        return theory.survivor_count(n, self.drop.p) if isinstance(self.drop, Survivors) else None

    @property
    def dense(self) -> networks.Dense:
        """The layer as the kernel takes it; the weights include the survivors' factor."""
        scale = self.weight.shape[1] / self.k if self.k else 1.0
        if isinstance(self.drop, InputMask):
            scale = 1.0 / (1.0 - self.drop.p)
        return networks.Dense(self.weight, self.bias, self.clip, self.k, scale)


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
            picks = np.stack([self._pick(of_sample) for of_sample in keys])
            out.append(runs.run(picks, [each.fold_in(mask.name) for each in keys] if mask else None))
            progress(end / samples)
        return np.concatenate(out)

    def _pick(self, key: Key) -> Array:
        """The survivors of one sample, for all dropouts one after the other."""
        drops = [(layer.weight.shape[1], layer.drop) for layer in self.layers]
        picks = (
            survivors(n, drop.p, key.fold_in(drop.name)) for n, drop in drops if isinstance(drop, Survivors)
        )
        return np.concatenate([np.zeros(0, np.int64), *(pick[0] for pick in picks)])
