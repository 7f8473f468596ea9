"""The drop methods as torch modules: a module has the mask of its function in `thinned`.

In each training pass a module draws one 64-bit seed from torch's default CPU generator. So
`torch.manual_seed` and activation checkpointing work as with torch's own modules. Inside `keyed` the seed
comes from a key. In evaluation a module returns its input, unless its docstring says otherwise.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from thinned import _array, _checks, functional, masks
from thinned._method import USUAL, Method
from thinned.kernels import autograd, shards
from thinned.kernels.work import Map, Words
from thinned.key import Key
from thinned.methods import classes
from thinned.nn.batches import FIRST, UNKNOWN
from thinned.nn.compiled import operators as ops
from thinned.nn.stream import (
    Draw,
    EachExampleError,
    Stream,
    cell,
    compiling_transforms,
    linearizing,
    recording,
    scalar,
    transformed,
)

NO_TRACE = "torch.jit.trace cannot record a dropout in training: call eval() before, or use torch.export"


class Drop(nn.Module):
    """A module that drops: it has a rate that may change, and a stream of seeds.

    A subclass names its method. The options of the method are attributes of the module. The rate is a
    float64 tensor on the CPU and no buffer: ``half()`` does not round it, ``state_dict`` does not hold it,
    and a compiled graph takes it as an input.
    """

    ranks: ClassVar[Collection[int]] = ()  # of the input, if they differ from those of the method
    unbatched: ClassVar[int | None] = None  # the rank that has no batch dimension
    movable: bool = False  # whether samples may be any axis of the input
    inplace: bool = False
    unchanged: bool = True  # whether evaluation returns its input
    rate: Tensor
    stream: Stream

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        method = vars(cls).get("method")
        if isinstance(method, Method):
            cls.movable = method.unit is masks.ELEMENT

    def __init__(self, p: float = USUAL, **options: Any) -> None:
        nn.Module.__init__(self)  # not that of a class of torch among the bases
        settings = self.method.settings(p, **options)
        self.start(settings.pop("p"))
        self.unchanged = self.method.evaluation is None
        vars(self).update(settings)

    @property
    def method(self) -> Method:
        """What the module drops."""
        raise NotImplementedError(f"{type(self).__name__} must name its method")

    @property
    def settings(self) -> tuple[str, ...]:
        """The attributes that are arguments of the function."""
        return self.method.names

    def start(self, p: float) -> None:
        """Set the rate and begin a stream of seeds: all that a module has beside its options."""
        self._p = _checks.probability("p", p)
        self.rate = scalar(self._p, torch.float64)
        self.stream = Stream()

    @property
    def p(self) -> float:
        """The probability that a unit is dropped. It may be set at any time; nothing is compiled again."""
        return self._p

    @p.setter
    def p(self, value: float) -> None:
        self._p = _checks.probability("p", value)
        self.rate.fill_(self._p)

    def extra_repr(self) -> str:
        """The rate and the options."""
        options = [f"{name}={getattr(self, name)!r}" for name in self.settings]
        return ", ".join([f"p={self.p}", *options])

    def forward(self, input: Tensor) -> Tensor:
        """Drop in training; the input itself in evaluation."""
        if not isinstance(input, Tensor) and isinstance(input, torch.fx.Proxy):
            return self.traced(input)
        if not self.training and self.unchanged and isinstance(input, Tensor):
            return input  # of any dtype and shape
        self.check(input)
        return self.drop(input) if self.training else self.evaluation(input)

    def evaluation(self, input: Tensor) -> Tensor:
        """The result of evaluation, of a method that changes its input there."""
        assert self.method.evaluation is not None
        out: Tensor = (input * self.method.evaluation(self.rate)).to(input.dtype)
        return input.copy_(out) if self.inplace else out

    def check(self, input: Tensor) -> None:
        """Raise TypeError or ValueError if this module does not take such an input."""
        if not isinstance(input, Tensor):
            raise TypeError(f"input must be a torch tensor, got {type(input).__name__}")
        if not input.is_floating_point():
            raise TypeError(f"input must hold floating-point numbers, got dtype {input.dtype}")
        if input.dim() not in (self.ranks or self.method.unit.ranks):
            rule = (
                f"{' or '.join(map(str, self.ranks))} dimensions"
                if self.ranks
                else f"shape {self.method.unit.layout}"
            )
            raise ValueError(f"input of {type(self).__name__} must have {rule}, got {tuple(input.shape)}")

    def drop(self, input: Tensor) -> Tensor:
        """One training pass with a fresh seed. With ``inplace`` the result is written into the input."""
        if self.unbatched is not None and input.dim() == self.unbatched:
            out = self.drop(input.unsqueeze(0)).squeeze(0)
        elif torch.compiler.is_compiling() or recording():
            out = self.by_factors(input) if compiling_transforms() else self.recorded(input)
        else:
            out = self.eager(input)
        return input.copy_(out) if self.inplace and out is not input else out

    def eager(self, x: Tensor) -> Tensor:
        """`drop` outside compiled graphs. `check` and `p` have checked its arguments."""
        try:
            draw = self.stream.draw()
        except EachExampleError:
            return self.transformed(x)
        if draw.places is not None or not (draw.batch is UNKNOWN or self.plain(x, draw)):
            return self.by(draw, x)
        if self._p == 0.0:
            return x
        method = self.method
        options = [getattr(self, name) for name in method.names] if method.names else ()
        try:
            how = method.plan(x.shape, self._p, draw.sample_offset, *options)
        except Exception:  # the sizes are no numbers
            if torch._C._is_tracing():
                raise RuntimeError(NO_TRACE) from None
            if x.is_nested:
                return self.of_nested(x, draw)
            raise
        apply = autograd.apply_ if self.inplace else autograd.apply
        return apply(x, how, (draw.seed & 0xFFFF_FFFF, draw.seed >> 32))

    def plain(self, x: Tensor, draw: Draw) -> bool:
        """Whether the rows of x are the samples of the batch."""
        if x.is_nested or (self.unbatched is not None and len(x) == 1):
            return True
        return draw.batch.find(x.shape, draw.sample_offset, self.movable) is FIRST

    def recorded(self, x: Tensor) -> Tensor:
        """`drop` as one operator of a graph."""
        out: Tensor = ops.drop(x, self.ticket(), self.method.name, self.options())
        return out

    def by_factors(self, x: Tensor) -> Tensor:
        """`recorded` as y = r·x + c, by operations that torch.func can differentiate in every way."""
        how = self.ticket(), self.method.name, self.options()
        ones = torch.ones(x.shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        r, c = ops.drop_gradient(ones, *how), ops.drop(torch.zeros_like(ones), *how)
        return torch.where(r == 0, c, x * r + c).to(x.dtype)

    def of_nested(self, x: Tensor, draw: Draw) -> Tensor:
        """The method on the values of a nested tensor, as one array; for methods that drop elements."""
        if self.method.unit is not masks.ELEMENT:
            raise TypeError(f"input of {type(self).__name__} must not be a nested tensor")
        nested: Any = x
        y = self.by(draw, x.values())
        if x.layout == torch.jagged:
            return torch.nested.nested_tensor_from_jagged(y, nested.offsets(), nested.lengths())
        strides = nested._nested_tensor_strides(), nested._nested_tensor_storage_offsets()
        out: Tensor = torch._nested_view_from_buffer(y, nested._nested_tensor_size(), *strides)
        return out

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script takes in place of this module: torch's own module, or none in evaluation."""
        if not self.training and self.unchanged:
            return nn.Identity()
        for base in type(self).__mro__:
            if base.__module__ == "torch.nn.modules.dropout" and self.unchanged:
                twin: nn.Module = base(self.p, self.inplace)
                return twin
        raise TypeError(
            f"torch.jit.script takes no {type(self).__name__} in training: call eval(), or use torch.export"
        )

    def transformed(self, x: Tensor) -> Tensor:
        """`eager` where each example of a vmap has its own mask."""
        ticket = transformed(self.stream, x.shape)
        if self._p == 0.0:
            return x
        method, p = self.method, self._p
        options = [getattr(self, name) for name in method.names]

        def plan(shape: tuple[int, ...], key: Key, first: int) -> tuple[Map, Words]:
            return method.plan(shape, p, first, *options), key.words

        return autograd.transformed(x, ticket, plan)

    def by(self, draw: Draw, x: Tensor) -> Tensor:
        """The result of the method with the mask of this draw."""
        method, key = self.method, Key(draw.seed)
        options = [getattr(self, name) for name in method.names]
        return draw.spread(lambda x, i: method(x, self._p, key, True, i, *options), x, movable=self.movable)

    @property
    def shares_mask(self) -> bool:
        """Whether samples of a batch share a mask."""
        return self.method.shares_mask(*(getattr(self, name) for name in self.method.names))

    def moments(self) -> tuple[float, float] | None:
        """`Method.factor_moments` at this rate."""
        return self.method.factor_moments(self._p, *(getattr(self, name) for name in self.method.names))

    def traced(self, input: torch.fx.Proxy) -> Any:
        """This module as one node of a torch.fx graph, as torch's own dropout is."""
        tracer: Any = input.tracer
        return tracer.create_proxy("call_module", tracer.path_of_module(self), (input,), {})

    def ticket(self) -> Tensor:
        """Seed, index of the first sample and rate of this call, in the form for a compiled graph."""
        call = self.stream.handle, self.rate, torch.empty(0, device="cpu")
        if not torch.compiler.is_compiling() and linearizing():
            with _disable_current_modes():  # so that it is a constant of the graph
                constant: Tensor = ops.drawn(*call)
                return constant
        ticket: Tensor = ops.drawn(*call)
        return ticket

    def options(self) -> str:
        """The options, in the form for a compiled graph."""
        return "{" + ", ".join([f"{name!r}: {getattr(self, name)!r}" for name in self.settings]) + "}"


