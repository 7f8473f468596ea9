"""What a report takes from stored runs: rows of a table, curves, and the machine."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thinned.lab.reporting.measure import ERROR, RMSE, TEST, Measure, judged_on, rmse
from thinned.lab.storage.run import Stored

STATES = ("done", "diverged", "failed", "stopped")


@dataclass(frozen=True)
class Row:
    """The runs of one row, one entry per seed.

    Args:
        label: the name of the row.
        test_error: shares from 0 to 1; NaN for a run that has none.
        train_error: the same for the training data.
        seconds_per_epoch: seconds, for any number of runs.
        parameters: the number of trainable parameters.
        status: "done", "diverged", "failed" or "stopped" for each seed; empty if all are done.
        measure: what the errors are measured in.

    Raises:
        ValueError: the lengths differ, or a status is unknown.
    """

    label: str
    test_error: Sequence[float]
    train_error: Sequence[float]
    seconds_per_epoch: Sequence[float]
    parameters: int
    status: Sequence[str] = ()
    measure: Measure = ERROR

    def __post_init__(self) -> None:
        n = len(self.test_error)
        if len(self.train_error) != n or len(self.status) not in (0, n):
            came = f"{n}, {len(self.train_error)} and {len(self.status)}"
            raise ValueError(
                f"row {self.label!r} must have equal numbers of test errors, training errors and states, "
                f"got {came}"
            )
        for state in self.status:
            if state not in STATES:
                raise ValueError(f"status must be one of {', '.join(STATES)}, got {state!r}")


@dataclass(frozen=True)
class Series:
    """The history of one run: the label of its row, its seed, and the columns of `history.csv` over epochs.

    Raises:
        ValueError: a column and `epoch` differ in length.
    """

    label: str
    seed: int
    epoch: Sequence[int]
    columns: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if len(values) != len(self.epoch):
                raise ValueError(
                    f"columns[{name!r}] must have {len(self.epoch)} values as epoch has, got {len(values)}"
                )


def rows(stored: Sequence[Stored], label: Callable[[Mapping[str, Any]], str] | None = None) -> list[Row]:
    """A row for each label, in order of appearance; the runs of a row differ in their seeds."""
    found = []
    measure = _measure(stored)
    for name, members in groups(stored, label).items():
        results = [run.result for run in members]
        found.append(
            Row(
                label=name,
                test_error=[_number(result.get("test_error")) for result in results],
                train_error=[_number(result.get("train_error")) for result in results],
                seconds_per_epoch=[_number(result.get("seconds_per_epoch")) for result in results],
                parameters=max(int(result.get("parameters", 0)) for result in results),
                status=[run.status for run in members],
                measure=measure,
            )
        )
    return found


def _measure(stored: Sequence[Stored]) -> Measure:
    found = ERROR
    if any(run.result.get("judged_by") == RMSE for run in stored):
        found = rmse(_number(run.result.get("test_error")) for run in stored)
    return dataclasses.replace(found, of=judged_on(stored[0].config) if stored else TEST)


def series(stored: Sequence[Stored], label: Callable[[Mapping[str, Any]], str] | None = None) -> list[Series]:
    """The history of every run that has one, under the label of its row."""
    return [
        Series(
            name,
            run.config["seed"],
            [int(epoch) for epoch in run.history["epoch"]],
            {column: values for column, values in run.history.items() if column != "epoch"},
        )
        for name, members in groups(stored, label).items()
        for run in members
        if run.history["epoch"]
    ]


def groups(
    stored: Sequence[Stored], label: Callable[[Mapping[str, Any]], str] | None = None
) -> dict[str, list[Stored]]:
    """The runs of each row."""
    label = label or labeller([run.config for run in stored])
    found: dict[str, list[Stored]] = {}
    for run in stored:
        found.setdefault(label(run.config), []).append(run)
    return found


def labeller(configs: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], str]:
    """A function that labels rows by method, and by every other setting that differs within a method."""
    varying: dict[str, list[str]] = {}
    for config in configs:
        same = [other for other in configs if other["method"] == config["method"]]
        varying[config["method"]] = [
            name
            for name in config
            if name not in ("method", "seed") and any(other.get(name) != config[name] for other in same)
        ]

    def label(config: Mapping[str, Any]) -> str:
        method = str(config["method"])
        rest = ", ".join(f"{name} {_short(config[name])}" for name in varying[method])
        return f"{method} ({rest})" if rest else method

    return label


def machine(stored: Sequence[Stored]) -> dict[str, str]:
    """Where the runs were made; each fact lists all its values."""
    found: dict[str, list[str]] = {}
    for run in stored:
        for name, value in run.result.get("about", {}).items():
            if name != "command" and value is not None and str(value) not in found.setdefault(name, []):
                found[name].append(str(value))
    return {name: ", ".join(values) for name, values in found.items() if values}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
