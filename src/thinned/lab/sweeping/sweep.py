"""Sweeps: the runs of an experiment, one after the other, in processes of this machine, or on a Ray cluster.

A run is a folder that is finished or not: so a sweep needs no state of its own, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import heapq
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thinned.kernels import cores
from thinned.lab import experiments
from thinned.lab.errors import LabError
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage.remote import Folder, private
from thinned.lab.storage.run import Run, Stored, run_name
from thinned.lab.sweeping import ray_cluster as cluster
from thinned.lab.sweeping.job import Job
from thinned.lab.sweeping.processes import Pool, Processes, train_one
from thinned.lab.training import fabric as devices
from thinned.lab.training import torch_nets as engines
from thinned.lab.training import train

RETRIES = 2  # of a run whose worker died
VISIBLE = 90.0  # seconds until what one machine wrote is seen by another: file systems over a network lag
SILENCE = 300.0  # seconds after which a sweep tells what it learned, whatever has ended
OVERHEAD = 2.5  # times the matrix products: masks, activations, the optimizer, evaluation

Learned = Callable[[Sequence[Stored]], str]


@dataclass(frozen=True)
class Order:
    """What to train, in a form that another process can take up.

    `engine` None: each network's own.
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
        """Engine, device and precision, where they are not the usual ones."""
        usual: Mapping[str, str | None] = {"engine": None, **devices.USUAL}
        return {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}

    def jobs(self) -> list[Job]:
        """The runs: those of the systems in whose names a part of `only` occurs, and which the engine has.

        Raises:
            LabError: there are none.
            ValueError: device or precision do not fit the engine.
        """
        return self.split()[0]

    def split(self) -> tuple[list[Job], list[str]]:
        """The `jobs`, and the names of the systems that the engine does not have."""
        experiment = experiments.load(self.experiment)
        todo = experiment.jobs(self.budget, self.seeds, self.data_dir)
        names = [experiment.label(asdict(job.config)) for job in todo]
        found = list(zip(todo, names, strict=True))
        if self.only:
            found = [(job, name) for job, name in found if any(part in name for part in self.only)]
        if not found:
            there = "; ".join(dict.fromkeys(names)) or "none in this budget"
            raise LabError(
                f"only: expected a part of a system's name, got {list(self.only)}; there are {there}"
            )
        if self.validation:
            found = [(_set(job, validation=self.validation), name) for job, name in found]
        if not self.computed:
            return [job for job, _ in found], []
        return self._on_engine(found)

    def _on_engine(self, found: Sequence[tuple[Job, str]]) -> tuple[list[Job], list[str]]:
        """The jobs as engine and device compute them in this precision; what is no network stays as it is."""
        if not any(job.trainer.network for job, _ in found):
            raise LabError(
                f"{', '.join(self.computed)}: for networks, and {self.experiment} trains none here"
            )
        todo, lost = [], dict[str, None]()
        for job, name in found:
            c, engine = job.config, self.engine or job.config.engine
            if not job.trainer.network:
                todo.append(job)
            elif engine in job.trainer.computed_by and engines.can(engine, c.method, c.activation):
                todo.append(_set(job, engine=engine, device=self.device, precision=self.precision))
            else:
                lost[name] = None
        if not any(job.trainer.network for job in todo):
            raise LabError(f"engine: {self.engine} cannot compute {'; '.join(lost)}: leave the engine away")
        return todo, list(lost)


