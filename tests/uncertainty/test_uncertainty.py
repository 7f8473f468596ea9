"""Predictions with error bars: against exact ensembles, by batch, on what is found and left as it was."""

import copy
import itertools
import math
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest

from thinned import Key, kernels, scratch, theory, uncertainty
from thinned.kernels import networks
from thinned.kernels.networks import Networks, available
from thinned.uncertainty import prediction
from thinned.uncertainty import sample_perceptron as perceptron

SIGMAS = 6.0  # of a mean over samples: one test in 10⁹ would fail by chance


def rows(n, width, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def small(drop=scratch.Dropout, **kw):
    return scratch.mlp((4, 6, 5, 3), key=Key(3), drop=drop, init=1.0, **kw)


def assert_means(mean, expected, std, samples):
    """Means of samples with that standard deviation; float32 rounds what does not vary."""
    bound = SIGMAS * np.asarray(std) / math.sqrt(samples) + 1e-5
    assert (np.abs(np.asarray(mean) - expected) <= bound).all(), np.max(np.abs(mean - expected) / bound)


def test_samples_have_the_mean_of_the_whole_ensemble():
    net, x = small(), rows(5, 4)
    exact = uncertainty.average(net, x)
    for key in range(2):
        result = uncertainty.predict(net, x, 3000, key=Key(key), thin=False)
        assert_means(result.mean, exact.arithmetic, result.std, 3000)


def thin_ensemble(net, x, p):
    """Every pick of k of n in both hidden layers of `small`: probabilities (picks, N, classes)."""
    fc1, fc2, fc3 = (layer for layer in net.children.values() if isinstance(layer, scratch.Linear))
    out = []
    k1, k2 = theory.survivor_count(6, p), theory.survivor_count(5, p)
    for s in itertools.combinations(range(6), k1):
        h = np.zeros((len(x), 6))
        h[:, s] = np.maximum(x @ fc1.params["weight"].T + fc1.params["bias"], 0)[:, s] * 6 / k1
        for r in itertools.combinations(range(5), k2):
            g = np.zeros((len(x), 5))
            g[:, r] = np.maximum(h @ fc2.params["weight"].T + fc2.params["bias"], 0)[:, r] * 5 / k2
            z = np.exp(g @ fc3.params["weight"].T + fc3.params["bias"])
            out.append(z / z.sum(1, keepdims=True))
    return np.array(out)


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_thinned_samples_are_those_of_every_pick(p):
    net, x, samples = small(p=p), rows(4, 4), 4000
    every = thin_ensemble(net, x, p)
    result = uncertainty.predict(net, x, samples, key=Key(9), quantiles=(0.0, 1.0))
    assert_means(result.mean, every.mean(0), every.std(0), samples)
    # of a variance of numbers in [0, 1]: its standard deviation is at most √(μ₄/S)
    fourth = ((every - every.mean(0)) ** 4).mean(0)
    assert (np.abs(result.std**2 - every.var(0)) <= SIGMAS * np.sqrt(fourth / samples) + 1e-4).all()
    assert np.allclose(result.quantiles[0], every.min(0), atol=1e-5), "of so many all picks have come"
    assert np.allclose(result.quantiles[1], every.max(0), atol=1e-5)
    assert "picked once a sample" in result.random["2"]


def test_torch_and_numpy_pick_the_same(torch):
    net, x = small(p=0.4), rows(6, 4)
    for thin in (True, False):
        by_hand = uncertainty.predict(net, x, 40, key=Key(5), thin=thin)
        given = uncertainty.predict(as_torch(torch, net), torch.from_numpy(x), 40, key=Key(5), thin=thin)
        for name in ("mean", "std", "entropy", "mutual_information", "quantiles"):
            assert np.allclose(getattr(given, name).numpy(), getattr(by_hand, name), atol=2e-5), name
        assert list(given.random) == list(by_hand.random)


PERCEPTRONS = {
    "one": lambda nn: [nn.Linear(4, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 3)],
    "two, dropout first": lambda nn: [
        *(nn.Linear(4, 20), nn.ReLU(), nn.Dropout(0.2), nn.Linear(20, 30), nn.Dropout(0.6), nn.ReLU()),
        nn.Linear(30, 3),
    ],
    "a layer without dropout": lambda nn: [
        *(nn.Linear(4, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 7), nn.ReLU(), nn.Dropout(0.0)),
        *(nn.Linear(7, 30, bias=False), nn.Identity(), nn.Dropout(0.5), nn.Linear(30, 3), nn.ReLU()),
    ],
}
PERCEPTRONS["masks for each row"] = lambda nn: [
    *(nn.Dropout(0.3), nn.Linear(4, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 3)),
]
PERCEPTRONS["of convolutions"] = lambda nn: [
    *(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 5, 2), nn.Flatten(), nn.Dropout(0.5)),
    *(nn.Linear(15, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 3)),
]
OTHERS = {
    "no ReLU": lambda nn: [nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3)],
    "ReLU first": lambda nn: [nn.Linear(4, 9), nn.Dropout(0.5), nn.ReLU(), nn.Linear(9, 3)],
    "a norm": lambda nn: [nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 3), nn.LayerNorm(3)],
    "a layer called relu": lambda nn: [
        OrderedDict(
            a=nn.Linear(4, 9), b=nn.Dropout(0.5), c=nn.Linear(9, 9), relu=nn.GELU(), d=nn.Linear(9, 3)
        )
    ],
    "masks for each row, twice": lambda nn: [
        *(nn.Dropout(0.5), nn.Dropout(0.2), nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 3)),
    ],
    "masks for each row, later": lambda nn: [
        *(nn.Dropout(0.5), nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 3), nn.Dropout(0.5)),
    ],
    "nothing left": lambda nn: [nn.Dropout(1.0), nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 3)],
}


