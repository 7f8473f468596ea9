"""The estimators, judged by scikit-learn's checks and, where nothing is dropped, by its own networks."""

from __future__ import annotations

import doctest
import pickle
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

import joblib
from helpers.by_hand import gamma
from scipy.sparse import csc_matrix, csr_array
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from thinned import estimators, masks, uncertainty
from thinned.estimators import DropoutMLPClassifier, DropoutMLPRegressor
from thinned.estimators.base import GROUPS
from thinned.estimators.data import Data, row_ids
from thinned.scratch import Dropout

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
BOTH = pytest.mark.parametrize("kind", [DropoutMLPClassifier, DropoutMLPRegressor])
THIN = pytest.mark.parametrize("thin", [True, False], ids=["thin", "whole"])


def quick(kind: Any = DropoutMLPClassifier, **settings: Any) -> Any:
    """A small one that trains a few epochs."""
    return kind(**{"hidden_layer_sizes": (16,), "max_iter": 3, "random_state": 0, **settings})


def learned(model: Any) -> list[np.ndarray]:
    return [*model.coefs_, *model.intercepts_]


def copy_learned(one: Any, other: Any) -> None:
    for mine, its in zip(learned(one), learned(other), strict=True):
        its[...] = mine


def assert_same(one: Any, other: Any) -> None:
    for a, b in zip(learned(one), learned(other), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- scikit-learn's own checks ----


FEW: dict[str, Any] = {"max_iter": 30, "learning_rate_init": 0.02, "hidden_layer_sizes": (50,)}


@parametrize_with_checks(
    [
        kind(**settings)
        for kind in (DropoutMLPClassifier, DropoutMLPRegressor)
        for settings in (
            {},
            {"thin": False, **FEW},
            {"thin": False, "dropout": 0.0, **FEW},
            {"thin": True, "dropout": 0.3, "input_dropout": 0.1, "max_norm": 4.0, **FEW},
            {"thin": False, "dropout": 0.3, "input_dropout": 0.1, "max_norm": 4.0, **FEW},
        )
    ]
)
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)


# ---- against scikit-learn, where nothing is dropped ----

SAME: dict[str, Any] = {"shuffle": False, "random_state": 0, "batch_size": 40, "alpha": 0.5, "tol": 0.0}
LABELS = np.stack([Y == 0, Y == 2, X[:, 0] > 0], axis=1).astype(int)
NUMBERS = X[:, :2] @ [[1.0, 2.0], [0.5, -1.0]] + 0.3


@pytest.mark.parametrize(
    ("ours", "theirs", "y"),
    [
        (DropoutMLPClassifier, MLPClassifier, Y),
        (DropoutMLPClassifier, MLPClassifier, np.array(["no", "yes"])[(Y > 0).astype(int)]),
        (DropoutMLPClassifier, MLPClassifier, LABELS),
        (DropoutMLPRegressor, MLPRegressor, NUMBERS[:, 0]),
        (DropoutMLPRegressor, MLPRegressor, NUMBERS),
    ],
    ids=["three classes", "two classes", "labels", "a number", "numbers"],
)
@pytest.mark.parametrize(
    "settings",
    [
        {"epsilon": 1e-15},  # theirs is added to another √v: as small as this, it does not count
        {"epsilon": 1e-15, "activation": "tanh", "hidden_layer_sizes": (9, 5)},
        {"solver": "sgd", "learning_rate_init": 0.01, "activation": "logistic"},
        {"solver": "sgd", "nesterovs_momentum": False, "activation": "identity"},
        {"solver": "sgd", "momentum": 0.0},
    ],
    ids=lambda s: " ".join(map(str, s.values())),
)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
def test_trains_as_scikit_learns_does(
    ours: Any, theirs: Any, y: np.ndarray, settings: dict[str, Any], weighted: bool
) -> None:
    """From the same first weights, in the same order, the same weights after three epochs."""
    usual = {"hidden_layer_sizes": (12,), "learning_rate_init": 0.001, "max_iter": 1, "warm_start": True}
    settings = {**usual, **SAME, **settings}
    one, other = ours(dropout=0.0, **settings).fit(X, y), theirs(**settings).fit(X, y)
    copy_learned(one, other)
    weights = np.linspace(0.5, 2.0, len(X)) if weighted else None
    for model in (one, other):
        model.set_params(max_iter=3).fit(X, y, sample_weight=weights)
    tolerance = 2.0**-26  # half of the digits: another rule would not be so near
    for mine, its in zip(learned(one), learned(other), strict=True):
        np.testing.assert_allclose(mine, its, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(one.predict(X[:9]).shape, other.predict(X[:9]).shape)
    np.testing.assert_allclose(one.score(X, y), other.score(X, y), rtol=tolerance)
    if hasattr(other, "predict_proba"):
        np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-6, atol=tolerance)
        np.testing.assert_array_equal(one.predict(X), other.predict(X))
    if not weighted and y.ndim == 1:  # theirs is the mean over outputs, and goes by batches where weighted
        np.testing.assert_allclose(one.loss_curve_[-3:], other.loss_curve_[-3:], rtol=1e-6)
    for name in ("n_iter_", "n_layers_", "n_outputs_", "out_activation_", "t_", "n_features_in_"):
        assert getattr(one, name) == getattr(other, name), name


