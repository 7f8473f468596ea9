"""Runs on disk: named by their configuration, skipped when done, continued bit for bit when cut off."""

import dataclasses
import errno
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers.recorder import Recorder

from thinned import _files
from thinned.lab.errors import LabError
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage import run as runs
from thinned.lab.storage.run import COLUMNS, Run
from thinned.lab.training.config import Config
from thinned.lab.training.train import train

SCRIPT = """
import os, signal, sys
import numpy as np
from pathlib import Path
from thinned import Key, _files
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.small import spiral
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.training.config import Config
from thinned.lab.training.train import train
from thinned.lab.training.trainer import Trainer

x, y = spiral(40, key=Key(0))
DATA = Dataset("arms", x[::2], y[::2], x[1::2], y[1::2], ("0", "1", "2"), (2,), "Arms.")
SETTINGS = {"method": "gaussian", "hidden": (16, 16), "epochs": 8, "batch": 16}
CONFIG = Config(data="arms", fingerprint=DATA.fingerprint, **SETTINGS)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    out, where = Path(sys.argv[1]), sys.argv[2]
    if where == "step":  # in the middle of the sixth epoch
        forward = Trainer.examples
        Trainer.examples = lambda self: die() if self.epoch == 5 else forward(self)
    else:  # while the fourth file of that name is being written
        real, count = _files.atomic_write, 0
        import contextlib

        @contextlib.contextmanager
        def atomic_write(path, mode="wb"):
            global count
            with real(path, mode) as file:
                yield file
                count += Path(path).name == where
                if count == 4:
                    file.flush()
                    die()

        _files.atomic_write = atomic_write
    train(CONFIG, DATA, out, save_every=0)
"""
namespace: dict = {"__name__": "script"}
exec(SCRIPT, namespace)
DATA, CONFIG = namespace["DATA"], namespace["CONFIG"]


class Stop(Progress):
    """Cuts a run off, as Ctrl-C does, in epoch `after`."""

    def __init__(self, after):
        self.after = after

    def row(self, name, row):
        if row["epoch"] == self.after:
            raise KeyboardInterrupt


def contents(folder):
    """Everything that must be equal: bytes of the parameters, history and result without times and places."""
    arrays = _files.load_npz(folder / "last.npz")
    arrays.pop("history/seconds")
    result = json.loads((folder / "result.json").read_text())
    result.pop("about"), result.pop("seconds_per_epoch")
    history = runs.read(folder).history
    history.pop("seconds")
    return (
        {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()},
        (folder / "best.npz").read_bytes(),
        (folder / "config.json").read_bytes(),
        history,
        result,
        sorted(path.name for path in folder.iterdir()),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    return contents(train(CONFIG, DATA, tmp_path_factory.mktemp("whole"), save_every=0).folder)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("where", ["step", "last.npz", "best.npz", "history.csv"])
def test_a_killed_run_ends_bit_identical(tmp_path, whole, where):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "out"), where],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -9, done.stderr
    run = Run(tmp_path / "out", CONFIG)
    assert not run.finished()
    assert run.load() is not None
    recorder = Recorder()
    assert contents(train(CONFIG, DATA, tmp_path / "out", recorder).folder) == whole
    assert recorder.began[0] > 0
    assert not recorder.notes


@pytest.mark.parametrize("after", [1, 3, 8])
def test_a_stopped_run_ends_bit_identical(tmp_path, whole, after):
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, DATA, tmp_path, Stop(after), save_every=0)
    recorder = Recorder()
    assert contents(train(CONFIG, DATA, tmp_path, recorder).folder) == whole
    assert recorder.began == [after - 1]  # the checkpoint follows the line of history


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_every_optimizer_continues(tmp_path, optimizer):
    config = dataclasses.replace(CONFIG, optimizer=optimizer, lr=0.01, method="dropout", log=3)
    with pytest.raises(KeyboardInterrupt):
        train(config, DATA, tmp_path / "a", Stop(4), save_every=0)
    one, two = (contents(train(config, DATA, tmp_path / name).folder) for name in "ab")
    assert one == two


def test_what_is_finished_is_left_alone(tmp_path):
    folder = train(CONFIG, DATA, tmp_path).folder
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    recorder = Recorder()
    assert train(CONFIG, DATA, tmp_path, recorder).result["status"] == "done"
    assert recorder.began == []
    assert recorder.ended == []
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"not an archive" * 50),
        lambda path: _files.save_npz(path, {"epoch": np.array(3)}),
        lambda path: _files.save_npz(path, {**_files.load_npz(path), "params/0.weight": np.zeros((2, 2))}),
        lambda path: _files.save_npz(path, {**_files.load_npz(path), "optimizer/t": np.array(-1)}),
        lambda path: _files.save_npz(path, {**_files.load_npz(path), "epoch": np.array(99)}),
    ],
)
def test_a_damaged_checkpoint_starts_again(tmp_path, whole, harm):
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, DATA, tmp_path, Stop(5), save_every=0)
    run = Run(tmp_path, CONFIG)
    harm(run.folder / "last.npz")
    recorder = Recorder()
    assert contents(train(CONFIG, DATA, tmp_path, recorder).folder) == whole
    assert recorder.began == [0]
    assert len(recorder.notes) == 1
    assert str(run.folder) in recorder.notes[0]


