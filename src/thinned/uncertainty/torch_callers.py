"""Modules of a torch model that call dropout as a function: a prediction runs them in training mode."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from thinned.key import Key
from thinned.nn.batches import Batch
from thinned.nn.keyed import entered, names_of
from thinned.nn.modules import Drop
from thinned.nn.reach import Watch
from thinned.nn.stream import Block
from thinned.nn.unreached import may_draw

Run = Callable[[], Tensor]  # the model's output for some rows
Agree = Callable[[Tensor, Tensor], bool]


@dataclass(frozen=True)
class Callers:
    """The modules that drop in training mode, how each does, and why others are left in evaluation."""

    modules: list[nn.Module] = field(default_factory=list)
    random: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    drawn: dict[str, str] = field(default_factory=dict)  # module -> a random function that it always calls

    def only(self, names: Container[str]) -> Callers:
        """Those of these names; the others are in evaluation."""
        pairs = list(zip(self.modules, self.random.items(), strict=True))
        for module, (name, _) in pairs:
            module.training = name in names
        kept = [(module, item) for module, item in pairs if item[0] in names]
        return Callers([module for module, _ in kept], dict(item for _, item in kept), self.fixed, self.drawn)


class _Trial(NamedTuple):
    """A pass with some modules in training mode."""

    y: Tensor  # the output, while nothing drops
    dropping: dict[str, str]
    drawn: dict[str, str]  # module -> a random function that it calls, which no key reaches


def find_callers(
    model: nn.Module, run: Run, agree: Agree, suspected: Mapping[str, str], rows: int
) -> Callers:
    """The callers among the modules of a model in evaluation, which then are in training mode.

    ``suspected``: what may drop, by name, and why it was left. A module whose training mode changes more than
    its dropout stays in evaluation.
    """
    names = {name: module for module, name in names_of(model).items()}
    state = torch.get_rng_state()

    def tried_out(some: list[str]) -> _Trial:
        for name in some:
            names[name].training = True
        torch.set_rng_state(state)
        try:
            with entered(model, Key(0), Block(0, Batch(rows)), silent=True) as reach:
                reach.off = True
                y = run()
                reach.drops.clear()
                reach.off = False
                run()
                return _Trial(y, reach.dropping(), reach.drawn)
        finally:
            for name in some:
                names[name].training = False

    with Watch() as watch:
        run()
    drawing = {kind for kind in set(map(type, names.values())) if _own(kind) and may_draw(kind)}
    maybe = {name for name, module in names.items() if module in watch.seen or type(module) in drawing}
    tried = [name for name in names if name in maybe | set(suspected) and not isinstance(names[name], Drop)]
    still, trial = tried_out([]), tried_out(tried)
    fixed: dict[str, str] = {}
    if not agree(trial.y, still.y):
        for name in tried:
            alone = tried_out([name])
            if not agree(alone.y, still.y):
                fixed[name] = _why(alone.drawn.get(name), name in alone.dropping)
        trial = tried_out([name for name in tried if name not in fixed])
    random = {name: how for name, how in trial.dropping.items() if name in names}
    modules = [names[name] for name in random]
    for module in modules:
        module.training = True
    rest = {name: why for name, why in suspected.items() if name not in random}
    fixed = {name: why for name, why in fixed.items() if why}
    return Callers(modules, random, rest | fixed, still.drawn)


def _own(kind: type[nn.Module]) -> bool:
    """Whether a class is neither torch's nor ours."""
    return not kind.__module__.startswith(("torch.", "thinned."))


def _why(drawn: str | None, drops: bool) -> str:
    """Why a module is in evaluation, whose training mode changes more than its dropout; "" if it has none."""
    if drawn:
        return f"is in evaluation: its training mode calls {drawn}, which takes no key"
    return "is in evaluation: its training mode changes more than its dropout" if drops else ""
