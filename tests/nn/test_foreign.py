"""Modules of other libraries that drop, recognised by what they do."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import thinned  # noqa: E402
import thinned.nn as tnn  # noqa: E402
from thinned import Key  # noqa: E402
from thinned.nn.foreign import twin  # noqa: E402


class Path(nn.Module):
    """A DropPath by another name."""

    def __init__(self, drop_prob=0.25, scale_by_keep=True, whole=False):
        super().__init__()
        self.drop_prob, self.scale_by_keep, self.whole = drop_prob, scale_by_keep, whole

    def forward(self, x):
        if not self.training or self.drop_prob == 0.0:
            return x
        keep = 1 - self.drop_prob
        shape = (1 if self.whole else len(x), *[1] * (x.dim() - 1))
        kept = x.new_empty(shape).bernoulli_(keep)
        return x * (kept / keep if self.scale_by_keep else kept)


class Block(nn.Module):
    """A DropBlock by the paper's formula, for each sample or each channel."""

    def __init__(self, p=0.1, block_size=3, couple=False):
        super().__init__()
        self.p, self.block_size, self.couple = p, block_size, couple

    def forward(self, x):
        if not self.training:
            return x
        n, c, *_ = x.shape
        seeds = (torch.rand(n, 1 if self.couple else c, *x.shape[2:]) < self.p / 9).float()
        kept = 1 - nn.functional.max_pool2d(seeds, self.block_size, 1, self.block_size // 2)
        return x * kept * kept.numel() / kept.sum()


class Elements(nn.Module):
    """A dropout of elements: no twin is looked for."""

    def __init__(self):
        super().__init__()
        self.p = 0.5

    def forward(self, x):
        return nn.functional.dropout(x, self.p, self.training)


class Never(Path):
    """A DropPath that changes its input in evaluation."""

    def forward(self, x):
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Path(), (tnn.DropPath, {"p": 0.25, "mode": "sample", "scale_by_keep": True})),
        (Path(0.5, False), (tnn.DropPath, {"p": 0.5, "mode": "sample", "scale_by_keep": False})),
        (Path(0, whole=True), (tnn.DropPath, {"p": 0, "mode": "batch", "scale_by_keep": True})),
        (Elements(), None),
        (Never(), None),
        (nn.Dropout(), None),
        (tnn.DropPath(), None),
        (nn.Linear(2, 2), None),
        (nn.ReLU(), None),
    ],
)
def test_twins(module, expected):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    before = dict(vars(module))
    assert twin(module) == expected
    assert torch.equal(torch.get_rng_state(), state)
    assert vars(module) == before


@pytest.mark.parametrize("couple", [False, True])
def test_blocks(couple):
    how = {"p": 0.1, "block_size": 3, "per_channel": not couple, "exact_rate": False, "inplace": False}
    found = {repr(twin(Block(couple=couple))) for _ in range(20)} - {"None"}  # None: no block fell
    assert found == {repr((tnn.DropBlock2d, how))}


class Net(nn.Module):
    def __init__(self, path):
        super().__init__()
        self.branch, self.path = nn.Linear(8, 8), path

    def forward(self, x):
        return x + self.path(self.branch(x))


def test_a_swapped_path_is_ours():
    model = Net(Path())
    seen = []
    hook = model.path.register_forward_hook(lambda *_: seen.append(1))
    held, before = model.path, set(vars(model.path))
    report = tnn.swap_dropout(model)
    assert report.replaced == {"path": "thinned.nn.DropPath(p=0.25, mode='sample')"}
    assert not report.unreached
    assert model.path is held
    assert type(held) is tnn.DropPath
    assert held.drop_prob == 0.25
    held.drop_prob = 0.5
    assert held.p == 0.5
    x = torch.randn(6, 8)
    with tnn.keyed(model, Key(0), 0):
        y = model(x)
    with tnn.keyed(copy.deepcopy(model), Key(0), 0) as other:
        assert torch.equal(other(x), y)
    assert seen
    hook.remove()
    assert "path" in tnn.thinning(tnn.thin(model)).chains
    tnn.thin(model, back=True)
    back = tnn.swap_dropout(model, back=True)
    assert type(held) is Path
    assert held.drop_prob == 0.5
    assert set(vars(held)) == before
    assert list(back.replaced) == ["path"]
    model(x)


def test_before_a_swap_the_report_says_what_to_do():
    expected = f"Path of {__name__.split('.')[0]}, of which swap_dropout makes one of thinned.nn"
    assert tnn.thinning(tnn.thin(Net(Path()))).dense == {"path": expected}
    report = tnn.swap_dropout(Net(Elements()))
    assert report.unreached == {"path": "calls torch.nn.functional.dropout"}


class Own(nn.Dropout):
    """A subclass."""


class OwnOfOurs(tnn.Dropout):
    """A subclass."""


