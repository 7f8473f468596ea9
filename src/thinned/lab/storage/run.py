"""Runs on disk: a folder for each, named by a hash of its configuration, so that the same call continues it.

A folder holds

- `config.json`: every setting that decides the result;
- `last.npz`: the checkpoint (parameters, optimizer, history, best parameters), replaced whole or not at all;
- `best.npz`: the best parameters so far, for `thinned.scratch.load_params`; copied from the checkpoint;
- `history.csv`: one line for each epoch; copied from the checkpoint;
- `predictions.npz`: of a comparison: what the network predicts for each test example, and the labels;
- `model.npz`: of a comparison of a table: the network with the columns that it reads (`training.model`);
- `result.json`: the errors; written last, so a run is finished if it is there;
- `failure.txt`: the reason of a failure, in place of a result; the same call tries the run again.

The folder is on this machine's disk or at a URL (`thinned.lab.storage.remote`).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from thinned import _files
from thinned.lab import choices
from thinned.lab.errors import LabError
from thinned.lab.storage.remote import Folder, Remote

COLUMNS = (
    "epoch",  # number of epochs done
    "lr",  # learning rate of the epoch's last step
    "loss",  # mean data loss of the training passes, dropout on
    "error",  # share of errors in the training passes, dropout on
    "train_error",  # evaluation mode, on a fixed part of the training data
    "train_loss",
    "test_error",
    "test_loss",
    "penalty",  # regularisation loss at the last training pass
    "seconds",  # of this epoch, training only
)

FAILURE, PREDICTIONS, MODEL = "failure.txt", "predictions.npz", "model.npz"

History = dict[str, list[float]]
Arrays = dict[str, np.ndarray]


@dataclass
class Checkpoint:
    """The whole state of a run after `epoch` epochs; everything else follows from the configuration."""

    epoch: int
    params: Arrays
    optimizer: Arrays
    history: History
    best_epoch: int = 0  # 0: none yet
    best: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """What a run's folder holds; `result` is empty while the run is not finished."""

    folder: Folder
    config: dict[str, Any]
    history: History
    result: dict[str, Any]
    failure: str = ""

    @property
    def status(self) -> str:
        """`"done"`, `"diverged"`, `"failed"`, or `"stopped"` for a run that was cut off."""
        return str(self.result.get("status", "failed" if self.failure else "stopped"))

    @property
    def seconds(self) -> float:
        """Seconds of training, without evaluation; NaN where there is no result."""
        each = self.result.get("seconds_per_epoch")  # the median: start-up is not in it
        if each is None:
            return math.nan
        if not self.history["epoch"]:
            return float(each) * int(self.config["epochs"])
        lengths = (b - a for a, b in pairwise([0.0, *self.history["epoch"]]))
        return math.fsum(a * b for a, b in zip(self.history["seconds"], lengths, strict=True))

    @property
    def measured(self) -> dict[str, Any]:
        """The measurements of the run besides its errors."""
        return dict(self.result.get("measured", {}))


def canonical(config: Any) -> str:
    """The configuration as JSON with sorted names and no spaces: equal settings give equal text.

    Device and precision are left out where they have their usual values, so that runs made before these
    settings existed keep their names.
    """
    usual = choices.USUAL.items()
    settings = {name: value for name, value in asdict(config).items() if (name, value) not in usual}
    return json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(text: str) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_name(config: Any) -> str:
    """`<method>-seed<k>-<12 hexadecimal digits of the SHA-256 of the configuration>`."""
    return f"{config.method}-seed{config.seed}-{digest(canonical(config))}"


class BusyError(LabError):
    """Another process trains this run."""