def test_rates_that_fall() -> None:
    sgd = {"solver": "sgd", "learning_rate_init": 0.1, "batch_size": 50, "dropout": 0.0}
    falling = quick(learning_rate="invscaling", power_t=0.3, **sgd).fit(X, Y)
    assert falling._optimizer.lr == 0.1 / (3 * len(X) + 1) ** 0.3
    adaptive = quick(learning_rate="adaptive", tol=10.0, n_iter_no_change=2, max_iter=200, **sgd).fit(X, Y)
    # the first epoch is better than none, then three in a row are not: a fifth of the rate, again and again
    fifths = next(n for n in range(99) if 0.1 / 5**n <= 1e-6)
    assert adaptive.n_iter_ == 1 + 3 * (fifths + 1)
    np.testing.assert_allclose(adaptive._optimizer.lr, 0.1 / 5**fifths, rtol=gamma(2 * fifths))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("rate", ["invscaling", "adaptive"])
def test_momentum_is_scikit_learns_where_the_rate_changes(rate: str, nesterov: bool) -> None:
    settings = {"solver": "sgd", "learning_rate_init": 0.1, "hidden_layer_sizes": (7,), "learning_rate": rate}
    settings |= SAME | {"warm_start": True, "max_iter": 1, "nesterovs_momentum": nesterov}
    if rate == "adaptive":
        settings |= {"tol": 10.0, "n_iter_no_change": 1}
    one, other = DropoutMLPClassifier(dropout=0.0, **settings).fit(X, Y), MLPClassifier(**settings).fit(X, Y)
    copy_learned(one, other)
    one.t_ = other.t_ = 0
    other.best_loss_ = np.inf  # ours begins anew in each call
    for model in (one, other):
        model.set_params(max_iter=12).fit(X, Y)
    assert one._optimizer.lr == other._optimizer.learning_rate < 0.1
    for mine, its in zip(learned(one), learned(other), strict=True):
        np.testing.assert_allclose(mine, its, rtol=2.0**-26, atol=2.0**-26)


def test_poisson_is_scikit_learns() -> None:
    if "loss" not in MLPRegressor().get_params():
        pytest.skip("scikit-learn before 1.7 has no Poisson loss")
    y = np.random.default_rng(0).poisson(np.exp(X[:, 0]))
    settings = {"solver": "sgd", "loss": "poisson", "hidden_layer_sizes": (7,), "learning_rate_init": 0.01}
    settings |= SAME | {"warm_start": True, "max_iter": 1}
    one, other = DropoutMLPRegressor(dropout=0.0, **settings).fit(X, y), MLPRegressor(**settings).fit(X, y)
    copy_learned(one, other)
    for model in (one, other):
        model.set_params(max_iter=5).fit(X, y)
    np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=2.0**-26)
    np.testing.assert_allclose(one.loss_curve_[-5:], other.loss_curve_[-5:], rtol=2.0**-26)
    assert (one.out_activation_, one.score(X, y) > 0) == ("exp", True)
    two = quick(DropoutMLPRegressor, loss="poisson").fit(X, np.stack([y, 2 * y], axis=1))
    assert two.predict(X).shape == (150, 2)
    assert two.predict(X).min() > 0
    with pytest.raises(ValueError, match=r"^y must be at least 0 for loss='poisson', got -1"):
        quick(DropoutMLPRegressor, loss="poisson").fit(X, y - 1)
    with pytest.raises(ValueError, match=r"^loss must be one of 'squared_error', 'poisson', got 'absolute'"):
        quick(DropoutMLPRegressor, loss="absolute").fit(X, y)


