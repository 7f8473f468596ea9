"""Engines: who computes a dense network forward and backward. The masks, and so the training, are the same.

`"numpy"` is `thinned.scratch`. `"torch"` runs the same layers, under the same names and on the same memory,
as `thinned.nn` modules with torch's autograd; penalties, constraints and the optimizer stay those of
`thinned.scratch`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from thinned import scratch
from thinned.key import Key
from thinned.methods import METHODS, Method

ENGINES = ("numpy", "torch")


def applicable(engine: str) -> list[str]:
    """The methods that fit a dense network and that the engine has, by name; ``"none"`` first."""
    part = "hand" if engine == "numpy" else "module"
    return ["none", *(row.name for row in METHODS.values() if fits_dense(row) and getattr(row, part))]


def fits_dense(row: Method) -> bool:
    """Whether a method works on (N, features) inside a network of ReLU or logistic units."""
    dims = ("any", "(N, in)", "(N, features) or (N, C, *spatial)")
    return row.kind == "drop" and row.dims in dims and not row.needs


def drop_arguments(method: str) -> dict[str, Any]:
    """The arguments of `scratch.mlp` that put a method in."""
    if method == "none":
        return {"drop": None}
    row = METHODS[method]
    if row.unit == "weight":  # one mask a batch: a mask a sample costs as many products as samples
        return {"drop": None, "connect": functools.partial(scratch.DropConnect, per_sample=False)}
    if is_thin(method):
        return {"drop": scratch.Dropout}
    layer: Callable[..., scratch.Layer] = getattr(scratch, str(row.hand))
    return {"drop": lambda p: layer(p, **row.options)}


def is_thin(method: str) -> bool:
    """Whether a method is one that computes the survivors alone; it then drops inputs as dropout does."""
    return method != "none" and METHODS[method].unit == "feature"


@runtime_checkable
class ByTorch(Protocol):
    """A network that torch trains."""

    def training_pass(self, x: np.ndarray, key: Key, step: int) -> np.ndarray:
        """Logits (N, n_out) with the masks of `thinned.nn.keyed` at that step."""


def training_pass(net: scratch.Network, x: np.ndarray, key: Key, step: int) -> np.ndarray:
    """Logits in training: layer ``name`` gets the key ``key.fold_in(step).fold_in(name)`` on each engine."""
    if isinstance(net, ByTorch):
        return net.training_pass(x, key, step)
    return net.forward(x, key.fold_in(step))


class TorchNet(scratch.Sequential):
    """A dense network of `scratch.mlp`, computed by torch on the CPU, with the parameters in place.

    ``method`` names the row whose module stands for each dropping layer.
    """

    def __init__(self, hand: scratch.Sequential, method: str) -> None:
        super().__init__(*hand.children.values())
        self.module = _module(hand, method)

    def training_pass(self, x: np.ndarray, key: Key, step: int) -> np.ndarray:
        """Logits (N, n_out) with the masks of `thinned.nn.keyed` at that step."""
        import torch

        from thinned.nn import keyed

        with keyed(self.module.train(), key, step):
            self._saved = self.module(torch.from_numpy(np.ascontiguousarray(x)))
        logits: np.ndarray = self._saved.detach().numpy()
        return logits

    def forward(self, x: np.ndarray, key: Key | None = None) -> np.ndarray:
        """Logits (N, n_out) in evaluation; training is `training_pass`."""
        import torch

        if key is not None:
            raise TypeError("key must be None, for evaluation: training_pass trains")
        with torch.no_grad():
            logits: np.ndarray = self.module.eval()(torch.from_numpy(np.ascontiguousarray(x))).numpy()
        return logits

    def backward(self, grad: np.ndarray) -> np.ndarray:
        """Not there: nobody asks for the gradient by the inputs; `param_grads` gives the others."""
        raise NotImplementedError("TorchNet has param_grads alone")

    def param_grads(self, grad: np.ndarray) -> None:
        """The gradients, by torch's autograd, then those of the penalties."""
        import torch

        self.module.zero_grad()
        self.recall().backward(torch.from_numpy(grad))
        for name, param in self.module.named_parameters():
            child, own = name.split(".")
            self.children[child].grads[own][...] = param.grad.numpy()
        for layer in self.children.values():
            if isinstance(layer, scratch.Linear):
                layer.add_penalty_grads()


def _module(hand: scratch.Sequential, method: str) -> Any:
    """The torch twin of a network: the same names, the same memory."""
    import torch

    from thinned import nn

    def twin(layer: scratch.Layer) -> torch.nn.Module:
        if isinstance(layer, scratch.Linear):
            shape = (layer.n_in, layer.n_out)
            linear = (
                nn.DropConnectLinear(*shape, p=layer.p, per_sample=False)
                if isinstance(layer, scratch.DropConnect)
                else torch.nn.Linear(*shape)
            )
            linear.weight = torch.nn.Parameter(torch.from_numpy(layer.params["weight"]))
            linear.bias = torch.nn.Parameter(torch.from_numpy(layer.params["bias"]))
            return linear
        if isinstance(layer, scratch.ReLU):
            return torch.nn.ReLU()
        if isinstance(layer, scratch.Sigmoid):
            return torch.nn.Sigmoid()
        row = METHODS[method]
        module: torch.nn.Module = getattr(nn, str(row.module))(vars(layer)["p"], **row.options)
        return module

    return torch.nn.Sequential(*map(twin, hand.children.values()))
