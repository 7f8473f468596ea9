"""Devices and precision of torch, through Lightning Fabric.

Parameters stay on the host, in NumPy's memory, where optimizer, penalties and checkpoints use them.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from thinned import Key
from thinned.lab.errors import LabError

if TYPE_CHECKING:
    import torch

    from thinned.lab.training.config import Config


def check(device: str) -> None:
    """LabError unless torch can use the device."""
    if device != "cuda":
        return
    import torch

    if not torch.cuda.is_available():
        raise LabError("device must be cpu where torch finds no GPU, got 'cuda'")


def about(config: Config) -> dict[str, Any]:
    """The version of torch and the name of the device, for a result; empty where NumPy computes."""
    if config.engine != "torch":
        return {}
    import torch

    gpu = {"accelerator": torch.cuda.get_device_name()} if config.device == "cuda" else {}
    return {"torch": torch.__version__, **gpu}


class OnDevice:
    """A torch module that trains on a device.

    ``module`` stays on the host. On a CPU it computes itself; elsewhere ``model`` is a copy on the device.
    `push` copies parameters there, `backward` copies gradients back, and `pull` running statistics.
    """

    def __init__(self, module: torch.nn.Module, device: str, precision: str) -> None:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins import MixedPrecision, Precision

        check(device)
        self.module = module
        # A plugin, because Fabric(precision="bf16-mixed") prints a line.
        numbers = MixedPrecision("bf16-mixed", device) if precision == "bf16" else Precision()
        self.fabric = Fabric(accelerator=device, devices=1, plugins=numbers)
        apart = _apart(device)
        twin = copy.deepcopy(module) if apart else module
        self.model = self.fabric.setup(twin)
        self._params = list(zip(module.parameters(), twin.parameters(), strict=True)) if apart else []
        self._buffers = list(zip(module.buffers(), twin.buffers(), strict=True)) if apart else []

    def training_pass(self, x: np.ndarray, key: Key, step: int) -> torch.Tensor:
        """The outputs in training, for `backward`, with the masks of `thinned.nn.keyed` at that step."""
        from thinned.nn import keyed

        with keyed(self.model.train(), key, step):
            outputs: torch.Tensor = self.model(self.tensor(x))
        return outputs

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The outputs in evaluation."""
        import torch

        with torch.no_grad():
            return array(self.model.eval()(self.tensor(x)))

    def backward(self, outputs: torch.Tensor, grad: np.ndarray) -> None:
        """Set the gradients of the parameters of ``module``, given those of the outputs."""
        self.model.zero_grad()
        self.fabric.backward(outputs, self.tensor(grad))
        for own, there in self._params:
            own.grad = None if there.grad is None else there.grad.cpu()

    def push(self, *, buffers: bool = False) -> None:
        """Copy the parameters to the device, and with ``buffers`` the running statistics."""
        for own, there in (*self._params, *(self._buffers if buffers else ())):
            there.data.copy_(own.data)

    def pull(self) -> None:
        """Copy the running statistics from the device."""
        for own, there in self._buffers:
            own.data.copy_(there.data)

    def tensor(self, x: np.ndarray) -> torch.Tensor:
        """The array on the device."""
        import torch

        on_device: torch.Tensor = self.fabric.to_device(torch.from_numpy(np.ascontiguousarray(x)))
        return on_device


def array(x: torch.Tensor) -> np.ndarray:
    """The tensor as a NumPy array."""
    values: np.ndarray = x.detach().cpu().numpy()
    return values


def _apart(device: str) -> bool:
    """Whether the device has its own memory."""
    return device != "cpu"
