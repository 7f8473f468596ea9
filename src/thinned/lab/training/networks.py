"""The dense network of a configuration, and its passes on either engine."""

from __future__ import annotations

from typing import Any

import numpy as np

from thinned import scratch
from thinned.key import Key
from thinned.lab.choices import drops_weights, is_thin
from thinned.lab.data.dataset import Dataset
from thinned.lab.training.config import Config
from thinned.lab.training.torch_nets import ByTorch, TorchNet
from thinned.methods import DROPS
from thinned.scratch.drops import LAYERS


def build(config: Config, dataset: Dataset) -> scratch.Network:
    """The network of a configuration: inputs → hidden layers, each followed by dropping → outputs."""
    classes = dataset.outputs
    outputs = classes if config.outputs is None else config.outputs
    if outputs < classes:
        raise ValueError(f"outputs must be at least the {classes} classes of {dataset.name}, got {outputs}")
    return computed(dense(config, dataset.x_train.shape[1], outputs), config)


def dense(config: Config, inputs: int, outputs: int) -> scratch.Sequential:
    """The layers of a configuration, with their first weights."""
    return scratch.mlp(
        (inputs, *config.hidden, outputs),
        key=Key(config.seed).fold_in("init"),
        **drop_arguments(config.method),
        p=config.p,
        input_p=config.input_p,
        activation=config.activation,
        l2=config.l2,
        max_norm=config.max_norm,
        dtype=np.dtype(config.dtype),
    )


def drop_arguments(method: str) -> dict[str, Any]:
    """The arguments of `scratch.mlp` for a method."""
    if method == "none":
        return {"drop": None}
    if drops_weights(method):
        return {"drop": None, "connect": scratch.DropConnect}
    if is_thin(method):
        return {"drop": scratch.Dropout}
    drops = DROPS[method]
    return {"drop": lambda p: LAYERS[drops](p, **drops.given)}


def computed(net: scratch.Sequential, config: Config) -> scratch.Network:
    """The network that the configuration trains: computed by torch, thinned, or unchanged."""
    if config.engine == "torch":
        return TorchNet(net, config)
    return scratch.Thin(net) if is_thin(config.method) else net


def training_pass(net: scratch.Network, x: np.ndarray, key: Key, step: int) -> np.ndarray:
    """Logits in training: layer ``name`` gets the key ``key.fold_in(step).fold_in(name)`` on each engine."""
    if isinstance(net, ByTorch):
        return net.training_pass(x, key, step)
    return net.forward(x, key.fold_in(step))
