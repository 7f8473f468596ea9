"""Layers under test, each with the shape of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers.by_hand import F64, N, fill, random
from thinned import Key
from thinned.scratch import (
    BatchNorm,
    DropConnect,
    Dropout,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    Linear,
    Maxout,
    Normalize,
    ReLU,
    Sequential,
    SpatialDropout,
    ThreeLayerNet,
    mlp,
)

FLAT, LINE, PLANE, ROOM = (N, 6), (3, 6, 4), (2, 6, 3, 2), (2, 6, 2, 1, 3)
WIDE: dict[str, Any] = {"eps": 0.5, **F64}  # where the bound on 1/√(σ² + ε) must not need σ²
REGULARISED: dict[str, Any] = {"l1": 0.03, "l2": 0.2, "bias_l1": 0.05, "bias_l2": 0.3, **F64}


def norm_net() -> Sequential:
    return Sequential(
        Linear(6, 8, key=Key(1), l2=0.1, **F64),
        BatchNorm(8, **WIDE),
        ReLU(),
        Dropout(0.3),
        Linear(8, 6, key=Key(2), **F64),
        LayerNorm(6, **WIDE),
        GroupNorm(2, 6, **WIDE),
    )


def three_layers(rescale: str = "train", **options: Any) -> ThreeLayerNet:
    settings = {"p": 0.4, "input_p": 0.2, "l2": 0.1, **F64, **options}
    return ThreeLayerNet(6, 8, 7, 4, key=Key(5), rescale=rescale, **settings)


CASES: dict[str, tuple[Callable[[], Any], tuple[int, ...]]] = {
    "spatial-1d": (lambda: SpatialDropout(0.4), LINE),
    "spatial-2d": (lambda: SpatialDropout(0.4), PLANE),
    "spatial-3d": (lambda: SpatialDropout(0.4), ROOM),
    "drop-connect": (lambda: DropConnect(6, 4, 0.4, key=Key(0), **F64), FLAT),
    "drop-connect-batch": (lambda: DropConnect(6, 4, 0.4, key=Key(0), per_sample=False, **F64), FLAT),
    "drop-connect-regularised": (lambda: DropConnect(6, 4, 0.4, key=Key(0), **REGULARISED), FLAT),
    "drop-connect-0": (lambda: DropConnect(6, 4, 0.0, key=Key(0), **F64), FLAT),
    "maxout": (lambda: Maxout(6, 4, pieces=3, key=Key(0), **F64), FLAT),
    "maxout-1": (lambda: Maxout(6, 4, pieces=1, key=Key(0), **F64), FLAT),
    "maxout-regularised": (lambda: Maxout(6, 4, key=Key(0), **REGULARISED), FLAT),
    "batch-flat": (lambda: BatchNorm(6, **WIDE), FLAT),
    "batch-1d": (lambda: BatchNorm(6, **WIDE), LINE),
    "batch-2d": (lambda: BatchNorm(6, **WIDE), PLANE),
    "batch-3d": (lambda: BatchNorm(6, affine=False, **WIDE), ROOM),
    "instance-1d": (lambda: InstanceNorm(6, affine=True, **WIDE), LINE),
    "instance-2d": (lambda: InstanceNorm(6, **WIDE), PLANE),
    "instance-3d": (lambda: InstanceNorm(6, affine=True, **WIDE), ROOM),
    "group-flat": (lambda: GroupNorm(2, 6, **WIDE), FLAT),
    "group-1d": (lambda: GroupNorm(3, 6, **WIDE), LINE),
    "group-2d": (lambda: GroupNorm(6, 6, **WIDE), PLANE),
    "group-3d": (lambda: GroupNorm(1, 6, affine=False, **WIDE), ROOM),
    "layer-1": (lambda: LayerNorm(6, **WIDE), FLAT),
    "layer-2": (lambda: LayerNorm((3, 2), **WIDE), PLANE),
    "layer-3": (lambda: LayerNorm((6, 3, 2), affine=False, **WIDE), PLANE),
    "layer-alone": (lambda: LayerNorm((6, 4), **WIDE), (6, 4)),
    "net-norms": (norm_net, FLAT),
    "mlp-maxout": (
        lambda: mlp((6, 5, 4), key=Key(3), drop=Dropout, activation="maxout", pieces=3, l2=0.1, **F64),
        FLAT,
    ),
    "mlp-drop-connect": (
        lambda: mlp((6, 5, 4), key=Key(3), drop=None, connect=DropConnect, input_p=0.2, l1=0.01, **F64),
        FLAT,
    ),
}
KEYS = pytest.mark.parametrize("key", [Key(11), None], ids=["training", "evaluation"])
LAYERS = pytest.mark.parametrize("name", CASES)
NORMS = [name for name, (make, _) in CASES.items() if isinstance(make(), Normalize)]


def case(name: str) -> tuple[Any, np.ndarray]:
    """A layer, filled, and its input; running statistics are not those of the start."""
    make, shape = CASES[name]
    layer, x = fill(make()), random("x", *shape)
    if "batch-" in name and isinstance(layer, BatchNorm):
        layer.forward(2 * random("earlier", *shape) - 1, Key(0))
    return layer, x