@pytest.mark.parametrize("name", [*PERCEPTRONS, *OTHERS])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.skipif(not available(np.zeros(1)), reason="the kernel of perceptrons is not here")
def test_the_kernel_of_perceptrons_gives_what_the_layers_give(torch, name, dtype, monkeypatch):
    torch.manual_seed(0)
    make = (PERCEPTRONS | OTHERS)[name]
    model = torch.nn.Sequential(*make(torch.nn)).to(getattr(torch, dtype))
    x = torch.randn(37, 4, dtype=getattr(torch, dtype))
    runs, given = [], []
    monkeypatch.setattr(networks, "Networks", lambda *args: runs.append(1) or Networks(*args))
    for fast in (True, False):
        monkeypatch.setattr(networks, "available", lambda x, fast=fast: fast)
        given.append(uncertainty.sample(model, x, 20, key=Key(3), batch_size=20))
    assert len(runs) == (2 if name in PERCEPTRONS else 0), "batches that the kernel ran"
    tight = 1e-5 if dtype == "float32" else 1e-13
    assert torch.allclose(*given, rtol=tight, atol=tight)


@pytest.mark.skipif(not available(np.zeros(1)), reason="the kernel of perceptrons is not here")
@pytest.mark.parametrize("drop", [scratch.Dropout, scratch.ThinDropout])
@pytest.mark.parametrize("input_p", [0.0, 0.2])
def test_the_kernel_gives_what_the_layers_by_hand_give(drop, input_p, monkeypatch):
    runs, given, x, net = [], [], rows(40, 4), small(drop)
    if input_p:
        net = scratch.Network({"input": scratch.Dropout(input_p), **net.children})
    monkeypatch.setattr(networks, "Networks", lambda *args: runs.append(1) or Networks(*args))
    for fast in (True, False):
        monkeypatch.setattr(networks, "available", lambda x, fast=fast: fast)
        given.append(uncertainty.sample(net, x, 20, key=Key(3), batch_size=17))
    assert len(runs) == 3, "batches that the kernel ran"
    assert np.allclose(*given, rtol=1e-5, atol=1e-5)


def test_a_hook_sees_every_sample(torch):
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(4, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 3)
    )
    seen = []
    model[5].register_forward_hook(lambda module, args, out: seen.append(len(out)))
    uncertainty.predict(model, torch.randn(6, 4), 11, key=Key(0))
    assert seen.count(6) == 11


def as_torch(torch, net):
    """A network by hand as a torch model under the same names."""
    nn, layers = torch.nn, []
    for layer in net.children.values():
        if isinstance(layer, scratch.Linear):
            linear = nn.Linear(layer.n_in, layer.n_out)
            linear.load_state_dict({k: torch.from_numpy(v) for k, v in layer.params.items()})
            layers.append(linear)
        else:
            layers.append(nn.ReLU() if isinstance(layer, scratch.ReLU) else nn.Dropout(layer.p))
    return nn.Sequential(*layers)


