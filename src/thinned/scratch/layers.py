"""Layers: what each computes, and the chain rule through it.

A pass with a key is a training pass; one without is evaluation. ``backward`` takes the gradient of
the loss by the output of the last ``forward``, and returns that by its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from thinned import _array, _checks
from thinned.kernels import survivors
from thinned.kernels.survivors import Indices, Penalty
from thinned.key import Key, is_key, normals

Array = NDArray[Any]  # of float32 or float64
BLOCK = 1 << 17  # elements: few enough that several blocks stay in cache, enough that calls cost nothing


def floats(name: str, value: Any, dtype: DTypeLike | None = None) -> Array:
    """``value`` as a floating-point array, in ``dtype`` where that is given."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, came {type(value).__name__}")
    if value.dtype.kind != "f":
        raise TypeError(
            f"{name}: expected floating-point numbers, came dtype {value.dtype}; convert them first"
        )
    return value if dtype is None else value.astype(dtype, copy=False)


def table(name: str, value: Any, columns: int, dtype: DTypeLike | None = None) -> Array:
    """``value`` as an ``(N, columns)`` floating-point array."""
    value = floats(name, value, dtype)
    if value.ndim != 2 or value.shape[1] != columns:
        raise ValueError(f"{name}: expected shape (N, {columns}), came {value.shape}")
    return value


