"""The configuration of a run: everything that decides its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from thinned import _checks
from thinned.activations import COMPARED
from thinned.lab import choices
from thinned.lab.training.learning_rate import SCHEDULES, rate

VERSION = 2  # of the training code: raised when the same configuration would give another result


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides the result of a run, and nothing else.

    Args:
        data, fingerprint: name and hash of the data set.
        method: a row of `thinned.methods`, or `"none"`; then `p` and `input_p` are 0.
        p, input_p: probability of dropping a hidden unit, an input.
        max_norm: bound on the norm of a unit's incoming weights, or None.
        l2: weight of ‖W‖²/2 in the loss.
        outputs: units of the last layer, at least the number of classes; None for just as many.
        decay: the rate is divided by 1 + decay · step, besides the schedule.
        validation: share of the training data held out to judge by, in place of the test data; 0 for none.
        engine: who computes, `numpy` or `torch`.
        device, precision: where torch computes, `cpu` or `cuda`, and how precisely: `32`, or `bf16`, products
            of bfloat16 numbers, parameters of float32.
        log: a line of history each so many epochs.

    Raises:
        TypeError, ValueError: a setting that makes no sense; the message names it.
    """

    data: str
    fingerprint: str
    method: str = "none"
    hidden: tuple[int, ...] = (256, 256)
    outputs: int | None = None
    activation: str = "relu"
    p: float = 0.5
    input_p: float = 0.0
    max_norm: float | None = None
    l2: float = 0.0
    epochs: int = 20
    batch: int = 128
    optimizer: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    decay: float = 0.0
    schedule: str = "linear"
    seed: int = 0
    validation: float = 0.0
    dtype: str = "float32"
    engine: str = "numpy"
    device: str = "cpu"
    precision: str = "32"
    log: int = 1
    version: int = VERSION

    def __post_init__(self) -> None:
        def check(name: str, rule: Callable[..., Any], *arguments: Any) -> None:
            object.__setattr__(self, name, rule(name, getattr(self, name), *arguments))

        check("engine", _checks.one_of, choices.ENGINES)
        check("method", _checks.one_of, choices.applicable(self.engine))
        check("hidden", _sizes)
        for name in ("epochs", "batch", "log"):
            check(name, _checks.positive_int)
        if self.outputs is not None:
            check("outputs", _checks.positive_int)
        for name in ("p", "input_p"):
            check(name, _checks.probability)
            if getattr(self, name) == 1.0:
                raise ValueError(f"{name} must be below 1 to train a network: 1 drops every unit")
        for name in ("l2", "decay"):
            check(name, _checks.non_negative)
        check("lr", _checks.positive)
        if self.max_norm is not None:
            check("max_norm", _checks.positive)
        check("seed", _checks.integer, 0, 1 << 64)
        for name, rule in (("momentum", _checks.non_negative), ("validation", _checks.non_negative)):
            check(name, rule)
            if getattr(self, name) >= 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name):g}")
        check("activation", _checks.one_of, COMPARED)
        check("optimizer", _checks.one_of, ["sgd", "adam"])
        check("schedule", _checks.one_of, SCHEDULES)
        check("dtype", _checks.one_of, ["float32", "float64"])
        if not choices.can(self.engine, self.method, self.activation):
            raise ValueError(f"activation {self.activation} needs the engine numpy, got {self.engine!r}")
        check("device", _checks.one_of, choices.DEVICES)
        check("precision", _checks.one_of, choices.PRECISIONS)
        for name, usual in choices.USUAL.items():
            if self.engine != "torch" and getattr(self, name) != usual:
                raise ValueError(f"{name} {getattr(self, name)} needs the engine torch, got {self.engine!r}")
        if self.precision != "32" and self.dtype != "float32":
            raise ValueError(f"precision {self.precision} needs the dtype float32, got {self.dtype!r}")
        self._forget_what_has_no_effect()

    def learning_rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0 … steps − 1 of this run."""
        return rate(step, steps, lr=self.lr, schedule=self.schedule, decay=self.decay)

    def _forget_what_has_no_effect(self) -> None:
        """Settings without effect get one value, so that equal runs have equal names."""
        if self.method == "none":
            object.__setattr__(self, "p", 0.0)
            object.__setattr__(self, "input_p", 0.0)
        if self.optimizer != "sgd":
            object.__setattr__(self, "momentum", 0.0)
        if self.momentum == 0.0:
            object.__setattr__(self, "nesterov", False)


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    """One or more layer sizes, each at least 1."""
    try:
        sizes = tuple(value)
    except TypeError:
        raise TypeError(f"{name} must be layer sizes such as (256, 256), got {value!r}") from None
    if not sizes:
        raise ValueError(f"{name} must hold at least one layer size, got none")
    return tuple(_checks.positive_int(f"{name}[{i}]", size) for i, size in enumerate(sizes))
