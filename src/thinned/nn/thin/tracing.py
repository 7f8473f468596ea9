"""Where a model can be thinned: torch.fx tells what flows into what, and rules say what may lie between.

A chain is a layer (linear, or a convolution), layers that treat each of its units by itself, a dropout of
whole units, layers that moreover map zero to zero, and the readers: layers whose weights have a column,
or a run of columns, for each unit.
"""

from __future__ import annotations

import inspect
import operator
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from thinned.nn import activations
from thinned.nn.thin.layer_kinds import DROPS, HOMOGENEOUS, NORMS, POOL_CALLS, POOLS, WEIGHTED, ZERO_CALLS


@dataclass
class Found:
    """A chain: the names of its layers in the model, and the rank of its units' maps."""

    drop: str
    producer: str
    rank: int
    readers: list[str] = field(default_factory=list)
    between: list[str] = field(default_factory=list)  # that have parameters for each unit
    others: list[str] = field(default_factory=list)
    folded: bool = True  # a factor passes through what lies between dropout and readers

    @property
    def names(self) -> list[str]:
        """All layers."""
        return [self.producer, *self.between, self.drop, *self.others, *self.readers]


class Dense(Exception):  # noqa: N818 - not an error: the reason why a dropout is left dense
    """Why a dropout module cannot be thinned."""


_LAYERS = tuple(
    f"torch.nn.modules.{room}" for room in ("linear", "conv", "batchnorm", "dropout", "activation")
)
_LAYERS += ("thinned.nn.",)


class _Tracer(fx.Tracer):
    """Keeps whole what it is told to, and what is torch's or ours."""

    def __init__(self, whole: set[nn.Module]) -> None:
        super().__init__()
        self.whole = whole

    def is_leaf_module(self, m: nn.Module, qualified_name: str) -> bool:
        built = any(base.__module__.startswith(_LAYERS) for base in type(m).__mro__)  # subclasses, too
        return built or m in self.whole or super().is_leaf_module(m, qualified_name)


class Explorer:
    """Traces a model, or those parts of it that can be traced: ``graphs``, by name, and why others cannot."""

    def __init__(self, model: nn.Module) -> None:
        self.graphs: dict[str, fx.Graph] = {}
        self.untraced: dict[str, str] = {}
        self.closed: set[str] = set()  # layers of torch and ours, in which no graph looks
        self.whole: set[nn.Module] = set()
        self.explore(model, "")

    def explore(self, module: nn.Module, name: str) -> None:
        """Trace a module whole; else its parts, and then again with those kept whole that could not be."""
        for retry in (False, True):
            try:
                graph = trace(module, self.whole)
            except Exception as error:  # whatever a forward raises on stand-ins for tensors
                reason = str(error).strip().split("\n")[0] or type(error).__name__
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
        if type(module).forward is not nn.Module.forward:  # as ModuleList's is, which is never called
            self.untraced[name] = reason
            self.whole.add(module)

    def _inside_whole(self, module: nn.Module, name: str, inner: str) -> bool:
        """Whether a graph belongs to a part of something that this module's graph has as one node."""
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


class Own:
    """What thin itself hooks to layers."""


def hooked(module: nn.Module) -> bool:
    """Whether a hook sees what goes through a module, beside our own."""
    before, after = module._forward_pre_hooks, module._forward_hooks
    foreign = before and not all(isinstance(getattr(hook, "__self__", None), Own) for hook in before.values())
    return bool(foreign or after or module._backward_hooks or module._backward_pre_hooks)


def join(*names: str) -> str:
    """A qualified name from its parts."""
    return ".".join(name for name in names if name)


def defaults(module: nn.Module) -> dict[str, Any]:
    """The arguments of a module's forward that have a default."""
    parameters = inspect.signature(module.forward).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def trace(module: nn.Module, whole: set[nn.Module], training: bool = True) -> fx.Graph:
    """The graph of a module's training pass, defaults left as they are; the module stays as it was.

    Without ``training``, of a pass in the modes that its parts are in.
    """
    if any(isinstance(each, torch.jit.ScriptModule) for each in (module, *module.children())):
        raise Dense("compiled by torch.jit")
    before = [(each, dict(vars(each))) for each in module.modules()]
    try:
        for each in module.modules():
            each.training = training or each.training
        with torch.random.fork_rng(devices=[]):
            return _Tracer(whole).trace(module, defaults(module))
    finally:
        for each, attributes in before:
            vars(each).clear()
            vars(each).update(attributes)


