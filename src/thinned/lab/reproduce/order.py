"""`thinned reproduce`: what there is, how long it takes, and one experiment from its data to its report."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinned import _checks
from thinned.kernels import cores
from thinned.lab import experiments
from thinned.lab.errors import LabError
from thinned.lab.experiments import BUDGETS, Experiment
from thinned.lab.reporting.from_runs import sentences
from thinned.lab.reporting.progress_bars import Progress, time_text
from thinned.lab.reporting.summary import plural
from thinned.lab.reproduce import results_page as results
from thinned.lab.storage.record import RECORD, Record
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Stored, run_name
from thinned.lab.sweeping import sweep
from thinned.lab.sweeping.job import Job
from thinned.lab.sweeping.sweep import Order
from thinned.lab.training import fabric as devices
from thinned.lab.training.torch_nets import ENGINES

ROOT = Path("thinned-runs")


def order(name: str, budget: str, seeds: int | None, **more: Any) -> Order:
    """What the command asks for; `more`: fields of `Order`."""
    asked = Order(name, budget, tuple(range(seeds or experiments.load(name).seeds[budget])), **more)
    if asked.engine is not None:
        _checks.one_of("engine", asked.engine, ENGINES)
    _checks.one_of("device", asked.device, devices.DEVICES)
    _checks.one_of("precision", asked.precision, devices.PRECISIONS)
    devices.check(asked.device)
    return asked


def default_out(asked: Order) -> Folder:
    """`thinned-runs/NAME-BUDGET`; what is judged on held-out data, or computed otherwise, lies apart."""
    held_out = ["held-out"] if asked.validation else []
    return ROOT / "-".join([asked.experiment, asked.budget, *held_out, *asked.computed.values()])


def record(asked: Order, todo: Sequence[Job]) -> Record:
    """What the report needs: of all systems, also where the order is for some of them."""
    experiment = experiments.load(asked.experiment)
    every, lost = list(todo), list[str]()
    if asked.only or asked.engine:
        every, lost = dataclasses.replace(asked, only=()).split()
    settings = experiment.settings(asked.budget, every)
    if lost:
        settings["left out"] = f"{'; '.join(lost)}: the engine {asked.engine} does not have them"
    return Record(
        asked.experiment,
        command(asked),
        settings,
        [run_name(job.config) for job in every],
        asked.budget,
    )


def command(asked: Order) -> str:
    """The command that gives the same anywhere: no folders, nothing of this machine."""
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
    """Train what is not finished yet, and tell what was learned on the way."""
    experiment = experiments.load(asked.experiment)
    known = Record.load(out)

    def learned(done: Sequence[Stored]) -> str:
        return " ".join(sentences(experiment.page(known, done))[:1])

    if "left out" in known.settings:
        progress.note(f"left out: {known.settings['left out']}")
    with progress:
        sweep.run(
            asked, todo, out, progress, save_every=save_every, workers=workers, ray=ray, learned=learned
        )


def publish(folder: Path, kept: Record, stored: Sequence[Stored]) -> Path:
    """Put the rows into `folder`, and make the page beside it anew. A run that was cut off is no result yet.

    Raises:
        LabError: the budget is `smoke`, or the runs were judged on held-out data.
    """
    if kept.budget == "smoke":
        raise LabError("publish: expected the budget quick or paper; smoke shows that a thing runs, no more")
    if any(run.config["validation"] for run in stored):
        raise LabError("publish: these runs were judged on held-out training data, to choose settings")
    experiment = experiments.load(kept.kind)
    stored = [run for run in stored if run.status != "stopped"]
    rows = results.rows(experiment, kept, stored)
    results.save(folder, experiment, rows, experiment.page(kept, stored), estimate(experiment, "paper"))
    return results.write_page(folder)


def overview(root: Path = ROOT) -> list[dict[str, Any]]:
    """Every experiment: name, what it shows, source, budgets, estimated seconds, and runs done in `root`."""
    found = []
    for name in experiments.NAMES:
        e = experiments.load(name)
        found.append(
            {
                "name": name,
                "summary": e.summary,
                "source": e.source,
                "budgets": dict(e.budgets),
                "seconds": {b: estimate(e, b) for b in BUDGETS},
                "done": {b: _done(root / f"{name}-{b}") for b in BUDGETS},
            }
        )
    return found


def estimate(experiment: Experiment, budget: str) -> float:
    """Seconds of a whole budget on this machine, about."""
    return sweep.time_of(experiment.seeds[budget] * experiment.work(budget), cores())


def overview_rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The overview as cells of a table."""
    rows = []
    for e in found:
        budgets = [
            f"{b}: {text} (about {time_text(e['seconds'][b])}{_of(e['done'][b])})"
            for b, text in e["budgets"].items()
        ]
        rows.append([e["name"], f"{e['summary']}\n{e['source']}", "\n".join(budgets)])
    return rows


def dry_run(
    asked: Order, todo: Sequence[Job], out: Folder, workers: int | None, ray: str | None
) -> tuple[list[list[str]], str]:
    """A row a system (runs, done, epochs, time still to go, one after the other), and all of it in words."""
    experiment = experiments.load(asked.experiment)
    left = sweep.unfinished(todo, out)
    with sweep.hands(len(left), workers, ray) as (hands, _):
        costs = {i: sweep.seconds(todo[i], hands.threads) for i in left}
    groups: dict[str, list[int]] = {}
    for i, job in enumerate(todo):
        groups.setdefault(experiment.label(dataclasses.asdict(job.config)), []).append(i)
    rows = []
    for name, members in groups.items():
        open_ = [i for i in members if i in costs]
        done, epochs = str(len(members) - len(open_)), str(todo[members[0]].config.epochs)
        time = time_text(sum(costs[i] for i in open_)) if open_ else "–"
        rows.append([name, str(len(members)), done, epochs, time])
    if not left:
        return rows, "all runs are done; nothing was trained"
    side = f"{plural(hands.count, 'worker')} with {plural(hands.threads, 'thread')} each"
    if ray:
        side += f" on {plural(hands.machines, 'machine')}, each as fast as this one"
    time = time_text(hands.time(list(costs.values())))
    return rows, f"about {time} in all by {side}; nothing was trained"


def _done(out: Folder) -> list[int]:
    """Runs that are done, and runs that were asked for; nothing where nothing was begun."""
    try:
        names = json.loads((out / RECORD).read_text("utf-8"))["runs"]
    except (OSError, ValueError, KeyError):
        return []
    return [sum((out / name / "result.json").exists() for name in names), len(names)]


def _of(done: Sequence[int]) -> str:
    return f"; {done[0]} of {done[1]} runs done" if done else ""
