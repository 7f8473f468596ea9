"""Engines: who computes a dense network forward and backward. The masks, and so the training, are the same.

`"numpy"` is `thinned.scratch`. `"torch"` runs the same layers, under the same names and on the same memory,
as `thinned.nn` modules with torch's autograd, on the device and in the precision of the configuration;
penalties, constraints and the optimizer stay those of `thinned.scratch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from thinned import scratch
from thinned.activations import ACTIVATIONS
from thinned.key import Key
from thinned.lab.training import fabric as devices
from thinned.methods import METHODS, Method
from thinned.scratch.activations import ROWS

if TYPE_CHECKING:
    from thinned.lab.training.config import Config

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
    if drops_weights(method):
        return {"drop": None, "connect": scratch.DropConnect}
    if is_thin(method):
        return {"drop": scratch.Dropout}
    layer: Callable[..., scratch.Layer] = getattr(scratch, str(row.hand))
    return {"drop": lambda p: layer(p, **row.options)}


def is_thin(method: str) -> bool:
    """Whether a method is one that computes the survivors alone; it then drops inputs as dropout does."""
    return method != "none" and METHODS[method].unit == "feature"


def drops_weights(method: str) -> bool:
    """Whether a method drops weights, a sample at a time."""
    return method != "none" and METHODS[method].unit == "weight"


def can(engine: str, method: str, activation: str) -> bool:
    """Whether the engine has the layers of a dense network with these."""
    return method in applicable(engine) and (engine == "numpy" or ACTIVATIONS[activation].torch is not None)


def computed(net: scratch.Sequential, config: Config) -> scratch.Network:
    """The network as the configuration computes it: by torch, on the survivors alone, or as it is."""
    if config.engine == "torch":
        return TorchNet(net, config)
    return scratch.Thin(net) if is_thin(config.method) else net


def text(config: Mapping[str, Any]) -> str:
    """Engine, device, and numbers of a configuration, as a report tells them."""
    if config["engine"] != "torch":
        return f"{config['engine']}, {config['dtype']}"
    return f"torch on {config['device']}, {config['dtype']} parameters, precision {config['precision']}"


def training_pass(net: scratch.Network, x: np.ndarray, key: Key, step: int) -> np.ndarray:
    """Logits in training: layer ``name`` gets the key ``key.fold_in(step).fold_in(name)`` on each engine."""
    if isinstance(net, ByTorch):
        return net.training_pass(x, key, step)
    return net.forward(x, key.fold_in(step))


class ByTorch(scratch.Network):
    """A network whose passes are a torch module's; its parameters are arrays on the memory of that module."""

    def __init__(self, children: Mapping[str, scratch.Layer], module: Any, config: Config) -> None:
        super().__init__(children)
        self.module = module
        self.on = devices.OnDevice(module, config.device, config.precision)

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """A batch as the module takes it."""
        return x

    def training_pass(self, x: np.ndarray, key: Key, step: int) -> np.ndarray:
        """Logits (N, n_out) with the masks of `thinned.nn.keyed` at that step."""
        self._saved = self.on.training_pass(self.inputs(x), key, step)
        return devices.array(self._saved)

    def forward(self, x: np.ndarray, key: Key | None = None) -> np.ndarray:
        """Logits (N, n_out) in evaluation; training is `training_pass`."""
        if key is not None:
            raise TypeError("key must be None, for evaluation: training_pass trains")
        return self.on.predict(self.inputs(x))

    def backward(self, grad: np.ndarray) -> np.ndarray:
        """Not there: nobody asks for the gradient by the inputs; `param_grads` gives the others."""
        raise NotImplementedError(f"{type(self).__name__} has param_grads alone")

    def param_grads(self, grad: np.ndarray) -> None:
        """The gradients, by torch's autograd."""
        self.on.backward(self.recall(), grad)

    def project(self) -> None:
        """Every layer's constraint; then the device has what the optimizer made."""
        super().project()
        self.on.push()

    def set_params(self, params: Mapping[str, np.ndarray]) -> None:
        """Take over values as `get_params` gives them."""
        super().set_params(params)
        self.on.push(buffers=True)


class TorchNet(ByTorch):
    """A dense network of `scratch.mlp`, computed by torch, with the parameters in place.

    The method names the row whose module stands for each dropping layer.
    """

    def __init__(self, hand: scratch.Sequential, config: Config) -> None:
        super().__init__(hand.children, _module(hand, config.method), config)
        self.dtype = np.dtype(config.dtype)

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """The batch in the network's dtype, as `scratch.Linear` takes it."""
        return x.astype(self.dtype, copy=False)

    def param_grads(self, grad: np.ndarray) -> None:
        """The gradients, by torch's autograd, then those of the penalties."""
        super().param_grads(grad)
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
                nn.DropConnectLinear(*shape, p=layer.p)
                if isinstance(layer, scratch.DropConnect)
                else torch.nn.Linear(*shape)
            )
            linear.weight = torch.nn.Parameter(torch.from_numpy(layer.params["weight"]))
            linear.bias = torch.nn.Parameter(torch.from_numpy(layer.params["bias"]))
            return linear
        if type(layer) in ROWS:
            activation: torch.nn.Module = getattr(torch.nn, str(ROWS[type(layer)].torch))()
            return activation
        row = METHODS[method]
        module: torch.nn.Module = getattr(nn, str(row.module))(vars(layer)["p"], **row.options)
        return module

    return torch.nn.Sequential(*map(twin, hand.children.values()))