class _TorchDrop(Drop):
    """A module that torch has too. The signature is torch's."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__(p)
        self.inplace = inplace

    def extra_repr(self) -> str:
        """The text of torch's module."""
        return f"{super().extra_repr()}, inplace={self.inplace}"


class _Channels(_TorchDrop):
    """Whole channels. As with torch's module, other ranks than the usual ones bring a warning."""

    method = functional.SPATIAL
    usual: ClassVar[Collection[int]]

    def check(self, input: Tensor) -> None:
        """Raise TypeError or ValueError if this module does not take such an input."""
        super().check(input)
        if input.dim() not in self.usual:
            warnings.warn(
                f"{type(self).__name__} is for {' or '.join(map(str, self.usual))} dimensions, got "
                f"{tuple(input.shape)}: it drops channels of (N, C, *), as does torch's",
                stacklevel=4,
            )


class Dropout(_TorchDrop, nn.Dropout):
    """Zero each element with probability p, as `thinned.dropout` does; any shape -> same.

    ``rescale="test"`` is the original rule: training leaves the survivors as they are, and evaluation
    multiplies by 1 − p. The default is torch's rule.
    """

    movable = True
    _planned: tuple[float, Any] = 0.0, None  # a rate and its plan, which is the same for all shapes
    settings, ranks = ("rescale",), range(masks.ANY)  # the ranks are those of the method: faster to find here

    def __init__(
        self, p: float = 0.5, inplace: bool = False, *, rescale: Literal["train", "test"] = "train"
    ) -> None:
        super().__init__(p, inplace)
        self.rescale = rescale

    @property
    def rescale(self) -> str:
        """The rule: ``"train"`` or ``"test"``."""
        return "train" if self.unchanged else "test"

    @rescale.setter
    def rescale(self, rule: str) -> None:
        self.unchanged = _checks.one_of("rescale", rule, ("train", "test")) == "train"

    @property
    def method(self) -> Method:
        """What the module drops, by its rule."""
        return functional.DROPOUT if self.unchanged else functional.ORIGINAL

    def forward(self, input: Tensor) -> Tensor:
        """`Drop.forward`. A flat tensor, whose seed is the generator's number itself, takes fewer steps."""
        if torch.compiler.is_dynamo_compiling() or type(self) is not Dropout:
            return super().forward(input)
        stream = self.stream
        if not self.training or not self.unchanged or self.inplace or stream.named or stream.recent:
            return super().forward(input)
        p, how = self._planned
        if p != self._p:
            p, how = self._planned = self._p, functional.DROPOUT.plan((), self._p, 0)
        if p == 0.0 or (at := autograd.flat(input)) is None:
            return super().forward(input)
        number, memory = cell.own
        number.random_(-(1 << 63), None)  # `random_seed`, where nothing forbids it
        return autograd.apply_flat(input, at, how, (memory[0] & 0xFFFF_FFFF, memory[0] >> 32))

    def extra_repr(self) -> str:
        """The text of torch's module, and the rule if it is not torch's."""
        options = f"p={self.p}, inplace={self.inplace}"
        return options if self.rescale == "train" else f"{options}, rescale={self.rescale!r}"


