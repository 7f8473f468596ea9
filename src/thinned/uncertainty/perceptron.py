"""A perceptron behind its first dropout: samples by one kernel, not layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from thinned import masks, theory
from thinned.kernels import networks
from thinned.kernels.networks import Dense
from thinned.key import Key
from thinned.uncertainty.summary import Array

TERMS = 1 << 32  # of the sums of one call: a tenth of a second or so


@dataclass(frozen=True)
class Drop:
    """A dropout of whole units; a sample picks the survivors with its key and that name."""

    name: str
    p: float


@dataclass(frozen=True)
class Linear:
    """y = W·x + b, of the survivors of a dropout or of all units."""

    weight: Array  # (out, in)
    bias: Array | None
    drop: Drop | None = None
    clip: bool = False  # max(0, y)

    @property
    def k(self) -> int | None:
        """How many units it reads; None: all."""
        return theory.survivor_count(self.weight.shape[1], self.drop.p) if self.drop else None


class ReLU:
    """max(0, y)."""


Part = Drop | Linear | ReLU


def perceptron(parts: Iterable[Part | None]) -> Perceptron | None:
    """What parts make, in the order of a pass: None where one is something else, or stands where none may."""
    layers: list[Linear] = []
    drop: Drop | None = None
    for part in parts:
        if isinstance(part, Linear):
            layers.append(replace(part, drop=drop))
            drop = None
        elif isinstance(part, Drop) and drop is None:
            drop = part
        elif isinstance(part, ReLU) and layers:  # before or behind the dropout of its units
            layers[-1] = replace(layers[-1], clip=True)
        else:
            return None
    return Perceptron(layers) if layers and drop is None else None


@dataclass(frozen=True)
class Perceptron:
    """Linear layers, each of the units of the one before."""

    layers: list[Linear]

    def takes(self, x: Array) -> bool:
        """Whether there is a kernel for these units, (rows, units)."""
        given = [array for layer in self.layers for array in (layer.weight, layer.bias) if array is not None]
        fits = x.ndim == 2 and x.shape[1] == self.layers[0].weight.shape[1]
        return fits and all(array.dtype == x.dtype for array in given) and networks.available(x)

    def draw(self, x: Array, samples: int, key: Key, told: Callable[[float], object], threads: int) -> Array:
        """The samples' outputs, (S, rows, out); sample s has its picks from ``key.fold_in(s)``."""
        dense = [Dense(each.weight, each.bias, each.clip, each.k) for each in self.layers]
        runs, step, out = networks.Networks(x, dense, threads), self._at_once(len(x), abs(threads)), []
        for first in range(0, samples, step):
            last = min(samples, first + step)
            out.append(runs.run(np.stack([self._pick(key.fold_in(s)) for s in range(first, last)])))
            told(last / samples)
        return np.concatenate(out)

    def _pick(self, key: Key) -> Array:
        """The survivors of a sample: those of each dropout after those of the last."""
        picks = (
            masks.survivors(layer.weight.shape[1], layer.drop.p, key.fold_in(layer.drop.name))[0]
            for layer in self.layers
            if layer.drop
        )
        return np.concatenate(list(picks))

    def _at_once(self, rows: int, threads: int) -> int:
        """Samples of a call, as many for each thread."""
        out = [after.k or len(each.weight) for each, after in zip(self.layers, self.layers[1:], strict=False)]
        sizes = zip(self.layers, [*out, len(self.layers[-1].weight)], strict=True)
        terms = rows * sum((layer.k or layer.weight.shape[1]) * n_out for layer, n_out in sizes)
        return -(-max(1, TERMS // max(1, terms)) // threads) * threads
