"""The drop layers: what each drops, and the same units on the way back, made again from the key."""

from __future__ import annotations

from typing import Any

import numpy as np

from thinned import _checks
from thinned.functional import (
    drop_connect,
    drop_connect_gradient,
    dropout,
    gaussian_dropout,
    spatial_dropout,
    thin_dropout,
)
from thinned.key import Key, is_key
from thinned.scratch.layer import Array, Layer, same_shape, table
from thinned.scratch.linear import Linear


class Drop(Layer):
    """A method that is its own backward pass: linear in x, and the same factors for the same key."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = _checks.probability("p", p)

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Any shape -> same; a key drops units, no key evaluates."""
        if key is not None:
            is_key("key", key)
        self._saved = (key,)
        return self._apply(x, key)

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = ∂L/∂y times the factors of the forward pass, made again from its key."""
        (key,) = self.recall()
        return self._apply(grad, key)

    def _apply(self, x: Array, key: Key | None) -> Array:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.p:g})"


class Dropout(Drop):
    """Drop each unit with probability p.

    y = r·x/(1 − p), r ~ Bernoulli(1 − p), and y = x in evaluation, with ``rescale="train"``;
    y = r·x, and y = (1 − p)·x in evaluation, with ``"test"``: the rule of the paper. Keeps nothing for
    the backward pass but the key.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, JMLR 15:1929-1958.
    """

    def __init__(self, p: float = 0.5, rescale: str = "train") -> None:
        super().__init__(p)
        self.rescale = _checks.one_of("rescale", rescale, ("train", "test"))

    def _apply(self, x: Array, key: Key | None) -> Array:
        training = key is not None
        out: Array = dropout(x, self.p, key=key or Key(0), training=training, rescale=self.rescale)
        return out


class SpatialDropout(Drop):
    """y[n, c] = r[n, c]·x[n, c]/(1 − p), r ~ Bernoulli(1 − p): whole channels; y = x in evaluation.

    ``x``: (N, C, *spatial). Keeps nothing for the backward pass but the key.

    Source: Tompson, Goroshin, Jain, LeCun and Bregler 2015, CVPR, arXiv:1411.4280.
    """

    def _apply(self, x: Array, key: Key | None) -> Array:
        out: Array = spatial_dropout(x, self.p, key=key or Key(0), training=key is not None)
        return out


class ThinDropout(Drop):
    """y = r·x·n/k, where r keeps exactly k of n columns or channels for the whole batch; y = x in evaluation.

    ``x``: (N, n) or (N, n, *spatial); k = max(1, n − round(p·n)). With ``groups`` > 1 sample i has the
    survivors of group i mod ``groups``. Here all units are computed; in a `Thin` network the survivors alone.

    Source: Graham, Reizenstein and Robinson 2015, arXiv:1502.02478, whose k is a random number.
    """

    def __init__(self, p: float = 0.5, groups: int = 1) -> None:
        super().__init__(p)
        self.groups = _checks.positive_int("groups", groups)

    def _apply(self, x: Array, key: Key | None) -> Array:
        training = key is not None
        out: Array = thin_dropout(x, self.p, key=key or Key(0), training=training, groups=self.groups)
        return out


class GaussianDropout(Drop):
    """y = x·z, z ~ N(1, p/(1 − p)), and y = x in evaluation.

    Source: Srivastava et al. 2014, JMLR 15:1929-1958, section 10.
    """

    def _apply(self, x: Array, key: Key | None) -> Array:
        out: Array = gaussian_dropout(x, self.p, key=key or Key(0), training=key is not None)
        return out


class DropConnect(Linear):
    """y_n = (M_n ∘ W) x_n/(1 − p) + b, M ~ Bernoulli(1 − p): a linear layer that drops weights.

    ``x``: (N, n_in) -> (N, n_out); ``weight`` (n_out, n_in), ``bias`` (n_out,). Every sample has a mask of
    its own; with ``per_sample=False`` the batch shares one. Evaluation is the mean network, y = x Wᵀ + b.
    ``linear``: all other arguments of `Linear`. Keeps nothing for the backward pass but x and the key.

    Raises ValueError or TypeError as `Linear`, and where p is not in [0, 1].

    Source: Wan, Zeiler, Zhang, LeCun and Fergus 2013, ICML, PMLR 28(3):1058-1066.
    """

    def __init__(
        self, n_in: int, n_out: int, p: float = 0.5, *, key: Key, per_sample: bool = True, **linear: Any
    ) -> None:
        super().__init__(n_in, n_out, key=key, **linear)
        self.p = _checks.probability("p", p)
        self.per_sample = bool(per_sample)

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(N, n_in) -> (N, n_out); a key drops weights, no key evaluates."""
        x = table("x", x, self.n_in, self.dtype)
        if key is not None:
            is_key("key", key)
        self._saved = (x, key)
        draw: dict[str, Any] = {"key": key or Key(0), "training": key is not None}
        weight, bias = self.params["weight"], self.params["bias"]
        y: Array = drop_connect(x, weight, bias, self.p, per_sample=self.per_sample, **draw)
        return y

    def backward(self, grad: Array) -> Array:
        """∂L/∂x_n = (M_n ∘ W)ᵀ g_n/(1 − p) and ∂L/∂W = Σ_n M_n ∘ g_n x_nᵀ/(1 − p) + …, g = ∂L/∂y."""
        x, key = self.recall()
        g = same_shape("grad", grad, (len(x), self.n_out)).astype(self.dtype, copy=False)
        weight = self.params["weight"]
        if key is None:
            x_grad, weight_grad = g @ weight, g.T @ x
        else:
            draw: dict[str, Any] = {"key": key, "per_sample": self.per_sample}
            x_grad, weight_grad = drop_connect_gradient(g, x, weight, self.p, **draw)
        self.grads["weight"][...] = weight_grad
        np.sum(g, axis=0, out=self.grads["bias"])
        self.add_penalty_grads()
        return x_grad

    def param_grads(self, grad: Array) -> None:
        """`backward`: the masks, which take the time, serve both gradients."""
        self.backward(grad)

    def __repr__(self) -> str:
        return f"DropConnect({self.n_in}, {self.n_out}, p={self.p:g})"
