"""`thinned reproduce`: which runs an order has, and what the command leaves behind."""

import dataclasses
import json

import pytest
from helpers.commands import call
from helpers.recorder import Recorder

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from thinned.lab.errors import LabError
from thinned.lab.experiments import linear_theory
from thinned.lab.reproduce import order
from thinned.lab.reproduce.order import Order
from thinned.lab.sweeping import sweep

ORDER = Order("mnist-gaussian", "smoke", (0, 1))


def test_unknown_systems_are_named():
    with pytest.raises(LabError, match="Gaussian noise"):
        dataclasses.replace(ORDER, only=("nothing",)).jobs()


def test_held_out_data_is_judged_by(tmp_path):
    asked = dataclasses.replace(ORDER, seeds=(0,), only=("dropout",), validation=0.25)
    (run,) = sweep.run(asked.jobs(), tmp_path, Recorder())
    assert run.result["judged_on"] == "held-out training data"
    assert order.default_out(asked) != order.default_out(ORDER)
    record = dataclasses.replace(order.record(asked, asked.jobs()), budget="quick")
    with pytest.raises(LabError, match="held-out"):
        order.publish(tmp_path / "results", record, [run])
    with pytest.raises(LabError, match="smoke"):
        order.publish(tmp_path / "results", dataclasses.replace(record, budget="smoke"), [run])
    assert not (tmp_path / "results").exists()


def test_one_command_writes_report_rows_and_index(in_tmp):
    result = call("reproduce", "linear-theory", "--budget", "smoke")
    assert result.exit_code == 0, result.output
    folder = in_tmp / "thinned-runs" / "linear-theory-smoke"
    assert json.loads((folder / "linear-theory.json").read_text())["rows"][0]["budget"] == "smoke"
    assert (in_tmp / "thinned-runs" / "index.html").exists()
    assert "standard errors" in result.stdout
    assert call("report", folder).stdout == result.stdout


def test_a_failed_run_ends_with_1(in_tmp, monkeypatch):
    monkeypatch.setattr(linear_theory.Simulation, "rate", lambda *args: 1 / 0)
    result = call("reproduce", "linear-theory", "--budget", "smoke")
    assert result.exit_code == 1
    assert "1 of 1 runs failed; the first: ZeroDivisionError" in result.stderr
