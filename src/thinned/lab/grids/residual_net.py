"""A small residual network on images, computed by torch, with a place for each drop method in its blocks.

Parameters, optimizer, checkpoints and history work as in every other run; torch computes only the passes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thinned import Key, _checks, cutout, schedules, scratch
from thinned.kernels.survivors import Penalty
from thinned.lab.grids.grid import Budget, Grid, GridConfig, GridTrainer, System
from thinned.lab.training import torch_nets
from thinned.scratch.layer import Array, Gradient

DROPS = ("none", "element", "spatial", "block", "path")
BLOCK = 5  # width of the squares that DropBlock drops


@dataclass(frozen=True, kw_only=True)
class ImageConfig(GridConfig):
    """A run of the residual network; `hidden` are the channels of its stages.

    Args:
        drop: what the blocks drop: "none", "element", "spatial", "block", or "path" (whole branches).
        rate: the probability of dropping; for "path" that of the last block, with a linear rise to it.
        ramp: whether the rate rises linearly from 0 during training.
        cut: the length of the squares that are cut out of training images.
        blocks: residual blocks per stage.
    """

    drop: str = "none"
    rate: float = 0.0
    ramp: bool = False
    cut: int = 0
    blocks: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.one_of("drop", self.drop, DROPS)
        _checks.probability("rate", self.rate)
        _checks.positive_int("blocks", self.blocks)


class ImageTrainer(GridTrainer):
    """Trains the residual network."""

    config: ImageConfig
    computed_by = ("torch",)

    @staticmethod
    def work(settings: Mapping[str, Any], examples: int, inputs: int, classes: int) -> float:
        """Approximate number of multiplications: 3 × 3 convolutions, once forward and twice backward."""
        area, before, total = float(inputs // (3 if inputs % 3 == 0 else 1)), 3, 0.0
        for channels in settings["hidden"]:
            total += 9 * area * (before * channels + 2 * settings.get("blocks", 2) * channels**2)
            area, before = area / 4, channels
        return 3.0 * total * examples * settings["epochs"]

    def build(self) -> scratch.Network:
        """The network before training."""
        return ImageNet(self.config, image_shape(self.data.shape), len(self.data.classes))

    def _step(self, x: np.ndarray, y: np.ndarray, step: int) -> tuple[float, float]:
        """One update, with the drop rate and the cut images of this step."""
        c = self.config
        assert isinstance(self.net, ImageNet)
        if c.ramp:
            self.net.set_rate(schedules.linear(c.rate, step, c.epochs * self.steps))
        if c.cut:
            key = self.mask_key.fold_in(step).fold_in("cutout")
            x = cutout(x.reshape(-1, *image_shape(self.data.shape)), c.cut, key=key).reshape(x.shape)
        return super()._step(x, y, step)


class ImageNet(torch_nets.ByTorch):
    """The torch network in the form that the trainer expects: NumPy arrays on the same memory."""

    def __init__(self, config: ImageConfig, shape: Sequence[int], classes: int) -> None:
        super().__init__({}, network(config, shape[0], classes), config)
        self.shape, self.l2 = tuple(shape), config.l2

    def inputs(self, x: Array) -> Array:
        """(N, C·H·W) -> (N, C, H, W)."""
        return x.reshape(-1, *self.shape)

    def named_params(self) -> Iterator[tuple[str, Array, Array | Gradient]]:
        """Every parameter and its gradient, flattened; only weights have a penalty."""
        for name, param in self.module.named_parameters():
            own = param.detach().numpy().reshape(-1)
            grad = np.zeros_like(own) if param.grad is None else param.grad.numpy().reshape(-1)
            penalty = Penalty(l2=self.l2 if param.dim() > 1 else 0.0)
            yield name, own, Gradient(grad, penalty)

    def named_arrays(self) -> Iterator[tuple[str, Array]]:
        """Parameters and running statistics, flattened."""
        self.on.pull()
        for name, tensor in self.module.state_dict().items():
            if tensor.is_floating_point():
                yield name, tensor.numpy().reshape(-1)

    def penalty(self) -> float:
        """½·l2·‖w‖² over all weights."""
        squares = (float(np.vdot(w, w)) for _, w, part in self.named_params() if part.penalty.l2)  # type: ignore[union-attr]
        return 0.5 * self.l2 * math.fsum(squares)

    def set_rate(self, p: float) -> None:
        """Set the rate of every layer that drops inside the branches."""
        from thinned import nn

        for module in self.on.model.modules():
            if isinstance(module, (nn.Dropout, nn.Dropout2d, nn.DropBlock2d)):
                nn.set_rate(module, p)


def network(config: ImageConfig, n_in: int, classes: int) -> Any:
    """Stages of residual blocks; each stage halves the side. The seed decides the initial weights."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(Key(config.seed).fold_in("init").seed % (1 << 63))
    count = len(config.hidden) * config.blocks
    depths = iter(schedules.depth_linear(config.rate, count) if config.drop == "path" else [0.0] * count)
    layers: list[nn.Module] = []
    for i, channels in enumerate(config.hidden):
        layers.append(nn.Sequential(*_conv(n_in, channels, stride=2 if i else 1), nn.ReLU()))
        layers += [_block(channels, config, next(depths)) for _ in range(config.blocks)]
        n_in = channels
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, classes))
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net


