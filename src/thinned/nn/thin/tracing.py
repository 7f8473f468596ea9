"""Traces a model, or parts of it, with torch.fx, and answers questions on the graphs."""

from __future__ import annotations

import inspect
import operator
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn


class LeftDense(Exception):  # noqa: N818 - not an error
    """The reason why a dropout module stays dense."""


_LAYERS = tuple(
    f"torch.nn.modules.{room}" for room in ("linear", "conv", "batchnorm", "dropout", "activation")
)
_LAYERS += ("thinned.nn.",)


class _Tracer(fx.Tracer):
    """A tracer with one node for each module in ``whole`` and for each layer of torch or this library."""

    def __init__(self, whole: set[nn.Module]) -> None:
        super().__init__()
        self.whole = whole

    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        built = any(base.__module__.startswith(_LAYERS) for base in type(m).__mro__)  # subclasses, too
        return built or m in self.whole or super().is_leaf_module(m, qualified_name)


class Explorer:
    """Traces a model, or those of its parts that can be traced.

    ``graphs``: name -> graph. ``untraced``: name -> the reason why torch.fx cannot trace that part.
    """

    def __init__(self, model: nn.Module) -> None:
        self.graphs: dict[str, fx.Graph] = {}
        self.untraced: dict[str, str] = {}
        self.closed: set[str] = set()  # layers of torch and of this library, each one node
        self.whole: set[nn.Module] = set()  # modules that cannot be traced
        self.explore(model, "")

    def explore(self, module: nn.Module, name: str) -> None:
        """Trace a module.

        If that fails, trace its parts. Then try again, with one node for each part that failed.
        """
        if isinstance(module, torch.jit.ScriptModule):
            self.untraced[name] = "compiled by torch.jit"
            self.whole.add(module)
            return
        for retry in (False, True):
            try:
                graph = trace(module, self.whole)
            except Exception as error:  # a forward may raise anything when it gets proxies for tensors
                reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
            else:
                for inner in [each for each in self.graphs if each.startswith(f"{name}." if name else "")]:
                    if not self._inside_whole(module, name, inner):
                        del self.graphs[inner]
                self.graphs[name] = graph
                self._explore_leaves(module, name, graph)
                return
            known = len(self.whole)
            if not retry:
                for child in _children(module, name):
                    self.explore(*child)
            if len(self.whole) == known:
                break
        if type(module).forward is not nn.Module.forward:  # ModuleList has no forward and is never called
            self.untraced[name] = reason
            self.whole.add(module)

    def _inside_whole(self, module: nn.Module, name: str, inner: str) -> bool:
        """Whether the graph ``inner`` is of a part of an untraced module, which is one node in this graph."""
        rest = inner[len(name) + 1 :] if name else inner
        parts = rest.split(".")
        above = (module.get_submodule(".".join(parts[:i])) for i in range(1, len(parts)))
        return any(each in self.whole for each in above)

    def _explore_leaves(self, module: nn.Module, name: str, graph: fx.Graph) -> None:
        for node in graph.nodes:
            if node.op != "call_module":
                continue
            leaf = module.get_submodule(node.target)
            if leaf in self.whole:
                continue
            self.closed.add(join(name, node.target))
            for child, of_child in _children(leaf, join(name, node.target)):
                self.explore(child, of_child)


def _children(module: nn.Module, name: str) -> Iterator[tuple[nn.Module, str]]:
    return ((child, join(name, part)) for part, child in module.named_children())


class OwnHook:
    """The base class of the hooks that `thin` registers."""


def hooked(module: nn.Module) -> bool:
    """Whether a module has hooks other than those of `thin`."""
    before, after = module._forward_pre_hooks, module._forward_hooks
    foreign = before and not all(
        isinstance(getattr(hook, "__self__", None), OwnHook) for hook in before.values()
    )
    return bool(foreign or after or module._backward_hooks or module._backward_pre_hooks)


def join(*names: str) -> str:
    """A qualified name from its parts, without the empty ones."""
    return ".".join(name for name in names if name)


