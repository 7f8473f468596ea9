"""Runs within a time: those that have not ended when it is over are left as they are, and can go on later."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

from thinned.kernels import cores
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Run, Stored
from thinned.lab.sweeping import sweep
from thinned.lab.sweeping.costs import Workers
from thinned.lab.sweeping.job import Job, Recipe
from thinned.lab.sweeping.processes import Processes
from thinned.lab.sweeping.worker import train_one
from thinned.lab.training.config import Config

SAVE_EVERY = 60.0  # seconds between the checkpoints of a run


class Late(BaseException):
    """The time is over. No error of a run, so that no run is marked as failed."""


class Timed(Progress):
    """Shows `title` and the time left on another progress; raises `Late` inside a run when it is over.

    Args:
        progress: gets the time that is left, and the notes.
        until: when the time is over, by `time.monotonic`.
        shown: the end that is shown, of this and what follows.
    """

    def __init__(self, progress: Progress, until: float, shown: float) -> None:
        self.progress, self.until, self.shown, self.title = progress, until, shown, ""

    def tick(self) -> None:
        """Show the time left. Raises `Late` where there is none."""
        now = time.monotonic()
        if now > self.until:
            raise Late
        self.progress.spend(self.title, self.shown - now)

    def begin(self, name: str, epochs: int, done: int) -> None:
        """Look at the clock."""
        self.tick()

    def step(self, done: float, loss: float) -> None:
        """Look at the clock."""
        self.tick()

    def step_of(self, name: str, done: float, loss: float) -> None:
        """Look at the clock."""
        self.tick()

    def note(self, text: str) -> None:
        """Pass it on."""
        self.progress.note(text)


class Trials(contextlib.ExitStack):
    """Trains jobs that differ in their configuration alone, call after call, by processes that stay.

    Args:
        first: one of the jobs.
        out: the folder of the runs.
        workers: runs at once; 1 trains in this process.
        again: makes `first` in another process; by default it is pickled.
    """

    def __init__(self, first: Job, out: Folder, workers: int, again: Recipe | None = None) -> None:
        super().__init__()
        self.first, self.out = first, out
        self.pool: _Pool | None = None
        if workers > 1:
            sweep.shared(out)
            have = Workers.share([cores()], workers, workers)
            recipe = functools.partial(_alike, again or functools.partial(list, [first]))
            self.pool = _Pool(recipe, out, SAVE_EVERY, have.count, have.threads)
            self.enter_context(self.pool)

    def run(self, configs: Sequence[Config], progress: Progress) -> list[Stored]:
        """Train each configuration in its folder; skip what is done."""
        runs = [Run(self.out, config) for config in configs]
        open_ = [i for i, run in enumerate(runs) if not run.finished()]
        if self.pool is None:
            for i in open_:
                train_one(dataclasses.replace(self.first, config=configs[i]), self.out, progress, SAVE_EVERY)
        else:
            self.pool.configs = configs
            for _ in sweep.side_by_side(runs, open_, progress, self.pool):
                pass
        for run in runs:
            run.trim()
        return [run.read() for run in runs]


class _Pool(Processes):
    """Processes that get configurations, not numbers of jobs."""

    configs: Sequence[Config] = ()

    def start(self, run: int) -> bool:
        if not self.idle:
            return False
        self._give(self.idle.pop(), run, self.configs[run])
        return True


class _Alike:
    """The jobs that differ from one in their configuration: `jobs[config]`."""

    def __init__(self, first: Job) -> None:
        self.first = first

    def __getitem__(self, config: Config) -> Job:
        return dataclasses.replace(self.first, config=config)


def _alike(recipe: Recipe) -> Any:
    return _Alike(recipe()[0])