def torch_models(torch):
    import thinned.nn as tnn

    nn = torch.nn

    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.drop, self.last = nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 3)

        def forward(self, x, scale=1.0):
            n = x.size(0)
            h = torch.relu(self.first(x))
            return self.last((x * scale + self.drop(h)).view(n, -1))

    class Untraceable(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop, self.last = nn.Dropout(0.5), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(self.drop(x)) if x.sum() != 17 else x

    images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout2d(0.5))
    return {
        "perceptron": (as_torch(torch, small()), (4,)),
        "skip": (Skip(), (4,)),
        "untraceable": (Untraceable(), (4,)),
        "convolutions": (
            nn.Sequential(*images, nn.Conv2d(4, 2, 2), nn.Flatten(), nn.Linear(2 * 9, 3)),
            (1, 6, 6),
        ),
        "family": (
            nn.Sequential(
                tnn.GaussianDropout(0.3),
                tnn.Residual(nn.Linear(4, 4), 0.5),
                tnn.DropConnectLinear(4, 4, p=0.5),
                nn.Dropout(0.4, inplace=True),
                nn.Linear(4, 3),
            ),
            (4,),
        ),
        "whole batch": (
            nn.Sequential(nn.Linear(4, 4), tnn.DropPath(0.5, mode="batch"), nn.Linear(4, 3)),
            (4,),
        ),
    }


NAMES = ["perceptron", "skip", "untraceable", "convolutions", "family", "whole batch"]


@pytest.mark.parametrize("thin", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_the_batch_size_changes_nothing_and_nothing_is_left_changed(torch, name, thin):
    model, shape = torch_models(torch)[name]
    x = torch.randn(7, *shape, generator=torch.Generator().manual_seed(0))
    model.train()
    list(model.modules())[-1].eval()  # modes of all kinds
    before = snapshot(torch, model), x.clone(), torch.get_rng_state()
    whole = uncertainty.predict(model, x, 12, key=Key(1), thin=thin)
    for size in (1, 3):
        parts = uncertainty.predict(model, x, 12, key=Key(1), thin=thin, batch_size=size)
        for field in ("mean", "std", "quantiles"):
            assert torch.allclose(getattr(parts, field), getattr(whole, field), atol=1e-4), field
    other = uncertainty.predict(model, x, 12, key=Key(2), thin=thin)
    assert not torch.equal(other.mean, whole.mean)
    assert (whole.std > 0).any()
    assert snapshot(torch, model) == before[0]
    assert torch.equal(x, before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    assert whole.mean.dtype == x.dtype
    drops = [
        n for n, m in model.named_modules() if type(m).__name__.startswith(("Drop", "Gauss", "Residual"))
    ]
    assert set(whole.random) == set(drops)
    assert not whole.fixed


def snapshot(torch, model):
    """Everything that may not change: classes, modes, hooks, attributes, tensors."""
    return [
        (
            name,
            type(module),
            module.training,
            getattr(module, "inplace", None),
            len(module._forward_hooks) + len(module._forward_pre_hooks),
            sorted(vars(module)),
            [
                (k, v.sum().item())
                for k, v in (*module._parameters.items(), *module._buffers.items())
                if v is not None
            ],
        )
        for name, module in model.named_modules()
    ]


def test_samples_of_torch_have_the_distribution_of_training_passes(torch):
    model, shape = torch_models(torch)["family"]
    x, samples = torch.randn(3, *shape), 4000
    result = uncertainty.predict(model, x, samples, key=Key(4))
    model.train()
    torch.manual_seed(0)
    with torch.no_grad():
        passes = model(x.repeat(samples, 1)).softmax(1).view(samples, 3, 3)
    spread = (result.std**2 + passes.var(0)).sqrt()  # of the difference of two means
    assert_means(result.mean, passes.mean(0).numpy(), spread, samples)


def test_what_comes_before_the_first_random_layer_runs_once(torch):
    class Counted(torch.nn.Linear):
        calls = 0

        def forward(self, x):
            Counted.calls += len(x)
            return super().forward(x)

    model = torch.nn.Sequential(Counted(4, 4), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(4, 3))
    few, many = [], []
    for seen, samples in ((few, 2), (many, 200)):
        Counted.calls = 0
        uncertainty.predict(model, torch.randn(50, 4), samples, key=Key(0))
        seen.append(Counted.calls)
    assert few == many


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
    assert torch.allclose(alone.mean, among.mean[:1], atol=1e-5), "a row does not hang on the others"
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


def test_what_is_not_random_is_reported(torch):
    nn = torch.nn

    class Calls(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.3, batch_first=True)
            self.never, self.last = nn.Dropout(0.5), nn.Linear(4, 3)

        def forward(self, x):
            x = self.encoder(x[:, None]).flatten(1)
            return self.last(nn.functional.dropout(x, 0.5, self.training))

    result = uncertainty.predict(Calls(), torch.randn(4, 4), 10, key=Key(0))
    assert set(result.random) == {"encoder.dropout", "encoder.dropout1", "encoder.dropout2"}
    assert "calls torch.nn.functional.dropout" in result.fixed[""]
    assert "fused attention" in result.fixed["encoder.self_attn"]
    assert result.fixed["never"] == "not called in evaluation"
    assert "not random: 3" in str(result)
    assert (result.std > 0).all()


def test_models_of_all_kinds(torch):
    nn, x = torch.nn, torch.randn(5, 4)
    tail = [nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)]
    tokens = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 8), *tail)
    result = uncertainty.predict(tokens, torch.randint(9, (5, 3)), 9, key=Key(0))
    assert result.mean.dtype == torch.float32
    assert (result.std > 0).any()
    segments = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout2d(0.5), nn.Conv2d(4, 3, 1))
    result = uncertainty.predict(segments, torch.randn(2, 1, 6, 6), 9, key=Key(0))
    assert result.entropy.shape == (2, 4, 4)
    half = nn.Sequential(nn.Linear(4, 8), *copy.deepcopy(tail)).bfloat16()
    assert uncertainty.predict(half, x.bfloat16(), 9, key=Key(0)).mean.dtype == torch.bfloat16
    plain = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 8)), *copy.deepcopy(tail))
    assert isinstance(uncertainty.predict(plain, x.numpy(), 9, key=Key(0)).mean, np.ndarray)
    expected = uncertainty.predict(plain, x, 9, key=Key(0))
    assert uncertainty.predict(plain, x.requires_grad_(), 9, key=Key(0)).mean.grad_fn is None
    with torch.inference_mode():
        assert torch.equal(uncertainty.predict(plain, x, 9, key=Key(0)).mean, expected.mean)
    with pytest.raises(TypeError, match="model must return a tensor of floating-point numbers, got tuple"):
        uncertainty.predict(nn.Sequential(nn.Dropout(), nn.LSTM(4, 3)), x, 9, key=Key(0))


