"""The table of activations: one row an activation.

Networks in NumPy, `thinned.nn.thin`, moments, estimators and `thinned compare` read it. To add an activation,
write one row here and, where NumPy networks should have it, one class in `thinned.scratch.activations`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Activation:
    """One row: the mathematical facts about a function f, and the names under which others know it."""

    name: str  # in `scratch.mlp` and on the command line
    scratch: str | None = None  # its class in thinned.scratch; "": no layer is needed
    torch: str | None = None  # its class in torch.nn
    calls: str = ""  # its functions in torch and torch.nn.functional, and its methods of a tensor
    sklearn: str | None = None  # its name in thinned.estimators, which is scikit-learn's
    compared: bool = False  # whether `thinned compare` offers it
    by_element: bool = True  # f works on each number by itself
    keeps_zero: bool | Callable[[Any], bool] = True  # f(0) = 0; or the answer for a torch module
    homogeneous: bool = False  # f(s·x) = s·f(x) for s > 0
    moments: str | None = None  # its rule in thinned.uncertainty.moment_rules
    init: str = "xavier"  # the first weights of `scratch.Linear` that suit it
    pieces: int = 1  # linear functions a unit, by default


def _torch(module: str, calls: str = "", **facts: Any) -> Activation:
    """A row of an activation that torch alone has."""
    return Activation(module.lower(), torch=module, calls=calls, **facts)


_ROWS = (
    Activation(
        "relu",
        scratch="ReLU",
        torch="ReLU",
        calls="relu",
        sklearn="relu",
        compared=True,
        homogeneous=True,
        moments="relu",
        init="he",  # half of the units are 0
    ),
    Activation("tanh", scratch="Tanh", torch="Tanh", calls="tanh", sklearn="tanh"),
    Activation(
        "sigmoid",
        scratch="Sigmoid",
        torch="Sigmoid",
        calls="sigmoid",
        sklearn="logistic",
        compared=True,
        keeps_zero=False,
    ),
    Activation(
        "identity",
        scratch="",
        torch="Identity",
        sklearn="identity",
        homogeneous=True,
        moments="identity",
    ),
    Activation(
        "maxout",  # a linear layer and its activation in one
        scratch="Maxout",
        compared=True,
        by_element=False,
        homogeneous=True,
        init="he",
        pieces=5,
    ),
    _torch("ReLU6", "relu6"),
    _torch("LeakyReLU", "leaky_relu", homogeneous=True),
    _torch("ELU", "elu"),
    _torch("CELU", "celu"),
    _torch("SELU", "selu"),
    _torch("GELU", "gelu"),
    _torch("SiLU", "silu"),
    _torch("Mish", "mish"),
    _torch("Hardswish", "hardswish"),
    _torch("Hardtanh", "hardtanh", keeps_zero=lambda module: module.min_val <= 0 <= module.max_val),
    _torch("Softsign", "softsign"),
    _torch("Tanhshrink", "tanhshrink"),
    _torch("Softshrink", "softshrink"),
    _torch("Hardshrink", "hardshrink"),
    _torch("LogSigmoid", "logsigmoid", keeps_zero=False),
    _torch("Hardsigmoid", "hardsigmoid", keeps_zero=False),
    _torch("Softplus", "softplus", keeps_zero=False),
    _torch("Threshold", "threshold", keeps_zero=False),
)

ACTIVATIONS: dict[str, Activation] = {row.name: row for row in _ROWS}
RELU = ACTIVATIONS["relu"]  # max(0, x): a kernel computes it together with a linear layer
IN_NETWORKS = tuple(row.name for row in _ROWS if row.scratch is not None)  # of thinned.scratch
COMPARED = tuple(row.name for row in _ROWS if row.compared)  # by `thinned compare`
BY_SKLEARN_NAME = {row.sklearn: row.name for row in reversed(_ROWS) if row.sklearn}  # -> ours
