"""Optimizers for thinned models: they read the gradient of a thinned layer only for the survivors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from thinned import _array
from thinned.kernels import survivors
from thinned.kernels.survivors import Indices, Penalty
from thinned.nn.thin.compact_gradient import WANTED, CompactGradient

Group = dict[str, Any]  # parameters and their options, as torch's optimizers have them


class _Gradient(NamedTuple):
    """The gradient of a parameter, (rows, columns, …); None means all rows, or all columns."""

    values: Tensor
    rows: Indices | None
    cols: Indices | None
    shape: tuple[int, ...]  # of the parameter: (R, C, …) or (R,)


class _InOnePass(torch.optim.Optimizer):
    """Updates each parameter in the CPU's memory in one pass; torch's own step updates all others.

    Parameters without memory of their own are among the others, such as FSDP2's, which are DTensors.
    """

    def add_param_group(self, param_group: Group) -> None:
        """Add a group, as torch does. The gradients of its parameters may be compact from now on."""
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            setattr(p, WANTED, True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once; returns the loss of ``closure``, or None without one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moved = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        plain = bool(moved) and bool(_array.address(moved[0][0]))  # no mode of torch must see what is done
        ours = [
            (p, group)
            for p, group in moved
            if self._has_rule(group) and _is_known(p, self.state.get(p, {}), plain)
        ]
        if len(ours) < len(moved):
            self._step_as_torch([p for p, _ in ours])
        for p, group in ours:
            self._update(p, _gradient(p), group)
            torch.autograd.graph.increment_version(p)  # autograd did not see this change, but must count it
        return loss

    def _has_rule(self, group: Group) -> bool:
        """Whether `_update` has the rule that the group's options are."""
        raise NotImplementedError

    def _update(self, p: Tensor, g: _Gradient, group: Group) -> None:
        """One step for a parameter, in one pass."""
        raise NotImplementedError

    def _moment(self, p: Tensor, name: str) -> Tensor:
        """A moment of a parameter's gradient, in memory without gaps. It begins at 0."""
        state = self.state[p]
        if state.get(name) is None:
            state[name] = torch.zeros_like(p, memory_format=torch.contiguous_format)
        elif not state[name].is_contiguous():
            state[name] = state[name].contiguous()
        moment: Tensor = state[name]
        return moment

    def _step_as_torch(self, but: list[Tensor]) -> None:
        """Torch's own step for all parameters but these. Hooks of the optimizer do not run again."""
        hidden = [(p, p.grad) for p in but]
        for p in but:
            p.grad = None
        for group in self.param_groups:
            for p in group["params"]:
                if isinstance(p.grad, CompactGradient):
                    p.grad = p.grad.dense()
        try:
            inspect.unwrap(super().step)(self)
        finally:
            for p, grad in hidden:
                p.grad = grad


class SGD(_InOnePass, torch.optim.SGD):
    """`torch.optim.SGD` for thinned models: the same rule, state and ``state_dict``.

    v ← μ·v + g + λ·w, w ← w − lr·v. A thinned layer's gradient g is zero outside the survivors. Here g stays
    compact: it holds the survivors alone. A parameter on the CPU is updated in one pass, which reads g and
    writes v and w. Without momentum and weight decay the rule changes only the survivors, and only they are
    written. With them it changes all, and all are written.

    Other code that reads ``p.grad`` (clipping, GradScaler, hooks, DistributedDataParallel) gets a dense
    tensor, made at that moment. Other devices and dtypes, ``dampening`` and ``maximize`` take torch's step.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize)

    def _has_rule(self, group: Group) -> bool:
        return not any(group.get(option) for option in ("dampening", "maximize", "differentiable"))

    def _update(self, p: Tensor, g: _Gradient, group: Group) -> None:
        v = _seen_as(g.shape, self._moment(p, "momentum_buffer")) if group["momentum"] else None
        survivors.sgd(
            _seen_as(g.shape, p),
            v,
            g.values,
            g.rows,
            g.cols,
            lr=float(group["lr"]),
            momentum=group["momentum"],
            nesterov=group["nesterov"],
            penalty=Penalty(l2=group["weight_decay"]),
        )


class _Moments(_InOnePass):
    """Adam's rule, with weight decay in the gradient or apart from it."""

    decoupled: bool  # whether weight decay is apart, unless the group says it

    def _has_rule(self, group: Group) -> bool:
        others = ("amsgrad", "maximize", "capturable", "differentiable")
        return not any(group.get(option) for option in others)

    def _update(self, p: Tensor, g: _Gradient, group: Group) -> None:
        state, lr, decay = self.state[p], float(group["lr"]), group["weight_decay"]
        if not state:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)
        m, v = (_seen_as(g.shape, self._moment(p, name)) for name in ("exp_avg", "exp_avg_sq"))
        step = int(state["step"]) + 1
        state["step"].fill_(step)
        apart = group.get("decoupled_weight_decay", self.decoupled)
        first, second = map(float, group["betas"])
        survivors.adam(
            _seen_as(g.shape, p),
            m,
            v,
            g.values,
            g.rows,
            g.cols,
            step=step,
            lr=lr,
            betas=(first, second),
            eps=group["eps"],
            shrink=lr * decay if apart else 0.0,
            penalty=Penalty(l2=0.0 if apart else decay),
        )


