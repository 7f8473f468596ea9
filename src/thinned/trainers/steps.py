"""What the callbacks share: swapping, thinning, rates and keys over the steps of a training run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import nn

from thinned import _checks
from thinned.key import Key, is_key
from thinned.nn import Swap, Thinning, keyed, set_rate, swap_dropout, thin, thinning
from thinned.nn.keyed import named_drops
from thinned.schedules import SCHEDULES

_log = logging.getLogger("thinned")
Schedule = Callable[[float, int, int], float]


class Dropping:
    """Dropout over a training run.

    Args:
        schedule: a name of `thinned.schedules.SCHEDULES`, or a function (p, step, steps) -> rate. The p of a
            module is the rate that it has when training begins. ``"early"`` drops only in the first part,
            ``"late"`` only in the last.
        key: masks then depend only on this key, the step, the module's name and the sample's index in the
            whole batch (`thinned.nn.keyed`). None: masks follow torch's generator.
        swap: replace torch's dropout modules by their twins first.
        thin: compute only the units that survive (`thinned.nn.thin`). True takes the whole model, a name the
            part of it that the training step calls, such as ``"model"``.
        groups: of `thinned.nn.thin`.
        options: of the schedule, such as ``until=0.2`` for ``"early"``.

    A step is a step of the optimizer. The samples of a batch are numbered process by process and, with
    accumulated gradients, one micro-batch after the other. All batches must have the same size, but for the
    last.

    Attributes:
        swapped: what `swap_dropout` replaced, and what it could not reach; None before training.
        thinned: what `thin` found, and what stays dense; None before training, or without ``thin``.
        rates: the rates of this step by the module's name.

    Raises ValueError or TypeError if an argument has a wrong kind or range.
    """

    def __init__(
        self,
        schedule: str | Schedule = "constant",
        *,
        key: Key | None = None,
        swap: bool = True,
        thin: bool | str = False,
        groups: Any = "auto",
        **options: Any,
    ) -> None:
        if isinstance(schedule, str):
            schedule = SCHEDULES[_checks.one_of("schedule", schedule, tuple(SCHEDULES))]
        elif not callable(schedule):
            raise TypeError(f"schedule must be a name or a function, got {type(schedule).__name__}")
        self.schedule: Schedule = partial(schedule, **options) if options else schedule
        self.schedule(0.5, 0, 1)  # wrong options are refused here, not in the first step
        if key is not None:
            is_key("key", key)
        self.key, self.swap, self.thin, self.groups = key, bool(swap), thin, groups
        self.swapped: Swap | None = None
        self.thinned: Thinning | None = None
        self.rates: dict[str, float] = {}
        self._full: dict[str, float] = {}
        self._open = ExitStack()

    def begin(self, model: nn.Module) -> None:
        """Swap and thin the model, and say by name what is not reached."""
        if self.swap:
            self.swapped = swap_dropout(model)
            for name, why in self.swapped.unreached.items():
                _log.warning("dropout of %s is not reached: %s", name or "the model", why)
        if self.thin:
            part = model if self.thin is True else model.get_submodule(self.thin)
            self.thinned = thinning(thin(part, self.groups))
            for name, why in self.thinned.dense.items():
                _log.warning("%s stays dense: %s", name or "the model", why)
            self._watch(part)
        self._full = {name: drop.p for name, drop in named_drops(model)}
        if not self._full:
            raise ValueError("model must hold dropout modules, got none (see thinned.nn.swap_dropout)")

    def _watch(self, part: nn.Module) -> None:
        """Remember whether the part that was thinned is called as a whole."""
        self._called = False

        def called(*_: Any) -> None:
            self._called = True
            hook.remove()

        hook = part.register_forward_pre_hook(called)

    def step(self, model: nn.Module, step: int, steps: int, sample_offset: int = 0) -> None:
        """Set the rates of a step, and its key until `leave`."""
        self.leave()
        rates = {name: self.schedule(p, min(step, steps), steps) for name, p in self._full.items()}
        if rates != self.rates:
            self.rates = set_rate(model, rates)
        if self.key is not None:
            self._open.enter_context(keyed(model, self.key, step, sample_offset))

    def leave(self) -> None:
        """End the block of `step`; without one, do nothing."""
        self._open.close()

    def check(self) -> None:
        """After the first step: say so if the part that was thinned was not called."""
        if self.thin and not self._called:
            what = "the model itself" if self.thin is True else f"{self.thin!r}"
            _log.warning(
                "thin has no effect: the training step does not call %s, but parts of it; "
                "name the part that it calls, as in thin='model'",
                what,
            )
            self._called = True

    def end(self, model: nn.Module) -> None:
        """Give each module back the rate with which training began."""
        self.leave()
        set_rate(model, self._full)

    def logged(self) -> dict[str, float]:
        """The rates for a logger: one number if all modules have the same, else one for each."""
        values = set(self.rates.values())
        if len(values) == 1:
            return {"dropout_p": values.pop()}
        return {f"dropout_p/{name}": rate for name, rate in self.rates.items()}
