"""The rate of dropping as a function of the training step, or of the depth of a layer.

Stateless: the same arguments give the same rate, so that an interrupted run continues with the same rates.
Every function over steps is called ``f(p, step, steps)``: p is the full rate, ``step`` counts from 0, and
``steps`` is the number of training steps. Epochs serve as well. A step beyond ``steps`` counts as ``steps``:
training that goes on longer keeps the last rate.

>>> from thinned.schedules import depth_linear, early, linear
>>> [round(linear(0.1, step, 4), 4) for step in range(6)]
[0.0, 0.025, 0.05, 0.075, 0.1, 0.1]
>>> depth_linear(0.5, layers=4)
(0.125, 0.25, 0.375, 0.5)

A model gets its rate before each step, and the blocks of a deep one theirs once:

>>> import torch, thinned.nn as tnn
>>> blocks = [torch.nn.Sequential(torch.nn.Linear(8, 8), tnn.Dropout()) for _ in range(4)]
>>> for block, p in zip(blocks, depth_linear(0.2, layers=4)):
...     _ = tnn.set_rate(block, p)
>>> model = torch.nn.Sequential(*blocks)
>>> for step in range(100):
...     _ = tnn.set_rate(model, early(0.1, step, 100, until=0.2))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from thinned import _checks

__all__ = ["SCHEDULES", "constant", "curriculum", "depth_linear", "early", "late", "linear"]


def constant(p: float, step: int, steps: int) -> float:
    """The full rate p at every step.

    Like all schedules, raises ValueError or TypeError where p is not in [0, 1], ``step`` is negative or
    ``steps`` is not positive.
    """
    p, _, _ = _check(p, step, steps)
    return p


def linear(p: float, step: int, steps: int, *, start: float = 0.0) -> float:
    """From ``start`` at step 0 along a line to p at step ``steps``: start + (p − start)·step/steps.

    With start = 0 it is DropBlock's schedule: the kept share falls from 1 to 1 − p.

    Source: Ghiasi, Lin and Le 2018, NeurIPS, arXiv:1810.12890, section 3.
    """
    p, step, steps = _check(p, step, steps)
    start = _checks.probability("start", start)
    t = step / steps
    return (1 - t) * start + t * p


def early(p: float, step: int, steps: int, *, until: float = 0.1, decay: str = "linear") -> float:
    """Drop only in the first part of training, against underfitting.

    The first part is the first c = round(until·steps) steps. ``decay="linear"``: p·(1 − step/c) there,
    ``"constant"``: p; 0 from step c on.

    Source: Liu, Xu, Jin, Shen and Darrell 2023, ICML, arXiv:2303.01500, section 4.
    """
    p, step, steps = _check(p, step, steps)
    cut = round(_checks.probability("until", until) * steps)
    _checks.one_of("decay", decay, ("linear", "constant"))
    if step >= cut:
        return 0.0
    return p * (1 - step / cut) if decay == "linear" else p


def late(p: float, step: int, steps: int, *, since: float = 0.5) -> float:
    """Drop only in the last part of training, against overfitting: p from step round(since·steps) on.

    Source: Liu, Xu, Jin, Shen and Darrell 2023, ICML, arXiv:2303.01500, section 4.
    """
    p, step, steps = _check(p, step, steps)
    return p if step >= round(_checks.probability("since", since) * steps) else 0.0


def curriculum(p: float, step: int, steps: int, *, gamma: float | None = None) -> float:
    """From 0 towards p, ever more slowly: p·(1 − exp(−γ·step)), γ > 0. The default γ is the paper's 10/steps.

    Source: Morerio, Cavazza, Volpi, Vidal and Murino 2017, ICCV, arXiv:1703.06229, section 3.
    """
    p, step, steps = _check(p, step, steps)
    gamma = 10 / steps if gamma is None else _checks.positive("gamma", gamma)
    return -p * math.expm1(-gamma * step)


SCHEDULES: Mapping[str, Callable[[float, int, int], float]] = MappingProxyType(
    {schedule.__name__: schedule for schedule in (constant, linear, early, late, curriculum)}
)


def depth_linear(p: float, layers: int) -> tuple[float, ...]:
    """Stochastic depth's rates p·l/L of the layers l = 1 … L: the last one drops with p.

    In the paper's words layer l survives with 1 − l/L·(1 − p_L), where p_L = 1 − p is the survival of the
    last. Raises ValueError or TypeError where p is not in [0, 1], or ``layers`` is not positive.

    Source: Huang, Sun, Liu, Sedra and Weinberger 2016, ECCV, arXiv:1603.09382, equation 4.
    """
    p, layers = _checks.probability("p", p), _checks.positive_int("layers", layers)
    return tuple(p * (layer / layers) for layer in range(1, layers + 1))


def _check(p: float, step: int, steps: int) -> tuple[float, int, int]:
    """The arguments of every schedule, ``step`` at most ``steps``."""
    p, steps = _checks.probability("p", p), _checks.positive_int("steps", steps)
    return p, min(_checks.integer("step", step, 0), steps), steps
