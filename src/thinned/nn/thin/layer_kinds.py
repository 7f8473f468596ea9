"""The kinds of layers that `thin` knows. `thinned.activations` has what it knows of activations."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from thinned.nn import activations, modules

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

POOL_CALLS = activations.functions(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d"
    " adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d"
)
ZERO_CALLS = {call for call, row in activations.CALLS.items() if row.keeps_zero is True}
HOMOGENEOUS = {  # layers and calls with f(s·x) = s·f(x) for s > 0
    *(nn.PReLU, *POOLS, *POOL_CALLS),
    *(kind for kind, row in activations.MODULES.items() if row.homogeneous),
    *(call for call, row in activations.CALLS.items() if row.homogeneous),
}


def norm_and_activation(layer: Any) -> bool:
    """Whether a layer is a subclass of BatchNorm2d that also applies the activation ``act``, as timm has it.

    Its ``drop`` must do nothing. A copy of it is tried out, in training and in evaluation.
    """
    if not isinstance(layer, nn.BatchNorm2d) or type(getattr(layer, "drop", None)) is not nn.Identity:
        return False
    if type(layer) in NORMS or type(getattr(layer, "act", None)) not in activations.MODULES:
        return False
    return all(_acts_after(copy.deepcopy(layer).train(training)) for training in (True, False))


@torch.no_grad()
def _acts_after(layer: Any) -> bool:
    """Whether y = act(BatchNorm(x)) for one x."""
    like = next((each for each in (layer.weight, layer.running_mean) if each is not None), torch.empty(()))
    x = torch.linspace(-2, 3, 8 * layer.num_features, dtype=like.dtype, device=like.device)
    x = x.view(2, layer.num_features, 2, 2)
    try:
        return torch.equal(layer(x.clone()), layer.act(nn.BatchNorm2d.forward(layer, x)))
    except Exception:  # another forward may raise anything
        return False
