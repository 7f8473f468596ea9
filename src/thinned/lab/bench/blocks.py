"""Blocks and paths, against timm and torchvision where they are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

import thinned.nn as tnn
from thinned.lab.bench.harness import peers
from thinned.lab.bench.harness.measure import Case, both_passes

PEERS = ("timm", "torchvision")
BLOCK = 7
MAPS = ((8, 64, 28, 28), (32, 64, 28, 28), (128, 64, 28, 28), (32, 256, 14, 14))
JUDGED = (32, 64, 28, 28)  # the map of the goals
RATES = (0.1, 0.3, 0.5)
P = 0.1  # the modules' default
TOKENS = (64, 197, 384)  # of a small vision transformer

Map = Callable[[torch.Tensor], torch.Tensor]


def cases(threads: int) -> Iterator[Case]:
    """DropBlock with a mask a channel, and shared; stochastic depth. The floor is a copy a pass."""
    for per_channel in (True, False):
        for shape in MAPS:
            for p in RATES if shape == JUDGED else (P,):
                yield drop_block(shape, p, per_channel, threads)
    for maps in (*MAPS[1:3], TOKENS):
        yield drop_path(maps, P, threads)


def drop_block(shape: tuple[int, ...], p: float, per_channel: bool, threads: int) -> Case:
    """DropBlock of one shape and rate; the goals count for the default rate."""
    timm, vision = peers.load("timm.layers.drop"), peers.load("torchvision.ops")
    maps: dict[str, Map] = {"thinned": tnn.DropBlock2d(p, BLOCK, per_channel=per_channel)}
    if timm:
        maps["timm"] = timm.DropBlock2d(p, BLOCK, couple_channels=not per_channel)
    if vision and per_channel:
        maps["torchvision"] = vision.DropBlock2d(p, BLOCK)
    goal = 1 / 15 if per_channel else 1.0
    goals = dict.fromkeys(("timm", "torchvision"), goal) if (shape, p) == (JUDGED, P) else {}
    group = f"drop_block, block {BLOCK}, {'a mask a channel' if per_channel else 'one mask for all channels'}"
    return case(group, shape, p, maps, goals, threads)


def drop_path(shape: tuple[int, ...], p: float, threads: int) -> Case:
    """Stochastic depth of one shape."""
    timm, vision = peers.load("timm.layers.drop"), peers.load("torchvision.ops")
    maps: dict[str, Map] = {"thinned": tnn.DropPath(p)}
    if timm:
        maps["timm"] = timm.DropPath(p)
    if vision:
        maps["torchvision"] = vision.StochasticDepth(p, "row")
    return case("drop_path", shape, p, maps, {}, threads)


def case(
    group: str, shape: tuple[int, ...], p: float, maps: dict[str, Map], goals: dict[str, float], threads: int
) -> Case:
    """Both passes of each map on the same input."""
    x = torch.randn(shape, requires_grad=True)
    grad = torch.ones_like(x)
    works = {label: both_passes(call, grad, x) for label, call in maps.items()}
    works["clone"] = lambda: (x.detach().clone(), grad.clone())
    name = f"{'×'.join(map(str, shape))}, p = {p:g}"
    return Case(f"{group}, forward + backward", name, "thinned", works, goals, threads, x.numel())
