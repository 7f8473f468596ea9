"""What `thinned reproduce` offers, how long it takes, and how much of it is done."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thinned.lab import experiments
from thinned.lab.grids.experiment import BUDGETS
from thinned.lab.reporting.wording import plural, time_text
from thinned.lab.reproduce.order import ROOT, Order, estimate
from thinned.lab.storage.record import RECORD
from thinned.lab.storage.remote import Folder
from thinned.lab.sweeping import costs, sweep
from thinned.lab.sweeping.job import Job


def overview(root: Path = ROOT) -> list[dict[str, Any]]:
    """Every experiment: name, what it shows, source, budgets, estimated seconds, and runs done in `root`."""
    found = []
    for name in experiments.names():
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


def overview_rows(found: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A line an experiment: name, about how long two budgets take (runs done of all), what it shows."""
    rows = []
    for e in found:
        times = [time_text(e["seconds"][b]) + _of(e["done"][b]) for b in ("quick", "paper")]
        rows.append([e["name"], *times, e["summary"]])
    return rows


def dry_run(
    asked: Order, todo: Sequence[Job], out: Folder, workers: int | None, ray: str | None
) -> tuple[list[list[str]], str]:
    """A row for each system (runs, done, epochs, time left on one worker), and the whole in a sentence."""
    experiment = experiments.load(asked.experiment)
    left = sweep.unfinished(todo, out)
    with sweep.workers_for(len(left), workers, ray) as (have, _):
        times = {i: costs.seconds(todo[i], have.threads) for i in left}
    groups: dict[str, list[int]] = {}
    for i, job in enumerate(todo):
        groups.setdefault(experiment.label(dataclasses.asdict(job.config)), []).append(i)
    rows = []
    for name, members in groups.items():
        open_ = [i for i in members if i in times]
        done, epochs = str(len(members) - len(open_)), str(todo[members[0]].config.epochs)
        time = time_text(sum(times[i] for i in open_)) if open_ else "–"
        rows.append([name, str(len(members)), done, epochs, time])
    if not left:
        return rows, "all runs are done; nothing was trained"
    side = f"{plural(have.count, 'worker')} with {plural(have.threads, 'thread')} each"
    if ray:
        side += f" on {plural(have.machines, 'machine')}, each as fast as this one"
    time = time_text(have.time(list(times.values())))
    return rows, f"about {time} in all by {side}; nothing was trained"


def _done(out: Folder) -> list[int]:
    """The number of runs that are done, and of all runs; empty where none was begun."""
    try:
        names = json.loads((out / RECORD).read_text("utf-8"))["runs"]
    except (OSError, ValueError, KeyError):
        return []
    return [sum((out / name / "result.json").exists() for name in names), len(names)]


def _of(done: Sequence[int]) -> str:
    return f" ({done[0]} of {done[1]})" if done else ""
