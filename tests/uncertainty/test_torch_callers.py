"""Predictions of models that call dropout as a function: they drop, and by the same law as in training."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

import thinned.nn as tnn  # noqa: E402
from thinned import Key, uncertainty  # noqa: E402


class Head(nn.Module):
    """A network whose dropout is a function; with batch norm, which must be at rest."""

    def __init__(self, p=0.5):
        super().__init__()
        self.a, self.norm, self.b, self.p = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, 3), p

    def forward(self, x):
        return self.b(F.dropout(self.norm(self.a(x)).relu(), self.p, self.training))


class Guarded(Head):
    def forward(self, x):
        x = self.norm(self.a(x)).relu()
        if self.training:
            x = F.dropout(x, self.p)
        return self.b(x)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.mha, self.b = (
            nn.Linear(2, 8),
            nn.MultiheadAttention(8, 2, 0.5, batch_first=True),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        x = self.a(x.unflatten(1, (3, 2)))
        return self.b(self.mha(x, x, x, need_weights=False)[0].mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.b = nn.LSTM(2, 8, 2, dropout=0.5), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(self.lstm(x.unflatten(1, (3, 2)).transpose(0, 1))[0][-1])


class Mine(nn.Dropout):
    """A subclass."""


def subclassed():
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), Mine(0.5), nn.Linear(16, 3))


MODELS = {
    "F.dropout": Head,
    "guarded": Guarded,
    "attention": Attention,
    "LSTM": Recurrent,
    "subclass": subclassed,
}
NAMES = {"F.dropout": "", "guarded": "", "attention": "mha", "LSTM": "lstm", "subclass": "2"}
SAMPLES = 400


@pytest.mark.parametrize("kind", MODELS)
def test_they_drop_as_in_training(kind):
    """The spread is that of training passes, with batch norm at rest, within six standard errors."""
    torch.manual_seed(0)
    model, x = MODELS[kind](), torch.randn(5, 6)
    told = uncertainty.predict(model.eval(), x, samples=SAMPLES, key=Key(0), outputs="numbers")
    assert list(told.random) == [NAMES[kind]]
    assert "as a function" in told.random[NAMES[kind]]
    assert not told.fixed
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    with torch.no_grad():
        plain = torch.stack([model(x) for _ in range(SAMPLES)])
    error = plain.std(0) * math.sqrt(2 / SAMPLES)
    assert ((told.mean - plain.mean(0)).abs() <= 6 * error).all()
    wide = torch.stack([plain.std(0), told.std]).max(0).values
    assert ((told.std - plain.std(0)).abs() <= 6 * wide * math.sqrt(2 / SAMPLES)).all()  # kurtosis up to 5


@pytest.mark.parametrize("kind", MODELS)
def test_batches_do_not_change_a_prediction(kind):
    torch.manual_seed(0)
    model, x = MODELS[kind](), torch.randn(5, 6)
    whole = uncertainty.sample(model, x, samples=4, key=Key(0))
    parts = uncertainty.sample(model, x, samples=4, key=Key(0), batch_size=2)
    torch.testing.assert_close(parts, whole)
    before = [(module, module.training) for module in model.modules()]
    assert torch.equal(uncertainty.sample(model, x, samples=4, key=Key(0)), whole)
    assert all(module.training == mode for module, mode in before)


class Folds(nn.Module):
    """Positions become rows, and the sequence comes first inside."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), tnn.Dropout(0.5), nn.Linear(16, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.5)
        self.encoder, self.b = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(8, 3)

    def forward(self, x):
        x = self.net(x.reshape(-1, 2)).unflatten(0, (len(x), -1))
        return self.b(self.encoder(x.transpose(0, 1)).mean(0))


@pytest.mark.parametrize("thin", [True, False])
def test_samples_that_are_not_first(thin):
    torch.manual_seed(0)
    model, x = Folds(), torch.randn(5, 14)
    whole = uncertainty.sample(model, x, samples=3, key=Key(0), thin=thin)
    for size in (1, 2, 4):
        parts = uncertainty.sample(model, x, samples=3, key=Key(0), batch_size=size, thin=thin)
        torch.testing.assert_close(parts, whole)