def test_a_damaged_result_is_made_again(tmp_path, whole):
    folder = train(CONFIG, DATA, tmp_path).folder
    (folder / "result.json").write_text('{"status": ')
    assert contents(train(CONFIG, DATA, tmp_path).folder) == whole


def test_a_full_disk_is_reported_and_nothing_is_lost(tmp_path, whole, monkeypatch):
    real, count = _files.save_npz, 0

    def full(path, arrays):
        nonlocal count
        count += 1
        if count > 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, arrays)

    monkeypatch.setattr(_files, "save_npz", full)
    with pytest.raises(LabError, match="No space left") as error:
        train(CONFIG, DATA, tmp_path, save_every=0)
    assert str(Run(tmp_path, CONFIG).folder) in str(error.value)
    monkeypatch.undo()
    assert contents(train(CONFIG, DATA, tmp_path).folder) == whole


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="cannot write"):
        train(CONFIG, DATA, tmp_path / "file" / "out")


def test_two_processes_do_not_train_one_run(tmp_path):
    pytest.importorskip("fcntl")
    run = Run(tmp_path, CONFIG)
    with run.locked(), pytest.raises(LabError, match="another process"):
        train(CONFIG, DATA, tmp_path)
    assert train(CONFIG, DATA, tmp_path).status == "done"


def test_equal_settings_have_equal_names_and_others_others():
    assert runs.run_name(CONFIG) == runs.run_name(dataclasses.replace(CONFIG))
    others = {
        "data": "x", "fingerprint": "x", "method": "dropout", "hidden": (16,), "outputs": 5,
        "activation": "sigmoid", "p": 0.4, "input_p": 0.1, "max_norm": 1.0, "l2": 0.1, "epochs": 9,
        "batch": 17, "optimizer": "adam", "lr": 0.2, "momentum": 0.8, "nesterov": False, "decay": 0.1,
        "schedule": "constant", "seed": 1, "validation": 0.1, "dtype": "float64", "engine": "torch", "log": 2,
        "version": 0, "device": "cuda", "precision": "bf16",
    }  # fmt: skip
    assert set(others) == {field.name for field in dataclasses.fields(Config)}
    needs = {name: {"engine": "torch"} for name in ("device", "precision")}
    names = {
        runs.run_name(dataclasses.replace(CONFIG, **{name: value, **needs.get(name, {})}))
        for name, value in others.items()
    }
    assert len(names | {runs.run_name(CONFIG)}) == len(others) + 1


def test_runs_made_before_there_were_devices_are_the_same_runs(tmp_path):
    assert "device" not in runs.canonical(CONFIG)
    assert "precision" not in runs.canonical(CONFIG)
    run = train(dataclasses.replace(CONFIG, epochs=1), DATA, tmp_path)
    path = run.folder / "config.json"
    settings = json.loads(path.read_text("utf-8"))
    del settings["device"], settings["precision"]
    path.write_text(json.dumps(settings), "utf-8")
    assert runs.read(run.folder).config == run.config


def test_the_name_is_the_hash_of_the_canonical_text():
    assert runs.canonical(CONFIG).startswith('{"activation":"relu","batch":16,"data":"arms"')
    assert runs.run_name(CONFIG).startswith("gaussian-seed0-")
    assert len(runs.run_name(CONFIG)) == len("gaussian-seed0-") + 12


def test_history_reads_back_exactly(tmp_path):
    run = Run(tmp_path, CONFIG)
    history = {column: [1.0, 2.0, 3.0] for column in COLUMNS}
    history["loss"] = [0.1 + 0.2, 1e-300, math.pi]
    with run.locked():
        run.save_history(history)
    assert run.read().history == history
    assert run.read().status == "stopped"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "{"),
        ("history.csv", "epoch,lr\n1,x\n"),
        ("result.json", "[]"),
        ("result.json", '{"status": "done"}'),
        ("result.json", "\x00"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, text):
    folder = train(dataclasses.replace(CONFIG, epochs=1), DATA, tmp_path).folder
    (folder / name).write_text(text)
    with pytest.raises(LabError, match=folder.name):
        runs.read(folder)


def test_folders_without_runs_are_named(tmp_path):
    with pytest.raises(LabError, match="no such folder"):
        runs.folders(tmp_path / "nowhere")
    with pytest.raises(LabError, match="holds no runs"):
        runs.folders(tmp_path)
