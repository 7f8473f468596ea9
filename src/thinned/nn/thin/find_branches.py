"""Finds branches in a graph: what a `DropPath` drops, if it treats each sample by itself.

A branch reads one tensor. Its layers are known to treat each sample by itself. Only the DropPath reads its
result.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from thinned.nn.modules import Drop, DropPath
from thinned.nn.thin.layer_kinds import CONVOLUTIONS
from thinned.nn.thin.per_sample_rules import Follower, Rows, flat
from thinned.nn.thin.tracing import LeftDense, TracedModule

RANKS = range(2, 6)  # the ranks that are tried for the tensor that a branch reads
_PRODUCTS = {torch.matmul, torch.bmm, nn.functional.linear, nn.functional.scaled_dot_product_attention}
_LAYERS = (*CONVOLUTIONS, nn.Linear, nn.MultiheadAttention)  # slow enough to be worth skipping


@dataclass
class FoundBranch:
    """A branch: the names of its DropPath, its gates (the layers that read its input) and its layers."""

    drop: str
    gates: dict[str, tuple[list[int], list[str]]]  # name -> which arguments are the branch's input
    layers: list[str]
    watched: list[str]  # parts of the model that get only the survivors, so that no hook may be on them
    ranks: list[int] = field(default_factory=list)  # the ranks of its input that keep samples apart
    guesses: bool = False  # a reshape has a size of −1, which torch cannot infer for no samples


def find_branches(traced: TracedModule) -> Iterator[tuple[str, FoundBranch | str]]:
    """For each DropPath in a graph: its name, and its branch or the reason why all samples are computed."""
    finder = _Finder(traced)
    for node in traced.layer_nodes:
        if type(traced.layer(node)) is DropPath:
            try:
                yield traced.full(node), finder.branch(node)
            except LeftDense as reason:
                yield traced.full(node), str(reason)


class _Finder:
    """Follows a graph from a DropPath up to the one tensor that its branch reads."""

    def __init__(self, traced: TracedModule) -> None:
        self.traced, self.module = traced, traced.module
        self.nodes = list(traced.graph.nodes)
        self.follower = Follower(traced.module, traced.graph)
        self.unused: set[fx.Node] = set()  # look-ups of a shape that nothing reads
        self.inside: dict[str, list[fx.Node]] = {}  # part of the model -> its nodes
        for node in reversed(self.nodes):
            name = getattr(node.target, "__name__", node.target)
            asks = node.op in ("call_function", "call_method") and name in ("getattr", "getitem", "size")
            if asks and self.unused.issuperset(node.users):
                self.unused.add(node)
            for name in stack(node) if node not in self.follower.constants | self.unused else ():
                self.inside.setdefault(name, []).insert(0, node)

    def branch(self, drop: fx.Node) -> FoundBranch:
        """The branch before a DropPath: its last layers, as many as are known to treat samples one by one.

        Raises LeftDense if there is none.
        """
        self.traced.check(drop)
        mixers: list[fx.Node] = []
        try:
            while any(map(self.worth, branch := self.computed_for(drop, mixers))):
                source = self.source(branch)
                ranks, mixer = self.ranks(drop, branch, source)
                if ranks:
                    return self.checked(drop, branch, source, ranks)
                mixers.append(mixer)
            raise LeftDense("no layer before it that could skip samples")
        except LeftDense:
            if not mixers:
                raise
            raise LeftDense(f"{self.traced.describe(mixers[0])} is not known to keep samples apart") from None

    def checked(self, drop: fx.Node, branch: list[fx.Node], source: fx.Node, ranks: list[int]) -> FoundBranch:
        """The branch. Raises LeftDense if a hook or another drop module would get only the survivors."""
        layers = [str(node.target) for node in branch if node.op == "call_module"]
        stacks = [set(stack(node)) for node in (*branch, drop)]
        watched = sorted(set[str]().union(*stacks) - stacks[0].intersection(*stacks))
        for name in watched:
            self.traced.check_hooks(name)
            self.traced.check_forward(name)
        readers = [node for node in branch if source in node.all_input_nodes]
        gates = dict(self.gate(node, source, branch) for node in readers)
        between = self.nodes[self.nodes.index(readers[0]) : self.nodes.index(drop)]
        for node in between:
            if node.op == "call_module" and node not in branch and drops(self.traced.layer(node)):
                raise LeftDense(f"{self.traced.describe(node)} runs between its branch's layers")
        sizes = [flat(node.args) for node in branch if node.target in ("view", "reshape", torch.reshape)]
        guesses = any(each == -1 for each in flat(sizes) if isinstance(each, int))
        return FoundBranch(str(drop.target), gates, layers, watched, ranks, guesses)

    def computed_for(self, drop: fx.Node, mixers: list[fx.Node]) -> list[fx.Node]:
        """The nodes that are computed only for a DropPath; without those in ``mixers``, which mix samples."""
        branch = {drop}
        for node in reversed(self.nodes[: self.nodes.index(drop)]):
            computes = node.op.startswith("call_") and node not in mixers
            users = [user for user in node.users if user not in self.unused]
            if computes and node not in self.follower.constants and users and branch.issuperset(users):
                branch.add(node)
        return [node for node in self.nodes if node in branch and node is not drop]

    def source(self, branch: list[fx.Node]) -> fx.Node:
        """The one tensor that a branch reads."""
        known = {*branch, *self.follower.constants}
        read = [each for node in branch for each in node.all_input_nodes if each not in known]
        first, *others = dict.fromkeys(read) or [None]
        if first is None or others:
            what = " and ".join(self.origin(each) for each in (first, *others) if each)
            raise LeftDense(f"its branch reads {what or 'no input'}")
        return first

    def origin(self, node: fx.Node) -> str:
        """Where a value comes from, in words."""
        return (
            f"the input {node.target}"
            if node.op == "placeholder"
            else f"what {self.traced.describe(node)} gives"
        )

    def ranks(self, drop: fx.Node, branch: list[fx.Node], source: fx.Node) -> tuple[list[int], fx.Node]:
        """The ranks of its input for which a branch keeps samples apart, and the last node reached."""
        good, furthest = [], 0
        for rank in RANKS:
            values = self.follower.follow(branch, source, rank)
            if isinstance(values, fx.Node):
                furthest = max(furthest, branch.index(values))
            elif isinstance(out := values[drop.all_input_nodes[0]], Rows) and out.axis == 0:
                good.append(rank)
            else:
                furthest = len(branch) - 1
        return good, branch[furthest]

    def worth(self, node: fx.Node) -> bool:
        """Whether a node takes more time than gathering samples does."""
        if node.op == "call_module":
            return any(isinstance(part, _LAYERS) for part in self.traced.layer(node).modules())
        return node.target in _PRODUCTS or getattr(node.target, "__name__", node.target) == "matmul"

    def gate(
        self, node: fx.Node, source: fx.Node, branch: list[fx.Node]
    ) -> tuple[str, tuple[list[int], list[str]]]:
        """The largest part of the model inside the branch that passes the branch's input to ``node``.

        Returns its name, and the positions and names of the arguments that are the branch's input.
        """
        for name in stack(node):
            parameters = list(inspect.signature(self.module.get_submodule(name).forward).parameters)
            inside = self.inside[name]
            outside = {each for one in inside for each in one.all_input_nodes if each not in inside}
            whole = set(branch).issuperset(inside) and outside - self.follower.constants == {source}
            if len(parameters) == 1 and whole and self.once(name):
                return name, ([0], parameters)
        name = str(node.target)
        if node.op == "call_module" and self.once(name):
            named = [key for key, value in node.kwargs.items() if value is source]
            return name, ([i for i, value in enumerate(node.args) if value is source], named)
        raise LeftDense(
            f"{self.traced.describe(node)} reads {self.origin(source)} outside of a layer called once"
        )

    def once(self, name: str) -> bool:
        """Whether a part of the model is called exactly once."""
        nodes = self.inside[name]
        keys = {
            key for node in nodes for key, (path, _) in node.meta["nn_module_stack"].items() if path == name
        }
        itself = [node for node in nodes if node.op == "call_module" and node.target == name]
        return len(keys) == 1 and len(itself) <= 1


def stack(node: fx.Node) -> list[str]:
    """The parts of the model that contain a node, the largest first, without the model itself."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]


def drops(layer: nn.Module) -> bool:
    """Whether a layer contains a drop module, which numbers the samples of its batch."""
    return any(isinstance(part, Drop) for part in layer.modules())