def test_class_weights_are_weights_of_samples() -> None:
    by_class = {0: 1.0, 1: 2.0, 2: 0.0}
    weights = np.array([by_class[y] for y in Y])
    assert_same(quick(class_weight=by_class).fit(X, Y), quick().fit(X, Y, sample_weight=weights))
    some = np.linspace(1, 2, len(X))
    one = quick(class_weight=by_class).partial_fit(X, Y, classes=[0, 1, 2], sample_weight=some)
    assert_same(one, quick().partial_fit(X, Y, classes=[0, 1, 2], sample_weight=weights * some))
    rows = np.r_[:50, 50:60, 100:105]  # 50, 10 and 5 rows
    names = np.array(["a", "b", "c"])[Y]
    balanced = np.array([65 / (3 * n) for n in (50, 10, 5)])[Y[rows]]
    settings = {"early_stopping": True, "validation_fraction": 0.3}
    one = quick(class_weight="balanced", **settings).fit(X[rows], names[rows])
    assert_same(one, quick(**settings).fit(X[rows], names[rows], sample_weight=balanced))
    labels = quick(class_weight="balanced").fit(X, LABELS)
    assert (labels.coefs_[0] != quick().fit(X, LABELS).coefs_[0]).any()
    with pytest.raises(
        ValueError, match=r"^class_weight must be a dict or None for partial_fit, got 'balanc"
    ):
        quick(class_weight="balanced").partial_fit(X, Y, classes=[0, 1, 2])


@BOTH
def test_parameters_can_be_set(kind: Any) -> None:
    model, other = quick(kind).fit(X, Y), quick(kind, random_state=1).fit(X, Y)
    other.coefs_, other.intercepts_ = model.coefs_, [b.tolist() for b in model.intercepts_]
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    assert not np.shares_memory(other.coefs_[0], model.coefs_[0])
    other.coefs_[1] = 0 * other.coefs_[1]
    other.intercepts_[1:] = [other.intercepts_[1] * 0 + 3]
    np.testing.assert_array_equal(other._outputs(X), np.full((len(X), other.n_outputs_), 3.0))
    before = [w.copy() for w in learned(model)]
    for wrong, message in (
        ([model.coefs_[0]], r"^coefs_ must have 2 arrays, got 1$"),
        ([0 * model.coefs_[0], model.coefs_[1].T], r"^coefs_\[1\] must have shape \(16, \d\), got"),
    ):
        with pytest.raises(ValueError, match=message):
            model.coefs_ = wrong
    for a, b in zip(before, learned(model), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(NotFittedError):
        quick(kind).coefs_ = before
    assert_same(pickle.loads(pickle.dumps(model)), model)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model.coefs_))[0], model.coefs_[0])


# ---- dropping ----


@pytest.mark.parametrize("dropout", [0.0, 0.3, 0.5, 0.9])
@THIN
def test_what_is_dropped_does_not_learn(thin: bool, dropout: float) -> None:
    """One step for the whole batch: a unit learns if a group of rows keeps it, or any of 150 rows."""
    settings = {"activation": "identity", "solver": "sgd", "alpha": 0.0, "hidden_layer_sizes": (40,)}
    model = quick(dropout=dropout, thin=thin, max_iter=1, warm_start=True, **settings).fit(X, Y)
    before = [w.copy() for w in learned(model)]
    model.fit(X, Y)
    first, second, bias, _ = (a != b for a, b in zip(before, learned(model), strict=True))
    moved = first.any(axis=0)
    (drop,) = (name for name, layer in model._net.children.items() if isinstance(layer, Dropout))
    picks = masks.picks(40, dropout, model._key.fold_in(1).fold_in(0).fold_in(drop), GROUPS)
    np.testing.assert_array_equal(moved, picks.units.any(axis=0) if thin and dropout else np.ones(40, bool))
    np.testing.assert_array_equal(moved, bias)
    np.testing.assert_array_equal(moved, second.any(axis=1))


@THIN
def test_input_dropout_drops_features(thin: bool) -> None:
    """All but one row are zeros: the features that this one row keeps learn, and no others."""
    x = np.zeros((30, 20))
    x[7] = 5.0
    settings = {"activation": "identity", "solver": "sgd", "alpha": 0.0, "dropout": 0.0, "thin": thin}
    model = quick(input_dropout=0.3, max_iter=1, warm_start=True, **settings).fit(x, x[:, 0] > 2)
    before = model.coefs_[0].copy()
    model.fit(x, x[:, 0] > 2)
    moved = (model.coefs_[0] != before).any(axis=1)
    assert 0 < moved.sum() < 20


@THIN
def test_every_epoch_drops_others(thin: bool) -> None:
    """With a rate that is next to nothing, losses differ by masks alone."""
    settings = {"learning_rate_init": 1e-300, "max_iter": 20, "thin": thin, "alpha": 0.0}
    model = quick(**settings).fit(X, Y)
    assert len(set(model.loss_curve_)) == model.n_iter_
    whole = quick(**{**settings, "dropout": 0.0}).fit(X, Y).loss_curve_
    np.testing.assert_allclose(whole, whole[0], rtol=gamma(len(X) + 200))  # another order of the sum