@dataclass(frozen=True)
class Hands:
    """The workers of a sweep.

    Args:
        count: so many.
        threads: of each.
        fit: so many use no CPU twice.
        machines: so many.
    """

    count: int
    threads: int
    fit: int
    machines: int = 1

    @classmethod
    def share(cls, cpus: Sequence[int], workers: int, runs: int) -> Hands:
        """The CPUs of each machine shared out, for as many workers as there are runs at most."""
        count = max(1, min(workers, runs))
        threads = max(1, min([sum(cpus) // count, *cpus]))
        return cls(count, threads, sum(n // threads for n in cpus), len(cpus))

    def time(self, costs: Sequence[float]) -> float:
        """Seconds until all runs are done, in their order, where the next begins whenever one ends."""
        ends = [0.0] * min(self.count, self.fit)
        for cost in costs:
            heapq.heapreplace(ends, ends[0] + cost)
        return max(ends)


def run(
    order: Order,
    todo: Sequence[Job],
    out: Folder,
    progress: Progress,
    *,
    save_every: float = 2.0,
    workers: int | None = None,
    ray: str | None = None,
    learned: Learned | None = None,
) -> list[Stored]:
    """Train the jobs of `order`, so many at once; a run that fails is written down, and the others go on.

    Args:
        workers: how many at once: by default 1, and on a cluster as many as it has CPUs.
        ray: the address of a cluster (`thinned.lab.sweeping.ray_cluster.connected`); None for this machine.
        learned: the finished runs so far -> a line, told whenever every system has one more seed, and at
            least every few minutes.

    Raises:
        LabError: the folder cannot be written, or another process trains one of these runs, or the cluster
            does not answer.
    """
    open_ = unfinished(todo, out)
    if private(out) and (ray or (workers or 1) > 1):
        raise LabError(f"{out}: no other process sees it; expected a folder, or a URL that workers reach")
    with contextlib.ExitStack() as stack:
        have, connection = stack.enter_context(hands(len(open_), workers, ray))
        costs = {run_name(todo[i].config): seconds(todo[i], have.threads) for i in open_}
        progress.plan(len(open_), sum(todo[i].config.epochs for i in open_), costs)
        pool: Pool | None = None
        if connection:
            pool = cluster.Cluster(connection, todo, out, save_every, have.count, have.threads)
        elif have.count > 1:
            pool = Processes(order, out, save_every, have.count, have.threads)
        ended = (
            _side_by_side(todo, open_, out, progress, stack.enter_context(pool))
            if pool
            else (train_one(todo[i], out, progress, save_every) for i in open_)
        )
        finished = [i for i in range(len(todo)) if i not in open_] if learned and open_ else []
        before = [Run(out, todo[i].config).read() for i in finished]
        _tell(before, ended, len(open_), max(1, len(todo) // max(1, len(order.seeds))), progress, learned)
    return [Run(out, job.config).read() for job in todo]


def _tell(
    done: list[Stored],
    ended: Iterator[Stored],
    left: int,
    systems: int,
    progress: Progress,
    learned: Learned | None,
) -> None:
    """Take runs as they end, and tell what they teach; what was done before counts, too."""
    told = time.monotonic()
    for stored in ended:
        done.append(stored)
        left -= 1
        due = len(done) % systems == 0 or time.monotonic() - told > SILENCE
        if learned and left and due:
            progress.note(f"so far: {learned(done)}")
            told = time.monotonic()


def unfinished(todo: Sequence[Job], out: Folder) -> list[int]:
    """The numbers of the jobs that have no result yet."""
    return [i for i, job in enumerate(todo) if not Run(out, job.config).finished()]


@contextlib.contextmanager
def hands(runs: int, workers: int | None, ray: str | None) -> Iterator[tuple[Hands, Any]]:
    """Who trains so many runs, and the connection to the cluster, if there is one."""
    if ray is None or not runs:
        yield Hands.share([cores()], workers or 1, runs), None
        return
    with cluster.connected(ray, cores()) as connection:
        cpus = cluster.cpus(connection)
        yield Hands.share(cpus, workers or sum(cpus), runs), connection


def _side_by_side(
    todo: Sequence[Job], which: Sequence[int], out: Folder, progress: Progress, pool: Pool
) -> Iterator[Stored]:
    """Each run as it ends; one whose worker died is given to another."""
    waiting, tries = list(which), dict.fromkeys(which, 0)
    busy, told = set[int](), set[int]()

    def end(i: int, stored: Stored) -> None:
        """Tell it once: what a worker sends of it may be lost, or come late."""
        if i not in told:
            told.add(i)
            progress.end(stored)

    while waiting or busy:
        while waiting and pool.start(waiting[0]):
            busy.add(waiting.pop(0))
        for i, call, arguments in pool.news():
            run = Run(out, todo[i].config)
            name = run.folder.name
            if call == "error":
                raise LabError(*arguments)
            if call == "dead":
                busy.remove(i)
                tries[i] += 1
                if tries[i] <= RETRIES:
                    progress.note(f"{arguments[0]}; {name} goes on in another")
                    waiting.insert(0, i)
                    continue
                run.fail(f"{arguments[0]}, {tries[i]} times")
                end(i, run.read())
                yield run.read()
            elif call == "free":
                busy.remove(i)
                _await(run.over, run.folder)
                end(i, run.read())
                yield run.read()
            elif call == "end":
                end(i, *arguments)
            elif call == "step":
                progress.step_of(name, *arguments)
            else:
                if call == "begin":
                    _await((run.folder / "config.json").exists, run.folder)
                getattr(progress, call)(*arguments)


def _await(there: Callable[[], bool], folder: Folder) -> None:
    """Until what a worker wrote is seen here.

    Raises:
        LabError: it is not; so workers write elsewhere.
    """
    until = time.monotonic() + VISIBLE
    while not there():
        if time.monotonic() > until:
            raise LabError(
                f"{folder}: a worker wrote it, and this machine does not see it; give --out a folder that "
                "all machines share, or a URL such as s3://bucket/runs"
            )
        time.sleep(0.2)


def seconds(job: Job, threads: int) -> float:
    """How long a run should take with so many threads of this machine, about."""
    n, inputs = job.dataset.x_train.shape
    few = 1 if train.small(job.config, job.dataset) else threads
    return time_of(job.trainer.work(asdict(job.config), n, inputs, len(job.dataset.classes)), few)


def time_of(work: float, threads: int) -> float:
    """Seconds for so many multiplications, about: judged by a matrix product on this machine, now."""
    return OVERHEAD * work / (threads * _speed())


@functools.cache
def _speed() -> float:
    """Multiplications a second, of a product of (128, 1024) and (1024, 1024) on one thread, undisturbed."""
    a, b = np.ones((128, 1024), np.float32), np.ones((1024, 1024), np.float32)
    times = []
    with train.limited(1):
        for _ in range(5):
            start = time.thread_time()
            a @ b
            times.append(time.thread_time() - start)
    return a.size * 1024 / min(times)


def _set(job: Job, **settings: Any) -> Job:
    """The job with other settings."""
    return dataclasses.replace(job, config=dataclasses.replace(job.config, **settings))
