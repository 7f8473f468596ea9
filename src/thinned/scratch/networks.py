"""Networks: named layers, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from thinned import _checks
from thinned.activations import ACTIVATIONS, IN_NETWORKS
from thinned.key import Key, is_key
from thinned.scratch.activations import CLASSES, ReLU
from thinned.scratch.drops import Dropout
from thinned.scratch.layer import Array, Gradient, Layer, floats
from thinned.scratch.linear import Linear, Maxout
from thinned.scratch.optimizers import SGD

PREDICT_ROWS = 4096  # that `predict` evaluates at once: memory stays small for any number of samples


class Network(Layer):
    """A chain of named layers.

    In a training pass the layer ``name`` gets ``key.fold_in(name)``. Its parameter ``weight`` is
    ``name.weight`` of the network.
    """

    def __init__(self, children: Mapping[str, Layer]) -> None:
        super().__init__()
        for name, layer in children.items():
            if not isinstance(layer, Layer):
                raise TypeError(f"layer {name} must be a thinned.scratch.Layer, got {type(layer).__name__}")
        if len({id(layer) for layer in children.values()}) < len(children):
            raise ValueError("layers must hold each layer once, got one twice; make a new one for each place")
        self.children = dict(children)

    def child_keys(self, key: Key | None) -> dict[str, Key | None]:
        """A key for each layer, or None for each in evaluation."""
        if key is None:
            return dict.fromkeys(self.children)
        is_key("key", key)
        return {name: key.fold_in(name) for name in self.children}

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Through the layers, first to last."""
        keys = self.child_keys(key)
        for name, layer in self.children.items():
            x = layer.forward(x, keys[name])
        return x

    def backward(self, grad: Array) -> Array:
        """Through the layers, last to first."""
        for layer in reversed(self.passed()):
            grad = layer.backward(grad)
        return grad

    def param_grads(self, grad: Array) -> None:
        """`backward` down to the first layer that has parameters, and no further."""
        with_params = [layer for layer in self.passed() if next(layer.named_params(), None)]
        for layer in reversed(self.passed()):
            if with_params and layer is with_params[0]:
                return layer.param_grads(grad)
            grad = layer.backward(grad)

    def passed(self) -> list[Layer]:
        """The layers of the last forward pass."""
        return list(self.children.values())

    def predict(self, x: Array) -> Array:
        """The logits of x in evaluation."""
        x = floats("x", x)
        parts = [self.forward(x[i : i + PREDICT_ROWS]) for i in range(0, max(1, len(x)), PREDICT_ROWS)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def penalty(self) -> float:
        """The sum over the layers."""
        return sum(layer.penalty() for layer in self.children.values())

    def project(self) -> None:
        """Enforce the constraint of every layer."""
        for layer in self.children.values():
            layer.project()

    def named_params(self) -> Iterator[tuple[str, Array, Array | Gradient]]:
        """Qualified name, parameter and gradient, such as ``"fc1.weight"``."""
        for child, layer in self.children.items():
            for name, param, grad in layer.named_params():
                yield f"{child}.{name}", param, grad

    def named_arrays(self) -> Iterator[tuple[str, Array]]:
        """Qualified name and array of every parameter and buffer."""
        for child, layer in self.children.items():
            for name, array in layer.named_arrays():
                yield f"{child}.{name}", array

    def get_params(self) -> dict[str, Array]:
        """A copy of every parameter and buffer, under its qualified name."""
        return {name: array.copy() for name, array in self.named_arrays()}

    def set_params(self, params: Mapping[str, Array]) -> None:
        """Set all parameters and buffers from values of `get_params`; where there is an error, set none.

        Raises ValueError where a name is missing or unknown, or a shape differs; TypeError where a value
        is no floating-point array.
        """
        own = dict(self.named_arrays())
        missing, unknown = [n for n in own if n not in params], [n for n in params if n not in own]
        if missing or unknown:
            raise ValueError(
                f"params must have the names {_names(own)}, got "
                f"missing {_names(missing)}, unknown {_names(unknown)}"
            )
        for name, array in own.items():
            shape = floats(f"params[{name!r}]", params[name]).shape
            if shape != array.shape:
                raise ValueError(f"params[{name!r}] must have shape {array.shape}, got {shape}")
        for name, array in own.items():
            array[...] = params[name]

    def finite(self) -> bool:
        """Whether every parameter and buffer is finite. The loss may hide it: ReLU makes −∞ 0."""
        return all(bool(np.isfinite(array).all()) for _, array in self.named_arrays())

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}: {layer!r}" for name, layer in self.children.items())
        return f"{type(self).__name__}({inner})"


class Sequential(Network):
    """Layers one after the other, named ``"0"``, ``"1"``, …"""

    def __init__(self, *layers: Layer) -> None:
        super().__init__({str(i): layer for i, layer in enumerate(layers)})


