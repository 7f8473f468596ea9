"""The passes of a thinned model: a call of it, or a checkpoint that runs a part of it again."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import torch
from torch import nn

from thinned.nn.stream import RECENT, random_seed, recomputing
from thinned.nn.thin.tracing import defaults

COMPILED = 0  # stands for the thread in a compiled graph


class Running:
    """The base of running chains and branches: a drop module, and a pass in each thread."""

    drop: Any
    hooks: Any  # the `ModelHooks` that must be under way; None where passes are begun from outside

    def forget(self) -> None:
        """Begin without passes."""
        self.passes: dict[int, Any] = {}  # by thread
        self.recent: dict[int, None] = {}  # the marks of passes, for recomputation

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("passes", "recent")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.forget()

    @property
    def now(self) -> Any:
        """The pass under way in this thread."""
        return self.passes.get(thread())

    def due(self) -> bool:
        """Whether a pass begins: the model was called as it was thinned, or a checkpoint runs again."""
        if thread() not in self.hooks.open:
            return recomputing() and next_mark() in self.recent
        self.recent[next_mark()] = None
        if len(self.recent) > RECENT:
            del self.recent[next(iter(self.recent))]
        return True

    def unmark(self) -> None:
        """The call that the next number marks is no pass."""
        if self.recent and not torch.compiler.is_compiling() and not recomputing():
            self.recent.pop(next_mark(), None)

    def check(self) -> None:
        """At the end of a call of the model."""
        raise NotImplementedError

    def close(self) -> None:
        """Forget the pass."""
        for each in (thread(), COMPILED):
            self.passes.pop(each, None)


class ModelHooks:
    """The hooks of a thinned model: its chains and branches have passes only while it runs."""

    def __init__(self, owner: nn.Module) -> None:
        arguments = inspect.signature(owner.forward).parameters.values()
        positional = [each for each in arguments if each.kind <= each.POSITIONAL_OR_KEYWORD]
        self.required = sum(each.default is each.empty for each in positional)
        self.running: list[Running] = []
        self.defaults = defaults(owner)
        self.open: dict[int, None] = {}  # threads
        owner.register_forward_pre_hook(self.enter, with_kwargs=True)
        owner.register_forward_hook(self.check)
        owner.register_forward_hook(self.leave, always_call=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "open": {}}

    def enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Before the model runs: with arguments beyond those it was traced with, another way may be taken."""
        known = all(self.defaults.get(name, value) is value for name, value in kwargs.items())
        if known and len(args) <= self.required:
            self.open[thread()] = None
        for each in self.running:
            each.close()

    def check(self, module: nn.Module, args: Any, output: Any) -> None:
        """After it, where it raised nothing."""
        for each in self.running:
            each.check()

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """After it, in any case."""
        self.open.pop(thread(), None)
        for each in self.running:
            each.close()


def next_mark() -> int:
    """The next number of torch's generator, which stays as it is."""
    state = torch.get_rng_state()
    mark = random_seed()
    torch.set_rng_state(state)
    return mark


def thread() -> int:
    """This thread, or what stands for it."""
    return COMPILED if torch.compiler.is_compiling() else threading.get_ident()