class Dropout1d(_TorchDrop, nn.Dropout1d):
    """Zero whole channels, as `thinned.spatial_dropout` does; (N, C, L) or (C, L) -> same."""

    method, ranks, unbatched = functional.SPATIAL, (2, 3), 2


class Dropout2d(_Channels, nn.Dropout2d):
    """Zero whole channels, as `thinned.spatial_dropout` does; (N, C, H, W) or (N, C, L) -> same.

    Three dimensions are (N, C, L), as in torch today. Other shapes (N, C, *) bring a warning.
    """

    usual = (3, 4)


class Dropout3d(_Channels, nn.Dropout3d):
    """Zero whole channels, as `thinned.spatial_dropout` does; (N, C, D, H, W) or (C, D, H, W) -> same.

    Other shapes (N, C, *) bring a warning.
    """

    usual, unbatched = (4, 5), 4


class AlphaDropout(_TorchDrop, nn.AlphaDropout):
    """Dropout that keeps SELU's mean and variance, as `thinned.alpha_dropout` does; any shape -> same."""

    method = functional.ALPHA


class FeatureAlphaDropout(_TorchDrop, nn.FeatureAlphaDropout):
    """Alpha dropout of whole channels, as `thinned.feature_alpha_dropout` does; (N, C, *) -> same."""

    method = functional.FEATURE_ALPHA


