"""Models with several inputs, and with more than one output."""

from collections import namedtuple

import numpy as np
import pytest

from thinned import Key, uncertainty

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

SAMPLES = 7


class Two(nn.Module):
    """Two inputs, and a third that has a default; what is returned is up to ``form``."""

    def __init__(self, form=lambda y: y):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.drop, self.last = nn.Linear(6, 9), nn.Dropout(0.5), nn.Linear(9, 3)
        self.form = form

    def forward(self, x, weight, shift=None):
        y = self.last(self.drop(torch.relu(self.first(x)))) * weight
        return self.form(y if shift is None else y + shift)


class Untraced(Two):
    """Torch.fx cannot trace it."""

    def forward(self, x, weight, shift=None):
        return super().forward(x if x.sum() < 1e9 else 2 * x, weight, shift)


ROWS = torch.Generator().manual_seed(0)
X, WEIGHT, SHIFT = (torch.randn(5, n, generator=ROWS) for n in (6, 1, 3))


def expected(model):
    """The same by a model of one input, which has both in its columns."""

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.drop, self.last = model.first, model.drop, model.last

        def forward(self, x):
            return self.last(self.drop(torch.relu(self.first(x[:, :6])))) * x[:, 6:7]

    return uncertainty.sample(One(), torch.cat([X, WEIGHT], 1), SAMPLES, key=Key(3), outputs="numbers")


@pytest.mark.parametrize("kind", [Two, Untraced])
@pytest.mark.parametrize(
    "given",
    [(X, WEIGHT), [X, WEIGHT], {"x": X, "weight": WEIGHT}, {"weight": WEIGHT, "x": X}],
    ids=["tuple", "list", "dict", "other order"],
)
@pytest.mark.parametrize("batch_size", [None, 2])
def test_several_inputs(kind, given, batch_size):
    model = kind()
    drawn = uncertainty.sample(
        model, given, SAMPLES, key=Key(3), outputs="numbers", batch_size=batch_size, thin=False
    )
    assert drawn.shape == (SAMPLES, 5, 3)
    dense = model.eval()(X, WEIGHT)
    assert torch.allclose(uncertainty.weight_scaling(model, given, outputs="numbers"), dense)
    whole = uncertainty.sample(model, given, SAMPLES, key=Key(3), outputs="numbers", thin=False)
    assert torch.allclose(drawn, whole, atol=1e-6)
    if kind is Two:
        thinned = uncertainty.sample(model, given, SAMPLES, key=Key(3), outputs="numbers")
        assert torch.allclose(thinned, expected(model), atol=1e-6)


def test_an_argument_that_has_a_default():
    given = {"x": X, "weight": WEIGHT, "shift": SHIFT}
    drawn = uncertainty.sample(Two(), given, SAMPLES, key=Key(3), outputs="numbers", thin=False)
    plain = uncertainty.sample(Untraced(), (X, WEIGHT), SAMPLES, key=Key(3), outputs="numbers", thin=False)
    assert torch.allclose(drawn, plain + SHIFT, atol=1e-6)


def test_moments_of_several_inputs():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def forward(self, x, y):
            return self.drop(torch.relu(x + y))

    result = uncertainty.moments(Sum(), (X, 2 * X), outputs="numbers")
    assert torch.allclose(result.mean, torch.relu(3 * X))
    assert torch.allclose(result.std, torch.relu(3 * X), atol=1e-6)


Named = namedtuple("Named", "hidden logits")
FORMS = {
    "a dict": lambda y: {"loss": y.sum(), "logits": y},
    "a dict of one": lambda y: {"scores": y},
    "a tuple": lambda y: (y, y.sum()),
    "a list of one": lambda y: [y],
    "a named tuple": lambda y: Named(y.sum(), y),
}


@pytest.mark.parametrize("kind", [Two, Untraced])
@pytest.mark.parametrize("form", FORMS)
def test_one_of_several_outputs(kind, form):
    plain, several = kind(), kind(FORMS[form])
    for outputs in ("logits", "numbers"):
        a, b = (
            uncertainty.predict(model, (X, WEIGHT), SAMPLES, key=Key(3), outputs=outputs)
            for model in (plain, several)
        )
        assert torch.allclose(a.mean, b.mean, atol=1e-6)
        assert torch.allclose(a.std, b.std, atol=1e-6)
        assert a.random == b.random


def test_the_kind_of_outputs_names_one():
    model = Two(lambda y: {"logits": y, "probabilities": y.softmax(1), "numbers": 2 * y})
    given = {
        kind: uncertainty.predict(model, (X, WEIGHT), SAMPLES, key=Key(3), outputs=kind).mean
        for kind in ("logits", "probabilities", "numbers")
    }
    assert torch.allclose(given["logits"], given["probabilities"], atol=1e-6)
    assert not torch.allclose(given["numbers"], given["logits"])


