"""Comparisons and the experiments that are made of them."""

import dataclasses
import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from thinned import Key, _files
from thinned.lab import compare
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.small import spiral
from thinned.lab.errors import LabError
from thinned.lab.reporting import from_runs
from thinned.lab.reporting.page import html
from thinned.lab.reporting.progress_bars import Bars, Lines, Progress
from thinned.lab.storage.record import Record
from thinned.lab.sweeping import sweep
from thinned.lab.sweeping.job import Job
from thinned.lab.training import torch_nets as engines
from thinned.lab.training.config import Config

x, y = spiral(30, key=Key(0))
DATA = Dataset("arms", x[::2], y[::2], x[1::2], y[1::2], ("0", "1", "2"), (2,), "Arms.")
BASE = Config(data="arms", fingerprint=DATA.fingerprint, method="dropout", hidden=(8,), epochs=2, batch=15)


def test_unknown_methods_are_named_with_the_nearest():
    with pytest.raises(LabError, match=r"'dropuot' \(did you mean dropout\?\)"):
        compare.known_methods(["none", "dropuot"])
    with pytest.raises(LabError, match="none, dropout"):
        compare.known_methods(["zzzzzz"])
    with pytest.raises(LabError, match="at least one"):
        compare.known_methods([])


def test_all_are_the_methods_that_fit():
    assert compare.known_methods(["all"]) == engines.applicable("numpy")
    assert compare.known_methods(["all"], "torch") == engines.applicable("torch")
    assert compare.known_methods(["none", "none", "dropout"]) == ["none", "dropout"]


def test_a_method_that_does_not_fit_says_why(monkeypatch):
    with pytest.raises(LabError, match=r"got spatial: it works on \(N, C, \*spatial\)"):
        compare.known_methods(["spatial"])
    with pytest.raises(LabError, match="got alpha: it needs SELU units"):
        compare.known_methods(["alpha"])
    monkeypatch.setattr(engines, "applicable", lambda engine: ["none"])
    with pytest.raises(LabError, match="got dropout: the torch engine has no layer for it"):
        compare.known_methods(["dropout"], "torch")


def test_jobs_go_seed_after_seed():
    todo = compare.jobs(BASE, DATA, ["none", "dropout"], range(2))
    assert [(job.config.seed, job.config.method) for job in todo] == [
        (0, "none"), (0, "dropout"), (1, "none"), (1, "dropout"),
    ]  # fmt: skip
    assert todo[1].config == BASE
    assert todo[0].config.p == 0.0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two methods, two seeds, one of them diverged."""
    out = tmp_path_factory.mktemp("made")
    todo = compare.jobs(BASE, DATA, ["none", "dropout"], range(2))
    wild = dataclasses.replace(BASE, seed=2, lr=1e30, schedule="constant")
    return out, sweep.run([*todo, Job(wild, DATA)], out)


def test_rows_hold_the_results(made):
    _, stored = made
    rows = from_runs.rows(stored, lambda config: config["method"])
    assert [row.label for row in rows] == ["none", "dropout"]
    assert rows[0].test_error == [
        run.result["test_error"] for run in stored if run.config["method"] == "none"
    ]
    assert rows[1].status == ["done", "done", "diverged"]
    assert math.isnan(rows[1].test_error[2])
    assert rows[0].parameters == 2 * 8 + 8 + 8 * 3 + 3


def test_series_hold_the_histories(made):
    _, stored = made
    series = from_runs.series(stored[:4])
    assert [(s.label, s.seed) for s in series] == [("none", 0), ("none", 1), ("dropout", 0), ("dropout", 1)]
    assert series[0].epoch == [1, 2]
    assert series[0].columns["test_error"] == stored[0].history["test_error"]


def test_rows_of_one_method_are_told_apart_by_what_differs(made):
    _, stored = made
    labels = [row.label for row in from_runs.rows(stored)]
    assert labels == ["none", "dropout, lr 0.1, schedule linear", "dropout, lr 1e+30, schedule constant"]


def test_a_page_and_its_json(made):
    out, stored = made
    record = Record("compare", "thinned compare", compare.settings(BASE, DATA, [0, 1]))
    page = compare.page(record, stored[:4])
    found = from_runs.as_json(page, stored[:4], out / "report.html")
    _files.write_json(out / "page-as.json", found)
    again = json.loads((out / "page-as.json").read_text())
    assert again["rows"][0]["test_error"]["mean"] == pytest.approx(np.mean(page.rows[0].test_error))
    assert again["rows"][0]["test_error"]["n"] == 2
    assert len(again["runs"]) == 4
    assert "test error" in again["finding"]
    assert "2-8-3" in html(page)


def test_a_record_comes_back(made):
    out, stored = made
    record = Record("compare", "thinned compare", {"a": "b"}, [stored[0].folder.name])
    record.save(out)
    assert dataclasses.asdict(Record.load(out)) == dataclasses.asdict(record)
    assert Record.load(out).stored(out) == [stored[0]]
    (out / "page.json").write_text('{"kind": ')
    with pytest.raises(LabError, match=r"page\.json"):
        Record.load(out)
    (out / "page.json").unlink()
    assert len(Record.load(out).stored(out)) == 5


def test_a_run_that_was_cut_off_is_told(made, tmp_path):
    class Stop(Progress):
        def row(self, name, row):
            if row["epoch"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(compare.jobs(BASE, DATA, ["none"], [0]), tmp_path, Stop(), save_every=0)
    stored = Record.load(tmp_path).stored(tmp_path)
    assert [row.status for row in from_runs.rows(stored)] == [["stopped"]]
    html(compare.page(Record.load(tmp_path), stored))


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_progress_tells_every_run(tmp_path, kind):
    from rich.console import Console

    console = Console(record=True, force_terminal=kind is Bars, width=200, file=io.StringIO())
    todo = compare.jobs(BASE, DATA, ["none", "dropout"], range(2))
    with kind(console) as progress:
        sweep.run(todo, tmp_path, progress)
    told = console.export_text()
    assert "[4/4] dropout-seed1-" in told
    assert "test error" in told


@pytest.mark.parametrize("kind", [Lines, Bars])
def test_a_run_that_begins_again_is_counted_once(made, monkeypatch, kind):
    from rich.console import Console

    run, clock = made[1][0], [0.0]
    monkeypatch.setattr(
        "thinned.lab.reporting.progress_bars.time", SimpleNamespace(monotonic=lambda: clock[0])
    )
    progress = kind(Console(record=True, force_terminal=kind is Bars, width=200, file=io.StringIO()))
    name, other = run.folder.name, made[1][1].folder.name
    progress.plan(2, 4, {name: 2.0, other: 2.0})
    progress.step_of(name, 1, 0.5)  # of a run that is not known to have begun
    assert progress.left() == math.inf
    progress.begin(name, 2, 0)
    progress.begin(other, 2, 0)
    clock[0] = 10.0
    progress.step_of(name, 1, 0.5)
    assert progress.left() == 30.0  # an epoch of four took ten seconds
    progress.begin(name, 2, 1)  # its worker died after a checkpoint
    progress.step_of(name, 1.5, 0.5)
    clock[0] = 20.0
    progress.step_of(other, 1, 0.5)
    assert progress.left() == pytest.approx(20 / 1.5 * 1.5)
    progress.end(run)
    assert progress.left() == pytest.approx(20 / 2 * 1)
    if kind is Bars:
        assert len(progress.bars.tasks) == 2  # all runs, and the other
