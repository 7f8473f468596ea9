"""A grid: an experiment declares systems, seeds and three budgets; this file has what all grids share."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thinned import Key
from thinned.key import permutation
from thinned.lab import compare
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.registry import BUILT_IN, load
from thinned.lab.grids.experiment import BUDGETS, Experiment, Target
from thinned.lab.reporting import from_runs
from thinned.lab.reporting.figures import Point, lines
from thinned.lab.reporting.page import Figure, Page, Reference
from thinned.lab.reporting.progress_bars import Line
from thinned.lab.reporting.summary import Stat
from thinned.lab.reporting.wording import number, stat_text
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Stored
from thinned.lab.sweeping.job import Job
from thinned.lab.training.config import REPORT_LINES, Config
from thinned.lab.training.trainer import Trainer

LINES = 100  # approximate number of lines of history for runs of many epochs
NO_TEST_CURVE = "The test data is used once, after the last epoch of a fixed schedule."

Errors = Mapping[str, Stat]  # test error in % by system, for systems with a finished run
Group = Mapping[str, Sequence[Stored]]  # runs by system
Source = Callable[[str, int, int], Dataset]  # (name, training examples, seed) -> the data of a run


@dataclass(frozen=True, kw_only=True)
class GridConfig(Config):
    """`system` is the label of the row; `test_curve`: the source draws test errors over epochs."""

    system: str
    test_curve: bool = False


class GridTrainer(Trainer):
    """Evaluates on the test data once, at the end, unless the source draws test errors over epochs."""

    config: GridConfig

    def tests(self) -> bool:
        """Whether to evaluate on the test data after this epoch."""
        return self.config.test_curve


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of an experiment.

    Args:
        label: its name in tables.
        theirs: the test error in % that the source prints.
        settings: settings of `Config`; they override those of the grid and the budget.
        data: its data set, if it is not the budget's.
        examples: its number of training examples, if it is not the budget's.
        line, x: its line in the experiment's picture, and its place on the horizontal axis.
        budgets: the budgets that include it.
        trainer: the class that trains it.
        config: the class of its configurations, if it is not the grid's.
    """

    label: str
    theirs: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    examples: int | None = None
    line: str = ""
    x: float | None = None
    budgets: Sequence[str] = BUDGETS
    trainer: type[Trainer] = GridTrainer
    config: type[Config] | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is trained.

    Args:
        text: the budget in words.
        data: a built-in data set.
        limit: the largest number of training examples.
        width: factor on the width of every hidden layer.
        seeds: the default number of seeds.
        steps: the smallest number of updates; it matters for systems with few examples.
        settings: settings of `Config`; those of the systems override them.
    """

    text: str
    data: str = "mnist"
    limit: int | None = None
    width: float = 1.0
    seeds: int = 1
    steps: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def examples(self, data: str) -> int:
        """The largest number of training examples."""
        return min(self.limit or math.inf, BUILT_IN[data].examples)  # type: ignore[return-value]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The horizontal axis of an experiment's picture."""

    name: str
    log: bool = False
    log_y: bool = False


def label(config: Mapping[str, Any]) -> str:
    """The label of a run's row."""
    return str(config["system"])


def parts(data_dir: Path | None) -> Source:
    """Built-in data sets cut to a number of training examples, the same ones for each seed."""
    whole = functools.cache(functools.partial(load, data_dir=data_dir))
    part = functools.cache(lambda name, examples: _part(whole(name), examples))
    return lambda name, examples, seed: part(name, examples)


def _part(whole: Dataset, examples: int) -> Dataset:
    """The data with so many training examples; smaller sets are parts of larger ones."""
    if examples >= len(whole.x_train):
        return whole
    rows = permutation(Key(0), len(whole.x_train))[:examples]
    return dataclasses.replace(
        whole,
        x_train=whole.x_train[rows],
        y_train=whole.y_train[rows],
        note=f"{whole.note} {examples:,} of the training examples, chosen with Key(0); all of the test data.",
    )