@pytest.mark.parametrize("kind", [Two, Untraced])
def test_outputs_without_a_name_are_refused(kind):
    model = kind(lambda y: {"left": y, "right": y})
    with pytest.raises(ValueError, match=r"one of \['left', 'right'\], got 'numbers'$"):
        uncertainty.predict(model, (X, WEIGHT), key=Key(0), outputs="numbers")


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize("kind", [Two, Untraced])
@pytest.mark.parametrize(
    ("form", "outputs"),
    [
        (lambda y: {"logits": 2 * y, "scores": y}, "scores"),
        (lambda y: {"logits": 2 * y, "scores": y}, ("scores", "numbers")),
        (lambda y: (2 * y, y), 1),
        (lambda y: (2 * y, y), -1),
        (lambda y: Pair(2 * y, y), "second"),
        (lambda y: Pair(2 * y, y), 1),
        (lambda y: {"logits": 2 * y, "states": (3 * y, y)}, ("states", -1)),
        (lambda y: {"heads": {"a": 2 * y, "b": y}}, ("heads", "b")),
    ],
)
def test_any_entry(kind, form, outputs):
    """Each has the same samples as a model that returns this entry alone."""
    plain, several = kind(), kind(form)
    a = uncertainty.sample(plain, (X, WEIGHT), SAMPLES, key=Key(3), outputs="numbers")
    b = uncertainty.sample(several, (X, WEIGHT), SAMPLES, key=Key(3), outputs=outputs)
    assert torch.allclose(a, b, atol=1e-6)


def test_any_entry_and_its_kind():
    model = Two(lambda y: (y, {"scores": 2 * y}))
    found = uncertainty.predict(model, (X, WEIGHT), SAMPLES, key=Key(3), outputs=(1, "scores", "logits"))
    other = uncertainty.predict(Two(lambda y: 2 * y), (X, WEIGHT), SAMPLES, key=Key(3))
    assert torch.allclose(found.mean, other.mean, atol=1e-6)
    assert torch.allclose(found.entropy, other.entropy, atol=1e-6)


@pytest.mark.parametrize("kind", [Two, Untraced])
@pytest.mark.parametrize(
    ("form", "outputs", "text"),
    [
        (lambda y: {"left": y, "right": y}, "lost", r"one of \['left', 'right'\], got 'lost'$"),
        (lambda y: {"left": y, "right": y}, 1, r"one of \['left', 'right'\], got 1$"),
        (lambda y: Pair(y, y), "third", r"one of \['first', 'second'\], got 'third'$"),
        (lambda y: (y, y), 2, r"an index of a tuple of 2, got 2$"),
        (lambda y: (y, y), "left", r"an index of a tuple of 2, got 'left'$"),
        (lambda y: {"states": (y, y)}, "states", r"of the tensors of 'states', an index of a tuple of 2$"),
        (lambda y: y, "logit", r"which is one Tensor, by one of \['logits', .*\], got 'logit'$"),
    ],
)
@pytest.mark.parametrize("way", [uncertainty.predict, uncertainty.moments, uncertainty.weight_scaling])
def test_entries_that_are_not_there(way, kind, form, outputs, text):
    with pytest.raises(ValueError, match=text):
        way(
            kind(form),
            (X, WEIGHT),
            outputs=outputs,
            **({"key": Key(0)} if way is uncertainty.predict else {}),
        )


@pytest.mark.parametrize("outputs", [(), 1.5, True, ("a", None)])
def test_outputs_of_another_type(outputs):
    with pytest.raises(TypeError, match="outputs must be a name, an index, or several in a tuple, got"):
        uncertainty.predict(Two(), (X, WEIGHT), key=Key(0), outputs=outputs)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ((X, WEIGHT[:3]), ValueError, r"arrays of as many rows each, got shapes \(5, 6\), \(3, 1\)"),
        ((X, 3.0), TypeError, r"x\[1\] must be a NumPy array or a torch tensor, got float"),
        ({"x": X, "weight": None}, TypeError, r"x\['weight'\] must be a NumPy array"),
        ((), ValueError, "x must have one array or more, got none"),
        (torch.ones(()), ValueError, r"must have samples in its first dimension, got shape \(\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(given, error, text):
    with pytest.raises(error, match=text):
        uncertainty.predict(Two(), given, key=Key(0))


def test_numbers_of_numpy_get_the_dtype_of_the_model():
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 3)), np.ones((2, 4))
    result = uncertainty.predict(model, x, SAMPLES, key=Key(0))
    assert type(result.mean) is np.ndarray
    same = uncertainty.predict(model, torch.ones(2, 4), SAMPLES, key=Key(0))
    assert np.allclose(result.mean, same.mean.numpy())
