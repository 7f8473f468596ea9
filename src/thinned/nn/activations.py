"""The rows of `thinned.activations` by torch's modules, functions and methods."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from thinned.activations import ACTIVATIONS, Activation


def functions(names: str) -> set[Any]:
    """The functions of torch and torch.nn.functional with these names, in place or not, and the names."""
    every = {name + end for name in names.split() for end in ("", "_")}
    return every | {
        f for home in (torch, nn.functional) for name in every if (f := getattr(home, name, None))
    }


MODULES: dict[type[nn.Module], Activation] = {
    getattr(nn, row.torch): row for row in ACTIVATIONS.values() if row.torch
}
CALLS: dict[Any, Activation] = {call: row for row in ACTIVATIONS.values() for call in functions(row.calls)}
NAMES = " ".join(row.calls for row in ACTIVATIONS.values())  # of all functions and methods


def keeps_zero(module: nn.Module) -> bool:
    """Whether a module is an activation with f(0) = 0."""
    row = MODULES.get(type(module))
    if row is None:
        return False
    return row.keeps_zero(module) if callable(row.keeps_zero) else row.keeps_zero
