"""Comparisons and the experiments that are made of them."""

import dataclasses
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import thinned
from thinned import Key, _files
from thinned.key import normals, words
from thinned.lab import compare, experiments
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.small import spiral
from thinned.lab.errors import LabError
from thinned.lab.experiments import cifar10_mlp as cifar
from thinned.lab.experiments import spiral as arms
from thinned.lab.grids.experiment import BUDGETS
from thinned.lab.reporting import from_runs
from thinned.lab.reporting.page import html
from thinned.lab.reporting.progress_bars import Bars, Lines, Progress
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Stored, run_name
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


# --- the spiral ---


def test_unknown_experiments_are_named():
    with pytest.raises(LabError, match="did you mean spiral"):
        experiments.load("spirl")


@pytest.mark.parametrize("name", experiments.names())
def test_experiments_know_their_budgets(name):
    experiment = experiments.load(name)
    assert experiment.name == name
    assert tuple(experiment.budgets) == tuple(experiment.seeds) == BUDGETS


def test_the_papers_budget_is_the_sources_setting():
    a, b = arms.jobs("paper", [0])
    assert isinstance(a.config, arms.SpiralConfig)
    assert isinstance(b.config, arms.SpiralConfig)
    assert (a.config.wiring, b.config.wiring) == ("A", "B")
    assert len(a.dataset.y_train) == len(a.dataset.y_test) == a.config.batch == 3000
    assert (a.config.epochs, a.config.lr, a.config.decay, a.config.p) == (10_001, 0.05, 5e-5, 0.1)
    net = arms.SpiralTrainer(a.config, a.dataset).net
    params = net.get_params()
    assert {name: array.shape for name, array in params.items()} == {
        "0.weight": (512, 2), "0.bias": (512,), "3.weight": (3, 512), "3.bias": (3,),
    }  # fmt: skip
    std = float(params["3.weight"].std())  # of 1536 numbers: within 5 standard errors of 0.01
    assert abs(std - 0.01) < 5 * 0.01 / math.sqrt(2 * 1536)
    for layer in net.children.values():
        for array in layer.params.values():
            array[:] = 2.0
    assert net.penalty() == pytest.approx(5e-4 * 4.0 * (512 * 2 + 512))  # of the first layer alone


def test_points_are_all_there_and_differ_by_seed():
    one, two = arms.points(50, 0), arms.points(50, 1)
    assert sorted(np.bincount(np.concatenate([one.y_train, one.y_test]))) == [50, 50, 50]
    assert one.fingerprint != two.fingerprint


def test_wiring_a_drops_the_gradient_alone():
    values = normals(Key(3), 400).reshape(20, 20)
    layer, key = arms.BackwardOnly(0.1), Key(5)
    assert layer.forward(values, key) is values
    assert np.array_equal(layer.backward(values), thinned.dropout(values, 0.1, key=key))
    layer.forward(values)
    assert np.array_equal(layer.backward(values), values)


def test_printed_runs_are_told_apart_by_the_figures_that_came():
    first, second = arms.printed("first"), arms.printed("second")
    assert first["loss"] == pytest.approx(first["data loss"] + first["regularisation loss"], abs=1.5e-3)
    straight, crossed = arms.verdicts({"A": first, "B": second}), arms.verdicts({"A": second, "B": first})
    assert "first printed run is nearest to wiring A" in straight[0]
    assert "second printed run is nearest to wiring B" in straight[1]
    assert "first printed run is nearest to wiring B" in crossed[0]
    assert "nearest to wiring A" in crossed[1]


def test_the_line_is_the_sources():
    row = {"epoch": 10_001, "error": 0.086, "loss": 0.222, "penalty": 0.055, "lr": 0.0333333}
    assert arms.line(row) == (
        "epoch: 10000, acc: 0.914, loss: 0.277 (data_loss: 0.222, reg_loss: 0.055), lr: 0.033333"
    )


def test_spiral_smoke(tmp_path):
    todo = arms.jobs("smoke", [0])
    stored = sweep.run(todo, tmp_path)
    record = Record("spiral", "thinned reproduce spiral", arms.settings("smoke", todo), budget="smoke")
    page = arms.page(record, stored)
    assert [row[0] for row in page.references[0].rows][:2] == ["source, first", "source, second"]
    assert len(page.references[0].rows) == 4
    assert "The first printed run is nearest to wiring" in page.lead
    assert stored[0].history["epoch"] == [1, 101, 201]
    html(page)


