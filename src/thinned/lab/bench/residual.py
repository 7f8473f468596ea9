"""`Residual` in a transformer block, against the block without drop, with `DropPath`, and a fixed subset.

The number of survivors is random in ours. So it takes keys in turn with which its branches see exactly the
expected number of samples: all contestants do the same work.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import thinned
import thinned.nn as tnn
from thinned import Key
from thinned.lab.bench.harness.measure import Case

WIDTH, HEADS = 256, 8
SHAPES = ((64, 64), (16, 256))  # samples, tokens
KEYS = 16
RATES = (0.1, 0.5)
GOALS = {0.5: {"dense": 0.62, "DINOv2": 1.0}}

Branch = Callable[[Tensor], Tensor]


class Attention(nn.Module):
    """Norm and self-attention; (N, T, C) -> same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """What attention adds to x."""
        y = self.norm(x)
        out: Tensor = self.attention(y, y, y, need_weights=False)[0]
        return out


def branches(width: int = WIDTH, heads: int = HEADS) -> list[nn.Module]:
    """The branches of a pre-norm transformer block: attention, and a layer four times as wide."""
    wide = nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
    )
    return [Attention(width, heads), wide]


def fixed_subset(branch: Branch, x: Tensor, p: float) -> Tensor:
    """x + N/k·branch of k = max(⌊(1 − p)·N⌋, 1) samples: how DINOv2 skips.

    So the rate is not p where N is small: a batch of one always keeps its branch. Oquab et al. 2023,
    arXiv:2304.07193, section 5.
    """
    n = len(x)
    count = max(int(n * (1.0 - p)), 1)
    chosen = torch.randperm(n, device=x.device)[:count]
    left = branch(x[chosen])
    summed = torch.index_add(x.flatten(1), 0, chosen, left.flatten(1).to(x.dtype), alpha=n / count)
    return summed.view_as(x)


def typical(samples: int, p: float, branches: int) -> list[int]:
    """The first steps of ``Key(0)`` at which all branches together keep the expected number of samples."""

    def kept(step: int) -> int:
        keys = (Key(0).fold_in(step).fold_in(str(name)) for name in range(branches))
        return sum(int(thinned.keep_mask(samples, p, key=key).sum()) for key in keys)

    expected = round(branches * samples * (1.0 - p))
    return list(itertools.islice((step for step in itertools.count() if kept(step) == expected), KEYS))


def cases(threads: int) -> Iterator[Case]:
    """Both passes of a block, gradients of its parameters too."""
    for samples, tokens in SHAPES:
        for p in RATES:
            yield block(samples, tokens, p, threads)


def block(samples: int, tokens: int, p: float, threads: int) -> Case:
    """One size of batch and one rate; all contestants share the weights."""
    torch.manual_seed(0)
    own = branches()
    x = torch.randn(samples, tokens, WIDTH, requires_grad=True)
    grad, learned = torch.randn_like(x), [x, *(w for branch in own for w in branch.parameters())]
    drop = tnn.DropPath(p)
    skipping = nn.Sequential(*(tnn.Residual(branch, p) for branch in own))
    steps = itertools.cycle(typical(samples, p, len(own)))

    def ours() -> object:
        with tnn.keyed(skipping, Key(0), next(steps)):
            return torch.autograd.grad(skipping(x), learned, grad)

    def work(add: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(add(own[1], add(own[0], x)), learned, grad)

    works = {
        "thinned": ours,
        "dense": work(lambda branch, t: t + branch(t)),
        "DropPath": work(lambda branch, t: t + drop(branch(t))),
        "DINOv2": work(lambda branch, t: fixed_subset(branch, t, p)),
    }
    name = f"{samples}×{tokens}×{WIDTH}, p = {p:g}"
    group = "Residual, transformer block, forward + backward"
    return Case(group, name, "thinned", works, GOALS.get(p, {}), threads)
