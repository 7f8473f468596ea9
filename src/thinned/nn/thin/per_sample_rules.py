"""Finds the nodes of a graph that treat each sample by itself, by a rule for each known layer and function.

Two numbers are known of each tensor in the graph: its rank, and the axis of its samples. A rule computes
those of a result from those of the arguments, or raises `Mixes`. A node without a rule counts as one that
mixes samples.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from thinned.nn import activations, modules
from thinned.nn.residual import Residual
from thinned.nn.thin.layer_kinds import CONVOLUTIONS, POOLS


class Mixes(Exception):  # noqa: N818 - not an error: a rule's answer
    """A node may mix samples."""


@dataclass(frozen=True)
class Rows:
    """A tensor with ``rank`` dimensions whose samples lie along ``axis``."""

    rank: int
    axis: int = 0
    own: bool = False  # made in the branch, so it may be changed in place

    def dim(self, dim: int) -> int:
        """A dimension, counted from the first. It must not be that of the samples."""
        dim = dim + self.rank if dim < 0 else dim
        ensure(0 <= dim < self.rank and dim != self.axis)
        return dim


@dataclass(frozen=True)
class Size:
    """The size of a tensor in one dimension; ``of_batch``: the number of samples."""

    of_batch: bool


@dataclass(frozen=True)
class Several:
    """A tuple of tensors with the same rank and axis."""

    each: Rows

    def __getitem__(self, index: Any) -> Rows:
        ensure(isinstance(index, int))
        return self.each


def ensure(known: bool) -> None:
    """Raise `Mixes` unless ``known``."""
    if not known:
        raise Mixes


def is_batch(value: Any) -> bool:
    """Whether a value is the number of samples."""
    return isinstance(value, Size) and value.of_batch


def flat(values: Any) -> list[Any]:
    """All values in nested lists and dictionaries."""
    if isinstance(values, dict):
        values = list(values.values())
    return (
        [each for value in values for each in flat(value)] if isinstance(values, (tuple, list)) else [values]
    )


# Functions: a rule has the function's arguments and returns what is known of its result.


def by_element(*args: Any, **kwargs: Any) -> Rows:
    """Element by element; other arguments are numbers, or parameters that all samples share."""
    values = flat([args, kwargs])
    rows = [value for value in values if isinstance(value, Rows)]
    first = rows[0]
    ensure(all((each.rank, each.axis) == (first.rank, first.axis) for each in rows))
    ensure(not any(map(is_batch, values)))
    for value in values:
        if isinstance(value, Tensor):
            place = value.dim() - first.rank + first.axis  # the dimension that meets the samples
            ensure(value.dim() <= first.rank and (place < 0 or value.shape[place] == 1))
    return Rows(first.rank, first.axis, own=True)


def maybe_itself(x: Rows, *args: Any, **kwargs: Any) -> Rows:
    """Element by element; the result may be x itself."""
    return replace(by_element(x, *args, **kwargs), own=x.own)


def along(x: Rows, dim: int, *args: Any, **kwargs: Any) -> Rows:
    """Along one dimension, such as softmax."""
    x.dim(dim)
    return Rows(x.rank, x.axis, own=True)


def reduced(x: Rows, dim: Any, keepdim: bool = False, dtype: Any = None) -> Rows:
    """A mean or a sum over dimensions."""
    ensure(isinstance(dim, (int, tuple, list)) and dim not in ((), []))
    dims = {x.dim(each) for each in ([dim] if isinstance(dim, int) else dim)}
    if keepdim:
        return Rows(x.rank, x.axis, own=True)
    return Rows(x.rank - len(dims), x.axis - sum(each < x.axis for each in dims), own=True)


def permuted(x: Rows, *dims: Any) -> Rows:
    """The dimensions in another order."""
    order = [dim % x.rank for dim in flat(dims)]
    ensure(sorted(order) == list(range(x.rank)))
    return replace(x, axis=order.index(x.axis))


def transposed(x: Rows, dim0: int, dim1: int) -> Rows:
    """Two dimensions exchanged."""
    order = list(range(x.rank))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permuted(x, order)


def reshaped(x: Rows, *sizes: Any) -> Rows:
    """Other sizes after the first dimension, that of the samples."""
    first, *rest = flat(sizes)
    ensure(x.axis == 0 and is_batch(first) and not any(map(is_batch, rest)))
    return replace(x, rank=1 + len(rest))


def flattened(x: Rows, start_dim: int = 0, end_dim: int = -1) -> Rows:
    """Several dimensions, after that of the samples, become one."""
    start, end = x.dim(start_dim), x.dim(end_dim)
    ensure(x.axis < start <= end)
    return replace(x, rank=x.rank - (end - start))


def unsqueezed(x: Rows, dim: int) -> Rows:
    """One more dimension."""
    dim = dim + x.rank + 1 if dim < 0 else dim
    return replace(x, rank=x.rank + 1, axis=x.axis + (dim <= x.axis))


def parted(x: Rows, sizes: Any, dim: int = 0) -> Several:
    """Parts along a dimension."""
    x.dim(dim)
    return Several(x)


def unbound(x: Rows, dim: int = 0) -> Several:
    """The slices along a dimension."""
    return Several(replace(x, rank=x.rank - 1, axis=x.axis - (x.dim(dim) < x.axis)))


def item(x: Any, index: Any) -> Any:
    """An item of several values, or the same part of each sample."""
    if not isinstance(x, Rows):
        return x[index]
    first, *rest = index if isinstance(index, tuple) else (index,)
    ensure(x.axis == 0 and first == slice(None) and not any(map(is_batch, flat(rest))))
    ensure(all(each is None or each is ... or type(each) in (int, slice) for each in rest))
    lost, new = sum(type(each) is int for each in rest), sum(each is None for each in rest)
    return replace(x, rank=x.rank - lost + new)


def joined(tensors: Any, dim: int = 0) -> Rows:
    """Tensors joined along a dimension."""
    ensure(all(isinstance(each, Rows) for each in tensors))
    out = by_element(*tensors)
    out.dim(dim)
    return out


def product(a: Rows, b: Any) -> Rows:
    """Matrix products: sample by sample, or with a parameter."""
    ensure(isinstance(a, Rows))
    if isinstance(b, Tensor):
        ensure(b.dim() == 2 and a.axis < a.rank - 1)
    else:
        ensure((a.rank, a.axis) == (b.rank, b.axis) and a.axis < a.rank - 2)
    return Rows(a.rank, a.axis, own=True)


def attended(query: Rows, key: Any, value: Any, attn_mask: Any = None, *args: Any, **kwargs: Any) -> Rows:
    """Scaled dot-product attention."""
    product(query, key)
    product(query, value)
    return by_element(query) if attn_mask is None else by_element(query, attn_mask)


def normed(x: Rows, normalized_shape: Any, *args: Any, **kwargs: Any) -> Rows:
    """Layer norm and RMS norm, over the last dimensions."""
    ensure(x.axis < x.rank - len(normalized_shape))
    return Rows(x.rank, x.axis, own=True)


def linear(x: Rows, weight: Tensor, bias: Tensor | None = None) -> Rows:
    """x Wᵀ + b."""
    ensure(isinstance(weight, Tensor))
    return product(x, weight)


def shape(x: Rows) -> tuple[Size, ...]:
    """The size of x along each axis."""
    return tuple(Size(i == x.axis) for i in range(x.rank))


def size(x: Rows, dim: int | None = None) -> Any:
    """The size of x along each axis, or along one."""
    return shape(x) if dim is None else shape(x)[dim]


def attribute(x: Rows, name: str) -> Any:
    """An attribute of a tensor."""
    known = {"shape": shape(x), "ndim": x.rank, "dtype": None, "device": None}
    ensure(name in known)
    return known[name]


def counted(*args: Any) -> Size:
    """Arithmetic with sizes other than the number of samples."""
    ensure(not any(is_batch(each) or isinstance(each, Tensor) for each in args))
    return Size(of_batch=False)


Rule = Callable[..., Any]
_NAMES: dict[Rule, str] = {
    by_element: f"{activations.NAMES} exp log sqrt rsqrt square abs"
    " sin cos neg reciprocal pow add sub mul div truediv maximum minimum clamp iadd isub imul itruediv",
    maybe_itself: "dropout to type float half bfloat16 double contiguous clone type_as",
    along: "softmax log_softmax cumsum",
    reduced: "mean sum amax amin logsumexp",
    permuted: "permute",
    transposed: "transpose swapaxes swapdims",
    reshaped: "reshape view",
    flattened: "flatten",
    unsqueezed: "unsqueeze",
    parted: "chunk split",
    unbound: "unbind",
    item: "getitem",
    joined: "cat concat",
    product: "matmul bmm",
    attended: "scaled_dot_product_attention",
    normed: "layer_norm rms_norm",
    linear: "linear",
    size: "size",
    attribute: "getattr",
}
_HOMES = (torch, nn.functional, operator, torch._C._nn)
_IN_PLACE: set[Any] = {operator.iadd, operator.isub, operator.imul, operator.itruediv}
CALLS: dict[Any, Rule] = {getattr: attribute}
for _rule, _names in _NAMES.items():
    for _name in _names.split():
        for _full in (_name, f"{_name}_") if _rule in (by_element, maybe_itself) else (_name,):
            _found = [f for home in _HOMES if (f := getattr(home, _full, None))]
            CALLS |= dict.fromkeys([*_found, _full], _rule)
            if _full.endswith("_"):
                _IN_PLACE |= {*_found, _full}
_ARITHMETIC = {getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg")}


_OF_MANY = (by_element, maybe_itself, joined, product, attended)


def of_call(target: Any, args: Any, kwargs: Any) -> Any:
    """What is known of the result of a function or method. Raises `Mixes`."""
    rows = [value for value in flat([args, kwargs]) if isinstance(value, Rows)]
    if not rows and target in _ARITHMETIC:
        return counted(*args)
    ensure(target in CALLS and "out" not in kwargs)
    rule = CALLS[target]
    ensure(len(rows) == 1 or (bool(rows) and rule in _OF_MANY) or rule is item)
    asked = [each is True for each in (*args[1:], kwargs.get("inplace"))] if rule in _OF_MANY else []
    if target in _IN_PLACE or any(asked):
        ensure(args[0].own)
    return rule(*args, **kwargs)


# Layers: a rule has the layer and its arguments.


def spatial(dims: int) -> Callable[[Any, Rows], Rows]:
    """The rule for (N, C, *spatial) with that many spatial dimensions."""

    def rule(layer: Any, x: Rows) -> Rows:
        ensure(x.axis == 0 and x.rank == dims + 2)
        return replace(x, own=True)

    return rule


def channels_first(layer: Any, x: Rows) -> Rows:
    """(N, C, *)."""
    ensure(x.axis == 0 and x.rank >= 2)
    return replace(x, own=True)


def elements(layer: Any, x: Rows) -> Rows:
    """Element by element."""
    return x if type(layer) in (nn.Identity, nn.Dropout) else by_element(x)


def dropped(layer: Any, x: Rows) -> Rows:
    """Drop modules of `thinned.nn`, which number the samples along the first dimension."""
    ensure(x.axis == 0 and x.rank >= 2 and x.rank != layer.unbatched)
    ensure(not isinstance(layer, Residual) or layer.skip)
    return x


def attention(layer: Any, query: Rows, key: Any, value: Any, *args: Any, **kwargs: Any) -> Several:
    """Torch's multi-head attention, with masks that all samples share."""
    ensure(not any(args[:1]) and kwargs.get("key_padding_mask") is None)
    samples = Rows(3, 0 if layer.batch_first else 1)
    ensure(
        all(isinstance(each, Rows) and replace(each, own=False) == samples for each in (query, key, value))
    )
    masks = [each for each in flat([args, kwargs]) if isinstance(each, (Tensor, Rows))]
    ensure(all(isinstance(each, Tensor) and each.dim() == 2 for each in masks))
    return Several(replace(samples, own=True))


