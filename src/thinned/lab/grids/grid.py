"""A grid: systems × seeds in three budgets, declared by an experiment; here is what all grids share."""

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
from thinned.lab.reporting import figures as plots
from thinned.lab.reporting import from_runs
from thinned.lab.reporting.page import Figure, Page, Reference
from thinned.lab.reporting.summary import Stat, number, stat_text
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Stored
from thinned.lab.sweeping.job import Job
from thinned.lab.training.config import Config
from thinned.lab.training.train import Trainer

LINES = 100  # of history, about, for runs of many short epochs
NO_TEST_CURVE = "Test data is looked at once, after the last epoch of a fixed schedule."

Errors = Mapping[str, Stat]  # test error in %, by system, of those that finished
Group = Mapping[str, Sequence[Stored]]  # runs by system


@dataclass(frozen=True, kw_only=True)
class GridConfig(Config):
    """A run of a grid: `system` is its row; `test_curve`: the source draws test errors over epochs."""

    system: str
    test_curve: bool = False


class GridTrainer(Trainer):
    """Looks at the test data once, at the end, unless the source draws it over epochs."""

    config: GridConfig

    def tests(self) -> bool:
        """Whether the test data is looked at after this epoch."""
        return self.config.test_curve


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of an experiment.

    Args:
        label: its name in tables.
        theirs: the test error in % that the source prints.
        settings: of `Config`, besides those of the grid and the budget.
        data: the data set, instead of the budget's.
        examples: so many training examples, instead of the budget's.
        longer: so many times the epochs.
        line, x: its line in the experiment's picture, and its place there.
        budgets: in which it is trained.
        trainer: who trains it.
        config: of its runs, where it is not the grid's.
    """

    label: str
    theirs: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    examples: int | None = None
    longer: float = 1.0
    line: str = ""
    x: float | None = None
    budgets: Sequence[str] = BUDGETS
    trainer: type[Trainer] = GridTrainer
    config: type[GridConfig] | None = None


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is trained.

    Args:
        text: in words.
        data: of the built-in data sets.
        limit: training examples at most, chosen with `Key(0)`; the test data stays whole.
        width: every hidden layer times this.
        seeds: so many.
        steps: updates at least, for systems with few examples.
        settings: of `Config`; they come before those of the systems.
    """

    text: str
    data: str = "mnist"
    limit: int | None = None
    width: float = 1.0
    seeds: int = 1
    steps: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def examples(self, data: str) -> int:
        """Training examples at most."""
        return min(self.limit or BUILT_IN[data].examples, BUILT_IN[data].examples)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The horizontal axis of an experiment's picture."""

    name: str
    log: bool = False
    log_y: bool = False