def test_a_change_in_place_is_not_seen_by_the_next_sample(torch):
    import thinned.nn as tnn

    class InPlace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(4, 4)
            self.drop = tnn.DropPath(0.5, mode="batch")  # samples run one by one

        def forward(self, x):
            h = self.first(x)
            h += self.drop(h)
            return h

    model, x = InPlace(), torch.randn(3, 4)
    result = uncertainty.predict(model, x, 64, key=Key(0), outputs="numbers", quantiles=(0.0, 1.0))
    with torch.no_grad():
        h = model.first(x)
    each = torch.stack([h, h + 2 * h])  # the branch is dropped, or doubled
    assert torch.allclose(result.quantiles[0], each.min(0).values, atol=1e-5)
    assert torch.allclose(result.quantiles[1], each.max(0).values, atol=1e-5)


def test_an_exception_leaves_the_model_as_it_was(torch):
    class Fails(torch.nn.Module):
        def forward(self, x):
            if len(x) > 2:
                raise RuntimeError("too many rows")
            return x

    model = torch.nn.Sequential(torch.nn.Dropout(0.5), Fails(), torch.nn.Linear(4, 3)).train()
    before = snapshot(torch, model)
    with pytest.raises(RuntimeError, match="too many rows"):
        uncertainty.predict(model, torch.randn(5, 4), 4, key=Key(0))
    assert snapshot(torch, model) == before


def test_a_thinned_model_and_a_network_under_thin_give_what_the_plain_ones_give(torch):
    import thinned.nn as tnn

    model, x = as_torch(torch, small()), torch.from_numpy(rows(5, 4))
    plain = uncertainty.predict(model, x, 20, key=Key(0)).mean
    thinned = tnn.thin(model)
    assert torch.equal(uncertainty.predict(thinned, x, 20, key=Key(0)).mean, plain)
    assert len(tnn.thinning(thinned).chains) == 2, "the model itself is thinned still"
    net = small()
    plain = uncertainty.predict(net, x.numpy(), 20, key=Key(0)).mean
    assert np.array_equal(uncertainty.predict(scratch.Thin(net), x.numpy(), 20, key=Key(0)).mean, plain)


