"""`Thin`: a training pass that computes only the surviving units."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from thinned import _checks, kernels, masks
from thinned._plans import gain
from thinned.kernels import groups as products
from thinned.kernels.groups import Picks, Rows
from thinned.kernels.survivors import Penalty
from thinned.key import Key, is_key
from thinned.scratch.activations import CLASSES
from thinned.scratch.drops import Drop, DropConnect, Dropout, ThinDropout
from thinned.scratch.layer import Array, Gradient, Layer, same_shape, table
from thinned.scratch.linear import Linear, Maxout
from thinned.scratch.networks import Network
from thinned.scratch.norms import BatchNorm

BETWEEN = (*CLASSES.values(), BatchNorm)  # what may stand between a linear layer and its dropout
# Products of survivors take less time than those of all units where a chain has all three:
WIDE = 512  # units in a layer that drops some
TALL = 8  # rows of a group
SHARE = 0.55  # or less of the multiplications


class Thin(Network):
    """A network whose training pass computes the units that survive its dropout, and no others.

    It has the layers of ``net`` under their names: parameters, files, optimizers and evaluation are those of
    ``net``. In a training pass each `Dropout` or `ThinDropout` at the end of a chain
    `Linear` → (activation or `BatchNorm`)* → dropout → `Linear` acts as a `ThinDropout` of ``groups``, with
    the key ``key.fold_in(name)``. A row of the batch computes the units that its group keeps, and reads no
    others; gradients are whole, and zero where no row of the batch keeps both units. A `Maxout` may take the
    place of a `Linear`. To rounding, the result is that of ``net`` with `ThinDropout` layers. Only a
    `BatchNorm` differs: its mean and variance of a unit are those of the rows that keep the unit, and where
    fewer than two do, the running ones stay.

    ``groups``: how many picks a batch has; row i has that of group i mod ``groups``. ``"auto"`` is
    `thinned.masks.GROUPS`. Where it takes less time, all units of a chain are computed and the dropped ones
    are zeroed; to rounding, the result is the same. This is so with fewer than `WIDE` = 512 units in its
    widest layer, fewer than `TALL` = 8 rows a group, or more than `SHARE` = 0.55 of the multiplications left,
    as at small rates.

    ``thinned`` names the dropout layers that are thinned; ``dense`` those that are not, which work as in
    ``net``, with the reason. ``stages``: dropout layer -> the names from its linear layer up to it.

    Raises TypeError where ``net`` is no network, ValueError where ``groups`` is not positive.

    Source: Graham, Reizenstein and Robinson 2015, arXiv:1502.02478, where the batch shares one pick.
    """

    def __init__(self, net: Network, groups: int | str = "auto") -> None:
        if not isinstance(net, Network):
            raise TypeError(f"net must be a thinned.scratch.Network, got {type(net).__name__}")
        super().__init__(net.children)
        self.groups = masks.GROUPS if groups == "auto" else _checks.positive_int("groups", groups)
        self.dense: dict[str, str] = {}
        self.stages = dict(self._find_stages())
        self.thinned = list(self.stages)
        self._steps = dict(self._cut())
        self._penalties: dict[str, Penalty] = {}

    def _find_stages(self) -> Iterator[tuple[str, list[str]]]:
        """Each dropout that is thinned, and the layers from its linear one up to it; fills ``dense``."""
        names, layers = list(self.children), list(self.children.values())
        for i, (name, layer) in enumerate(self.children.items()):
            if not isinstance(layer, (Drop, DropConnect)):
                continue
            first = i - 1
            while first > 0 and type(layers[first]) in BETWEEN:
                first -= 1
            reason = _why_dense(layer, layers[max(first, 0) : i], layers[i + 1 : i + 2])
            if reason:
                self.dense[name] = reason
            else:
                yield name, names[first : i + 1]

    def _cut(self) -> Iterator[tuple[str, Layer]]:
        """The steps of a training pass: chains of stages with the layer that ends them, and other layers."""
        inside = {name for names in self.stages.values() for name in names}
        chain: dict[str, Layer] = {}
        for name, layer in self.children.items():
            chain[name] = layer
            if name not in inside:
                yield name, Chain(chain, self.groups) if len(chain) > 1 else layer
                chain = {}

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Through the layers; a key: of survivors alone, no key: of all units."""
        if key is None:
            self._saved = list(self.children.values())
            return super().forward(x)
        is_key("key", key)
        self._saved = list(self._steps.values())
        for name, layer in self._steps.items():
            x = layer.forward(x, key if isinstance(layer, Chain) else key.fold_in(name))
        return x

    def backward(self, grad: Array) -> Array:
        """Through the layers, last to first."""
        grad = super().backward(grad)
        self._penalties = dict(self._pending())
        return grad

    def param_grads(self, grad: Array) -> None:
        """`backward` down to the first layer that has parameters, and no further."""
        super().param_grads(grad)
        self._penalties = dict(self._pending())

    def passed(self) -> list[Layer]:
        """The steps of the last forward pass."""
        steps: list[Layer] = self.recall()
        return steps

    def _pending(self) -> Iterator[tuple[str, Penalty]]:
        """Name and penalty of each parameter whose gradient lacks that of its penalty."""
        for step in self.passed():
            if isinstance(step, Chain):
                yield from step.pending()

    def named_params(self) -> Iterator[tuple[str, Array, Array | Gradient]]:
        """Qualified name, parameter and gradient; a chain leaves that of its penalty to the optimizer."""
        for name, param, grad in super().named_params():
            penalty = self._penalties.get(name)
            yield name, param, Gradient(grad, penalty) if penalty and not isinstance(grad, Gradient) else grad

    def __repr__(self) -> str:
        lines = [f"thinned: {', '.join(self.thinned) or 'none'}"]
        lines += [f"dense: {name}, as {reason}" for name, reason in self.dense.items()]
        return f"{super().__repr__()[:-1]}; {'; '.join(lines)})"


