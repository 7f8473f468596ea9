"""Every drop method and its variants, what each takes, and what it must give, written a second time.

`FACTS` has one entry a method: its equation, and what else a test cannot read from the method. The masks of a
unit are made as slowly and plainly as can be: a place, a unit, a sum. Only the bits come from `keep_mask`,
which has its own known answers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from helpers import picks
from thinned import Key, functional, keep_mask, kernels, masks, theory
from thinned.key import normals
from thinned.methods import DROPS, METHODS, Row

NUMPY_DTYPES = ["float16", "float32", "float64"]
TORCH_DTYPES = ["float16", "bfloat16", "float32", "float64"]
BACKENDS = ["cpu", "reference", "torch"]
SEEDS = st.integers(0, 2**64 - 1)
RATES = st.one_of(st.floats(0, 1), st.sampled_from([0.1, 0.5, 1.0, 1e-12, 1 - 2**-53]))
OUT = 3  # outputs of a linear layer


@dataclass(frozen=True)
class Case:
    """A row of the table, with further options."""

    method: Row
    more: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.method.name, *(f"{k}={v}" for k, v in self.more.items())])

    @property
    def linear(self) -> bool:
        """Whether it is a linear layer, with weights."""
        return self.method.unit == "weight"

    @property
    def options(self) -> dict[str, Any]:
        return {**self.method.options, **self.more}

    @property
    def facts(self) -> Facts:
        """What the tests know of the method."""
        return FACTS[self.method.method]

    @property
    def shares_mask(self) -> bool:
        """Whether a batch has one mask."""
        method = self.method.method
        return method.shares_mask(*map(method.settings(**self.more).get, method.names))

    def __call__(self, x, p, key=Key(0), training=True, **more):
        """The method, on x; a linear layer takes `weight_for(x)`."""
        if self.linear and "weight" not in more and getattr(x, "ndim", 0) == 2:
            more["weight"] = weight_for(x)
        elif self.linear:
            more.setdefault("weight", None)
        return self.method.function(x, p=p, key=key, training=training, **self.options, **more)

    def shapes(self, min_side=0, max_side=6):
        """Shapes that it takes, up to small ones."""
        low, high = self.ranks
        return hnp.array_shapes(min_dims=low, max_dims=min(high, 4), min_side=min_side, max_side=max_side)

    @property
    def ranks(self) -> tuple[int, int]:
        ranks = self.method.method.unit.ranks
        return ranks.start, ranks.stop - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """One shape that it takes, of 120 numbers."""
        return (20, 6) if self.linear else (4, 5, 6)


def weight_for(x, dtype=None):
    """Weights (OUT, in) for an x of (N, in)."""
    w = np.cos(np.arange(OUT * x.shape[1], dtype=np.float64)).reshape(OUT, x.shape[1]) + 0.1
    if isinstance(x, np.ndarray):
        return w.astype(x.dtype)
    import torch

    return torch.from_numpy(w).to(x.dtype)


def ones(shape, dtype, torch=None):
    return np.ones(shape, dtype) if torch is None else torch.ones(shape, dtype=getattr(torch, dtype))


def ramp(shape, dtype="float64", torch=None):
    x = np.linspace(-3, 3, math.prod(shape)).reshape(shape)
    return x.astype(dtype) if torch is None else torch.from_numpy(x).to(getattr(torch, dtype))


@contextmanager
def on(backend):
    """Run NumPy arrays on the extension ("cpu") or on the reference."""
    with pytest.MonkeyPatch.context() as patch:
        if backend == "reference":
            patch.setattr(kernels, "extension", lambda: None)
        yield


def run(backend, case, x, p, key=Key(0), **more):
    """The result on that backend, NumPy in and out."""
    if backend != "torch":
        with on(backend):
            return case(x, p, key, **more)
    import torch

    return case(torch.from_numpy(x), p, key, **more).numpy()


def kept_units(case, shape, p, seed, offset=0):
    """Which elements of x survive (or, for a linear layer, which weights), by brute force."""
    unit, key = case.method.unit, Key(seed)
    start = offset * math.prod(shape[1:])
    if unit == "element":
        return keep_mask(shape, p, key=key, start=start)
    if unit == "channel":
        kept = keep_mask(shape[:2], p, key=key, start=offset * shape[1])
        return np.broadcast_to(kept.reshape(*shape[:2], *[1] * (len(shape) - 2)), shape)
    if unit == "feature":
        n, c, *spatial = shape
        groups = case.options.get("groups", masks.GROUPS)
        picked = picks.kept_units(c, p, key, groups)
        kept = np.array([picked[(offset + i) % groups] for i in range(n)], bool)
        return np.broadcast_to(kept.reshape(n, c, *[1] * len(spatial)), shape)
    if unit == "sample":
        whole = case.options.get("mode") == "batch"
        kept = keep_mask(1 if whole else shape[0], p, key=key, start=0 if whole else offset)
        return np.broadcast_to(kept.reshape(-1, *[1] * (len(shape) - 1)), shape)
    if unit == "weight":
        n = shape[0] if case.options.get("per_sample", True) else 1
        first = offset * OUT * shape[1] if n == shape[0] and case.options.get("per_sample", True) else 0
        kept = keep_mask((n, OUT, shape[1]), p, key=key, start=first)
        return np.broadcast_to(kept, (shape[0], OUT, shape[1]))
    return blocks(shape, p, key, offset, **case.options)


def blocks(shape, p, key, offset, block_size=7, per_channel=True, exact_rate=True):
    """One block after the other."""
    n, c, *spatial = shape
    sizes = [min(block_size, s) for s in spatial]
    valid = [s - b + 1 for s, b in zip(spatial, sizes, strict=True)]
    rate = theory.drop_block_rate(p, block_size, tuple(spatial), exact=exact_rate)
    shared = (n, c if per_channel else 1, *valid)
    seeds = keep_mask(shared, rate, key=key, start=offset * math.prod(shared[1:]))
    kept = np.ones((n, shared[1], *spatial), bool)
    for i, j, *place in np.argwhere(~seeds):
        kept[(i, j, *(slice(a, a + b) for a, b in zip(place, sizes, strict=True)))] = False
    return np.broadcast_to(kept, shape)


def expected(case, x, p, seed, offset=0):
    """What the method must give for x in float64, from its equation."""
    if p == 0:
        return x @ weight_for(x).T if case.linear else x
    with np.errstate(all="ignore"):
        return case.facts.equation(x, p, Drawn(case, x, p, seed, offset))


def close(case, got, want, x, p):
    """Equal: bit for bit, or within the bound that the facts have."""
    if case.facts.bound is None or p == 1:
        return np.array_equal(got, want, equal_nan=True)
    with np.errstate(all="ignore"):
        wide, x = want.astype(np.float64), x.astype(np.float64)
        within = np.abs(got.astype(np.float64) - wide) <= case.facts.bound(x, p, wide, got.dtype)
    return bool(np.all(within | (got == want) | (np.isnan(got) & np.isnan(want))))


def places(shape):
    return itertools.product(*(range(s) for s in shape))


# What is known of each method ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """What is random in an equation, from the seed and the index of the first sample."""

    case: Case
    x: Any
    p: float
    seed: int
    offset: int

    @property
    def kept(self) -> Any:
        """Which elements, or which weights of each sample, survive."""
        return kept_units(self.case, self.x.shape, self.p, self.seed, self.offset)

    @property
    def z(self) -> Any:
        """A normal number for each element."""
        start = self.offset * math.prod(self.x.shape[1:])
        return normals(Key(self.seed), self.x.size, start).reshape(self.x.shape)


@dataclass(frozen=True)
class Facts:
    """What a test must know of a method and cannot read from it."""

    equation: Callable[..., Any]  # (x, p, drawn) -> the result of a training pass, 0 < p ≤ 1
    variants: tuple[dict[str, Any], ...] = ({},)  # options of the cases
    evaluation: Callable[..., Any] | None = None  # (x, p) -> the result of evaluation; None: x itself
    factors: bool = True  # the result is x times factors, each element by itself
    selects: bool = True  # each unit is kept or dropped
    bound: Callable[..., Any] | None = None  # (x, p, result, dtype) -> the largest error; None: 0
    fourth: Callable[..., float] = lambda p: 1 / (p * (1 - p)) - 3  # E(r − μ)⁴/σ⁴ of the factors r


def gain(p):
    return 1.0 if p == 1 else 1 / (1 - p)


def inverted(x, p, drawn):
    return np.where(drawn.kept, x * gain(p), 0.0)


def noisy(x, p, drawn):
    return x * (1 + math.sqrt(p / (1 - p)) * drawn.z) if p < 1 else np.zeros_like(x)


def affine(x, p, drawn):
    a, b = theory.alpha_constants(p)
    return np.where(drawn.kept, a * x + b, a * theory.ALPHA_PRIME + b)


def without_blocks(x, p, drawn):
    kept = drawn.kept
    left = kept.sum(axis=tuple(range(1, x.ndim)), keepdims=True)
    return np.where(kept, x * (math.prod(x.shape[1:]) / np.maximum(left, 1)), 0.0)


def connected(x, p, drawn):
    product = np.einsum("noi,ni->no", np.where(drawn.kept, weight_for(x), 0), x)
    return product * gain(p) if p < 1 else np.zeros((len(x), OUT))


# How far apart two computations of a normal number are: the radius, at most √(2·32·ln 2), times roundings of
# 2⁻⁵³; of the angle 2π·1.35 and π/4·1.35, 2 of each cosine, 2.5 of each radius, 1 of each product.
NORMALS = (2 * math.pi * 1.35 + math.pi / 4 * 1.35 + 4 + 5 + 2) * 2.0**-53 * math.sqrt(64 * math.log(2))


def of_normals(x, p, result, dtype):
    """The error of the factor, two roundings of the result, the smallest number."""
    eps, least = np.finfo(dtype).eps, np.finfo(dtype).smallest_subnormal
    return np.abs(x) * (math.sqrt(p / (1 - p)) * NORMALS + eps) + 2 * eps * np.abs(result) + least


def of_sums(x, p, result, dtype):
    """Sums of ``in`` products, in any order."""
    terms = np.abs(x) @ np.abs(weight_for(x)).T
    return 2 * (x.shape[1] + 3) * np.finfo(dtype).eps * terms * gain(p) + np.finfo(dtype).tiny


FACTS: dict[Any, Facts] = {
    functional.DROPOUT: Facts(inverted),
    functional.ORIGINAL: Facts(
        lambda x, p, drawn: np.where(drawn.kept, x, 0.0), evaluation=lambda x, p: x * (1 - p)
    ),
    functional.THIN: Facts(inverted, ({}, {"groups": 1}, {"groups": 3})),
    functional.GAUSSIAN: Facts(noisy, selects=False, bound=of_normals, fourth=lambda p: 3.0),
    functional.ALPHA: Facts(affine, factors=False),
    functional.FEATURE_ALPHA: Facts(affine, factors=False),
    functional.SPATIAL: Facts(inverted),
    functional.DROP_BLOCK: Facts(
        without_blocks,
        (
            {},
            {"block_size": 2},
            {"block_size": 3, "per_channel": False},
            {"block_size": 4, "exact_rate": False},
        ),
    ),
    functional.DROP_PATH: Facts(inverted, ({}, {"mode": "batch"})),
    functional.DROP_CONNECT: Facts(connected, ({}, {"per_sample": False}), factors=False, bound=of_sums),
}
CASES = [Case(METHODS[name], more) for name, method in DROPS.items() for more in FACTS[method].variants]
EACH = pytest.mark.parametrize("case", CASES, ids=str)
FACTORS = pytest.mark.parametrize("case", [c for c in CASES if c.facts.factors], ids=str)
