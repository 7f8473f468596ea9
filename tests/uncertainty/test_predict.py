"""Predictions: against exact ensembles, by batch, of every kind of output, and wrong arguments."""

import copy

import numpy as np
import pytest
from helpers.ensembles import SIGMAS, as_torch, assert_means, rows, small

from thinned import Key, kernels, scratch, theory, uncertainty
from thinned.kernels import networks
from thinned.kernels.networks import available
from thinned.uncertainty import sample_perceptron


def test_samples_have_the_mean_of_the_whole_ensemble():
    net, x = small(), rows(5, 4)
    exact = uncertainty.average(net, x)
    for key in range(2):
        result = uncertainty.predict(net, x, 3000, key=Key(key), thin=False)
        assert_means(result.mean, exact.arithmetic, result.std, 3000)


@pytest.mark.parametrize("p", [0.3, 0.5])
@pytest.mark.parametrize("thin", [True, False])
def test_samples_have_the_moments_of_all_masks(p, thin):
    net, x, samples = small(p=p), rows(4, 4), 4000
    chance, every = map(np.concatenate, zip(*uncertainty.subnetworks(net, x), strict=True))
    mean = np.tensordot(chance, every, 1)
    variance, fourth = (np.tensordot(chance, (every - mean) ** k, 1) for k in (2, 4))
    result = uncertainty.predict(net, x, samples, key=Key(9), thin=thin)
    assert_means(result.mean, mean, np.sqrt(variance), samples)
    # the standard deviation of a variance of S numbers is at most √(μ₄/S)·(1 + 1/S)
    assert (np.abs(result.std**2 - variance) <= SIGMAS * np.sqrt(fourth / samples) + 1e-4).all()
    assert ("drawn once a sample" in result.random["2"]) == thin


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("n", [3, 4, 8, 19, 40])
def test_the_spread_of_a_linear_read_out(n, p):
    """Var Σ wᵢrᵢhᵢ/(1 − p) = p/(1 − p)·Σ(wᵢhᵢ)², also where p·n is no whole number."""
    samples, x = 4000, rows(5, 3, seed=n)
    hidden = scratch.Linear(3, n, key=Key(n))
    read = scratch.Linear(n, 2, key=Key(n + 1))
    read.params["weight"] += 1.0  # so that the units add up: a fixed number of them would vary less
    net = scratch.Sequential(hidden, scratch.Sigmoid(), scratch.Dropout(p), read)
    terms = read.params["weight"] * (1 / (1 + np.exp(-hidden.forward(x))))[:, None, :]
    _, of_factor = theory.bernoulli_moments(p)
    variance = of_factor * (terms**2).sum(-1)
    # with kurtosis κ of a factor, μ₄ = 3σ⁴ + (κ − 3)·Σ(wᵢhᵢ)⁴·g², g the variance of the factor
    kurtosis = (1 - 3 * p * (1 - p)) / (p * (1 - p))
    fourth = 3 * variance**2 + (kurtosis - 3) * of_factor**2 * (terms**4).sum(-1)
    bound = SIGMAS * np.sqrt((fourth - variance**2) / samples + 2 * variance**2 / samples**2)
    result = uncertainty.predict(net, x, samples, key=Key(n), outputs="numbers")
    assert "drawn once a sample" in result.random["2"]
    assert (np.abs(result.std**2 - variance) <= bound).all()
    assert_means(result.mean, net.predict(x), np.sqrt(variance), samples)


def test_torch_and_numpy_pick_the_same(torch):
    net, x = small(p=0.4), rows(6, 4)
    for thin in (True, False):
        by_hand = uncertainty.predict(net, x, 40, key=Key(5), thin=thin)
        given = uncertainty.predict(as_torch(torch, net), torch.from_numpy(x), 40, key=Key(5), thin=thin)
        for name in ("mean", "std", "entropy", "mutual_information", "quantiles"):
            assert np.allclose(getattr(given, name).numpy(), getattr(by_hand, name), atol=2e-5), name
        assert list(given.random) == list(by_hand.random)


def test_batch_norm_stays_in_evaluation(torch):
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)
    )
    model[3].running_mean += 3.0
    state = copy.deepcopy(model.state_dict())
    x = torch.randn(5, 4)
    alone = uncertainty.predict(model, x[:1], 20, key=Key(0))
    among = uncertainty.predict(model, x, 20, key=Key(0))
    assert torch.allclose(alone.mean, among.mean[:1], atol=1e-5), "a row does not depend on the others"
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    net = scratch.Sequential(
        scratch.Linear(4, 4, key=Key(0)),
        scratch.Dropout(),
        scratch.Linear(4, 4, key=Key(1)),
        scratch.BatchNorm(4),
    )
    params = net.get_params()
    x = rows(5, 4)
    among = uncertainty.predict(net, x, 20, key=Key(0)).mean
    assert np.allclose(uncertainty.predict(net, x[:1], 20, key=Key(0)).mean, among[:1], atol=1e-5)
    assert all(np.array_equal(params[k], v) for k, v in net.get_params().items())


def test_numbers():
    net, x = small(), rows(6, 4)
    result = uncertainty.predict(net, x, 25, key=Key(0), outputs="numbers", quantiles=(0.1, 0.5))
    assert result.entropy is None
    assert result.mutual_information is None
    y = np.stack([uncertainty.predict(net, x, 1, key=k, outputs="numbers").mean for k in map(Key, range(2))])
    assert not np.array_equal(y[0], y[1])
    assert result.quantiles.shape == (2, 6, 3)