def _block(channels: int, config: ImageConfig, depth: float) -> Any:
    """ReLU(x + branch(x)); the branch is convolution, ReLU, drop layer, convolution."""
    from torch import nn

    import thinned.nn as tnn

    makers: dict[str, Any] = {
        "element": lambda: tnn.Dropout(config.rate),
        "spatial": lambda: tnn.Dropout2d(config.rate),
        "block": lambda: tnn.DropBlock2d(config.rate, BLOCK),
    }
    drop = [makers[config.drop]()] if config.drop in makers else []
    branch = nn.Sequential(*_conv(channels, channels), nn.ReLU(), *drop, *_conv(channels, channels))
    return nn.Sequential(tnn.Residual(branch, depth), nn.ReLU())


def _conv(n_in: int, n_out: int, stride: int = 1) -> list[Any]:
    from torch import nn

    return [nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(n_out)]


def image_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape (C, H, W) of images stored as (H, W) or (C, H, W)."""
    return (1, *shape) if len(shape) == 2 else tuple(shape)


SETTINGS: Mapping[str, Any] = {
    "method": "none", "hidden": (32, 64, 128), "blocks": 3, "optimizer": "sgd", "lr": 0.1, "l2": 5e-4,
    "engine": "torch",
}  # fmt: skip
BUDGETS = {
    "smoke": Budget(
        text="8 × 8 digits, 4 channels, 3 epochs", data="digits", limit=400, width=1 / 8,
        settings={"epochs": 3, "blocks": 1, "batch": 50, "lr": 0.05},
    ),
    "quick": Budget(
        text="1,000 images, a quarter of the channels, 2 blocks a stage, 30 epochs", data="cifar10",
        limit=1_000, width=1 / 4, settings={"epochs": 30, "blocks": 2, "batch": 50, "lr": 0.05},
    ),
    "paper": Budget(
        text="all images, 100 epochs, 3 seeds", data="cifar10", seeds=3, settings={"epochs": 100}
    ),
}  # fmt: skip
DIFFERS = [
    "A small residual network (three stages of 32, 64 and 128 channels) in place of the paper's, no "
    "mirrored or shifted images, and a fixed schedule: SGD with momentum 0.9 (Nesterov), rate falling to 0.",
    "The drop rates have not been tuned. The images and epochs of the quick budget were chosen on 4,000 "
    "held-out training images, so that the network overfits without dropping.",
]


def system(label: str, **settings: Any) -> System:
    """A row: the network with these settings."""
    return System(label=label, settings=settings, trainer=ImageTrainer)


NONE, ELEMENTS = system("none"), system("elements, p = 0.1", drop="element", rate=0.1)
ImageGrid = functools.partial(Grid, settings=SETTINGS, budgets=BUDGETS, differs=DIFFERS, config=ImageConfig)
