"""Changes to existing models: what is replaced, what is not and why, and what stays the same."""

import copy

import pytest

from thinned import schedules

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import thinned.nn as tnn  # noqa: E402

TWINS = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]


class Mine(nn.Dropout):
    """A subclass: what it changes is not known."""


def helper(x, p):
    return nn.functional.dropout(x, p)


class Calls(nn.Module):
    """Dropout as functions: by torch's name, by a helper's, inside fused attention."""

    def forward(self, x):
        x = torch.dropout(helper(x, 0.1), 0.1, self.training)
        return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=0.1)


class Innocent(nn.Module):
    """Has a child of that name, calls it, and speaks of F.dropout."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        return self.dropout(x)  # not F.dropout(x)


class DropPath(nn.Module):
    """Another library's."""


def zoo():
    shared = nn.Dropout(0.2, inplace=True)
    model = nn.Sequential()
    model.nested = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout2d(0.3)), shared)
    model.again = shared
    model.alpha = nn.AlphaDropout(0.4).eval()
    model.mine = Mine(0.1)
    model.calls = Calls()
    model.innocent = Innocent()
    model.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1)
    model.lstm = nn.LSTM(3, 3, 2, dropout=0.25)
    model.gru = nn.GRU(3, 3, 2)
    model.path = DropPath()
    return model


def test_swap_replaces_all_and_reports_the_rest():
    model = zoo()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = [id(w) for w in model.parameters()]
    report = tnn.swap_dropout(model)
    assert report.model is model
    assert {name: type(model.get_submodule(name)) for name in report.replaced} == {
        "nested.1.0": tnn.Dropout2d,
        "nested.2": tnn.Dropout,
        "again": tnn.Dropout,
        "alpha": tnn.AlphaDropout,
        "innocent.dropout": tnn.Dropout,
        "attention.dropout": tnn.Dropout,
        "attention.dropout1": tnn.Dropout,
        "attention.dropout2": tnn.Dropout,
    }
    assert report.replaced["again"] == "thinned.nn.Dropout(p=0.2, inplace=True)"
    assert model.again is model.nested[2]
    assert not model.alpha.training
    assert model.again.training
    assert set(report.unreached) == {"mine", "calls", "attention.self_attn", "lstm", "path"}
    assert report.unreached["lstm"] == "drops between its layers, inside torch's recurrent kernel (p=0.25)"
    assert "(p=0.1)" in report.unreached["attention.self_attn"]
    assert "subclass of torch's Dropout" in report.unreached["mine"]
    said = report.unreached["calls"]
    for expected in ("torch.nn.functional.dropout", "torch.dropout", "fused attention"):
        assert expected in said
    assert all(f"  {name}: " in str(report) for name in [*report.replaced, *report.unreached])
    assert [id(w) for w in model.parameters()] == weights
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


class Decorated(nn.Module):
    """Drops in a decorated method, in a static one, and in one of the class."""

    @torch.autocast("cpu", enabled=False)
    def forward(self, x):
        return self.helped(nn.functional.dropout(x, 0.5, self.training))

    @staticmethod
    def helped(x):
        return nn.functional.alpha_dropout(x, 0.5)

    @classmethod
    def made(cls, x):
        return nn.functional.dropout2d(x, 0.5)


def test_decorated_and_static_methods_are_read():
    (said,) = tnn.swap_dropout(Decorated()).unreached.values()
    for name in ("dropout", "alpha_dropout", "dropout2d"):
        assert f"calls torch.nn.functional.{name}" in said.split("; ")


def test_and_back_again():
    model, plain = zoo(), zoo()
    held = model.again
    held.register_forward_hook(lambda *_: None)
    tnn.swap_dropout(model)
    tnn.set_rate(model, {"alpha": 0.75})
    report = tnn.swap_dropout(model, back=True)
    assert model.alpha.p == 0.75
    model.alpha.p = 0.4
    assert repr(model) == repr(plain)
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert model.again is held
    assert len(held._forward_hooks) == 1
    assert not report.unreached
    assert len(report.replaced) == 8
    assert set(held.__dict__) == set(nn.Dropout().__dict__)
    assert not model.alpha.training


def test_the_original_rule_has_no_twin_there():
    model = nn.Sequential(tnn.Dropout(rescale="test"), tnn.Dropout(0.2, rescale="train"))
    report = tnn.swap_dropout(model, back=True)
    assert [type(module) for module in model] == [tnn.Dropout, nn.Dropout]
    assert report.replaced == {"1": "torch.nn.Dropout(p=0.2, inplace=False)"}
    assert report.unreached == {
        "0": "rescales in evaluation (the original rule), which torch's Dropout cannot"
    }
    assert set(model[1].__dict__) == set(nn.Dropout().__dict__)
    assert repr(tnn.swap_dropout(model).model[1]) == "Dropout(p=0.2, inplace=False)"


@pytest.mark.parametrize("name", TWINS)
def test_the_root_itself(name):
    model = getattr(nn, name)(0.25, inplace=True)
    report = tnn.swap_dropout(model)
    assert type(model) is getattr(tnn, name)
    assert list(report.replaced) == [""]
    assert "(the model)" in str(report)
    assert (model.p, model.inplace) == (0.25, True)
    x = torch.ones({"Dropout1d": (4, 3, 2), "Dropout2d": (4, 3, 2, 2)}.get(name, (4, 3, 2, 2, 2)))
    torch.manual_seed(0)
    twin = getattr(tnn, name)(0.25)(x.clone())
    torch.manual_seed(0)
    assert torch.equal(copy.deepcopy(model)(x), twin)