LAYERS: dict[type[nn.Module], Callable[..., Any]] = {
    **dict.fromkeys((*activations.MODULES, nn.Dropout), elements),
    **dict.fromkeys((nn.PReLU, nn.GroupNorm), channels_first),
    **{kind: spatial(int(kind.__name__[-2])) for kind in (*CONVOLUTIONS, *POOLS)},
    **{kind: spatial(d) for d, kind in enumerate((nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), 1)},
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm), channels_first),
    nn.Linear: lambda layer, x: linear(x, layer.weight),
    **dict.fromkeys((nn.LayerNorm, nn.RMSNorm), lambda layer, x: normed(x, layer.normalized_shape)),
    nn.Softmax: lambda layer, x: along(x, layer.dim),
    nn.LogSoftmax: lambda layer, x: along(x, layer.dim),
    nn.Flatten: lambda layer, x: flattened(x, layer.start_dim, layer.end_dim),
    nn.MultiheadAttention: attention,
    **{
        kind: dropped
        for kind in vars(modules).values()
        if isinstance(kind, type) and issubclass(kind, modules.Drop)
    },
    Residual: dropped,
}


def of_layer(layer: Any, args: Any, kwargs: Any) -> Any:
    """What is known of the result of a layer. Raises `Mixes`."""
    ensure(isinstance((*args, *kwargs.values())[0], Rows))
    if type(layer) not in LAYERS:
        return like_a_norm(layer, *args, **kwargs)
    if getattr(layer, "inplace", False):
        ensure(args[0].own)
    return LAYERS[type(layer)](layer, *args, **kwargs)


