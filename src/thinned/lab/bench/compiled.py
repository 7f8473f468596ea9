"""Networks of Linear, ReLU and dropout that `torch.compile` has compiled, against torch's dropout in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

import thinned.nn as tnn
from thinned.lab.bench.harness.measure import Case, both_passes

COMPILER = "inductor"
WIDTHS = (256, 1024)
BATCH = 256
CLASSES = 10
RATES = (0.1, 0.5)
GOAL = 1.0


def cases(threads: int) -> Iterator[Case]:
    """Both passes, gradients of the parameters too."""
    for width in WIDTHS:
        for p in RATES:
            yield network(width, p, threads)


def network(width: int, p: float, threads: int) -> Case:
    """Two hidden layers of one width; the floor is the network without dropout."""
    torch._dynamo.reset()  # a function may be compiled for few networks: see torch's recompile_limit
    x = torch.randn(BATCH, width)
    works = {
        "thinned": compiled(lambda: tnn.Dropout(p), x),
        "no dropout": compiled(nn.Identity, x),
        "torch": compiled(lambda: nn.Dropout(p), x),
    }
    group = f"Linear → ReLU → Dropout, twice, and Linear, compiled, batch {BATCH}, forward + backward"
    return Case(group, f"{width} units, p = {p:g}", "thinned", works, {"torch": GOAL}, threads)


def compiled(drop: Callable[[], nn.Module], x: torch.Tensor) -> Callable[[], object]:
    """A contestant: a compiled network with a drop layer behind each ReLU; its first call compiles it."""
    torch.manual_seed(0)
    width = x.shape[1]
    hidden = [layer for _ in range(2) for layer in (nn.Linear(width, width), nn.ReLU(), drop())]
    net = nn.Sequential(*hidden, nn.Linear(width, CLASSES))
    whole, learned = torch.compile(net, backend=COMPILER), list(net.parameters())
    return both_passes(lambda *_: whole(x), torch.ones(len(x), CLASSES), *learned)
