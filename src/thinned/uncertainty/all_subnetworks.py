"""All thinned networks of a small net: the whole ensemble that dropout trains."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from thinned import _checks, theory
from thinned._plans import gain
from thinned.masks import panel_size
from thinned.scratch import Dropout, ThinDropout
from thinned.uncertainty.predict import sampler_of
from thinned.uncertainty.prediction import TINY, Array, probabilities
from thinned.uncertainty.sample_scratch import ScratchSampler

LIMIT = 1 << 16  # the default of ``limit``
TOGETHER = 1 << 24  # numbers in a batch of networks, at most
ROUNDING = 1e-9  # of (1 − p)n, relative to 1


@dataclass(frozen=True)
class Averages:
    """Averages over all thinned networks of a net; each is (N, classes).

    Attributes:
        arithmetic: Σ_m P(m)·p_m, the mean of their probabilities.
        geometric: ∏_m p_m^P(m), scaled to sum to 1.
        votes: the share of networks, weighted by P(m), whose most probable class this is.
        scaled: the probabilities of the mean network (weight scaling).
        networks: their number: 2ⁿ for n units, n!/(k!(n − k)!) if k survive.
        effective: exp of the entropy of P(m): the number of networks that share the training. It is
            ``networks`` if p = ½ or if always k survive.
    """

    arithmetic: Array
    geometric: Array
    votes: Array
    scaled: Array
    networks: int
    effective: float


def average(model: Any, x: Any, limit: int = LIMIT, *, thin: bool = False) -> Averages:
    """Averages over all thinned networks of a small net.

    Arguments and errors are those of `subnetworks`. If the net has no hidden layers, or only linear ones, the
    geometric mean equals weight scaling exactly.

    Srivastava et al. 2014, JMLR 15:1929-1958; the geometric mean: Baldi and Sadowski 2013, NIPS 26;
    Warde-Farley, Goodfellow, Courville and Bengio 2013, arXiv:1312.6197.
    """
    sampler, x = _small(model, x, thin)
    given = sampler.before(x)
    layers = _allowed(sampler, given, limit)
    total = log_total = votes = np.zeros(())
    for chance, p in _blocks(sampler, given, layers):
        best = p == p.max(axis=-1, keepdims=True)
        total = total + np.tensordot(chance, p, 1)
        log_total = log_total + np.tensordot(chance, np.log(np.maximum(p, TINY)), 1)
        votes = votes + np.tensordot(chance, best / best.sum(axis=-1, keepdims=True), 1)
    scaled, geometric = probabilities(sampler.evaluate(x), "logits"), probabilities(log_total, "logits")
    effective = math.prod(layer.effective for layer in layers)
    return Averages(total, geometric, votes, scaled, math.prod(layer.networks for layer in layers), effective)


def subnetworks(
    model: Any, x: Any, limit: int = LIMIT, *, thin: bool = False
) -> Iterator[tuple[Array, Array]]:
    """Yields all thinned networks of a small net, in blocks: P(m) (networks,) and p_m (networks, N, classes).

    ``model`` is a `DropoutMLPClassifier`, or a network of `thinned.scratch` whose `Dropout` layers drop
    elements of vectors; x is (N, features). A dropout of n units makes 2ⁿ networks with
    P(m) = ∏ p^dropped·(1 − p)^kept. A `ThinDropout` keeps k = ⌊(1 − p)n⌋ or k + 1 units of each row: so many
    that a unit is kept with probability 1 − p; networks with the same number of units have equal P(m). With
    ``thin`` so does each dropout that `thinned.scratch.Thin` thins.

    The order is that of ``itertools.product((0, 1), …)`` over the units, where 1 is kept, or of
    ``itertools.combinations`` of k, then k + 1 survivors. If several layers drop, the masks of the last
    change fastest.

    Raises ValueError if there are more than ``limit`` networks, if a `ThinDropout` keeps panels of several
    units (`thinned.masks.panel_size`), or if another kind of layer drops; TypeError if ``model`` is no
    classifier.
    """
    sampler, x = _small(model, x, thin)
    given = sampler.before(x)
    return _blocks(sampler, given, _allowed(sampler, given, limit))


@dataclass(frozen=True)
class Dropping:
    """A layer that drops some of n units: each with probability p, or all but a number of survivors."""

    n: int
    p: float
    gain: float  # the factor of survivors
    counts: tuple[tuple[int, float], ...] = ()  # numbers of survivors and their probabilities; (): any

    @property
    def networks(self) -> int:
        """The number of its masks."""
        return sum(theory.subnetworks(self.n, k) for k in self.numbers)

    @property
    def numbers(self) -> tuple[int | None, ...]:
        """The numbers of survivors; None: any."""
        return tuple(k for k, _ in self.counts) or (None,)

    @property
    def effective(self) -> float:
        """exp of the entropy of its masks."""
        if not self.counts:
            return theory.effective_subnetworks(self.n, self.p)
        return math.exp(sum(q * math.log(math.comb(self.n, k) / q) for k, q in self.counts))

    def __str__(self) -> str:
        if not self.counts:
            return f"2**{self.n}"
        return f"{self.networks} ({' or '.join(map(str, self.numbers))} of {self.n})"

    def masks(self) -> Array:
        """All its masks: (networks, n)."""
        return np.concatenate([_masks(self.n, k) for k in self.numbers])

    def chance(self, kept: Array) -> Array:
        """P(m) of masks ``kept`` (networks, n)."""
        if not self.counts:
            return np.prod(np.where(kept, 1.0 - self.p, self.p), axis=1)
        each = np.zeros(self.n + 1)
        for k, q in self.counts:
            each[k] = q / math.comb(self.n, k)
        return each[np.count_nonzero(kept, axis=1)]


@lru_cache(8)
def _masks(n: int, k: int | None) -> Array:
    """All masks of n units, or those that keep exactly k: (networks, n)."""
    if k is None:
        return np.arange(1 << n)[:, None] >> np.arange(n)[::-1] & 1 == 1
    masks = np.zeros((math.comb(n, k), n), bool)
    np.put_along_axis(masks, np.array(list(itertools.combinations(range(n), k)), int), True, axis=1)
    return masks


def _counts(n: int, p: float) -> tuple[tuple[int, float], ...]:
    """How many of n units `thinned.masks.picks` keeps, and how probable that is."""
    if panel_size(n) > 1:
        panels = f"{n} units in panels of {panel_size(n)}"
        raise ValueError(f"a thinned layer must be small enough to keep single units, got {panels}")
    kept = (1.0 - p) * n
    k = math.floor(kept + ROUNDING)
    more = max(kept - k, 0.0)
    return ((k, 1.0),) if more < ROUNDING else ((k, 1.0 - more), (k + 1, more))


def _small(model: Any, x: Any, thin: bool) -> tuple[ScratchSampler, Array]:
    """The sampler that runs the networks, and x as it takes it. Raises TypeError if it is no classifier."""
    sampler, x, outputs = sampler_of(model, x, None, thin)
    if not isinstance(sampler, ScratchSampler) or outputs != "logits":
        kind = type(model).__name__
        raise TypeError(f"model must be a classifier of thinned.scratch or thinned.estimators, got {kind}")
    return sampler, sampler.take(x, 0, x.shape[0])


def _allowed(sampler: ScratchSampler, given: Array, limit: int) -> list[Dropping]:
    """The layers that drop. Raises ValueError if they make more networks than ``limit``."""
    layers, limit = list(_dropping(sampler, given)), _checks.positive_int("limit", limit)
    if math.prod(layer.networks for layer in layers) > limit:
        found = f"{' · '.join(map(str, layers))} of {sum(layer.n for layer in layers)} units"
        raise ValueError(f"model must have at most limit = {limit} thinned networks, got {found}")
    return layers


def _dropping(sampler: ScratchSampler, y: Array) -> Iterator[Dropping]:
    """The layers that drop, in order. Raises ValueError if one drops something else than single units."""
    exact = {stage.name for stage in sampler.stages}
    for step in sampler.tail:
        drop: Any = step.layer
        if step.name in sampler.random:
            if not _of_units(drop) or y.ndim != 2:
                raise ValueError(f"model must drop single units of vectors, got {drop!r} on {y.shape[1:]}")
            n, p = y.shape[1], drop.p
            counts = _counts(n, p) if step.name in exact or type(drop) is ThinDropout else ()
            scaled = type(drop) is ThinDropout or drop.rescale == "train"
            yield Dropping(n, p, gain(p) if scaled else 1.0, counts)
        y = drop.forward(y)


def _of_units(drop: Any) -> bool:
    """Whether a layer drops single units."""
    return type(drop) in (Dropout, ThinDropout)


def _blocks(sampler: ScratchSampler, given: Array, layers: list[Dropping]) -> Iterator[tuple[Array, Array]]:
    """P(m) and probabilities, in blocks of as many networks as memory allows."""
    step = max(1, TOGETHER // (max(1, len(given)) * sampler.width(given)))
    sizes = [layer.networks for layer in layers]
    for first in range(0, math.prod(sizes), step):
        numbers = np.arange(first, min(math.prod(sizes), first + step))
        rows = np.unravel_index(numbers, sizes) if sizes else ()
        kept = [layer.masks()[row] for layer, row in zip(layers, rows, strict=True)]
        chance = np.ones(len(numbers))
        for layer, mask in zip(layers, kept, strict=True):
            chance = chance * layer.chance(mask)
        yield chance, _probabilities(sampler, given, layers, kept, len(numbers))


def _probabilities(
    sampler: ScratchSampler, given: Array, layers: list[Dropping], kept: list[Array], networks: int
) -> Array:
    """The probabilities that each network gives each row: (networks, N, classes)."""
    y, masks = np.tile(given, (networks, *[1] * (given.ndim - 1))), zip(layers, kept, strict=True)
    for step in sampler.tail:
        if step.name not in sampler.random:
            y = step.layer.forward(y)
            continue
        layer, mask = next(masks)
        y = np.where(np.repeat(mask, len(given), axis=0), y * y.dtype.type(layer.gain), y.dtype.type(0))
    return probabilities(y, "logits").reshape(networks, len(given), *y.shape[1:])
