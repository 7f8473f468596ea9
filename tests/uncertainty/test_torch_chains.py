"""The spread of predictions, judged by torch's own dropout; which chains a sample thins."""

import pytest

from thinned import Key, keep_mask, uncertainty

torch = pytest.importorskip("torch")

from helpers.ensembles import SIGMAS  # noqa: E402
from torch import nn  # noqa: E402

SAMPLES, SEED = 4000, 0


class Over(nn.Module):
    """The mean over positions, (N, L, C) -> (N, classes)."""

    def __init__(self, *layers):
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x):
        return self.body(x).mean(1)


class Mixer(nn.Module):
    """Dropout of the units of positions and of channels, in turn."""

    def __init__(self, p):
        super().__init__()
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)
        self.tokens = nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Dropout(p), nn.Linear(32, 6))
        self.channels = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Dropout(p), nn.Linear(32, 8))

    def forward(self, x):
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(self.norm(x))).mean(1))


def encoder(p):
    """Torch's own; without dropout of attention weights, which `predict` names as fixed."""
    layers = [nn.TransformerEncoderLayer(8, 2, 16, p, batch_first=True) for _ in range(2)]
    for layer in layers:
        layer.self_attn.dropout = 0.0
    return nn.Sequential(*layers)


class Vision(nn.Module):
    """A transformer of patches, with average pooling."""

    def __init__(self, p):
        super().__init__()
        self.patch, self.encoder, self.head = nn.Conv2d(3, 8, 4, 4), encoder(p), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))


class Frames(nn.Module):
    """Convolutions of each frame of a film, (N, T, C, H, W), and the mean over frames."""

    def __init__(self, p):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Dropout2d(p), nn.Conv2d(6, 3, 3), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x):
        n, frames = x.shape[:2]
        return self.net(x.flatten(0, 1)).view(n, frames, -1).mean(1)


def convolutions(p):
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Dropout2d(p), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(32, 16), nn.ReLU(), nn.Dropout(p), nn.Linear(16, 3)),
    )


def perceptron(p):
    return nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Dropout(p), nn.Linear(20, 3))


MODELS = {  # name -> model of a rate, shape of a sample, how many chains a sample thins
    "perceptron": (perceptron, (8,), 1),
    "a few units": (
        lambda p: nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Dropout(p), nn.Linear(4, 3)),
        (8,),
        1,
    ),
    "mean over positions": (lambda p: Over(*perceptron(p)), (32, 8), 0),
    "mixer": (Mixer, (6, 8), 0),
    "encoder": (lambda p: Over(encoder(p), nn.Linear(8, 3)), (6, 8), 0),
    "vision": (Vision, (3, 8, 8), 0),
    "convolutions": (convolutions, (3, 6, 6), 2),
    "frames": (Frames, (3, 3, 6, 6), 0),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_the_spread_is_that_of_torchs_dropout(name, p):
    """Two sample variances of S numbers differ by at most 6·√((μ₄ − σ⁴)/S) of each, added as squares."""
    torch.manual_seed(SEED)
    make, shape, chains = MODELS[name]
    model, x = make(p), 1.0 + 0.3 * torch.randn(2, *shape)
    drawn = uncertainty.sample(model.eval(), x, SAMPLES, key=Key(SEED), outputs="numbers")
    with torch.no_grad():
        parts = model.train()(x.repeat_interleave(SAMPLES, 0)).view(2, SAMPLES, -1).transpose(0, 1)
    squares = [((y.double() - y.double().mean(0)) ** 2) for y in (drawn, parts)]
    ours, theirs = (each.sum(0) / (SAMPLES - 1) for each in squares)
    errors = [(each - each.mean(0)).square().mean(0) / SAMPLES for each in squares]
    assert ((ours - theirs).abs() <= SIGMAS * (errors[0] + errors[1]).sqrt() + 1e-12).all()
    assert 0.9 < (ours.sum() / theirs.sum()).sqrt() < 1.1
    random = uncertainty.predict(model, x, 2, key=Key(0), outputs="numbers").random
    assert sum("drawn once a sample" in what for what in random.values()) == chains


def test_what_is_not_thinned_is_said():
    random = uncertainty.predict(Over(*perceptron(0.5)), torch.randn(2, 5, 8), 2, key=Key(0)).random
    assert random == {"body.2": "Dropout(p=0.5, inplace=False), a mask for each row of a sample"}
    one = uncertainty.predict(Over(*perceptron(0.5)), torch.randn(2, 1, 8), 2, key=Key(0)).random
    assert one == random, "whatever the number of positions"


@pytest.mark.parametrize("p", [0.7, 1.0])
def test_a_sample_may_keep_no_channel(p):
    """Two channels at p = 0.7: in half of the samples only the biases of the next layer are left."""
    torch.manual_seed(SEED)
    model = nn.Sequential(
        *(nn.Conv2d(3, 2, 3), nn.Sigmoid(), nn.Dropout2d(p), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(16, 2), nn.Tanh(), nn.Dropout(p), nn.Linear(2, 3)),
    ).eval()
    x, none = torch.randn(5, 3, 6, 6), 0
    drawn = uncertainty.sample(model, x, 12, key=Key(SEED), outputs="numbers")
    for s in range(12):
        masks = [
            keep_mask((2,), p, key=Key(SEED).fold_in(s).fold_in(name), like=x) / (1 - p if p < 1 else 1)
            for name in "28"
        ]
        none += not masks[0].any()
        with torch.no_grad():
            y = model[3:8](model[:2](x) * masks[0].view(2, 1, 1))
            y = model[9](y * masks[1])
        torch.testing.assert_close(drawn[s], y)
    assert none > 0
