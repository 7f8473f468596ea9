"""Rows, curves and pages of stored runs."""

import json
import math

import numpy as np
import pytest
from helpers.comparison import BASE, DATA

from thinned import _files
from thinned.lab import compare
from thinned.lab.reporting import from_runs, terminal
from thinned.lab.reporting.html import html
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage.record import Record
from thinned.lab.sweeping import sweep


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


def test_rows_of_one_method_are_labelled_by_what_differs(made):
    _, stored = made
    labels = [row.label for row in from_runs.rows(stored)]
    assert labels == ["none", "dropout (lr 0.1, schedule linear)", "dropout (lr 1e+30, schedule constant)"]


def test_a_page_and_its_json(made):
    out, stored = made
    record = Record("compare", "thinned compare", compare.settings(BASE, DATA, [0, 1]))
    page = compare.page(record, stored[:4])
    found = terminal.as_json(page, stored[:4], out / "report.html")
    _files.write_json(out / "page-as.json", found)
    again = json.loads((out / "page-as.json").read_text())
    assert again["rows"][0]["test_error"]["mean"] == pytest.approx(np.mean(page.rows[0].test_error))
    assert again["rows"][0]["test_error"]["n"] == 2
    assert len(again["runs"]) == 4
    assert "test error" in again["finding"]
    assert "2-8-3" in html(page)


def test_a_run_that_was_cut_off_is_shown(made, tmp_path):
    class Stop(Progress):
        def row(self, name, row):
            if row["epoch"] == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(compare.jobs(BASE, DATA, ["none"], [0]), tmp_path, Stop(), save_every=0)
    stored = Record.load(tmp_path).stored(tmp_path)
    assert [row.status for row in from_runs.rows(stored)] == [["stopped"]]
    html(compare.page(Record.load(tmp_path), stored))