@dataclass(frozen=True, kw_only=True)
class Grid:
    """An experiment: every system is trained with every seed.

    Args:
        name, title, summary, source: its names on the command line and in the report, and what it shows.
        place: its place in lists of experiments, lowest first.
        settings: settings of `Config` that all systems share.
        systems: the rows.
        budgets: smoke, quick and paper.
        former: labels of rows that are published and no longer trained, with what they are.
        differs: how our protocol differs from the source's.
        baseline: the label of the row that others are compared with.
        axis: the axis of a picture of test errors over `System.x`, if there is one.
        shown: what a report says of settings, where the general text does not fit.
        headline: what the runs show, in a sentence; without one, the report compares test errors.
        notes, tables, figures: more notes, tables and pictures, made from the runs of each system.
        from_rows: whether `tables` and `figures` read only errors, times and single figures of the runs.
        errors: whether rows have test errors.
        curves: whether to draw errors over epochs.
        config: the class of configurations.
        label: configuration of a run -> the label of its row.
        source_of: (data folder) -> the data of each run; if not given, the whole data set or a part of it.
        line: formats a line of history as the source prints it, or None.
    """

    name: str
    place: int
    title: str
    summary: str
    source: str
    settings: Mapping[str, Any]
    systems: Sequence[System]
    budgets: Mapping[str, Budget]
    former: Mapping[str, str] = field(default_factory=dict)
    differs: Sequence[str] = ()
    baseline: str = "none"
    axis: Axis | None = None
    shown: Mapping[str, str] = field(default_factory=dict)
    headline: Callable[[Group], str] | None = None
    notes: Callable[[Group], list[str]] | None = None
    tables: Callable[[Group], list[Reference]] | None = None
    figures: Callable[[Group], list[Figure]] | None = None
    from_rows: bool = False
    errors: bool = True
    curves: bool = True
    config: type[Config] = GridConfig
    label: Callable[[Mapping[str, Any]], str] = label
    source_of: Callable[[Path | None], Source] = parts
    line: Line | None = None

    def experiment(self) -> Experiment:
        """The grid as the command line knows experiments."""
        return Experiment(
            name=self.name,
            summary=self.summary,
            source=self.source,
            budgets={name: budget.text for name, budget in self.budgets.items()},
            seeds={name: budget.seeds for name, budget in self.budgets.items()},
            jobs=self.jobs,
            settings=self.shown_settings,
            page=self.page,
            work=self.work,
            label=self.label,
            targets=tuple(Target(s.label, s.theirs) for s in self.systems),
            former=self.former,
            compares=self.errors and self.headline is None,
            redraw=self.redraw if self.from_rows or not (self.tables or self.figures) else None,
            line=self.line,
            place=self.place,
        )

    def plan(self, budget: str) -> Iterator[tuple[System, dict[str, Any], int]]:
        """Each system of a budget, its settings of `Config`, and its number of training examples."""
        b = self.budgets[budget]
        for system in self.systems:
            data = system.data or b.data
            examples = system.examples or b.examples(data)
            if budget not in system.budgets or examples > b.examples(data):
                continue
            settings = {"data": data, **self.settings, **b.settings, **system.settings}
            settings["hidden"] = tuple(max(4, round(b.width * n)) for n in settings["hidden"])
            batch = min(settings.get("batch", Config.batch), examples)
            least = math.ceil(b.steps / math.ceil(examples / batch))
            settings["epochs"] = max(settings.get("epochs", Config.epochs), least)
            settings.setdefault("log", max(1, settings["epochs"] // LINES))
            yield system, settings, examples

    def jobs(self, budget: str, seeds: Sequence[int], data_dir: Path | None = None) -> list[Job]:
        """Every system with every seed, seed after seed, so that a sweep cut off early has all systems."""
        data_of = self.source_of(data_dir)
        return [
            Job(self._config(system, settings, data, seed), data, system.trainer)
            for seed in seeds
            for system, settings, examples in self.plan(budget)
            for data in [data_of(settings["data"], examples, seed)]
        ]

    def _config(self, system: System, settings: Mapping[str, Any], data: Dataset, seed: int) -> Config:
        """The configuration of a run; only a `GridConfig` names its row."""
        kind = system.config or self.config
        row: dict[str, Any] = {"system": system.label} if issubclass(kind, GridConfig) else {}
        return kind(fingerprint=data.fingerprint, seed=seed, **row, **settings)

    def work(self, budget: str) -> float:
        """Approximate number of multiplications for one seed."""
        total = 0.0
        for system, settings, examples in self.plan(budget):
            data = BUILT_IN[settings["data"]]
            outputs = settings.get("outputs") or data.classes
            total += system.trainer.work(settings, examples, data.inputs, outputs)
        return total

    def shown_settings(self, budget: str, todo: Sequence[Job]) -> dict[str, str]:
        """The settings as a report prints them."""
        networks = [job for job in todo if job.trainer.network]
        first = max(networks or todo, key=lambda job: len(job.dataset.x_train))
        common = compare.settings(first.config, first.dataset, sorted({job.config.seed for job in todo}))
        if not networks:
            common = {name: common[name] for name in ("data", "seeds")}
        varied = _varied([job.config for job in todo])
        # Rows without a network have the engine numpy; that is no difference between networks.
        shows = {**REPORT_LINES, "data": ("data",), "engine": ()}
        common |= {line: "see the rows" for line in common if varied.intersection(shows.get(line, ()))}
        return {"budget": f"{budget}: {self.budgets[budget].text}", **common, **self.shown}

    def page(self, record: Record, stored: Sequence[Stored]) -> Page:
        """The report: the source's figures beside ours, the pictures, and how the protocols differ."""
        groups = self._groups(stored)
        whole = self.redraw(stored)
        return dataclasses.replace(
            whole,
            rows=from_runs.rows(stored, self.label) if self.errors else [],
            series=from_runs.series(stored, self.label) if self.curves and self.errors else [],
            settings=dict(record.settings),
            command=record.command,
            machine=from_runs.machine(stored),
            references=[*([self.beside(groups)] if self.errors else []), *whole.references],
            notes=self._notes(record.budget, groups, stored),
        )

    def redraw(self, stored: Sequence[Stored]) -> Page:
        """The part of the page that is drawn from the runs alone: headline, tables and pictures."""
        groups = self._groups(stored)
        figures = self.figures(groups) if self.figures else []
        return Page(
            title=self.title,
            lead=self.summary,
            rows=[],
            series=[],
            settings={},
            command="",
            machine={},
            references=self.tables(groups) if self.tables else [],
            extras=[*self._picture(errors(groups)), *figures],
            baseline=self.baseline,
            headline=self.headline(groups) if self.headline and stored else "",
        )

    def _groups(self, stored: Sequence[Stored]) -> dict[str, list[Stored]]:
        """The runs of each system."""
        return {
            system.label: [run for run in stored if self.label(run.config) == system.label]
            for system in self.systems
        }

    def _notes(self, budget: str, groups: Group, stored: Sequence[Stored]) -> list[str]:
        """How the protocols differ, what the runs add to that, and what a small budget can show."""
        found = [*self.differs, *(self.notes(groups) if self.notes and stored else [])]
        if self.errors and not any(run.config.get("test_curve", True) for run in stored):
            found.append(NO_TEST_CURVE)
        if budget != "paper":
            text = self.budgets[budget].text
            found.append(
                f"The budget {budget} is smaller than the source's ({text}), so only directions can "
                "be compared."
            )
        return found

    def beside(self, groups: Group) -> Reference:
        """A table of the source's test errors beside ours."""
        printed = any(system.theirs is not None for system in self.systems)
        columns = ["system", "source, test error %", "ours, test error %", "seeds", "minutes of training"]
        rows = []
        for system in self.systems:
            runs = groups[system.label]
            theirs = "–" if system.theirs is None else number(system.theirs)
            if not runs:
                rows.append([system.label, theirs, "not in this budget", "–", "–"])
                continue
            stat, minutes = error(runs), Stat.of([run.seconds / 60 for run in runs if run.status == "done"])
            ours = stat_text(stat) if stat.n else runs[0].status
            rows.append([system.label, theirs, ours, str(stat.n), number(minutes.mean)])
        return Reference(
            columns,
            rows,
            f"Theirs: {self.source}." if printed else "The source prints no figures for these networks.",
        )

    def _picture(self, stats: Errors) -> list[Figure]:
        """The picture of test errors over the axis, if there is one; a line per `System.line`."""
        if self.axis is None:
            return []
        curves: dict[str, list[Point]] = {}
        for system in self.systems:
            if system.x is not None and system.label in stats:
                stat = stats[system.label]
                curves.setdefault(system.line, []).append(Point(system.x, stat.mean, stat.sd))
        if not any(len(points) > 1 for points in curves.values()):
            return []
        caption = "Means over seeds; bars: one standard deviation." if _spreads(curves) else "One seed."
        title, log = f"Test error over {self.axis.name}", {"log": self.axis.log, "log_y": self.axis.log_y}
        return [lines(title, self.axis.name, "test error, %", curves, caption=caption, **log)]


def errors(groups: Group) -> Errors:
    """The test errors of every system that has a finished run."""
    return {name: stat for name, runs in groups.items() if (stat := error(runs)).n}


def error(runs: Sequence[Stored]) -> Stat:
    """The test error in % over the finished seeds."""
    found = [run.result["test_error"] for run in runs if run.status == "done"]
    return Stat.of([100 * e for e in found if e is not None])


def figure(runs: Sequence[Stored], name: str) -> Stat:
    """A measured figure over the finished seeds."""
    return Stat.of([run.measured[name] for run in runs if name in run.measured])


def against(stats: Errors, pairs: Sequence[tuple[str, str, str]]) -> str:
    """For each pair `(name, with, without)`: how much lower the error of `with` is, in points, as text."""
    found = [
        f"{number(stats[b].mean - stats[a].mean)} at {name}"
        for name, a, b in pairs
        if a in stats and b in stats
    ]
    return ", ".join(found)


def _varied(configs: Sequence[Config]) -> set[str]:
    """The names of the settings that differ between systems."""
    every = [dataclasses.asdict(config) for config in configs]
    return {name for name in every[0] if any(other.get(name) != every[0][name] for other in every)}


def _spreads(lines: Mapping[str, Sequence[Point]]) -> bool:
    return any(math.isfinite(point.sd) for points in lines.values() for point in points)
