"""The drop layers: what each drops, and the same units on the way back, made again from the key."""

from __future__ import annotations

from typing import Any

import numpy as np

from thinned import _checks, functional, masks
from thinned._method import USUAL, Method
from thinned.key import Key, is_key
from thinned.methods import classes
from thinned.scratch.layer import Array, Layer, same_shape, table
from thinned.scratch.linear import Linear


class Drop(Layer):
    """A layer that applies a drop method. The options of the method are attributes of the layer.

    It keeps nothing for the backward pass but the key.
    """

    p: float

    def __init__(self, p: float = USUAL, **options: Any) -> None:
        super().__init__()
        vars(self).update(self.method.settings(p, **options))

    @property
    def method(self) -> Method:
        """What it drops."""
        raise NotImplementedError(f"{type(self).__name__} must name its method")

    @property
    def shares_mask(self) -> bool:
        """Whether samples of a batch share a mask."""
        return self.method.shares_mask(*self._values())

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Any shape -> same; a key drops units, no key evaluates."""
        if key is not None:
            is_key("key", key)
        self._saved = (key,)
        return self.drop(x, key)

    def drop(self, x: Array, key: Key | None, sample_offset: int = 0) -> Array:
        """The method, for rows of which the first has that index in the whole batch."""
        out: Array = self.method(x, self.p, key or Key(0), key is not None, sample_offset, *self._values())
        return out

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = ∂L/∂y times the factors of the forward pass, made again from its key."""
        (key,) = self.recall()
        if key is None:
            return self.drop(grad, None)  # evaluation multiplies by one number
        out: Array = self.method.gradient(grad, self.p, key, 0, *self._values())
        return out

    def moments(self) -> tuple[float, float] | None:
        """`Method.factor_moments` at this rate."""
        return self.method.factor_moments(self.p, *self._values())

    def _values(self) -> list[Any]:
        """The values of the method's options."""
        return [getattr(self, name) for name in self.method.names]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.p:g})"


class Dropout(Drop):
    """Drop each unit with probability p.

    y = r·x/(1 − p), r ~ Bernoulli(1 − p), and y = x in evaluation, with ``rescale="train"``;
    y = r·x, and y = (1 − p)·x in evaluation, with ``"test"``: the rule of the paper. Keeps nothing for
    the backward pass but the key.

    Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, JMLR 15:1929-1958.
    """

    rescale: str = "train"

    def __init__(self, p: float = 0.5, rescale: str = "train") -> None:
        super().__init__(p)
        self.rescale = _checks.one_of("rescale", rescale, ("train", "test"))

    @property
    def method(self) -> Method:
        """What it drops, by this rule."""
        return functional.DROPOUT if self.rescale == "train" else functional.ORIGINAL


class SpatialDropout(Drop):
    """y[n, c] = r[n, c]·x[n, c]/(1 − p), r ~ Bernoulli(1 − p): whole channels; y = x in evaluation.

    ``x``: (N, C, *spatial). Keeps nothing for the backward pass but the key.

    Source: Tompson, Goroshin, Jain, LeCun and Bregler 2015, CVPR, arXiv:1411.4280.
    """

    method = functional.SPATIAL


class ThinDropout(Drop):
    """y = r·x/(1 − p), where r is that of the sample's group, as `thin_dropout` has it; y = x in evaluation.

    ``x``: (N, n) or (N, n, *spatial). Here all units are computed; in a `Thin` network the survivors alone.

    Source: Graham, Reizenstein and Robinson 2015, arXiv:1502.02478, where the batch shares one pick.
    """

    method = functional.THIN
    groups: int

    def __init__(self, p: float = 0.5, groups: int = masks.GROUPS) -> None:
        super().__init__(p, groups=groups)


class GaussianDropout(Drop):
    """y = x·z, z ~ N(1, p/(1 − p)), and y = x in evaluation.

    Source: Srivastava et al. 2014, JMLR 15:1929-1958, section 10.
    """

    method = functional.GAUSSIAN


class DropConnect(Linear):
    """y_n = (M_n ∘ W) x_n/(1 − p) + b, M ~ Bernoulli(1 − p): a linear layer that drops weights.

    ``x``: (N, n_in) -> (N, n_out); ``weight`` (n_out, n_in), ``bias`` (n_out,). Every sample has a mask of
    its own; with ``per_sample=False`` the batch shares one. Evaluation is the mean network, y = x Wᵀ + b.
    ``linear``: all other arguments of `Linear`. Keeps nothing for the backward pass but x and the key.

    Raises ValueError or TypeError as `Linear`, and where p is not in [0, 1].

    Source: Wan, Zeiler, Zhang, LeCun and Fergus 2013, ICML, PMLR 28(3):1058-1066.
    """

    method = functional.DROP_CONNECT

    def __init__(
        self, n_in: int, n_out: int, p: float = 0.5, *, key: Key, per_sample: bool = True, **linear: Any
    ) -> None:
        super().__init__(n_in, n_out, key=key, **linear)
        self.p = _checks.probability("p", p)
        self.per_sample = bool(per_sample)

    @property
    def shares_mask(self) -> bool:
        """Whether samples of a batch share a mask."""
        return not self.per_sample

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(N, n_in) -> (N, n_out); a key drops weights, no key evaluates."""
        x = table("x", x, self.n_in, self.dtype)
        if key is not None:
            is_key("key", key)
        self._saved = (x, key)
        return self.drop(x, key)

    def drop(self, x: Array, key: Key | None, sample_offset: int = 0) -> Array:
        """The method, for rows of which the first has that index in the whole batch."""
        x, weight, bias = x.astype(self.dtype, copy=False), self.params["weight"], self.params["bias"]
        draw: dict[str, Any] = {"key": key or Key(0), "training": key is not None}
        options: dict[str, Any] = {"per_sample": self.per_sample, "sample_offset": sample_offset}
        y: Array = functional.drop_connect(x, weight, bias, self.p, **draw, **options)
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
            x_grad, weight_grad = functional.drop_connect_gradient(g, x, weight, self.p, **draw)
        self.grads["weight"][...] = weight_grad
        np.sum(g, axis=0, out=self.grads["bias"])
        self.add_penalty_grads()
        return x_grad

    def param_grads(self, grad: Array) -> None:
        """`backward`: the masks, which take the time, serve both gradients."""
        self.backward(grad)

    def __repr__(self) -> str:
        return f"DropConnect({self.n_in}, {self.n_out}, p={self.p:g})"


# The class of each drop method. A method without a class above gets one that is made from it.
LAYERS: dict[Method, type[Drop | DropConnect]] = classes(
    Drop,
    {
        functional.DROPOUT: Dropout,
        functional.ORIGINAL: Dropout,
        functional.DROP_CONNECT: DropConnect,
        **{kind.method: kind for kind in (SpatialDropout, ThinDropout, GaussianDropout)},
    },
    globals(),
)