@THIN
def test_prediction_drops_nothing(thin: bool) -> None:
    for activation, f in {
        "relu": lambda z: np.maximum(z, 0),
        "tanh": np.tanh,
        "identity": lambda z: z,
        "logistic": lambda z: 1 / (1 + np.exp(-z)),
    }.items():
        model = quick(activation=activation, thin=thin, input_dropout=0.2, hidden_layer_sizes=(16, 8)).fit(
            X, Y
        )
        x = X
        for w, b in zip(model.coefs_[:-1], model.intercepts_[:-1], strict=True):
            x = f(x @ w + b)
        z = x @ model.coefs_[-1] + model.intercepts_[-1]
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(model.predict_proba(X), p, rtol=2.0**-26)
        np.testing.assert_array_equal(model.predict(X), p.argmax(axis=1))
        np.testing.assert_array_equal(model.predict_log_proba(X), np.log(model.predict_proba(X)))


@THIN
def test_max_norm(thin: bool) -> None:
    c = 0.5
    model = quick(max_norm=c, thin=thin, hidden_layer_sizes=(30, 20), learning_rate_init=0.1).fit(X, Y)
    for w in model.coefs_[:-1]:
        assert (np.linalg.norm(w, axis=0) <= c * (1 + gamma(100))).all()
    assert (np.linalg.norm(model.coefs_[-1], axis=0) > c).any()  # no hidden unit's


@THIN
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_it_learns(thin: bool, activation: str) -> None:
    settings = {"activation": activation, "thin": thin, "batch_size": 30, "learning_rate_init": 0.01}
    assert DropoutMLPClassifier(random_state=0, **settings).fit(X, Y).score(X, Y) > 0.95
    model = DropoutMLPRegressor(random_state=0, dropout=0.2, **settings).fit(X, NUMBERS)
    assert model.score(X, NUMBERS) > 0.8


# ---- one random_state, one result ----


@THIN
@BOTH
def test_one_random_state_one_result(kind: Any, thin: bool) -> None:
    one = quick(kind, thin=thin, input_dropout=0.1).fit(X, Y)
    assert_same(one, quick(kind, thin=thin, input_dropout=0.1).fit(X, Y))
    assert_same(one, clone(one).fit(X, Y))
    assert (one.coefs_[0] != quick(kind, thin=thin, random_state=1).fit(X, Y).coefs_[0]).all()
    states = [quick(kind, random_state=np.random.RandomState(5)).fit(X, Y) for _ in range(2)]
    assert_same(*states)
    np.random.seed(3)
    unseeded = quick(kind, random_state=None).fit(X, Y), quick(kind, random_state=None).fit(X, Y)
    assert (unseeded[0].coefs_[0] != unseeded[1].coefs_[0]).all()


@BOTH
@THIN
def test_a_file_of_joblibs_goes_on_where_it_was(kind: Any, thin: bool, tmp_path: Path) -> None:
    more = {} if kind is DropoutMLPRegressor else {"classes": [0, 1, 2]}
    model = quick(kind, thin=thin).partial_fit(X, Y, **more).partial_fit(X, Y)
    joblib.dump(model, tmp_path / "model")
    again = joblib.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert_same(again.partial_fit(X, Y), model.partial_fit(X, Y))
    assert model.t_ == 3 * len(X)
    assert len(model.loss_curve_) == len(set(model.loss_curve_)) == 3
    assert model.n_iter_ == 1


@THIN
def test_a_fitted_model_holds_no_data(thin: bool) -> None:
    sizes = set()
    for n in (30, 150):
        model = quick(thin=thin).fit(X[:n], Y[:n])
        model.predict(X)
        sizes.add(len(pickle.dumps(clone(model).set_params(max_iter=1).fit(X[:n], np.arange(n) % 3))))
        assert all(layer._saved is None for layer in model._net.children.values())
    assert len(sizes) == 1


def test_warm_start_goes_on() -> None:
    model = quick(warm_start=True, max_iter=1)
    for epochs in (1, 2, 3):
        model.fit(X, Y)
        assert len(model.loss_curve_) == epochs
        assert model.n_iter_ == 1
    fresh = quick(max_iter=1).fit(X, Y)
    assert fresh.loss_curve_ == model.loss_curve_[:1]
    with pytest.raises(ValueError, match=r"y must hold classes of the first call, \[0 1 2\], got 3"):
        model.fit(X, Y + 1)
    with pytest.raises(ValueError, match=r"y must have shape \(N,\), as at the first call, got \(150, 3\)"):
        model.fit(X, LABELS)
    numbers = quick(DropoutMLPRegressor, warm_start=True).fit(X, NUMBERS)
    with pytest.raises(ValueError, match="y must have 2 outputs, as at the first call, got 1"):
        numbers.fit(X, NUMBERS[:, 0])


