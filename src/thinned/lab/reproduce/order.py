"""`thinned reproduce`: one experiment, from what the user asks for to the published rows."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thinned import _checks
from thinned.kernels import cores
from thinned.lab import choices, experiments
from thinned.lab.errors import LabError
from thinned.lab.grids.experiment import BUDGETS, Experiment
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.reproduce import results_page
from thinned.lab.storage.record import Record
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Stored, run_name
from thinned.lab.sweeping import costs, sweep
from thinned.lab.sweeping.job import Job
from thinned.lab.training import fabric

ROOT = Path("thinned-runs")
UNPUBLISHED = ("smoke",)  # the budgets whose figures mean nothing


class NoSystemError(LabError):
    """No system has a wanted name."""


@dataclass(frozen=True)
class Order:
    """The runs of an experiment that the user asks for. It can be pickled, and holds no data.

    Args:
        only: parts of the names of the systems to train; empty for all systems.
        validation: the share of the training data that judges the runs, in place of the test data.
        engine: the engine of all networks; None for the engine that the experiment gives each.
    """

    experiment: str
    budget: str
    seeds: tuple[int, ...]
    data_dir: Path | None = None
    only: tuple[str, ...] = ()
    validation: float = 0.0
    engine: str | None = None
    device: str = "cpu"
    precision: str = "32"

    @property
    def computed(self) -> dict[str, str]:
        """Engine, device and precision, without those that have their usual values."""
        usual: Mapping[str, str | None] = {"engine": None, **choices.USUAL}
        return {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}

    def jobs(self) -> list[Job]:
        """The runs of the systems whose names contain a part of `only`, and which the engine can compute.

        Raises:
            LabError: no run is left.
            ValueError: the device or the precision does not fit the engine.
        """
        return self.split()[0]

    def split(self) -> tuple[list[Job], list[str]]:
        """The `jobs`, and the names of the systems that the engine cannot compute."""
        experiment = experiments.load(self.experiment)
        todo = experiment.jobs(self.budget, self.seeds, self.data_dir)
        names = [experiment.label(asdict(job.config)) for job in todo]
        found = list(zip(todo, names, strict=True))
        if self.only:
            found = [(job, name) for job, name in found if any(part in name for part in self.only)]
        if not found:
            there = "; ".join(dict.fromkeys(names)) or "none in this budget"
            raise NoSystemError(
                f"only must be a part of a system's name, got {list(self.only)}; the systems are {there}"
            )
        if self.validation:
            found = [(_set(job, validation=self.validation), name) for job, name in found]
        if not self.computed:
            return [job for job, _ in found], []
        return self._on_engine(found)

    def _on_engine(self, found: Sequence[tuple[Job, str]]) -> tuple[list[Job], list[str]]:
        """The jobs with this engine, device and precision; jobs without a network are not changed."""
        if not any(job.trainer.network for job, _ in found):
            raise LabError(
                f"{', '.join(self.computed)} must be left out for {self.experiment}: it trains no network"
            )
        todo, lost = [], dict[str, None]()
        for job, name in found:
            c, engine = job.config, self.engine or job.config.engine
            if not job.trainer.network:
                todo.append(job)
            elif engine in job.trainer.computed_by and choices.can(engine, c.activation):
                todo.append(_set(job, engine=engine, device=self.device, precision=self.precision))
            else:
                lost[name] = None
        if not any(job.trainer.network for job in todo):
            raise LabError(
                f"engine must be able to compute {'; '.join(lost)}, got {self.engine}; leave --engine out"
            )
        return todo, list(lost)


def order(name: str, budget: str, seeds: int | None, **more: Any) -> Order:
    """The order of a command, checked; `more` are fields of `Order`."""
    _checks.one_of("budget", budget, BUDGETS)
    asked = Order(name, budget, tuple(range(seeds or experiments.load(name).seeds[budget])), **more)
    if asked.engine is not None:
        _checks.one_of("engine", asked.engine, choices.ENGINES)
    _checks.one_of("device", asked.device, choices.DEVICES)
    _checks.one_of("precision", asked.precision, choices.PRECISIONS)
    fabric.check(asked.device)
    return asked


def default_out(asked: Order) -> Folder:
    """`thinned-runs/NAME-BUDGET`, with a suffix for held-out data and for an unusual engine or device."""
    held_out = ["held-out"] if asked.validation else []
    return ROOT / "-".join([asked.experiment, asked.budget, *held_out, *asked.computed.values()])


def record(asked: Order, todo: Sequence[Job]) -> Record:
    """The record for the report. It covers all systems, even if the order is for some of them."""
    experiment = experiments.load(asked.experiment)
    every, lost = list(todo), list[str]()
    if asked.only or asked.engine:
        every, lost = dataclasses.replace(asked, only=()).split()
    settings = experiment.settings(asked.budget, every)
    if lost:
        settings["left out"] = f"{'; '.join(lost)}: the engine {asked.engine} cannot compute them"
    return Record(
        asked.experiment,
        command(asked),
        settings,
        [run_name(job.config) for job in every],
        asked.budget,
    )


def command(asked: Order) -> str:
    """The command that gives the same results on any machine; it names no folders."""
    words = ["thinned", "reproduce", asked.experiment, "--budget", asked.budget]
    if len(asked.seeds) != experiments.load(asked.experiment).seeds[asked.budget]:
        words += ["--seeds", str(len(asked.seeds))]
    if asked.validation:
        words += ["--validation", f"{asked.validation:g}"]
    for name, value in asked.computed.items():
        words += [f"--{name}", value]
    return shlex.join(words)


def train(
    asked: Order,
    todo: Sequence[Job],
    out: Folder,
    progress: Progress,
    *,
    save_every: float,
    workers: int | None,
    ray: str | None,
) -> None:
    """Train the runs that are not finished, and show what was learned on the way."""
    experiment = experiments.load(asked.experiment)
    known = Record.load(out)

    def learned(done: Sequence[Stored]) -> str:
        return " ".join(experiment.report(known, done).sentences()[:1])

    if "left out" in known.settings:
        progress.note(f"left out: {known.settings['left out']}")
    with progress:
        sweep.run(
            todo,
            out,
            progress,
            recipe=asked.jobs,
            save_every=save_every,
            workers=workers,
            ray=ray,
            learned=learned,
        )


def publish(folder: Path, kept: Record, stored: Sequence[Stored], *, join: bool = False) -> Path:
    """Put the rows into `folder`, and make the page beside it again. Runs that were cut off are left out.

    Args:
        join: a row keeps the seeds that are published and not among these runs.

    Raises:
        LabError: the budget is `smoke`, or the runs were judged on held-out data.
    """
    check_publish(kept.budget, any(run.config["validation"] for run in stored))
    experiment = experiments.load(kept.kind)
    stored = [run for run in stored if run.status != "stopped"]
    before = results_page.read(folder / f"{kept.kind}.json") if join else []
    rows = results_page.rows(experiment, kept, stored, before)
    results_page.save(folder, experiment, rows, experiment.page(kept, stored), estimate(experiment, "paper"))
    return results_page.write_page(folder)


def check_publish(budget: str, held_out: bool) -> None:
    """LabError unless runs of that budget can be published."""
    if budget in UNPUBLISHED:
        raise LabError(
            f"publish must have the budget quick or paper, got {budget}, which only shows that an experiment "
            "runs"
        )
    if held_out:
        raise LabError(
            "publish must have runs judged on test data, got runs judged on held-out training data"
        )


def estimate(experiment: Experiment, budget: str) -> float:
    """The seconds of a whole budget on this machine, about."""
    return costs.time_of(experiment.seeds[budget] * experiment.work(budget), cores())


def _set(job: Job, **settings: Any) -> Job:
    """The job with other settings."""
    return dataclasses.replace(job, config=dataclasses.replace(job.config, **settings))
