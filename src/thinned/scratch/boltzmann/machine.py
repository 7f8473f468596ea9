"""What Boltzmann machines share: sampling, learning, and the network that begins with what they learned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from thinned import _array, _checks, kernels
from thinned.kernels.survivors import Penalty
from thinned.key import Key, is_key, permutation
from thinned.scratch.drops import Dropout
from thinned.scratch.layer import Array, Gradient, Layer, float_dtype
from thinned.scratch.linear import Linear
from thinned.scratch.networks import Network, Sequential, mlp
from thinned.scratch.optimizers import SGD

STD = 0.01  # of the first weights: Hinton 2012, "A practical guide to training RBMs", section 8
JUDGED = 1_000  # examples behind a reconstruction error
Upward = list[tuple[Array, Array]]  # weights and biases, layer by layer
Tell = Callable[[int, float], None]


def sample(p: Any, key: Key, copies: int = 1) -> Any:
    """The mean of ``copies`` independent draws of units that are 1 with probabilities p: any shape -> same.

    Unit i is 1 where 24 fair bits of the key, read as a number in [0, 1), are below p_i.
    """
    draws = (_uniform(tuple(p.shape), key.fold_in(i)) for i in range(copies))
    return sum(_array.cast(_array.to_like(u, p) < p, p) for u in draws) / copies


def _uniform(shape: tuple[int, ...], key: Key) -> Array:
    """Multiples of 2⁻²⁴ in [0, 1): exact in float32, so that every dtype sees the same numbers."""
    bits = kernels.mask(key, 32 * math.prod(shape), 1 << 31)
    words = np.packbits(bits).view("<u4").reshape(shape)
    u: Array = (words >> 8).astype(np.float32) * np.float32(2.0**-24)
    return u


def units(name: str, x: Any, n: int) -> Any:
    """``x`` itself: the states or probabilities of n units, (N, n) floating-point numbers."""
    if _array.floating(name, x).ndim != 2 or x.shape[1] != n:
        raise ValueError(f"{name} must have shape (N, {n}), a column for each unit, got {tuple(x.shape)}")
    return x


class Initialises:
    """A model with a bottom-up pass, from which a network of logistic units can start.

    ``sizes``: units of each layer, the visible first.
    """

    sizes: tuple[int, ...]

    def upward(self) -> Upward:
        """Weights (n_out, n_in) and biases (n_out,) of the bottom-up pass h ← σ(W h + b), layer by layer."""
        raise NotImplementedError

    def initialise(self, net: Network) -> None:
        """Put the bottom-up pass into the first linear layers of ``net``; dropout then keeps the mean inputs.

        Under dropout that keeps a unit with probability q, unit j gets a_j = b_j + s·Σ_i w_ij r_i x_i,
        r_i ~ Bernoulli(q). The machine's own input is the mean of a_j where s = 1/q: then
        E a_j = b_j + Σ_i w_ij x_i. The paper drops without rescaling and so divides the pretrained weights by
        q. `Dropout` by default does the division in its own pass (inverted dropout), and the weights are
        not divided: that would give 1/q times the input. Behind a `Dropout` with
        ``rescale="test"``, the paper's, they are divided by q.

        Raises TypeError where ``net`` is no network, ValueError, before anything is changed, where its first
        linear layers are not of the machine's sizes.

        Source: Srivastava et al. 2014, JMLR 15:1929-1958, section 5.2.
        """
        if not isinstance(net, Network):
            raise TypeError(f"net must be a thinned.scratch.Network, got {type(net).__name__}")
        linear = list(_linear(net))
        wanted, found = self.sizes, tuple(_sizes([layer for layer, _ in linear]))
        if found[: len(wanted)] != wanted:
            raise ValueError(
                f"net must have linear layers that begin {'-'.join(map(str, wanted))}, as the machine's "
                f"units, got {'-'.join(map(str, found)) or 'none'}"
            )
        for (layer, keep), (weight, bias) in zip(linear, self.upward(), strict=False):
            layer.params["weight"][...] = weight / (keep or 1.0)
            layer.params["bias"][...] = bias

    def to_mlp(
        self, n_out: int, *, key: Key, drop: Callable[[float], Layer] | None = Dropout, **how: Any
    ) -> Sequential:
        """A network of logistic units with ``n_out`` outputs whose hidden layers start as the bottom-up pass.

        ``how``: all other arguments of `mlp`, such as ``p`` and ``input_p``; ``drop=None`` drops nothing.
        The output layer starts with weights of its own from ``key``. See `initialise`.
        """
        net = mlp((*self.sizes, n_out), key=key, drop=drop, activation="sigmoid", **how)
        self.initialise(net)
        return net


class Machine(Initialises, Layer):
    """What Boltzmann machines share: L2 on the weights, and descent along the gradient of `contrast`.

    A state of the chains is what `gibbs` takes and returns. ``persists``: whether chains continue from one
    step to the next, by default of `fit`.
    """

    persists = False

    def __init__(self, l2: float, dtype: DTypeLike) -> None:
        super().__init__()
        self.l2, self.dtype = _checks.non_negative("l2", l2), float_dtype(dtype)

    def _make(self, name: str, key: Key, *shape: int) -> None:
        """A parameter and its gradient: weights are small normal numbers, biases zeros."""
        size = math.prod(shape)
        first = STD * kernels.normals(key, size) if len(shape) > 1 else np.zeros(size)
        self.params[name] = first.reshape(shape).astype(self.dtype)
        self.grads[name] = np.zeros(shape, self.dtype)

    def own(self, name: str, like: Any) -> Any:
        """A parameter as an array or a tensor, like ``like``."""
        return _array.to_like(self.params[name], like)

    def gibbs(self, state: Any, key: Key, steps: int = 1) -> Any:
        """The state after ``steps`` of alternating Gibbs sampling, all units of a layer at once."""
        raise NotImplementedError

    def contrast(self, v: Any, state: Any) -> None:
        """Fill ``grads`` with the gradient of the data's free energy minus that of the chains."""
        raise NotImplementedError

    def start(self, v: Any, key: Key) -> Any:
        """A state of chains that begin at the data v (N, n_visible)."""
        raise NotImplementedError

    def reconstruct(self, v: Any) -> Any:
        """P(v = 1 | what v makes of the hidden units): (N, n_visible) -> same."""
        raise NotImplementedError

    def fit(
        self,
        x: Any,
        *,
        key: Key,
        epochs: int = 10,
        batch: int = 100,
        lr: float = 0.05,
        momentum: float = 0.9,
        k: int = 1,
        persistent: bool | None = None,
        tell: Tell | None = None,
    ) -> list[float]:
        """Maximise the likelihood of x (N, n_visible), values in [0, 1], by contrastive divergence.

        Each step moves the parameters along ⟨−∂E/∂θ⟩_data − ⟨−∂E/∂θ⟩_chains. CD-k starts the chains at the
        batch and runs k steps of Gibbs sampling; with ``persistent`` (PCD-k), ``batch`` chains continue
        from step to step, which is the default of a `DBM`. ``lr`` falls linearly to 0.

        Returns the mean squared reconstruction error after each epoch, on 1,000 examples at most; ``tell``
        is called with the number of epochs done and that error.

        Raises ValueError or TypeError where x is not of that kind or a setting makes no sense;
        FloatingPointError where parameters overflow.

        Source: Hinton 2002, doi:10.1162/089976602760128018; Tieleman 2008, doi:10.1145/1390156.1390290.
        """
        x = _probabilities("x", x, self.sizes[0])
        key, k = is_key("key", key), _checks.positive_int("k", k)
        epochs, batch = _checks.positive_int("epochs", epochs), _checks.positive_int("batch", batch)
        optimizer = SGD(_checks.positive("lr", lr), momentum=momentum)
        order, chain = key.fold_in("order"), key.fold_in("chain")
        starts, go_on = range(0, len(x), batch), self.persists if persistent is None else persistent
        state = self.start(x[:batch], key.fold_in("start"))
        errors: list[float] = []
        for epoch in range(epochs):
            rows = permutation(order.fold_in(epoch), len(x))
            for i in starts:
                t, v = optimizer.t, x[rows[i : i + batch]]
                begin = state if go_on else self.start(v, key.fold_in("start").fold_in(t))
                state = self.gibbs(begin, chain.fold_in(t), k)
                self.contrast(v, state)
                optimizer.lr = lr * (1.0 - t / (epochs * len(starts)))
                optimizer.step(self)
            some = x[:JUDGED]
            errors.append(float(((self.reconstruct(some) - some) ** 2).mean()))
            if not math.isfinite(errors[-1]):
                raise FloatingPointError(
                    f"{type(self).__name__}.fit: the parameters are not finite after epoch {epoch + 1}; "
                    "lower lr"
                )
            if tell:
                tell(epoch + 1, errors[-1])
        return errors

    def penalty(self) -> float:
        """l2/2·‖W‖² over the weights; biases have no penalty."""
        squares = (float(np.vdot(w, w)) for w in self.params.values() if w.ndim > 1)
        return self.l2 / 2 * math.fsum(squares)

    def named_params(self) -> Iterator[tuple[str, Array, Array | Gradient]]:
        """Name, parameter, and gradient with that of the penalty."""
        for name, param in self.params.items():
            penalty = Penalty(l2=self.l2 if param.ndim > 1 else 0.0)
            yield name, param, Gradient(self.grads[name], penalty)

    def backward(self, grad: Array) -> Array:
        """Not implemented: `fit` trains a machine, and `to_mlp` makes a network that learns by descent."""
        raise NotImplementedError(f"{type(self).__name__} has no backward pass; see fit and to_mlp")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self.sizes))})"


