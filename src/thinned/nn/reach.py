"""Dropout called as a function: inside `keyed`, its mask comes from the key.

A `Reach` sees each function of torch that its thread calls. A dropout belongs to the innermost module of the
model whose call is running. So it does not matter who wrote the module, or the code that calls the function.
"""

from __future__ import annotations

import sys
import types
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.overrides import TorchFunctionMode

from thinned import masks
from thinned.kernels import autograd
from thinned.key import Key
from thinned.nn import modules
from thinned.nn.modules import Drop
from thinned.nn.stream import Block, Named, cell, each_example, next_mark, recomputing

Function = Callable[..., Any]
OUTSIDE = "(outside)"  # the name of calls that no module makes


class Features(modules.Dropout3d):
    """`torch.feature_dropout`: whole channels of (N, C, *)."""

    usual = tuple(range(2, masks.ANY))  # type: ignore[assignment]
    unbatched = None  # type: ignore[assignment]


class SamplesFirst(modules.Dropout):
    """Dropout of a tensor whose first axis has the samples, also where others have them in the second."""

    movable = False


class Reach(TorchFunctionMode):
    """Inside it, dropouts called as functions by the model's modules take their masks from a key.

    ``names``: the model's modules. The first call of a module in a pass takes the key of its name, call
    n = 1, 2, … takes ``.fold_in(n)`` of that, as its drop modules do. If ``silent``, random functions that it
    does not reach are noted in ``drawn`` only.
    """

    def __init__(
        self, names: Mapping[nn.Module, str], key: Key, block: Block, *, silent: bool = False
    ) -> None:
        super().__init__()
        self.names, self.key, self.block = names, key, block
        self.attentions = {names[m] for m in names if isinstance(m, nn.MultiheadAttention)}
        self.second: set[str] = set()  # modules in layers of torch whose samples are the second axis
        self.named: dict[str, Named] = {}
        self.drops: dict[tuple[str, type[Drop]], Drop] = {}
        self.owners: dict[int, str] = {}  # mark of a call -> its module, in case checkpointing runs it again
        self.silent = silent
        self.drawn: dict[str, str] = {}  # module -> a random function that it has called
        self.off = False  # whether all behave as in evaluation
        self.checkpointed = False  # whether this pass has dropped where it may be run again

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function; a dropout with the mask of its key."""
        kwargs = kwargs or {}
        if func in HANDLERS and not idle(func, args, kwargs):
            return _handled(self, func, types, args, kwargs)
        if func in RANDOM and not torch.compiler.is_compiling() and not idle(func, args, kwargs):
            self.warn_of(func, args, kwargs)
        return func(*args, **kwargs)

    def begin_pass(self) -> None:
        """The next call of each module is its first."""
        self.checkpointed = False
        for named in self.named.values():
            named.calls = 0

    def dropping(self) -> dict[str, str]:
        """What has dropped so far: name of a module -> its rates and kinds."""
        found: dict[str, list[str]] = {}
        for (name, kind), drop in self.drops.items():
            called = "Dropout" if kind is SamplesFirst else kind.__name__
            found.setdefault(name, []).append(f"{called}(p={drop.p:g})")
        return {name: f"calls {' and '.join(what)} as a function" for name, what in found.items()}

    def drop(self, kind: type[Drop], p: float, inplace: bool = False) -> Drop | None:
        """The module that drops for the caller; None if the caller is in no module of the model."""
        name = self.owner()
        if name is None:
            return None
        if kind is modules.Dropout and name in self.attentions:
            kind = SamplesFirst
        self.warn_of_evaluation()
        drop = self.drops.get((name, kind))
        if drop is None:
            drop = self.drops[name, kind] = kind(p)
            drop.stream.named = self.named_as(name)
        drop.inplace, drop.training = inplace, not self.off
        if drop.p != p:
            with torch._C._DisableFuncTorch():  # else torch.func forbids to write the rate
                drop.p = p
        return drop

    def named_as(self, name: str) -> Named:
        """The key of a module, and its count of calls."""
        if name not in self.named:
            self.named[name] = Named(self.key.fold_in(name), self.block, name in self.second)
        return self.named[name]

    def caller(self) -> nn.Module | None:
        """The innermost module of the model whose call is running."""
        return next((module for module in running_modules() if module in self.names), None)

    def owner(self) -> str | None:
        """The name of the caller; None if the modules that run are none of the model's."""
        module = self.caller()
        name = None if module is None else self.names[module]
        if module is None and next(running_modules(), None) is None:
            name = OUTSIDE
        if each_example():
            return name
        mark = next_mark()
        if recomputing():
            return self.owners.get(mark, name)
        if name is not None:
            self.owners[mark] = name
            self.checkpointed |= checkpointing()
        return name

    def warn_of(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a random function that a module of the model calls; warn of it, once."""
        ours = bool(args) and args[0] is cell.own[0]  # a seed
        if ours or kwargs.get("generator") is not None or recomputing():
            return
        module = self.caller()
        if module is None or isinstance(module, nn.modules.lazy.LazyModuleMixin):
            return
        self.drawn.setdefault(self.names[module], RANDOM[func])
        if not self.silent:
            warn_once(
                module,
                f"{self.names[module] or 'the model'} ({type(module).__name__}) calls {RANDOM[func]}: inside "
                "keyed it still draws from torch's generator, so one key gives several results",
            )

    def warn_of_evaluation(self) -> None:
        """Warn, once, of a module that drops in evaluation."""
        module = self.caller()
        if module is not None and not module.training and not recomputing():
            name = self.names[module] or "the model"
            warn_once(
                module,
                f"{name} ({type(module).__name__}) drops in evaluation too: it calls a dropout function with "
                "training=True",
            )


class Watch(TorchFunctionMode):
    """Inside it, `seen` collects the modules that call functions which can drop, or draw in training."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[nn.Module, None] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function."""
        if func in HANDLERS or (func in RANDOM and func in SWITCHES):
            self.seen |= dict.fromkeys(list(running_modules())[:1])
        return func(*args, **(kwargs or {}))


def running_modules() -> Iterator[nn.Module]:
    """The modules whose calls are running in this thread, the innermost first."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _CALL:
            yield frame.f_locals["self"]
        frame = frame.f_back  # type: ignore[assignment]


def checkpointing() -> bool:
    """Whether activation checkpointing may run this again: it records nothing, or packs what is saved."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return not torch.is_grad_enabled() or (hooks is not None and "checkpoint" in hooks[0].__module__)


_CALL = nn.Module._call_impl.__code__
_said: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


def warn_once(module: nn.Module, message: str) -> None:
    """Warn, if this module has not brought the message before."""
    said = _said.setdefault(module, set())
    if message not in said:
        said.add(message)
        warnings.warn(message, stacklevel=5)


@partial(
    autograd.uncompiled,
    reason="inside keyed, a dropout called as a function cannot be compiled: tnn.Dropout can",
)
def _handled(reach: Reach, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return HANDLERS[func](reach, func, types, *args, **kwargs)


def idle(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call is known to drop nothing. A graph may hold it."""
    for place, name, value in SWITCHES.get(func, ()):
        if not (args[place] if place < len(args) else kwargs.get(name, value)):
            return True
    return False


# Handlers: they take the reach, the function, the classes of tensors that overload it, and its arguments.


def _as_module(kind: type[Drop], usual: bool = True, inplace: bool = False) -> Function:
    """The handler of a function (input, p, training, …) that does what a module does."""

    def handle(
        reach: Reach,
        func: Any,
        _: Any,
        input: Any,
        p: float = 0.5,
        training: bool = usual,
        inplace: bool = inplace,
        train: bool | None = None,
    ) -> Any:
        training = training if train is None else train
        drops = training and 0 < p <= 1 and isinstance(input, Tensor) and input.is_floating_point()
        drop = reach.drop(kind, float(p), inplace) if drops else None
        if drop is not None:
            return drop(input)
        return func(input, p, training, inplace) if func in _PYTHON else func(input, p, training)

    return handle


def _with_mask(reach: Reach, func: Any, _: Any, input: Tensor, p: float, train: bool | None) -> Any:
    """`torch.native_dropout`: the result, and the mask."""
    drop = reach.drop(modules.Dropout, float(p)) if train is not False and 0 < p <= 1 else None
    if drop is None:
        return func(input, p, train)
    draw = drop.stream.draw()
    return drop.by(draw, input), drop.by(draw, torch.ones_like(input)) != 0


def _attention(
    reach: Reach,
    func: Any,
    _: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(Q Kᵀ·scale + mask) V, with dropout of the weights."""
    how = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    drop = reach.drop(SamplesFirst, float(dropout_p)) if 0 < dropout_p <= 1 else None
    if drop is None:
        out: Tensor = func(query, key, value, attn_mask, dropout_p, **how)
        return out
    if enable_gqa:
        times = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = torch.ops.aten._safe_softmax(scores, -1)  # zeros where nothing may be attended
    return drop(weights) @ value


def _recurrent(reach: Reach, func: Any, _: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """A recurrent network of several layers, as one network a layer, with dropout between them."""
    packed = not isinstance(args[2], bool)
    sizes, (state, weights, biases, layers, p, training, both, *rest) = args[:packed], args[packed:]
    drop = reach.drop(SamplesFirst, float(p)) if training and layers > 1 and 0 < p <= 1 else None
    if drop is None:
        return func(x, *args, **kwargs)
    if packed and reach.block.sample_offset:
        raise ValueError("with sample_offset, a recurrent layer that drops takes no packed sequences")
    each, width = len(weights) // layers, 2 if both else 1
    states = []
    for i in range(layers):
        rows, own = slice(i * width, (i + 1) * width), weights[i * each : (i + 1) * each]
        given = state[rows] if isinstance(state, Tensor) else tuple(part[rows] for part in state)
        x, *after = func(x, *sizes, given, own, biases, 1, 0.0, training, both, *rest)
        states.append(after)
        if i < layers - 1:
            first = packed or rest[0]  # samples are the first axis
            x = drop(x) if first else drop(x.transpose(0, 1)).transpose(0, 1)
    return (x, *map(torch.cat, zip(*states, strict=True)))


_USUAL = (Tensor.__torch_function__, torch._C._disabled_torch_function_impl)


def _inside(func: Any) -> Function:
    """The handler of a function of torch in Python that calls others: it runs with these seen."""
    never = {name: lambda *_: False for name in func.__globals__ if name.startswith("has_torch_function")}
    body = types.FunctionType(func.__code__, {**func.__globals__, **never}, func.__name__, func.__defaults__)
    body.__kwdefaults__ = func.__kwdefaults__

    def handle(reach: Reach, func: Any, types: Any, *args: Any, **kwargs: Any) -> Any:
        if any(kind.__torch_function__ not in _USUAL for kind in types):
            return func(*args, **kwargs)
        with reach:
            return body(*args, **kwargs)

    return handle


_PYTHON: dict[Any, Function] = {
    F.dropout: _as_module(modules.Dropout),
    F.dropout1d: _as_module(modules.Dropout1d),
    F.dropout2d: _as_module(modules.Dropout2d),
    F.dropout3d: _as_module(modules.Dropout3d),
    F.alpha_dropout: _as_module(modules.AlphaDropout, usual=False),
    F.feature_alpha_dropout: _as_module(modules.FeatureAlphaDropout, usual=False),
}
_CALLERS: Any = (
    *(F.multi_head_attention_forward, Tensor.backward, torch.autograd.backward, torch.autograd.grad),
)
HANDLERS: dict[Any, Function] = {
    **_PYTHON,
    torch.dropout: _as_module(modules.Dropout),
    torch.dropout_: _as_module(modules.Dropout, inplace=True),
    torch.alpha_dropout: _as_module(modules.AlphaDropout),
    torch.alpha_dropout_: _as_module(modules.AlphaDropout, inplace=True),
    torch.feature_dropout: _as_module(Features),
    torch.feature_dropout_: _as_module(Features, inplace=True),
    torch.feature_alpha_dropout: _as_module(modules.FeatureAlphaDropout),
    torch.feature_alpha_dropout_: _as_module(modules.FeatureAlphaDropout, inplace=True),
    torch.native_dropout: _with_mask,
    F.scaled_dot_product_attention: _attention,
    **dict.fromkeys((torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu), _recurrent),
    **{each: _inside(each) for each in _CALLERS},
}
# The rate and the switch of a function: position, name, default.
SWITCHES: dict[Any, tuple[tuple[int, str, Any], ...]] = {
    **dict.fromkeys(
        (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), ((1, "p", 0.5), (2, "training", True))
    ),
    **dict.fromkeys((F.alpha_dropout, F.feature_alpha_dropout), ((1, "p", 0.5), (2, "training", False))),
    **dict.fromkeys(
        (torch.dropout, torch.alpha_dropout, torch.feature_dropout), ((1, "p", 0.5), (2, "train", True))
    ),
    F.scaled_dot_product_attention: ((4, "dropout_p", 0.0),),
    F.multi_head_attention_forward: ((10, "dropout_p", 0.0), (13, "training", True)),
    **dict.fromkeys((F.rrelu, torch.rrelu, torch.rrelu_), ((3, "training", False),)),
}
_AS_METHODS = (
    "bernoulli bernoulli_ uniform_ normal_ exponential_ geometric_ cauchy_ log_normal_ random_ multinomial"
)
_AS_FUNCTIONS = (
    "bernoulli rand rand_like randn randn_like randint randint_like randperm normal multinomial poisson"
)
RANDOM: dict[Any, str] = {
    **{getattr(Tensor, name): f"Tensor.{name}" for name in _AS_METHODS.split()},
    **{getattr(torch, name): f"torch.{name}" for name in _AS_FUNCTIONS.split()},
    F.gumbel_softmax: "torch.nn.functional.gumbel_softmax",
    **dict.fromkeys((F.rrelu, torch.rrelu, torch.rrelu_), "torch.nn.functional.rrelu"),
}