class Reader:
    """Reads the chains out of one graph."""

    def __init__(self, module: nn.Module, graph: fx.Graph, name: str) -> None:
        self.module, self.name = module, name
        self.nodes = [node for node in graph.nodes if node.op == "call_module"]
        self.calls = Counter(id(self.layer(node)) for node in self.nodes)
        self.begun: dict[str, str] = {}  # producer -> dropout

    def layer(self, node: fx.Node) -> Any:
        """The module that a node calls."""
        return self.module.get_submodule(str(node.target))

    def chains(self) -> Iterator[tuple[str, Found | str]]:
        """The name of each dropout module, and its chain or why there is none."""
        for node in self.nodes:
            if type(self.layer(node)) in DROPS:
                try:
                    yield self.full(node), self.chain(node)
                except Dense as reason:
                    yield self.full(node), str(reason)

    def full(self, node: fx.Node) -> str:
        """The name of a node's layer in the whole model."""
        return join(self.name, str(node.target))

    def chain(self, drop: fx.Node) -> Found:
        """The chain around a dropout."""
        found = Found(str(drop.target), "", DROPS[type(self.layer(drop))])
        layer = self.check(drop)
        if getattr(layer, "rescale", "train") != "train":
            raise Dense("rescales in evaluation, by the original rule")
        self.go_up(drop, found)
        if found.producer in self.begun:
            other = join(self.name, self.begun[found.producer])
            raise Dense(f"drops single elements of the units that {other} has thinned")
        self.go_down(drop, found, found.rank)
        self.check_containers(found)
        self.begun[found.producer] = found.drop
        return found

    def check(self, node: fx.Node) -> Any:
        """The layer of a node, which must be called once, and seen by no hook."""
        layer = self.layer(node)
        if self.calls[id(layer)] > 1:
            raise Dense(f"{self.full(node)} is called {self.calls[id(layer)]} times in a pass")
        if hooked(layer):
            raise Dense(f"{self.full(node)} has hooks, which would see the survivors alone")
        if vars(layer).get("forward"):
            raise Dense(f"{self.full(node)} has a forward of its own")
        return layer

    def go_up(self, node: fx.Node, found: Found) -> None:
        """From the dropout to the layer whose units it drops."""
        while not found.producer:
            node = source(node)
            if len(users(node)) > 1:
                raise Dense(f"what {self.describe(node)} gives is used in {len(users(node))} places")
            kind = type(self.layer(node)) if node.op == "call_module" else None
            if kind in WEIGHTED:
                self.check_producer(self.check(node), self.full(node), WEIGHTED[kind], found)
                found.producer = str(node.target)
            elif kind in NORMS:
                self.norm(node, found)
            elif kind in activations.MODULES:
                self.check(node)
                found.others.append(str(node.target))
            elif not self.by_unit(node, found) and not (kind is None and node.target in activations.CALLS):
                raise Dense(
                    f"{self.describe(node)} stands between it and the layer whose units it would drop"
                )

    def check_producer(self, layer: Any, name: str, rank: int, found: Found) -> None:
        """A layer's units must be what the dropout drops."""
        if rank != found.rank and not (rank == 1 and found.rank == 2):
            what = "single elements" if found.rank == 0 else f"channels of rank {found.rank}"
            raise Dense(f"drops {what}, not the units of {name} ({type(layer).__name__})")
        found.rank = rank
        if not len(layer.weight):
            raise Dense(f"{name} has no units")
        if rank and layer.groups != 1:
            raise Dense(f"{name} is a convolution in groups")

    def norm(self, node: fx.Node, found: Found) -> None:
        """A BatchNorm between: the running statistics of a survivor alone move."""
        layer = self.check(node)
        if layer.momentum is None and layer.track_running_stats:
            raise Dense(
                f"{self.full(node)} averages over all steps alike (momentum=None), a survivor not over all"
            )
        found.between.append(str(node.target))

    def by_unit(self, node: fx.Node, found: Found) -> bool:
        """Whether a node treats each unit by itself, and maps zero to zero."""
        if node.op != "call_module":
            pools = POOL_CALLS if found.rank else set()
            constant = all(each is node.args[0] for each in node.all_input_nodes)
            return constant and (node.target in ZERO_CALLS or node.target in pools)
        layer = self.layer(node)
        kind = type(layer)
        if kind is nn.PReLU:
            self.check(node)
            if layer.num_parameters > 1:
                found.between.append(str(node.target))
            return True
        if activations.keeps_zero(layer) or kind in DROPS or (kind in POOLS and found.rank):
            self.check(node)
            found.others.append(str(node.target))
            return True
        return False

    def go_down(self, node: fx.Node, found: Found, rank: int) -> None:
        """From the dropout to all the layers that read its units; ``rank`` is that of the maps by now."""
        for user in users(node):
            kind = type(self.layer(user)) if user.op == "call_module" else None
            if kind in WEIGHTED and WEIGHTED[kind] == rank:
                layer = self.check(user)
                if rank and layer.groups != 1:
                    raise Dense(f"{self.full(user)}, which reads its units, is a convolution in groups")
                found.readers.append(str(user.target))
            elif self.by_unit(user, found):
                found.folded &= (kind or user.target) in HOMOGENEOUS
                self.go_down(user, found, rank)
            elif rank and self.flattens(user):
                self.go_down(user, found, 0)
            else:
                raise Dense(f"{self.describe(user)} reads its units")
        if not users(node):
            raise Dense("nothing reads its units")

    def flattens(self, node: fx.Node) -> bool:
        """Whether a node makes (N, C, *) into (N, C·*)."""
        if node.op == "call_module":
            layer = self.layer(node)
            return type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1)
        rest: tuple[Any, ...] = (*node.args[1:], *node.kwargs.values())
        if node.target in (torch.flatten, "flatten"):
            return rest in ((1,), (1, -1))
        return node.target in ("view", "reshape") and len(rest) == 2 and is_batch(rest[0]) and rest[1] == -1

    def check_containers(self, found: Found) -> None:
        """Hooks on a part of the model that a chain runs out of would see the survivors alone."""
        for name in partial(found.names):
            if hooked(self.module.get_submodule(name)):
                raise Dense(f"{join(self.name, name)} has hooks, which would see the survivors alone")

    def describe(self, node: fx.Node) -> str:
        """A node, for a reader."""
        if node.op == "output":
            return f"the output of {self.name or 'the model'}"
        if node.op == "call_module":
            return f"{self.full(node)} ({type(self.layer(node)).__name__})"
        return f"a call of {getattr(node.target, '__name__', node.target)}"


