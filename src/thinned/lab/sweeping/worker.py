"""What a worker does with a run, in this process or another, and the messages that it sends."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from thinned.lab.errors import LabError, missing
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Run, Stored
from thinned.lab.sweeping.job import Job
from thinned.lab.training import train

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "THINNED_NUM_THREADS")
PAUSE = 0.2  # seconds between two messages about the steps of a run


class Message(NamedTuple):
    """What a worker says about run number `run`.

    `call` is a method of `Progress`, and `arguments` are its arguments. Otherwise it is `"free"`: the run is
    over; `"dead"`: the worker died, and `arguments` say how; or `"error"`: `arguments` hold the text of an
    error that all runs have in common.
    """

    run: int
    call: str
    arguments: tuple[Any, ...] = ()


class Pool(Protocol):
    """Workers that take one run each. Leaving the context stops them."""

    def __enter__(self) -> Pool: ...

    def __exit__(self, *error: Any) -> None: ...

    def start(self, run: int) -> bool:
        """Give run number `run` to a worker; False where all of them are busy."""

    def messages(self) -> Iterator[Message]:
        """The messages since the last call; waits a moment where there are none."""


class Sender(Progress):
    """Progress in a worker: it sends each call to the process that runs the sweep."""

    def __init__(self, send: Callable[[str, tuple[Any, ...]], None]) -> None:
        self.send, self.sent = send, 0.0

    def begin(self, name: str, epochs: int, done: int) -> None:
        """Send that a run starts."""
        self.send("begin", (name, epochs, done))

    def step(self, done: float, loss: float) -> None:
        """Send how far the run is, a few times a second."""
        if time.monotonic() - self.sent > PAUSE:
            self.send("step", (done, loss))
            self.sent = time.monotonic()

    def row(self, name: str, row: dict[str, float]) -> None:
        """Send a line of history."""
        self.send("row", (name, row))

    def end(self, run: Stored) -> None:
        """Send that a run is finished."""
        self.send("end", (run,))

    def note(self, text: str) -> None:
        """Send a note to the user."""
        self.send("note", (text,))


def train_one(job: Job, out: Folder, progress: Progress, save_every: float) -> Stored:
    """Train one run. Where it fails, store the reason in its folder.

    Raises:
        LabError: an error that all runs have in common, such as a full disk or a missing package.
    """
    run = Run(out, job.config)
    try:
        train.train(job.config, job.dataset, out, progress, trainer=job.trainer, save_every=save_every)
    except LabError:
        raise
    except ImportError as error:
        raise LabError(missing(error)) from error
    except Exception as error:
        run.fail(f"{type(error).__name__}: {error}")
        progress.end(run.read())
    if not job.trainer.keeps:
        run.trim()
    return run.read()


def threads_of(count: int) -> dict[str, str]:
    """The environment variables of a process that uses `count` threads."""
    return dict.fromkeys(THREADS, str(count))


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set these environment variables inside the block, for processes that start there."""
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
