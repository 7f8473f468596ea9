"""Networks that torch computes: the layers of `thinned.scratch` as torch modules, on the same memory.

The modules have the names and the masks of the layers, so both engines train the same network; thin has the
groups of rows of `thinned.scratch.Thin`. Torch does the passes, on the device and in the precision of the
configuration; penalties, constraints and the optimizer stay those of `thinned.scratch`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from thinned import functional, masks, scratch
from thinned.kernels.survivors import NONE
from thinned.key import Key
from thinned.lab.choices import is_thin
from thinned.lab.training import fabric
from thinned.methods import DROPS
from thinned.scratch.activations import ROWS
from thinned.scratch.drops import Drop
from thinned.scratch.layer import Gradient

if TYPE_CHECKING:
    from thinned.lab.training.config import Config


class ByTorch(scratch.Network):
    """A network that a torch module computes; its parameters are arrays that share the module's memory."""

    def __init__(self, children: Mapping[str, scratch.Layer], module: Any, config: Config) -> None:
        super().__init__(children)
        self.module = module
        self.on = fabric.OnDevice(module, config.device, config.precision)

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """A batch in the form that the module takes."""
        return x

    def training_pass(self, x: np.ndarray, key: Key, step: int) -> np.ndarray:
        """Logits (N, n_out) with the masks of `thinned.nn.keyed` at that step."""
        self._saved = self.on.training_pass(self.inputs(x), key, step)
        return fabric.array(self._saved)

    def forward(self, x: np.ndarray, key: Key | None = None) -> np.ndarray:
        """Logits (N, n_out) in evaluation; training is `training_pass`."""
        if key is not None:
            raise TypeError(f"key must be None, for evaluation, got {key!r}; training_pass trains")
        return self.on.predict(self.inputs(x))

    def backward(self, grad: np.ndarray) -> np.ndarray:
        """Not implemented: the gradient by the inputs is never needed; `param_grads` gives the others."""
        raise NotImplementedError(f"{type(self).__name__} has only param_grads")

    def param_grads(self, grad: np.ndarray) -> None:
        """The gradients, by torch's autograd."""
        self.on.backward(self.recall(), grad)

    def project(self) -> None:
        """Apply every layer's constraint, and copy the updated parameters to the device."""
        super().project()
        self.on.push()

    def set_params(self, params: Mapping[str, np.ndarray]) -> None:
        """Set the values that `get_params` gives."""
        super().set_params(params)
        self.on.push(buffers=True)


class TorchNet(ByTorch):
    """A dense network of `scratch.mlp` that torch computes, on the memory of the same parameters.

    The method is the row whose torch module replaces each dropping layer; thin computes the survivors alone.
    """

    def __init__(self, net: scratch.Sequential, config: Config) -> None:
        super().__init__(net.children, _module(net, config.method), config)
        self.dtype = np.dtype(config.dtype)

    def inputs(self, x: np.ndarray) -> np.ndarray:
        """The batch in the network's dtype, which `scratch.Linear` uses too."""
        return x.astype(self.dtype, copy=False)

    def named_params(self) -> Iterator[tuple[str, np.ndarray, np.ndarray | Gradient]]:
        """Name, parameter and gradient: torch's after a pass back; the optimizer adds that of the penalty."""
        own = dict(self.module.named_parameters())
        penalties = {
            f"{child}.{name}": penalty
            for child, layer in self.children.items()
            if isinstance(layer, scratch.Linear)
            for name, penalty in layer.penalties()
        }
        for name, param, before in super().named_params():
            torchs = own[name].grad
            grad = before if torchs is None else Gradient(torchs.numpy(), penalties.get(name, NONE))
            yield name, param, grad


def _module(net: scratch.Sequential, method: str) -> Any:
    """The torch module of a network: the same names, the same memory."""
    import torch

    from thinned import nn
    from thinned.nn.modules import MODULES

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
        assert isinstance(layer, Drop)
        drops = functional.DROPOUT if thins else DROPS[method]
        return MODULES[drops](layer.p, **drops.given)

    thins = is_thin(method)
    module = torch.nn.Sequential(*map(twin, net.children.values()))
    return nn.thin(module, masks.GROUPS) if thins else module