class GaussianDropout(Drop):
    """Multiply each element by N(1, p/(1 − p)), as `thinned.gaussian_dropout` does; any shape -> same."""

    method = functional.GAUSSIAN


class _Named(Drop):
    """A module that other libraries have too."""

    @property
    def drop_prob(self) -> float:
        """The rate, by the name that timm and transformers give it."""
        return self.p

    @drop_prob.setter
    def drop_prob(self, value: float) -> None:
        self.p = value


class _DropBlock(_Named):
    method = functional.DROP_BLOCK

    def __init__(
        self,
        p: float = 0.1,
        block_size: int | tuple[int, ...] = 7,
        per_channel: bool = True,
        exact_rate: bool = True,
        *,
        inplace: bool = False,
    ) -> None:
        super().__init__(p, block_size=block_size, per_channel=per_channel, exact_rate=exact_rate)
        axes = [rank - 2 for rank in self.ranks]
        if isinstance(block_size, tuple | list) and axes and len(block_size) not in axes:
            raise ValueError(f"block_size must have one number for each of {axes[0]} axes, got {block_size}")
        self.inplace = bool(inplace)


class DropBlock1d(_DropBlock):
    """Drop stretches of a feature map, as `thinned.drop_block` does; (N, C, L) -> same."""

    ranks = (3,)