def layer_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Sizes of at least two layers."""
    found = tuple(_checks.positive_int(f"sizes[{i}]", size) for i, size in enumerate(sizes))
    if len(found) < 2:
        raise ValueError(f"sizes must be (n_visible, *hidden), got {found}")
    return found


def _probabilities(name: str, x: Any, n: int) -> Any:
    """``x`` itself: at least one row of n numbers in [0, 1]."""
    if not len(units(name, x, n)):
        raise ValueError(f"{name} must have at least one example, got shape {tuple(x.shape)}")
    low, high = float(x.min()), float(x.max())
    if not 0.0 <= low <= high <= 1.0:
        raise ValueError(
            f"{name} must be in [0, 1], probabilities of binary units, got {low:g} … {high:g}; "
            "rescale them first"
        )
    return x


def _linear(net: Network) -> Iterator[tuple[Linear, float]]:
    """Each linear layer with the share of its inputs that training keeps and does not rescale; else 1."""
    keep = 1.0
    for layer in net.children.values():
        if isinstance(layer, Linear):
            yield layer, keep
            keep = 1.0
        elif isinstance(layer, Dropout) and layer.rescale == "test":
            keep *= 1.0 - layer.p


def _sizes(layers: Sequence[Linear]) -> Iterator[int]:
    for i, layer in enumerate(layers):
        if i == 0:
            yield layer.n_in
        yield layer.n_out
