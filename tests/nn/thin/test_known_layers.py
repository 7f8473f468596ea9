"""Feed-forward parts of transformer layers, thinned: judged by the dense layer with the same masks."""

import copy

import pytest

from thinned import Key, masks

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import thinned.nn as tnn  # noqa: E402
from thinned.nn.thin import run_chains  # noqa: E402

KEY, STEP, WIDTH = Key(3), 2, 40


class Mask(nn.Module):
    """Dropout with the masks of some picks: (N, L, C) -> same."""

    def __init__(self, kept, p):
        super().__init__()
        self.kept, self.p = kept, p

    def forward(self, x):
        rows = torch.arange(x.shape[:-1].numel()) % len(self.kept)
        return x * self.kept[rows].reshape(x.shape) / (1 - self.p)


def encoder(activation="relu"):
    layer = nn.TransformerEncoderLayer(8, 2, WIDTH, 0.5, activation, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.TransformerDecoderLayer(8, 2, WIDTH, 0.5, nn.functional.silu, batch_first=True)]
        )

    def forward(self, x, mask=None):
        return self.layers[0](x, x, tgt_mask=mask)


MODELS = {"encoder": encoder, "gelu": lambda: encoder("gelu"), "decoder": Decoder}


@pytest.mark.parametrize("way", ["narrow", "whole"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_dense_layer_with_the_same_mask(name, masked, way, monkeypatch):
    if way == "narrow":
        monkeypatch.setattr(run_chains, "SAVED", -1e9)
        monkeypatch.setattr(run_chains, "ROWS_OF_GROUP", 0)
    torch.manual_seed(0)
    thin = tnn.thin(MODELS[name]().double())
    tnn.swap_dropout(thin)
    dense, chains = copy.deepcopy(thin), tnn.thinning(thin).chains
    tnn.thin(dense, back=True)
    assert set(chains) == {f"layers.{i}.dropout" for i in range(len(thin.layers))}
    for drop in chains:
        key = KEY.fold_in(STEP).fold_in(drop)
        kept = torch.from_numpy(masks.picks(WIDTH, 0.5, key, masks.GROUPS).units)
        dense.get_submodule(drop.rpartition(".")[0]).dropout = Mask(kept, 0.5)
    for model in (thin, dense):
        for module in model.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0  # torch draws its mask from the generator
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    given = (nn.Transformer.generate_square_subsequent_mask(5).double(),) if masked else ()
    found = []
    for model in (thin, dense):
        with tnn.keyed(model, KEY, STEP):
            y = model(x, *given)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_swapped_layers_are_thinned_alike():
    plain, swapped = encoder(), encoder()
    tnn.swap_dropout(swapped)
    reports = [tnn.thinning(tnn.thin(model)) for model in (plain, swapped)]
    assert reports[0].chains == reports[1].chains
    assert reports[0].dense == reports[1].dense
    assert set(reports[0].chains) == {"layers.0.dropout", "layers.1.dropout"}


def test_evaluation_and_names_stay():
    plain = encoder()
    thin = tnn.thin(copy.deepcopy(plain))
    x = torch.randn(3, 5, 8)
    torch.testing.assert_close(thin.eval()(x), plain.eval()(x))
    assert list(thin.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda layer: setattr(layer, "activation", lambda x: x.sin()),
            "the activation of layers.0 is not known",
        ),
        (lambda layer: layer.linear1.register_forward_hook(lambda *_: None), "a part of layers.0 has hooks"),
        (lambda layer: setattr(layer, "linear2", nn.Identity()), "Identity stands where Linear should"),
    ],
)
def test_what_is_not_known_stays_dense(change, why):
    model = encoder()
    change(model.layers[0])
    report = tnn.thinning(tnn.thin(model))
    assert set(report.chains) == {"layers.1.dropout"}
    assert report.dense["layers.0.dropout"] == why
