"""Finds chains in a graph: layers around a dropout that can compute its surviving units without the others.

A chain has five parts, in the order of a pass. The producer, a linear layer or a convolution, computes the
units. The layers between treat each unit by itself. A dropout drops whole units. Further layers treat each
unit by itself and map zero to zero. The readers have one column of weights, or several, for each unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from thinned.nn import activations, modules
from thinned.nn.thin.layer_kinds import (
    DROPS,
    HOMOGENEOUS,
    NORMS,
    POOL_CALLS,
    POOLS,
    WEIGHTED,
    ZERO_CALLS,
    norm_and_activation,
)
from thinned.nn.thin.tracing import LeftDense, TracedModule, is_batch, join, partly_outside, source, users


@dataclass
class FoundChain:
    """A chain: the names of its layers in the model, and the rank of a unit (0: a number, 2: a plane)."""

    drop: str
    producer: str
    rank: int
    readers: list[str] = field(default_factory=list)
    between: list[str] = field(default_factory=list)  # layers with parameters for each unit
    others: list[str] = field(default_factory=list)  # layers without
    flat: bool = False  # whether a Flatten, which leaves (N, C) as it is, is before the dropout
    folded: bool = True  # whether f(c·x) = c·f(x), c > 0, for the layers between dropout and readers

    @property
    def names(self) -> list[str]:
        """The names of all layers of the chain: producer, between, drop, others, readers."""
        return [self.producer, *self.between, self.drop, *self.others, *self.readers]


def find_chains(traced: TracedModule) -> Iterator[tuple[str, FoundChain | str]]:
    """For each dropout module in a graph: its name, and its chain or the reason why it has none."""
    finder = _Finder(traced)
    for node in traced.layer_nodes:
        if type(traced.layer(node)) in DROPS:
            try:
                yield traced.full(node), finder.chain(node)
            except LeftDense as reason:
                yield traced.full(node), str(reason)


class _Finder:
    """Follows a graph from a dropout up to the producer, and down to the readers."""

    def __init__(self, traced: TracedModule) -> None:
        self.traced = traced
        self.begun: dict[str, str] = {}  # producer -> dropout, of the chains found so far

    def chain(self, drop: fx.Node) -> FoundChain:
        """The chain around a dropout. Raises LeftDense if there is none."""
        found = FoundChain(str(drop.target), "", DROPS[type(self.traced.layer(drop))])
        layer = self.traced.check(drop)
        if isinstance(layer, modules.Dropout) and layer.rescale != "train":
            raise LeftDense("rescales in evaluation, by the original rule")
        self.go_up(drop, found)
        if found.producer in self.begun:
            other = join(self.traced.name, self.begun[found.producer])
            raise LeftDense(f"drops single elements of the units that {other} has thinned")
        self.go_down(drop, found, found.rank)
        self.check_containers(found)
        self.begun[found.producer] = found.drop
        return found

    def go_up(self, node: fx.Node, found: FoundChain) -> None:
        """From the dropout to the producer, the layer whose units it drops."""
        while not found.producer:
            node = source(node)
            if len(users(node)) > 1:
                raise LeftDense(
                    f"what {self.traced.describe(node)} gives is used in {len(users(node))} places"
                )
            kind = type(self.traced.layer(node)) if node.op == "call_module" else None
            if kind in WEIGHTED:
                self.check_producer(self.traced.check(node), self.traced.full(node), WEIGHTED[kind], found)
                found.producer = str(node.target)
            elif kind in NORMS:
                self.norm(node, found)
            elif kind is not None and norm_and_activation(self.traced.layer(node)):
                self.norm(node, found)
                self.parts(node, found)
            elif kind in activations.MODULES:
                self.traced.check(node)
                found.others.append(str(node.target))
            elif found.rank == 0 and self.flattens(node):
                found.flat = True
            elif not self.by_unit(node, found) and not (kind is None and node.target in activations.CALLS):
                raise LeftDense(
                    f"{self.traced.describe(node)} stands between it and the layer whose units it would drop"
                )

    def check_producer(self, layer: Any, name: str, rank: int, found: FoundChain) -> None:
        """The dropout must drop the units of this layer."""
        if rank != found.rank and not (rank == 1 and found.rank == 2):
            what = "single elements" if found.rank == 0 else f"channels of rank {found.rank}"
            hint = f": Dropout{rank}d drops these" if found.rank == 0 else ""
            raise LeftDense(f"drops {what}, not the units of {name} ({type(layer).__name__}){hint}")
        found.rank = rank
        if not len(layer.weight):
            raise LeftDense(f"{name} has no units")
        if rank and layer.groups != 1:
            raise LeftDense(f"{name} is a convolution in groups")

    def norm(self, node: fx.Node, found: FoundChain) -> None:
        """Add a BatchNorm between producer and dropout. Only survivors' running statistics change."""
        layer = self.traced.check(node)
        if layer.momentum is None and layer.track_running_stats:
            raise LeftDense(
                f"{self.traced.full(node)} averages over all steps (momentum=None), "
                "but a unit takes part only in the steps that it survives"
            )
        found.between.append(str(node.target))

    def parts(self, node: fx.Node, found: FoundChain) -> None:
        """Add what a norm with an activation calls: with hooks, it is to see all units."""
        for part in ("drop", "act"):
            name = f"{node.target}.{part}"
            self.traced.check_hooks(name)
            found.others.append(name)

    def by_unit(self, node: fx.Node, found: FoundChain) -> bool:
        """Whether a node treats each unit by itself and maps zero to zero; adds it to the chain if so."""
        if node.op != "call_module":
            pools = POOL_CALLS if found.rank else set()
            constant = all(each is node.args[0] for each in node.all_input_nodes)
            return constant and (node.target in ZERO_CALLS or node.target in pools)
        layer = self.traced.layer(node)
        kind = type(layer)
        if kind is nn.PReLU:
            self.traced.check(node)
            if layer.num_parameters > 1:
                found.between.append(str(node.target))
            return True
        if activations.keeps_zero(layer) or kind in DROPS or (kind in POOLS and found.rank):
            self.traced.check(node)
            found.others.append(str(node.target))
            return True
        return False

    def go_down(self, node: fx.Node, found: FoundChain, rank: int) -> None:
        """From the dropout to all layers that read its units; ``rank`` is the rank of a unit at this node."""
        for user in users(node):
            kind = type(self.traced.layer(user)) if user.op == "call_module" else None
            if kind in WEIGHTED and WEIGHTED[kind] == rank:
                layer = self.traced.check(user)
                if rank and layer.groups != 1:
                    raise LeftDense(
                        f"{self.traced.full(user)}, which reads its units, is a convolution in groups"
                    )
                found.readers.append(str(user.target))
            elif self.by_unit(user, found):
                found.folded &= (kind or user.target) in HOMOGENEOUS
                self.go_down(user, found, rank)
            elif rank and self.flattens(user):
                self.go_down(user, found, 0)
            else:
                raise LeftDense(f"{self.traced.describe(user)} reads its units")
        if not users(node):
            raise LeftDense("nothing reads its units")

    def flattens(self, node: fx.Node) -> bool:
        """Whether a node reshapes (N, C, *) to (N, C·*)."""
        if node.op == "call_module":
            layer = self.traced.layer(node)
            return type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1)
        rest: tuple[Any, ...] = (*node.args[1:], *node.kwargs.values())
        if node.target in (torch.flatten, "flatten"):
            return rest in ((1,), (1, -1))
        return node.target in ("view", "reshape") and len(rest) == 2 and is_batch(rest[0]) and rest[1] == -1

    def check_containers(self, found: FoundChain) -> None:
        """Raises LeftDense if a part of the model with some of the chain's layers, but not all, has hooks."""
        for name in partly_outside(found.names):
            self.traced.check_hooks(name)
