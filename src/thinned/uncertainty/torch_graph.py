"""A torch model's graph in two parts: what comes before the first random layer, and the rest."""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from typing import Any

from torch import Tensor, fx, nn

from thinned.nn import activations
from thinned.nn.keyed import unwrap
from thinned.nn.modules import Drop
from thinned.nn.thin import thin
from thinned.nn.thin.layer_kinds import WEIGHTED
from thinned.nn.thin.tracing import Explorer, trace

Values = dict[fx.Node, Any]


class Cut:
    """A model's graph in two: what no random layer comes before, and the rest; ``whole``: nothing, and all.

    ``computed``: the names of the modules in the first part.
    """

    def __init__(self, model: nn.Module, drops: list[Drop], whole: bool = False) -> None:
        self.model, self.copies = model, False
        self.graph = None if whole else _graph(model)
        self.computed: set[str] = set()
        self.tensors_alone = True
        self.modules: dict[fx.Node, nn.Module] = {}
        if self.graph is None:
            return
        nodes = list(self.graph.nodes)
        self.modules |= {
            node: model.get_submodule(str(node.target)) for node in nodes if node.op == "call_module"
        }
        self.x = next(node for node in nodes if node.op == "placeholder")
        self.output = next(node for node in nodes if node.op == "output").args[0]
        self.of_x = _descendants(nodes, {self.x})
        random = _descendants(nodes, {node for node in nodes if self._drops(node, drops)})
        self.tail = [node for node in nodes if node in random and node.op != "output"]
        needed = {each for node in self.tail for each in node.all_input_nodes} | {self.output}
        self.frontier = [node for node in nodes if node in needed and node not in random]
        self.head = _ancestors(self.frontier)
        self.computed = {str(node.target) for node in self.head if node.op == "call_module"}
        self.gone_head = _last_uses(self.head, self.frontier)
        self.gone_tail = _last_uses(self.tail, [self.output])
        self._write_over()

    def _drops(self, node: fx.Node, drops: list[Drop]) -> bool:
        """Whether a node calls a module that drops, or has one inside."""
        parts = self.modules[node].modules() if node in self.modules else ()
        return any(part is drop for part in parts for drop in drops)

    def _write_over(self) -> None:
        """Activations write over what a layer gave to them alone."""
        calls = [node for node in self.tail if node.op == "call_module"]
        times = Counter(node.target for node in self.graph.nodes) if self.graph else {}
        for node in calls:
            module: Any = self.modules[node]
            given = node.args[0]
            alone = times[node.target] == 1 and given in calls and len(given.users) == 1
            if alone and type(module) in activations.MODULES and hasattr(module, "inplace"):
                module.inplace = type(self.modules[given]) in WEIGHTED

    def before(self, x: Tensor) -> Values:
        """What the rest is given."""
        if self.graph is None:
            return {None: x}  # type: ignore[dict-item]
        values = {self.x: x}
        self._run(self.head, values, self.gone_head)
        given = {node: values[node] for node in self.frontier}
        self.tensors_alone = all(isinstance(given[node], Tensor) for node in given if node in self.of_x)
        return given

    def after(self, given: Values) -> Any:
        """The output of the rest."""
        if self.copies:
            given = {n: value.clone() if isinstance(value, Tensor) else value for n, value in given.items()}
        if self.graph is None:
            return self.model(*given.values())
        values = dict(given)
        self._run(self.tail, values, self.gone_tail)
        return values[self.output]

    def repeated(self, given: Values, index: Tensor) -> Values:
        """The rows of that index, of everything that has a row for each of x."""
        return {
            node: value.index_select(0, index.to(value.device))
            if self.graph is None or node in self.of_x
            else value
            for node, value in given.items()
        }

    def _run(self, nodes: list[fx.Node], values: Values, gone: dict[fx.Node, list[fx.Node]]) -> None:
        for node in nodes:
            if node not in values:
                values[node] = self._value(node, values)
            for last in gone[node]:
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


def shadow(model: nn.Module) -> nn.Module:
    """A copy of a model's modules with its tensors: modes and classes may change, and nobody sees it."""
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
    """The graph of a pass in the modes that its parts are in, as far as torch.fx can trace it."""
    with contextlib.suppress(Exception):  # whatever a forward raises on stand-ins for tensors
        return trace(model, set(), training=False)
    with contextlib.suppress(Exception):
        return trace(model, Explorer(model).whole, training=False)
    return None


def _descendants(nodes: list[fx.Node], found: set[fx.Node]) -> set[fx.Node]:
    """These and all that is computed from them."""
    for node in nodes:
        if found.intersection(node.all_input_nodes):
            found.add(node)
    return found


def _ancestors(nodes: list[fx.Node]) -> list[fx.Node]:
    """These and all that they are computed from, in order."""
    found, open_ = set(nodes), list(nodes)
    while open_:
        new = set(open_.pop().all_input_nodes) - found
        found |= new
        open_ += new
    return [node for node in nodes[0].graph.nodes if node in found] if nodes else []


def _last_uses(nodes: list[fx.Node], kept: list[Any]) -> dict[fx.Node, list[fx.Node]]:
    """Node -> what is not used after it."""
    seen, gone = set(kept), {}
    for node in reversed(nodes):
        gone[node] = [each for each in node.all_input_nodes if each not in seen]
        seen.update(gone[node])
    return gone
