"""`Thin`: a training pass that computes only the surviving units."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np

from thinned import _checks, masks
from thinned._plans import gain
from thinned.kernels import survivors
from thinned.kernels.survivors import Indices
from thinned.key import Key, is_key
from thinned.scratch.activations import CLASSES
from thinned.scratch.drops import Drop, DropConnect, Dropout, ThinDropout
from thinned.scratch.layer import Array, CompactGradient, Layer
from thinned.scratch.linear import Linear, Maxout
from thinned.scratch.networks import Network
from thinned.scratch.norms import BatchNorm

BETWEEN = (*CLASSES.values(), BatchNorm)  # what may stand between a linear layer and its dropout


class Thin(Network):
    """A network whose training pass computes the units that survive its dropout, and no others.

    It has the layers of ``net`` under their names: parameters, files, optimizers and evaluation are those of
    ``net``. In a training pass each `Dropout` or `ThinDropout` at the end of a chain
    `Linear` → (activation or `BatchNorm`)* → dropout → `Linear` acts as a `ThinDropout` of ``groups``, whose
    survivors ``key.fold_in(name)`` picks. Forward and backward use the surviving rows of the first weight and
    the surviving columns of the second; their gradients are compact, or whole with several ``groups``. A
    `Maxout` may take the place of a `Linear`. To rounding, the result is that of ``net`` with `ThinDropout`
    layers, except that a `BatchNorm` updates the running mean and variance of survivors alone.

    ``thinned`` names the dropout layers that are thinned; ``dense`` those that are not, which work as in
    ``net``, with the reason. ``stages``: dropout layer -> the names from its linear layer up to it.

    Raises TypeError where ``net`` is no network, ValueError where ``groups`` is not positive.

    Source: Graham, Reizenstein and Robinson 2015, arXiv:1502.02478, where the batch shares one pick.
    """

    def __init__(self, net: Network, groups: int = 1) -> None:
        if not isinstance(net, Network):
            raise TypeError(f"net must be a thinned.scratch.Network, got {type(net).__name__}")
        super().__init__(net.children)
        self.groups = _checks.positive_int("groups", groups)
        self.dense: dict[str, str] = {}
        self.stages = dict(self._find_stages())
        self.thinned = list(self.stages)
        self._steps = dict(self._cut())
        self._parts: dict[str, CompactGradient] = {}

    def _find_stages(self) -> Iterator[tuple[str, list[str]]]:
        """Each dropout that is thinned, and the layers from its linear one up to it; fills ``dense``."""
        names, layers = list(self.children), list(self.children.values())
        for i, (name, layer) in enumerate(self.children.items()):
            if not isinstance(layer, (Drop, DropConnect)):
                continue
            first = i - 1
            while first > 0 and type(layers[first]) in BETWEEN:
                first -= 1
            reason = self._why_dense(layer, layers[max(first, 0) : i], layers[i + 1 : i + 2])
            if reason:
                self.dense[name] = reason
            else:
                yield name, names[first : i + 1]

    def _why_dense(self, drop: Layer, before: list[Layer], after: list[Layer]) -> str:
        """Why a layer cannot be thinned between those; nothing where it can."""
        if type(drop) not in (Dropout, ThinDropout):
            return "it drops no whole units"
        if getattr(drop, "rescale", "train") != "train":
            return "it rescales in evaluation"
        if not before or type(before[0]) not in (Linear, Maxout):
            return "no linear layer computes its units"
        if not after or type(after[0]) not in (Linear, Maxout):
            return "no linear layer reads its units"
        if self.groups > 1 and any(isinstance(layer, BatchNorm) for layer in before):
            return "BatchNorm takes its statistics over all groups"
        return ""

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
        for layer in reversed(self.recall()):
            grad = layer.backward(grad)
        self._collect()
        return grad

    def param_grads(self, grad: Array) -> None:
        """`backward` down to the first layer that has parameters, and no further."""
        steps = self.recall()
        with_params = [layer for layer in steps if next(layer.named_params(), None)]
        for layer in reversed(steps):
            if with_params and layer is with_params[0]:
                layer.param_grads(grad)
                break
            grad = layer.backward(grad)
        self._collect()

    def _collect(self) -> None:
        """The gradients of the chains that took part in the last backward pass."""
        chains = [layer for layer in self.recall() if isinstance(layer, Chain)]
        self._parts = {name: part for chain in chains for name, part in chain.parts.items()}

    def named_params(self) -> Iterator[tuple[str, Array, Array | CompactGradient]]:
        """Qualified name, parameter and gradient; it is compact where the last backward pass was thinned."""
        for name, param, grad in super().named_params():
            yield name, param, self._parts.get(name, grad)

    def __repr__(self) -> str:
        lines = [f"thinned: {', '.join(self.thinned) or 'none'}"]
        lines += [f"dense: {name}, as {reason}" for name, reason in self.dense.items()]
        return f"{super().__repr__()[:-1]}; {'; '.join(lines)})"


class Chain(Network):
    """Linear layers with a dropout after each but the last, computed for the survivors alone.

    In a training pass each dropout picks its survivors. A copy of each layer, with the rows and columns of
    the survivors, computes. ``parts`` holds the gradients of the last backward pass.
    """

    def __init__(self, children: dict[str, Layer], groups: int) -> None:
        super().__init__(children)
        self.groups = [list(self._narrow()) for _ in range(groups)]
        self.parts: dict[str, CompactGradient] = {}

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(N, n_in) -> (N, n_out), in training; ``key`` is that of the whole network."""
        key = is_key("key", key)
        picked = list(self._pick(key))
        ys = []
        for g, few in enumerate(self.groups):
            y, cols, stage = self._group(x, g), None, 0
            for one in few:
                one.pick(picked[stage][g], cols)
                y = one.forward(y, key)
                if isinstance(one.whole, Drop):
                    cols, stage = picked[stage][g], stage + 1
            ys.append(y)
        return self._join(ys)

    def backward(self, grad: Array) -> Array:
        """∂L/∂y -> ∂L/∂x."""
        groups = enumerate(self.groups)
        grads = [few[0].layer.backward(self._back(few, self._group(grad, g))) for g, few in groups]
        self._collect()
        return self._join(grads)

    def param_grads(self, grad: Array) -> None:
        """`backward` without the gradient with respect to x."""
        for g, few in enumerate(self.groups):
            few[0].layer.param_grads(self._back(few, self._group(grad, g)))
        self._collect()

    def _back(self, few: list[Narrow], grad: Array) -> Array:
        """The gradient with respect to the output of the first layer."""
        for one in reversed(few[1:]):
            grad = one.layer.backward(grad)
        return grad

    def _narrow(self) -> Iterator[Narrow]:
        """A narrow copy of each layer."""
        n = 0
        for name, layer in self.children.items():
            n = layer.n_out if isinstance(layer, Linear | Maxout) else n
            yield Narrow(name, layer, n)

    def _pick(self, key: Key) -> Iterator[list[Indices | None]]:
        """The survivors of each dropout, group by group; None (all units) for the layer behind the last."""
        for one in self.groups[0]:
            if isinstance(one.whole, Drop):
                picks = masks.picks(one.n, one.whole.p, key.fold_in(one.name), len(self.groups))
                yield list(picks.survivors)
        yield [None] * len(self.groups)

    def _group(self, x: Array, g: int) -> Array:
        """The samples of group g."""
        return x[g :: len(self.groups)] if len(self.groups) > 1 else x

    def _join(self, parts: list[Array]) -> Array:
        """The samples of all groups, in their order."""
        if len(parts) == 1:
            return parts[0]
        out: Array = np.empty((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype)
        for g, part in enumerate(parts):
            out[g :: len(parts)] = part
        return out

    def _collect(self) -> None:
        """Fill ``parts`` or, where there are several groups, the whole gradients of the layers."""
        if len(self.groups) == 1:
            self.parts = {f"{one.name}.{name}": part for one in self.groups[0] for name, part in one.parts()}
            return
        for g, few in enumerate(self.groups):
            for one in few:
                for name, part in one.parts():
                    (part.add_to if g else part.write_to)(one.whole.grads[name])
        for layer in self.children.values():
            if isinstance(layer, Linear | Maxout):
                (layer.linear if isinstance(layer, Maxout) else layer).add_penalty_grads()


class Narrow:
    """A copy of a layer for some of the n units of its stage; of a dropout, its survivors' factor 1/(1 − p).

    It has the parameters of the units ``rows``, which read the units ``cols``, None for all; no penalties.
    """

    def __init__(self, name: str, whole: Layer, n: int) -> None:
        self.name, self.whole, self.n = name, whole, n
        self.rows: Indices | None = None
        self.cols: Indices | None = None
        self.layer: Layer = Scale() if isinstance(whole, Drop) else copy.copy(whole)
        self.linear = self.layer  # what computes with a weight
        if isinstance(self.layer, Maxout):
            self.layer.linear = self.linear = copy.copy(self.layer.linear)
        if isinstance(self.linear, Linear):
            self.linear.l1 = self.linear.l2 = self.linear.bias_l1 = self.linear.bias_l2 = 0.0
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        for layer in (self.layer, self.linear):
            layer.params, layer.grads, layer.buffers = self.params, self.grads, {}

    def pick(self, rows: Indices | None, cols: Indices | None) -> None:
        """Copy the parameters of these units into the arrays of the last pass."""
        if rows is not None and isinstance(self.layer, Maxout):  # the rows of all its pieces
            rows = (np.arange(self.layer.pieces)[:, None] * self.n + rows).ravel()
        self.rows, self.cols = rows, cols
        for name, param in self.whole.params.items():
            columns = cols if param.ndim > 1 else None
            shape = survivors.compact_shape(param.shape, rows, columns)
            if name not in self.params or self.params[name].shape != shape:
                self.params[name], self.grads[name] = (
                    np.empty(shape, param.dtype),
                    np.empty(shape, param.dtype),
                )
            survivors.take(param, rows, columns, self.params[name])
        if rows is not None:
            self.layer.buffers = {name: buffer[rows] for name, buffer in self.whole.buffers.items()}
        self._fit()

    def _fit(self) -> None:
        """Set the sizes of the layer."""
        if isinstance(self.linear, Linear):
            self.linear.n_out, self.linear.n_in = self.params["weight"].shape
        if isinstance(self.layer, Maxout):
            self.layer.n_out = len(self.params["weight"]) // self.layer.pieces
            self.layer.n_in = self.params["weight"].shape[1]
        if isinstance(self.layer, BatchNorm) and self.rows is not None:
            self.layer.shape = (len(self.rows),)
        if isinstance(self.layer, Scale) and isinstance(self.whole, Drop):
            self.layer.scale = gain(self.whole.p)

    def forward(self, x: Array, key: Key) -> Array:
        """The layer's output; running means go back into the whole layer."""
        y = self.layer.forward(x, key)
        for name, buffer in self.layer.buffers.items():
            self.whole.buffers[name][self.rows] = buffer
        return y

    def parts(self) -> Iterator[tuple[str, CompactGradient]]:
        """Name and gradient of each parameter; penalties are for all units."""
        rates = dict(self.whole.penalties()) if isinstance(self.whole, Linear | Maxout) else {}
        for name, grad in self.grads.items():
            cols = self.cols if grad.ndim > 1 else None
            yield name, CompactGradient(grad, self.rows, cols, rates.get(name, survivors.NONE))


class Scale(Layer):
    """y = s·x."""

    scale = 1.0

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Any shape -> same."""
        return x * self.scale

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = s·∂L/∂y."""
        return grad * self.scale
