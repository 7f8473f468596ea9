"""Linear layers, with their regularisation, and maxout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from thinned import _checks, kernels
from thinned.kernels import survivors
from thinned.kernels.survivors import Penalty
from thinned.key import Key, is_key, normals
from thinned.scratch.layer import Array, Layer, float_dtype, floats, same_shape, table


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
        y = np.matmul(x, self.params["weight"].T, out=kernels.empty((len(x), self.n_out), self.dtype))
        y += self.params["bias"]
        return y

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = ∂L/∂y W."""
        self.param_grads(grad)
        out = kernels.empty((len(grad), self.n_in), self.dtype)
        return np.matmul(floats("grad", grad, self.dtype), self.params["weight"], out=out)

    def param_grads(self, grad: Array) -> None:
        """∂L/∂W = (∂L/∂y)ᵀ x + l1·sign W + l2·W, and ∂L/∂b = Σ ∂L/∂y + …, the same for b."""
        x = self.recall()
        grad = same_shape("grad", grad, (len(x), self.n_out)).astype(self.dtype, copy=False)
        np.matmul(grad.T, x, out=self.grads["weight"])
        np.sum(grad, axis=0, out=self.grads["bias"])
        self.add_penalty_grads()

    def add_penalty_grads(self) -> None:
        """∂/∂W of the penalty, l1·sign W + l2·W, added to the gradient of the loss; the same for b."""
        for name, penalty in self.penalties():
            penalty.add_gradient(self.grads[name], self.params[name])

    def penalty(self) -> float:
        """l1·‖W‖₁ + l2/2·‖W‖², and the same for b."""
        return sum((penalty.value(self.params[name]) for name, penalty in self.penalties()), 0.0)

    def project(self) -> None:
        """w ← w·min(1, c/‖w‖) for each row w of W."""
        if self.max_norm is not None:
            survivors.clip(self.params["weight"], None, self.max_norm)

    def penalties(self) -> Iterator[tuple[str, Penalty]]:
        """Name and penalty of each parameter that is regularised."""
        rates = {"weight": Penalty(self.l1, self.l2), "bias": Penalty(self.bias_l1, self.bias_l2)}
        return ((name, rate) for name, rate in rates.items() if rate)

    def __repr__(self) -> str:
        return f"Linear({self.n_in}, {self.n_out})"


class Maxout(Layer):
    """y = max_j (x W_jᵀ + b_j): each unit is the largest of ``pieces`` linear functions.

    ``x``: (N, n_in) -> (N, n_out). ``weight`` (pieces·n_out, n_in) and ``bias`` (pieces·n_out,) are those of
    a `Linear` layer; rows j·n_out … (j + 1)·n_out − 1 are W_j. Among equal pieces the first counts: it
    alone gets the gradient. Initial weights are those of `Linear`, but ``"he"`` is √(1/n_in): of two pieces
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
        """`backward` without the gradient with respect to x."""
        self.linear.param_grads(self._spread(grad))

    def penalties(self) -> Iterator[tuple[str, Penalty]]:
        """The penalties of `Linear`."""
        return self.linear.penalties()

    def penalty(self) -> float:
        """The penalty of `Linear`."""
        return self.linear.penalty()

    def project(self) -> None:
        """The constraint of `Linear`: w ← w·min(1, c/‖w‖) for each row w of each W_j."""
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


def _init_std(init: str | float, n_in: int, n_out: int, gain: float = 2.0) -> float:
    """The standard deviation of the first weights; ``gain`` compensates for the activation."""
    if isinstance(init, str):
        _checks.one_of("init", init, ("he", "xavier"))
        return float((gain / n_in if init == "he" else 2.0 / (n_in + n_out)) ** 0.5)
    return _checks.non_negative("init", init)