class Changes(nn.Module):
    """Its training mode is another function."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(6, 3)
        self.d = nn.Dropout(0.5)

    def forward(self, x):
        x = self.d(self.a(x))
        return F.dropout(x, 0.5, self.training) + 1 if self.training else x


def test_other_changes_of_training_are_left_out():
    told = uncertainty.predict(Changes(), torch.randn(4, 6), samples=3, key=Key(0))
    assert list(told.random) == ["d"]
    assert told.fixed == {"": "is in evaluation: its training mode changes more than its dropout"}


class Noisy(nn.Module):
    """Draws always, by a function that takes no key."""

    def forward(self, x):
        return x + torch.rand_like(x)


def of_its_own(x):
    return x * x.new_empty(x.shape).bernoulli_(0.5) * 2


class Own(nn.Module):
    """A dropout of one's own making."""

    def forward(self, x):
        return of_its_own(x) if self.training else x


class Adds(nn.Module):
    """Has another function in training, which is not random."""

    def forward(self, x):
        return x + torch.zeros(1).bernoulli_(1.0) if self.training is None else x + self.training


def with_middle(middle):
    return nn.Sequential(nn.Linear(6, 8), middle, Head2(), nn.Dropout(0.5))


def test_random_functions_are_named_once_as_what_they_are():
    model, x = with_middle(Noisy()), torch.randn(4, 6)
    warned = r"^1 \(Noisy\) calls torch.rand_like: in predict it draws from torch's generator, so one key may"
    with pytest.warns(UserWarning, match=warned) as said:
        told = uncertainty.predict(model, x, samples=3, key=Key(0))
    assert [each.filename for each in said] == [__file__]
    assert set(told.random) == {"2", "3"}
    assert not told.fixed


MIDDLES = {"Tensor.bernoulli_": Own, "torch.nn.functional.rrelu": nn.RReLU}


@pytest.mark.parametrize("function", MIDDLES)
def test_what_draws_in_training_alone_is_in_evaluation(function):
    model, x = with_middle(MIDDLES[function]()), torch.randn(4, 6)
    told = uncertainty.predict(model, x, samples=3, key=Key(0))
    assert set(told.random) == {"2", "3"}
    assert told.fixed == {"1": f"is in evaluation: its training mode calls {function}, which takes no key"}
    again = uncertainty.predict(model, x, samples=3, key=Key(0))
    assert torch.equal(told.mean, again.mean)


def test_a_change_that_is_no_dropout_is_not_named():
    told = uncertainty.predict(with_middle(Adds()), torch.randn(4, 6), samples=3, key=Key(0))
    assert not told.fixed


def test_layers():
    model = nn.Sequential(
        nn.Linear(6, 8), nn.Dropout(0.5), nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.25)), Head2()
    )
    x = torch.randn(4, 6)

    def random(layers):
        told = uncertainty.predict(model, x, samples=3, key=Key(0), layers=layers)
        assert set(told.random) | set(told.fixed) == {"1", "2.1", "3"}
        assert all(why == "not in layers" for why in told.fixed.values())
        return list(told.random)

    assert random(None) == ["1", "2.1", "3"]
    assert random("last") == ["3"]
    assert random(["1", "3"]) == ["1", "3"]
    assert random("2") == ["2.1"]
    with pytest.raises(ValueError, match=r"^layers must name what drops, or parts with it, among .*got '0'"):
        random(["0"])


class Head2(nn.Module):
    def __init__(self):
        super().__init__()
        self.b = nn.Linear(8, 3)

    def forward(self, x):
        return self.b(F.dropout(x, 0.5, self.training))


def test_cheap_predictions_leave_functions_alone():
    model, x = Head().eval(), torch.randn(4, 6)
    expected = torch.softmax(model(x), 1)
    torch.testing.assert_close(uncertainty.weight_scaling(model, x), expected)


def test_inputs_of_double_precision():
    told = uncertainty.predict(Head(), np.random.default_rng(0).normal(size=(4, 6)), samples=3, key=Key(0))
    assert isinstance(told.mean, np.ndarray)


def test_pipelines():
    pytest.importorskip("sklearn")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from thinned.estimators import DropoutMLPClassifier

    x = np.random.default_rng(0).normal(size=(40, 5)) * 7 + 3
    model = make_pipeline(StandardScaler(), DropoutMLPClassifier((8,), max_iter=3, random_state=0))
    with pytest.warns(match="max_iter"):
        model.fit(x, x[:, 0] > 3)
    told = uncertainty.predict(model, x, samples=5, key=Key(0))
    alone = uncertainty.predict(model[-1], model[:-1].transform(x), samples=5, key=Key(0))
    assert np.array_equal(told.mean, alone.mean)