def defaults(module: nn.Module) -> dict[str, Any]:
    """The default values of a module's forward, by argument."""
    parameters = inspect.signature(module.forward).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def trace(module: nn.Module, whole: set[nn.Module], training: bool = True) -> fx.Graph:
    """The graph of a module's training pass, with the default arguments. The module does not change.

    With ``training=False`` each part keeps its own mode.
    """
    if any(isinstance(each, torch.jit.ScriptModule) for each in (module, *module.children())):
        raise LeftDense("compiled by torch.jit")
    before = [(each, dict(vars(each))) for each in module.modules()]
    try:
        for each in module.modules():
            each.training = training or each.training
        with torch.random.fork_rng(devices=[]):
            return _positional(module, _Tracer(whole).trace(module, defaults(module)))
    finally:
        for each, attributes in before:
            vars(each).clear()
            vars(each).update(attributes)


def _positional(module: nn.Module, graph: fx.Graph) -> fx.Graph:
    """The same graph, where a layer that is called as layer(input=x) is called as layer(x)."""
    for node in graph.nodes:
        if node.op == "call_module" and not node.args and node.kwargs:
            layer = module.get_submodule(str(node.target))
            first, rest = next(iter(inspect.signature(layer.forward).parameters), ""), dict(node.kwargs)
            if first in rest:
                node.args, node.kwargs = (rest.pop(first),), rest
    return graph


class TracedModule:
    """A module, the graph of its training pass, and its ``name`` in the whole model."""

    def __init__(self, module: nn.Module, graph: fx.Graph, name: str) -> None:
        self.module, self.graph, self.name = module, graph, name
        self.layer_nodes = [node for node in graph.nodes if node.op == "call_module"]
        self.calls = Counter(id(self.layer(node)) for node in self.layer_nodes)

    def layer(self, node: fx.Node) -> Any:
        """The layer that a node calls."""
        return self.module.get_submodule(str(node.target))

    def full(self, node: fx.Node) -> str:
        """The name of a node's layer in the whole model."""
        return join(self.name, str(node.target))

    def check(self, node: fx.Node) -> Any:
        """The layer of a node. Raises LeftDense if it is called several times or has hooks."""
        layer = self.layer(node)
        if self.calls[id(layer)] > 1:
            raise LeftDense(f"{self.full(node)} is called {self.calls[id(layer)]} times in a pass")
        self.check_hooks(str(node.target))
        self.check_forward(str(node.target))
        return layer

    def check_hooks(self, name: str) -> None:
        """Raises LeftDense if this part of the module has hooks."""
        if hooked(self.module.get_submodule(name)):
            raise LeftDense(f"{join(self.name, name)} has hooks, which would see the survivors alone")

    def check_forward(self, name: str) -> None:
        """Raises LeftDense if this part of the module has another forward than its class."""
        if vars(self.module.get_submodule(name)).get("forward"):
            raise LeftDense(f"{join(self.name, name)} has a forward of its own")

    def describe(self, node: fx.Node) -> str:
        """A node, in words."""
        if node.op == "output":
            return f"the output of {self.name or 'the model'}"
        if node.op == "call_module":
            return f"{self.full(node)} ({type(self.layer(node)).__name__})"
        return f"a call of {getattr(node.target, '__name__', node.target)}"


def partly_outside(names: list[str]) -> list[str]:
    """The modules that contain some of these layers, but not all."""
    holds = Counter(name.rsplit(".", i)[0] for name in names for i in range(1, name.count(".") + 1))
    return sorted(outer for outer, held in holds.items() if held < len(names))


def source(node: fx.Node) -> fx.Node:
    """The node that computes a node's first argument. Raises LeftDense if no layer computes it."""
    first = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    if not isinstance(first, fx.Node) or first.op not in ("call_module", "call_function", "call_method"):
        raise LeftDense("no layer before it")
    return first


def users(node: fx.Node) -> list[fx.Node]:
    """The nodes that use a node's value, except those that read only the batch size."""
    return [user for user in node.users if not asks_batch(user)]


def asks_batch(node: fx.Node) -> bool:
    """Whether a node is x.size(0), or an x.shape of which only [0] is used."""
    rest: tuple[Any, ...] = node.args[1:]
    if node.op == "call_method" and node.target == "size":
        return rest == (0,)
    return node.target is getattr and rest == ("shape",) and all(map(is_batch, node.users))


def is_batch(node: Any) -> bool:
    """Whether a value is the batch size."""
    if not isinstance(node, fx.Node):
        return False
    whole, *rest = node.args or (None,)
    item = node.target is operator.getitem and rest == [0] and isinstance(whole, fx.Node)
    return asks_batch(node) or (item and whole.target is getattr)  # type: ignore[union-attr]
