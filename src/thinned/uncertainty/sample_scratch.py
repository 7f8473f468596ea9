"""Samples of a network of `thinned.scratch`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from thinned import kernels
from thinned.activations import RELU
from thinned.kernels import survivors
from thinned.kernels.survivors import Indices
from thinned.key import Key
from thinned.masks import keep_mask
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
from thinned.uncertainty.narrow import Narrow
from thinned.uncertainty.prediction import Array
from thinned.uncertainty.sample_perceptron import Affine, Clip, InputMask, Operation, Survivors, recognise

TOGETHER = 1 << 26  # bytes of activations in a batch of samples, at most


class ScratchSampler:
    """Samples a network: the layers before the first that drops (head) run once, the rest (tail) each time.

    If units are thinned, or samples share a mask, sample s takes its keys from
    ``key.fold_in(s).fold_in(name)``. Otherwise sample s of row i is row i·S + s of one larger batch, whose
    keys are ``key.fold_in(0).fold_in(name)``.
    """

    def __init__(self, net: Network, thin: bool, outputs: str | None = None) -> None:
        layers = dict(_flat(net))
        self.outputs = outputs
        self.random: dict[str, str] = {}
        self.fixed: dict[str, str] = {}
        for name, layer in layers.items():
            if isinstance(layer, Drop | DropConnect) and layer.p > 0:
                known = _is_random(layer)
                what = repr(layer) if known else f"{type(layer).__name__} has a rule that is not known here"
                (self.random if known else self.fixed)[name] = what
        names = list(layers)
        cut = next((i for i, name in enumerate(names) if name in self.random), len(names))
        self.head = [twin(layer) for layer in list(layers.values())[:cut]]
        self.stages = list(_stages(layers, self.random)) if thin else []
        self.tail = [Step(name, layers[name], self.stages, cached=names[:cut]) for name in names[cut:]]
        self.random |= {stage.name: str(stage) for stage in self.stages}
        self.perceptron = recognise(self._operations()) if self.stages else None
        random = (layer for layer in layers.values() if _is_random(layer) and layer.p > 0)
        self.one_by_one = bool(self.stages) or any(layer.shares_mask for layer in random)

    def take(self, x: Any, start: int, stop: int) -> Array:
        """Rows of x, as a dense array."""
        rows = x[start:stop]
        return np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows)

    def before(self, x: Array) -> Array:
        """The input of the first random layer."""
        for layer in self.head:
            x = layer.forward(x)
        return x

    def evaluate(self, x: Array) -> Array:
        """The outputs in evaluation."""
        x = self.before(x)
        for step in self.tail:
            x = step.layer.forward(x)
        return x

    def draw(
        self, x: Array, first: int, samples: int, key: Key, progress: Callable[[float], object]
    ) -> Array:
        """The outputs of the samples, (S, rows, *out); ``first`` is the index of the first row in x."""
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
        """The layers of the tail as operations of a perceptron, in order; None for another layer."""
        drops = {stage.name: Survivors(stage.name, stage.p) for stage in self.stages}
        for step in self.tail:
            if step.name in drops:
                yield drops[step.name]
            elif type(drop := step.layer) is Dropout and drop.rescale == "train" and 0.0 < drop.p < 1.0:
                yield InputMask(step.name, drop.p)
            elif type(step.layer) is Linear:
                yield Affine(step.layer.params["weight"], step.layer.params["bias"])
            else:
                yield Clip() if ROWS.get(type(step.layer)) is RELU else None

    def _sample(self, y: Array, first: int, key: Key) -> Array:
        """One sample: draw the survivors of each stage, then run the layers on them."""
        picked = {stage.name: stage.draw(key) for stage in self.stages}
        for step in self.tail:
            y = step.forward(y, picked, key, first)
        return y

    def _together(
        self, given: Array, first: int, samples: int, key: Key, progress: Callable[[float], object]
    ) -> Array:
        """All samples, as rows i·S + s of one batch, as many at once as memory allows."""
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
        """About the numbers in the widest layer for one row."""
        widest = [layer.n_out for layer in self._layers() if isinstance(layer, Linear | Maxout)]
        return max(1, int(np.prod(given.shape[1:])), *widest)

    def row_bytes(self, x: Array, samples: int) -> int:
        """About the bytes of a row: its widest layer twice, and its samples while they are sorted."""
        outputs = self.evaluate(x[:1])
        return 8 * self.width(x) + 32 * samples * int(np.prod(outputs.shape[1:]))

    def _layers(self) -> list[Layer]:
        return [*self.head, *(step.layer for step in self.tail)]


@dataclass(frozen=True)
class Stage:
    """A dropout of n units between linear layers, found by `scratch.Thin`.

    In each sample the same units survive in all rows, each with probability 1 − p. For a row alone these are
    the masks of plain dropout. The balanced picks of `Thin` are not: they keep nearly the same number of
    units each time, so outputs whose units add up would vary too little.
    """

    name: str
    p: float
    n: int
    layers: tuple[str, ...]  # from the one that computes the units to the dropout
    reader: str

    def __str__(self) -> str:
        return f"{1.0 - self.p:.4g} of the {self.n} units of {self.layers[0]}, drawn once a sample"

    def draw(self, key: Key) -> Indices:
        """The survivors of a sample with that key, ascending."""
        return np.flatnonzero(keep_mask(self.n, self.p, key=key.fold_in(self.name)))


def _stages(layers: dict[str, Layer], random: Container[str]) -> Iterator[Stage]:
    """The stages of a network whose dropout is random."""
    names = list(layers)
    for name, inside in Thin(Network(layers)).stages.items():
        drop, first = layers[name], layers[inside[0]]
        if name in random and type(drop) is Dropout and isinstance(first, Linear | Maxout):
            yield Stage(name, drop.p, first.n_out, tuple(inside), names[names.index(name) + 1])


class Step:
    """A layer of the tail. In a stage it computes only the units that are picked."""

    def __init__(self, name: str, layer: Layer, stages: list[Stage], cached: list[str]) -> None:
        self.name, self.layer = name, twin(layer)
        # the stages whose units it computes, and whose units it reads
        of = next((stage for stage in stages if name in stage.layers), None)
        read = next((stage for stage in stages if name == stage.reader), None)
        self.rows, self.cols = of.name if of else "", read.name if read else ""
        # a dropout whose units the head has computed: it selects the survivors
        self.narrows = of is not None and name == of.name and of.layers[0] in cached
        self.narrow = Narrow(name, layer, of.n if of else 0) if of or read else None

    def forward(self, y: Array, picked: dict[str, Indices], key: Key, first: int) -> Array:
        """The layer's output for rows y; ``first`` is the index of the first row."""
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
    """Whether a layer drops by its method. A subclass with another rule is not sampled."""
    return isinstance(layer, Drop | DropConnect) and type(layer).drop in (Drop.drop, DropConnect.drop)


def _flat(net: Network, outer: str = "") -> Iterator[tuple[str, Layer]]:
    """Qualified name and layer, also for networks inside the network."""
    for name, layer in net.children.items():
        if isinstance(layer, Network):
            yield from _flat(layer, f"{outer}{name}.")
        else:
            yield outer + name, layer


def twin(layer: Layer) -> Layer:
    """A copy of a layer that shares its parameters. A pass through it does not change the network."""
    other = copy.copy(layer)
    if isinstance(other, Maxout):
        other.linear = copy.copy(other.linear)
    return other
