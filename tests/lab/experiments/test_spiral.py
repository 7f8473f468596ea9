"""`spiral`: the source's settings, points for each seed, both wirings."""

import math
from pathlib import Path

import numpy as np
import pytest

import thinned
from thinned import Key
from thinned.key import normals
from thinned.lab.experiments import spiral
from thinned.lab.reporting.html import html
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Stored
from thinned.lab.sweeping import sweep

SPIRAL = spiral.EXPERIMENT


def test_the_papers_budget_is_the_sources_setting():
    a, b = SPIRAL.jobs("paper", [0])
    assert isinstance(a.config, spiral.SpiralConfig)
    assert isinstance(b.config, spiral.SpiralConfig)
    assert (a.config.wiring, b.config.wiring) == ("A", "B")
    assert len(a.dataset.y_train) == len(a.dataset.y_test) == a.config.batch == 3000
    assert (a.config.epochs, a.config.lr, a.config.decay, a.config.p) == (10_001, 0.05, 5e-5, 0.1)
    net = spiral.SpiralTrainer(a.config, a.dataset).net
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


def test_both_wirings_of_a_seed_share_its_points():
    a, b, c, _ = SPIRAL.jobs("smoke", [0, 1])
    assert a.dataset is b.dataset
    assert a.dataset.fingerprint != c.dataset.fingerprint


def test_points_are_all_there_and_differ_by_seed():
    one, two = spiral.points(50, 0), spiral.points(50, 1)
    assert sorted(np.bincount(np.concatenate([one.y_train, one.y_test]))) == [50, 50, 50]
    assert one.fingerprint != two.fingerprint


def test_wiring_a_drops_the_gradient_alone():
    values = normals(Key(3), 400).reshape(20, 20)
    layer, key = spiral.BackwardOnly(0.1), Key(5)
    assert layer.forward(values, key) is values
    assert np.array_equal(layer.backward(values), thinned.dropout(values, 0.1, key=key))
    layer.forward(values)
    assert np.array_equal(layer.backward(values), values)


def test_printed_runs_are_matched_by_their_figures():
    first, second = spiral.printed("first"), spiral.printed("second")
    assert first["loss"] == pytest.approx(first["data loss"] + first["regularisation loss"], abs=1.5e-3)
    straight, crossed = spiral.verdicts({"A": first, "B": second}), spiral.verdicts({"A": second, "B": first})
    assert "first printed run is nearest to wiring A" in straight[0]
    assert "second printed run is nearest to wiring B" in straight[1]
    assert "first printed run is nearest to wiring B" in crossed[0]
    assert "nearest to wiring A" in crossed[1]


def test_the_line_is_the_sources():
    row = {"epoch": 10_001, "error": 0.086, "loss": 0.222, "penalty": 0.055, "lr": 0.0333333}
    assert spiral.line(row) == (
        "epoch: 10000, acc: 0.914, loss: 0.277 (data_loss: 0.222, reg_loss: 0.055), lr: 0.033333"
    )


def test_spiral_smoke(tmp_path):
    todo = SPIRAL.jobs("smoke", [0])
    stored = sweep.run(todo, tmp_path)
    record = Record("spiral", "thinned reproduce spiral", SPIRAL.settings("smoke", todo), budget="smoke")
    page = SPIRAL.page(record, stored)
    assert [row[0] for row in page.references[1].rows][:2] == ["source, first", "source, second"]
    assert len(page.references[1].rows) == 4
    assert "The first printed run is nearest to wiring" in page.headline
    assert "over the last 10, validation losses range from" in " ".join(page.notes)
    assert stored[0].history["epoch"] == [1, 101, 201]
    html(page)


def test_the_last_lines_stand_side_by_side():
    epochs = [float(e) for e in range(1, 10_002, 100)]
    history = {name: [0.25] * len(epochs) for name in ("error", "loss", "penalty")} | {"epoch": epochs}
    run = Stored(Path("x"), {"seed": 0}, history, {})
    (table,) = spiral._lines({"A": [run], "B": [run]})
    assert table.rows[-1] == ["10,000", "0.914, 0.277", "0.859, 0.468", "0.750, 0.500", "0.750, 0.500"]
    assert table.rows[0][2] == ""