# ---- when to stop ----


def test_it_stops_where_nothing_improves_and_warns_where_it_did_not_stop() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert quick(tol=10.0, max_iter=50, n_iter_no_change=4).fit(X, Y).n_iter_ == 6
        assert quick(tol=10.0, max_iter=50, n_iter_no_change=4, dropout=0.0).fit(X, Y).n_iter_ == 6
    with pytest.warns(ConvergenceWarning, match="max_iter = 3 epochs are over"):
        quick(n_iter_no_change=np.inf).fit(X, Y)


def test_masks_alone_do_not_stop_training() -> None:
    """One step an epoch: the loss that training meets jumps, that of the whole network falls."""
    model = quick(max_iter=100, n_iter_no_change=3, tol=0.0).fit(X, Y)
    assert (np.diff(model.loss_curve_) > 0).sum() > 10
    assert model.n_iter_ == 100
    assert model.best_loss_ == min(model.loss_curve_)


@pytest.mark.parametrize("kind", [DropoutMLPClassifier, DropoutMLPRegressor])
def test_early_stopping_keeps_the_best(kind: Any) -> None:
    settings = {"early_stopping": True, "validation_fraction": 0.2, "learning_rate_init": 0.1, "max_iter": 60}
    model = quick(kind, **settings).fit(X, Y)
    scores = model.validation_scores_
    assert model.best_validation_score_ == max(scores)
    assert model.best_loss_ is None
    assert len(scores) == len(model.loss_curve_) == model.n_iter_
    best = scores.index(max(scores)) + 1
    assert best < model.n_iter_
    assert_same(model, quick(kind, **{**settings, "max_iter": best}).fit(X, Y))
    _, held = model._split(Y)
    np.testing.assert_allclose(model.score(X[held], Y[held]), max(scores), rtol=gamma(1000))


def test_held_out_rows_are_of_every_class_in_proportion() -> None:
    model = quick(early_stopping=True).fit(X, Y)
    y = np.repeat([0, 1, 2], [500, 290, 11])
    rows, held = model._split(y)
    np.testing.assert_array_equal(np.sort([*rows, *held]), np.arange(len(y)))
    assert len(held) == 80
    for label, count in Counter(y.tolist()).items():
        assert abs((y[held] == label).sum() - count * 80 / 801) < 1
    with pytest.raises(
        ValueError, match=r"validation_fraction must leave 2 samples or more .* of 10, got 0.1"
    ):
        quick(early_stopping=True).fit(X[:10], Y[:10])


@pytest.mark.parametrize("stopping", [True, False])
@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_divergence_is_named(stopping: bool, loss: str) -> None:
    settings = {"solver": "sgd", "activation": "identity", "max_iter": 20, "early_stopping": stopping}
    model = quick(DropoutMLPRegressor, learning_rate_init=10.0, loss=loss, dropout=0.0, **settings)
    with pytest.raises(ValueError, match=r"^training diverged in epoch \d+: scale X and y, or lower"):
        model.fit(100 * X, Y)