def same_shape(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """``value`` as a floating-point array of that shape: the gradient by an array that went forward."""
    value = floats(name, value)
    if value.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, as of the last forward pass, came {value.shape}")
    return value


def blocks(array: Array) -> Iterator[slice]:
    """Slices of rows: a long chain of cheap operations runs on one block after the other, in cache."""
    rows = max(1, BLOCK * len(array) // max(1, array.size))
    return (slice(i, i + rows) for i in range(0, len(array), rows))


@dataclass(frozen=True)
class Part:
    """A gradient that is 0 outside of some rows and columns, plus that of a penalty.

    ``values`` (rows, columns) are those of the surviving ``rows`` and ``cols``, None for all; the gradient of
    ``penalty`` comes on top of it everywhere, and is in no array.
    """

    values: Array
    rows: Indices | None = None
    cols: Indices | None = None
    penalty: Penalty = survivors.NONE

    def add_to(self, grad: Array) -> None:
        """Add the values to an array of the parameter's shape."""
        survivors.add(grad, self.values, self.rows, self.cols)

    def write_to(self, grad: Array) -> None:
        """Write the values among zeros."""
        survivors.place(self.values, self.rows, self.cols, grad.shape, grad)

    def whole(self, param: Array) -> Array:
        """All of it, in an array like ``param``."""
        grad: Array = survivors.place(self.values, self.rows, self.cols, param.shape)
        if self.penalty.l1:
            grad += self.penalty.l1 * np.sign(param)
        if self.penalty.l2:
            grad += self.penalty.l2 * param
        return grad


class Layer:
    """One step of a network.

    ``params`` and ``grads`` hold arrays under the same names, changed in place. ``buffers`` holds what
    is saved with the parameters but not learned by descent, such as running means.
    """

    params: dict[str, Array]
    grads: dict[str, Array]
    buffers: dict[str, Array]

    def __init__(self) -> None:
        self.params, self.grads, self.buffers = {}, {}, {}
        self._saved: Any = None  # what backward needs of the last forward pass

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """The output; ``x`` is left as it is."""
        raise NotImplementedError

    def backward(self, grad: Array) -> Array:
        """The gradient by the input, from that by the output; fills ``grads``."""
        raise NotImplementedError

    def param_grads(self, grad: Array) -> None:
        """Fill ``grads`` alone: `backward` where nobody wants the gradient by the input."""
        self.backward(grad)

    def penalty(self) -> float:
        """What regularisation adds to the loss; its gradient is in ``grads`` already."""
        return 0.0

    def project(self) -> None:
        """Put the parameters back into their constraint, after an update."""

    def named_params(self) -> Iterator[tuple[str, Array, Array | Part]]:
        """Name, parameter and gradient, one parameter after the other; a `Part` where units were dropped."""
        for name, param in self.params.items():
            yield name, param, self.grads[name]

    def named_arrays(self) -> Iterator[tuple[str, Array]]:
        """Name and array of every parameter and buffer: all that is saved."""
        yield from self.params.items()
        yield from self.buffers.items()

    def recall(self) -> Any:
        """What the last forward pass left; RuntimeError where there was none."""
        if self._saved is None:
            raise RuntimeError(f"{type(self).__name__}.backward: call forward first")
        return self._saved

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Linear(Layer):
    """y = x Wᵀ + b, with its regularisation.

    ``x``: (N, n_in) -> (N, n_out); ``weight`` (n_out, n_in), ``bias`` (n_out,). Input of another floating
    dtype is converted to ``dtype``.

    ``init``: weights are normal with standard deviation √(2/n_in) for ``"he"`` (He, Zhang, Ren and Sun
    2015, arXiv:1502.01852), √(2/(n_in + n_out)) for ``"xavier"`` (Glorot and Bengio 2010, AISTATS, PMLR
    9:249-256), or a number; biases are zero.

    ``l1``, ``l2``: the loss gets l1·‖W‖₁ + l2/2·‖W‖², so ``l2`` is torch's ``weight_decay``; ``bias_l1``,
    ``bias_l2`` for b. ``max_norm``: c such that, after each update, every unit's incoming weights (a row
    of W) have ‖w‖₂ ≤ c (Srivastava et al. 2014, JMLR 15:1929-1958, section 5.1).

    Raises ValueError or TypeError where a size is not positive, a rate is negative, or ``key`` is no key.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        key: Key,
        init: str | float = "he",
        l1: float = 0.0,
        l2: float = 0.0,
        bias_l1: float = 0.0,
        bias_l2: float = 0.0,
        max_norm: float | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.n_in = _checks.positive_int("n_in", n_in)
        self.n_out = _checks.positive_int("n_out", n_out)
        self.l1, self.l2 = _checks.non_negative("l1", l1), _checks.non_negative("l2", l2)
        self.bias_l1 = _checks.non_negative("bias_l1", bias_l1)
        self.bias_l2 = _checks.non_negative("bias_l2", bias_l2)
        self.max_norm = None if max_norm is None else _checks.positive("max_norm", max_norm)
        self.dtype = float_dtype(dtype)
        std = _init_std(init, self.n_in, self.n_out)
        weight = std * normals(is_key("key", key), self.n_out * self.n_in)
        self.params = {
            "weight": weight.reshape(self.n_out, self.n_in).astype(self.dtype),
            "bias": np.zeros(self.n_out, self.dtype),
        }
        self.grads = {name: np.zeros_like(param) for name, param in self.params.items()}

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(N, n_in) -> (N, n_out)."""
        x = self._saved = table("x", x, self.n_in, self.dtype)
        y: Array = x @ self.params["weight"].T
        y += self.params["bias"]
        return y

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = ∂L/∂y W."""
        self.param_grads(grad)
        return floats("grad", grad, self.dtype) @ self.params["weight"]

    def param_grads(self, grad: Array) -> None:
        """∂L/∂W = (∂L/∂y)ᵀ x + l1·sign W + l2·W, and ∂L/∂b = Σ ∂L/∂y + …, the same for b."""
        x = self.recall()
        grad = same_shape("grad", grad, (len(x), self.n_out)).astype(self.dtype, copy=False)
        np.matmul(grad.T, x, out=self.grads["weight"])
        np.sum(grad, axis=0, out=self.grads["bias"])
        self.add_penalty_grads()

    def add_penalty_grads(self) -> None:
        """∂/∂W of the penalty, l1·sign W + l2·W, added to the gradient of the loss; the same for b."""
        for name, rate in self.penalties():
            param, param_grad = self.params[name], self.grads[name]
            for rows in blocks(param):
                if rate.l1:
                    param_grad[rows] += rate.l1 * np.sign(param[rows])
                if rate.l2:
                    param_grad[rows] += rate.l2 * param[rows]

    def penalty(self) -> float:
        """l1·‖W‖₁ + l2/2·‖W‖², and the same for b."""
        total = 0.0
        for name, rate in self.penalties():
            for rows in blocks(self.params[name]):
                w = self.params[name][rows]
                total += rate.l1 * float(np.abs(w).sum()) if rate.l1 else 0.0
                total += rate.l2 / 2 * float(np.vdot(w, w)) if rate.l2 else 0.0
        return total

    def project(self) -> None:
        """w ← w·min(1, c/‖w‖) for each row w of W."""
        if self.max_norm is not None:
            survivors.clip(self.params["weight"], None, self.max_norm)

    def penalties(self) -> Iterator[tuple[str, Penalty]]:
        """Name and rates of the parameters that are regularised."""
        rates = {"weight": Penalty(self.l1, self.l2), "bias": Penalty(self.bias_l1, self.bias_l2)}
        return ((name, rate) for name, rate in rates.items() if rate)

    def __repr__(self) -> str:
        return f"Linear({self.n_in}, {self.n_out})"


class ReLU(Layer):
    """y = max(x, 0), for any shape."""

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Any shape -> same."""
        y: Array = np.maximum(floats("x", x), 0)
        self._saved = y
        return y

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = ∂L/∂y·[x > 0]."""
        y = self.recall()
        out: Array = same_shape("grad", grad, y.shape) * (y > 0)
        return out


class Sigmoid(Layer):
    """y = 1/(1 + e⁻ˣ), the logistic function, for any shape; never overflows."""

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Any shape -> same."""
        y: Array = _array.sigmoid(floats("x", x))
        self._saved = y
        return y

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = ∂L/∂y·y·(1 − y)."""
        y = self.recall()
        out: Array = 1 - y
        out *= y
        out *= same_shape("grad", grad, y.shape)
        return out


class Tanh(Layer):
    """y = tanh x, for any shape."""

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Any shape -> same."""
        y: Array = np.tanh(floats("x", x))
        self._saved = y
        return y

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = ∂L/∂y·(1 − y²)."""
        y = self.recall()
        out: Array = 1 - y * y
        out *= same_shape("grad", grad, y.shape)
        return out


class Softmax(Layer):
    """y_k = e^{x_k} / Σ_j e^{x_j} over the last axis; never overflows.

    Not before `SoftmaxCrossEntropy`, which has its own.
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


class Maxout(Layer):
    """y = max_j (x W_jᵀ + b_j): each unit is the largest of ``pieces`` linear functions.

    ``x``: (N, n_in) -> (N, n_out). ``weight`` (pieces·n_out, n_in) and ``bias`` (pieces·n_out,) are those of
    a `Linear` layer; rows j·n_out … (j + 1)·n_out − 1 are W_j. Among equal pieces the first counts: the
    gradient is its alone. Initial weights are those of `Linear`, but ``"he"`` is √(1/n_in): of two pieces
    the larger keeps the mean square, E max(z, z′)² = E z², where a ReLU halves it. ``linear``: all other
    arguments of `Linear`; ``max_norm`` bounds every row, the incoming weights of one piece of one unit.

    Raises ValueError or TypeError as `Linear`, and where ``pieces`` is not positive.

    Source: Goodfellow, Warde-Farley, Mirza, Courville and Bengio 2013, ICML, arXiv:1302.4389.
    """

    def __init__(
        self, n_in: int, n_out: int, *, pieces: int = 2, key: Key, init: str | float = "he", **linear: Any
    ) -> None:
        super().__init__()
        self.n_in, self.n_out = _checks.positive_int("n_in", n_in), _checks.positive_int("n_out", n_out)
        self.pieces = _checks.positive_int("pieces", pieces)
        std = _init_std(init, self.n_in, self.n_out, gain=1.0)
        self.linear = Linear(self.n_in, self.pieces * self.n_out, key=key, init=std, **linear)
        self.params, self.grads = self.linear.params, self.linear.grads  # the same dictionaries

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(N, n_in) -> (N, n_out)."""
        z = self.linear.forward(x).reshape(-1, self.pieces, self.n_out)
        best = self._saved = z.argmax(axis=1, keepdims=True)  # NaN counts as the largest: it shows
        y: Array = np.take_along_axis(z, best, axis=1)[:, 0]
        return y

    def backward(self, grad: Array) -> Array:
        """∂L/∂z_j = ∂L/∂y for the piece j that was largest, 0 for the others; then as `Linear`."""
        return self.linear.backward(self._spread(grad))

    def param_grads(self, grad: Array) -> None:
        """`backward` without the gradient by x."""
        self.linear.param_grads(self._spread(grad))

    def penalties(self) -> Iterator[tuple[str, Penalty]]:
        """Those of `Linear`."""
        return self.linear.penalties()

    def penalty(self) -> float:
        """That of `Linear`."""
        return self.linear.penalty()

    def project(self) -> None:
        """That of `Linear`: w ← w·min(1, c/‖w‖) for each row w of each W_j."""
        self.linear.project()

    def _spread(self, grad: Array) -> Array:
        """∂L/∂z, of shape (N, pieces·n_out)."""
        best = self.recall()
        grad = same_shape("grad", grad, (len(best), self.n_out))
        spread = np.zeros((len(best), self.pieces, self.n_out), grad.dtype)
        np.put_along_axis(spread, best, grad[:, None], axis=1)
        return spread.reshape(len(best), self.pieces * self.n_out)

    def __repr__(self) -> str:
        return f"Maxout({self.n_in}, {self.n_out}, pieces={self.pieces})"


def float_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """float32 or float64."""
    result = np.dtype(dtype)
    if result not in (np.float32, np.float64):
        raise ValueError(f"dtype: expected float32 or float64, came {result}")
    return result


def _init_std(init: str | float, n_in: int, n_out: int, gain: float = 2.0) -> float:
    """The standard deviation of the first weights; ``gain`` makes up for what the activation takes away."""
    if isinstance(init, str):
        _checks.one_of("init", init, ("he", "xavier"))
        return float((gain / n_in if init == "he" else 2.0 / (n_in + n_out)) ** 0.5)
    return _checks.non_negative("init", init)