@pytest.mark.parametrize("drop", [scratch.Dropout, scratch.GaussianDropout, scratch.ThinDropout])
@pytest.mark.parametrize("thin", [True, False])
def test_by_hand_the_batch_size_changes_nothing(drop, thin):
    net, x = small(drop=drop, input_p=0.3), rows(7, 4)
    whole = uncertainty.predict(net, x, 15, key=Key(1), thin=thin)
    parts = uncertainty.predict(net, x, 15, key=Key(1), thin=thin, batch_size=2)
    assert np.allclose(parts.mean, whole.mean, atol=1e-5)
    assert set(whole.random) == {"0", "3", "6"}
    assert all(layer._saved is None for layer in net.children.values()), "the layers were not used"


def test_by_hand_maxout_batch_norm_and_drop_connect():
    layers = [
        scratch.Maxout(4, 6, key=Key(0)),
        scratch.BatchNorm(6),
        scratch.Dropout(0.5),
        scratch.Maxout(6, 5, key=Key(1)),
        scratch.Dropout(0.4),
        scratch.DropConnect(5, 3, 0.3, key=Key(2)),
    ]
    net, x = scratch.Sequential(*layers), rows(5, 4)
    result = uncertainty.predict(net, x, 10, key=Key(0))
    assert "of the 6 units of 0" in result.random["2"]
    assert result.random["4"] == "Dropout(0.4)", "DropConnect is no reader of units"
    dense = scratch.Sequential(
        *(scratch.ThinDropout(0.5) if i == 2 else layer for i, layer in enumerate(layers))
    )
    same = uncertainty.predict(dense, x, 10, key=Key(0), thin=False)
    assert np.allclose(same.mean, result.mean, atol=1e-5), "as if all units were computed"


def test_numbers():
    net, x = small(), rows(6, 4)
    result = uncertainty.predict(net, x, 25, key=Key(0), outputs="numbers", quantiles=(0.1, 0.5))
    assert result.entropy is None
    assert result.mutual_information is None
    y = np.stack([uncertainty.predict(net, x, 1, key=k, outputs="numbers").mean for k in map(Key, range(2))])
    assert not np.array_equal(y[0], y[1])
    assert result.quantiles.shape == (2, 6, 3)


@pytest.mark.parametrize("thin", [True, False])
def test_samples_are_those_that_predict_tells_of(torch, thin):
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


def test_statistics_against_numpy():
    y = np.random.default_rng(0).normal(size=(9, 4, 3, 2))
    found = prediction.summarise(y, "logits", (0.0, 0.3, 1.0))
    p = np.exp(y) / np.exp(y).sum(2, keepdims=True)
    assert np.allclose(found.mean, p.mean(0))
    assert np.allclose(found.std, p.std(0, ddof=1))
    assert np.allclose(found.quantiles, np.quantile(p, (0.0, 0.3, 1.0), axis=0))
    h = -(p.mean(0) * np.log(p.mean(0))).sum(1)
    assert np.allclose(found.entropy, h)
    assert np.allclose(found.mutual_information, h + (p * np.log(p)).sum(2).mean(0))
    labels = prediction.summarise(y, "labels", ())
    q = 1 / (1 + np.exp(-y))
    assert np.allclose(labels.mean, q.mean(0))
    assert np.allclose(
        labels.entropy, -(q.mean(0) * np.log(q.mean(0)) + (1 - q.mean(0)) * np.log(1 - q.mean(0)))
    )
    assert labels.quantiles.shape == (0, 4, 3, 2)
    certain = prediction.summarise(np.full((3, 2, 2), [1000.0, -1000.0]), "logits", (0.5,))
    assert np.array_equal(certain.entropy, np.zeros(2))
    assert np.array_equal(certain.mutual_information, np.zeros(2))


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


