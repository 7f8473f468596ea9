"""The kinds of layers that `thin` knows, and what it knows of each.

The groups of activations stand here alone: those that act on each element, those that map zero to zero, and
those that are homogeneous.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from thinned.nn import modules

# The rank of a unit's map: 0 for an element of a vector, d for a channel of d-dimensional maps.
DROPS: dict[type[nn.Module], int] = {
    **dict.fromkeys((nn.Dropout, modules.Dropout), 0),
    **dict.fromkeys((nn.Dropout1d, modules.Dropout1d), 1),
    **dict.fromkeys((nn.Dropout2d, modules.Dropout2d), 2),
    **dict.fromkeys((nn.Dropout3d, modules.Dropout3d), 3),
}
WEIGHTED: dict[type[nn.Module], int] = {nn.Linear: 0, nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
NORMS: dict[type[nn.Module], int] = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}
CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.LPPool1d, nn.LPPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)

# Activations without parameters, as layers and as functions.
ZERO_TO_ZERO = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Tanh, nn.Hardtanh, nn.Softsign, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink),
)
BY_ELEMENT = (*ZERO_TO_ZERO, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Softplus, nn.Threshold)
HOMOGENEOUS = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.PReLU, *POOLS)  # f(s·x) = s·f(x) for s > 0
ZERO_NAMES = "relu relu6 leaky_relu elu celu selu gelu silu mish hardswish tanh softsign tanhshrink"
OTHER_NAMES = "sigmoid logsigmoid hardsigmoid softplus"
POOL_NAMES = (
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d"
    " adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d"
)


def _calls(names: str) -> set[Any]:
    """What a graph may call under these names, in place or not: functions of torch, names of methods."""
    every = [name + end for name in names.split() for end in ("", "_")]
    functions = (getattr(home, name, None) for home in (torch, nn.functional) for name in every)
    return {function for function in functions if function} | set(every)


ZERO_CALLS, OTHER_CALLS, POOL_CALLS = map(_calls, (ZERO_NAMES, OTHER_NAMES, POOL_NAMES))
HOMOGENEOUS_CALLS = _calls(f"relu leaky_relu {POOL_NAMES}")