def partial(names: list[str]) -> list[str]:
    """The modules that hold some of these, but not all."""
    holds = Counter(name.rsplit(".", i)[0] for name in names for i in range(1, name.count(".") + 1))
    return sorted(outer for outer, held in holds.items() if held < len(names))


def source(node: fx.Node) -> fx.Node:
    """The one node whose value a node takes first."""
    first = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    if not isinstance(first, fx.Node) or first.op not in ("call_module", "call_function", "call_method"):
        raise Dense("no layer before it")
    return first


def users(node: fx.Node) -> list[fx.Node]:
    """The nodes that use a node's value; not those that ask for the size of the batch."""
    return [user for user in node.users if not asks_batch(user)]


def asks_batch(node: fx.Node) -> bool:
    """Whether a node is x.size(0), or x.shape with [0] alone taken of it."""
    rest: tuple[Any, ...] = node.args[1:]
    if node.op == "call_method" and node.target == "size":
        return rest == (0,)
    return node.target is getattr and rest == ("shape",) and all(map(is_batch, node.users))


def is_batch(node: Any) -> bool:
    """Whether a value is the size of a batch."""
    if not isinstance(node, fx.Node):
        return False
    whole, *rest = node.args or (None,)
    item = node.target is operator.getitem and rest == [0] and isinstance(whole, fx.Node)
    return asks_batch(node) or (item and whole.target is getattr)  # type: ignore[union-attr]
