"""Grids: test data is used once; the support vector machine and the autoencoder follow their settings."""

import dataclasses
import math

import numpy as np
import pytest

from thinned.lab.data.registry import load
from thinned.lab.grids import autoencoder, computation
from thinned.lab.grids.grid import GridConfig, GridTrainer

pytest.importorskip("sklearn")


def test_the_machine_is_chosen_without_test_data():
    data = load("digits")
    turned = dataclasses.replace(data, x_test=data.x_test[::-1], y_test=(data.y_test + 1) % 10)
    config = GridConfig(data="digits", fingerprint="", system="", hidden=(1,), epochs=1)
    one, two = (computation.Svm(config, d).compute() for d in (data, turned))
    assert one["measured"] == two["measured"]
    assert one["test_error"] < 0.05 < two["test_error"]


def test_test_data_is_looked_at_once(tmp_path):
    (tmp_path / "a").mkdir()
    data = load("digits")
    config = GridConfig(data="digits", fingerprint="", system="a", hidden=(8,), epochs=4)
    for curve, there in ((False, [False, False, False, True]), (True, [True] * 4)):
        trainer = GridTrainer(dataclasses.replace(config, test_curve=curve), data)
        for _ in range(4):
            trainer.next_epoch(lambda done, loss: None)
        assert [math.isfinite(e) for e in trainer.history["test_error"]] == there
        assert all(map(math.isfinite, trainer.history["train_error"]))
    held = dataclasses.replace(config, validation=0.25)
    trainer = GridTrainer(held, data)
    trainer.next_epoch(lambda done, loss: None)
    assert math.isfinite(trainer.history["test_error"][0])


def test_the_autoencoder_has_the_penalty_of_its_configuration():
    data = load("digits")
    config = GridConfig(data="digits", fingerprint=data.fingerprint, system="", hidden=(8,), l2=0.5)
    net = autoencoder.Autoencoder(config, data).net
    squares = sum(float(np.vdot(w, w)) for name, w in net.get_params().items() if name.endswith("weight"))
    assert net.penalty() == pytest.approx(0.25 * squares, rel=1e-5)
