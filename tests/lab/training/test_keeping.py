"""Trainers of a comparison: what they keep agrees with the errors of the run."""

import dataclasses

import numpy as np
import pytest
from helpers.comparison import BASE, DATA

from thinned.lab.data.dataset import Dataset
from thinned.lab.storage.run import Run, predictions
from thinned.lab.training.keeping import Keeping, Numbers, trainer
from thinned.lab.training.train import train

rng = np.random.default_rng(5)
x = rng.normal(size=(120, 3)).astype(np.float32)
y = 1000 + 50 * (x @ [1.0, -2.0, 0.5])
PLANE = Dataset("plane", x[:90], y[:90], x[90:], y[90:], (), (3,), "A plane.")
SETTINGS = {"data": "plane", "fingerprint": PLANE.fingerprint, "method": "none", "lr": 0.05, "epochs": 30}
FLAT = dataclasses.replace(BASE, **SETTINGS)


def test_classes(tmp_path):
    assert trainer(DATA) is Keeping
    run = train(BASE, DATA, tmp_path, trainer=Keeping)
    kept = predictions(run.folder)
    np.testing.assert_array_equal(kept["labels"], DATA.y_test)
    np.testing.assert_allclose(kept["outputs"].sum(axis=1), 1, rtol=1e-6)
    assert np.mean(kept["outputs"].argmax(axis=1) != DATA.y_test) == run.result["test_error"]
    chosen = kept["outputs"][np.arange(len(DATA.y_test)), DATA.y_test]
    assert -np.log(chosen).mean() == pytest.approx(run.result["test_loss"], rel=1e-5)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_numbers(tmp_path, engine):
    if engine == "torch":
        pytest.importorskip("torch")
    assert trainer(PLANE) is Numbers
    run = train(dataclasses.replace(FLAT, engine=engine), PLANE, tmp_path, trainer=Numbers)
    kept = predictions(run.folder)
    rmse = np.sqrt(np.mean((kept["outputs"] - PLANE.y_test) ** 2))
    assert rmse == pytest.approx(run.result["test_error"], rel=1e-5)
    assert rmse < 0.1 * PLANE.y_test.std()  # it learnt the plane
    assert run.history["error"][-1] < run.history["error"][0]


def test_what_is_held_out_takes_the_place_of_the_test_data(tmp_path):
    run = train(dataclasses.replace(BASE, validation=0.2), DATA, tmp_path, trainer=Keeping)
    assert len(predictions(run.folder)["labels"]) == round(0.2 * len(DATA.x_train))


def test_others_keep_nothing(tmp_path):
    assert predictions(train(BASE, DATA, tmp_path).folder) is None


def test_a_run_that_diverged_keeps_nothing(tmp_path):
    wild = dataclasses.replace(BASE, lr=1e30, schedule="constant")
    run = train(wild, DATA, tmp_path, trainer=Keeping)
    assert run.status == "diverged"
    assert predictions(Run(tmp_path, wild).folder) is None