# ---- moments ----


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_moments_of_one_hidden_layer_are_exact(p):
    net, x, samples = scratch.mlp((4, 8, 2), key=Key(0), drop=scratch.Dropout, p=p), rows(6, 4), 20_000
    result = uncertainty.moments(net, x, outputs="numbers")
    drawn = uncertainty.predict(net, x, samples, key=Key(1), outputs="numbers", thin=False)
    assert_means(drawn.mean, result.mean, result.std, samples)
    # a sum of 8 bounded terms has a kurtosis of at most 3 + (1 − 6p(1 − p))/(p(1 − p))
    kurtosis = 3 + max(0.0, (1 - 6 * p * (1 - p)) / (p * (1 - p)))
    bound = SIGMAS * result.std**2 * math.sqrt((kurtosis - 1) / samples) + 1e-6
    assert (np.abs(drawn.std**2 - result.std**2) <= bound).all()


def test_the_moments_of_relu_against_numerical_integration():
    from thinned.uncertainty.moment_rules import Moments, relu

    z = np.linspace(-12, 12, 200_001)
    weight = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    for mean, sigma in ((0.0, 1.0), (-2.0, 0.5), (3.0, 2.0), (1.0, 0.01)):
        y = np.maximum(mean + sigma * z, 0)
        first, second = weight @ y, weight @ y**2
        result = relu(Moments(np.array([mean]), np.array([sigma**2])))
        assert result.mean == pytest.approx(first, abs=1e-6)
        assert result.variance == pytest.approx(second - first**2, abs=2e-6 * max(1.0, mean**2))
    exact = relu(Moments(np.array([-1.0, 2.0]), np.zeros(2)))
    assert np.allclose(exact.mean, [0, 2])
    assert np.allclose(exact.variance, 0)


def test_moments_are_the_same_by_hand_and_in_torch(torch):
    net, x = small(p=0.4), rows(6, 4)
    by_hand, given = (
        uncertainty.moments(net, x),
        uncertainty.moments(as_torch(torch, net), torch.from_numpy(x)),
    )
    assert np.allclose(given.mean.numpy(), by_hand.mean, atol=1e-5)
    assert np.allclose(given.std.numpy(), by_hand.std, atol=1e-5)


def test_moments_through_torch_layers(torch):
    import thinned.nn as tnn

    nn = torch.nn
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3)
    norm.running_mean += torch.randn(3)
    norm.running_var += torch.rand(3)
    linear = [nn.Conv2d(2, 3, 2), norm, nn.Flatten(), tnn.DropConnectLinear(12, 4, p=0.3), nn.Linear(4, 2)]
    model, x, samples = nn.Sequential(nn.Dropout(0.5), *linear), torch.randn(4, 2, 3, 3), 20_000
    result = uncertainty.moments(model, x, outputs="numbers")
    drawn = uncertainty.predict(model, x, samples, key=Key(0), outputs="numbers")
    assert_means(drawn.mean, result.mean.numpy(), result.std, samples)
    assert (result.std > 0).all()


def test_a_layer_without_a_rule_is_named(torch):
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.LayerNorm(4))
    with pytest.raises(ValueError, match="got LayerNorm at 1"):
        uncertainty.moments(model, torch.randn(2, 4))
    net = scratch.Sequential(scratch.Dropout(), scratch.Tanh())
    with pytest.raises(ValueError, match="got Tanh at 1"):
        uncertainty.moments(net, rows(2, 4))


# ---- all sub-networks ----


def test_the_geometric_mean_of_a_net_without_hidden_layers_is_weight_scaling():
    net = scratch.mlp((6, 3), key=Key(0), drop=scratch.Dropout, input_p=0.3)
    result = uncertainty.average(net, rows(5, 6))
    assert np.allclose(result.geometric, result.scaled, atol=1e-5)
    assert not np.allclose(result.arithmetic, result.scaled, atol=1e-3)
    assert result.networks == 2**6
    assert result.effective == pytest.approx(theory.effective_subnetworks(6, 0.3))


