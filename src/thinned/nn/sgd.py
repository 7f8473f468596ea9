"""Gradient descent for thinned models: it reads the gradient of a thinned layer for the survivors alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from thinned.kernels import survivors
from thinned.nn.thin.compact_gradient import WANTED, CompactGradient


class SGD(torch.optim.SGD):
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

    def add_param_group(self, param_group: dict[str, Any]) -> None:
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
        for group in self.param_groups:
            others = [p for p in group["params"] if p.grad is not None and not self._in_place(p, group)]
            if others:
                self._as_torch(others, group)
        return loss

    def _in_place(self, p: Tensor, group: dict[str, Any]) -> bool:
        """Update one parameter in one pass; returns whether that was possible."""
        grad = p.grad
        known = p.device.type == "cpu" and p.dtype in (torch.float32, torch.float64) and p.is_contiguous()
        if not known or grad is None or grad.is_sparse or group["dampening"] or group["maximize"]:
            return False
        compact = grad.compact if isinstance(grad, CompactGradient) else None
        if compact is not None:
            g, selection = compact
            g, shape = g.reshape(selection.sizes).contiguous(), selection.shape
            rows, cols = selection.indices(p.device)
        else:
            g = grad.dense() if isinstance(grad, CompactGradient) else grad
            g, rows, cols, shape = g.contiguous(), None, None, p.shape
        v = self._moments(p) if group["momentum"] else None
        survivors.sgd(
            p.detach().view(shape),
            None if v is None else v.view(shape),
            g,
            rows,
            cols,
            lr=float(group["lr"]),
            momentum=group["momentum"],
            nesterov=group["nesterov"],
            penalty=survivors.Penalty(l2=group["weight_decay"]),
        )
        torch.autograd.graph.increment_version(p)  # autograd did not see this change, but must count it
        return True

    def _moments(self, p: Tensor) -> Tensor:
        """The velocity v of a parameter, which begins at 0."""
        state = self.state[p]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(p, memory_format=torch.contiguous_format)
        v: Tensor = state["momentum_buffer"]
        if not v.is_contiguous():
            v = state["momentum_buffer"] = v.contiguous()
        return v

    def _as_torch(self, params: list[Any], group: dict[str, Any]) -> None:
        """Update the other parameters by torch's own function."""
        grads = [p.grad.dense() if isinstance(p.grad, CompactGradient) else p.grad for p in params]
        moments = [self.state[p].get("momentum_buffer") for p in params]
        sgd(
            params,
            grads,
            moments,
            has_sparse_grad=any(g.is_sparse for g in grads),
            foreach=False,
            fused=False,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
        )
        if group["momentum"]:
            for p, v in zip(params, moments, strict=True):
                self.state[p]["momentum_buffer"] = v
