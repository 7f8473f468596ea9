"""Chains of a torch model in a prediction: each sample draws units, and computes these alone."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thinned._plans import gain
from thinned.kernels import survivors
from thinned.kernels.groups import Picks
from thinned.key import Key
from thinned.masks import keep_mask
from thinned.nn.modules import Drop
from thinned.nn.thin.convert import install
from thinned.nn.thin.find_chains import FoundChain, find_chains
from thinned.nn.thin.run_chains import ChainPass, RunningChain
from thinned.nn.thin.selection import Units
from thinned.nn.thin.tracing import TracedModule
from thinned.uncertainty.torch_graph import Cut
from thinned.uncertainty.torch_inputs import Inputs


def thinned(part: Cut, live: Mapping[str, Drop], rows: Inputs) -> tuple[list[SampledChain], list[str]]:
    """The chains of the graph that a sample thins, and the dropouts of those that it does not.

    A dropout that sees several rows of a sample, as the positions of a sequence, draws a mask for each row:
    behind a mean over positions, one mask for all would give a spread of another size.
    """
    found = dict(find_chains(TracedModule(part.model, part.graph, "")))
    chains = {name: what for name, what in found.items() if name in live and isinstance(what, FoundChain)}
    alone = _one_row_a_sample(part, chains, live, rows)
    return [SampledChain(part, chains[name]) for name in alone], [
        name for name in chains if name not in alone
    ]


def _one_row_a_sample(
    part: Cut, found: Mapping[str, FoundChain], live: Mapping[str, Drop], rows: Inputs
) -> list[str]:
    """The dropouts that see one row for each sample, in batches of two sizes."""
    seen: dict[str, list[bool]] = {name: [] for name in found}

    def see(name: str, samples: int, module: nn.Module, args: tuple[Any, ...]) -> None:
        (x,) = args
        seen[name].append(x.dim() == 2 + found[name].rank and len(x) == samples)

    for given in (rows, rows.repeated(torch.arange(2 * rows.rows) // 2)):
        hooks = [live[name].register_forward_pre_hook(partial(see, name, given.rows)) for name in found]
        try:
            part.after(part.before(given))
        except Exception:  # a model may take batches of one size alone
            return []
        finally:
            for hook in hooks:
                hook.remove()
    return [name for name, fits in seen.items() if fits == [True, True]]


class SampledChain(RunningChain):
    """A chain in its model. Its units survive in all rows of a sample, each with probability 1 − p.

    ``cached``: the head computes all its units, once, and its dropout selects the survivors.
    """

    def __init__(self, part: Cut, found: FoundChain) -> None:
        super().__init__(part.model, "", found, 1, hooks=None)
        self.name, self.cached = found.drop, found.producer in part.computed
        self.turned: tuple[Tensor, Tensor] | None = None  # the matrix of all units, and its transpose
        install(part.model, found, self)

    def __str__(self) -> str:
        return f"{super().__str__()}, drawn once a sample"

    def pick(self, key: Key) -> None:
        """Draw the survivors of the sample with this key."""
        p, every = self.drop.p, np.arange(self.n)
        kept = keep_mask(self.n, p, key=key.fold_in(self.name))
        units = Units.of(Picks(self.n, 1, every, kept[None]), gain(p) if self.folded else 1.0)
        self.passes[threading.get_ident()] = ChainPass(units, gain(p), narrow=0 < kept.sum() < self.n)

    def begin(self, x: Tensor) -> Units | None:
        """The survivors that were drawn."""
        return self.units

    def dropped(self, x: Tensor) -> Tensor | None:
        """The result of the dropout: the survivors, selected from all units if these are cached."""
        now, units = self.now, self.units
        if now is not None and units is not None and self.cached:
            x = self._taken(x, units, x.dim() - 1 - self.rank)
        return super().dropped(x)

    def _taken(self, x: Tensor, units: Units, axis: int) -> Tensor:
        """The surviving units of x.

        Rows are faster to select than columns. All samples share the matrix, so it is transposed once.
        """
        if axis != 1 or not x.is_contiguous() or x.device.type != "cpu":
            return x.index_select(axis, units.index[0].to(x.device))
        picked = units.index[0].numpy()
        taken: Tensor
        if x.dim() > 2:
            taken = survivors.take(x, None, picked)
            return taken
        if self.turned is None or self.turned[0] is not x:
            self.turned = x, x.T.contiguous()
        taken = survivors.take(self.turned[1], picked)
        return taken.T
