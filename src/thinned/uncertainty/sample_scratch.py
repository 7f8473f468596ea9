"""Samples of a network by hand, in NumPy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from thinned import kernels, masks, theory
from thinned.activations import RELU
from thinned.kernels import survivors
from thinned.kernels.survivors import Indices
from thinned.key import Key
from thinned.scratch import (
    DropConnect,
    Dropout,
    Layer,
    Linear,
    Maxout,
    Network,
    Thin,
)
from thinned.scratch.activations import ROWS
from thinned.scratch.drops import Drop
from thinned.scratch.thin import Narrow
from thinned.uncertainty import sample_perceptron as perceptron
from thinned.uncertainty.prediction import Array
from thinned.uncertainty.sample_perceptron import Operation

TOGETHER = 1 << 26  # bytes of activations of samples that run as one batch


class ScratchSampler:
    """A chain of layers: those before the first that drops, and the rest, of which samples are drawn.

    A sample s whose units are thinned, or whose masks are for a whole batch, takes its keys from
    ``key.fold_in(s).fold_in(name)``. Where every mask is for a row, sample s of row i is row i·S + s of a
    larger batch, whose keys are ``key.fold_in(0).fold_in(name)``.
    """

    def __init__(self, net: Network, thin: bool, outputs: str | None = None) -> None:
        layers = dict(_flat(net))
        self.outputs = outputs
        self.random: dict[str, str] = {}
        self.fixed: dict[str, str] = {}
        for name, layer in layers.items():
            if isinstance(layer, Drop | DropConnect) and layer.p > 0:
                known = _is_random(layer)
                told = repr(layer) if known else f"{type(layer).__name__} has a rule that is not known here"
                (self.random if known else self.fixed)[name] = told
        names = list(layers)
        cut = next((i for i, name in enumerate(names) if name in self.random), len(names))
        self.head = [twin(layer) for layer in list(layers.values())[:cut]]
        self.stages = list(_stages(layers, self.random)) if thin else []
        self.tail = [Step(name, layers[name], self.stages, cached=names[:cut]) for name in names[cut:]]
        self.random |= {stage.name: str(stage) for stage in self.stages}
        self.perceptron = perceptron.recognise(self._operations()) if self.stages else None
        self.one_by_one = bool(self.stages) or any(
            getattr(layers[name], "whole_batch", False) for name in self.random
        )

    def take(self, x: Any, start: int, stop: int) -> Array:
        """Rows of x, dense."""
        rows = x[start:stop]
        return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows)

    def before(self, x: Array) -> Array:
        """What the first random layer is given."""
        for layer in self.head:
            x = layer.forward(x)
        return x

    def evaluate(self, x: Array) -> Array:
        """The outputs, nothing dropped."""
        x = self.before(x)
        for step in self.tail:
            x = step.layer.forward(x)
        return x

    def draw(
        self, x: Array, first: int, samples: int, key: Key, progress: Callable[[float], object]
    ) -> Array:
        """The samples' outputs, (S, rows, *out)."""
        given, out = self.before(x), []
        if not self.one_by_one:
            return self._together(given, first, samples, key, progress)
        if self.perceptron is not None and self.perceptron.takes(given):
            return self.perceptron.draw(given, first, samples, key, progress, kernels.threads())
        for s in range(samples):
            out.append(self._sample(given, first, key.fold_in(s)))
            progress((s + 1) / samples)
        return np.stack(out)

    def _operations(self) -> Iterator[Operation | None]:
        """What the layers of the tail are, one after the other, as far as they are a perceptron's."""
        drops = {stage.name: perceptron.Survivors(stage.name, stage.p) for stage in self.stages}
        for step in self.tail:
            if step.name in drops:
                yield drops[step.name]
            elif type(drop := step.layer) is Dropout and drop.rescale == "train" and 0.0 < drop.p < 1.0:
                yield perceptron.InputMask(step.name, drop.p)
            elif type(step.layer) is Linear:
                yield perceptron.Affine(step.layer.params["weight"], step.layer.params["bias"])
            else:
                yield perceptron.Clip() if ROWS.get(type(step.layer)) is RELU else None

    def _sample(self, y: Array, first: int, key: Key) -> Array:
        """One sample: each stage's survivors are picked, then the layers run on them."""
        picked = {stage.name: stage.pick(key) for stage in self.stages}
        for step in self.tail:
            y = step.forward(y, picked, key, first)
        return y

    def _together(
        self, given: Array, first: int, samples: int, key: Key, progress: Callable[[float], object]
    ) -> Array:
        """Rows i·S + s of the larger batch, as many at once as memory allows."""
        n, base, parts = len(given) * samples, key.fold_in(0), []
        rows = max(1, TOGETHER // (4 * self.width(given)))
        for start in range(0, max(1, n), rows):
            y = given[np.arange(start, min(n, start + rows)) // samples]
            for step in self.tail:
                y = step.forward(y, {}, base, first * samples + start)
            parts.append(y)
            progress(min(1.0, (start + rows) / max(1, n)))
        y = np.concatenate(parts)
        return np.moveaxis(y.reshape(len(given), samples, *y.shape[1:]), 1, 0)

    def width(self, given: Array) -> int:
        """The numbers that a row is at its widest, about."""
        widest = [layer.n_out for layer in self._layers() if isinstance(layer, Linear | Maxout)]
        return max(1, int(np.prod(given.shape[1:])), *widest)

    def row_bytes(self, x: Array, samples: int) -> int:
        """The widest of a row twice, and its samples with what they are sorted in."""
        outputs = self.evaluate(x[:1])
        return 8 * self.width(x) + 32 * samples * int(np.prod(outputs.shape[1:]))

    def _layers(self) -> list[Layer]:
        return [*self.head, *(step.layer for step in self.tail)]


@dataclass(frozen=True)
class Stage:
    """A dropout of whole units between linear layers, as `scratch.Thin` finds it: k of n survive a sample."""

    name: str
    p: float
    n: int
    layers: tuple[str, ...]  # from the one that computes the units to the dropout
    reader: str

    def __str__(self) -> str:
        k = theory.survivor_count(self.n, self.p)
        return f"{k} of the {self.n} units of {self.layers[0]}, picked once a sample"

    def pick(self, key: Key) -> Indices:
        """The survivors of a sample with that key."""
        return masks.survivors(self.n, self.p, key.fold_in(self.name))[0]


def _stages(layers: dict[str, Layer], random: Container[str]) -> Iterator[Stage]:
    """Those of a network."""
    names = list(layers)
    for name, inside in Thin(Network(layers)).stages.items():
        drop, first = layers[name], layers[inside[0]]
        if name in random and isinstance(drop, Drop) and isinstance(first, Linear | Maxout):
            yield Stage(name, drop.p, first.n_out, tuple(inside), names[names.index(name) + 1])


class Step:
    """A layer of the tail: all of it, or, in a stage, what is picked."""

    def __init__(self, name: str, layer: Layer, stages: list[Stage], cached: list[str]) -> None:
        self.name, self.layer = name, twin(layer)
        of = next((stage for stage in stages if name in stage.layers), None)  # whose units it computes
        read = next((stage for stage in stages if name == stage.reader), None)
        self.rows, self.cols = of.name if of else "", read.name if read else ""
        # the dropout of units that were computed already: all come, some go on
        self.narrows = of is not None and name == of.name and of.layers[0] in cached
        self.narrow = Narrow(name, layer, of.n if of else 0) if of or read else None

    def forward(self, y: Array, picked: dict[str, Indices], key: Key, first: int) -> Array:
        """The layer's output for rows of which the first has that index."""
        if self.narrow is not None:
            rows, cols = picked.get(self.rows), picked.get(self.cols)
            self.narrow.pick(rows, cols)
            if self.narrows:
                y = survivors.take(np.ascontiguousarray(y), None, rows)
            return self.narrow.layer.forward(y)
        if _is_random(self.layer):
            return self.layer.drop(y, key.fold_in(self.name), first)
        return self.layer.forward(y)


def _is_random(layer: Layer) -> TypeGuard[Drop | DropConnect]:
    """Whether it drops by its method; a subclass may have another mask, which is not known here."""
    return isinstance(layer, Drop | DropConnect) and type(layer).drop in (Drop.drop, DropConnect.drop)


def _flat(net: Network, outer: str = "") -> Iterator[tuple[str, Layer]]:
    """Qualified name and layer, those of networks inside it too."""
    for name, layer in net.children.items():
        if isinstance(layer, Network):
            yield from _flat(layer, f"{outer}{name}.")
        else:
            yield outer + name, layer


def twin(layer: Layer) -> Layer:
    """The same parameters in another layer: what a pass leaves there is not seen in the network."""
    other = copy.copy(layer)
    if isinstance(other, Maxout):
        other.linear = copy.copy(other.linear)
    return other
