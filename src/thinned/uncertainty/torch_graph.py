"""A torch model's graph in two parts: what comes before the first random layer, and the rest."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from thinned.nn import activations
from thinned.nn.keyed import unwrap
from thinned.nn.modules import Drop
from thinned.nn.thin import thin
from thinned.nn.thin.layer_kinds import WEIGHTED
from thinned.nn.thin.tracing import Explorer, trace

Values = dict[Any, Any]  # of the nodes of a graph
LastUses = dict[fx.Node, list[fx.Node]]  # node -> the values that no later node needs


@dataclass(frozen=True)
class Whole:
    """A model that is not cut: nothing is computed before it, and all of it is run for each sample."""

    model: nn.Module
    copies: bool = False  # whether it changes its input in place, and so gets a copy

    def before(self, x: Tensor) -> Values:
        """The input alone."""
        return {"x": x}

    def after(self, given: Values) -> Any:
        """The model's output."""
        (x,) = _copied(given).values() if self.copies else given.values()
        return self.model(x)

    def repeatable(self, given: Values) -> bool:
        """Whether all that depends on the input is tensors, whose rows can be repeated."""
        return True

    def repeated(self, given: Values, index: Tensor) -> Values:
        """The rows with that index."""
        return {name: x.index_select(0, index.to(x.device)) for name, x in given.items()}


@dataclass(frozen=True)
class Cut:
    """A model's graph in two parts: the head, which no random layer precedes, and the tail.

    The tail reads the values of the nodes of ``frontier``.
    """

    model: nn.Module
    graph: fx.Graph
    modules: dict[fx.Node, nn.Module]  # that the nodes call
    x: fx.Node
    output: Any  # a node, or a constant
    of_x: set[fx.Node]  # nodes that depend on x
    head: list[fx.Node]
    tail: list[fx.Node]
    frontier: list[fx.Node]
    head_uses: LastUses
    tail_uses: LastUses
    copies: bool = False  # whether the tail changes in place what it is given, and so gets a copy

    @property
    def computed(self) -> set[str]:
        """The names of the modules in the head."""
        return {str(node.target) for node in self.head if node.op == "call_module"}

    def before(self, x: Tensor) -> Values:
        """The values that the tail is given."""
        values = {self.x: x}
        self._run(self.head, values, self.head_uses)
        return {node: values[node] for node in self.frontier}

    def after(self, given: Values) -> Any:
        """The output of the tail."""
        values = _copied(given) if self.copies else dict(given)
        self._run(self.tail, values, self.tail_uses)
        return values[self.output]

    def repeatable(self, given: Values) -> bool:
        """Whether all that depends on the input is tensors, whose rows can be repeated."""
        return all(isinstance(value, Tensor) for node, value in given.items() if node in self.of_x)

    def repeated(self, given: Values, index: Tensor) -> Values:
        """The rows with that index, of everything that has a row for each of x."""
        return {
            node: value.index_select(0, index.to(value.device)) if node in self.of_x else value
            for node, value in given.items()
        }

    def _run(self, nodes: list[fx.Node], values: Values, last_uses: LastUses) -> None:
        for node in nodes:
            if node not in values:
                values[node] = self._value(node, values)
            for last in last_uses[node]:
                values.pop(last, None)

    def _value(self, node: fx.Node, values: Values) -> Any:
        """What a node computes."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "call_module":
            return self.modules[node](*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "get_attr":
            value: Any = self.model
            for name in str(node.target).split("."):
                value = getattr(value, name)
            return value
        if node.op == "placeholder":
            return args[0] if args else None
        return node.target(*args, **kwargs)  # type: ignore[operator]


def cut(model: nn.Module, drops: Sequence[Drop]) -> Cut | Whole:
    """The graph of ``model``, cut before ``drops``; the model as a whole where torch.fx cannot trace it.

    Activations of the tail that alone read the output of a weighted layer are set to overwrite it.
    """
    graph = _graph(model)
    if graph is None:
        return Whole(model)
    nodes = list(graph.nodes)
    modules = {node: model.get_submodule(str(node.target)) for node in nodes if node.op == "call_module"}
    x = next(node for node in nodes if node.op == "placeholder")
    output = next(node for node in nodes if node.op == "output").args[0]
    random = _descendants(
        nodes, {node for node, module in modules.items() if any(part in drops for part in module.modules())}
    )
    tail = [node for node in nodes if node in random and node.op != "output"]
    needed = {each for node in tail for each in node.all_input_nodes} | {output}
    frontier = [node for node in nodes if node in needed and node not in random]
    head = _ancestors(frontier)
    _overwrite(tail, modules)
    return Cut(
        model,
        graph,
        modules,
        x,
        output,
        of_x=_descendants(nodes, {x}),
        head=head,
        tail=tail,
        frontier=frontier,
        head_uses=_last_uses(head, frontier),
        tail_uses=_last_uses(tail, [output]),
    )


def shadow(model: nn.Module) -> nn.Module:
    """A copy of a model's modules that shares its tensors: changes of its modes and classes stay in it."""
    model = unwrap(model)
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [
        value for each in model.modules() for value in vars(each).values() if isinstance(value, Tensor)
    ]
    other = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    for module in other.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]
    return thin(other, back=True)


def _graph(model: nn.Module) -> fx.Graph | None:
    """The graph of a pass in the modes that the modules are in, as far as torch.fx can trace it."""
    with contextlib.suppress(Exception):  # a forward may raise anything on stand-ins for tensors
        return trace(model, set(), training=False)
    with contextlib.suppress(Exception):
        return trace(model, Explorer(model).whole, training=False)
    return None


def _overwrite(tail: list[fx.Node], modules: dict[fx.Node, nn.Module]) -> None:
    """Let each activation that alone reads a weighted layer's output write over it."""
    times = Counter(node.target for node in modules)
    calls = {node for node in tail if node in modules}
    for node in calls:
        module: Any = modules[node]
        given: Any = node.args[0] if node.args else None
        alone = times[node.target] == 1 and given in calls and len(given.users) == 1
        if alone and type(module) in activations.MODULES and hasattr(module, "inplace"):
            module.inplace = type(modules[given]) in WEIGHTED


def _copied(given: Values) -> Values:
    """The same values, in tensors of their own."""
    return {node: value.clone() if isinstance(value, Tensor) else value for node, value in given.items()}


def _descendants(nodes: list[fx.Node], found: set[fx.Node]) -> set[fx.Node]:
    """These nodes and all that depend on them."""
    for node in nodes:
        if found.intersection(node.all_input_nodes):
            found.add(node)
    return found


def _ancestors(nodes: list[fx.Node]) -> list[fx.Node]:
    """These nodes and all that they depend on, in order."""
    found, open_ = set(nodes), list(nodes)
    while open_:
        new = set(open_.pop().all_input_nodes) - found
        found |= new
        open_ += new
    return [node for node in nodes[0].graph.nodes if node in found] if nodes else []


def _last_uses(nodes: list[fx.Node], kept: list[Any]) -> LastUses:
    """Node -> the values that no node after it needs."""
    seen, gone = set(kept), {}
    for node in reversed(nodes):
        gone[node] = [each for each in node.all_input_nodes if each not in seen]
        seen.update(gone[node])
    return gone
