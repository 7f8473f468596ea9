"""Sweeps: the runs of an experiment, one after the other or side by side in processes of this machine.

A run is a folder that is finished or not: so a sweep needs no state of its own, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, cast

import numpy as np

from thinned.lab import devices, engines, experiments, runs, train
from thinned.lab.compare import Job
from thinned.lab.errors import LabError, missing
from thinned.lab.progress import Progress
from thinned.lab.runs import Run, Stored, run_name

RETRIES = 2  # of a run whose worker died
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "THINNED_NUM_THREADS")
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


def run(
    order: Order,
    todo: Sequence[Job],
    out: Path,
    progress: Progress,
    *,
    save_every: float = 2.0,
    workers: int = 1,
    learned: Learned | None = None,
) -> list[Stored]:
    """Train the jobs of `order`, so many at once; a run that fails is written down, and the others go on.

    Args:
        learned: the finished runs so far -> a line, told whenever every system has one more seed.

    Raises:
        LabError: the folder cannot be written, or another process trains one of these runs.
    """
    open_ = [i for i, job in enumerate(todo) if not Run(out, job.config).finished()]
    costs = {run_name(todo[i].config): seconds(todo[i]) for i in open_}
    progress.plan(len(open_), sum(todo[i].config.epochs for i in open_), costs)
    train_each = _here if workers == 1 else _Workers(order, min(workers, max(1, len(open_))))
    systems = max(1, len(todo) // max(1, len(order.seeds)))
    done: list[Stored] = []
    for stored in train_each(todo, open_, out, progress, save_every):
        done.append(stored)
        if learned and len(done) % systems == 0 and len(done) < len(open_):
            progress.note(f"so far: {learned(done)}")
    return [runs.read(Run(out, job.config).folder) for job in todo]


def seconds(job: Job) -> float:
    """How long a run should take on this machine, about."""
    n, inputs = job.dataset.x_train.shape
    settings = asdict(job.config)
    return time_of(job.trainer.work(settings, n, inputs, len(job.dataset.classes)))


def time_of(work: float) -> float:
    """Seconds for so many multiplications, about: judged by a matrix product on this machine, now."""
    return OVERHEAD * work / _speed()


_measured: list[float] = []  # the speed, once a process


def _speed() -> float:
    """Multiplications a second of a product of (128, 1024) and (1024, 1024)."""
    if not _measured:
        a, b = np.ones((128, 1024), np.float32), np.ones((1024, 1024), np.float32)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        _measured.append(a.size * 1024 / min(times))
    return _measured[0]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _set(job: Job, **settings: Any) -> Job:
    """The job with other settings."""
    return dataclasses.replace(job, config=dataclasses.replace(job.config, **settings))


def _here(
    todo: Sequence[Job], which: Sequence[int], out: Path, progress: Progress, save_every: float
) -> Iterator[Stored]:
    """One after the other, in this process."""
    for i in which:
        yield _one(todo[i], out, progress, save_every)


def _one(job: Job, out: Path, progress: Progress, save_every: float) -> Stored:
    """Train one run; where it fails, write down why."""
    run = Run(out, job.config)
    try:
        train.train(job.config, job.dataset, out, progress, trainer=job.trainer, save_every=save_every)
    except LabError:
        raise
    except ImportError as error:  # what all runs have in common
        raise LabError(missing(error)) from error
    except Exception as error:
        run.fail(f"{type(error).__name__}: {error}")
        progress.end(run.read())
    if not job.trainer.keeps:
        run.trim()
    return run.read()


class _Workers:
    """Processes that take one run after the other; each has its share of the cores."""

    def __init__(self, order: Order, count: int) -> None:
        self.order, self.count = order, count

    def __call__(
        self, todo: Sequence[Job], which: Sequence[int], out: Path, progress: Progress, save_every: float
    ) -> Iterator[Stored]:
        waiting, tries = list(which), dict.fromkeys(which, 0)
        busy: dict[Connection, tuple[_Worker, int]] = {}
        with _share(self.count), contextlib.ExitStack() as stack:
            idle = [stack.enter_context(_Worker(self.order, out, save_every)) for _ in range(self.count)]
            while waiting or busy:
                while idle and waiting:
                    worker, i = idle.pop(), waiting.pop(0)
                    if worker.give(i):
                        busy[worker.pipe] = worker, i
                    else:  # it died before it was asked
                        waiting.insert(0, i)
                        idle.append(stack.enter_context(_Worker(self.order, out, save_every)))
                for pipe in cast("list[Connection]", wait(list(busy))):
                    worker, i = busy[pipe]
                    run = Run(out, todo[i].config)
                    told = worker.hear(progress, run.folder.name)
                    if told == "busy":
                        continue
                    del busy[pipe]
                    if told == "dead":
                        worker = stack.enter_context(_Worker(self.order, out, save_every))
                        tries[i] += 1
                    idle.append(worker)
                    if told == "dead" and tries[i] <= RETRIES:
                        progress.note(f"a worker died; {run.folder.name} goes on in another")
                        waiting.insert(0, i)
                        continue
                    if told == "dead":
                        run.fail(f"its worker died {tries[i]} times")
                        progress.end(run.read())
                    yield run.read()


class _Worker:
    """One process and the pipe to it. It ends when its leash, held by this process, is cut."""

    def __init__(self, order: Order, out: Path, save_every: float) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        leash, self._leash = context.Pipe(duplex=False)
        self.process = context.Process(
            target=_work, args=(order, out, save_every, theirs, leash), daemon=True
        )
        self.process.start()
        theirs.close()
        leash.close()

    def give(self, i: int) -> bool:
        """Ask for run number `i`; whether anyone listened."""
        try:
            self.pipe.send(i)
        except OSError:
            return False
        return True

    def hear(self, progress: Progress, name: str) -> str:
        """Pass on what it tells of the run `name`: it is then "busy", "free" or "dead".

        Raises:
            LabError: what the user should know, and all runs have in common.
        """
        try:
            call, arguments = self.pipe.recv()
        except (EOFError, OSError):
            return "dead"
        if call == "error":
            raise LabError(*arguments)
        if call == "free":
            return "free"
        if call == "step":
            progress.step_of(name, *arguments)
        else:
            getattr(progress, call)(*arguments)
        return "busy"

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *error: Any) -> None:
        self._leash.close()
        self.process.join(10)
        self.pipe.close()


class _Told(Progress):
    """Passes on to the other process what training tells."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.told = pipe, 0.0

    def begin(self, name: str, epochs: int, done: int) -> None:
        self.pipe.send(("begin", (name, epochs, done)))

    def step(self, done: float, loss: float) -> None:
        if time.monotonic() - self.told > 0.2:
            self.pipe.send(("step", (done, loss)))
            self.told = time.monotonic()

    def row(self, name: str, row: dict[str, float]) -> None:
        self.pipe.send(("row", (name, row)))

    def end(self, run: Stored) -> None:
        self.pipe.send(("end", (run,)))

    def note(self, text: str) -> None:
        self.pipe.send(("note", (text,)))


def _work(order: Order, out: Path, save_every: float, pipe: Connection, leash: Connection) -> None:
    """What a worker does: train the runs whose numbers come, until nobody listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    threading.Thread(target=_hang_on, args=(leash,), daemon=True).start()
    try:
        todo = order.jobs()
        while True:
            _one(todo[pipe.recv()], out, _Told(pipe), save_every)
            pipe.send(("free", ()))
    except LabError as error:
        pipe.send(("error", (str(error),)))
    except (EOFError, OSError):
        return


def _hang_on(leash: Connection) -> None:
    """End this process, whatever it does, when the other end is gone."""
    with contextlib.suppress(EOFError, OSError):
        leash.recv()
    os._exit(1)


@contextlib.contextmanager
def _share(workers: int) -> Iterator[None]:
    """Processes started inside use their share of the cores, no more."""
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(max(1, cores() // workers))))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