@pytest.mark.parametrize("thin", [True, False])
def test_samples_have_the_statistics_of_predict(torch, thin):
    net, x = small(), rows(6, 4)
    model, given = as_torch(torch, net), torch.from_numpy(x).double()
    for m, rows_of in ((net, x), (model.double(), given)):
        for outputs in ("logits", "numbers"):
            result = uncertainty.predict(m, rows_of, 9, key=Key(0), outputs=outputs, thin=thin)
            drawn = uncertainty.sample(
                m, rows_of, 9, key=Key(0), outputs=outputs, thin=thin, batch_size=4, progress=False
            )
            assert type(drawn) is type(rows_of)
            assert drawn.dtype == rows_of.dtype
            assert np.allclose(np.mean(np.asarray(drawn), 0), result.mean, atol=1e-5)
            assert np.allclose(np.std(np.asarray(drawn), 0, ddof=1), result.std, atol=1e-5)
    with pytest.raises(ValueError, match="nothing that drops"):
        uncertainty.sample(scratch.mlp((4, 3), key=Key(0), drop=None), x, key=Key(0))


def test_estimators():
    pytest.importorskip("sklearn")
    import warnings

    from thinned.estimators import DropoutMLPClassifier, DropoutMLPRegressor

    x, y = rows(80, 5), np.arange(80) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = {"hidden_layer_sizes": (20, 10), "max_iter": 3, "input_dropout": 0.2, "random_state": 0}
        models = [DropoutMLPClassifier(**settings, thin=thin).fit(x, y) for thin in (True, False)]
        two = DropoutMLPClassifier(**settings).fit(x, y == 1)
        many = DropoutMLPClassifier(**settings).fit(x, np.stack([y == 0, y == 1], 1).astype(int))
        number = DropoutMLPRegressor(**settings).fit(x, y)
    for model in (*models, two):
        result = uncertainty.predict(model, x, 200, key=Key(0))
        assert result.mean.shape == model.predict_proba(x).shape
        assert len(result.random) == 3
        assert np.allclose(uncertainty.weight_scaling(model, x), model.predict_proba(x), atol=1e-5)
        again = uncertainty.predict(model, x, 200, key=Key(0), batch_size=7)
        assert np.allclose(again.mean, result.mean, atol=1e-5)
    assert uncertainty.predict(many, x, 9, key=Key(0)).entropy.shape == (80, 2)
    result = uncertainty.predict(number, x, 9, key=Key(0))
    assert result.mean.shape == number.predict(x).shape
    assert np.allclose(uncertainty.weight_scaling(number, x), number.predict(x), atol=1e-5)
    moments = uncertainty.moments(number, x)
    assert moments.mean.shape == moments.std.shape == (80,)
    with pytest.raises(ValueError, match="outputs must be 'numbers' for this estimator"):
        uncertainty.predict(number, x, 2, key=Key(0), outputs="logits")


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"samples": 0}, ValueError, "samples must be at least 1, got 0"),
        ({"key": 3}, TypeError, "key must be a thinned.Key"),
        ({"outputs": "log"}, ValueError, "outputs must be one of"),
        ({"quantiles": (1.5,)}, ValueError, r"quantiles\[0\] must be in \[0, 1\]"),
        ({"batch_size": -1}, ValueError, "batch_size must be at least 1"),
        ({"model": "net"}, TypeError, "model must be a torch module"),
        ({"model": scratch.mlp((4, 3), key=Key(0), drop=None)}, ValueError, "nothing that drops"),
        ({"x": [[0.0] * 4]}, TypeError, "x must be a NumPy array or a torch tensor, got list"),
        ({"x": np.zeros((2, 4), int)}, TypeError, "must hold floating-point numbers"),
        ({"x": np.zeros((2, 5), np.float32)}, ValueError, "must have shape"),
        ({"outputs": "probabilities"}, ValueError, "model must return probabilities, got numbers from"),
    ],
)
def test_bad_input_is_refused(change, error, text):
    given = {"model": small(), "x": rows(3, 4), "samples": 4, "key": Key(0), **change}
    with pytest.raises(error, match=text):
        uncertainty.predict(given.pop("model"), given.pop("x"), given.pop("samples"), **given)


def test_no_rows(torch):
    for model, x in ((small(), rows(0, 4)), (as_torch(torch, small()), torch.zeros(0, 4))):
        result = uncertainty.predict(model, x, 3, key=Key(0))
        assert tuple(result.mean.shape) == (0, 3)
        assert tuple(result.quantiles.shape) == (3, 0, 3)
    assert uncertainty.average(small(), rows(0, 4)).arithmetic.shape == (0, 3)


@pytest.mark.parametrize("fast", [True, False])
def test_progress_is_reported(fast, monkeypatch):
    monkeypatch.setattr(sample_perceptron, "TERMS", 1)
    monkeypatch.setattr(kernels, "threads", lambda: 1)
    monkeypatch.setattr(networks, "available", lambda x: fast and available(x))
    seen = []
    uncertainty.predict(small(), rows(6, 4), 5, key=Key(0), batch_size=2, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    assert len(seen) == 15
