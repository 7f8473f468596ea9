"""The ensemble that dropout trains, one network after the other: all thinned networks of a small net."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinned import _checks, theory
from thinned.scratch import Dropout
from thinned.uncertainty.hand import Hand
from thinned.uncertainty.predict import sampler_of
from thinned.uncertainty.summary import TINY, Array, probabilities

LIMIT = 1 << 16  # networks, by default
TOGETHER = 1 << 24  # numbers that a batch of networks may take


@dataclass(frozen=True)
class Averages:
    """What all thinned networks of a net say together, each (N, classes).

    Attributes:
        arithmetic: Σ_m P(m)·p_m, the mean of their probabilities.
        geometric: ∏_m p_m^P(m), scaled to sum to 1.
        votes: the share, by P(m), of networks for which a class is the largest.
        scaled: weight scaling, the mean network alone.
        networks: how many, 2ⁿ of n units.
        effective: e to the entropy of P(m): as many as share the training; all 2ⁿ where p = ½.
    """

    arithmetic: Array
    geometric: Array
    votes: Array
    scaled: Array
    networks: int
    effective: float


def average(model: Any, x: Any, limit: int = LIMIT) -> Averages:
    """Run every thinned network of a small net, and average them as the sources do.

    ``model``: a network of `thinned.scratch` whose `Dropout` is behind layers of vectors, or a
    `DropoutMLPClassifier`; x: (N, features). Network m has probability P(m) = ∏ p^dropped·(1 − p)^kept. Of a
    net without hidden layers, or with linear ones, the geometric mean is what weight scaling gives, exactly.

    Raises ValueError where there are more than ``limit`` networks, or something else drops.

    Srivastava et al. 2014, JMLR 15:1929-1958; the geometric mean: Baldi and Sadowski 2013, NIPS 26;
    Warde-Farley, Goodfellow, Courville and Bengio 2013, arXiv:1312.6197.
    """
    sampler, x, outputs = sampler_of(model, x, None, thin=False)
    if not isinstance(sampler, Hand) or outputs != "logits":
        kind = type(model).__name__
        raise TypeError(f"model must be a classifier of thinned.scratch or thinned.estimators, got {kind}")
    given = sampler.before(sampler.take(x, 0, x.shape[0]))
    rates = _rates(sampler, given)
    n, limit = len(rates), _checks.positive_int("limit", limit)
    if theory.subnetworks(n) > limit:
        raise ValueError(f"model must have at most limit = {limit} thinned networks, got 2**{n} of {n} units")
    total = log_total = votes = np.zeros(())
    step = max(1, TOGETHER // (max(1, len(given)) * sampler.width(given)))
    for first in range(0, 1 << n, step):
        kept = _masks(first, min(1 << n, first + step), n)
        chance = np.prod(np.where(kept, 1.0 - rates, rates), axis=1)
        p = _probabilities(sampler, given, kept)
        best = p == p.max(axis=-1, keepdims=True)
        total = total + np.tensordot(chance, p, 1)
        log_total = log_total + np.tensordot(chance, np.log(np.maximum(p, TINY)), 1)
        votes = votes + np.tensordot(chance, best / best.sum(axis=-1, keepdims=True), 1)
    effective = math.exp(sum(theory.mask_entropy(p) for p in rates))
    scaled = probabilities(sampler.evaluate(sampler.take(x, 0, x.shape[0])), outputs)
    return Averages(total, probabilities(log_total, "logits"), votes, scaled, 1 << n, effective)


def _rates(sampler: Hand, y: Array) -> Array:
    """The p of each unit that may drop, all layers one after the other."""
    rates = [np.zeros(0)]
    for step in sampler.tail:
        if step.name in sampler.random:
            if type(step.layer) is not Dropout or y.ndim != 2:
                raise ValueError(
                    f"model must drop single units of vectors, got {step.layer!r} on {y.shape[1:]}"
                )
            rates.append(np.full(y.shape[1], step.layer.p))
        y = step.layer.forward(y)
    return np.concatenate(rates)


def _masks(first: int, stop: int, n: int) -> Array:
    """Networks first … stop − 1, (networks, n): unit j of network m is kept where bit j of m is 1."""
    return np.arange(first, stop)[:, None] >> np.arange(n) & 1 == 1


def _probabilities(sampler: Hand, given: Array, kept: Array) -> Array:
    """Of each network for each row, (networks, N, classes)."""
    y, begin = np.tile(given, (len(kept), *[1] * (given.ndim - 1))), 0
    for step in sampler.tail:
        if step.name not in sampler.random or not isinstance(step.layer, Dropout):
            y = step.layer.forward(y)
            continue
        mask = np.repeat(kept[:, begin : begin + y.shape[1]], len(given), axis=0)
        gain = 1.0 / (1.0 - step.layer.p) if step.layer.rescale == "train" and step.layer.p < 1.0 else 1.0
        begin, y = begin + y.shape[1], np.where(mask, y * y.dtype.type(gain), y.dtype.type(0))
    return probabilities(y, "logits").reshape(len(kept), len(given), -1)
