"""On a GPU: dropout beside a device copy, torch's dropout, eager and compiled; and a thinned step.

Without a GPU there are no cases. A call ends when the device has finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

import thinned
import thinned.nn as tnn
from thinned import Key
from thinned.lab.bench.harness import peers
from thinned.lab.bench.harness.measure import Case, both_passes

DEVICE = "cuda" if torch.cuda.is_available() else ""
PEERS = ("xformers",) if DEVICE else ()
COMPILER = "inductor"
SIZES = {"1M": 1 << 20, "16M": 1 << 24, "256M": 1 << 28}
RATES = (0.1, 0.5)
DTYPES = (torch.float32, torch.bfloat16)
STEP, BATCH = (3072, 2000, 800, 40), 256

Works = Mapping[str, Callable[[], object]]


def cases(threads: int) -> Iterator[Case]:
    """Forward; both passes; both passes compiled; DropBlock; a step of training. One thread of the host."""
    if threads == 1 and DEVICE:
        yield from on(DEVICE)


def on(device: str) -> Iterator[Case]:
    """The cases on a device."""
    for dtype in DTYPES:
        for size, n in SIZES.items():
            x = torch.randn(n, device=device, dtype=dtype)
            for p in RATES:
                name = f"{size}, {str(dtype).removeprefix('torch.')}, p = {p:g}"
                yield forward(x, name, p)
                yield module(x, name, p)
            del x
    yield compiled(device)
    yield blocks(device)
    yield step(device)


def timed(group: str, name: str, works: Works, n: int, device: str, goals: Mapping[str, float]) -> Case:
    """A case whose contestants wait for the device."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def ended(work: Callable[[], object]) -> object:
        found = work()
        wait()
        return found

    whole = {label: partial(ended, work) for label, work in works.items()}
    return Case(group, name, "thinned", whole, dict(goals), 1, n)


def forward(x: torch.Tensor, name: str, p: float) -> Case:
    """`thinned.dropout` without gradient; the floor is a copy."""
    key = Key(1)
    works: dict[str, Callable[[], object]] = {
        "thinned": lambda: thinned.dropout(x, p, key=key),
        "clone": lambda: x.clone(),
        "torch": lambda: nn.functional.dropout(x, p),
    }
    if fused := fused_dropout():
        works["xformers"] = lambda: fused(x.reshape(-1, 1024), p)
    goals = {"clone": 1.3, "torch": 1.0} if x.numel() >= SIZES["16M"] else {}
    return timed("GPU, dropout, forward", name, works, x.numel(), str(x.device), goals)


def fused_dropout() -> Any:
    """xformers' dropout kernel, where it is installed and has one."""
    module = peers.load("xformers")
    return getattr(getattr(module, "triton", None), "dropout", None)


def module(x: torch.Tensor, name: str, p: float) -> Case:
    """`tnn.Dropout` against `torch.nn.Dropout`, both passes."""
    leaf, grad = x.detach().requires_grad_(), torch.ones_like(x)
    works = {
        "thinned": both_passes(tnn.Dropout(p), grad, leaf),
        "clone": lambda: (leaf.detach().clone(), grad.clone()),
        "torch": both_passes(nn.Dropout(p), grad, leaf),
    }
    goals = {"torch": 1.0} if x.numel() >= SIZES["16M"] else {}
    return timed("GPU, nn.Dropout, forward + backward", name, works, x.numel(), str(x.device), goals)


def compiled(device: str) -> Case:
    """Linear → ReLU → dropout, compiled, both passes."""
    x = torch.randn(4096, 1024, device=device)
    grad = torch.ones_like(x)
    works = {}
    for label, kind in (("thinned", tnn.Dropout), ("torch", nn.Dropout)):
        net = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), kind(0.5)).to(device)
        works[label] = both_passes(torch.compile(net, backend=COMPILER), grad, x.clone().requires_grad_())
    return timed(
        "GPU, compiled", "Linear → ReLU → Dropout, 4096 × 1024", works, x.numel(), device, {"torch": 1.0}
    )


def blocks(device: str) -> Case:
    """DropBlock of a feature map, forward, beside a copy."""
    x = torch.randn(32, 64, 56, 56, device=device)
    works = {
        "thinned": lambda: thinned.drop_block(x, 0.1, 7, key=Key(1)),
        "clone": lambda: x.clone(),
    }
    return timed("GPU, DropBlock, forward", "32 × 64 × 56 × 56", works, x.numel(), device, {})


def step(device: str) -> Case:
    """A step of training with SGD: thinned, with torch's dropout, and without dropout."""
    x = torch.randn(BATCH, STEP[0], device=device)
    labels = torch.arange(BATCH, device=device) % STEP[-1]
    works = {
        "thinned": trained(lambda: tnn.thin(perceptron(tnn.Dropout, device)), tnn.SGD, x, labels),
        "no dropout": trained(lambda: perceptron(None, device), torch.optim.SGD, x, labels),
        "torch": trained(lambda: perceptron(nn.Dropout, device), torch.optim.SGD, x, labels),
    }
    name = f"{'-'.join(map(str, STEP))}, batch {BATCH}"
    return timed("GPU, a step of training", name, works, 0, device, {})


def perceptron(drop: Callable[[float], nn.Module] | None, device: str) -> nn.Module:
    """Linear layers with ReLU, and dropout behind each hidden one."""
    layers: list[nn.Module] = []
    for a, b in pairwise(STEP[:-1]):
        layers += [nn.Linear(a, b), nn.ReLU(), *([drop(0.5)] if drop else [])]
    return nn.Sequential(*layers, nn.Linear(*STEP[-2:])).to(device)


def trained(
    build: Callable[[], nn.Module], rule: type[torch.optim.SGD], x: torch.Tensor, labels: torch.Tensor
) -> Callable[[], object]:
    """A contestant: forward, loss, backward, update."""
    model = build()
    optimizer = rule(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def once() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return once
