"""What the command line needs to know of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from thinned.lab.reporting.page import Page
from thinned.lab.reporting.progress_bars import Line
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Stored
from thinned.lab.sweeping.job import Job

BUDGETS = ("smoke", "quick", "paper")
SMOKE = "This is a smoke run of seconds: it shows that all parts work, and its figures mean nothing."


@dataclass(frozen=True)
class Target:
    """One row of the source's table: its label, and the source's test error in %, if it prints one."""

    label: str
    theirs: float | None = None


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Args:
        name: its name on the command line.
        summary: what it shows, in a sentence or two.
        source: where its figures come from.
        budgets: what each budget trains, in words.
        seeds: how many seeds each budget uses by default.
        jobs: (budget, seeds, data folder or None) -> the runs to train.
        settings: (budget, jobs) -> the settings as a report prints them.
        page: (record, runs) -> the report, with what the runs show as its headline.
        work: budget -> approximate number of multiplications for one seed.
        label: configuration of a run -> the label of its row.
        targets: the rows that a complete report has.
        former: labels of rows that are published and no longer trained, with what they are.
        compares: whether its finding compares the test errors of the rows.
        redraw: runs -> a page with finding, tables and pictures, where errors, times and single figures of
            published rows are enough for them.
        line: formats a line of history as the source prints it, or None.
        place: its place in lists of experiments, lowest first; equal places go by name.
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
    former: Mapping[str, str] = field(default_factory=dict)
    compares: bool = False
    redraw: Callable[[Sequence[Stored]], Page] | None = None
    line: Line | None = None
    place: int = 1000

    def report(self, record: Record, stored: Sequence[Stored]) -> Page:
        """The page as a reader gets it: at `smoke`, its headline says that the figures mean nothing."""
        page = self.page(record, stored)
        return replace(page, headline=SMOKE) if record.budget == "smoke" else page
