"""Residual blocks that skip what they drop: the branch runs on the surviving samples alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from thinned.nn.compiled import operators as ops
from thinned.nn.modules import DropPath
from thinned.nn.samples import fits, scaled, survivors
from thinned.nn.stream import among

Branch = Callable[[Tensor], Tensor]


class Residual(DropPath):
    """x + drop_path(branch(x)), where the branch sees the surviving samples alone; (N, *) -> same.

    ``branch`` is a module that takes x alone, keeps its shape, and treats each sample by itself. Which
    samples survive is decided as by `DropPath`, each with probability 1 − p, and what the branch gives them
    is divided by 1 − p. So the result is that of ``x + DropPath(p)(branch(x))``, to the rounding of products
    of other sizes, in about 1 − p of the branch's time. Where none survives, the branch is not called, x is
    copied, and the branch's parameters get gradients of zero. Evaluation is x + branch(x).

    - BatchNorm in the branch takes its statistics from the survivors. Where only one survives, the branch
      runs on the whole batch; always so with SyncBatchNorm, whose processes wait for each other.
    - Drop modules in the branch number the samples as the whole batch does, inside `keyed`.
    - Compiled or exported, the branch runs on the whole batch: the shapes in a graph are fixed.
    - ``skip=False`` runs it on the whole batch always: for branches in which samples, or processes, meet.

    Raises TypeError where the branch is no module, or x or what it returns is no tensor of floating-point
    numbers, ValueError where x has no samples or the branch changes the shape, RuntimeError where it changes
    x in place.

    Stochastic depth: Huang, Sun, Liu, Sedra and Weinberger 2016, arXiv:1603.09382.
    """

    def __init__(self, branch: nn.Module, p: float = 0.1, mode: str = "sample", *, skip: bool = True) -> None:
        super().__init__(p, mode)
        if not isinstance(branch, nn.Module):
            raise TypeError(
                f"branch must be a torch module, got {type(branch).__name__}; on_survivors takes functions"
            )
        self.branch = branch
        self.skip = bool(skip)

    def extra_repr(self) -> str:
        """The rate and the options, as they were given."""
        return f"{super().extra_repr()}, skip={self.skip}"

    def forward(self, input: Tensor) -> Tensor:
        """The input plus what is left of the branch."""
        if isinstance(input, torch.fx.Proxy):
            return self.traced(input)
        return on_survivors(self.branch, input, self, skip=self.skip)


def on_survivors(branch: Branch, x: Tensor, drop: DropPath, *, skip: bool = True) -> Tensor:
    """x + drop(branch(x)), as `Residual` computes it, with the rate, mode and masks of ``drop``.

    For networks that write the sum themselves: ``on_survivors(lambda t: scale(attn(norm(t))), x, path)``.
    (N, *) -> same. Batch norms, and the parameters that get zeros where none survives, are looked for where
    ``branch`` is a module: a function cannot be looked into.
    """
    drop.check(x)
    if not drop.training:
        return x + _run(branch, x)
    if torch.compiler.is_compiling():
        ticket = drop.ticket()
        dense: Tensor = x + ops.drop(_run(branch, x), ticket, drop.method.name, drop.options())
        return dense
    draw = drop.stream.draw()
    alive = survivors(len(x), draw, drop)
    if not skip or not fits(_modules(branch), len(alive)):
        return x + drop.by(draw, _run(branch, x))
    if len(alive) == 0:
        nothing: Tensor = _Nothing.apply(x, *_parameters(branch))
        return nothing
    if len(alive) == len(x):
        return x + scaled(_run(branch, x), drop.p)
    index = alive.to(x.device)
    rest, part = _Take.apply(x, index)
    with among(alive.numpy()):
        left = scaled(_run(branch, part), drop.p)
    wide = torch.promote_types(x.dtype, left.dtype)
    out: Tensor = _Put.apply(rest.to(wide), left.to(wide), index)
    return out


def _modules(branch: Branch) -> Iterator[nn.Module]:
    return branch.modules() if isinstance(branch, nn.Module) else iter(())


def _parameters(branch: Branch) -> list[Tensor]:
    """Those that get a gradient."""
    own = branch.parameters() if isinstance(branch, nn.Module) else ()
    return [parameter for parameter in own if parameter.requires_grad]


def _run(branch: Branch, x: Tensor) -> Tensor:
    """branch(x), checked. A change of x in place would be seen outside only where no sample was dropped."""
    before = _version(x)
    out: Any = branch(x)
    if not isinstance(out, Tensor) or not out.is_floating_point():
        came = f"dtype {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
        raise TypeError(f"branch must return a tensor of floating-point numbers, got {came}")
    if out.shape != x.shape:
        raise ValueError(f"branch must keep the shape {tuple(x.shape)}, got {tuple(out.shape)}")
    if _version(x) != before:
        raise RuntimeError("branch must leave its input as it is, but changed it in place")
    return out


def _version(x: Tensor) -> int:
    """How often x was changed in place, where torch counts it."""
    return 0 if torch.compiler.is_compiling() or x.is_inference() else x._version


class _Take(torch.autograd.Function):
    """x ↦ (x, x[index]), in the strides of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(index)
        part = torch.empty_like(x[: len(index)])
        return x.view_as(x), torch.index_select(x, 0, index, out=part)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, part: Tensor) -> tuple[Tensor, None]:
        return _Put.apply(grad, part, *ctx.saved_tensors), None


class _Put(torch.autograd.Function):
    """(x, part) ↦ x, plus part at index: the transpose of `_Take`, so that each is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        out = x.clone()
        order = [0, *sorted(range(1, x.dim()), key=out.stride, reverse=True)]  # index_add_ is slow in others
        out.permute(order).index_add_(0, index, part.permute(order))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return *_Take.apply(grad, *ctx.saved_tensors), None


class _Nothing(torch.autograd.Function):
    """A copy of x. The parameters of the branch get zeros, as from a mask that drops all.

    So optimizers and DistributedDataParallel meet the same parameters in every step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad, *map(torch.zeros_like, ctx.parameters)
