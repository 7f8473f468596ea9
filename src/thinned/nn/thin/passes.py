"""Passes of a thinned model. A pass is one call of the model, or a checkpoint that runs a part of it again.

Chains and branches draw once in a pass. Outside of passes they run dense.
"""

from __future__ import annotations

import inspect
import threading
from typing import Any

import torch
from torch import nn

from thinned.nn.stream import RECENT, each_example, next_mark, recomputing
from thinned.nn.thin.tracing import defaults

COMPILED = 0  # in a compiled graph, in place of the thread's number


class Running:
    """The base class of running chains and branches: a drop module, and a pass in each thread."""

    drop: Any
    hooks: Any  # the `ModelHooks` of the model; None if the caller begins passes itself

    def forget(self) -> None:
        """Forget all passes."""
        self.passes: dict[int, Any] = {}  # thread -> its pass
        self.recent: dict[int, None] = {}  # the marks of passes, in case checkpointing runs them again

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("passes", "recent")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.forget()

    @property
    def now(self) -> Any:
        """This thread's pass; None outside of passes."""
        return self.passes.get(thread())

    def due(self) -> bool:
        """Whether a pass begins here: in a call of the model, or when checkpointing runs a part again.

        None does where each example of a vmap has its own mask: they have no survivors in common.
        """
        if each_example():
            return False
        if thread() not in self.hooks.open:
            return recomputing() and next_mark() in self.recent
        self.recent[next_mark()] = None
        if len(self.recent) > RECENT:
            del self.recent[next(iter(self.recent))]
        return True

    def unmark(self) -> None:
        """Forget the mark of the next call, which is no pass."""
        if self.recent and not torch.compiler.is_compiling() and not each_example() and not recomputing():
            self.recent.pop(next_mark(), None)

    def check(self) -> None:
        """Called at the end of a call of the model that raised nothing."""
        raise NotImplementedError

    def close(self) -> None:
        """End this thread's pass."""
        for each in (thread(), COMPILED):
            self.passes.pop(each, None)


class ModelHooks:
    """The hooks of a thinned model. They allow passes only while the model runs.

    ``any_call``: whatever its arguments are, it runs the layers that were found.
    """

    def __init__(self, owner: nn.Module, any_call: bool = False) -> None:
        self.any_call = any_call
        arguments = inspect.signature(owner.forward).parameters.values()
        positional = [each for each in arguments if each.kind <= each.POSITIONAL_OR_KEYWORD]
        self.required = sum(each.default is each.empty for each in positional)
        self.running: list[Running] = []
        self.defaults = defaults(owner)
        self.open: dict[int, None] = {}  # the threads that run the model
        owner.register_forward_pre_hook(self.enter, with_kwargs=True)
        owner.register_forward_hook(self.check)
        owner.register_forward_hook(self.leave, always_call=True)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "open": {}}

    def enter(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Called before the model. No pass begins if an argument differs from those that were traced."""
        known = all(self.defaults.get(name, value) is value for name, value in kwargs.items())
        if self.any_call or (known and len(args) <= self.required):
            self.open[thread()] = None
        for each in self.running:
            each.close()

    def check(self, module: nn.Module, args: Any, output: Any) -> None:
        """Called after the model, if it raised nothing."""
        for each in self.running:
            each.check()

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """Called after the model in any case."""
        self.open.pop(thread(), None)
        for each in self.running:
            each.close()


def thread() -> int:
    """The number of this thread; COMPILED in a compiled graph."""
    return COMPILED if torch.compiler.is_compiling() else threading.get_ident()
