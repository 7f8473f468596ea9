"""The configuration of a run: everything that decides its result.

Each setting declares its default, its rule, its help and its words in a report. The command line, the checks
and the reports follow from that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinned import _checks
from thinned.activations import COMPARED
from thinned.lab import choices
from thinned.lab.training.learning_rate import SCHEDULES, rate

VERSION = 2  # of the training code: raised when the same configuration would give another result

Rule = Callable[[str, Any], Any]  # (name, value) -> the value, or an error that names the setting
Words = Callable[[Mapping[str, Any]], str]  # all settings by name -> what a report says of one of them

# The lines of a report that show settings, and which settings each shows.
REPORT_LINES: dict[str, tuple[str, ...]] = {
    "network": ("hidden", "activation"),
    "engine": ("engine",),
    "dropping": ("method", "p", "input_p"),
    "regularisation": ("l2", "max_norm"),
    "training": ("epochs", "batch", "optimizer", "momentum"),
    "learning rate": ("lr", "schedule", "decay"),
}


def setting(default: Any, rule: Rule, help: str = "", words: str | Words = "") -> Any:
    """A field of `Config`.

    Args:
        default: its value where none is given.
        rule: checks a value.
        help: what it is, on the command line.
        words: what a report says of it, in its line of `REPORT_LINES`: a format that takes all settings by
            name, or a function of them; empty for nothing.
    """
    shown = words.format_map if isinstance(words, str) else words
    return dataclasses.field(default=default, metadata={"rule": rule, "help": help, "words": shown})


def _one_of(names: Sequence[str]) -> Rule:
    return lambda name, value: _checks.one_of(name, value, names)


def _or_none(rule: Rule) -> Rule:
    return lambda name, value: None if value is None else rule(name, value)


def _below_one(name: str, value: Any) -> float:
    value = _checks.non_negative(name, value)
    if value >= 1.0:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value:g}")
    return value


def _rate(name: str, value: Any) -> float:
    value = _checks.probability(name, value)
    if value == 1.0:
        raise ValueError(f"{name} must be below 1, got 1, which drops every unit")
    return value


def _seed(name: str, value: Any) -> int:
    return _checks.integer(name, value, 0, 1 << 64)


def _sizes(name: str, value: Any) -> tuple[int, ...]:
    """One or more layer sizes, each at least 1; also as text, `256,128`."""
    try:
        sizes = tuple(map(int, value.split(","))) if isinstance(value, str) else tuple(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be layer sizes such as 256,128, got {value!r}") from None
    if not sizes:
        raise ValueError(f"{name} must have at least one layer size, got none")
    return tuple(_checks.positive_int(f"{name}[{i}]", size) for i, size in enumerate(sizes))


def _any(name: str, value: Any) -> Any:
    return value


def _network(v: Mapping[str, Any]) -> str:
    return "-".join(map(str, (v["inputs"], *v["hidden"], v["outputs"])))


def _max_norm(v: Mapping[str, Any]) -> str:
    return f"max-norm {v['max_norm']:g}" if v["max_norm"] else "no max-norm"


def _momentum(v: Mapping[str, Any]) -> str:
    return f"momentum {v['momentum']:g}{' (Nesterov)' if v['nesterov'] else ''}" if v["momentum"] else ""


def _decay(v: Mapping[str, Any]) -> str:
    return f"decay {v['decay']:g}" if v["decay"] else ""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides the result of a run, and nothing else.

    Args:
        data, fingerprint: name and hash of the data set.
        method: a row of `thinned.methods`, or `"none"`; then `p` and `input_p` are 0.
        p, input_p: probability of dropping a hidden unit, an input.
        max_norm: bound on the norm of a unit's incoming weights, or None.
        l2: weight of ‖W‖²/2 in the loss.
        outputs: units of the last layer, at least the number of classes; None for exactly that number.
        decay: the rate is divided by 1 + decay · step, in addition to the schedule.
        validation: share of the training data to judge by, in place of the test data; 0 for none.
        engine: the library that computes, `numpy` or `torch`.
        device: where torch computes, `cpu` or `cuda`.
        precision: `32`, or `bf16`: products of bfloat16 numbers, parameters in float32.
        log: history gets a line every so many epochs.

    Raises:
        TypeError, ValueError: a setting breaks its rule; the message names the setting.
    """

    data: str
    fingerprint: str
    method: str = "none"
    hidden: tuple[int, ...] = setting((256, 256), _sizes, "sizes of the hidden layers", _network)
    outputs: int | None = setting(None, _or_none(_checks.positive_int))
    activation: str = setting("relu", _one_of(COMPARED), choices.listed(COMPARED), "{activation}")
    p: float = setting(0.5, _rate, "probability of dropping a hidden unit", "p = {p:g} for hidden units")
    input_p: float = setting(0.0, _rate, "probability of dropping an input", "{input_p:g} for inputs")
    max_norm: float | None = setting(
        None,
        _or_none(_checks.positive),
        "bound on the norm of a hidden unit's incoming weights",
        _max_norm,
    )
    l2: float = setting(0.0, _checks.non_negative, "weight of ‖W‖²/2 in the loss", "L2 {l2:g}")
    epochs: int = setting(20, _checks.positive_int, "passes through the training data", "{epochs} epochs")
    batch: int = setting(128, _checks.positive_int, "examples in a step", "batches of {batch}")
    optimizer: str = setting(
        "sgd", _one_of(choices.OPTIMIZERS), choices.listed(choices.OPTIMIZERS), "{optimizer}"
    )
    lr: float = setting(0.1, _checks.positive, "learning rate", "{lr:g}")
    momentum: float = setting(0.9, _below_one, "momentum of sgd", _momentum)
    nesterov: bool = setting(True, _any, "Nesterov's momentum")
    decay: float = setting(0.0, _checks.non_negative, words=_decay)
    schedule: str = setting(
        "linear", _one_of(list(SCHEDULES)), f"of the learning rate: {choices.listed(SCHEDULES)}", "{schedule}"
    )
    seed: int = setting(0, _seed)
    validation: float = setting(
        0.0,
        _below_one,
        "share of the training data to judge by, in place of the test data: to choose settings",
    )
    dtype: str = setting("float32", _one_of(["float32", "float64"]))
    engine: str = setting(
        "numpy",
        _one_of(choices.ENGINES),
        f"{choices.listed(choices.ENGINES)}: the masks are the same",
        choices.text,
    )
    device: str = setting(
        "cpu", _one_of(choices.DEVICES), f"where torch computes: {choices.listed(choices.DEVICES)}"
    )
    precision: str = setting(
        "32",
        _one_of(choices.PRECISIONS),
        f"of torch: {choices.listed(choices.PRECISIONS)}; bf16 multiplies bfloat16 numbers, by autocast",
    )
    log: int = setting(1, _checks.positive_int)
    version: int = VERSION

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if rule := field.metadata.get("rule"):
                object.__setattr__(self, field.name, rule(field.name, getattr(self, field.name)))
        _checks.one_of("method", self.method, choices.applicable())
        self._check_what_goes_together()
        self._forget_what_has_no_effect()

    def learning_rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0 … steps − 1 of this run."""
        return rate(step, steps, lr=self.lr, schedule=self.schedule, decay=self.decay)

    def _check_what_goes_together(self) -> None:
        if not choices.can(self.engine, self.activation):
            raise ValueError(
                f"engine must be 'numpy' for the activation {self.activation}, got {self.engine!r}"
            )
        for name, usual in choices.USUAL.items():
            if self.engine != "torch" and (value := getattr(self, name)) != usual:
                raise ValueError(f"engine must be 'torch' for the {name} {value}, got {self.engine!r}")
        if self.precision != "32" and self.dtype != "float32":
            raise ValueError(
                f"dtype must be 'float32' for the precision {self.precision}, got {self.dtype!r}"
            )

    def _forget_what_has_no_effect(self) -> None:
        """Settings without effect get one value, so that equal runs have equal names."""
        if self.method == "none":
            object.__setattr__(self, "p", 0.0)
            object.__setattr__(self, "input_p", 0.0)
        if self.optimizer != "sgd":
            object.__setattr__(self, "momentum", 0.0)
        if self.momentum == 0.0:
            object.__setattr__(self, "nesterov", False)


SETTINGS = {field.name: field for field in dataclasses.fields(Config) if field.metadata}


def shown(config: Config, inputs: int, outputs: int) -> dict[str, str]:
    """The settings as a report prints them, a line each of `REPORT_LINES`."""
    values = vars(config) | {"inputs": inputs, "outputs": outputs}
    lines = {}
    for line, names in REPORT_LINES.items():
        words = [SETTINGS[name].metadata["words"](values) for name in names if name in SETTINGS]
        lines[line] = ", ".join(filter(None, words))
    return lines
