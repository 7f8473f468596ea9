"""Optimizers: steps of gradient descent, in place, in buffers that are allocated once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from thinned import _checks
from thinned.kernels import survivors
from thinned.scratch.layer import Array, Gradient, Layer, floats


class Optimizer:
    """A rule that updates each parameter w from its gradient g and from moments of that gradient.

    ``lr`` may be set between steps. ``t`` counts the steps. A subclass names its moments, and
    its ``_update`` is one step for w.
    """

    moments: tuple[str, ...] = ()

    def __init__(self, lr: float) -> None:
        self.lr = _checks.non_negative("lr", lr)
        self.t = 0
        self._state: dict[str, Array] = {}

    def step(self, net: Layer) -> None:
        """Update every parameter of ``net`` in place, then enforce its constraints.

        Raises ValueError, before anything is changed, where the moments are those of another network.
        """
        _checks.non_negative("lr", self.lr)
        params = list(net.named_params())
        moments = [[self._moment(kind, name, w) for kind in self.moments] for name, w, _ in params]
        for (_, w, g), ms in zip(params, moments, strict=True):
            self._update(w, g if isinstance(g, Gradient) else Gradient(g), *ms)
        self.t += 1
        net.project()

    def state(self) -> dict[str, Array]:
        """A copy of what a later run needs to continue: the step count and the moments, not the settings."""
        return {"t": np.array(self.t), **{name: array.copy() for name, array in self._state.items()}}

    def load(self, state: Mapping[str, Array]) -> None:
        """Continue from a `state`. Raises ValueError or TypeError where it belongs to another rule."""
        if "t" not in state:
            raise ValueError("state must have the step count 't', got none")
        t = _checks.integer("state['t']", np.asarray(state["t"])[()], 0)
        new = {}
        for name in state:
            if name != "t":
                if name.split(".")[0] not in self.moments:
                    raise ValueError(
                        f"state must be of the same rule, got another: {type(self).__name__} has no {name!r}"
                    )
                new[name] = floats(f"state[{name!r}]", state[name]).copy()
        self.t, self._state = t, new

    def _update(self, w: Array, g: Gradient, *moments: Array) -> None:
        """One step for w."""
        raise NotImplementedError

    def _moment(self, kind: str, name: str, w: Array) -> Array:
        """The moment of that kind of parameter ``name``: zeros at the start."""
        full = f"{kind}.{name}"
        if self.t == 0 and full not in self._state:
            self._state[full] = np.zeros_like(w)
        m = self._state.get(full)
        if m is None or m.shape != w.shape or m.dtype != w.dtype:
            found = "none" if m is None else f"{m.shape} {m.dtype}"
            raise ValueError(
                f"state[{full!r}] must be {w.shape} {w.dtype}, got {found}; make one optimizer a network"
            )
        return m


class SGD(Optimizer):
    """Gradient descent: v ← μ·v + g, w ← w − lr·v; with Nesterov's momentum w ← w − lr·(g + μ·v).

    Source: Sutskever, Martens, Dahl and Hinton 2013, ICML, PMLR 28(3):1139-1147, in the form of
    torch.optim.SGD, whose w is the paper's look-ahead point θ + μv and whose v is the paper's over −lr.
    """

    def __init__(self, lr: float, momentum: float = 0.0, nesterov: bool = False) -> None:
        super().__init__(lr)
        self.momentum = _fraction("momentum", momentum)
        self.nesterov = bool(nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov must be False without momentum, got True")
        self.moments = ("velocity",) if self.momentum else ()

    def change_rate(self, lr: float) -> None:
        """Set ``lr`` as in the rule u ← μ·u − lr·g, w ← w + u, whose memory u is a step and not a gradient.

        Without it a new ``lr`` changes what is left of earlier steps, too. u is −lr·v.
        """
        lr = _checks.positive("lr", lr)
        for v in self._state.values():
            v *= self.lr / lr
        self.lr = lr

    def _update(self, w: Array, g: Gradient, *moments: Array) -> None:
        (v,) = moments or (None,)
        rule: dict[str, Any] = {"lr": self.lr, "momentum": self.momentum, "nesterov": self.nesterov}
        survivors.sgd(w, v, g.values, **rule, penalty=g.penalty)


class Adam(Optimizer):
    """w ← w − rate·m̂/(√v̂ + ε), with moments m ← β₁·m + (1 − β₁)·g and v ← β₂·v + (1 − β₂)·g².

    m̂ = m/(1 − β₁ᵗ) and v̂ = v/(1 − β₂ᵗ) at step t = 1, 2, … The rate is lr/(1 + decay·(t − 1)).

    Source: Kingma and Ba 2015, ICLR, arXiv:1412.6980.
    """

    moments = ("m", "v")

    def __init__(
        self, lr: float, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-7, decay: float = 0.0
    ) -> None:
        super().__init__(lr)
        self.beta1, self.beta2 = _fraction("beta1", beta1), _fraction("beta2", beta2)
        self.eps, self.decay = _checks.positive("eps", eps), _checks.non_negative("decay", decay)

    @property
    def rate(self) -> float:
        """The rate of the next step."""
        return self.lr / (1.0 + self.decay * self.t)

    def _update(self, w: Array, g: Gradient, *moments: Array) -> None:
        (m, v), betas, step = moments, (self.beta1, self.beta2), self.t + 1
        rule: dict[str, Any] = {"step": step, "lr": self.rate, "betas": betas, "eps": self.eps}
        survivors.adam(w, m, v, g.values, **rule, penalty=g.penalty)


def _fraction(name: str, value: Any) -> float:
    """A number in [0, 1)."""
    value = _checks.number(name, value)
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {value:g}")
    return value
