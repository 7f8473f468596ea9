"""How a case is measured: contestants in turn, round after round, in one process.

A drift of the machine's speed so affects all of them alike. Results are the median, the distance of the
quartiles, and the median of the ratios within a round.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from thinned.lab.errors import LabError

WARM = 1e-3  # seconds: shorter calls are repeated within a round, to run warm
LONG = 0.1  # seconds: a longer call is never repeated, nor called twice to estimate its time


@dataclass(frozen=True)
class Case:
    """The contestants of one row of a table.

    Where ``unit`` is "s", they are timed in turn and their results thrown away. Else each is called once and
    returns the measured number, in that unit.
    """

    group: str  # a table's title: "dropout forward", "thin step"
    name: str  # a row: "512K, p = 0.5"
    ours: str  # the contestant whose ratios are shown
    contestants: Mapping[str, Callable[[], object]]
    goals: Mapping[str, float] = field(default_factory=dict)  # the largest ratio of ours to a contestant
    threads: int = 1
    elements: int = 0  # of a call's data: the table shows the cost of one
    unit: str = "s"  # or "B", or another, which the title of the table names
    few: int | None = None  # at most so many rounds, where a call takes seconds
    before: Callable[[], object] | None = None  # runs before each call, untimed


@dataclass(frozen=True)
class Effort:
    """How long a case is measured: so many seconds a contestant and at least so many rounds.

    A case of long calls ends with ``few`` rounds once it has taken ``patience`` seconds.
    """

    seconds: float = 0.6
    rounds: int = 15
    few: int = 7
    patience: float = 10.0


FULL, QUICK = Effort(), Effort(seconds=0.05, rounds=3, few=1, patience=1.0)


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """The spread of one value or more."""
        few = len(values) < 2
        low, median, high = values * 3 if few else statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Result:
    """A measured case: every contestant's figures, and the ratio of ours to each other."""

    group: str
    name: str
    ours: str
    threads: int
    elements: int
    unit: str
    figures: dict[str, Spread]
    ratios: dict[str, Spread]  # ours / the other, within a round
    goals: dict[str, float]

    def met(self, other: str) -> bool:
        """Whether the median ratio to this contestant meets the goal."""
        return self.ratios[other].median <= self.goals[other]


def contest(case: Case, effort: Effort = FULL) -> Result:
    """Run the contestants of a case on its number of threads."""
    with on_threads(case.threads):
        if case.unit == "s":
            few = min(effort.few, case.few or effort.few)
            taken = rounds(case.contestants, replace(effort, few=few), case.before)
        else:
            taken = {label: [number(ask())] for label, ask in case.contestants.items()}
    ours = taken[case.ours]
    others = [label for label in taken if label != case.ours]
    return Result(
        group=case.group,
        name=case.name,
        ours=case.ours,
        threads=case.threads,
        elements=case.elements,
        unit=case.unit,
        figures={label: Spread.of(values) for label, values in taken.items()},
        ratios={label: Spread.of([*map(ratio, ours, taken[label])]) for label in others},
        goals={label: goal for label, goal in case.goals.items() if label in others},
    )


def rounds(
    contestants: Mapping[str, Callable[[], object]],
    effort: Effort,
    before: Callable[[], object] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, each round in another order (the same in every run)."""
    repeats = {}
    for label, work in contestants.items():
        first = seconds(work, 1, before)
        repeats[label] = max(1, round(WARM / seconds(work, 1, before))) if first < LONG else 1
    taken: dict[str, list[float]] = {label: [] for label in contestants}
    labels, shuffle = list(contestants), random.Random(0).shuffle
    begin, done, spent = time.perf_counter(), 0, 0.0
    with no_collection():
        while spent < effort.seconds * len(labels) or done < effort.rounds:
            if done >= effort.few and spent > effort.patience:
                break
            shuffle(labels)
            for label in labels:
                taken[label].append(seconds(contestants[label], repeats[label], before))
            done, spent = done + 1, time.perf_counter() - begin
    return taken


def seconds(work: Callable[[], object], repeats: int, before: Callable[[], object] | None = None) -> float:
    """The mean time of a call, in seconds; `before` runs before each call and is not timed."""
    if before is not None:
        return statistics.fmean(after(before, work) for _ in range(repeats))
    begin = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - begin) / repeats


def after(before: Callable[[], object], work: Callable[[], object]) -> float:
    """The time of one call of `work` after `before`, in seconds."""
    before()
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ratio(ours: float, other: float) -> float:
    """Ours over the other's; 0/0 is 1."""
    if other == 0.0:
        return 1.0 if ours == 0.0 else float("inf")
    return ours / other


def number(value: Any) -> float:
    """The number that a contestant returned, where none is timed."""
    if not isinstance(value, (int, float)):
        raise LabError(f"a contestant that is not timed must return a number, got {type(value).__name__}")
    return float(value)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Set the number of threads of torch, and of our kernels on NumPy arrays, within the block."""
    before, variable = torch.get_num_threads(), os.environ.get("THINNED_NUM_THREADS")
    torch.set_num_threads(count)
    os.environ["THINNED_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        del os.environ["THINNED_NUM_THREADS"]
        if variable is not None:
            os.environ["THINNED_NUM_THREADS"] = variable


@contextmanager
def no_collection() -> Iterator[None]:
    """Switch off Python's cycle collector within the block, as `timeit` does."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def both_passes(
    forward: Callable[..., torch.Tensor], grad: torch.Tensor, *inputs: torch.Tensor
) -> Callable[[], object]:
    """A contestant: a forward pass and the gradients by all inputs."""
    return lambda: torch.autograd.grad(forward(*inputs), inputs, grad)
