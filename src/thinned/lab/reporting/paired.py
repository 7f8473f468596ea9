"""Differences between methods that saw the same test examples and seeds, and whether they are decided.

The difference of losses of seed s and example i is d[s, i] = μ + a_s + b_i + e[s, i]: seeds and examples are
both drawn at random (two-way random effects; Searle, Casella and McCulloch 1992, "Variance components"). The
interval and the p-value of μ follow from the mean squares. For classes the exact test of flipped signs must
agree; with one seed it is McNemar's (1947).

Where each seed holds out its own examples of the training data, methods are paired within a seed alone: the
mean over i of d[s, i] is one difference a seed. Seeds share training examples, so these differences are not
independent; their variance is the corrected one of Nadeau and Bengio (2003), "Inference for the
generalization error".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.05  # what is less likely than this by chance is decided
EXACT = 5_000  # examples that differ, up to which signs are flipped exactly


@dataclass(frozen=True)
class Difference:
    """Losses of `label` minus those of `other`, on the same examples; negative where `label` is better.

    Attributes:
        mean: the mean difference of a loss.
        low, high: of its interval: 95 %, for all comparisons together (Bonferroni).
        p: of a difference of this size or more, if there is none in truth.
        corrected: p by Holm (1979), for all comparisons together.
        seeds, examples: their numbers.
        by_seeds: the share of the variance of the mean that more seeds would reduce.
        same: whether no loss differs.
        own: whether each seed has its own examples; `examples` is then their mean number.
    """

    label: str
    other: str
    mean: float
    low: float
    high: float
    p: float
    corrected: float
    seeds: int
    examples: int
    by_seeds: float
    same: bool
    own: bool = False

    @property
    def decided(self) -> bool:
        """Whether it is more than chance; with one seed each, that is never decided."""
        return self.seeds > 1 and self.corrected < LEVEL


def differences(
    losses: Mapping[str, Mapping[int, Floats]], other: str, *, counts: bool, held_out: float = 0.0
) -> list[Difference]:
    """Each label against `other`, over the seeds that both have.

    Args:
        losses: label -> seed -> (examples,) losses: 0 or 1 for classes, squared errors for numbers.
        other: the label that the others are compared with.
        counts: whether losses are 0 or 1. The difference of squared errors is divided by the sum of the two
            roots of their means, so that its mean is the difference of these roots.
        held_out: the share of the training data that each seed holds out as its own examples; 0 where all
            seeds have the same.
    """
    pairs = {}
    for label, mine in losses.items():
        seeds = [seed for seed in mine if seed in losses[other]]
        if label == other or not seeds:
            continue
        pairs[label] = [_apart(mine[seed], losses[other][seed], counts) for seed in seeds]
    level = 1 - LEVEL / max(1, len(pairs))
    found = [_difference(label, other, d, level, counts, held_out) for label, d in pairs.items()]
    return holm(found)


def holm(found: Sequence[Difference]) -> list[Difference]:
    """The differences with `corrected` set: the i-th smallest p of m times m − i, never decreasing."""
    order = sorted(range(len(found)), key=lambda i: found[i].p)
    corrected, largest = dict[int, float](), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(found) - rank) * found[i].p))
        corrected[i] = largest
    return [replace(one, corrected=corrected[i]) for i, one in enumerate(found)]


def _apart(mine: Floats, theirs: Floats, counts: bool) -> Floats:
    d = np.asarray(mine, np.float64) - np.asarray(theirs, np.float64)
    if counts:
        return d
    scale = math.sqrt(float(np.mean(mine))) + math.sqrt(float(np.mean(theirs)))
    return d / scale if scale else d


def _difference(
    label: str, other: str, d: list[Floats], level: float, counts: bool, held_out: float
) -> Difference:
    from scipy import stats

    own = bool(held_out) and len(d) > 1
    mean, variance, freedom, by_seeds = _by_seed(d, held_out) if own else two_way(np.stack(d))
    same = not any(one.any() for one in d)
    error = math.sqrt(variance)
    if same or not error:
        p, half = (1.0 if mean == 0 else 0.0), 0.0
    else:
        p = 2 * float(stats.t.sf(abs(mean) / error, freedom))
        half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    if counts and not own:
        exact = sign_flips(np.rint(np.sum(d, axis=0)).astype(np.int64))
        p = exact if len(d) == 1 else max(p, exact)
    examples = round(np.mean([len(one) for one in d]))
    return Difference(
        label, other, mean, mean - half, mean + half, p, p, len(d), examples, by_seeds, same, own
    )


def _by_seed(d: list[Floats], held_out: float) -> tuple[float, float, float, float]:
    """As `two_way`, of seeds that have their own examples: s² · (1/S + n_held-out/n_training), of S means."""
    means = np.array([one.mean() for one in d])
    ratio = held_out / (1 - held_out)
    factor = 1 / len(d) + ratio
    return float(means.mean()), float(means.var(ddof=1)) * factor, len(d) - 1.0, 1 / len(d) / factor


def two_way(d: Floats) -> tuple[float, float, float, float]:
    """Of (seeds, examples): mean, its variance, degrees of freedom, the share of the variance by seeds.

    With mean squares M of seeds, examples and the rest, variance · SN = M_rest + (M_seeds − M_rest)⁺ +
    (M_examples − M_rest)⁺; the degrees of freedom are Satterthwaite's (1946). One seed: examples alone.
    """
    seeds, n = d.shape
    mean = float(d.mean())
    if seeds == 1:
        return mean, float(d.var(ddof=1)) / n if n > 1 else 0.0, max(1.0, n - 1.0), 0.0
    if n == 1:
        return mean, float(d.var(ddof=1)) / seeds, seeds - 1.0, 1.0
    by_seed, by_example = d.mean(axis=1), d.mean(axis=0)
    rest = d - by_seed[:, None] - by_example + mean
    m_rest = float((rest * rest).sum()) / ((seeds - 1) * (n - 1))
    m_seeds = max(n * float(by_seed.var(ddof=1)), m_rest)
    m_examples = max(seeds * float(by_example.var(ddof=1)), m_rest)
    total = m_seeds + m_examples - m_rest
    if not total:
        return mean, 0.0, 1.0, 0.0
    freedom = total**2 / (m_seeds**2 / (seeds - 1) + m_examples**2 / (n - 1))
    return mean, total / (seeds * n), freedom, m_seeds / total


def sign_flips(totals: NDArray[np.int64]) -> float:
    """P(|Σ ±t_i| ≥ |Σ t_i|) over all signs, exactly; 0 where more than `EXACT` totals differ from 0.

    With one seed, totals are −1, 0 and 1, and this is McNemar's exact test.
    """
    from scipy import stats

    sizes = np.abs(totals[totals != 0])
    if len(sizes) > EXACT:
        return 0.0
    distribution = np.ones(1)
    for size, count in zip(*np.unique(sizes, return_counts=True), strict=True):
        steps = np.zeros(2 * size * count + 1)  # of the sum of `count` times ±size, from −size·count
        steps[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = np.convolve(distribution, steps)
    sums = np.arange(len(distribution)) - len(distribution) // 2
    return min(1.0, float(distribution[np.abs(sums) >= abs(int(totals.sum()))].sum()))