@pytest.mark.parametrize("stopping", [True, False])
def test_an_interrupt_keeps_the_network(stopping: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of the first step of an epoch: earlier epochs count."""
    epoch = DropoutMLPClassifier._epoch
    for epochs in (0, 3):
        model, calls = quick(max_iter=50, early_stopping=stopping), []

        def interrupted(self: Any, *args: Any, calls: Any = calls, epochs: int = epochs) -> Any:
            calls.append(1)
            if len(calls) > epochs:
                raise KeyboardInterrupt
            return epoch(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(DropoutMLPClassifier, "_epoch", interrupted)
            with pytest.warns(UserWarning, match=f"training was interrupted in epoch {epochs + 1}") as caught:
                make_pipeline(MinMaxScaler(), model).fit(X, Y).predict(X)
        assert caught[0].filename.endswith("pipeline.py")  # who called fit
        assert model.n_iter_ == len(model.loss_curve_) == epochs
        if not stopping and epochs:
            assert_same(model, quick(max_iter=epochs).fit(MinMaxScaler().fit_transform(X), Y))
        if stopping and epochs:
            _, held = model._split(Y)
            x = MinMaxScaler().fit_transform(X)
            assert abs(model.score(x[held], Y[held]) - model.best_validation_score_) <= gamma(1000)


# ---- error bars ----


@pytest.mark.parametrize(
    ("kind", "y", "settings"),
    [
        (DropoutMLPClassifier, Y, {}),
        (DropoutMLPClassifier, Y > 0, {}),
        (DropoutMLPClassifier, LABELS, {}),
        (DropoutMLPRegressor, NUMBERS[:, 0], {}),
        (DropoutMLPRegressor, NUMBERS, {}),
        (DropoutMLPRegressor, Y, {"loss": "poisson"}),
    ],
    ids=["three classes", "two classes", "labels", "a number", "numbers", "counts"],
)
def test_error_bars(kind: Any, y: np.ndarray, settings: dict[str, Any]) -> None:
    model = quick(kind, max_iter=20, **settings).fit(X, y)
    predict = model.predict_proba if kind is DropoutMLPClassifier else model.predict
    mean, std = predict(X, return_std=True, samples=400)
    assert mean.shape == std.shape == predict(X).shape
    assert (std > 0).all()
    again = predict(X, return_std=True, samples=400)
    np.testing.assert_array_equal(again, (mean, std))
    found = uncertainty.predict(model, X, 400, key=model._key.fold_in("samples"))
    np.testing.assert_array_equal(found.mean, mean)
    np.testing.assert_array_equal(found.std, std)
    still = quick(kind, dropout=0.0, **settings).fit(X, y)
    predict = still.predict_proba if kind is DropoutMLPClassifier else still.predict
    with pytest.raises(ValueError, match=r"^model must hold dropout with p > 0"):
        predict(X, return_std=True)


# ---- data of every kind ----


@THIN
def test_layout_does_not_matter(thin: bool) -> None:
    settings = {"thin": thin, "batch_size": 32}
    model = quick(**settings).fit(X, Y)
    for same in (
        csr_array(X),
        csc_matrix(X),
        np.asfortranarray(X),
        X.tolist(),
        np.repeat(X, 2, axis=1)[:, ::2],
    ):
        other = quick(**settings).fit(same, Y)
        assert_same(model, other)
        np.testing.assert_array_equal(model.predict_proba(same), model.predict_proba(X))


@THIN
@BOTH
def test_float32_stays(kind: Any, thin: bool) -> None:
    y = Y if kind is DropoutMLPClassifier else Y.astype(float)
    model = quick(kind, batch_size=40, thin=thin).fit(X.astype(np.float32), y, sample_weight=np.ones(len(X)))
    assert {w.dtype for w in learned(model)} == {np.dtype(np.float32)}
    assert model._outputs(X).dtype == np.float32
    wide = quick(kind, batch_size=40, thin=thin).fit(X, y)
    assert {w.dtype for w in learned(wide)} == {np.dtype(np.float64)}
    # the same training, to the roundings of 12 steps
    np.testing.assert_allclose(model.loss_curve_, wide.loss_curve_, rtol=2.0**-12)
    assert quick(kind).fit((X * 10).astype(int), y)._net.children["0"].dtype == np.float64


def test_classes_of_any_kind() -> None:
    for y, classes in (
        (np.array(["b", "c", "a"])[Y], ["a", "b", "c"]),
        (np.array(["b", "c", "a"], object)[Y], ["a", "b", "c"]),
        (Y * 10.0 - 10.0, [-10.0, 0.0, 10.0]),
        (Y > 0, [False, True]),
        (np.zeros(len(X), int), [0]),
    ):
        model = quick().fit(X, y)
        assert model.classes_.tolist() == classes
        assert set(model.predict(X)) <= set(classes)
        p = model.predict_proba(X)
        assert p.shape == (len(X), len(classes))
        np.testing.assert_allclose(p.sum(axis=1), 1, rtol=gamma(10))
        np.testing.assert_array_equal(model.predict(X), model.classes_[p.argmax(axis=1)])


@THIN
def test_labels_each_of_its_own(thin: bool) -> None:
    x, y = make_multilabel_classification(200, 10, n_classes=4, random_state=0)
    settings = {"learning_rate_init": 0.02, "batch_size": 50, "max_iter": 60, "thin": thin, "dropout": 0.2}
    model = quick(**settings).fit(x / 10, y)
    p = model.predict_proba(x / 10)
    assert p.shape == y.shape
    np.testing.assert_array_equal(model.predict(x / 10), (p > 0.5).astype(int))
    assert (model.predict(x / 10) == y).mean() > np.maximum(y.mean(axis=0), 1 - y.mean(axis=0)).mean()
    assert_same(model, quick(**settings).fit(x / 10, csr_array(y)))
    stopped = quick(early_stopping=True, **settings).fit(x / 10, y)
    assert 0 < stopped.best_validation_score_ <= 1
    part = quick().partial_fit(x, y, classes=range(4))
    assert part.predict(x).shape == y.shape


def test_weight_zero_is_as_if_it_were_not_there() -> None:
    weights = (np.arange(len(X)) % 3 > 0).astype(float)
    settings = {"batch_size": 20, "early_stopping": True, "max_iter": 4}
    one = quick(**settings).fit(X, Y, sample_weight=weights)
    assert_same(
        one, quick(**settings).fit(X[weights > 0], Y[weights > 0], sample_weight=weights[weights > 0])
    )


@THIN
@BOTH
def test_weight_two_is_as_if_it_came_twice(kind: Any, thin: bool) -> None:
    """Copies of a row have one mask; sums over the batch come in another order, so not to the last bit."""
    weights = 1.0 + np.arange(len(X)) % 2
    twice = np.repeat(np.arange(len(X)), weights.astype(int))
    settings = {"batch_size": 1000, "max_iter": 5, "thin": thin, "input_dropout": 0.1, "dropout": 0.3}
    for start in ({"early_stopping": False}, {"solver": "sgd"}):
        one = quick(kind, **settings, **start).fit(X, Y, sample_weight=weights)
        other = quick(kind, **settings, **start).fit(X[twice], Y[twice])
        for a, b in zip(learned(one), learned(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=2.0**-26, atol=2.0**-26)
        np.testing.assert_allclose(one.loss_curve_, other.loss_curve_, rtol=2.0**-26)


def test_a_batch_depends_on_its_rows_and_not_on_their_order() -> None:
    """Copies of a row and its target become one of their weight; 0 and -0 do not differ, dtypes do not."""
    x, y = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32), np.arange(40.0)
    x[0, 0], order = 0.0, np.random.default_rng(1).permutation(80) % 40
    more = x[order]
    more[order == 0, 0] = -0.0
    for one in (x, csr_array(x), x.astype(np.float64)):
        np.testing.assert_array_equal(row_ids(one, y)[order], row_ids(more, y[order]))
    once = Data(x, y, None, row_ids(x, y)).batch(np.arange(40))
    again = Data(more, y[order], None, row_ids(more, y[order])).batch(np.arange(80))
    assert sorted(once.targets) == sorted(y)
    assert once.weights is None
    np.testing.assert_array_equal(again.X, once.X)
    np.testing.assert_array_equal(again.targets, once.targets)
    np.testing.assert_array_equal(again.weights, np.full(40, 2.0))
    other = Data(x[[1, 1]], y[:2], None, row_ids(x[[1, 1]], y[:2])).batch(np.arange(2))
    assert len(other.X) == 2, "the same row with two targets is two rows"


@THIN
def test_a_small_rate_drops_units(thin: bool) -> None:
    """Of 4 units p·n = 0.4 are dropped on average: not none."""
    one, other = (quick(thin=thin, hidden_layer_sizes=(4,), dropout=p).fit(X, Y) for p in (0.1, 0.0))
    assert not np.array_equal(one.coefs_[0], other.coefs_[0])


def test_the_rate_goes_by_the_width() -> None:
    for hidden, rate in (((20,), 0.01), ((100, 400), 1 / 400), ((), 0.01)):
        assert quick(hidden_layer_sizes=hidden).fit(X, Y)._optimizer.lr == rate
    assert quick(learning_rate_init=0.5).fit(X, Y)._optimizer.lr == 0.5


@THIN
def test_partial_fit_learns_in_pieces(thin: bool) -> None:
    model = quick(learning_rate_init=0.01, thin=thin)
    assert not hasattr(model, "coefs_")
    for t in range(300):
        rows = np.arange(t, t + 40) * 7 % len(X)
        model.partial_fit(X[rows], Y[rows], classes=[0, 1, 2] if t == 0 else None)
    assert model.score(X, Y) > 0.9


def test_names_of_features() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    model = quick().fit(frame, Y)
    assert model.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["b", "a", "c", "d"]])


def test_in_a_pipeline_and_a_search() -> None:
    x, y = load_digits(return_X_y=True)
    pipeline = make_pipeline(
        MinMaxScaler(), quick(max_iter=20, learning_rate_init=0.01, hidden_layer_sizes=(64,))
    )
    search = GridSearchCV(
        pipeline,
        {"dropoutmlpclassifier__dropout": [0.2, 0.99], "dropoutmlpclassifier__thin": [True, False]},
        cv=2,
    )
    assert search.fit(x[:600], y[:600]).score(x[600:], y[600:]) > 0.85
    assert search.best_params_["dropoutmlpclassifier__dropout"] == 0.2
    data, target = make_regression(100, 5, noise=1.0, random_state=0)
    numbers = quick(DropoutMLPRegressor, dropout=0.1, max_iter=100, learning_rate_init=0.03)
    assert cross_val_score(numbers, data, target / target.std(), cv=2).min() > 0.8


# ---- bad input ----


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dropout": 50}, ValueError, r"^dropout must be in \[0, 1\], got 50 \(did you mean 0.5\?\)$"),
        ({"dropout": 1}, ValueError, "^dropout must be less than 1, got 1"),
        ({"dropout": "0.5"}, TypeError, "^dropout must be a number, got '0.5'"),
        ({"input_dropout": -0.1}, ValueError, r"^input_dropout must be in \[0, 1\]"),
        ({"max_norm": 0}, ValueError, "^max_norm must be finite and greater than 0"),
        ({"thin": "yes"}, ValueError, "^thin must be one of True, False, got 'yes'"),
        ({"solver": "lbfgs"}, ValueError, "^solver must be one of 'sgd', 'adam', got 'lbfgs': it needs"),
        ({"solver": "rmsprop"}, ValueError, "^solver must be one of 'sgd', 'adam', got 'rmsprop'"),
        ({"activation": "swish"}, ValueError, "^activation must be one of 'identity', 'logistic', 'tanh'"),
        ({"learning_rate": 0.1}, ValueError, "^learning_rate must be one of 'constant'"),
        ({"learning_rate_init": 0}, ValueError, "^learning_rate_init must be finite and greater than 0"),
        ({"hidden_layer_sizes": (10, 0)}, ValueError, "^hidden_layer_sizes must be at least 1, got 0"),
        ({"hidden_layer_sizes": 2.5}, TypeError, "^hidden_layer_sizes must be an integer, got 2.5"),
        ({"batch_size": 0}, ValueError, "^batch_size must be at least 1, got 0"),
        ({"batch_size": "all"}, TypeError, "^batch_size must be an integer, got 'all'"),
        ({"max_iter": 0}, ValueError, "^max_iter must be at least 1"),
        ({"n_iter_no_change": 0}, ValueError, "^n_iter_no_change must be at least 1"),
        ({"alpha": -1}, ValueError, "^alpha must be finite and at least 0"),
        ({"beta_1": 1.0}, ValueError, r"^beta_1 must be in \[0, 1\), got 1"),
        ({"validation_fraction": 1}, ValueError, r"^validation_fraction must be in \[0, 1\)"),
        ({"random_state": "x"}, ValueError, "cannot be used to seed"),
        ({"learning_rate_init": 1e300}, ValueError, "^training diverged in epoch 2: scale X and y, or lower"),
    ],
)
@BOTH
def test_bad_parameters(kind: Any, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    model = kind(**settings)  # says nothing yet, as scikit-learn wants it
    with pytest.raises(error, match=message):
        model.fit(X, Y)


@BOTH
def test_bad_data(kind: Any) -> None:
    model = quick(kind)
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.fit(np.where(X > 1, np.nan, X), Y)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[150, 149\]"):
        model.fit(X, Y[:-1])
    model.fit(X, Y)
    with pytest.raises(ValueError, match=r"X has 3 features, but Dropout.* is expecting 4 features"):
        model.predict(X[:, :3])
    with pytest.raises(
        ValueError, match=r"sample_weight must have shape \(150,\), one a row of X, got \(3,\)"
    ):
        model.fit(X, Y, sample_weight=[1, 2, 3])
    with pytest.raises(ValueError, match="sample_weight must be at least 0, and not all zero, got -1"):
        model.fit(X, Y, sample_weight=-np.ones(len(X)))
    with pytest.raises(ValueError, match="early_stopping must be False for partial_fit, got True"):
        quick(kind, early_stopping=True).partial_fit(X, Y)
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        model.fit(X, Y[:, None])


def test_bad_targets() -> None:
    names = np.array(["setosa", "other"])[(Y > 0).astype(int)]
    for y in (names, names.astype(object)):
        with pytest.raises(ValueError, match=r"y must hold numbers, got 'setosa'.* DropoutMLPClassifier"):
            quick(DropoutMLPRegressor).fit(X, y)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        quick().fit(X, X[:, 0])
    with pytest.raises(ValueError, match="classes must be given at the first call of partial_fit"):
        quick().partial_fit(X, Y)
    model = quick().partial_fit(X[:10], Y[:10], classes=[0, 1])
    with pytest.raises(ValueError, match=r"y must hold classes of the first call, \[0 1\], got 2"):
        model.partial_fit(X, Y)
    with pytest.raises(
        ValueError, match=r"classes must be those of the first call, \[0 1\], got \[0, 1, 2\]"
    ):
        model.partial_fit(X, Y, classes=[0, 1, 2])


# ---- the page's own example ----


def test_examples() -> None:
    result = doctest.testmod(estimators)
    assert result.attempted > 5
    assert result.failed == 0
