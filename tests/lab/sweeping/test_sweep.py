"""Sweeps: done runs are skipped, others continue, and no failure stops the rest."""

import dataclasses
import os
import re
import signal
from pathlib import Path

import pytest
from helpers.commands import LIMIT, SWEEP, outcome, start, wait_for
from helpers.recorder import Recorder

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from thinned.lab import experiments
from thinned.lab.data.registry import load
from thinned.lab.grids.grid import GridConfig, GridTrainer
from thinned.lab.reporting.html import html
from thinned.lab.reproduce import order, results_page
from thinned.lab.reproduce.order import Order
from thinned.lab.storage import run as runs
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Run, run_name
from thinned.lab.sweeping import sweep
from thinned.lab.sweeping.job import Job
from thinned.lab.sweeping.worker import train_one

ORDER = Order("mnist-gaussian", "smoke", (0, 1))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The order, trained in this process."""
    return outcome(sweep.run(ORDER.jobs(), tmp_path_factory.mktemp("alone"), Recorder()))


def test_what_is_finished_is_not_counted_twice(tmp_path, alone):
    one = dataclasses.replace(ORDER, only=("dropout",))
    sweep.run(one.jobs(), tmp_path, Recorder())
    recorder = Recorder()
    assert outcome(sweep.run(ORDER.jobs(), tmp_path, recorder)) == alone
    assert len(recorder.ended) == 4


def test_a_run_that_fails_is_shown_and_tried_again(tmp_path, monkeypatch, alone):
    measure = GridTrainer.measure

    def fails(self):
        if self.config.method == "gaussian":
            raise RuntimeError("no luck")
        return measure(self)

    monkeypatch.setattr(GridTrainer, "measure", fails)
    stored = sweep.run(ORDER.jobs(), tmp_path, Recorder())
    assert [run.status for run in stored] == ["done", "done", "failed"] * 2
    assert stored[2].failure == "RuntimeError: no luck"
    record = order.record(ORDER, ORDER.jobs())
    page = experiments.load("mnist-gaussian").page(record, stored)
    assert "failed" in html(page)
    rows = results_page.rows(experiments.load("mnist-gaussian"), record, stored)
    assert rows[2]["lost"] == {"0": "failed", "1": "failed"}
    assert rows[2]["test_error"] is None
    monkeypatch.undo()
    assert outcome(sweep.run(ORDER.jobs(), tmp_path, Recorder())) == alone


def test_a_job_fails_in_its_own_words(tmp_path):
    config = GridConfig(data="digits", fingerprint="", system="a", hidden=(4,), epochs=1)

    class Broken(GridTrainer):
        def build(self):
            raise MemoryError("too large")

    run = train_one(Job(config, load("digits"), Broken), tmp_path, Recorder(), 1.0)
    assert (run.status, run.failure) == ("failed", "MemoryError: too large")
    assert Record.load(tmp_path).stored(tmp_path) == [run]
    assert run_name(config) == Run(tmp_path, config).folder.name


def children(pid):
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_a_killed_sweep_goes_on_and_a_dead_worker_is_replaced(tmp_path, alone):
    folder = tmp_path / "thinned-runs" / "mnist-gaussian-smoke"
    with start(tmp_path, *SWEEP, "--workers", "2") as process:
        wait_for(process, lambda: len(list(folder.glob("*/result.json"))) >= 2)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -9
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/result.json")}
    assert 2 <= len(before) < 12
    with start(tmp_path, *SWEEP, "--workers", "2") as process:
        wait_for(process, lambda: len(list(folder.glob("*/config.json"))) > len(before) + 2)
        workers = [
            pid for pid in children(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(workers[0], signal.SIGKILL)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, err
    assert "a worker died" in err
    assert re.search(r"\[\d+/\d+\] .*; about \d+ (s|min) left", err), err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    stored = [runs.read(path.parent) for path in folder.glob("*/config.json")]
    assert [run.status for run in stored] == ["done"] * 12
    assert outcome([runs.read(folder / name) for name, *_ in alone]) == alone  # the first two of four seeds
