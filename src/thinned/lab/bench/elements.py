"""Dropout by element, from 1K to 16M elements: the cost of a call, and how it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

import thinned
import thinned.nn as tnn
from thinned import Key
from thinned.lab.bench.harness.measure import Case, both_passes

SIZES = {"1K": 1 << 10, "32K": 1 << 15, "512K": 1 << 19, "16M": 1 << 24}
RATES = (0.1, 0.3, 0.5)
MIDDLE = "512K"
P = 0.5  # the modules' default

Map = Callable[[torch.Tensor], torch.Tensor]


def cases(threads: int) -> Iterator[Case]:
    """Forward; both passes through modules; other methods and dtypes; NumPy arrays."""
    for size, n in SIZES.items():
        x = torch.randn(n)
        for p in RATES:
            yield forward(x, size, p, threads)
    for size, n in SIZES.items():
        x = torch.randn(n)
        for p in RATES:
            yield module(x, size, p, threads)
    for p in RATES:
        yield in_network(torch.randn(SIZES.get(MIDDLE, max(SIZES.values()))), p, threads)
    yield from others(SIZES.get(MIDDLE, max(SIZES.values())), threads)
    for size, n in SIZES.items():
        a = np.random.default_rng(0).standard_normal(n, np.float32)
        for p in RATES:
            yield numpy(a, size, p, threads)


def forward(x: torch.Tensor, size: str, p: float, threads: int) -> Case:
    """`thinned.dropout` of a tensor, no gradient."""
    key = Key(1)
    goals = {}
    if size == "16M":
        goals = {"clone": 1.15 if p == 0.5 else 1.8}
    elif size == "512K" and threads == 1:
        goals = {"clone": 1.5 if p == 0.5 else 3.5}
    works = {
        "thinned": lambda: thinned.dropout(x, p, key=key),
        "clone": lambda: x.clone(),
        "torch": lambda: nn.functional.dropout(x, p),
    }
    return Case("dropout, forward", f"{size}, p = {p:g}", "thinned", works, goals, threads, x.numel())


def module(x: torch.Tensor, size: str, p: float, threads: int) -> Case:
    """`tnn.Dropout` against `torch.nn.Dropout`, both passes."""
    x, grad = x.detach().requires_grad_(), torch.ones_like(x)
    goals = {}
    if size == "1K":
        goals = {"torch": 1.0}
    elif p == P:
        goals = {"16M": {"torch": 1 / 25}}.get(size, {})
    group = "nn.Dropout, forward + backward"
    return Case(group, f"{size}, p = {p:g}", "thinned", modules(x, grad, p), goals, threads, x.numel())


def in_network(x: torch.Tensor, p: float, threads: int) -> Case:
    """`tnn.Dropout` as a network calls it: the layers beside it have just written its input and gradient.

    Elsewhere the contestants take turns, and each finds its memory as the others left it.
    """
    values = x.clone()
    x, grad = x.requires_grad_(), torch.ones_like(x)

    def write() -> None:
        x.detach().copy_(values)
        grad.fill_(1.0)

    group = "nn.Dropout, forward + backward, its input and gradient just written"
    goals = {"torch": 1 / 40} if p == P else {}
    name, elements = f"{MIDDLE}, p = {p:g}", x.numel()
    return Case(group, name, "thinned", modules(x, grad, p), goals, threads, elements, before=write)


def modules(x: torch.Tensor, grad: torch.Tensor, p: float) -> dict[str, Callable[[], object]]:
    """`tnn.Dropout` and `torch.nn.Dropout`, both passes; the floor is a copy a pass."""
    return {
        "thinned": both_passes(tnn.Dropout(p), grad, x),
        "clone": lambda: (x.detach().clone(), grad.clone()),
        "torch": both_passes(nn.Dropout(p), grad, x),
    }


def others(n: int, threads: int) -> Iterator[Case]:
    """The other methods by element and by channel, and dropout in other dtypes, at one size and p."""
    x = torch.randn(n).reshape(8, -1, 16, 16).requires_grad_()
    grad = torch.ones_like(x)
    deviation = (P / (1 - P)) ** 0.5
    pairs: dict[str, tuple[Map, Map]] = {
        "AlphaDropout": (tnn.AlphaDropout(P), nn.AlphaDropout(P)),
        "Dropout2d": (tnn.Dropout2d(P), nn.Dropout2d(P)),
        "FeatureAlphaDropout": (tnn.FeatureAlphaDropout(P), nn.FeatureAlphaDropout(P)),
        "GaussianDropout": (tnn.GaussianDropout(P), lambda t: t * (1 + deviation * torch.randn_like(t))),
    }
    for name, (ours, theirs) in pairs.items():
        yield other(name, ours, theirs, x, grad, threads)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        y = x.detach().to(dtype).requires_grad_()
        name = f"Dropout, {str(dtype).removeprefix('torch.')}"
        yield other(name, tnn.Dropout(P), nn.Dropout(P), y, torch.ones_like(y), threads)


def other(name: str, ours: Map, theirs: Map, x: torch.Tensor, grad: torch.Tensor, threads: int) -> Case:
    """A method against torch's own, both passes."""
    works = {
        "thinned": both_passes(ours, grad, x),
        "clone": lambda: (x.detach().clone(), grad.clone()),
        "torch": both_passes(theirs, grad, x),
    }
    group = f"other methods and dtypes, {MIDDLE}, p = {P:g}, forward + backward"
    return Case(group, name, "thinned", works, {}, threads, x.numel())


def numpy(x: np.ndarray, size: str, p: float, threads: int) -> Case:
    """`thinned.dropout` of a NumPy array, beside a copy and the usual line of NumPy."""
    key, rng, scale = Key(1), np.random.default_rng(0), np.float32(1 / (1 - p))
    works = {
        "thinned": lambda: thinned.dropout(x, p, key=key),
        "copy": lambda: x.copy(),
        "rng.random": lambda: x * ((rng.random(x.shape, np.float32) >= p) * scale),
    }
    group = "dropout of a NumPy array, forward"
    return Case(group, f"{size}, p = {p:g}", "thinned", works, {}, threads, x.size)