class Adam(_Moments, torch.optim.Adam):
    """`torch.optim.Adam` for thinned models: the same rule, state and ``state_dict``.

    With g + λ·w for g: m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², w ← w − lr·m̂/(√v̂ + ε), where
    m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ) at step t. A thinned layer's gradient g is compact: it holds the
    survivors alone, and is zero elsewhere. The rule changes all weights. A parameter on the CPU is updated
    in one pass, which reads g and writes m, v and w; it agrees with torch's to a few roundings.

    Other code that reads ``p.grad`` gets a dense tensor, as with `SGD`. Other devices and dtypes,
    ``amsgrad``, ``maximize`` and ``capturable`` take torch's step.

    Kingma and Ba 2015, ICLR, arXiv:1412.6980.
    """

    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        capturable: bool = False,
    ) -> None:
        options: Any = {"maximize": maximize, "capturable": capturable}
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)


class AdamW(_Moments, torch.optim.AdamW):
    """`torch.optim.AdamW` for thinned models: the same rule, state and ``state_dict``.

    The rule is that of `Adam`, but weight decay is apart from the gradient: first w ← w·(1 − lr·λ).

    Loshchilov and Hutter 2019, ICLR, arXiv:1711.05101.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        capturable: bool = False,
    ) -> None:
        options: Any = {"maximize": maximize, "capturable": capturable}
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)


def _is_known(p: Tensor, state: dict[str, Any], plain: bool) -> bool:
    """Whether the kernels take a parameter, its gradient and what an optimizer keeps of it.

    ``plain``: whether they take all plain tensors, so that these need no other look.
    """
    if p.dtype not in (torch.float32, torch.float64) or not p.is_contiguous():
        return False
    grad: Any = p.grad
    if isinstance(grad, CompactGradient):
        grad = grad.dense() if grad.compact is None else grad.compact[0]
    kept = (value for value in state.values() if isinstance(value, Tensor))
    return all((plain and _is_plain(x)) or _array.address(x) for x in (p, grad, *kept))


def _is_plain(x: Tensor) -> bool:
    """Whether a tensor is torch's own, in the CPU's memory."""
    return type(x) in _PLAIN and x.is_cpu and x.layout == torch.strided and not x.is_neg()


_PLAIN = (Tensor, torch.nn.Parameter)


def _gradient(p: Tensor) -> _Gradient:
    """The gradient of a parameter, in memory without gaps."""
    grad: Any = p.grad
    compact = grad.compact if isinstance(grad, CompactGradient) else None
    if compact is not None:
        values, selection = compact
        rows, cols = selection.indices(p.device)
        return _Gradient(values.contiguous(), rows, cols, selection.shape)
    values, shape = grad.dense() if isinstance(grad, CompactGradient) else grad, p.shape or (1,)
    return _Gradient(_seen_as(shape, values.contiguous()), None, None, shape)


def _seen_as(shape: tuple[int, ...], x: Tensor) -> Tensor:
    """A tensor without gaps, in another shape."""
    return x if x.shape == shape else x.detach().view(shape)
