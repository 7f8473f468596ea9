"""Training: schedules, checks, honest figures, and what may not influence them."""

import dataclasses
import json
import math

import numpy as np
import pytest

from thinned import Key
from thinned.key import normals, words
from thinned.lab.choices import applicable
from thinned.lab.data.dataset import Dataset
from thinned.lab.storage.run import Run
from thinned.lab.training import learning_rate, networks, train
from thinned.lab.training.config import Config
from thinned.lab.training.learning_rate import SCHEDULES
from thinned.lab.training.trainer import Trainer
from thinned.scratch import Adam, Linear, load_params


def clouds(n=90, features=6, classes=3, seed=1):
    """Gaussian clouds, a third as many to test."""
    key = Key(seed)
    y = (words(key.fold_in("y"), n + n // 3) % classes).astype(np.int64)
    x = normals(key.fold_in("x"), len(y) * features).reshape(len(y), features).astype(np.float32)
    x[np.arange(len(y)), y] += 2.0
    names = tuple(map(str, range(classes)))
    return Dataset("clouds", x[:n], y[:n], x[n:], y[n:], names, (features,), "Clouds.")


DATA = clouds()


def config(**settings):
    settings = {"hidden": (8,), "epochs": 4, "batch": 20, "method": "dropout", **settings}
    return Config(data=DATA.name, fingerprint=DATA.fingerprint, **settings)


def last(run):
    """The checkpoint of a run on disk."""
    found = Run(run.folder.parent, config())
    found.folder = run.folder
    return found.load()


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_stay_between_0_and_the_full_one(name):
    values = [SCHEDULES[name](t) for t in np.linspace(0.0, 1.0, 101)]
    assert min(values) >= 0.0
    assert max(values) <= 1.0


def test_linear_rises_then_falls_to_nothing():
    values = [learning_rate.linear(t) for t in np.linspace(learning_rate.WARM_UP, 1.0, 50)]
    assert values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert learning_rate.linear(0.0) == learning_rate.linear(1.0) == 0.0
    assert learning_rate.linear(learning_rate.WARM_UP / 2) == pytest.approx(0.5)


def test_cycle_rises_then_falls_to_nothing():
    values = [learning_rate.cycle(t) for t in np.linspace(0.0, 1.0, 101)]
    assert np.argmax(values) == 30
    assert values[30] == 1.0
    assert values[:31] == sorted(values[:31])
    assert values[30:] == sorted(values[30:], reverse=True)
    assert values[0] == values[-1] == 0.0


def test_halve_is_the_sources_rule_at_300_epochs():
    steps = 7  # an epoch
    lr = 1e-3
    ours = config(lr=lr, schedule="halve", epochs=300)
    for epoch in range(300):  # the source halves after epochs 50, 100, 150 and 200
        for step in (epoch * steps, (epoch + 1) * steps - 1):
            assert ours.learning_rate(step, 300 * steps) == pytest.approx(lr, rel=1e-12), epoch
        if epoch % 50 == 49 and epoch < 200:
            lr /= 2


def test_decay_is_adams():
    ours = config(lr=0.05, decay=5e-5, schedule="constant", optimizer="adam")
    assert ours.learning_rate(9_999, 10_001) == pytest.approx(
        0.03333444448148271, rel=1e-12
    )  # as the source prints it
    net, theirs = Linear(1, 1, key=Key(0), dtype=np.float64), Adam(0.05, decay=5e-5)
    before = net.params["weight"].copy()
    net.grads["weight"][:] = 1.0
    theirs.t = 0
    theirs.step(net)
    assert before - net.params["weight"] == pytest.approx(ours.learning_rate(0, 10_001), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("method", "dropuot", ValueError),
        ("hidden", (8, 0), ValueError),
        ("hidden", (), ValueError),
        ("hidden", 8, TypeError),
        ("p", 1.5, ValueError),
        ("p", 1.0, ValueError),
        ("p", math.nan, ValueError),
        ("p", "half", TypeError),
        ("input_p", -0.1, ValueError),
        ("max_norm", 0.0, ValueError),
        ("l2", -1.0, ValueError),
        ("epochs", 0, ValueError),
        ("batch", 0, ValueError),
        ("batch", 2.5, TypeError),
        ("lr", 0.0, ValueError),
        ("lr", math.inf, ValueError),
        ("momentum", 1.0, ValueError),
        ("validation", 1.0, ValueError),
        ("seed", -1, ValueError),
        ("activation", "tanh", ValueError),
        ("optimizer", "lbfgs", ValueError),
        ("schedule", "cosine", ValueError),
        ("dtype", "float16", ValueError),
        ("outputs", 0, ValueError),
    ],
)
def test_a_senseless_setting_is_named(name, value, error):
    with pytest.raises(error, match=name):
        config(**{name: value})


def test_settings_without_effect_are_forgotten():
    assert config(method="none", p=0.3, input_p=0.2) == config(method="none", p=0.7)
    assert config(optimizer="adam", momentum=0.9) == config(optimizer="adam", momentum=0.5, nesterov=False)
    assert config(momentum=0.0, nesterov=True) == config(momentum=0.0, nesterov=False)


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


@pytest.mark.parametrize("method", applicable("numpy"))
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
