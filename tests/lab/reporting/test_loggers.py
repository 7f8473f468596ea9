"""Loggers get every run; what they stored is read back, without a network."""

import json
import struct
import time

import pytest
from helpers.comparison import BASE, DATA

from thinned.lab import compare
from thinned.lab.errors import LabError
from thinned.lab.reporting import loggers
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage.run import run_name
from thinned.lab.sweeping import sweep

TODO = compare.jobs(BASE, DATA, ["none", "dropout"], range(1))
LIBRARIES_WARN = pytest.mark.filterwarnings("ignore")


class Notes(Progress):
    """Keeps the notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def trained(out, *names):
    """Train with these loggers; the stored runs and the notes."""
    notes = Notes()
    with loggers.logged(notes, names, out, len(TODO)) as progress:
        return sweep.run(TODO, out, progress), notes.notes


@LIBRARIES_WARN
def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stored, notes = trained(tmp_path, "tensorboard")
    assert notes == []
    for run in stored:
        read = EventAccumulator(str(tmp_path / "tensorboard" / run.folder.name)).Reload()
        found = [(event.step, event.value) for event in read.Scalars("loss")]
        expected = zip(run.history["epoch"], run.history["loss"], strict=True)
        assert found == [(epoch, pytest.approx(loss)) for epoch, loss in expected]
        assert read.Scalars("final/test_error")[0].value == pytest.approx(run.result["test_error"])
        assert read.Scalars("hp_metric")[-1].value == pytest.approx(run.result["test_error"])
    assert trained(tmp_path, "tensorboard")[1] == ["2 runs of 2 finished before: not logged again"]


@LIBRARIES_WARN
def test_mlflow_continues_a_run(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("pytorch_lightning")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    name = run_name(TODO[0].config)
    loggers.mlflow(name, tmp_path).close(None)  # a run that was cut off
    stored, notes = trained(tmp_path, "mlflow")
    assert notes == []
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    group = client.get_experiment_by_name(tmp_path.name)
    every = client.search_runs([group.experiment_id])
    runs = {run.info.run_name: run for run in every}
    assert set(runs) == {run.folder.name for run in stored}
    assert len(every) == len(stored)
    for run in stored:
        found = runs[run.folder.name]
        assert found.info.status == "FINISHED"
        assert found.data.params["method"] == run.config["method"]
        assert found.data.metrics["final/test_error"] == run.result["test_error"]
        steps = [metric.step for metric in client.get_metric_history(found.info.run_id, "loss")]
        assert steps == run.history["epoch"]


@LIBRARIES_WARN
def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    pytest.importorskip("pytorch_lightning")
    for variable, value in (("MODE", "offline"), ("ERROR_REPORTING", "false"), ("SILENT", "true")):
        monkeypatch.setenv(f"WANDB_{variable}", value)
    stored, notes = trained(tmp_path, "wandb")
    assert notes == []
    for run in stored:
        path = next(tmp_path.glob(f"wandb/offline-run-*/run-{tmp_path.name}-{run.folder.name}.wandb"))
        found = rows(path)
        assert [row["loss"] for row in found if "loss" in row] == run.history["loss"]
        assert found[-1]["final/test_error"] == run.result["test_error"]


def rows(path):
    """The history in a file of W&B, which is whole some time after `finish` returns."""
    from wandb.proto.wandb_internal_pb2 import Record

    for _ in range(600):
        every = [Record.FromString(data) for data in records(path.read_bytes())]
        if every and every[-1].WhichOneof("record_type") == "exit":
            break
        time.sleep(0.1)
    return [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in every
        if record.WhichOneof("record_type") == "history"
    ]


def records(data):
    """The records of LevelDB's log format: parts (checksum 4 bytes, length 2, kind 1) in blocks of 32 KiB."""
    at, whole = 7, b""  # after the header of W&B
    while at + 7 <= len(data):
        length, kind = struct.unpack_from("<HB", data, at + 4)
        if at + 7 + length > len(data):  # not written yet
            return
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or the last part
            yield whole
            whole = b""
        if -at % 2**15 < 7:  # too little for one more part: the rest of the block is empty
            at += -at % 2**15


def test_a_logger_that_fails_is_left_out_and_training_goes_on(tmp_path, monkeypatch):
    def broken(name, home):
        raise ConnectionError("no server")

    monkeypatch.setitem(loggers.LOGGERS, "wandb", broken)
    monkeypatch.setitem(loggers.PACKAGES, "wandb", ())
    stored, notes = trained(tmp_path, "wandb")
    assert [run.status for run in stored] == ["done", "done"]
    names = [run.folder.name for run in stored]
    assert notes == [f"wandb logs no more of {name}: ConnectionError: no server" for name in names]


def test_a_run_that_is_cut_off_is_closed(tmp_path, monkeypatch):
    closed = []
    log = loggers.Log(
        logger=type("L", (), {"log_hyperparams": lambda self, settings: None})(), close=closed.append
    )
    monkeypatch.setitem(loggers.LOGGERS, "wandb", lambda name, home: log)
    monkeypatch.setitem(loggers.PACKAGES, "wandb", ())
    run = sweep.run(TODO[:1], tmp_path)[0]
    with loggers.logged(Progress(), ["wandb"], tmp_path, 1) as progress:
        progress.begin(run.folder.name, 2, 0)
    assert closed == [None]


def test_what_is_wrong_is_said_before_training(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="logger must be"):
        loggers.logged(Progress(), ["comet"], tmp_path, 1)
    monkeypatch.setitem(loggers.PACKAGES, "wandb", ("not_there",))
    with pytest.raises(LabError, match=r"needs not_there; run pip install \"thinned\[loggers\]\""):
        loggers.logged(Progress(), ["wandb"], tmp_path, 1)
    quiet = Progress()
    assert loggers.logged(quiet, None, tmp_path, 1) is quiet