class Run:
    """The folder of one run, for one process at a time: `with run.locked(): ...`."""

    def __init__(self, out: Folder, config: Any) -> None:
        self.config = config
        self.folder: Folder = out / run_name(config)
        self._best_epoch = 0  # epoch of the best.npz that this process wrote

    def finished(self) -> bool:
        """Whether `result.json` is there and whole."""
        try:
            return isinstance(json.loads((self.folder / "result.json").read_text("utf-8")), dict)
        except (OSError, ValueError):
            return False

    def over(self) -> bool:
        """Whether the run ended, with a result or a failure."""
        return self.finished() or (self.folder / FAILURE).exists()

    def busy(self) -> bool:
        """Whether another process trains this run now."""
        if not self.folder.exists():
            return False
        try:
            with _lock(self.folder):
                return False
        except BusyError:
            return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, keep other processes out, and remove half-written files of a killed one."""
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with _lock(self.folder):
            with _writing(self.folder):
                for leftover in self.folder.glob(".*.tmp"):
                    leftover.unlink(missing_ok=True)
                (self.folder / FAILURE).unlink(missing_ok=True)
                _files.write_json(self.folder / "config.json", asdict(self.config))
            yield

    def load(self) -> Checkpoint | None:
        """The checkpoint, or None before the first one.

        Raises:
            ValueError: the file is damaged, or no checkpoint.
        """
        path = self.folder / "last.npz"
        if not path.exists():
            return None
        arrays = _files.load_npz(path)
        try:
            history = {column: arrays[f"history/{column}"].astype(float).tolist() for column in COLUMNS}
            epoch, best_epoch = int(arrays["epoch"]), int(arrays["best_epoch"])
        except KeyError as error:
            raise ValueError(f"{path}: no checkpoint: {error} is missing") from error
        params, optimizer, best = (_part(arrays, f"{name}/") for name in ("params", "optimizer", "best"))
        return Checkpoint(epoch, params, optimizer, history, best_epoch, best)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint, then the files that are copied from it."""
        c = checkpoint
        arrays = {"epoch": np.array(c.epoch), "best_epoch": np.array(c.best_epoch)}
        for name, part in (("params", c.params), ("optimizer", c.optimizer), ("best", c.best)):
            arrays |= {f"{name}/{key}": array for key, array in part.items()}
        arrays |= {f"history/{name}": np.array(values, float) for name, values in c.history.items()}
        with _writing(self.folder):
            _files.save_npz(self.folder / "last.npz", arrays)
            if c.best and c.best_epoch != self._best_epoch:
                _files.save_npz(self.folder / "best.npz", c.best)
                self._best_epoch = c.best_epoch
            _files.write_text(self.folder / "history.csv", history_csv(c.history))

    def save_predictions(self, arrays: Arrays) -> None:
        """Write `predictions.npz`, if there is anything to keep."""
        if arrays:
            with _writing(self.folder):
                _files.save_npz(self.folder / PREDICTIONS, arrays)

    def save_history(self, history: History) -> None:
        """Write `history.csv`, and no checkpoint."""
        with _writing(self.folder):
            _files.write_text(self.folder / "history.csv", history_csv(history))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`: the run is finished."""
        with _writing(self.folder):
            _files.write_json(self.folder / "result.json", result)

    def fail(self, why: str) -> None:
        """Write `failure.txt`, the reason of a failure."""
        with _writing(self.folder):
            _files.write_json(self.folder / "config.json", asdict(self.config))
            _files.write_text(self.folder / FAILURE, why)

    def trim(self) -> None:
        """Remove parameters, model and predictions of a finished run, and of the runs inside its folder."""
        if self.finished():
            for name in ("last.npz", "best.npz", MODEL, PREDICTIONS):
                for path in self.folder.glob(f"**/{name}"):
                    path.unlink()

    def read(self) -> Stored:
        """What the folder holds now."""
        return read(self.folder)


def predictions(folder: Folder) -> Arrays | None:
    """What a run of a comparison predicts for each test example; None where it was not kept.

    Raises:
        LabError: the file is damaged.
    """
    try:
        return _files.load_npz(folder / PREDICTIONS)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LabError(f"{error}; remove it, and run the same command again") from error


def history_csv(history: History) -> str:
    """The history as comma-separated text, from which every number reads back exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in zip(*(history[column] for column in COLUMNS), strict=True):
        writer.writerow([int(row[0]), *map(repr, map(float, row[1:]))])
    return text.getvalue()


def read(folder: Folder) -> Stored:
    """The run in `folder`.

    Raises:
        LabError: a file is missing or damaged.
    """
    try:
        config = choices.USUAL | json.loads((folder / "config.json").read_text("utf-8"))
        history: History = {column: [] for column in COLUMNS}
        for row in csv.DictReader(io.StringIO(_text(folder / "history.csv") or "")):
            for column in COLUMNS:
                history[column].append(float(row[column]))
        text = _text(folder / "result.json")
        result: dict[str, Any] = {} if text is None else json.loads(text)
        if text and (missing := {"status", "test_error", "train_error", "about"} - set(result)):
            raise ValueError(f"result.json lacks {', '.join(sorted(missing))}")
        return Stored(folder, config, history, result, _text(folder / FAILURE) or "")
    except FileNotFoundError as error:
        raise LabError(f"{error.filename}: no such file; is {folder.parent} a folder of runs?") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(f"{folder}: damaged ({error}); run the command that made it again") from error


def folders(out: Folder) -> list[Folder]:
    """The run folders in `out`, sorted by name.

    Raises:
        LabError: the folder does not exist, or holds no run.
    """
    if not out.is_dir():
        raise LabError(f"{out}: no such folder; give one that thinned compare or reproduce wrote")
    found = sorted(path.parent for path in out.glob("*/config.json"))
    if not found:
        raise LabError(f"{out}: the folder holds no runs; give one that thinned compare or reproduce wrote")
    return found


def _text(path: Folder) -> str | None:
    """The text of a file; None where there is no file."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None


def _part(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


@contextmanager
def _lock(folder: Folder) -> Iterator[None]:
    """Hold an exclusive lock on `folder`. The system releases it when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:
        fcntl = None  # type: ignore[assignment]
    if isinstance(folder, Remote) or not fcntl:
        yield  # no locks there: two processes write the same whole files, so nothing is damaged
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"{folder}: another process trains this run; wait for it, or give another --out"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _writing(folder: Folder) -> Iterator[None]:
    """Turn an OSError into a message that names the file, and says that nothing is lost."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise LabError(
            f"cannot write {error.filename or folder}: {reason}; make room or give another --out; "
            "the same command continues from the last checkpoint"
        ) from error
