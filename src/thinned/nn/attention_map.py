"""Attention maps for `thinned.attentive_cutmix`: which regions of an image a network responds to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thinned import _checks


def attention_map(features: Tensor, grid: int = 7) -> Tensor:
    """Mean |activation| over the channels, averaged in a grid; (N, C, H, W) -> (N, grid, grid), all ≥ 0.

    Raises TypeError or ValueError if ``features`` does not have this shape and kind, or ``grid`` is no
    positive integer.
    """
    grid = _checks.positive_int("grid", grid)
    if not isinstance(features, Tensor) or not features.is_floating_point():
        came = f"dtype {features.dtype}" if isinstance(features, Tensor) else type(features).__name__
        raise TypeError(f"features must be a tensor of floating-point numbers, got {came}")
    if features.dim() != 4 or 0 in features.shape[1:]:
        raise ValueError(f"features must have shape (N, C, H, W), got {tuple(features.shape)}")
    return nn.functional.adaptive_avg_pool2d(features.abs().float().mean(1), grid)


@torch.no_grad()
def last_features(model: nn.Module, images: Tensor) -> Tensor:
    """The output (N, C, H, W) of the last 2d convolution that runs when ``model`` evaluates ``images``.

    The modes of the model's modules are the same afterwards. `thinned.attentive_cutmix` takes
    ``attention_map(last_features(model, images))`` as its attention; its paper uses a pretrained network.

    Raises ValueError if no 2d convolution runs.
    """
    seen: list[Tensor] = []
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    modes = [(module, module.training) for module in model.modules()]
    hooks = [
        module.register_forward_hook(lambda _module, _input, output: seen.append(output))
        for module in convolutions
    ]
    try:
        model.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes:
            module.training = mode
    if not seen:
        raise ValueError("model must run a 2d convolution to have a last feature map, got none")
    return seen[-1]