def _why_dense(drop: Layer, before: list[Layer], after: list[Layer]) -> str:
    """Why a layer cannot be thinned between those; nothing where it can."""
    if type(drop) not in (Dropout, ThinDropout):
        return "it drops no whole units"
    if getattr(drop, "rescale", "train") != "train":
        return "it rescales in evaluation"
    if not before or type(before[0]) not in (Linear, Maxout):
        return "no linear layer computes its units"
    if not after or type(after[0]) not in (Linear, Maxout):
        return "no linear layer reads its units"
    return ""


class Chain(Network):
    """Linear layers with a dropout after each but the last, computed for the survivors alone."""

    def __init__(self, children: dict[str, Layer], groups: int) -> None:
        super().__init__(children)
        self.groups = groups
        self.stages = list(self._split())
        masked = {name: Masked(one, groups) for name, one in children.items() if isinstance(one, Drop)}
        self.whole = Network({**children, **masked})

    def _split(self) -> Iterator[Stage]:
        """A linear layer with what follows it, up to the dropout of its units."""
        some: dict[str, Layer] = {}
        for i, (name, layer) in enumerate(self.children.items(), 1):
            some[name] = layer
            if isinstance(layer, Drop) or i == len(self.children):
                yield Stage(some)
                some = {}

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(N, n_in) -> (N, n_out), in training; ``key`` is that of the whole network."""
        key = is_key("key", key)
        thinned = self._pays(len(x))
        self._saved = (thinned,)
        if not thinned:
            for name, layer in self.whole.children.items():
                x = layer.forward(x, key.fold_in(name) if isinstance(layer, Masked) else key)
            return x
        into, scale, rows = None, 1.0, Rows(self.groups)
        for stage in self.stages:
            x = stage.forward(x, into, scale, rows, key)
            into, scale = stage.units, stage.gain
        return x

    def _pays(self, rows: int) -> bool:
        """Whether survivors alone take less time than all units, or have statistics of their own."""
        if all(stage.p == 0.0 for stage in self.stages):
            return False
        if any(stage.norms for stage in self.stages):
            return True
        shares = [1.0, *(1.0 - stage.p for stage in self.stages)]
        sizes = [stage.layer.params["weight"].size for stage in self.stages]
        left = sum(size * a * b for size, (a, b) in zip(sizes, pairwise(shares), strict=True))
        wide = max(stage.layer.n_out for stage in self.stages if stage.drop is not None) >= WIDE
        return wide and rows >= TALL * self.groups and left <= SHARE * sum(sizes)

    def backward(self, grad: Array) -> Array:
        """∂L/∂y -> ∂L/∂x."""
        (thinned,) = self.recall()
        if not thinned:
            return self.whole.backward(grad)
        for stage in reversed(self.stages):
            grad = stage.backward(grad)
        return grad

    def param_grads(self, grad: Array) -> None:
        """`backward` without the gradient with respect to x."""
        (thinned,) = self.recall()
        if not thinned:
            return self.whole.param_grads(grad)
        for stage in reversed(self.stages[1:]):
            grad = stage.backward(grad)
        self.stages[0].param_grads(grad)

    def pending(self) -> Iterator[tuple[str, Penalty]]:
        """Name and penalty of each parameter whose gradient lacks that of its penalty."""
        (thinned,) = self.recall()
        for stage in self.stages if thinned else ():
            yield from ((f"{stage.name}.{name}", penalty) for name, penalty in stage.layer.penalties())


class Masked(Layer):
    """`ThinDropout` for a chain of which all units are computed; its rate is that of ``drop``."""

    def __init__(self, drop: Drop, groups: int) -> None:
        super().__init__()
        self.drop, self.groups = drop, groups

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(N, n) -> same."""
        kept = masks.picks(x.shape[1], self.drop.p, is_key("key", key), self.groups).units
        self._saved = np.resize(kept, x.shape), x.dtype.type(gain(self.drop.p))
        return self.backward(x)

    def backward(self, grad: Array) -> Array:
        """∂L/∂x: the same units, by the same factor."""
        kept, scale = self.recall()
        out = np.multiply(
            same_shape("grad", grad, kept.shape), scale, out=kernels.empty(kept.shape, grad.dtype)
        )
        np.putmask(out, ~kept, 0)
        return out


