"""Who trains the runs of a sweep side by side: here, processes of this machine; in `cluster`, Ray."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol, cast

from thinned.lab.errors import LabError, missing
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Run, Stored
from thinned.lab.sweeping.job import Job
from thinned.lab.training import train

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "THINNED_NUM_THREADS")


class News(NamedTuple):
    """What a worker tells of run number `run`.

    `call` is a method of `Progress`; or `"free"`: the run is over; `"dead"`: its worker is gone, `arguments`
    says how; `"error"`: what the user should know, and all runs have in common.
    """

    run: int
    call: str
    arguments: tuple[Any, ...] = ()


class Pool(Protocol):
    """Workers that take a run each; leaving the context ends them, whatever they do."""

    def __enter__(self) -> Pool: ...

    def __exit__(self, *error: Any) -> None: ...

    def start(self, run: int) -> bool:
        """Give run number `run` to a worker; False where all of them are busy."""

    def news(self) -> Iterator[News]:
        """What happened since; waits a moment where nothing did."""


class Orders(Protocol):
    """Runs in a form that another process can take up."""

    def jobs(self) -> Sequence[Job]:
        """The runs."""


class Told(Progress):
    """Sends to another process what training tells."""

    def __init__(self, send: Callable[[str, tuple[Any, ...]], None]) -> None:
        self.send, self.told = send, 0.0

    def begin(self, name: str, epochs: int, done: int) -> None:
        """A run starts."""
        self.send("begin", (name, epochs, done))

    def step(self, done: float, loss: float) -> None:
        """A few times a second."""
        if time.monotonic() - self.told > 0.2:
            self.send("step", (done, loss))
            self.told = time.monotonic()

    def row(self, name: str, row: dict[str, float]) -> None:
        """A line of history."""
        self.send("row", (name, row))

    def end(self, run: Stored) -> None:
        """A run is finished."""
        self.send("end", (run,))

    def note(self, text: str) -> None:
        """Something the user should know."""
        self.send("note", (text,))


def train_one(job: Job, out: Folder, progress: Progress, save_every: float) -> Stored:
    """Train one run; where it fails, write down why.

    Raises:
        LabError: what the user should know, and all runs have in common.
    """
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


class Processes:
    """So many processes of this machine, with so many threads each."""

    def __init__(self, orders: Orders, out: Folder, save_every: float, count: int, threads: int) -> None:
        self.task, self.count, self.threads = (orders, out, save_every), count, threads
        self.idle: list[_Worker] = []
        self.busy: dict[Connection, tuple[_Worker, int]] = {}

    def __enter__(self) -> Processes:
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(environment(threads_of(self.threads)))
        self.idle = [self._worker() for _ in range(self.count)]
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.close()

    def start(self, run: int) -> bool:
        """Give run number `run` to a process."""
        if not self.idle:
            return False
        worker = self.idle.pop()
        with contextlib.suppress(OSError):  # it died before it was asked: it will be heard as dead
            worker.pipe.send(run)
        self.busy[worker.pipe] = worker, run
        return True

    def news(self) -> Iterator[News]:
        """What the processes say."""
        for pipe in cast("list[Connection]", wait(list(self.busy))):
            worker, run = self.busy[pipe]
            try:
                call, arguments = pipe.recv()
            except (EOFError, OSError):
                call, arguments = "dead", ("a worker died",)
                worker = self._worker()
            if call in ("free", "dead"):
                del self.busy[pipe]
                self.idle.append(worker)
            yield News(run, call, arguments)

    def _worker(self) -> _Worker:
        return self.stack.enter_context(_Worker(*self.task))


class _Worker:
    """One process and the pipe to it. It ends when its leash, held by this process, is cut."""

    def __init__(self, *task: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        leash, self._leash = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(*task, theirs, leash), daemon=True)
        self.process.start()
        theirs.close()
        leash.close()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *error: Any) -> None:
        self._leash.close()
        self.process.join(10)
        self.pipe.close()


def _work(orders: Orders, out: Folder, save_every: float, pipe: Connection, leash: Connection) -> None:
    """What a worker does: train the runs whose numbers come, until nobody listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    threading.Thread(target=_hang_on, args=(leash,), daemon=True).start()
    told = Told(lambda call, arguments: pipe.send((call, arguments)))
    try:
        todo = orders.jobs()
        while True:
            train_one(todo[pipe.recv()], out, told, save_every)
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


def threads_of(count: int) -> dict[str, str]:
    """The environment of a process that uses so many threads, no more."""
    return dict.fromkeys(THREADS, str(count))


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Processes started inside have these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
