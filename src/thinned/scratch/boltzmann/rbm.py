"""Restricted Boltzmann machines, and the deep belief networks that are stacked from them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from thinned import _array, _checks
from thinned.key import Key, is_key
from thinned.scratch.boltzmann.machine import Initialises, Machine, Upward, layer_sizes, sample, units
from thinned.scratch.layer import Array
from thinned.scratch.networks import Network


class RBM(Machine):
    """A restricted Boltzmann machine: E(v, h) = −hᵀW v − bᵀv − cᵀh over binary v and h.

    ``params``: ``weight`` W (n_hidden, n_visible), ``visible`` b, ``hidden`` c. Where v is data it may
    hold probabilities. ``l2``: the loss gets l2/2·‖W‖². First weights are normal with deviation 0.01.

    ``copies``: (m, n) for m tied copies of the visible and n of the hidden units, which makes the input of
    hidden units m·W v and that of visible ones n·Wᵀh; v and h are then means over the copies. A deep
    Boltzmann machine is stacked from such (`DBM`).

    As a layer it is the upward pass: P(h = 1 | v) or, with a key, a sample of h.

    Raises ValueError or TypeError where a size is not positive, ``l2`` is negative, or ``key`` is no key.

    Source: Smolensky 1986; Hinton 2002, doi:10.1162/089976602760128018.
    """

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        *,
        key: Key,
        l2: float = 0.0,
        copies: tuple[int, int] = (1, 1),
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(l2, dtype)
        self.n_visible = _checks.positive_int("n_visible", n_visible)
        self.n_hidden = _checks.positive_int("n_hidden", n_hidden)
        self.sizes = self.n_visible, self.n_hidden
        self.copies = tuple(_checks.positive_int(f"copies[{i}]", n) for i, n in enumerate(copies))
        if len(self.copies) != 2:
            raise ValueError(f"copies must be (visible, hidden), got {copies}")
        self._make("weight", is_key("key", key), self.n_hidden, self.n_visible)
        self._make("visible", key, self.n_visible)
        self._make("hidden", key, self.n_hidden)

    def _hidden_input(self, v: Any) -> Any:
        """m·W v + c."""
        weight = self.own("weight", units("v", v, self.n_visible))
        return self.copies[0] * _array.linear(_array.cast(v, weight), weight) + self.own("hidden", v)

    def up(self, v: Any) -> Any:
        """P(h = 1 | v) = σ(W v + c): (N, n_visible) -> (N, n_hidden)."""
        return _array.sigmoid(self._hidden_input(v))

    def down(self, h: Any) -> Any:
        """P(v = 1 | h) = σ(Wᵀh + b): (N, n_hidden) -> (N, n_visible)."""
        weight = self.own("weight", units("h", h, self.n_hidden))
        inputs = _array.linear(_array.cast(h, weight), weight.T)
        return _array.sigmoid(self.copies[1] * inputs + self.own("visible", h))

    def energy(self, v: Any, h: Any) -> Any:
        """E(v, h) = −hᵀW v − bᵀv − cᵀh, summed over all copies: (N, n_visible), (N, n_hidden) -> (N,)."""
        weight, (m, n) = self.own("weight", units("v", v, self.n_visible)), self.copies
        v, h = _array.cast(v, weight), _array.cast(units("h", h, self.n_hidden), weight)
        inputs = m * n * (v @ weight.T) + n * self.own("hidden", v)
        return -(inputs * h).sum(-1) - m * (v @ self.own("visible", v))

    def free_energy(self, v: Any) -> Any:
        """F(v) = −ln Σ_h e^{−E(v, h)} = −bᵀv − Σ_j ln(1 + e^{(W v + c)_j}): (N, n_visible) -> (N,)."""
        m, n = self.copies
        inputs = self._hidden_input(v)
        return -m * (_array.cast(v, inputs) @ self.own("visible", v)) - n * _array.softplus(inputs).sum(-1)

    def gibbs(self, state: Any, key: Key, steps: int = 1) -> Any:
        """v → h ~ P(h | v) → v ~ P(v | h), so many times: (N, n_visible) -> same."""
        v, key = state, is_key("key", key)
        for t in range(_checks.positive_int("steps", steps)):
            h = sample(self.up(v), key.fold_in(2 * t), self.copies[1])
            v = sample(self.down(h), key.fold_in(2 * t + 1), self.copies[0])
        return v

    def contrast(self, v: Any, state: Any) -> None:
        """Fill ``grads`` with ∂/∂θ of the mean F(v) minus the mean F(state), each (…, n_visible).

        ∂F/∂W = −P(h = 1 | v) vᵀ, ∂F/∂b = −v, ∂F/∂c = −P(h = 1 | v).
        """
        (w, b, c), (w_, b_, c_) = self._statistics(v), self._statistics(state)
        for name, grad in (("weight", w_ - w), ("visible", b_ - b), ("hidden", c_ - c)):
            self.grads[name][...] = _array.to_numpy(grad)

    def _statistics(self, v: Any) -> tuple[Any, Any, Any]:
        """Means of −∂F/∂θ."""
        (m, n), h = self.copies, self.up(v)
        v = _array.cast(v, h)
        return m * n * (h.T @ v) / len(v), m * v.mean(0), n * h.mean(0)

    def start(self, v: Any, key: Key) -> Any:
        """v itself: the hidden units follow from it."""
        return v

    def reconstruct(self, v: Any) -> Any:
        """P(v = 1 | h) for h = P(h = 1 | v)."""
        return self.down(self.up(v))

    def upward(self) -> Upward:
        """W and c."""
        return [(self.copies[0] * self.params["weight"], self.params["hidden"])]

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """P(h = 1 | x), (N, n_visible) -> (N, n_hidden); a key: a sample."""
        h: Array = self.up(x)
        return h if key is None else sample(h, is_key("key", key), self.copies[1])


class DBN(Initialises, Network):
    """A deep belief network of ``sizes`` (n_visible, *hidden): an RBM on top, directed layers below.

    ``rbms``: the machine of each pair of layers, trained one after the other on what the one below makes of
    the data; all but the top one are used downwards when sampling. ``l2``, ``dtype`` as of `RBM`.

    Raises ValueError or TypeError where there are fewer than two sizes, or as `RBM`.

    Source: Hinton, Osindero and Teh 2006, doi:10.1162/neco.2006.18.7.1527.
    """

    def __init__(
        self, sizes: Sequence[int], *, key: Key, l2: float = 0.0, dtype: DTypeLike = np.float32
    ) -> None:
        self.sizes, key = layer_sizes(sizes), is_key("key", key)
        self.rbms = [
            RBM(a, b, key=key.fold_in(i), l2=l2, dtype=dtype) for i, (a, b) in enumerate(pairwise(self.sizes))
        ]
        super().__init__({str(i): rbm for i, rbm in enumerate(self.rbms)})

    def fit(self, x: Any, *, key: Key, **how: Any) -> list[list[float]]:
        """Greedy pretraining: `RBM.fit` of each machine on P(h = 1 | v) of the one below it.

        ``how``: all other arguments of `RBM.fit`. Returns the reconstruction errors of each machine.
        """
        errors = []
        for i, rbm in enumerate(self.rbms):
            errors.append(rbm.fit(x, key=is_key("key", key).fold_in(i), **how))
            x = rbm.up(x)
        return errors

    def sample(self, start: Any, *, key: Key, steps: int = 1_000) -> Any:
        """Probabilities of visible units: Gibbs sampling of the top RBM from the data ``start``, then down.

        (N, n_visible) -> same; the chains need many steps to forget where they began.
        """
        key, h = is_key("key", key), start
        for rbm in self.rbms[:-1]:
            h = rbm.up(h)
        h = sample(self.rbms[-1].up(self.rbms[-1].gibbs(h, key, steps)), key.fold_in("top"))
        for i, rbm in reversed(list(enumerate(self.rbms))):
            p = rbm.down(h)
            h = sample(p, key.fold_in("down").fold_in(i))
        return p

    def upward(self) -> Upward:
        """W and c of each machine."""
        return [pair for rbm in self.rbms for pair in rbm.upward()]