def test_a_swapped_transformer_evaluates_as_before():
    """Its fast path, which takes no module's word, runs in evaluation alone: there is nothing to drop."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    x = torch.linspace(-1, 1, 48).reshape(2, 3, 8)
    with torch.no_grad():
        before = model(x)
        tnn.swap_dropout(model)
        assert torch.equal(model(x), before)
        assert not torch.equal(model.train()(x), before)


def test_swap_is_all_or_nothing():
    model = nn.Sequential(nn.Dropout(0.1), nn.Dropout(0.2))
    model[1].p = 2.0
    with pytest.raises(ValueError, match=r"^p of 1 must be in \[0, 1\], got 2"):
        tnn.swap_dropout(model)
    assert type(model[0]) is nn.Dropout
    with pytest.raises(TypeError, match=r"^model must be a torch module, got int"):
        tnn.swap_dropout(3)


# set_rate.


def drops():
    return nn.Sequential(
        tnn.Dropout(0.5), nn.Sequential(tnn.DropPath(0.1), tnn.DropPath(0.1)), nn.Linear(2, 2)
    )


def rates(model):
    return [module.p for module in model.modules() if isinstance(module, (tnn.Dropout, tnn.DropPath))]


def test_set_rate():
    model = drops()
    assert tnn.set_rate(model, 0.25) == {"0": 0.25, "1.0": 0.25, "1.1": 0.25}
    assert tnn.set_rate(model, {"1.1": 0.75}) == {"1.1": 0.75}
    assert rates(model) == [0.25, 0.25, 0.75]
    tnn.set_rate(model, lambda name: 0.125 if name.startswith("1") else 0)
    assert rates(model) == [0.0, 0.125, 0.125]
    tnn.set_rate(model, 0.5, only=tnn.DropPath)
    assert rates(model) == [0.0, 0.5, 0.5]
    tnn.set_rate(model, dict(zip(["1.0", "1.1"], schedules.depth_linear(0.5, layers=2), strict=True)))
    assert rates(model) == [0.0, 0.25, 0.5]
    tnn.set_rate(torch.compile(model, backend="eager"), {"1.0": 1.0})
    assert rates(model) == [0.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("p", "error", "said"),
    [
        (1.5, ValueError, r"^p must be in \[0, 1\], got 1.5"),
        (float("nan"), ValueError, r"^p must be a number, got nan"),
        ("0.5", TypeError, r"^p must be a number"),
        ({"0": 0.1, "1.1": 2}, ValueError, r"^p of 1.1 must be in \[0, 1\], got 2"),
        ({"0": 0.1, "2": 0.1}, ValueError, r"^p must name modules among 0, 1.0, 1.1, got 2"),
        (lambda name: None if name == "1.1" else 0.1, TypeError, r"^p of 1.1 must be a number"),
    ],
)
def test_set_rate_is_all_or_nothing(p, error, said):
    model = drops()
    with pytest.raises(error, match=said):
        tnn.set_rate(model, p)
    assert rates(model) == [0.5, 0.1, 0.1]


def test_set_rate_of_nothing():
    with pytest.raises(ValueError, match=r"^model must hold modules of thinned.nn, got none"):
        tnn.set_rate(nn.Sequential(nn.Dropout()), 0.5)


# max_norm_.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_max_norm(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(30, 7),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.ConvTranspose2d(4, 6, 3, groups=2),
        tnn.DropConnectLinear(5, 3),
        nn.BatchNorm2d(6),
        nn.Embedding(5, 4),
    ).to(dtype)
    model[0].weight.data[0] = 0.0  # stays
    model[0].weight.data[1] *= 20
    before = copy.deepcopy(model)
    units = [  # what one unit's incoming weights are
        (model[0].weight, before[0].weight, lambda w: w),
        (model[1].weight, before[1].weight, lambda w: w),
        (
            model[2].weight,
            before[2].weight,
            lambda w: w.reshape(2, 2, 3, 3, 3).transpose(1, 2).reshape(6, 18),
        ),
        (model[3].weight, before[3].weight, lambda w: w),
    ]
    c = 0.6
    assert tnn.max_norm_(model, c) is model
    slack = 4 * torch.finfo(dtype).eps  # a product and its rounding
    for weight, old, rows in units:
        new, old = rows(weight).flatten(1).double(), rows(old).flatten(1).double()
        norms = old.norm(dim=1, keepdim=True)
        expected = old * (c / norms.clamp(min=c))
        torch.testing.assert_close(new, expected, rtol=slack, atol=0)
        assert torch.equal(new[norms[:, 0] < c * (1 - slack)], old[norms[:, 0] < c * (1 - slack)])
        assert weight.grad is None
    for i in (4, 5):
        assert all(
            torch.equal(*pair) for pair in zip(model[i].parameters(), before[i].parameters(), strict=True)
        )
    for bad in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"^c must be"):
            tnn.max_norm_(model, bad)


def test_max_norm_between_steps_of_autograd():
    layer = nn.Linear(4, 4)
    layer(torch.ones(2, 4)).sum().backward()
    tnn.max_norm_(layer, 0.1)
    layer(torch.ones(2, 4)).sum().backward()
    assert layer.weight.norm(dim=1).max() <= 0.1 * (1 + 4 * torch.finfo(torch.float32).eps)


# Attention maps.