class DropBlock2d(_DropBlock):
    """Drop squares of a feature map, as `thinned.drop_block` does; (N, C, H, W) -> same."""

    ranks = (4,)


class DropBlock3d(_DropBlock):
    """Drop cubes of a feature map, as `thinned.drop_block` does; (N, C, D, H, W) -> same."""

    ranks = (5,)


class DropPath(_Named):
    """Drop whole samples of a residual branch, as `thinned.drop_path` does; (N, *) -> same."""

    method = functional.DROP_PATH
    mode: str
    scale_by_keep: bool

    def __init__(
        self, p: float = 0.1, mode: Literal["sample", "batch"] = "sample", *, scale_by_keep: bool = True
    ) -> None:
        super().__init__(p, mode=mode, scale_by_keep=scale_by_keep)

    def extra_repr(self) -> str:
        """The rate and the options that are not usual."""
        text = f"p={self.p}, mode={self.mode!r}"
        return text if self.scale_by_keep else f"{text}, scale_by_keep=False"


class DropConnectLinear(Drop):
    """A linear layer that drops weights, as `thinned.drop_connect` does; (*, in) -> (*, out).

    Parameters and ``state_dict`` are those of `torch.nn.Linear`. With ``per_sample`` each row of the input
    has its own mask; else the whole batch has one. Evaluation is the mean network with
    ``inference="mean"``. With ``"gaussian"`` it is a sample of the normal distribution that the paper fits to
    the outputs; compiled, that sample has no gradient.
    """

    method, ranks = functional.DROP_CONNECT, range(masks.ANY)
    weight: Tensor
    bias: Tensor | None
    per_sample: bool
    inference: str

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        p: float = 0.5,
        per_sample: bool = True,
        inference: Literal["mean", "gaussian"] = "mean",
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(p, per_sample=per_sample, inference=inference)
        self.in_features = _checks.positive_int("in_features", in_features)
        self.out_features = _checks.positive_int("out_features", out_features)
        plain = nn.Linear(in_features, out_features, bias=bias, device=device, dtype=dtype)
        self.weight, self.bias = plain.weight, plain.bias

    def extra_repr(self) -> str:
        """The text of `torch.nn.Linear`, and the options."""
        sizes = (
            f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        )
        return f"{sizes}, {super().extra_repr()}"

    def reset_parameters(self) -> None:
        """Draw new parameters, as `torch.nn.Linear` does."""
        nn.Linear.reset_parameters(cast(nn.Linear, self))

    def check(self, input: Tensor) -> None:
        """Raise TypeError or ValueError if this module does not take such an input."""
        super().check(input)
        if shards.is_sharded(input):
            raise TypeError("input must be a plain tensor, got a DTensor: give each process its rows")
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            raise ValueError(f"input must have shape (*, {self.in_features}), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """The linear map: in training without the dropped weights, in evaluation as ``inference`` says."""
        if isinstance(input, torch.fx.Proxy):
            return self.traced(input)
        self.check(input)
        if not self.training and self.inference == "mean":
            return nn.functional.linear(input, self.weight, self.bias)
        x, weight, bias = _as_autocast(input.reshape(-1, self.in_features), self.weight, self.bias)
        rows = math.prod(input.shape[1:-1])  # of each sample
        graph = torch.compiler.is_compiling() or recording()
        out = (self._compiled if graph else self._eager)(x, weight, bias, rows)
        return out.reshape(*input.shape[:-1], self.out_features)

    def _compiled(self, x: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
        if compiling_transforms():
            return self._by_factors(x, weight, bias, rows)
        out: Tensor = (
            ops.connect(x, weight, bias, self.ticket(), self.per_sample, rows)
            if self.training
            else ops.connect_gaussian(x, weight, bias, self.ticket(), rows)
        )
        return out

    def _by_factors(self, x: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
        """`_compiled` by operations that torch.func can differentiate in every way, with a mask in memory."""
        if not self.training:
            raise RuntimeError(
                "DropConnectLinear with inference='gaussian' inside torch.func is not compiled"
            )
        first = rows if self.per_sample else 0
        ticket = self.ticket() * torch.tensor([1, first, 1, 0, 0], device="cpu")
        shape = (len(x), *weight.shape) if self.per_sample else weight.shape
        ones = torch.ones(shape, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        kept = ops.drop_gradient(ones, ticket, "dropout", "{}") * weight
        y = torch.einsum("noi,ni->no" if self.per_sample else "oi,ni->no", kept, x.to(ones.dtype)).to(x.dtype)
        return y if bias is None else y + bias

    def _eager(self, x: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
        try:
            draw = self.stream.draw()
        except EachExampleError:
            return self._transformed(x, weight, bias, rows)
        if draw.places is None:
            rows = draw.batch.rows_of(len(x), rows)
        draw = Draw(draw.seed, draw.sample_offset * rows, draw.places if self.per_sample else None)

        def call(x: Tensor, first: int) -> Tensor:
            return self._by(Key(draw.seed), x, weight, bias, first)

        return draw.spread(call, x, work=rows * weight.numel())

    def _by(self, key: Key, x: Tensor, weight: Tensor, bias: Tensor | None, first: int) -> Tensor:
        """The function with a key; ``first`` is the index of the first row."""
        how: Any = {"training": self.training, "per_sample": self.per_sample, "inference": self.inference}
        y: Tensor = functional.drop_connect(x, weight, bias, self._p, key=key, sample_offset=first, **how)
        return y

    def _transformed(self, x: Tensor, weight: Tensor, bias: Tensor | None, rows: int) -> Tensor:
        """`_eager` where each example of a vmap has its own masks."""
        ticket, p = transformed(self.stream, (len(x) // max(1, rows),)), self._p
        if p == 0.0 or not self.training:
            key, first = autograd.read(ticket)
            return self._by(key, x, weight, bias, first * rows)
        if not self.per_sample:

            def plan(shape: tuple[int, ...], key: Key, _: int) -> tuple[Map, Words]:
                return functional.DROPOUT.plan(shape, p, 0), key.words

            kept = autograd.transformed(weight, ticket, plan)
            return nn.functional.linear(x, kept, bias)

        def masks(key: Key, first: int) -> Any:
            return functional.weight_masks(weight.shape, p, key, first * rows)

        y = autograd.connected(_array.widen(x), _array.widen(weight), ticket, masks).to(x.dtype)
        return y if bias is None else y + bias


# The class of each drop method; if there are several, that for images. A method without a class above gets
# one that is made from it.
MODULES: dict[Method, type[Drop]] = classes(
    Drop,
    {
        functional.DROPOUT: Dropout,
        functional.ORIGINAL: Dropout,
        functional.SPATIAL: Dropout2d,
        functional.ALPHA: AlphaDropout,
        functional.FEATURE_ALPHA: FeatureAlphaDropout,
        functional.GAUSSIAN: GaussianDropout,
        functional.DROP_BLOCK: DropBlock2d,
        functional.DROP_PATH: DropPath,
        functional.DROP_CONNECT: DropConnectLinear,
    },
    globals(),
)


def _as_autocast(*tensors: Tensor | None) -> tuple[Any, ...]:
    """The tensors in the dtype of autocast if it is on, as in torch's own linear layer."""
    device = tensors[0].device.type if tensors[0] is not None else "cpu"
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(t if t is None else t.to(torch.get_autocast_dtype(device)) for t in tensors)
