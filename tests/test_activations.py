"""The table of activations: its facts hold, and one row with its class is a new activation everywhere."""

import numpy as np
import pytest
from helpers import recipes

from thinned import scratch
from thinned.activations import ACTIVATIONS
from thinned.scratch.activations import CLASSES, ROWS
from thinned.uncertainty import moment_rules

X = np.linspace(-3.0, 3.0, 25)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_by_hand_has_the_facts_of_its_row(name):
    layer, row = CLASSES[name](), ACTIVATIONS[name]
    assert ROWS[type(layer)] is row
    assert type(layer) is getattr(scratch, row.scratch)
    assert (layer.forward(np.zeros(1))[0] == 0) == row.keeps_zero
    assert np.allclose(layer.forward(2.5 * X), 2.5 * layer.forward(X)) == row.homogeneous
    inside = X[X != 0]  # where ReLU has a derivative
    slope = (layer.forward(inside + 1e-6) - layer.forward(inside - 1e-6)) / 2e-6
    layer.forward(inside)
    assert np.allclose(layer.backward(np.ones_like(inside)), slope, atol=1e-8)


@pytest.mark.parametrize("row", ACTIVATIONS.values(), ids=lambda row: row.name)
def test_a_module_of_torch_has_the_facts_of_its_row(row):
    torch = pytest.importorskip("torch")
    from thinned.nn import activations

    assert row.moments is None or callable(getattr(moment_rules, row.moments))
    if row.torch is None:
        return
    x = torch.from_numpy(X)
    arguments = {"Threshold": (0.5, 1.0)}.get(row.torch, ())
    module = getattr(torch.nn, row.torch)(*arguments)
    assert activations.MODULES[type(module)] is row
    assert bool(module(torch.zeros(1)) == 0) == activations.keeps_zero(module)
    assert torch.allclose(module(2.5 * x), 2.5 * module(x)) == row.homogeneous
    for i in range(len(x)):
        assert torch.allclose(module(x)[i], module(x[i]))
    for call in row.calls.split():
        found = [f for home in (torch, torch.nn.functional) if (f := getattr(home, call, None))]
        assert found
        assert all(torch.allclose(f(x, *arguments), module(x)) for f in found)
        assert all(activations.CALLS[f] is row for f in (*found, call))


def test_hardtanh_keeps_zero_where_its_range_holds_it():
    torch = pytest.importorskip("torch")
    from thinned.nn import activations

    assert activations.keeps_zero(torch.nn.Hardtanh(-1.0, 1.0))
    assert not activations.keeps_zero(torch.nn.Hardtanh(0.5, 1.0))
    assert not activations.keeps_zero(torch.nn.Linear(1, 1))


USES = """
import warnings
from pathlib import Path
import numpy as np, torch
import thinned, thinned.nn as tnn
from thinned import scratch, uncertainty
from thinned.estimators import DropoutMLPClassifier
from thinned.nn.thin.convert import thinning
from thinned.scratch.activations import CLASSES

assert Path(thinned.__file__).is_relative_to(Path.cwd() / "src"), thinned.__file__
key, rng = thinned.Key(0), np.random.default_rng(0)
x = rng.normal(size=(6, 5))

def mlp(drop):
    return scratch.mlp((5, 8, 7, 3), key=key, drop=drop, activation="softplus", dtype=np.float64)

# networks in NumPy: the gradient is torch's
net = mlp(None)
assert type(net.children["1"]) is CLASSES["softplus"]
Linear, Softplus, Sequential = torch.nn.Linear, torch.nn.Softplus, torch.nn.Sequential
copy = Sequential(Linear(5, 8), Softplus(), Linear(8, 7), Softplus(), Linear(7, 3)).double()
copy.load_state_dict({name: torch.from_numpy(value) for name, value in net.get_params().items()})
given = torch.from_numpy(x).requires_grad_()
y = copy(given)
assert np.allclose(net.forward(x), y.detach().numpy())
y.sum().backward()
assert np.allclose(net.backward(np.ones((6, 3))), given.grad.numpy())

# thin, by hand and in torch
thin = scratch.Thin(mlp(scratch.ThinDropout))
assert not thin.dense and len(thin.thinned) == 2
whole = mlp(lambda p: scratch.ThinDropout(p, thin.groups))
assert np.allclose(thin.forward(x, key), whole.forward(x, key))
model = tnn.thin(Sequential(Linear(5, 8), Softplus(), torch.nn.Dropout(), Linear(8, 3)))
assert not thinning(model).dense

# moments have no rule for it, and say so; samples need none
try:
    uncertainty.moments(mlp(scratch.Dropout), x)
except ValueError as error:
    assert "Softplus" in str(error), error
else:
    raise AssertionError("moments know no rule for softplus")
assert uncertainty.predict(mlp(scratch.Dropout), x, 5, key=key).mean.shape == (6, 3)

# the estimator and the command
X, labels = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    fitted = DropoutMLPClassifier((8,), "softplus", max_iter=3, random_state=0).fit(X, labels)
assert type(fitted._net.children["1"]) is CLASSES["softplus"]
"""


def test_a_new_activation_is_one_row_and_one_class(tmp_path):
    """Written into a copy of the package, softplus works in every room."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    root = recipes.copied(tmp_path)
    recipes.apply("A new activation", root)
    (tmp_path / "uses.py").write_text(USES, encoding="utf-8")
    compare = ["-m", "thinned", "compare", "--methods", "none,dropout", "--activation", "softplus"]
    compare += ["--hidden", "16", "--epochs", "1", "--seeds", "1"]
    for command in (["uses.py"], compare, [*compare, "--engine", "torch"]):
        recipes.run(root, *command)
