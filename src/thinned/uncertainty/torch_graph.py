"""Cuts the graph of a torch model in two: what comes before the first random layer, and the rest."""

from __future__ import annotations

import contextlib
import copy
import inspect
import operator
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
from thinned.uncertainty.prediction import Wanted
from thinned.uncertainty.torch_inputs import Inputs, call, entry, one_output

Values = dict[Any, Any]  # node -> its value
LastUses = dict[fx.Node, list[fx.Node]]  # node -> the nodes whose values no later node needs


@dataclass(frozen=True)
class Whole:
    """A model that is not cut: all of it runs for each sample."""

    model: nn.Module
    wanted: Wanted
    copies: bool = False  # it changes its input in place, so it gets a copy

    def before(self, x: Inputs) -> Values:
        """The inputs, as the values that the model reads."""
        return dict(x)

    def after(self, given: Values) -> Any:
        """The model's output that is wanted."""
        return one_output(call(self.model, _copied(given) if self.copies else given), self.wanted)

    def repeatable(self, given: Values) -> bool:
        """Whether the rows of the values can be repeated; true for inputs."""
        return True

    def repeated(self, given: Values, index: Tensor) -> Values:
        """The values with the rows ``index`` of the input."""
        return {name: x.index_select(0, index.to(x.device)) for name, x in given.items()}


@dataclass(frozen=True)
class Cut:
    """A model's graph in two parts: the head, which is before every random layer, and the tail.

    The tail reads the values of the nodes in ``frontier``.
    """

    model: nn.Module
    graph: fx.Graph
    modules: dict[fx.Node, nn.Module]  # node -> the module that it calls
    inputs: dict[int | str, fx.Node]  # position or name of an argument -> its node
    output: Any  # a node, or a constant
    wanted: Wanted  # what is to be taken of its value
    of_x: set[fx.Node]  # the nodes that depend on x
    head: list[fx.Node]
    tail: list[fx.Node]
    frontier: list[fx.Node]
    head_uses: LastUses
    tail_uses: LastUses
    copies: bool = False  # the tail changes its values in place, so it gets copies

    @property
    def computed(self) -> set[str]:
        """The names of the modules in the head."""
        return {str(node.target) for node in self.head if node.op == "call_module"}

    def before(self, x: Inputs) -> Values:
        """The values that the tail reads, for the inputs x."""
        values: Values = {self.inputs[name]: value for name, value in x.items()}
        self._run(self.head, values, self.head_uses)
        return {node: values[node] for node in self.frontier}

    def after(self, given: Values) -> Any:
        """The output of the tail for these values."""
        values = _copied(given) if self.copies else dict(given)
        self._run(self.tail, values, self.tail_uses)
        return one_output(values[self.output], self.wanted)

    def repeatable(self, given: Values) -> bool:
        """Whether the rows of the values can be repeated: those that depend on x must be tensors."""
        return all(isinstance(value, Tensor) for node, value in given.items() if node in self.of_x)

    def repeated(self, given: Values, index: Tensor) -> Values:
        """The values with the rows ``index`` of the input; values that do not depend on x stay."""
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
        """The value of a node."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "call_module":
            return self.modules[node](*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.model)
        if node.op == "placeholder":
            return args[0] if args else None
        return node.target(*args, **kwargs)  # type: ignore[operator]


def cut(model: nn.Module, drops: Sequence[Drop], x: Inputs, wanted: Wanted) -> Cut | Whole:
    """The graph of ``model``, cut before ``drops``; the whole model if torch.fx cannot trace it for such x.

    An activation in the tail is set to overwrite its input if that is the output of a weighted layer and
    nothing else reads it.
    """
    graph = _graph(model)
    inputs = None if graph is None else _inputs(model, graph, x)
    if graph is None or inputs is None:
        return Whole(model, wanted)
    nodes = list(graph.nodes)
    modules = {node: model.get_submodule(str(node.target)) for node in nodes if node.op == "call_module"}
    output, wanted = _output(next(node for node in nodes if node.op == "output").args[0], wanted)
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
        inputs,
        output,
        wanted,
        of_x=_descendants(nodes, set(inputs.values())),
        head=head,
        tail=tail,
        frontier=frontier,
        head_uses=_last_uses(head, frontier),
        tail_uses=_last_uses(tail, [output]),
    )


def _output(y: Any, wanted: Wanted) -> tuple[Any, Wanted]:
    """The node with the output that is wanted, and what is to be taken of its value."""
    path = wanted.path
    while path and not isinstance(y, fx.Node):
        y, path = entry(y, path[0]), path[1:]
    rest = Wanted(path, wanted.kind)
    return (y if isinstance(y, fx.Node) else one_output(y, rest)), rest


def _inputs(model: nn.Module, graph: fx.Graph, x: Inputs) -> dict[int | str, fx.Node] | None:
    """The node of each argument; None if one was traced with its default, or has no node of its own."""
    nodes = {str(node.target): node for node in graph.nodes if node.op == "placeholder"}
    names = list(inspect.signature(model.forward).parameters)
    found = {name: names[name] if isinstance(name, int) and name < len(names) else name for name in x}
    return {name: nodes[each] for name, each in found.items()} if set(found.values()) <= set(nodes) else None  # type: ignore[index]


def shadow(model: nn.Module) -> nn.Module:
    """A copy of a model's modules that shares its tensors. Its modes and classes may be changed."""
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
    """The graph of a pass in the current modes of the modules; None if torch.fx cannot trace it."""
    with contextlib.suppress(Exception):  # a forward may raise anything when it gets proxies for tensors
        return trace(model, set(), training=False)
    with contextlib.suppress(Exception):
        return trace(model, Explorer(model).whole, training=False)
    return None


def _overwrite(tail: list[fx.Node], modules: dict[fx.Node, nn.Module]) -> None:
    """Let each activation that is the only reader of a weighted layer's output overwrite it."""
    times = Counter(node.target for node in modules)
    calls = {node for node in tail if node in modules}
    for node in calls:
        module: Any = modules[node]
        given: Any = node.args[0] if node.args else None
        alone = times[node.target] == 1 and given in calls and len(given.users) == 1
        if alone and type(module) in activations.MODULES and hasattr(module, "inplace"):
            module.inplace = type(modules[given]) in WEIGHTED


def _copied(given: Values) -> Values:
    """The same values, with copies of the tensors."""
    return {node: value.clone() if isinstance(value, Tensor) else value for node, value in given.items()}


def _descendants(nodes: list[fx.Node], found: set[fx.Node]) -> set[fx.Node]:
    """``found`` and all nodes that depend on it."""
    for node in nodes:
        if found.intersection(node.all_input_nodes):
            found.add(node)
    return found


def _ancestors(nodes: list[fx.Node]) -> list[fx.Node]:
    """``nodes`` and all that they depend on, in the order of the graph."""
    found, open_ = set(nodes), list(nodes)
    while open_:
        new = set(open_.pop().all_input_nodes) - found
        found |= new
        open_ += new
    return [node for node in nodes[0].graph.nodes if node in found] if nodes else []


def _last_uses(nodes: list[fx.Node], kept: list[Any]) -> LastUses:
    """Node -> the nodes whose values are not needed after it; ``kept`` are always needed."""
    seen, gone = set(kept), {}
    for node in reversed(nodes):
        gone[node] = [each for each in node.all_input_nodes if each not in seen]
        seen.update(gone[node])
    return gone
