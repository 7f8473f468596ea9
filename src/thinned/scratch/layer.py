"""The base class of layers, and checks of arrays.

A pass with a key is a training pass; a pass without is evaluation. ``backward`` takes the gradient of the
loss with respect to the output of the last ``forward``, and returns the gradient with respect to its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from thinned.kernels import survivors
from thinned.kernels.survivors import Penalty
from thinned.key import Key

Array = NDArray[Any]  # of float32 or float64


def floats(name: str, value: Any, dtype: DTypeLike | None = None) -> Array:
    """``value`` as a floating-point array, in ``dtype`` where that is given."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, got {type(value).__name__}")
    if value.dtype.kind != "f":
        raise TypeError(
            f"{name} must hold floating-point numbers, got dtype {value.dtype}; convert them first"
        )
    return value if dtype is None else value.astype(dtype, copy=False)


def table(name: str, value: Any, columns: int, dtype: DTypeLike | None = None) -> Array:
    """``value`` as an ``(N, columns)`` floating-point array."""
    value = floats(name, value, dtype)
    if value.ndim != 2 or value.shape[1] != columns:
        raise ValueError(f"{name} must have shape (N, {columns}), got {value.shape}")
    return value


def same_shape(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """``value`` as a floating-point array of that shape, such as a gradient."""
    value = floats(name, value)
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, as in the last forward pass, got {value.shape}")
    return value


@dataclass(frozen=True)
class Gradient:
    """The gradient of a parameter: ``values``, plus that of ``penalty``, which no array holds."""

    values: Array
    penalty: Penalty = survivors.NONE

    def whole(self, param: Array) -> Array:
        """The whole gradient, penalty included, in an array like ``param``."""
        grad = self.values.copy()
        self.penalty.add_gradient(grad, param)
        return grad


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """float32 or float64."""
    result = np.dtype(dtype)
    if result not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64, got {result}")
    return result


class Layer:
    """One step of a network.

    ``params`` and ``grads`` hold arrays under the same names, which are changed in place. ``buffers`` holds
    what is saved with the parameters but not learned by gradient descent, such as running means.
    """

    params: dict[str, Array]
    grads: dict[str, Array]
    buffers: dict[str, Array]
    moves_only = False  # whether it only moves numbers, as a reshape does; then variances move alike

    def __init__(self) -> None:
        self.params, self.grads, self.buffers = {}, {}, {}
        self._saved: Any = None  # what backward needs of the last forward pass

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """The output; ``x`` is not changed."""
        raise NotImplementedError

    def backward(self, grad: Array) -> Array:
        """The gradient with respect to the input, from that of the output; fills ``grads``."""
        raise NotImplementedError

    def param_grads(self, grad: Array) -> None:
        """Fill ``grads`` alone: `backward` without the gradient with respect to the input."""
        self.backward(grad)

    def penalty(self) -> float:
        """The regularisation term of the loss; ``grads`` already has its gradient."""
        return 0.0

    def project(self) -> None:
        """Enforce the constraint on the parameters, after an update."""

    def named_params(self) -> Iterator[tuple[str, Array, Array | Gradient]]:
        """Name, parameter and gradient of each parameter; a `Gradient` where a penalty is to be added."""
        for name, param in self.params.items():
            yield name, param, self.grads[name]

    def named_arrays(self) -> Iterator[tuple[str, Array]]:
        """Name and array of every parameter and buffer: all that is saved."""
        yield from self.params.items()
        yield from self.buffers.items()

    def recall(self) -> Any:
        """What the last forward pass saved. Raises RuntimeError where there was none."""
        if self._saved is None:
            raise RuntimeError(f"{type(self).__name__}.backward: call forward first")
        return self._saved

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