def test_averages_against_a_loop_over_masks():
    net, x = scratch.mlp((3, 4, 2), key=Key(1), drop=scratch.Dropout, p=0.3, init=1.0), rows(3, 3)
    fc1, fc2 = (layer for layer in net.children.values() if isinstance(layer, scratch.Linear))
    total, logs, votes, each = 0.0, 0.0, np.zeros((3, 2)), []
    for mask in itertools.product((0, 1), repeat=4):
        chance = math.prod(0.7 if m else 0.3 for m in mask)
        h = np.maximum(x @ fc1.params["weight"].T + fc1.params["bias"], 0) * mask / 0.7
        z = np.exp(h @ fc2.params["weight"].T + fc2.params["bias"])
        p = z / z.sum(1, keepdims=True)
        total, logs = total + chance * p, logs + chance * np.log(p)
        each.append((chance, p))
        best = p == p.max(1, keepdims=True)
        votes += chance * best / best.sum(1, keepdims=True)
    result = uncertainty.average(net, x)
    assert np.allclose(result.arithmetic, total, atol=1e-5)
    geometric = np.exp(logs) / np.exp(logs).sum(1, keepdims=True)
    assert np.allclose(result.geometric, geometric, atol=1e-5)
    assert np.allclose(result.votes, votes, atol=1e-5)
    assert np.allclose(result.votes.sum(1), 1)
    (chances, found), *rest = uncertainty.subnetworks(net, x)
    assert not rest, "so few are one block"
    assert np.allclose(chances, [chance for chance, _ in each])
    assert np.allclose(found, [p for _, p in each], atol=1e-5), "in the order of itertools.product"


@pytest.mark.parametrize("together", [1, 1 << 24])
def test_all_picks_against_a_loop(together, monkeypatch):
    # one network at a time, or all at once
    monkeypatch.setattr("thinned.uncertainty.all_subnetworks.TOGETHER", together)
    net, x = small(p=0.3), rows(4, 4)
    every = thin_ensemble(net, x, 0.3)
    chances, found = map(np.concatenate, zip(*uncertainty.subnetworks(net, x, thin=True), strict=True))
    assert np.allclose(chances, 1 / len(every))
    assert np.allclose(found, every, atol=1e-5), "in the order of itertools.combinations"
    result = uncertainty.average(net, x, thin=True)
    assert np.allclose(result.arithmetic, every.mean(0), atol=1e-5)
    assert result.networks == result.effective == len(every)
    by_name = uncertainty.average(small(drop=scratch.ThinDropout, p=0.3), x)
    assert np.allclose(by_name.arithmetic, result.arithmetic, atol=1e-5)


def test_a_half_makes_the_most_networks():
    rates = np.linspace(0.05, 0.95, 19)
    sizes = [theory.effective_subnetworks(10, p) for p in rates]
    assert rates[int(np.argmax(sizes))] == pytest.approx(0.5)
    assert max(sizes) == pytest.approx(2**10)


def test_too_many_networks_are_refused():
    with pytest.raises(
        ValueError, match=r"at most limit = 1024 thinned networks, got 2\*\*6 · 2\*\*5 of 11 units"
    ):
        uncertainty.average(small(), rows(2, 4), limit=1024)
    with pytest.raises(ValueError, match=r"got 20 \(3 of 6\) · 10 \(3 of 5\) of 11 units"):
        uncertainty.subnetworks(small(), rows(2, 4), limit=199, thin=True)
    with pytest.raises(ValueError, match="must drop single units of vectors"):
        uncertainty.average(small(drop=scratch.GaussianDropout), rows(2, 4))


# ---- calibration ----


def test_calibration_of_known_bins():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [1.0, 0.0]])
    result = uncertainty.reliability(p, np.array([0, 1, 1, 0]), bins=10)
    assert result.count.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 2, 1]
    assert result.accuracy[[5, 8, 9]].tolist() == [1.0, 0.5, 1.0]
    assert uncertainty.calibration_error(p, np.array([0, 1, 1, 0]), 10) == pytest.approx((0.4 + 2 * 0.4) / 4)


def test_bins_of_equal_count():
    p = np.linspace(0.5, 0.99, 30)
    result = uncertainty.reliability(np.stack([p, 1 - p], 1), np.zeros(30, int), 5, adaptive=True)
    assert result.count.tolist() == [6] * 5
    assert result.edges[[0, -1]].tolist() == [0.5, 0.99]
    assert result.error == pytest.approx(np.mean(1 - p)), "all are right, none is sure"
    same = uncertainty.reliability(np.full((30, 2), 0.5), np.arange(30) % 2, 5, adaptive=True)
    assert same.count.tolist() == [30, 0, 0, 0, 0], "equals are not parted"
    assert same.error == 0.0


def test_scores_of_known_predictions():
    p, labels = np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1]]), np.array([0, 1])
    result = uncertainty.scores(p, labels)
    assert result.error == 0.5
    assert result.log_loss == pytest.approx(-np.log([0.9, 0.3]).mean())
    assert result.brier == pytest.approx(((p - np.eye(3)[labels]) ** 2).sum(1).mean())
    assert result.overconfidence == pytest.approx(0.75 - 0.5)
    assert result.calibration == pytest.approx((0.1 + 0.6) / 2)
    assert np.isfinite(uncertainty.scores(np.eye(3)[[0]], np.array([1])).log_loss)


