"""Experiments of the sources, one file each: settings, what is trained, and the source's own figures."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinned.lab.errors import LabError
from thinned.lab.reporting.page import Page
from thinned.lab.reporting.progress_bars import Line
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Stored
from thinned.lab.sweeping.job import Job

NAMES = (
    "mnist-table2",
    "mnist-data-size",
    "mnist-keep-rate",
    "mnist-architectures",
    "mnist-gaussian",
    "mnist-features",
    "mnist-sparsity",
    "mnist-averaging",
    "linear-theory",
    "cifar10-mlp",
    "spiral",
    "ensemble",
    "calibration",
    "dropconnect-mnist",
    "spatial-dropout",
    "dropblock",
    "stochastic-depth",
    "cutout-length",
    "attentive-cutmix",
    "norms",
)
BUDGETS = ("smoke", "quick", "paper")


@dataclass(frozen=True)
class Target:
    """One row of the source's table: its name, its test error in % if printed."""

    label: str
    theirs: float | None = None


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Args:
        name: on the command line.
        summary: one sentence.
        source: where its figures come from.
        budgets: what each budget trains, in words.
        seeds: how many seeds each budget takes by default.
        jobs: (budget, seeds, data folder or None) -> the runs to train.
        settings: (budget, jobs) -> the settings as a report prints them.
        page: (record, runs) -> the report.
        work: budget -> multiplications of one seed, about.
        label: configuration of a run -> its row.
        targets: the rows that there should be.
        line: a line of history as the source prints it, or None.
    """

    name: str
    summary: str
    source: str
    budgets: Mapping[str, str]
    seeds: Mapping[str, int]
    jobs: Callable[[str, Sequence[int], Path | None], list[Job]]
    settings: Callable[[str, Sequence[Job]], dict[str, str]]
    page: Callable[[Record, Sequence[Stored]], Page]
    work: Callable[[str], float]
    label: Callable[[Mapping[str, Any]], str]
    targets: Sequence[Target]
    line: Line | None = None


def load(name: str) -> Experiment:
    """The experiment of that name; LabError with the nearest known name where there is none."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise LabError(f"experiment: expected one of {', '.join(NAMES)}, got {name!r}{hint}")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    experiment: Experiment = module.EXPERIMENT
    return experiment