@dataclass(frozen=True, kw_only=True)
class Grid:
    """An experiment of systems × seeds.

    Args:
        name, title, summary, source: on the command line, and in the report.
        place: in lists of experiments, lowest first.
        settings: of `Config`, common to all systems.
        systems: the rows; a function of the budget where they differ.
        budgets: smoke, quick, paper.
        differs: where ours is not the source's protocol.
        baseline: the row that others are compared with.
        axis: of the picture of test errors over `System.x`, if there is one.
        told: what the test errors show, in a sentence; the finding on the lowest if there is none.
        tables, figures: more of both, from the runs of each system.
        errors: whether rows have test errors; without them the tables tell all.
        curves: whether to draw errors over epochs.
        config: of a run.
    """

    name: str
    place: int
    title: str
    summary: str
    source: str
    settings: Mapping[str, Any]
    systems: Sequence[System]
    budgets: Mapping[str, Budget]
    differs: Sequence[str] = ()
    baseline: str = "none"
    axis: Axis | None = None
    told: Callable[[Errors], str] | None = None
    headline: Callable[[Group], str] | None = None
    tables: Callable[[Group], list[Reference]] | None = None
    figures: Callable[[Group], list[Figure]] | None = None
    errors: bool = True
    curves: bool = True
    config: type[GridConfig] = GridConfig

    def experiment(self) -> Experiment:
        """The grid as the command knows experiments."""
        return Experiment(
            name=self.name,
            summary=self.summary,
            source=self.source,
            budgets={name: budget.text for name, budget in self.budgets.items()},
            seeds={name: budget.seeds for name, budget in self.budgets.items()},
            jobs=self.jobs,
            settings=self.shown,
            page=self.page,
            work=self.work,
            label=label,
            targets=tuple(Target(s.label, s.theirs) for s in self.systems),
            place=self.place,
        )

    def plan(self, budget: str) -> Iterator[tuple[System, dict[str, Any], int]]:
        """Each system of a budget, its settings of `Config`, and its training examples; loads no data."""
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
            settings["epochs"] = max(round(system.longer * settings.get("epochs", Config.epochs)), least)
            settings.setdefault("log", max(1, settings["epochs"] // LINES))
            yield system, settings, examples

    def jobs(self, budget: str, seeds: Sequence[int], data_dir: Path | None = None) -> list[Job]:
        """Every system with every seed, seed after seed, so that a sweep cut off early has all systems."""
        whole = functools.cache(functools.partial(load, data_dir=data_dir))
        part = functools.cache(lambda data, examples: _part(whole(data), examples))
        plan = [(part(settings["data"], n), system, settings) for system, settings, n in self.plan(budget)]
        return [
            Job(
                (system.config or self.config)(
                    fingerprint=data.fingerprint,
                    seed=seed,
                    system=system.label,
                    **settings,
                ),
                data,
                system.trainer,
            )
            for seed in seeds
            for data, system, settings in plan
        ]

    def work(self, budget: str) -> float:
        """Multiplications of one seed, about."""
        total = 0.0
        for system, settings, examples in self.plan(budget):
            known = BUILT_IN[settings["data"]]
            total += system.trainer.work(settings, examples, known.inputs, known.classes)
        return total

    def shown(self, budget: str, todo: Sequence[Job]) -> dict[str, str]:
        """The settings as a report prints them."""
        networks = [job for job in todo if job.trainer.network]
        first = max(networks or todo, key=lambda job: len(job.dataset.x_train))
        common = compare.settings(first.config, first.dataset, sorted({job.config.seed for job in todo}))
        if not networks:
            common = {name: common[name] for name in ("data", "seeds")}
        varied = _varied([job.config for job in todo])
        common |= {key: "see the rows" for key in common if varied & _SHOWN.get(key, set())}
        return {"budget": f"{budget}: {self.budgets[budget].text}", **common}

    def page(self, record: Record, stored: Sequence[Stored]) -> Page:
        """Theirs beside ours, the picture, and where they differ."""
        groups = {s.label: [run for run in stored if label(run.config) == s.label] for s in self.systems}
        stats = {name: error(runs) for name, runs in groups.items() if error(runs).n}
        rows = from_runs.rows(stored, label)
        notes = [*self.differs]
        if self.errors and not any(run.config["test_curve"] for run in stored):
            notes.append(NO_TEST_CURVE)
        if record.budget != "paper":
            text = self.budgets[record.budget].text
            notes.append(
                f"The budget {record.budget} is smaller than the source's ({text}): compare directions."
            )
        headline = ""
        if self.headline and stored:
            headline = self.headline(groups)
        elif self.told and stats:
            headline = self.told(stats)
        tables = self.tables(groups) if self.tables else []
        figures = self.figures(groups) if self.figures else []
        return Page(
            title=self.title,
            lead=self.summary,
            rows=rows if self.errors else [],
            series=from_runs.series(stored, label) if self.curves and self.errors else [],
            settings=dict(record.settings),
            command=record.command,
            machine=from_runs.machine(stored),
            references=[*([self.beside(groups)] if self.errors else []), *tables],
            extras=[*self._picture(stats), *figures],
            notes=notes,
            baseline=self.baseline,
            headline=headline,
        )

    def beside(self, groups: Group) -> Reference:
        """Theirs and ours."""
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
            f"Theirs: {self.source}." if printed else "The source prints no figures of these networks.",
        )

    def _picture(self, stats: Errors) -> list[Figure]:
        """Test errors over the axis, a line a kind of system."""
        if self.axis is None:
            return []
        lines: dict[str, list[plots.Point]] = {}
        for system in self.systems:
            if system.x is not None and system.label in stats:
                stat = stats[system.label]
                lines.setdefault(system.line, []).append(plots.Point(system.x, stat.mean, stat.sd))
        if not any(len(points) > 1 for points in lines.values()):
            return []
        caption = "Means over seeds; bars: one standard deviation." if _spreads(lines) else "One seed."
        title, log = f"Test error over {self.axis.name}", {"log": self.axis.log, "log_y": self.axis.log_y}
        return [plots.lines(title, self.axis.name, "test error, %", lines, caption=caption, **log)]


def label(config: Mapping[str, Any]) -> str:
    """The row of a run."""
    return str(config["system"])


def error(runs: Sequence[Stored]) -> Stat:
    """Test error in % over the seeds that are done."""
    found = [run.result["test_error"] for run in runs if run.status == "done"]
    return Stat.of([100 * e for e in found if e is not None])


def figure(runs: Sequence[Stored], name: str) -> Stat:
    """A measured figure over the seeds that are done."""
    return Stat.of([run.measured[name] for run in runs if name in run.measured])


def against(stats: Errors, pairs: Sequence[tuple[str, str, str]]) -> str:
    """`(name, with, without)`: by how much the second system's error is lower, as far as both are done."""
    found = [
        f"{number(stats[b].mean - stats[a].mean)} at {name}"
        for name, a, b in pairs
        if a in stats and b in stats
    ]
    return ", ".join(found)


def _part(whole: Dataset, examples: int) -> Dataset:
    """The data with so many training examples; fewer are a part of more."""
    if examples >= len(whole.x_train):
        return whole
    rows = permutation(Key(0), len(whole.x_train))[:examples]
    return dataclasses.replace(
        whole,
        x_train=whole.x_train[rows],
        y_train=whole.y_train[rows],
        note=f"{whole.note} {examples:,} of the training examples, chosen with Key(0); all of the test data.",
    )


_SHOWN = {  # what a report calls a setting: its fields
    "data": {"data"},
    "network": {"hidden", "activation"},
    "dropping": {"method", "p", "input_p"},
    "regularisation": {"max_norm", "l2"},
    "training": {"epochs", "batch", "optimizer", "momentum"},
    "learning rate": {"lr", "schedule", "decay"},
}


def _varied(configs: Sequence[Config]) -> set[str]:
    """Which settings differ between systems."""
    every = [dataclasses.asdict(config) for config in configs]
    return {name for name in every[0] if any(other.get(name) != every[0][name] for other in every)}


def _spreads(lines: Mapping[str, Sequence[plots.Point]]) -> bool:
    return any(math.isfinite(point.sd) for points in lines.values() for point in points)