def test_the_last_lines_stand_side_by_side():
    epochs = [float(e) for e in range(1, 10_002, 100)]
    history = {name: [0.25] * len(epochs) for name in ("error", "loss", "penalty")} | {"epoch": epochs}
    run = Stored(Path("x"), {"seed": 0}, history, {})
    (table,) = arms._lines({"A": [run], "B": [run]})
    assert table.rows[-1] == ["10,000", "0.914, 0.277", "0.859, 0.468", "0.750, 0.500", "0.750, 0.500"]
    assert table.rows[0][2] == ""


# --- CIFAR-10 ---


def photographs(n=40, features=12):
    """Ten classes of nothing."""
    key = Key(9)
    pixels = (words(key, 2 * n * features) % 256 / 255).astype(np.float32).reshape(2 * n, features)
    labels = np.arange(2 * n, dtype=np.int64) % 10
    names = tuple(map(str, range(10)))
    return Dataset("cifar10", pixels[:n], labels[:n], pixels[n:], labels[n:], names, (3, 2, 2), "Nothing.")


def test_cifar_rows_differ_as_told(monkeypatch):
    monkeypatch.setattr(cifar, "load", lambda *args, **more: photographs())
    todo = cifar.jobs("paper", [0, 1])
    assert [cifar.label(dataclasses.asdict(job.config)) for job in todo] == [*cifar.ROWS] * 2
    assert len({run_name(job.config) for job in todo}) == 10
    a, b, c, d = (job.config for job in todo[:4])
    assert (a.epochs, a.lr, a.schedule, a.l2, a.batch, a.hidden) == (
        300,
        1e-3,
        "halve",
        1e-3,
        256,
        (2000, 800),
    )
    assert todo[4].config.method == "thin"
    assert [job.p for job in (a, b, c, d)] == [0.0, 0.5, 0.5, 0.5]
    assert [job.input_p for job in (a, b, c, d)] == [0.0, 0.0, 0.1, 0.0]
    assert [job.trainer.__name__ for job in todo[:4]] == ["Trainer", "Trainer", "Trainer", "InPlace"]


def test_inputs_dropped_in_place_are_lost_for_good():
    data = photographs(400, 50)
    ones = dataclasses.replace(data, x_train=np.ones_like(data.x_train))
    config = cifar.CifarConfig(fingerprint="", in_place=0.1, hidden=(4,), method="dropout")
    trainer = cifar.InPlace(config, ones)
    alive = np.ones(ones.x_train.shape, bool)
    for epoch in range(12):
        trainer.epoch = epoch
        x, keep = trainer.examples(), 0.9 ** (epoch + 1)
        assert not (x != 0)[~alive].any()
        alive = x != 0
        assert x[alive] == pytest.approx(1 / keep, rel=1e-5)
        bound = 5 * math.sqrt(keep * (1 - keep) / x.size)  # five standard deviations of a binomial share
        assert abs(alive.mean() - keep) < bound
    assert np.array_equal(ones.x_train, np.ones_like(ones.x_train))


def test_cifar_smoke(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "load", lambda *args, **more: photographs())
    todo = cifar.jobs("smoke", [0])
    stored = sweep.run(todo, tmp_path)
    record = Record("cifar10-mlp", "", cifar.settings("smoke", todo), budget="smoke")
    page = cifar.page(record, stored)
    assert page.references[0].rows[0][:2] == ["source, A, standard", "100.00"]
    assert [row[0] for row in page.references[0].rows[2:]] == [*cifar.ROWS]
    assert stored[0].result["parameters"] == 12 * 64 + 64 + 64 * 32 + 32 + 32 * 40 + 40
    assert any("lowest" in note for note in page.notes)
    html(page)


def test_cifar_says_what_became_of_the_loss(made):
    _, stored = made
    falls = dataclasses.replace(stored[0], history=stored[0].history | {"loss": [2.0, 1.0]})
    rises = dataclasses.replace(stored[0], history=stored[0].history | {"loss": [1.0, 2.0]})
    assert "it converges" in cifar._convergence("C", [falls])
    assert "no convergence" in cifar._convergence("C", [rises])
    assert "diverged in epoch" in cifar._convergence("C", [stored[4]])
    assert cifar._figures([stored[4]])[0] == "diverged"