class Stage:
    """A linear layer with what follows it, up to the dropout of its units; the last of a chain has none.

    Arrays are compact, as `thinned.kernels.groups` has them. The next stage multiplies by ``gain``.
    """

    def __init__(self, layers: dict[str, Layer]) -> None:
        (self.name, layer), *rest = layers.items()
        assert isinstance(layer, Linear | Maxout)
        self.layer = layer
        self.pieces = layer.pieces if isinstance(layer, Maxout) else 1
        self.drop_name, drop = rest.pop() if rest else ("", None)
        self.drop = drop if isinstance(drop, Drop) else None
        self.between = [PickedNorm(one) if isinstance(one, BatchNorm) else one for _, one in rest]
        self.norms = [one for one in self.between if isinstance(one, PickedNorm)]
        self.units: Picks | None = None  # that survive

    @property
    def p(self) -> float:
        """The rate of the dropout."""
        return 0.0 if self.drop is None else self.drop.p

    @property
    def gain(self) -> float:
        """What the survivors are multiplied by."""
        return gain(self.p)

    def forward(self, x: Array, into: Picks | None, scale: float, rows: Rows, key: Key) -> Array:
        """``scale``·x (N, units of ``into``) -> (N, ``units``), before their factor."""
        n_in = self.layer.n_in if into is None else into.width
        x = table("x", x, n_in, self.layer.params["weight"].dtype)
        if self.drop is not None:
            self.units = masks.picks(self.layer.n_out, self.p, key.fold_in(self.drop_name), rows.n)
        self.how: dict[str, Any] = {"out_units": self.units, "in_units": into, "rows": rows, "scale": scale}
        parts = [products.product(x, *piece, **self.how) for piece in self._pieces(self.layer.params)]
        best = np.argmax(parts, axis=0)[None] if self.pieces > 1 else None
        y = parts[0] if best is None else np.take_along_axis(np.stack(parts), best, axis=0)[0]
        self.x, self.best, self.shape = x, best, y.shape
        for layer in self.between:
            if isinstance(layer, PickedNorm) and self.units is not None:
                layer.units, layer.rows = self.units, rows
            y = layer.forward(y)
        return y

    def backward(self, grad: Array) -> Array:
        """∂L/∂x, from the gradient by what `forward` returned; fills the gradients of the layers."""
        how, weights = self.how, [weight for weight, _ in self._pieces(self.layer.params)]
        grads = self._param_grads(grad)
        parts = (
            products.gradient_of_input(g, weight, **how) for g, weight in zip(grads, weights, strict=True)
        )
        return sum(parts, next(parts))

    def param_grads(self, grad: Array) -> None:
        """`backward` without the gradient with respect to x."""
        self._param_grads(grad)

    def _param_grads(self, grad: Array) -> list[Array]:
        """Fill the gradients of the layers; returns those by the outputs of the linear pieces."""
        for layer in reversed(self.between):
            grad = layer.backward(grad)
        grad = same_shape("grad", grad, self.shape).astype(self.x.dtype, copy=False)
        zero = grad.dtype.type(0)
        grads = (
            [grad]
            if self.best is None
            else [np.where(self.best[0] == j, grad, zero) for j in range(self.pieces)]
        )
        for g, (weight, bias) in zip(grads, self._pieces(self.layer.grads), strict=True):
            products.gradient_of_weight(g, self.x, weight.shape, **self.how, out=weight)
            bias[...] = products.gradient_of_bias(g, len(bias), out_units=self.units, rows=self.how["rows"])
        return grads

    def _pieces(self, arrays: dict[str, Array]) -> Iterator[tuple[Array, Array]]:
        """The part of weight and bias, or of their gradients, that belongs to each linear function."""
        n = self.layer.n_out
        for start in range(0, self.pieces * n, n):
            yield arrays["weight"][start : start + n], arrays["bias"][start : start + n]


