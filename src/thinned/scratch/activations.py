"""Activations in NumPy: each function stands beside its derivative. `thinned.activations` has their facts."""

from __future__ import annotations

import numpy as np

from thinned import _array, activations, kernels
from thinned.activations import Activation
from thinned.key import Key
from thinned.scratch.layer import Array, Layer, floats, same_shape


class ByElement(Layer):
    """y = f(x) for each number of x, of any shape.

    A subclass gives f, and its derivative as a function of y, which alone is kept for the backward pass.
    """

    @staticmethod
    def f(x: Array) -> Array:
        """A new array."""
        raise NotImplementedError

    @staticmethod
    def slope(y: Array) -> Array:
        """df/dx where f(x) = y: a new array, of numbers or, where it is 0 or 1, of bool."""
        raise NotImplementedError

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Any shape -> same."""
        y = self._saved = self.f(floats("x", x))
        return y

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = ∂L/∂y·f′(x)."""
        y = self.recall()
        grad, slope = same_shape("grad", grad, y.shape), self.slope(y)
        out = kernels.empty(y.shape, grad.dtype) if slope.dtype == bool else slope
        return np.multiply(grad, slope, out=out)


class ReLU(ByElement):
    """y = max(x, 0), for any shape."""

    @staticmethod
    def f(x: Array) -> Array:
        """max(x, 0)."""
        return np.maximum(x, 0, out=kernels.empty(x.shape, x.dtype))

    @staticmethod
    def slope(y: Array) -> Array:
        """[x > 0]."""
        return y > 0


class Sigmoid(ByElement):
    """y = 1/(1 + e⁻ˣ), the logistic function, for any shape; never overflows."""

    @staticmethod
    def f(x: Array) -> Array:
        """1/(1 + e⁻ˣ)."""
        y: Array = _array.sigmoid(x)
        return y

    @staticmethod
    def slope(y: Array) -> Array:
        """y·(1 − y)."""
        slope: Array = 1 - y
        slope *= y
        return slope


class Tanh(ByElement):
    """y = tanh x, for any shape."""

    @staticmethod
    def f(x: Array) -> Array:
        """tanh x."""
        return np.tanh(x)

    @staticmethod
    def slope(y: Array) -> Array:
        """1 − y²."""
        return 1 - y * y


class Softmax(Layer):
    """y_k = e^{x_k} / Σ_j e^{x_j} over the last axis; never overflows.

    It does not belong before `SoftmaxCrossEntropy`, which computes its own.
    """

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(…, K) -> same."""
        y: Array = np.exp(floats("x", x) - x.max(axis=-1, keepdims=True))
        y /= y.sum(axis=-1, keepdims=True)
        self._saved = y
        return y

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = y·(g − Σ_j g_j y_j), g = ∂L/∂y."""
        y = self.recall()
        g = same_shape("grad", grad, y.shape)
        out: Array = y * (g - (g * y).sum(axis=-1, keepdims=True))
        return out


# The class of each row of the table that works by element, and the row of each class.
CLASSES: dict[str, type[ByElement]] = {
    row.name: globals()[row.scratch]
    for row in activations.ACTIVATIONS.values()
    if row.scratch and row.by_element
}
ROWS: dict[type[Layer], Activation] = {kind: activations.ACTIVATIONS[name] for name, kind in CLASSES.items()}
