"""Runs of a sweep as runs of TensorBoard, MLflow or W&B, by way of Lightning's logger classes."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from thinned import _checks
from thinned.lab.errors import LabError
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.reporting.wording import plural
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Stored, read


@dataclass(frozen=True)
class Log:
    """Lightning's logger of one run, and what ends it: `close` takes the run, None if it was cut off."""

    logger: Any
    close: Callable[[Stored | None], None]


def tensorboard(name: str, home: Path) -> Log:
    """Event files in `home/tensorboard`."""
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    logger = TensorBoardLogger(home, "tensorboard", name)

    def close(run: Stored | None) -> None:
        if run and run.result.get("test_error") is not None:
            logger.log_metrics({"hp_metric": run.result["test_error"]})  # Lightning's name for the score
        logger.finalize(_status(run))

    return Log(logger, close)


def mlflow(name: str, home: Path) -> Log:
    """A run of the server `$MLFLOW_TRACKING_URI`, or of the database `home/mlflow.db`."""
    from mlflow.tracking import MlflowClient
    from pytorch_lightning.loggers import MLFlowLogger

    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.resolve() / 'mlflow.db'}"
    client = MlflowClient(uri)
    group = client.get_experiment_by_name(home.name)
    before = client.search_runs([group.experiment_id], f"attributes.run_name = '{name}'") if group else []
    logger = MLFlowLogger(home.name, name, uri, run_id=before[0].info.run_id if before else None)
    return Log(logger, lambda run: logger.finalize(_status(run)))


def wandb(name: str, home: Path) -> Log:
    """A run of the project `$WANDB_PROJECT`, or `thinned`; its files are in `home/wandb`."""
    import wandb as library
    from pytorch_lightning.loggers import WandbLogger

    run = library.init(
        project=os.environ.get("WANDB_PROJECT") or "thinned",
        group=home.name,
        name=name,
        id=f"{home.name}-{name}",
        resume="allow",
        dir=home,
        reinit="create_new",  # several runs are trained at once
        settings=library.Settings(console="off", quiet=True),
    )
    return Log(WandbLogger(experiment=run), lambda stored: run.finish(int(_status(stored) == "failed")))


LOGGERS = {"tensorboard": tensorboard, "mlflow": mlflow, "wandb": wandb}
PACKAGES = {  # that each imports
    "tensorboard": ("lightning_fabric", "tensorboard"),
    "mlflow": ("pytorch_lightning", "mlflow", "sqlalchemy"),
    "wandb": ("pytorch_lightning", "wandb"),
}


def logged(progress: Progress, names: Sequence[str] | None, out: Folder, runs: int) -> Progress:
    """`progress` that also logs the `runs` of a sweep; their folders are in `out`.

    Raises:
        ValueError: a logger is unknown.
        LabError: it is not installed.
    """
    names = list(dict.fromkeys(names or ()))
    for name in names:
        _checks.one_of("logger", name, tuple(LOGGERS))
        lacking = [package for package in PACKAGES[name] if importlib.util.find_spec(package) is None]
        if lacking:
            raise LabError(f'logger {name} needs {", ".join(lacking)}; run pip install "thinned[loggers]"')
    return Logged(progress, names, out, runs) if names else progress


class Logged(Progress):
    """Passes everything on to another progress, and logs each run: settings, a step an epoch, errors.

    A logger that raises an error is left out of this run with a note; training goes on.
    """

    def __init__(self, progress: Progress, names: Sequence[str], out: Folder, runs: int) -> None:
        self.progress, self.names, self.out, self.runs = progress, names, out, runs
        self.home = out if isinstance(out, Path) else Path("thinned-runs", out.name)
        self.logs: dict[str, dict[str, Log]] = {}  # of each run that is trained now, by logger

    def plan(self, runs: int, epochs: int, costs: Mapping[str, float] | None = None) -> None:
        """Say which runs are not logged, because they are finished."""
        self.progress.plan(runs, epochs, costs)
        if runs < self.runs:
            self.note(f"{plural(self.runs - runs, 'run')} of {self.runs} finished before: not logged again")

    def begin(self, name: str, epochs: int, done: int) -> None:
        """Open the logs of the run."""
        self.progress.begin(name, epochs, done)
        if name in self.logs:  # its worker died
            return
        settings = read(self.out / name).config
        self.logs[name] = {}
        for kind in self.names:
            self._try(name, kind, functools.partial(self._open, name, kind, settings))

    def step(self, done: float, loss: float) -> None:
        """Pass it on."""
        self.progress.step(done, loss)

    def step_of(self, name: str, done: float, loss: float) -> None:
        """Pass it on."""
        self.progress.step_of(name, done, loss)

    def row(self, name: str, row: dict[str, float]) -> None:
        """Log the line of history; NaN is what was not measured."""
        self.progress.row(name, row)
        found = {column: value for column, value in row.items() if column != "epoch" and value == value}
        self._each(name, lambda log: log.logger.log_metrics(found, step=int(row["epoch"])))

    def end(self, run: Stored) -> None:
        """Log the errors and measurements after the last epoch, and close the logs of the run."""
        self.progress.end(run)
        found = {
            f"final/{name}": value for name, value in (run.result | run.measured).items() if _number(value)
        }
        step = int(run.config.get("epochs", 1))
        self._each(run.folder.name, lambda log: log.logger.log_metrics(found, step=step))
        self._each(run.folder.name, lambda log: log.close(run))
        self.logs.pop(run.folder.name, None)

    def note(self, text: str) -> None:
        """Pass it on."""
        self.progress.note(text)

    def __enter__(self) -> Logged:
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self.logs:  # of runs that were cut off
            self._each(name, lambda log: log.close(None))
        self.progress.__exit__(kind, error, trace)

    def _open(self, name: str, kind: str, settings: Mapping[str, Any]) -> None:
        """Open the log of the run, and log its settings."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.logs[name][kind] = log = LOGGERS[kind](name, self.home)
        log.logger.log_hyperparams(settings)

    def _each(self, name: str, call: Callable[[Log], None]) -> None:
        """Call with each log of the run."""
        for kind, log in [*self.logs.get(name, {}).items()]:
            self._try(name, kind, functools.partial(call, log))

    def _try(self, name: str, kind: str, call: Callable[[], None]) -> None:
        """Call; after an error, say it and leave the logger out of this run."""
        try:
            call()
        except Exception as error:
            self.logs[name].pop(kind, None)
            self.note(f"{kind} logs no more of {name}: {type(error).__name__}: {error}")


def _number(value: Any) -> bool:
    """Whether a logger takes the value as a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _status(run: Stored | None) -> str:
    """Lightning's word for how a run ended."""
    return "success" if run and run.status == "done" else "failed"