class PickedNorm:
    """A `BatchNorm` of compact rows: mean and variance of a unit are those of the rows that keep it."""

    units: Picks
    rows: Rows

    def __init__(self, layer: BatchNorm) -> None:
        self.layer = layer

    def forward(self, x: Array) -> Array:
        """(N, width) -> same; updates the running statistics of units that two rows or more keep."""
        layer = self.layer
        if len(x) < 2:
            raise ValueError(
                f"x must give BatchNorm at least 2 values for each mean, got 1 of shape {x.shape}"
            )
        self.n_rows = len(x)
        self.count = self._total(np.ones_like(x))
        mean = self._mean(x)
        variance = self._mean(np.square(x - self._spread(mean)))
        often = self.count > 1
        for name, new in (
            ("running_mean", mean),
            ("running_var", variance * self.count / np.maximum(self.count - 1, 1)),
        ):
            running = layer.buffers[name]
            with np.errstate(over="ignore"):  # σ² beyond float32: ∞, which `Network.finite` finds
                running[often] = ((1 - layer.momentum) * running + layer.momentum * new)[often]
        self.scale = self._spread(1.0 / np.sqrt(variance + layer.eps)).astype(layer.dtype)
        self.x_hat = (x - self._spread(mean)).astype(layer.dtype) * self.scale
        if not layer.params:
            return self.x_hat.copy()
        return self.x_hat * self._spread(layer.params["weight"]) + self._spread(layer.params["bias"])

    def backward(self, grad: Array) -> Array:
        """∂L/∂x, as `BatchNorm` has it, with means over the rows that keep the unit."""
        layer, x_hat = self.layer, self.x_hat
        h = grad
        if layer.params:
            layer.grads["weight"][...] = self._total(grad * x_hat)
            layer.grads["bias"][...] = self._total(grad)
            h = grad * self._spread(layer.params["weight"])
        out: Array = h - self._spread(self._mean(h)) - x_hat * self._spread(self._mean(h * x_hat))
        return (out * self.scale).astype(layer.dtype)

    def _total(self, x: Array) -> Array:
        """(N, width) -> (n,): the sum over the rows that keep a unit, in float64."""
        total: Array = products.gradient_of_bias(
            x.astype(np.float64), self.units.n, out_units=self.units, rows=self.rows
        )
        return total

    def _mean(self, x: Array) -> Array:
        """(N, width) -> (n,): the mean over the rows that keep a unit; 0 where there are none."""
        return self._total(x) / np.maximum(self.count, 1)

    def _spread(self, values: Array) -> Array:
        """(n,) -> (N, width): the value of each row's units, among zeros."""
        groups = (self.rows.first + np.arange(self.n_rows)) % self.rows.n
        return np.append(values, values.dtype.type(0))[self.units.columns[groups]]
