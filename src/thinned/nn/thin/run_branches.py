"""Branches that a `DropPath` drops for whole samples, computed for the surviving samples alone.

`Paths` finds them in a graph: what the DropPath drops is computed from one tensor by layers that are known to
treat each sample by itself. A `Gate` at each layer that reads this tensor lets the survivors in, and the
DropPath puts what the branch made of them among zeros. Around it nothing changes: in x + drop(branch(x)) the
sum is the model's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from thinned.nn.modules import Drop, DropPath
from thinned.nn.residual import fits, scaled, survivors
from thinned.nn.stream import Draw, among, recomputing
from thinned.nn.thin.layer_kinds import CONVOLUTIONS
from thinned.nn.thin.passes import Part, Region, thread
from thinned.nn.thin.per_sample_rules import Follower, Rows, flat
from thinned.nn.thin.tracing import Dense, Own, Reader, hooked, join

RANKS = range(2, 6)  # of the tensor that a branch reads
_PRODUCTS = {torch.matmul, torch.bmm, nn.functional.linear, nn.functional.scaled_dot_product_attention}
_LAYERS = (*CONVOLUTIONS, nn.Linear, nn.MultiheadAttention)  # worth skipping


@dataclass
class FoundPath:
    """A branch: the names of its DropPath, of the layers that read its input, and of all in it."""

    drop: str
    gates: dict[str, tuple[list[int], list[str]]]  # -> which arguments are that input
    layers: list[str]
    watched: list[str]  # what would see the survivors alone
    ranks: list[int] = field(default_factory=list)  # of its input
    guesses: bool = False  # a size is left to torch, which it cannot tell of no samples


class Paths:
    """Finds the branches in one graph that a `DropPath` ends."""

    def __init__(self, reader: Reader, graph: fx.Graph) -> None:
        self.reader, self.module, self.name = reader, reader.module, reader.name
        self.nodes = list(graph.nodes)
        self.follower = Follower(reader.module, graph)
        self.unused: set[fx.Node] = set()  # questions about a shape that nobody reads the answer of
        self.inside: dict[str, list[fx.Node]] = {}  # the nodes of each part of the model
        for node in reversed(self.nodes):
            name = getattr(node.target, "__name__", node.target)
            asks = node.op in ("call_function", "call_method") and name in ("getattr", "getitem", "size")
            if asks and self.unused.issuperset(node.users):
                self.unused.add(node)
            for name in stack(node) if node not in self.follower.constants | self.unused else ():
                self.inside.setdefault(name, []).insert(0, node)

    def found(self) -> Iterator[tuple[str, FoundPath | str]]:
        """The name of each DropPath, and its branch or why it is computed for all samples."""
        for node in self.reader.nodes:
            if type(self.reader.layer(node)) is DropPath:
                try:
                    yield self.reader.full(node), self.path(node)
                except Dense as reason:
                    yield self.reader.full(node), str(reason)

    def path(self, drop: fx.Node) -> FoundPath:
        """The branch before a DropPath: as much of it as is known to treat samples one by one."""
        self.reader.check(drop)
        mixers: list[fx.Node] = []
        try:
            while any(map(self.worth, branch := self.branch(drop, mixers))):
                source = self.source(branch)
                ranks, mixer = self.ranks(drop, branch, source)
                if ranks:
                    return self.checked(drop, branch, source, ranks)
                mixers.append(mixer)
            raise Dense("no layer before it that could skip samples")
        except Dense:
            if not mixers:
                raise
            raise Dense(f"{self.reader.describe(mixers[0])} is not known to keep samples apart") from None

    def checked(self, drop: fx.Node, branch: list[fx.Node], source: fx.Node, ranks: list[int]) -> FoundPath:
        """A branch, unless something else would see the survivors alone."""
        layers = [str(node.target) for node in branch if node.op == "call_module"]
        stacks = [set(stack(node)) for node in (*branch, drop)]
        watched = sorted(set[str]().union(*stacks) - stacks[0].intersection(*stacks))
        for name in watched:
            part = self.module.get_submodule(name)
            if hooked(part):
                raise Dense(f"{join(self.name, name)} has hooks, which would see the survivors alone")
            if vars(part).get("forward"):
                raise Dense(f"{join(self.name, name)} has a forward of its own")
        readers = [node for node in branch if source in node.all_input_nodes]
        gates = dict(self.gate(node, source, branch) for node in readers)
        between = self.nodes[self.nodes.index(readers[0]) : self.nodes.index(drop)]
        for node in between:
            if node.op == "call_module" and node not in branch and drops(self.reader.layer(node)):
                raise Dense(f"{self.reader.describe(node)} runs between its branch's layers")
        sizes = [flat(node.args) for node in branch if node.target in ("view", "reshape", torch.reshape)]
        guesses = any(each == -1 for each in flat(sizes) if isinstance(each, int))
        return FoundPath(str(drop.target), gates, layers, watched, ranks, guesses)

    def branch(self, drop: fx.Node, mixers: list[fx.Node]) -> list[fx.Node]:
        """What is computed before a DropPath and read by nothing else; not what mixes samples."""
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
            raise Dense(f"its branch reads {what or 'no input'}")
        return first

    def origin(self, node: fx.Node) -> str:
        """Where a value comes from, for a reader."""
        return (
            f"the input {node.target}"
            if node.op == "placeholder"
            else f"what {self.reader.describe(node)} gives"
        )

    def ranks(self, drop: fx.Node, branch: list[fx.Node], source: fx.Node) -> tuple[list[int], fx.Node]:
        """The ranks of its input at which a branch keeps samples apart; or the node that got furthest."""
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
        """Whether a node takes more time than to gather samples."""
        if node.op == "call_module":
            return any(isinstance(part, _LAYERS) for part in self.reader.layer(node).modules())
        return node.target in _PRODUCTS or getattr(node.target, "__name__", node.target) == "matmul"

    def gate(
        self, node: fx.Node, source: fx.Node, branch: list[fx.Node]
    ) -> tuple[str, tuple[list[int], list[str]]]:
        """The largest part of the model, all in the branch, through which a node gets its input, and how."""
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
        raise Dense(
            f"{self.reader.describe(node)} reads {self.origin(source)} outside of a layer called once"
        )

    def once(self, name: str) -> bool:
        """Whether a part of the model is called once."""
        nodes = self.inside[name]
        keys = {
            key for node in nodes for key, (path, _) in node.meta["nn_module_stack"].items() if path == name
        }
        itself = [node for node in nodes if node.op == "call_module" and node.target == name]
        return len(keys) == 1 and len(itself) <= 1


def stack(node: fx.Node) -> list[str]:
    """The parts of the model in which a node is, the largest first; not the model itself."""
    return [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]


def drops(layer: nn.Module) -> bool:
    """Whether a layer numbers the samples of its batch."""
    return any(isinstance(part, Drop) for part in layer.modules())


@dataclass
class Skip:
    """One pass of a branch: what was drawn, which of n samples survive (None: all are computed)."""

    draw: Draw
    n: int
    index: Tensor | None
    scope: Any = None  # in which the survivors keep their numbers


class Path(Part):
    """One DropPath, and what the layers of its branch know of the pass that is under way."""

    def __init__(self, owner: nn.Module, name: str, found: FoundPath, region: Region) -> None:
        self.drop: Any = owner.get_submodule(found.drop)
        self.region, self.ranks, self.guesses = region, found.ranks, found.guesses
        self.layers = [owner.get_submodule(each) for each in found.layers]
        self.watched = [owner.get_submodule(each) for each in found.watched]
        self.names = [join(name, each) for each in found.gates]
        self.forget()
        self.drop.__class__ = ThinPath
        vars(self.drop)["chain"] = self
        for i, (gate, arguments) in enumerate(found.gates.items()):
            entry = Gate(self, i == 0, *arguments)
            part = owner.get_submodule(gate)
            part.register_forward_pre_hook(entry.enter, prepend=True, with_kwargs=True)  # outer paths first

    def __str__(self) -> str:
        ranks = "" if self.ranks == list(RANKS) else f" of {' or '.join(map(str, self.ranks))} dimensions"
        return f"{1 - self.drop.p:.4g} of the samples{ranks}, from {' and '.join(self.names)} on"

    def begin(self, x: Tensor) -> None:
        """A new pass, where there is one."""
        now = self.now
        if now is not None and not recomputing():
            raise self.changed("entered twice")
        self.close()
        if not self.drop.training or x.dim() not in self.ranks or not self.due():
            return
        draw = self.drop.stream.draw()
        alive = survivors(len(x), draw, self.drop)
        seen = any(map(hooked, self.watched)) or not fits(self.layers, len(alive))
        whole = seen or len(alive) == len(x) or (self.guesses and not len(alive))
        skip = self.passes[thread()] = Skip(draw, len(x), None if whole else alive.to(x.device))
        if not whole and not recomputing():  # a draw that is made again has the places already
            skip.scope = among(alive.numpy())
            skip.scope.__enter__()

    def dropped(self, x: Tensor) -> Tensor | None:
        """All samples, zeros for the dropped; None where the DropPath drops as before."""
        now: Skip | None = self.now if thread() in self.region.open or recomputing() else None
        self.close()
        if now is None:
            self.unmark()
            return None
        if len(x) != (now.n if now.index is None else len(now.index)):
            raise self.changed(f"left with {len(x)} samples")
        if now.index is None:
            return self.drop.by(now.draw, x)
        return among_zeros(scaled(x, self.drop.p) if len(x) else x, now.index, now.n)

    def check(self) -> None:
        """At the end of a pass the branch must have been left."""
        if self.now is not None:
            raise self.changed("not left")

    def changed(self, what: str) -> RuntimeError:
        """What to say where a model does not do what it did when it was thinned."""
        return RuntimeError(
            f"the model ran another way than when it was thinned: the branch that begins at "
            f"{' and '.join(self.names)} was {what}; call thinned.nn.thin(model) again after a change"
        )

    def close(self) -> None:
        """Forget the pass; samples have the numbers again that they had before."""
        if self.now is not None and self.now.scope is not None:
            self.now.scope.__exit__(None, None, None)
        super().close()


class Gate(Own):
    """Where a branch begins: the surviving samples pass."""

    def __init__(self, path: Path, first: bool, places: list[int], names: list[str]) -> None:
        self.path, self.first, self.places, self.names = path, first, places, names

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The arguments of a layer, with the survivors of the branch's input."""
        given = [args[i] for i in self.places if i < len(args)] + [
            kwargs[n] for n in self.names if n in kwargs
        ]
        if torch.compiler.is_compiling() or not given or not isinstance(given[0], Tensor):
            return None
        if self.first:
            self.path.begin(given[0])
        now = self.path.now
        if now is None or now.index is None:
            return None
        part = taken(given[0], now.index)
        args = tuple(part if i in self.places else value for i, value in enumerate(args))
        return args, {name: part if name in self.names else value for name, value in kwargs.items()}


class ThinPath(DropPath):
    """`thinned.nn.DropPath` after a branch that is computed for the survivors alone."""

    chain: Path

    def drop(self, input: Tensor) -> Tensor:
        """The branch's part of the sum; outside a pass, what the module did before."""
        out = None if torch.compiler.is_compiling() else self.chain.dropped(input)
        return super().drop(input) if out is None else out


def taken(x: Tensor, index: Tensor) -> Tensor:
    """x[index], in the strides of x."""
    order, back = orders(x)
    return x.permute(order).index_select(0, index).permute(back)


def among_zeros(part: Tensor, index: Tensor, n: int) -> Tensor:
    """n samples, zeros but for those of ``part`` at ``index``, in the strides of ``part``."""
    order, back = orders(part)
    part = part.permute(order)
    return part.new_zeros(n, *part.shape[1:]).index_copy_(0, index, part).permute(back)


def orders(x: Tensor) -> tuple[list[int], list[int]]:
    """The dimensions behind that of the samples by stride, the largest first; and how to put them back."""
    order = [0, *sorted(range(1, x.dim()), key=x.stride, reverse=True)]
    return order, [order.index(i) for i in range(x.dim())]