def like_a_norm(layer: Any, x: Rows) -> Rows:
    """A subclass of BatchNorm1d … 3d that, in evaluation, treats samples one by one: it is tried on three."""
    ranks = {nn.BatchNorm1d: 3, nn.BatchNorm2d: 4, nn.BatchNorm3d: 5}
    ensure(isinstance(layer, tuple(ranks)))
    trial = copy.deepcopy(layer).eval().to("cpu")
    rank = next(rank for kind, rank in ranks.items() if isinstance(layer, kind))
    shape = (3, layer.num_features, *[2] * (rank - 2))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        some = torch.linspace(-1, 1, math.prod(shape)).reshape(shape).to(layer.running_mean)
        whole = trial(some.clone())
        each = torch.cat([trial(one.clone()) for one in some.split(1)])
    ensure(whole.shape == some.shape and torch.equal(whole, each))
    return channels_first(layer, x)


class Follower:
    """Follows samples through the graph of a module."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        self.module = module
        self.constants: set[fx.Node] = set()  # parameters, and nodes computed only from them
        for node in graph.nodes:
            called = node.op in ("call_function", "call_method") and node.all_input_nodes
            if node.op == "get_attr" or (called and self.constants.issuperset(node.all_input_nodes)):
                self.constants.add(node)

    def follow(self, nodes: list[fx.Node], source: fx.Node, rank: int) -> dict[fx.Node, Any] | fx.Node:
        """What is known of each node, if ``source`` has that rank; or the first node that may mix samples."""
        values: dict[fx.Node, Any] = {source: Rows(rank)}
        for node in nodes:
            try:
                args, kwargs = fx.node.map_arg(
                    (node.args, node.kwargs), lambda each: self.value(each, values)
                )
                if node.op == "call_module":
                    layer = self.module.get_submodule(str(node.target))
                    values[node] = of_layer(layer, args, dict(kwargs))
                else:
                    values[node] = of_call(node.target, args, dict(kwargs))
            except (Mixes, TypeError, ValueError, IndexError, AttributeError, RuntimeError):
                return node  # errors other than Mixes: no rule knows such a call
        return values

    def value(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        """What is known of a node. Constants are computed on torch's meta device: their shape is enough."""
        if node not in values and node.op == "get_attr":
            value: Any = operator.attrgetter(str(node.target))(self.module)
            values[node] = value.detach().to("meta") if isinstance(value, Tensor) else value
        elif node not in values:
            ensure(node in self.constants)
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda each: self.value(each, values))
            method = node.op == "call_method"
            call: Any = getattr(type(args[0]), str(node.target)) if method else node.target
            values[node] = call(*args, **kwargs)
        return values[node]