def test_labels_drawn_from_the_probabilities_are_calibrated():
    rng, n, bins = np.random.default_rng(0), 20_000, 10
    p = rng.dirichlet((0.5, 0.5, 0.5), n)
    labels = (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=2)
    result = uncertainty.reliability(p, labels, bins)
    full = result.count > 0
    bound = SIGMAS * 0.5 / np.sqrt(result.count[full])
    assert (np.abs(result.accuracy - result.confidence)[full] <= bound).all()
    # E|gap| ≤ its standard deviation, ½√(1/count): Σ count/n·½/√count ≤ ½√(bins/n)
    assert result.error <= SIGMAS * 0.5 * math.sqrt(bins / n)
    bound = SIGMAS * 0.5 / math.sqrt(n)
    flat, sharp = (p**power / (p**power).sum(1, keepdims=True) for power in (0.5, 3))
    assert uncertainty.calibration_error(sharp, labels) > 0.05, "probabilities that say too much are found"
    little, right, much = (uncertainty.scores(q, labels) for q in (flat, p, sharp))
    assert little.overconfidence < -bound
    assert abs(right.overconfidence) <= bound
    assert much.overconfidence > bound
    for other in (little, much):
        assert right.brier < other.brier
        assert right.log_loss < other.log_loss
        assert right.adaptive < other.adaptive


def test_rejection_keeps_the_certain():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.8, 0.2]])
    share, error = uncertainty.rejection(p, np.array([0, 1, 1, 0]))
    assert share.tolist() == [0, 0.25, 0.5, 0.75]
    assert error == pytest.approx([0.5, 1 / 3, 0, 0])
    _, equal = uncertainty.rejection(p, np.array([0, 1, 1, 0]), np.ones(4))
    assert equal == pytest.approx([0.5] * 4), "equals are in no order"


# ---- bad input ----


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


def test_bad_calibration_input_is_refused():
    p = np.full((3, 2), 0.5)
    with pytest.raises(TypeError, match="labels must hold integers"):
        uncertainty.calibration_error(p, np.zeros(3))
    with pytest.raises(ValueError, match="labels must be 3 class numbers"):
        uncertainty.calibration_error(p, np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"probabilities must be in \[0, 1\]"):
        uncertainty.calibration_error(p * 3, np.zeros(3, int))
    with pytest.raises(ValueError, match=r"must sum to 1 a row, got sums from 0\.8 to 0\.8"):
        uncertainty.scores(p * 0.8, np.zeros(3, int))
    with pytest.raises(ValueError, match=r"uncertainty must have shape \(3,\)"):
        uncertainty.rejection(p, np.zeros(3, int), np.zeros(2))


def test_no_rows(torch):
    for model, x in ((small(), rows(0, 4)), (as_torch(torch, small()), torch.zeros(0, 4))):
        result = uncertainty.predict(model, x, 3, key=Key(0))
        assert tuple(result.mean.shape) == (0, 3)
        assert tuple(result.quantiles.shape) == (3, 0, 3)
    assert uncertainty.average(small(), rows(0, 4)).arithmetic.shape == (0, 3)


@pytest.mark.parametrize("fast", [True, False])
def test_progress_is_reported(fast, monkeypatch):
    monkeypatch.setattr(perceptron, "TERMS", 1)
    monkeypatch.setattr(kernels, "threads", lambda: 1)
    monkeypatch.setattr(networks, "available", lambda x: fast and available(x))
    seen = []
    uncertainty.predict(small(), rows(6, 4), 5, key=Key(0), batch_size=2, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)
    assert len(seen) == 15


def test_networks_by_hand_need_no_torch():
    code = """
import sys
sys.modules["torch"] = None
import numpy as np, thinned
from thinned import scratch, uncertainty
net = scratch.mlp((4, 6, 3), key=thinned.Key(0), drop=scratch.Dropout)
x = np.ones((2, 4), np.float32)
print(uncertainty.predict(net, x, 3, key=thinned.Key(0)).mean.shape, uncertainty.moments(net, x).mean.shape)
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "(2, 3) (2, 3)"
