"""`thinned reproduce --queue`: all runs that are not published, in order of time or worth, a process each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from thinned.kernels import cores
from thinned.lab import experiments
from thinned.lab.errors import LabError
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.reporting.wording import plural, time_text
from thinned.lab.reproduce import results_page
from thinned.lab.reproduce.order import NoSystemError, Order, check_publish, default_out, publish, record
from thinned.lab.storage.record import RECORD, Record
from thinned.lab.storage.remote import Folder, private
from thinned.lab.storage.run import Run, Stored
from thinned.lab.sweeping import costs
from thinned.lab.sweeping.processes import OneEach, Task
from thinned.lab.sweeping.sweep import side_by_side
from thinned.lab.training.config import Config


@dataclass(frozen=True)
class Waiting:
    """A run that is not published: run `number` of its order, and about how many seconds are left of it."""

    asked: Order
    number: int
    config: Config
    system: str
    out: Folder
    seconds: float

    @property
    def run(self) -> Run:
        """Its folder."""
        return Run(self.out, self.config)


@dataclass
class Queue:
    """The runs to train, in their order, and what else a queue found.

    Args:
        finished: runs that are trained and not published.
        records: for each experiment, what its report needs besides the runs.
        left_out: why experiments or runs are not in the queue.
    """

    waiting: list[Waiting] = field(default_factory=list)
    finished: list[Waiting] = field(default_factory=list)
    records: dict[str, Record] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


# What is most wanted, first: experiments, and parts of the names of their systems. The rest comes after.
WORTH = (
    ("cifar10-mlp", "A,"), ("cifar10-mlp", "B,"), ("cifar10-mlp", "thin"),
    ("mnist-table2", "dropout, logistic"), ("mnist-table2", "dropout, ReLU"),
    ("mnist-table2", "DBN"), ("mnist-table2", "DBM"), ("mnist-table2", "3 × 2048"),
    ("mnist-table2", "Maxout"), ("mnist-table2", "2 × 4096"), ("mnist-table2", "2 × 8192"),
    ("mnist-table2", "thin"), ("thin-parity", ""), ("dropconnect-mnist", ""), ("mnist-averaging", ""),
    ("mnist-data-size", ""), ("mnist-keep-rate", ""), ("mnist-architectures", ""),
)  # fmt: skip


def by_worth(one: Waiting) -> tuple[int, int, float]:
    """The order of `WORTH`; of one row the first seed first, of equal worth the shortest."""
    places = [
        i
        for i, (experiment, part) in enumerate(WORTH)
        if experiment == one.asked.experiment and part in one.system
    ]
    return one.config.seed, min(places, default=len(WORTH)), one.seconds


def queue(orders: Sequence[Order], root: Folder, results: Path | None, *, order: str = "time") -> Queue:
    """All runs of the orders that are not published in the folder `results`.

    Args:
        order: "time", the shortest first, or "worth", what is most wanted first.

    Raises:
        LabError: runs of the orders cannot be published, or no order has any run.
    """
    if private(root):
        raise LabError(f"out must be a folder, or a URL, that other processes see, got {root}")
    found, missing = Queue(), list[str]()
    for asked in orders:
        if results is not None:
            check_publish(asked.budget, asked.validation > 0)
        try:
            _add(found, asked, root / default_out(asked).name, results)
        except NoSystemError as error:
            missing.append(f"{asked.experiment}: {error}")
        except (LabError, ValueError) as error:
            found.left_out.append(f"{asked.experiment}: {error}")
    if orders and not found.records:
        raise LabError("; ".join([*found.left_out, *missing]))
    found.waiting.sort(key=by_worth if order == "worth" else lambda one: one.seconds)
    return found


def take(folder: Folder, results: Path) -> list[str]:
    """Publish the runs that a queue finished elsewhere, in `folder`; a line for each experiment there.

    Raises:
        LabError: no run of an experiment is finished there, or the runs cannot be published.
    """
    taken, left = [], []
    for path in sorted(file.parent for file in folder.glob(f"*/{RECORD}")):
        kept = Record.load(path)
        name = f"{kept.kind}, {kept.budget}"
        try:
            over = _over(kept, path)
        except LabError as error:  # none has begun, or one is damaged
            left.append(f"left out: {name}: {error}")
            continue
        if kept.kind not in experiments.names():
            left.append(f"left out: {name}: no experiment of this version")
        elif not over:
            left.append(f"left out: {name}: no run is finished")
        else:
            publish(results, kept, over, join=True)
            taken.append(f"{name}: {plural(len(over), 'run')}")
    if not taken:
        raise LabError(f"take must be the folder of a queue with finished runs, got {folder}")
    return taken + left


def _add(found: Queue, asked: Order, out: Folder, results: Path | None) -> None:
    """Add the runs of an order."""
    experiment, todo = experiments.load(asked.experiment), asked.jobs()
    found.records[asked.experiment] = record(asked, todo)
    published = _published(asked, results)
    for number, job in enumerate(todo):
        system, run = experiment.label(asdict(job.config)), Run(out, job.config)
        if job.config.seed in published.get(system, ()):
            continue
        left = costs.seconds(job, 1) * (1 - _share(run))
        one = Waiting(asked, number, job.config, system, out, left)
        if run.finished():
            found.finished.append(one)
        elif run.busy():
            found.left_out.append(f"{run.folder}: another process trains this run")
        else:
            found.waiting.append(one)


def _published(asked: Order, results: Path | None) -> dict[str, set[int]]:
    """The published seeds of each system. A row that new seeds cannot join counts only if it has all."""
    if results is None:
        return {}
    found = {}
    for row in results_page.read(results / f"{asked.experiment}.json"):
        if row["budget"] == asked.budget:
            whole = set(row["seeds"]) >= set(asked.seeds)
            found[row["system"]] = set(asked.seeds) if whole else results_page.seeds(row)
    return found


def _share(run: Run) -> float:
    """How much of a run is trained, from 0 to 1."""
    if not (run.folder / "config.json").exists():
        return 0.0
    try:
        stored = run.read()
    except LabError:  # damaged: it starts again
        return 0.0
    return stored.history["epoch"][-1] / stored.config["epochs"] if stored.history["epoch"] else 0.0


def workers(free: int, wanted: int | None = None) -> int:
    """The number of processes: as wanted, else one a core, and at least one, without the free cores."""
    return wanted or max(1, cores() - free)


def table(found: Queue, count: int) -> tuple[list[list[str]], str]:
    """A row for each system (experiment, system, seeds left, time left), and the whole in a sentence."""
    groups: dict[tuple[str, str], list[Waiting]] = {}
    for one in found.waiting:
        groups.setdefault((one.asked.experiment, one.system), []).append(one)
    rows = [
        [*names, _ranges([one.config.seed for one in runs]), time_text(sum(one.seconds for one in runs))]
        for names, runs in groups.items()
    ]
    have = costs.Workers(count, 1, count)
    time = time_text(have.time([one.seconds for one in found.waiting]))
    text = (
        f"{plural(len(found.waiting), 'run')} left, about {time} with {plural(count, 'worker')} of one thread"
    )
    if found.finished:
        text += f"; {plural(len(found.finished), 'run')} trained, not published"
    return rows, text


def _ranges(seeds: Sequence[int]) -> str:
    """`0–2, 5`."""
    starts = [seed for seed in sorted(seeds) if seed - 1 not in seeds]
    ends = [seed for seed in sorted(seeds) if seed + 1 not in seeds]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))


def run(
    found: Queue, progress: Progress, *, count: int, save_every: float, results: Path | None
) -> list[Stored]:
    """Train the runs, `count` at once, and publish the row of each when it ends; the runs that ended.

    Raises:
        LabError: a folder cannot be written, or another process trains one of these runs.
    """
    todo = found.waiting
    for one in (*found.finished, *todo):
        found.records[one.asked.experiment].save(one.out)
    for one in {one.asked.experiment: one for one in found.finished}.values():
        _publish(found, one, results)
    names = {one.run.folder.name: one for one in todo}
    epochs = sum(one.config.epochs for one in todo)
    progress.plan(len(todo), epochs, {name: one.seconds for name, one in names.items()})
    tasks = [Task(one.asked.jobs, one.number, one.out) for one in todo]
    ended = []
    for stored in _ends(todo, tasks, progress, save_every, count):
        _publish(found, names[stored.folder.name], results)
        ended.append(stored)
    return ended


def _ends(
    todo: Sequence[Waiting], tasks: Sequence[Task], progress: Progress, save_every: float, count: int
) -> Iterator[Stored]:
    """Each run as it ends."""
    with OneEach(tasks, save_every, count) as pool:
        yield from side_by_side([one.run for one in todo], range(len(todo)), progress, pool)


def _over(kept: Record, out: Folder) -> list[Stored]:
    """The runs of a record that will not go on: trained to their end, or diverged."""
    return [run for run in kept.stored(out) if run.status in ("done", "diverged")]


def _publish(found: Queue, one: Waiting, results: Path | None) -> None:
    """Publish all finished runs of an experiment; the rows keep the seeds that were published before."""
    kept = found.records[one.asked.experiment]
    over = _over(kept, one.out)
    if results is not None and over:
        publish(results, kept, over, join=True)
