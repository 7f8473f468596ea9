"""Modules of a torch model that call dropout as a function: a prediction runs them in training mode."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from thinned.key import Key
from thinned.nn.batches import Batch
from thinned.nn.keyed import entered, names_of
from thinned.nn.modules import Drop
from thinned.nn.reach import Watch
from thinned.nn.stream import Block

Run = Callable[[], Tensor]  # the model's output for some rows
Agree = Callable[[Tensor, Tensor], bool]


@dataclass(frozen=True)
class Callers:
    """The modules that drop in training mode, how each does, and why others are left in evaluation."""

    modules: list[nn.Module] = field(default_factory=list)
    random: dict[str, str] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)

    def only(self, names: Container[str]) -> Callers:
        """Those of these names; the others are in evaluation."""
        pairs = list(zip(self.modules, self.random.items(), strict=True))
        for module, (name, _) in pairs:
            module.training = name in names
        kept = [(module, item) for module, item in pairs if item[0] in names]
        return Callers([module for module, _ in kept], dict(item for _, item in kept), self.fixed)


def find_callers(
    model: nn.Module, run: Run, agree: Agree, suspected: Mapping[str, str], rows: int
) -> Callers:
    """The callers among the modules of a model in evaluation, which then are in training mode.

    ``suspected``: what may drop, by name, and why it was left. A module whose training mode changes more than
    its dropout stays in evaluation.
    """
    names = {name: module for module, name in names_of(model).items()}
    with Watch() as watch:
        run()
    seen = {name for name, module in names.items() if module in watch.seen} | set(suspected)
    tried = [name for name in names if name in seen and not isinstance(names[name], Drop)]

    def tried_out(some: list[str]) -> tuple[dict[str, str], Tensor]:
        for name in some:
            names[name].training = True
        try:
            with entered(model, Key(0), Block(0, Batch(rows))) as reach:
                reach.off = True
                y = run()
                reach.drops.clear()
                reach.off = False
                run()
                return reach.dropping(), y
        finally:
            for name in some:
                names[name].training = False

    _, still = tried_out([])
    found, y = tried_out(tried)
    fixed: dict[str, str] = {}
    if not agree(y, still):
        for name in tried:
            if not agree(tried_out([name])[1], still):
                fixed[name] = "is in evaluation: its training mode changes more than its dropout"
        found, _ = tried_out([name for name in tried if name not in fixed])
    random = {name: how for name, how in found.items() if name in names}
    modules = [names[name] for name in random]
    for module in modules:
        module.training = True
    rest = {name: why for name, why in suspected.items() if name not in random}
    return Callers(modules, random, rest | fixed)
