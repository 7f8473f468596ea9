"""Training: honest figures, and what may not influence them."""

import dataclasses
import json
import math

import numpy as np
import pytest
from helpers.clouds import DATA, config

from thinned.lab.choices import applicable
from thinned.lab.storage.run import Run
from thinned.lab.training import networks, train
from thinned.lab.training.trainer import Trainer
from thinned.scratch import load_params


def last(run):
    """The checkpoint of a run on disk."""
    found = Run(run.folder.parent, config())
    found.folder = run.folder
    return found.load()


def test_too_few_outputs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="outputs"):
        train.train(config(outputs=2), DATA, tmp_path)


def test_figures_are_those_of_the_final_parameters(tmp_path):
    run = train.train(config(hidden=(8, 8)), DATA, tmp_path)
    trainer = Trainer(config(hidden=(8, 8)), DATA)
    trainer.net.set_params(last(run).params)
    wrong = trainer.net.predict(DATA.x_train).argmax(1) != DATA.y_train
    wrong_test = trainer.net.predict(DATA.x_test).argmax(1) != DATA.y_test
    assert run.result["train_error"] == pytest.approx(wrong.mean())
    assert run.result["test_error"] == pytest.approx(wrong_test.mean()) == run.history["test_error"][-1]
    assert run.result["gap"] == run.result["test_error"] - run.result["train_error"]
    assert run.result["parameters"] == (6 * 8 + 8) + (8 * 8 + 8) + (8 * 3 + 3)
    assert run.history["epoch"] == [1, 2, 3, 4]
    assert all(len(values) == 4 for values in run.history.values())


def test_the_first_loss_is_that_of_the_first_parameters(tmp_path):
    whole = config(method="none", batch=1000, epochs=1, l2=0.1)
    net = networks.build(whole, DATA)
    scores = net.predict(DATA.x_train).astype(float)
    log_likelihood = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    penalty = 0.05 * sum(
        float((v.astype(float) ** 2).sum()) for k, v in net.get_params().items() if "weight" in k
    )
    run = train.train(whole, DATA, tmp_path)
    assert run.history["loss"][0] == pytest.approx(
        -log_likelihood[np.arange(90), DATA.y_train].mean(), rel=1e-5
    )
    assert run.history["penalty"][0] == pytest.approx(penalty, rel=1e-5)


def test_training_learns(tmp_path):
    run = train.train(config(method="none", epochs=30), DATA, tmp_path)
    assert run.history["train_loss"][-1] < 0.5 * run.history["train_loss"][0]


def test_same_seed_same_bytes_another_seed_others(tmp_path):
    one, two = (train.train(config(), DATA, tmp_path / name) for name in "ab")
    other = train.train(config(seed=1), DATA, tmp_path / "a")
    for name in ("best.npz", "config.json"):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()
    a, b, c = map(last, (one, two, other))
    assert all(np.array_equal(a.params[name], b.params[name]) for name in a.params)
    assert all(np.array_equal(a.optimizer[name], b.optimizer[name]) for name in a.optimizer)
    assert not np.array_equal(a.params["0.weight"], c.params["0.weight"])


def test_test_data_influence_nothing(tmp_path):
    spoilt = dataclasses.replace(DATA, x_test=DATA.x_test + 7, y_test=(DATA.y_test + 1) % 3)
    one, two = (train.train(config(), data, tmp_path / name) for name, data in (("a", DATA), ("b", spoilt)))
    assert (one.folder / "best.npz").read_bytes() == (two.folder / "best.npz").read_bytes()
    a, b = last(one), last(two)
    assert all(np.array_equal(a.params[name], b.params[name]) for name in a.params)


def test_validation_never_looks_at_the_test_data(tmp_path):
    blind = dataclasses.replace(DATA, x_test=np.full_like(DATA.x_test, np.nan))
    run = train.train(config(validation=0.2), blind, tmp_path)
    assert run.result["judged_on"] == "held-out training data"
    assert all(math.isfinite(value) for value in run.history["test_loss"])


def test_best_is_the_first_epoch_with_the_lowest_held_out_error(tmp_path):
    run = train.train(config(validation=0.2, epochs=12, lr=0.3), DATA, tmp_path, save_every=0)
    lowest = run.history["test_error"].index(min(run.history["test_error"])) + 1
    assert last(run).best_epoch == run.result["best_epoch"] == lowest
    saved = load_params(run.folder / "best.npz")
    assert all(np.array_equal(saved[name], array) for name, array in last(run).best.items())


def test_best_is_the_lowest_training_loss_without_validation(tmp_path):
    run = train.train(config(epochs=12, lr=0.5, schedule="constant"), DATA, tmp_path)
    lowest = run.history["train_loss"].index(min(run.history["train_loss"])) + 1
    assert run.result["best_epoch"] == lowest


def test_history_each_so_many_epochs(tmp_path):
    run = train.train(config(epochs=8, log=3), DATA, tmp_path)
    assert run.history["epoch"] == [1, 4, 7, 8]


@pytest.mark.parametrize("lr", [1e4, 1e30])
def test_a_diverging_run_is_stopped_and_marked(tmp_path, lr):
    run = train.train(config(lr=lr, epochs=50, schedule="constant"), DATA, tmp_path)
    assert run.status == "diverged"
    assert 1 <= run.result["epoch"] <= 50
    assert run.result["test_error"] is None
    assert json.loads((run.folder / "result.json").read_text())["status"] == "diverged"
    assert all(math.isfinite(value) for values in run.history.values() for value in values)
    again = train.train(config(lr=lr, epochs=50, schedule="constant"), DATA, tmp_path)
    assert again.result == run.result


def test_max_norm_holds_after_training(tmp_path):
    run = train.train(config(max_norm=0.5, lr=0.3), DATA, tmp_path)
    weight = last(run).params["0.weight"]
    assert np.linalg.norm(weight, axis=1).max() <= 0.5 * (1 + 1e-6)


@pytest.mark.parametrize("method", applicable())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_method_trains(tmp_path, method, dtype):
    run = train.train(config(method=method, dtype=dtype, input_p=0.2, epochs=2), DATA, tmp_path)
    assert run.status == "done"
    assert {array.dtype.name for array in last(run).params.values()} == {dtype}


def test_float64_keeps_its_precision_in_evaluation(tmp_path):
    run = train.train(
        config(dtype="float64", activation="sigmoid", optimizer="adam", lr=0.01), DATA, tmp_path
    )
    assert run.status == "done"
