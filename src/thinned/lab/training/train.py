"""Training: a configuration and a data set in, a run folder out. Runs continue; on a CPU, bit for bit.

Every random number comes from `Key(config.seed)`: `"init"`, `"order"` and the epoch, `"mask"` and the step.
So the parameters, the optimizer and the history are the whole state after an epoch.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import time
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

from thinned import Key
from thinned.lab.data.dataset import Dataset, holdout
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Run, Stored
from thinned.lab.training.config import Config
from thinned.lab.training.trainer import Trainer

ONE_THREAD = 1 << 25  # multiplications of the largest matrix product, below which one thread is enough


def train(
    config: Config,
    dataset: Dataset,
    folder: Folder,
    progress: Progress | None = None,
    *,
    trainer: type[Trainer] | None = None,
    save_every: float = 2.0,
) -> Stored:
    """Train a run in its own folder inside `folder`. A finished run is only read; one cut off continues.

    Args:
        trainer: `Trainer`, or a subclass with another network or other inputs.
        save_every: seconds between checkpoints. They are taken after whole epochs, and always after the last.

    Raises:
        LabError: the folder cannot be written to, or another process trains this run.
    """
    progress = progress or Progress()
    run = Run(folder, config)
    if run.finished():
        return run.read()
    with run.locked(), limited(1) if small(config, dataset) else contextlib.nullcontext():
        if config.validation:
            dataset = holdout(dataset, config.validation, Key(config.seed).fold_in("holdout"))
        make = functools.partial(trainer or Trainer, config, dataset)
        current = make()
        try:
            current.resume(run)
        except (ValueError, TypeError) as error:
            progress.note(f"the checkpoint of {run.folder} cannot be used ({error}); starting this run again")
            run, current = Run(folder, config), make()
        current.folder = run.folder
        progress.begin(run.folder.name, config.epochs, current.epoch)
        _epochs(current, run, progress, save_every)
        if current.diverged:  # the parameters are useless now, and not those of a whole epoch
            run.save_history(current.history)
        else:
            run.save(current.checkpoint())
            run.save_predictions(current.predictions())
            current.save_model(run.folder)
        run.finish(current.result())
    stored = run.read()
    progress.end(stored)
    return stored


def small(config: Config, dataset: Dataset) -> bool:
    """Whether one thread is enough: distributing the work would take longer than the work."""
    sizes = (dataset.x_train.shape[1], *config.hidden, dataset.outputs)
    return min(config.batch, len(dataset.x_train)) * max(a * b for a, b in pairwise(sizes)) < ONE_THREAD


def limited(threads: int) -> AbstractContextManager[Any]:
    """A context in which matrix products use that number of threads, where threadpoolctl is installed."""
    with contextlib.suppress(ImportError):
        limits: AbstractContextManager[Any] = importlib.import_module("threadpoolctl").threadpool_limits(
            threads
        )
        return limits
    return contextlib.nullcontext()


def _epochs(trainer: Trainer, run: Run, progress: Progress, save_every: float) -> None:
    """Train to the end, or until the run diverges."""
    saved = time.monotonic()
    while trainer.epoch < trainer.config.epochs:
        row = trainer.next_epoch(progress.step)
        if trainer.diverged:
            return
        if row:
            progress.row(run.folder.name, row)
        if time.monotonic() - saved >= save_every:
            run.save(trainer.checkpoint())
            saved = time.monotonic()
