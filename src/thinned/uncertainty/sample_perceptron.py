"""A perceptron behind its first dropout: samples by one kernel, not layer by layer."""

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

TERMS = 1 << 32  # of the sums of one call, about: a tenth of a second or so; as many samples for each thread


@dataclass(frozen=True)
class Drop:
    """A dropout of whole units; a sample picks the survivors with its key and that name."""

    name: str
    p: float


@dataclass(frozen=True)
class Mask:
    """A dropout of the units that come first, with a mask for each row; p < 1."""

    name: str
    p: float


@dataclass(frozen=True)
class Linear:
    """y = W·x + b, of what a dropout leaves or of all units."""

    weight: Array  # (out, in)
    bias: Array | None
    drop: Drop | Mask | None = None
    clip: bool = False  # max(0, y)

    @property
    def k(self) -> int | None:
        """How many units it reads; None: all."""
        n = self.weight.shape[1]
        return theory.survivor_count(n, self.drop.p) if isinstance(self.drop, Drop) else None

    @property
    def dense(self) -> networks.Dense:
        """It, for the kernel: the survivors' factor is the weights'."""
        scale = self.weight.shape[1] / self.k if self.k else 1.0
        if isinstance(self.drop, Mask):
            scale = 1.0 / (1.0 - self.drop.p)
        return networks.Dense(self.weight, self.bias, self.clip, self.k, scale)


class ReLU:
    """max(0, y)."""


Part = Drop | Mask | Linear | ReLU


def perceptron(parts: Iterable[Part | None]) -> Perceptron | None:
    """What parts make, in the order of a pass: None where one is something else, or stands where none may."""
    layers: list[Linear] = []
    drop: Drop | Mask | None = None
    for part in parts:
        if isinstance(part, Linear):
            layers.append(replace(part, drop=drop))
            drop = None
        elif drop is None and (isinstance(part, Drop) or (isinstance(part, Mask) and not layers)):
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

    def draw(
        self, x: Array, first: int, samples: int, key: Key, told: Callable[[float], object], threads: int
    ) -> Array:
        """The samples' outputs, (S, rows, out); sample s has its keys from ``key.fold_in(s)``.

        ``first`` is the index of the first row in all of x.
        """
        drop = self.layers[0].drop
        mask = drop if isinstance(drop, Mask) else None
        masks = Masks(threshold(mask.p), first * x.shape[1]) if mask else None
        runs = networks.Networks(x, [layer.dense for layer in self.layers], threads, masks)
        step, out = math.ceil(max(1, TERMS // max(1, runs.terms)) / abs(threads)) * abs(threads), []
        for begin in range(0, samples, step):
            end = min(samples, begin + step)
            keys = [key.fold_in(s) for s in range(begin, end)]
            picks = np.stack([self._pick(of_sample) for of_sample in keys])
            out.append(runs.run(picks, [each.fold_in(mask.name) for each in keys] if mask else None))
            told(end / samples)
        return np.concatenate(out)

    def _pick(self, key: Key) -> Array:
        """The survivors of a sample: those of each dropout after those of the last."""
        drops = [(layer.weight.shape[1], layer.drop) for layer in self.layers]
        picks = (survivors(n, drop.p, key.fold_in(drop.name)) for n, drop in drops if isinstance(drop, Drop))
        return np.concatenate([np.zeros(0, np.int64), *(pick[0] for pick in picks)])
