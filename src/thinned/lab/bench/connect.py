"""DropConnect with a mask for each sample, against torch with a stored mask, and a plain product as floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import thinned
from thinned import Key
from thinned.lab.bench.harness.measure import Case, both_passes

BATCHES = (16, 128)
SIZES = (784, 1024)  # in, out
RATES = (0.1, 0.3, 0.5)
FEW = 3  # rounds: a call of the stored mask takes seconds

Product = Callable[[Tensor, Tensor], Tensor]


def cases(threads: int) -> Iterator[Case]:
    """A mask for each sample, forward and both passes; then one for the whole batch."""
    for backward in (False, True):
        for batch in BATCHES:
            for p in RATES if batch == BATCHES[-1] else RATES[-1:]:
                yield case(batch, p, backward, threads)
    yield shared(BATCHES[-1], RATES[-1], threads)


def inputs(batch: int) -> tuple[Tensor, Tensor]:
    """x (batch, in) and W (out, in)."""
    generator = torch.Generator().manual_seed(0)
    width, out = SIZES
    x = torch.randn(batch, width, generator=generator, requires_grad=True)
    return x, torch.randn(out, width, generator=generator, requires_grad=True)


def ours(p: float) -> Product:
    """DropConnect as we make it."""
    key = Key(1)
    return lambda x, weight: thinned.drop_connect(x, weight, None, p, key=key)


def stored(p: float) -> Product:
    """DropConnect in plain torch: N masks at once, and a batch of products.

    Of the ways to write it the fastest on a CPU: `rand < 1 − p` beats `bernoulli` and `dropout` of the
    expanded weights, a row times a transposed batch of matrices beats `einsum` and a batch times columns.
    """

    def product(x: Tensor, weight: Tensor) -> Tensor:
        kept = torch.rand(len(x), *weight.shape) < 1.0 - p
        y = torch.bmm(x[:, None], (kept * weight).transpose(1, 2))[:, 0]
        return y / (1.0 - p)

    return product


def work(product: Product, x: Tensor, weight: Tensor, backward: bool) -> Callable[[], object]:
    """A forward pass without gradient, or both passes."""
    if backward:
        return both_passes(product, torch.ones(len(x), len(weight)), x, weight)
    plain, fixed = x.detach(), weight.detach()
    return lambda: product(plain, fixed)


def case(batch: int, p: float, backward: bool, threads: int) -> Case:
    """One batch size and rate; the goals count for the largest batch and p = 0.5."""
    x, weight = inputs(batch)
    works = {
        "thinned": work(ours(p), x, weight, backward),
        "stored mask": work(stored(p), x, weight, backward),
        "x @ W.T": work(torch.nn.functional.linear, x, weight, backward),
    }
    judged = (batch, p) == (BATCHES[-1], RATES[-1])
    goals = {"stored mask": 1 / 60 if backward else 1 / 100} if judged else {}
    passes = "forward + backward" if backward else "forward"
    group = "drop_connect, {} → {}, a mask a sample, ".format(*SIZES) + passes
    name, elements = f"batch {batch}, p = {p:g}", batch * weight.numel()
    return Case(group, name, "thinned", works, goals, threads, elements, few=FEW)


def shared(batch: int, p: float, threads: int) -> Case:
    """One mask for the whole batch, both passes: torch drops the weights and multiplies."""
    x, weight = inputs(batch)
    key = Key(1)

    def one_mask(x: Tensor, weight: Tensor) -> Tensor:
        y: Tensor = thinned.drop_connect(x, weight, None, p, key=key, per_sample=False)
        return y

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, torch.nn.functional.dropout(weight, p))

    works = {
        "thinned": work(one_mask, x, weight, True),
        "torch": work(plain, x, weight, True),
        "x @ W.T": work(torch.nn.functional.linear, x, weight, True),
    }
    group = "drop_connect, {} → {}, one mask, forward + backward".format(*SIZES)
    return Case(group, f"batch {batch}, p = {p:g}", "thinned", works, {}, threads, weight.numel())
