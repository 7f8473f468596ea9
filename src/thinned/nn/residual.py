"""Residual blocks with stochastic depth, whose branch runs only on the surviving samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thinned import _array
from thinned.kernels import autograd
from thinned.nn.compiled import operators
from thinned.nn.modules import DropPath
from thinned.nn.samples import fits, gathered, scaled, survivors
from thinned.nn.stream import among, each_example

Branch = Callable[[Tensor], Tensor]


class Residual(DropPath):
    """x + drop_path(branch(x)); the branch computes only the surviving samples. (N, *) -> same.

    ``branch`` is a module that takes only x, keeps its shape, and computes each sample without the others.
    Each sample survives with probability 1 − p, as in `DropPath`, and its output of the branch is divided by
    1 − p. So the result equals ``x + DropPath(p)(branch(x))``, up to the rounding of products of
    other sizes, in about 1 − p of the branch's time. If no sample survives, the branch is not called, the
    result is a copy of x, and the branch's parameters get gradients of zero. Evaluation is x + branch(x).

    - BatchNorm in the branch takes its statistics from the survivors. If only one survives, the branch
      runs on the whole batch. With SyncBatchNorm it always does, because the processes wait for each other.
    - Inside `keyed`, drop modules in the branch number the samples as in the whole batch.
    - Compiled or exported, the branch runs on the whole batch: the shapes in a graph are fixed.
    - ``skip=False`` always runs the branch on the whole batch. Branches that combine samples, or several
      processes, need it.

    Raises TypeError if the branch is no module, or if x or the branch's output is no tensor of floating-point
    numbers; ValueError if x has no samples or the branch changes the shape; RuntimeError if the branch
    changes x in place.

    Stochastic depth: Huang, Sun, Liu, Sedra and Weinberger 2016, arXiv:1603.09382.
    """

    def __init__(
        self,
        branch: nn.Module,
        p: float = 0.1,
        mode: Literal["sample", "batch"] = "sample",
        *,
        skip: bool = True,
    ) -> None:
        super().__init__(p, mode)
        if not isinstance(branch, nn.Module):
            raise TypeError(
                f"branch must be a torch module, got {type(branch).__name__} (on_survivors takes functions)"
            )
        self.branch = branch
        self.skip = bool(skip)

    def extra_repr(self) -> str:
        """The rate and the options, as they are given to the constructor."""
        return f"{super().extra_repr()}, skip={self.skip}"

    def forward(self, input: Tensor) -> Tensor:
        """The input plus the branch's output for the survivors."""
        if isinstance(input, torch.fx.Proxy):
            return self.traced(input)
        return on_survivors(self.branch, input, self, skip=self.skip)


def on_survivors(branch: Branch, x: Tensor, drop: DropPath, *, skip: bool = True) -> Tensor:
    """x + drop(branch(x)) as `Residual` computes it, with the rate and masks of ``drop``; (N, *) -> same.

    It is for networks that write the sum themselves:
    ``on_survivors(lambda t: scale(attn(norm(t))), x, path)``. If ``branch`` is a function, its layers
    are not found: a batch norm may get a single sample, and parameters get no gradient if no sample survives.
    Pass a module if that matters.
    """
    drop.check(x)
    if not drop.training:
        return x + _run(branch, x)
    if torch.compiler.is_compiling():
        ticket = drop.ticket()
        dense: Tensor = x + operators.drop(_run(branch, x), ticket, drop.method.name, drop.options())
        return dense
    if each_example():
        return x + drop.transformed(_run(branch, x))
    draw = drop.stream.draw()
    if autograd.transforming():
        return x + drop.by(draw, _run(branch, x))
    alive = survivors(len(x), draw, drop)
    if not skip or not fits(_modules(branch), len(alive)):
        return x + drop.by(draw, _run(branch, x))
    if len(alive) == 0:
        nothing: Tensor = _Nothing.apply(x, *_parameters(branch))
        return nothing
    if len(alive) == len(x):
        return x + scaled(_run(branch, x), drop)
    index = alive.to(x.device)
    rest, part = _Take.apply(x, index)
    with among(alive.numpy()):
        left = scaled(_run(branch, part), drop)
    wide = torch.promote_types(x.dtype, left.dtype)
    out: Tensor = _Put.apply(rest.to(wide), left.to(wide), index)
    return out


def _modules(branch: Branch) -> Iterator[nn.Module]:
    return branch.modules() if isinstance(branch, nn.Module) else iter(())


def _parameters(branch: Branch) -> list[Tensor]:
    """The parameters of a branch that get a gradient."""
    own = branch.parameters() if isinstance(branch, nn.Module) else ()
    return [parameter for parameter in own if parameter.requires_grad]


def _run(branch: Branch, x: Tensor) -> Tensor:
    """branch(x), checked. A change of x in place would reach the caller only if no sample is dropped."""
    before = _version(x)
    out: Any = branch(x)
    if not isinstance(out, Tensor) or not out.is_floating_point():
        came = f"dtype {out.dtype}" if isinstance(out, Tensor) else type(out).__name__
        raise TypeError(f"branch must return a tensor of floating-point numbers, got {came}")
    if out.shape != x.shape:
        raise ValueError(f"branch must keep the shape {tuple(x.shape)}, got {tuple(out.shape)}")
    if _version(x) != before:
        raise RuntimeError("branch must leave its input unchanged, got a change in place")
    return out


def _version(x: Tensor) -> int:
    """How often x was changed in place; 0 if torch does not count it."""
    return 0 if torch.compiler.is_compiling() or x.is_inference() else x._version


@autograd.opaque
class _Take(torch.autograd.Function):
    """x ↦ (x, x[index]), in the strides of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(index)
        if x.is_cpu and not _array.address(x):  # such as a batch of gradients, which is written to no tensor
            return x.view_as(x), gathered(x, index)
        part = torch.empty_like(x[: len(index)])
        return x.view_as(x), torch.index_select(x, 0, index, out=part)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, part: Tensor) -> tuple[Tensor, None]:
        return _Put.apply(grad, part, *ctx.saved_tensors), None


@autograd.opaque
class _Put(torch.autograd.Function):
    """(x, part) ↦ x plus part at index: the transpose of `_Take`. Each is the gradient of the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        out = x.clone()
        order = [0, *sorted(range(1, x.dim()), key=out.stride, reverse=True)]  # index_add_ is fast in it
        out.permute(order).index_add_(0, index, part.permute(order))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return *_Take.apply(grad, *ctx.saved_tensors), None


@autograd.opaque
class _Nothing(torch.autograd.Function):
    """A copy of x; the parameters of the branch get gradients of zero, as from a mask that drops everything.

    So optimizers and DistributedDataParallel get the same parameters in every step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad, *map(torch.zeros_like, ctx.parameters)