class Calls(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.b(nn.functional.dropout(self.a(x), 0.5, self.training))


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        (nn.AlphaDropout(), "not 0, so the next layer reads them all"),
        (tnn.AlphaDropout(), "not 0, so the next layer reads them all"),
        (tnn.FeatureAlphaDropout(), "not 0, so the next layer reads them"),
        (tnn.GaussianDropout(), "multiplies by noise"),
        (tnn.ThinDropout(0.5), "ThinDropout is none of the dropouts that thin knows"),
        (OwnOfOurs(), "OwnOfOurs is none of the dropouts that thin knows"),
        (tnn.Residual(nn.Linear(16, 16), skip=False), "skip=False, so its branch runs on the whole batch"),
        (Own(), "Own is a subclass of torch's Dropout"),
    ],
)
def test_what_cannot_be_thinned_is_named(drop, said):
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), drop, nn.Linear(16, 3))
    (why,) = tnn.thinning(tnn.thin(model)).dense.values()
    assert said in why


def test_a_residual_that_skips_is_not_called_dense():
    assert tnn.thinning(tnn.thin(nn.Sequential(nn.Linear(6, 6), tnn.Residual(nn.Linear(6, 6))))).dense == {}


def test_functions_are_named():
    (why,) = tnn.thinning(tnn.thin(Calls())).dense.values()
    assert why.startswith("calls torch.nn.functional.dropout: a function has no place in a chain")


class Untraced(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.drop, self.b = nn.Linear(6, 16), nn.Dropout(), nn.Linear(16, 3)

    def forward(self, x):
        return self.b(self.drop(self.a(x))) if x.sum() > 0 else x


def test_a_model_that_was_not_traced_is_the_reason():
    (why,) = tnn.thinning(tnn.thin(Untraced())).dense.values()
    assert why.startswith("the model could not be traced: ")


class Norm(nn.BatchNorm2d):
    """A batch norm with an activation."""

    def forward(self, x):
        return super().forward(x).relu()


class Mixing(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) + x.mean(0)


class Sync(nn.SyncBatchNorm):
    """A subclass that takes any rank."""


@pytest.mark.parametrize(("norm", "thins"), [(Norm, True), (Mixing, False), (Sync, False)])
def test_subclasses_of_batch_norm(norm, thins):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.path = nn.Conv2d(4, 4, 3, padding=1), norm(4), tnn.DropPath(0.5)

        def forward(self, x):
            return x + self.path(self.norm(self.conv(x)))

    assert ("path" in tnn.thinning(tnn.thin(Block())).chains) == thins


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_scripted_models_are_refused():
    script = torch.jit.script(nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5)))
    for call in (tnn.swap_dropout, tnn.thin, lambda m: tnn.set_rate(m, 0.1), lambda m: tnn.max_norm_(m, 1.0)):
        with pytest.raises(TypeError, match=r"^model must be a module in Python, got one that torch.jit"):
            call(script)
    model = nn.Sequential(script, nn.Dropout(0.1), nn.Linear(8, 2))
    assert "0.1" in tnn.swap_dropout(model).unreached
    assert not tnn.thinning(tnn.thin(model)).chains
    with pytest.warns(UserWarning, match=r"^0.1 is compiled by torch.jit"), tnn.keyed(model, Key(0), 0):
        model(torch.ones(2, 6))


def test_a_flatten_that_changes_nothing_is_in_the_chain():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 64), nn.ReLU(), nn.Flatten(), tnn.Dropout(0.5), nn.Linear(64, 3)
    ).double()
    dense, x = copy.deepcopy(model), torch.randn(8, 6, dtype=torch.float64)
    tnn.thin(model, groups=2)
    assert list(tnn.thinning(model).chains) == ["3"]
    with tnn.keyed(model, Key(0), 0):
        y = model(x)
    assert model(torch.randn(8, 1, 6, dtype=torch.float64)).shape == (8, 3)  # drops elements, as before
    kept = thinned.masks.picks(64, 0.5, Key(0).fold_in(0).fold_in("3"), 2).units
    hidden = dense[1](dense[0](x)) * torch.from_numpy(kept)[torch.arange(8) % 2] * 2
    torch.testing.assert_close(y, dense[4](hidden))
    maps = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
    (why,) = tnn.thinning(tnn.thin(maps)).dense.values()
    assert why.startswith("drops single elements, not the units of 0")


def test_a_rate_of_nothing_is_not_called_thinned():
    model = tnn.thin(nn.Sequential(nn.Linear(6, 64), tnn.Dropout(0.0), nn.Linear(64, 3)), groups=2)
    assert tnn.thinning(model).dense["1"].startswith("p = 0, so nothing is dropped")
    tnn.set_rate(model, 0.5)
    assert list(tnn.thinning(model).chains) == ["1"]
