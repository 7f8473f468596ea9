"""Samples of torch models: they follow training passes, and the model stays as it was."""

import copy

import numpy as np
import pytest
from helpers.ensembles import as_torch, assert_means, rows, small

from thinned import Key, scratch, uncertainty


def test_a_hook_sees_every_sample(torch):
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(4, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 3)
    )
    seen = []
    model[5].register_forward_hook(lambda module, args, out: seen.append(len(out)))
    uncertainty.predict(model, torch.randn(6, 4), 11, key=Key(0))
    assert seen.count(6) == 11


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
    modules = {"encoder.dropout", "encoder.dropout1", "encoder.dropout2"}
    assert set(result.random) == {*modules, "", "encoder.self_attn"}
    assert result.random[""] == "calls Dropout(p=0.5) as a function"
    assert result.random["encoder.self_attn"] == "calls Dropout(p=0.3) as a function"
    assert result.fixed == {"never": "not called in evaluation"}
    assert "not random: 1" in str(result)
    cheap = uncertainty.moments(nn.Sequential(Calls().last, nn.Dropout(), nn.Linear(3, 2)), torch.randn(4, 4))
    assert not cheap.fixed
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
    sequences = nn.Sequential(nn.Dropout(), nn.LSTM(4, 3, batch_first=True))  # it returns a tuple
    assert uncertainty.predict(sequences, torch.randn(5, 2, 4), 9, key=Key(0)).mean.shape == (5, 2, 3)
    nested = nn.Sequential(nn.Dropout(), nn.LSTM(4, 3, batch_first=True), nn.Identity())
    nested.forward = lambda x: ((x, x), x)
    with pytest.raises(TypeError, match="model must return a tensor of floating-point numbers, got tuple"):
        uncertainty.predict(nested, x, 9, key=Key(0))


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
