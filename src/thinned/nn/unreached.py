"""Finds the dropout that `swap_dropout` cannot replace, because it is no dropout module of torch itself."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from thinned.nn.foreign import compiled_dropout, twin
from thinned.nn.reach import RANDOM

_KINDS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_FUNCTIONAL = (
    *(nn.functional.dropout, nn.functional.dropout1d, nn.functional.dropout2d, nn.functional.dropout3d),
    *(nn.functional.alpha_dropout, nn.functional.feature_alpha_dropout),
)
_BUILT_IN = (
    *(torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout),
    *(torch.dropout_, torch.alpha_dropout_, torch.feature_dropout_, torch.feature_alpha_dropout_),
)
_INSIDE = "which drops if its rate is not 0"
_CALLS: dict[int, str] = {
    **{id(function): f"calls torch.nn.functional.{function.__name__}" for function in _FUNCTIONAL},
    **{id(function): f"calls torch.{function.__name__}" for function in _BUILT_IN},
    id(nn.functional.scaled_dot_product_attention): f"calls torch's fused attention, {_INSIDE}",
    id(nn.functional.multi_head_attention_forward): f"calls torch's attention, {_INSIDE}",
}
_FOREIGN = ("DropPath", "StochasticDepth", "DropBlock1d", "DropBlock2d", "DropBlock3d", "PatchDropout")
_NAMES = {name.split(".")[-1] for name in RANDOM.values()}
DEPTH = 3  # functions are read that many calls deep


def unreached(model: nn.Module) -> dict[str, str]:
    """The modules that drop and were not replaced: qualified name -> what drops, and why it stays."""
    called: dict[type, str] = {}  # so that each class is read once
    found = {name: reason(module, called) for name, module in model.named_modules()}
    return {name: why for name, why in found.items() if why}


def reason(module: nn.Module, called: dict[type, str]) -> str:
    """What drops in this module itself, not in its children; "" if nothing is found.

    ``called`` keeps the answer for each class that was read.
    """
    kind: type = type(module)
    if kind.__module__.startswith("thinned."):
        return ""
    if isinstance(module, torch.jit.ScriptModule):
        return "drops, compiled by torch.jit" if compiled_dropout(module) else ""
    if kind not in _KINDS and isinstance(module, _KINDS):
        return f"{kind.__name__} is a subclass of torch's {_torch_base(kind)}: what it changes is not known"
    if isinstance(module, nn.MultiheadAttention):
        return _inside("attention weights, inside torch's fused attention", module.dropout)
    if isinstance(module, nn.RNNBase):
        return _inside("between its layers, inside torch's recurrent kernel", module.dropout)
    if kind.__module__.startswith("torch."):
        return ""
    if twin(module) is not None:
        home = kind.__module__.split(".")[0]
        return f"{kind.__name__} of {home}, of which swap_dropout makes one of thinned.nn"
    if kind.__name__.endswith(_FOREIGN):
        return f"{kind.__name__} of {kind.__module__.split('.')[0]}: no module of thinned.nn does the same"
    if kind not in called:
        called[kind] = "; ".join(dict.fromkeys(calls(kind)))
    return called[kind]


def _inside(where: str, p: float) -> str:
    return f"drops {where} (p={p:g})" if p > 0 else ""


def _torch_base(kind: type) -> str:
    return next(base.__name__ for base in kind.__mro__ if base in _KINDS)


def calls(kind: type) -> Iterator[str]:
    """The dropout functions that the methods of a class name, themselves or through functions they call."""
    for method in _methods(kind):
        yield from _named_in(method, DEPTH, frozenset())


def may_draw(kind: type) -> bool:
    """Whether the methods of a class, or functions they call, have the name of a random function in them."""
    return any(_may_draw(method, DEPTH, frozenset()) for method in _methods(kind))


def _may_draw(function: types.FunctionType, depth: int, seen: frozenset[int]) -> bool:
    if not _NAMES.isdisjoint(inspect.unwrap(function).__code__.co_names):
        return True
    called = [value for value in _references(function) if _same_library(value, function)] if depth else []
    seen |= {id(function)}
    return any(_may_draw(value, depth - 1, seen) for value in called if id(value) not in seen)


def _methods(kind: type) -> list[types.FunctionType]:
    """The methods of a class that are not torch's."""
    own = [base for base in kind.__mro__ if not base.__module__.startswith(("torch.", "builtins"))]
    values = [getattr(value, "__func__", value) for base in own for value in vars(base).values()]
    return [value for value in values if isinstance(value, types.FunctionType)]


def _named_in(function: types.FunctionType, depth: int, seen: frozenset[int]) -> Iterator[str]:
    """The dropout functions that a function names, also through others of its library, ``depth`` deep."""
    for value in _references(function):
        if id(value) in _CALLS:
            yield _CALLS[id(value)]
        elif depth and id(value) not in seen and _same_library(value, function):
            yield from _named_in(value, depth - 1, seen | {id(value)})


def _same_library(value: Any, function: types.FunctionType) -> bool:
    library = function.__module__.split(".")[0]
    return isinstance(value, types.FunctionType) and value.__module__.split(".")[0] == library


def _references(function: types.FunctionType) -> Iterator[Any]:
    """The callables that the source of a function names, as ``a`` or ``a.b.c``; without its decorators."""
    function = inspect.unwrap(function)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # there is no source: typed at a prompt, or compiled
        return
    scope = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            value = _value(node, scope)
            if callable(value):
                yield value


def _value(node: ast.AST, scope: dict[str, Any]) -> Any:
    """The value of ``a``, or of ``a.b.c`` if a and a.b are modules; None if it is not known."""
    if isinstance(node, ast.Name):
        return scope.get(node.id)
    if isinstance(node, ast.Attribute):
        base = _value(node.value, scope)
        return vars(base).get(node.attr) if isinstance(base, types.ModuleType) else None
    return None
