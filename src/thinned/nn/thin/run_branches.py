"""Runs branches, which a `DropPath` drops, only on the surviving samples.

A `Gate` before each layer that reads the branch's input selects the survivors. The DropPath puts the branch's
result among zeros. The rest of the model does not change: in x + drop(branch(x)) it computes the sum itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thinned.kernels import autograd
from thinned.nn.modules import DropPath
from thinned.nn.samples import fits, gathered, scaled, scattered, survivors
from thinned.nn.stream import Draw, among, recomputing
from thinned.nn.thin.find_branches import RANKS, FoundBranch
from thinned.nn.thin.passes import ModelHooks, Running, thread
from thinned.nn.thin.tracing import OwnHook, hooked, join


@dataclass
class BranchPass:
    """One pass of a branch: its draw, the number of samples n, and the survivors' indices (None: all run)."""

    draw: Draw
    n: int
    index: Tensor | None
    scope: Any = None  # a context in which survivors keep their indices in the batch


class RunningBranch(Running):
    """A branch at work: its DropPath, its layers, and the state of the pass."""

    def __init__(self, owner: nn.Module, name: str, found: FoundBranch, hooks: ModelHooks) -> None:
        self.drop: Any = owner.get_submodule(found.drop)
        self.hooks, self.ranks, self.guesses = hooks, found.ranks, found.guesses
        self.layers = [owner.get_submodule(each) for each in found.layers]
        self.watched = [owner.get_submodule(each) for each in found.watched]
        self.names = [join(name, each) for each in found.gates]
        self.forget()
        self.drop.__class__ = ThinDropPath
        vars(self.drop)["branch"] = self
        for i, (gate, arguments) in enumerate(found.gates.items()):
            entry = Gate(self, i == 0, *arguments)
            part = owner.get_submodule(gate)
            part.register_forward_pre_hook(entry.enter, prepend=True, with_kwargs=True)  # outer paths first

    def __str__(self) -> str:
        ranks = "" if self.ranks == list(RANKS) else f" of {' or '.join(map(str, self.ranks))} dimensions"
        return f"{1 - self.drop.p:.4g} of the samples{ranks}, from {' and '.join(self.names)} on"

    def begin(self, x: Tensor) -> None:
        """Begin a pass, if the branch is to drop in this call; ``x`` is the branch's input."""
        now = self.now
        if now is not None and not recomputing():
            raise self.changed("entered twice")
        self.close()
        if not self.drop.training or x.dim() not in self.ranks or not self.due():
            return
        draw = self.drop.stream.draw()
        if autograd.transforming():
            self.passes[thread()] = BranchPass(draw, len(x), None)
            return
        alive = survivors(len(x), draw, self.drop)
        seen = any(map(hooked, self.watched)) or not fits(self.layers, len(alive))
        whole = seen or len(alive) == len(x) or (self.guesses and not len(alive))
        skip = self.passes[thread()] = BranchPass(draw, len(x), None if whole else alive.to(x.device))
        if not whole and not recomputing():  # when run again, the draw has the places already
            skip.scope = among(alive.numpy())
            skip.scope.__enter__()

    def dropped(self, x: Tensor) -> Tensor | None:
        """The branch's result for all samples, zeros for the dropped ones; None outside of a pass."""
        now: BranchPass | None = self.now if thread() in self.hooks.open or recomputing() else None
        self.close()
        if now is None:
            self.unmark()
            return None
        if len(x) != (now.n if now.index is None else len(now.index)):
            raise self.changed(f"left with {len(x)} samples")
        if now.index is None:
            return self.drop.by(now.draw, x)
        return scattered(scaled(x, self.drop) if len(x) else x, now.index, now.n)

    def check(self) -> None:
        """Raises RuntimeError if the DropPath was not called in this pass."""
        if self.now is not None:
            raise self.changed("not left")

    def changed(self, what: str) -> RuntimeError:
        """The error for a model that no longer calls its layers as `thin` found them."""
        return RuntimeError(
            "the model must run as when it was thinned, but the branch that begins at "
            f"{' and '.join(self.names)} was {what}; call thinned.nn.thin(model) again after a change"
        )

    def close(self) -> None:
        """End this thread's pass and the scope of its survivors."""
        if self.now is not None and self.now.scope is not None:
            self.now.scope.__exit__(None, None, None)
        super().close()


class Gate(OwnHook):
    """A hook before a layer that reads the branch's input: it passes the surviving samples on."""

    def __init__(self, branch: RunningBranch, first: bool, places: list[int], names: list[str]) -> None:
        self.branch, self.first, self.places, self.names = branch, first, places, names

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """The layer's arguments, with the survivors in place of the branch's input; None: all samples."""
        given = [args[i] for i in self.places if i < len(args)] + [
            kwargs[n] for n in self.names if n in kwargs
        ]
        if torch.compiler.is_compiling() or not given or not isinstance(given[0], Tensor):
            return None
        if self.first:
            self.branch.begin(given[0])
        now = self.branch.now
        if now is None or now.index is None:
            return None
        part = gathered(given[0], now.index)
        args = tuple(part if i in self.places else value for i, value in enumerate(args))
        return args, {name: part if name in self.names else value for name, value in kwargs.items()}


class ThinDropPath(DropPath):
    """`thinned.nn.DropPath` after a branch that is computed only for the survivors."""

    branch: RunningBranch

    def drop(self, input: Tensor) -> Tensor:
        """The branch's result with zeros for dropped samples; outside of a pass, plain `DropPath`."""
        out = None if torch.compiler.is_compiling() else self.branch.dropped(input)
        return super().drop(input) if out is None else out