class ThreeLayerNet(Network):
    """fc3(drop2(relu2(fc2(drop1(relu1(fc1(drop0(x)))))))): three linear layers with dropout.

    ``x``: (N, n_in) -> logits (N, n_out). ``p`` drops hidden units, ``input_p`` inputs; ``rescale`` is that
    of `Dropout`. ``l2`` is for the weights of all layers, ``max_norm`` for hidden units, as in the paper;
    ``momentum`` and ``nesterov`` are for `update`. Weights start as He et al. 2015, arXiv:1502.01852.

    Source: Srivastava et al. 2014, JMLR 15:1929-1958.
    """

    def __init__(
        self,
        n_in: int,
        n_hidden1: int,
        n_hidden2: int,
        n_out: int,
        *,
        key: Key,
        p: float = 0.5,
        input_p: float = 0.0,
        rescale: str = "train",
        momentum: float = 0.0,
        nesterov: bool = False,
        l2: float = 0.0,
        max_norm: float | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        _checks.positive_int("n_hidden1", n_hidden1)
        _checks.positive_int("n_hidden2", n_hidden2)
        _checks.probability("input_p", input_p)
        key = is_key("key", key)
        hidden: dict[str, Any] = {"l2": l2, "max_norm": max_norm, "dtype": dtype}
        self.drop0 = Dropout(input_p, rescale)
        self.fc1 = Linear(n_in, n_hidden1, key=key.fold_in(0), **hidden)
        self.relu1, self.drop1 = ReLU(), Dropout(p, rescale)
        self.fc2 = Linear(n_hidden1, n_hidden2, key=key.fold_in(1), **hidden)
        self.relu2, self.drop2 = ReLU(), Dropout(p, rescale)
        self.fc3 = Linear(n_hidden2, n_out, key=key.fold_in(2), l2=l2, dtype=dtype)
        self.sgd = SGD(1e-3, momentum=momentum, nesterov=nesterov)
        super().__init__(
            {
                **{"drop0": self.drop0, "fc1": self.fc1, "relu1": self.relu1, "drop1": self.drop1},
                **{"fc2": self.fc2, "relu2": self.relu2, "drop2": self.drop2, "fc3": self.fc3},
            }
        )

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(N, n_in) -> logits (N, n_out); a key drops units, no key evaluates."""
        k = self.child_keys(key)
        x = self.drop0.forward(x, k["drop0"])
        h1 = self.drop1.forward(self.relu1.forward(self.fc1.forward(x)), k["drop1"])
        h2 = self.drop2.forward(self.relu2.forward(self.fc2.forward(h1)), k["drop2"])
        return self.fc3.forward(h2)

    def backward(self, grad: Array) -> Array:
        """The chain rule in reverse order: ∂L/∂logits -> ∂L/∂x."""
        grad = self.relu2.backward(self.drop2.backward(self.fc3.backward(grad)))
        grad = self.relu1.backward(self.drop1.backward(self.fc2.backward(grad)))
        return self.drop0.backward(self.fc1.backward(grad))

    def update(self, lr: float = 1e-3) -> None:
        """One step of gradient descent with the rate ``lr``."""
        self.sgd.lr = lr
        self.sgd.step(self)


def mlp(
    sizes: Sequence[int],
    *,
    key: Key,
    drop: Callable[[float], Layer] | None,
    p: float = 0.5,
    input_p: float = 0.0,
    connect: Callable[..., Layer] | None = None,
    activation: str = "relu",
    init: str | None = None,
    pieces: int | None = None,
    l1: float = 0.0,
    l2: float = 0.0,
    max_norm: float | None = None,
    dtype: DTypeLike = np.float32,
) -> Sequential:
    """A network of ``sizes`` (n_in, *hidden, n_out), with ``drop(p)`` behind each hidden layer.

    ``drop(input_p)`` goes before the first where ``input_p`` > 0; ``drop=None`` drops no units.
    ``connect``: `DropConnect`, or a function of its arguments, makes the linear layers; the first drops
    weights with ``input_p``, the others with p, where dropout would drop what they read.
    ``activation``: ``"relu"``, ``"tanh"``, ``"sigmoid"``, ``"identity"``, or ``"maxout"``, where each hidden
    layer is a `Maxout` of ``pieces``, by default 5. ``init`` is that of `Linear`; None is ``"he"`` for ReLU
    and maxout, else ``"xavier"``. ``l1``, ``l2`` are for the weights of all layers, ``max_norm`` for
    those of the hidden units, as in Srivastava et al. 2014. One key gives the same first weights with every
    ``drop`` and without.
    """
    sizes = [_checks.positive_int(f"sizes[{i}]", size) for i, size in enumerate(sizes)]
    if len(sizes) < 2:
        raise ValueError(f"sizes must be (n_in, *hidden, n_out), got {tuple(sizes)}")
    p, input_p = _checks.probability("p", p), _checks.probability("input_p", input_p)
    key = is_key("key", key)
    unit = ACTIVATIONS[_checks.one_of("activation", activation, IN_NETWORKS)]
    if connect is not None and (drop is not None or not unit.by_element):
        raise ValueError("connect must be None with a drop or with maxout, got both")
    same: dict[str, Any] = {"l1": l1, "l2": l2, "dtype": dtype}
    same["init"] = init or unit.init
    layers: list[Layer] = [drop(input_p)] if drop is not None and input_p > 0 else []
    last = len(sizes) - 2
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        own = {"key": key.fold_in(i), "max_norm": None if i == last else max_norm, **same}
        if connect is not None:
            layers.append(connect(n_in, n_out, p if i else input_p, **own))
        elif i < last and not unit.by_element:
            layers.append(Maxout(n_in, n_out, pieces=unit.pieces if pieces is None else pieces, **own))
        else:
            layers.append(Linear(n_in, n_out, **own))
        if i < last and unit.name in CLASSES:
            layers.append(CLASSES[unit.name]())
        if i < last and drop is not None:
            layers.append(drop(p))
    return Sequential(*layers)


def _names(names: Sequence[str] | Mapping[str, Any]) -> str:
    """A few of the names, for a message."""
    names = list(names)
    return (
        ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "none"
    )
