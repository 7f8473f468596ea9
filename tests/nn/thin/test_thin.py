"""Thin: the survivors alone, judged by the dense network with the same mask."""

import copy
import io
import pickle

import pytest

from thinned import Key, masks

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.checkpoint import checkpoint, checkpoint_sequential  # noqa: E402

import thinned.nn as tnn  # noqa: E402
from thinned.kernels import POOLED, extension, survivors  # noqa: E402
from thinned.nn.thin import run_chains  # noqa: E402
from thinned.nn.thin.compact_gradient import CompactGradient  # noqa: E402

KEY, STEP = Key(5), 3


class Heads(nn.Module):
    """Functions, a flattened map, two readers of the same units."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 6, 3, bias=False), nn.Conv2d(6, 5, 3)
        self.drop1, self.drop2, self.drop3 = nn.Dropout2d(0.5), nn.Dropout2d(0.4), nn.Dropout(0.5)
        self.full, self.mean, self.spread = nn.Linear(5 * 4, 9), nn.Linear(9, 2), nn.Linear(9, 2)

    def forward(self, x, mask=None):
        x = self.drop1(functional.max_pool2d(functional.relu(self.one(x)), 2))
        x = self.drop2(self.two(x).tanh())
        x = x.view(x.size(0), -1)
        if mask is not None:
            x = x * mask
        hidden = self.drop3(torch.sigmoid(self.full(x)))
        return self.mean(hidden) + self.spread(functional.gelu(hidden))


class Nested(nn.Module):
    """Chains inside parts, and out of one part into another."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.LeakyReLU(), nn.AvgPool1d(2), nn.Dropout1d(0.5)
        )
        self.more = nn.Sequential(nn.Conv1d(4, 4, 1), nn.Dropout1d(0.5), nn.Conv1d(4, 3, 1), nn.Flatten())
        self.last = nn.ModuleList([nn.Linear(9, 4), nn.Dropout(0.25), nn.Linear(4, 1)])

    def forward(self, x):
        x = self.more(self.features(x)).reshape(x.shape[0], -1)
        for layer in self.last:
            x = layer(x)
        return x


class Branching(nn.Module):
    """Cannot be traced, though its parts can be."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 6), nn.GELU(), nn.Dropout(0.5), nn.Linear(6, 4))
        self.drop, self.out = nn.Dropout(0.0), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.drop(self.body(x if x.sum() > 1e9 else x + 1)))


class NormAct(nn.BatchNorm2d):
    """Batch norm, a dropout that does nothing, an activation: as timm has it."""

    def __init__(self, n, act=nn.ReLU, drop=nn.Identity):
        super().__init__(n)
        self.drop, self.act = drop(), act()

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


class ActNorm(NormAct):
    """The other order."""

    def forward(self, x):
        return nn.BatchNorm2d.forward(self, self.act(x))


def norms_with_activations():
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), NormAct(8), nn.MaxPool2d(2), nn.Dropout2d(0.5), nn.Conv2d(8, 6, 1)),
        *(NormAct(6, nn.SiLU), nn.Dropout2d(0.25), nn.Flatten(), nn.Linear(24, 2)),
    )


def dense_layers():
    return nn.Sequential(
        *(nn.Linear(6, 10), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(10, 9), nn.BatchNorm1d(9), nn.PReLU(9), nn.Dropout(0.3), nn.Tanh()),
        *(nn.Linear(9, 8, bias=False), nn.Softplus(), nn.Dropout(0.9), nn.ReLU()),
        nn.Linear(8, 3),
    )


def convolutions():
    return nn.Sequential(
        *(
            nn.Conv2d(3, 8, 3, padding="same"),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout2d(0.5),
        ),
        *(nn.Conv2d(8, 6, 3, stride=2, padding=1, padding_mode="reflect"), nn.SiLU(), nn.Dropout2d(0.25)),
        *(
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 7),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(7, 2),
        ),
    )


def in_place():
    return nn.Sequential(
        *(nn.Conv1d(2, 6, 2, bias=False), nn.ReLU(inplace=True), nn.Dropout1d(0.5, inplace=True)),
        *(nn.Conv1d(6, 4, 2), nn.Flatten(), nn.Linear(12, 8), nn.ELU(inplace=True)),
        *(nn.Dropout(0.5, inplace=True), nn.SiLU(inplace=True), nn.Linear(8, 2)),
    )


def volumes():
    return nn.Sequential(
        nn.Conv3d(1, 5, 2), nn.BatchNorm3d(5, affine=False), nn.Dropout3d(0.5), nn.PReLU(), nn.Conv3d(5, 2, 2)
    )


def one_unit():
    return nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.5), nn.Linear(1, 4), nn.Dropout(1.0), nn.Linear(4, 3))


NETWORKS = {  # name -> network, shape of a batch, the dropouts that are thinned
    "dense": (dense_layers, (5, 6), ["2", "6", "10"]),
    "convolutions": (convolutions, (4, 3, 12, 12), ["4", "7", "12"]),
    "in place": (in_place, (3, 2, 5), ["2", "7"]),
    "norms with activations": (norms_with_activations, (4, 3, 6, 6), ["3", "6"]),
    "volumes": (volumes, (2, 1, 4, 4, 4), ["2"]),
    "heads": (Heads, (4, 2, 10, 10), ["drop1", "drop2", "drop3"]),
    "nested": (Nested, (4, 2, 8), ["features.4", "more.1", "last.1"]),
    "branching": (Branching, (5, 3), ["body.2"]),
    "one unit, p = 1": (one_unit, (3, 4), ["1", "3"]),
    "tokens": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(), nn.Linear(6, 2)), (3, 5, 4), ["1"]),
    "a vector": (lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(), nn.Linear(6, 2)), (4,), ["1"]),
}
BY_NAME = pytest.mark.parametrize("name", NETWORKS)


class Mask(nn.Module):
    """The judge's dropout: x·m/(1 − p), all units computed; ``kept`` is (groups, n)."""

    def __init__(self, kept, rank, p):
        super().__init__()
        self.kept, self.rank, self.p = kept, rank, p

    def forward(self, x):
        mask = self.kept.to(x.dtype) / (1 - self.p if self.p < 1 else 1)
        rows = x.shape[: x.dim() - 1 - self.rank]
        groups = torch.arange(rows.numel()) % len(mask)
        return x * mask[groups].reshape(*rows, -1, *[1] * self.rank)


class MaskedNorm(nn.Module):
    """The judge's batch norm: a unit's statistics are those of the rows whose group keeps it."""

    def __init__(self, norm, kept):
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x):
        if (
            len(x) // len(self.kept) * (x[0, 0].numel() if len(x) else 0) >= 32
        ):  # the statistics of each group
            out = torch.empty_like(x)
            for g in range(len(self.kept)):
                part = x[g :: len(self.kept)]
                if len(part):
                    out[g :: len(self.kept)] = nn.functional.batch_norm(
                        part, None, None, self.norm.weight, self.norm.bias, True, eps=self.norm.eps
                    )
            return out
        some = self.kept[torch.arange(len(x)) % len(self.kept)]
        some = some.reshape(*some.shape, *[1] * (x.dim() - 2)).expand_as(x)
        over = [0, *range(2, x.dim())]
        count = some.sum(over, keepdim=True).clamp(min=1)
        mean = (x * some).sum(over, keepdim=True) / count
        var = ((x - mean).square() * some).sum(over, keepdim=True) / count
        y = (x - mean) / (var + self.norm.eps).sqrt()
        shape = mean.shape
        weight, bias = self.norm.weight, self.norm.bias
        return y if weight is None else y * weight.reshape(shape) + bias.reshape(shape)


def kept(n, p, name, groups=1, step=STEP):
    """(groups, n): the units that the dropout of that name keeps inside `keyed`."""
    return torch.from_numpy(masks.picks(n, p, KEY.fold_in(step).fold_in(name), groups).units)


def pair(name, groups=1, dtype=torch.float64):
    """A thinned network, the dense one with the same masks inside `keyed`, and a batch."""
    build, shape, drops = NETWORKS[name]
    torch.manual_seed(0)
    dense = build().to(dtype)
    thin = tnn.thin(copy.deepcopy(dense), groups)
    report = tnn.thinning(thin)
    for drop in drops:
        chain = thin.get_submodule(drop).chain
        assert drop in report.chains
        parent, _, last = drop.rpartition(".")
        p = dense.get_submodule(drop).p
        mask = kept(chain.n, p, drop, chain.groups)
        setattr(dense.get_submodule(parent), last, Mask(mask, chain.rank, p))
        for name, module in list(thin.named_modules()) if chain.groups > 1 else ():
            if getattr(module, "chain", None) is chain and isinstance(
                module, nn.modules.batchnorm._BatchNorm
            ):
                parent, _, last = name.rpartition(".")
                norm = dense.get_submodule(name)
                judge = nn.Sequential(MaskedNorm(norm, mask), getattr(norm, "act", nn.Identity()))
                setattr(dense.get_submodule(parent), last, judge)
    assert set(report.chains) == set(drops)
    return thin, dense, torch.randn(shape, dtype=dtype)


def run(model, x):
    """Output, and the gradients of its square: of the input and all parameters."""
    x = x.clone().requires_grad_()
    if any(isinstance(module, Mask) for module in model.modules()):
        y = model(x)
    else:
        with tnn.keyed(model, KEY, STEP):
            y = model(x)
    weights = list(model.parameters())
    return y, torch.autograd.grad((y.float() if y.dtype.itemsize == 2 else y).square().sum(), [x, *weights])


@BY_NAME
def test_it_is_the_dense_network_with_the_same_mask(name):
    thin, dense, x = pair(name)
    for ours, theirs in zip(run(thin, x), run(dense, x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.fixture(params=["narrow", "whole"])
def ways(request, monkeypatch):
    """The two ways of a pass with several groups: the kept units alone, or all of them."""
    if request.param == "narrow":
        monkeypatch.setattr(run_chains, "SAVED", -1e9)
        monkeypatch.setattr(run_chains, "ROWS_OF_GROUP", 0)


@pytest.mark.parametrize("groups", [2, 3, "auto"])
@BY_NAME
@pytest.mark.usefixtures("ways")
def test_each_part_of_the_batch_has_its_own_pick(name, groups):
    thin, dense, x = pair(name, groups)
    for ours, theirs in zip(run(thin, x), run(dense, x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_shard_gets_its_part(compiled):
    """Sample i of the whole batch is of group i mod groups, wherever it is computed."""
    thin, _, x = pair("heads", groups=3)
    torch._dynamo.reset()
    model = torch.compile(thin, fullgraph=True, backend="aot_eager") if compiled else thin
    with tnn.keyed(thin, KEY, STEP):
        whole = thin(x)
    parts = []
    for begin, end in ((0, 2), (2, 4)):
        with tnn.keyed(thin, KEY, STEP, sample_offset=begin):
            parts.append(model(x[begin:end]))
    torch.testing.assert_close(torch.cat(parts), whole)


@BY_NAME
def test_names_state_and_evaluation_stay(name):
    build, shape, _ = NETWORKS[name]
    plain = build()
    thin = copy.deepcopy(plain)
    weights = [id(weight) for weight in thin.parameters()]
    assert tnn.thin(thin) is thin
    assert [id(weight) for weight in thin.parameters()] == weights
    assert list(thin.state_dict()) == list(plain.state_dict())
    assert [each for each, _ in thin.named_modules()] == [each for each, _ in plain.named_modules()]
    x = torch.randn(shape)
    assert torch.equal(thin.eval()(x), plain.eval()(x))


@BY_NAME
def test_and_back_again(name):
    plain = NETWORKS[name][0]()
    tnn.swap_dropout(plain)
    model = tnn.thin(tnn.thin(copy.deepcopy(plain)), 2)
    assert tnn.thin(model, back=True) is model
    assert repr(model) == repr(plain)
    for module, twin in zip(model.modules(), plain.modules(), strict=True):
        assert type(module) is type(twin)
        assert set(vars(module)) == set(vars(twin)) | (set(vars(module)) & {"_is_torch_compile"})
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    with pytest.raises(ValueError, match=r"^model must have been given to thinned.nn.thin"):
        tnn.thinning(model)


def test_only_survivors_have_gradients_and_statistics():
    model = tnn.thin(
        nn.Sequential(nn.Linear(4, 20), nn.BatchNorm1d(20), nn.Dropout(0.6), nn.Linear(20, 3)), 1
    )
    with tnn.keyed(model, KEY, STEP):
        model(torch.randn(5, 4)).square().sum().backward()
    alive = kept(20, 0.6, "2")[0]
    assert alive.sum() == 8
    for moved in (
        model[0].weight.grad.abs().sum(1) > 0,
        model[1].weight.grad != 0,
        model[1].running_var != 1,
        model[3].weight.grad.abs().sum(0) > 0,
    ):
        assert torch.equal(moved, alive)
    assert model[1].num_batches_tracked == 1


def test_the_stream_is_torchs_and_each_pass_has_a_pick_of_its_own():
    model, x = tnn.thin(dense_layers()), torch.randn(3, 6)
    torch.manual_seed(7)
    first, second = model(x), model(x)
    torch.manual_seed(7)
    assert torch.equal(model(x), first)
    assert not torch.equal(second, first)


def test_two_passes_before_the_backward_pass():
    """Memory is used again only when nothing can see it any more."""
    wide = 2 * int((POOLED / 4) ** 0.5)  # the survivors' weights are larger than what the pool leaves alone
    model = tnn.thin(nn.Sequential(nn.Linear(wide, wide), nn.ReLU(), nn.Dropout(0.5), nn.Linear(wide, wide)))
    x = torch.randn(4, wide)
    alone = []
    for step in range(2):
        with tnn.keyed(model, KEY, step):
            alone.append(torch.autograd.grad(model(x).square().sum(), list(model.parameters())))
    with tnn.keyed(model, KEY, 0):
        first = model(x)
    with tnn.keyed(model, KEY, 1):
        second = model(x)
    for y, expected in ((second, alone[1]), (first, alone[0])):
        for ours, theirs in zip(
            torch.autograd.grad(y.square().sum(), list(model.parameters())), expected, strict=True
        ):
            assert torch.equal(ours, theirs)


def test_gradients_add_up():
    model, x = tnn.thin(dense_layers()), torch.randn(5, 6)
    gradients = run(model, x)[1][1:]
    for _ in range(2):
        with tnn.keyed(model, KEY, STEP):
            model(x).square().sum().backward()
    for weight, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, 2 * gradient)


def test_a_graph_that_is_kept_and_one_that_is_not():
    model, x = tnn.thin(dense_layers()), torch.randn(5, 6)
    with tnn.keyed(model, KEY, STEP):
        loss = model(x).square().sum()
    loss.backward(retain_graph=True)
    once = [weight.grad.clone() for weight in model.parameters()]
    loss.backward()
    for weight, gradient in zip(model.parameters(), once, strict=True):
        torch.testing.assert_close(weight.grad, 2 * gradient)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_without_gradients():
    thin, _, x = pair("convolutions")
    expected = run(thin, x)[0]
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, tnn.keyed(thin, KEY, STEP):
            assert torch.equal(thin(x), expected)
    thin[0].requires_grad_(False)
    with tnn.keyed(thin, KEY, STEP):
        thin(x).square().sum().backward()
    assert thin[0].weight.grad is None
    assert thin[5].weight.grad.any()


def test_hooks_of_parameters():
    """What looks at a gradient sees the dense one, also where the optimizer lets it be compact."""
    model, x = tnn.thin(dense_layers()), torch.randn(5, 6)
    gradients = run(model, x)[1][1:]
    tnn.SGD(model.parameters())
    for weight in model.parameters():
        weight.register_hook(lambda gradient: 2 * gradient)
    with tnn.keyed(model, KEY, STEP):
        model(x).square().sum().backward()
    for weight, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, 2 * gradient)


def test_loading_after_thinning():
    thin, dense, x = pair("convolutions")
    state = {name: value * 2 for name, value in dense.state_dict().items()}
    thin.load_state_dict(state)
    dense.load_state_dict(state)
    for ours, theirs in zip(run(thin, x), run(dense, x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_of_gradients(groups):
    model = nn.Sequential(
        *(nn.Linear(3, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.3)),
        nn.Linear(5, 2),
    ).double()
    tnn.thin(model, groups)
    names = [name for name, _ in model.named_parameters()]

    def call(x, *weights):
        with tnn.keyed(model, KEY, STEP):
            return torch.func.functional_call(model, dict(zip(names, weights, strict=True)), (x,))

    inputs = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True), *model.parameters())
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_shared_and_frozen_weights():
    torch.manual_seed(0)
    dense = nn.Sequential(
        *(nn.Linear(6, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 6)),
    )
    dense[3].weight = dense[0].weight
    dense[5].weight.requires_grad_(False)
    thin = tnn.thin(copy.deepcopy(dense))
    assert thin[3].weight is thin[0].weight
    for name in ("2", "4"):
        dense[int(name)] = Mask(kept(6, 0.5, name, masks.GROUPS), 0, 0.5)
    x = torch.randn(3, 6)
    with tnn.keyed(thin, KEY, STEP):
        thin(x).square().sum().backward()
    dense(x).square().sum().backward()
    assert thin[5].weight.grad is None
    torch.testing.assert_close(thin[0].weight.grad, dense[0].weight.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "groups"), [("dense", 1), ("convolutions", 1), ("heads", 2)])
def test_half_precision(name, groups, dtype):
    thin, dense, x = pair(name, groups, dtype)
    ours, theirs = run(thin, x), run(dense, x)
    exact = run(copy.deepcopy(dense).double(), x.double())[1]
    for one, other in zip([ours[0], *ours[1]], [theirs[0], *theirs[1]], strict=True):
        assert one.dtype == other.dtype == dtype
    norm = lambda tensors: torch.cat([t.double().flatten() for t in tensors])  # noqa: E731
    off = [(norm(each[1]) - norm(exact)).norm() for each in (ours, theirs)]
    assert off[0] <= 2 * off[1]  # no further from the exact gradient than the dense network, but for luck


def test_autocast():
    thin, dense, x = pair("convolutions", dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = run(thin, x), run(dense, x)
    exact = run(dense.double(), x.double())[1]
    assert ours[0].dtype == theirs[0].dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in ours[1])
    off = [
        torch.cat([(a - b).flatten() for a, b in zip(each[1], exact, strict=True)]).norm()
        for each in (ours, theirs)
    ]
    assert off[0] <= 2 * off[1]


@pytest.mark.parametrize("groups", [1, 2])
def test_an_empty_batch(groups):
    model = tnn.thin(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 2)), groups=groups)
    y = model(torch.empty(0, 4))
    assert y.shape == (0, 2)
    y.sum().backward()
    assert all(not weight.grad.any() for weight in model.parameters())


def test_rates_that_change():
    thin, _, x = pair("dense")
    before = run(thin, x)[0]
    tnn.set_rate(thin, 0.0)
    plain = tnn.swap_dropout(tnn.thin(copy.deepcopy(thin), back=True)).model
    assert torch.equal(thin(x), plain(x))
    tnn.set_rate(thin, 1.0)
    assert tnn.thinning(thin).chains["2"] == "0 of the 10 units of 0 → 3"
    assert torch.isfinite(thin(x)).all()
    tnn.set_rate(thin, {"2": 0.5, "6": 0.3, "10": 0.9})
    assert torch.equal(run(thin, x)[0], before)
    thin[2].eval()  # one dropout alone evaluates
    assert thin(x).shape == before.shape


@BY_NAME
def test_copies_and_pickles(name):
    thin, _, x = pair(name)
    y, gradients = run(thin, x)
    saved = io.BytesIO()
    torch.save(thin, saved)
    saved.seek(0)
    for twin in (
        copy.deepcopy(thin),
        pickle.loads(pickle.dumps(thin)),
        torch.load(saved, weights_only=False),
    ):
        again, theirs = run(twin, x)
        assert torch.equal(again, y)
        assert all(torch.equal(a, b) for a, b in zip(gradients, theirs, strict=True))
        drops = {id(module) for module in twin.modules()} - {id(module) for module in thin.modules()}
        assert all(id(m.chain.drop) in drops for m in twin.modules() if getattr(m, "chain", None))


@pytest.mark.parametrize("name", ["dense", "heads", "nested"])
def test_compiled_is_eager(name):
    thin, _, x = pair(name)
    torch._dynamo.reset()
    compiled = torch.compile(copy.deepcopy(thin), fullgraph=True, backend="aot_eager")
    for _ in range(2):
        for ours, theirs in zip(run(compiled, x), run(thin, x), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    compiled.eval()
    assert torch.equal(compiled(x), thin.eval()(x))


def test_compiled_statistics():
    thin, _, x = pair("convolutions")
    torch._dynamo.reset()
    twin = copy.deepcopy(thin)
    run(torch.compile(twin, fullgraph=True, backend="aot_eager"), x)
    run(thin, x)
    for ours, theirs in zip(twin.buffers(), thin.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_operator():
    ticket = tnn.Dropout(0.5).ticket()
    torch.library.opcheck(torch.ops.thinned.picks.default, (ticket, 10, 2, 5, 0, (4, 3, 6)))


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_around_the_model_or_a_part(reentrant):
    thin, _, x = pair("nested")

    def parts(x):
        return thin.last[2](thin.last[1](thin.last[0](thin.more(thin.features(x)))))

    def gradients(call):
        torch.manual_seed(1)
        thin.zero_grad()
        call(x.clone().requires_grad_()).square().sum().backward()
        return [weight.grad for weight in thin.parameters()]

    expected = gradients(thin)
    again = gradients(lambda x: checkpoint(thin, x, use_reentrant=reentrant))
    assert all(torch.equal(*both) for both in zip(again, expected, strict=True))
    outside = gradients(lambda x: checkpoint(parts, x, use_reentrant=reentrant))
    expected = gradients(parts)  # not the model's own call: plain dropout, and again in the backward pass
    assert all(torch.equal(*both) for both in zip(outside, expected, strict=True))
    body = tnn.thin(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))).double()
    y = checkpoint_sequential(body, 2, torch.ones(2, 3, dtype=torch.float64), use_reentrant=False)
    y.sum().backward()


class Checkpointed(nn.Module):
    """Checkpoints inside the model."""

    def __init__(self, reentrant):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        self.reentrant = reentrant

    def forward(self, x):
        if self.reentrant is None:
            return self.body(x)
        return checkpoint(self.body, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_inside_the_model(reentrant):
    models = [tnn.thin(Checkpointed(each)) for each in (None, reentrant)]
    models[1].load_state_dict(models[0].state_dict())
    assert all(len(tnn.thinning(model).chains) == 1 for model in models)
    x, found = torch.randn(4, 3, requires_grad=True), []
    for model in models:
        torch.manual_seed(2)
        (model(x) + model(2 * x)).square().sum().backward()
        found.append([weight.grad for weight in model.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_parts_called_by_themselves_are_what_they_were():
    model = tnn.thin(dense_layers())
    assert model[0](torch.randn(2, 6)).shape == (2, 10)
    assert (model[2](torch.ones(50, 10)) == 0).any()
    with pytest.raises(RuntimeError, match=r"\(2x7 and 6x10\)"):
        model(torch.randn(2, 7))
    assert model[0](torch.randn(2, 6)).shape == (2, 10)  # after an error, too
    heads = tnn.thin(Heads())
    heads(torch.randn(2, 2, 10, 10), torch.ones(20))  # the other way through it: dense
    assert heads.one.weight.grad is None
    assert heads(torch.randn(2, 2, 10, 10), mask=None).shape == (2, 2)


def test_arguments_that_have_a_default():
    class Optional(Branching):
        def forward(self, x, shift=0.0, *, factor=1.0):
            return self.out(self.drop(self.body(x + shift) * factor))

    torch.manual_seed(0)
    x, thinned = torch.randn(4, 3), {}
    model = tnn.thin(Optional(), 1)
    for name, (args, kwargs) in {
        "none": ((x,), {}),
        "at its default": ((x,), {"factor": model.forward.__func__.__kwdefaults__["factor"]}),
        "by keyword": ((x,), {"factor": 2.0}),
        "by place": ((x, 1.0), {}),
    }.items():
        model.zero_grad()
        model(*args, **kwargs).square().sum().backward()
        thinned[name] = int((model.body[0].weight.grad.abs().sum(1) == 0).sum()) == 3
    assert tnn.thinning(model).chains.keys() == {"body.2"}
    assert thinned == {"none": True, "at its default": True, "by keyword": False, "by place": False}


def test_hooks_see_the_dense_network():
    thin, dense, x = pair("dense")
    seen = []
    thin[4].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    for ours, theirs in zip(run(thin, x), run(dense, x), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert seen == [(5, 9)]


def test_a_model_that_runs_another_way_is_told():
    class Changing(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.drop, self.two = nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 4)
            self.early = False

        def forward(self, x):
            x = self.drop(self.one(x))
            return x if self.early else self.two(x)

    model = tnn.thin(Changing(), 1)
    model(torch.ones(2, 3))
    model.early = True
    with pytest.raises(RuntimeError, match=r"read 0 times, not 1; call thinned.nn.thin\(model\) again"):
        model(torch.ones(2, 3))
    assert model.eval()(torch.ones(2, 3)).shape == (2, 4)


# What stays dense.


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.drop, self.out = nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.drop(self.layer(self.layer(x))))


class Skips(Twice):
    def forward(self, x):
        hidden = self.layer(x)
        return self.out(hidden + self.drop(hidden))


class Mine(nn.Linear):
    """A subclass: what it changes is not known."""


def hooked():
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2))
    model[0].register_full_backward_hook(lambda *_: None)
    return model


def hooked_part():
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Dropout()), nn.Linear(4, 2))
    model[0].register_forward_hook(lambda *_: None)
    return model


def with_norm(norm):
    return nn.Sequential(nn.Conv2d(2, 4, 1), norm, nn.Dropout2d(), nn.Conv2d(4, 2, 1))


def hooked_activation():
    model = with_norm(NormAct(4))
    model[1].act.register_forward_hook(lambda *_: None)
    return model


def normed():
    return nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))


L, D = nn.Linear, nn.Dropout
LEFT = {
    "before the first": (lambda: nn.Sequential(D(), L(3, 2)), "0", "no layer before it"),
    "after the last": (lambda: nn.Sequential(L(3, 2), D()), "1", "the output of the model reads its units"),
    "layer norm": (
        lambda: nn.Sequential(L(3, 4), nn.LayerNorm(4), D(), L(4, 2)),
        "2",
        r"1 \(LayerNorm\) stands",
    ),
    "softmax": (lambda: nn.Sequential(L(3, 4), D(), nn.Softmax(1), L(4, 2)), "1", r"2 \(Softmax\) reads"),
    "sigmoid": (lambda: nn.Sequential(L(3, 4), D(), nn.Sigmoid(), L(4, 2)), "1", r"2 \(Sigmoid\) reads"),
    "norm after": (lambda: nn.Sequential(L(3, 4), D(), nn.BatchNorm1d(4), L(4, 2)), "1", "BatchNorm1d"),
    "subclass": (lambda: nn.Sequential(Mine(3, 4), D(), L(4, 2)), "1", r"0 \(Mine\) stands"),
    "weight norm": (lambda: nn.Sequential(normed(), D(), L(4, 2)), "1", "ParametrizedLinear"),
    "spectral norm": (
        lambda: nn.Sequential(nn.utils.spectral_norm(L(3, 4)), D(), L(4, 2)),
        *("1", "0 has hooks"),
    ),
    "second": (lambda: nn.Sequential(L(3, 4), D(), D(), L(4, 2)), "2", "units that 1 has thinned"),
    "elements": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 1), D(), nn.Conv2d(4, 2, 1)),
        *("1", r"drops single elements, not the units of 0 \(Conv2d\): Dropout2d drops these"),
    ),
    "groups": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.Dropout2d(), nn.Conv2d(4, 2, 1, groups=2)),
        *("1", "2, which reads its units, is a convolution in groups"),
    ),
    "momentum": (
        lambda: nn.Sequential(L(3, 4), nn.BatchNorm1d(4, momentum=None), D(), L(4, 2)),
        *("2", "momentum=None"),
    ),
    "activation, norm": (lambda: with_norm(ActNorm(4)), "2", r"1 \(ActNorm\) stands"),
    "a norm that drops": (lambda: with_norm(NormAct(4, drop=D)), "2", r"1 \(NormAct\) stands"),
    "an unknown activation": (lambda: with_norm(NormAct(4, nn.Softmax2d)), "2", r"1 \(NormAct\) stands"),
    "hooks on an activation": (hooked_activation, "2", r"1\.act has hooks"),
    "hooks": (hooked, "1", "0 has hooks"),
    "hooks on a part": (hooked_part, "0.1", "0 has hooks"),
    "twice": (Twice, "drop", "layer is called 2 times"),
    "skips": (Skips, "drop", r"what layer \(Linear\) gives is used in 2 places"),
    "in a function": (Branching, "drop", "the model could not be traced"),
    "small rate": (lambda: nn.TransformerEncoderLayer(4, 2, 8), "dropout", r"p = 0\.1 is at most 0\.2"),
    "no rate": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8, 0.0),
        *("dropout", r"p = 0, so nothing is dropped: set a rate above 0\.2, then call thin again"),
    ),
    "sum": (lambda: nn.TransformerEncoderLayer(4, 2, 8), "dropout1", "a sum reads its units"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_stays_dense_is_told_with_the_reason(name):
    build, drop, why = LEFT[name]
    model = tnn.thin(build())
    report = tnn.thinning(model)
    assert drop not in report.chains
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(report.dense[drop])
    assert type(model.get_submodule(drop)) in (nn.Dropout, nn.Dropout2d)
    assert f"  {drop}: {report.dense[drop]}" in str(report)


def test_bad_input():
    model = dense_layers()
    with pytest.raises(TypeError, match=r"^model must be a torch module, got int"):
        tnn.thin(3)
    with pytest.raises(ValueError, match=r"^groups must be at least 1, got 0"):
        tnn.thin(model, 0)
    with pytest.raises(TypeError, match=r"^groups must be an integer"):
        tnn.thin(model, 1.5)
    model[2].p = 2.0
    with pytest.raises(ValueError, match=r"^p of 2 must be in \[0, 1\], got 2"):
        tnn.thin(model)
    assert type(model[0]) is nn.Linear
    assert not model._forward_hooks


# The gradient of the survivors.


def train(model, optimizer, x, steps):
    for step in steps:
        optimizer.zero_grad()
        with tnn.keyed(model, KEY, step):
            model(x).square().sum().backward()
        optimizer.step()


def test_a_compact_gradient_is_a_tensor():
    model = tnn.thin(nn.Sequential(nn.Linear(4, 10), nn.Dropout(0.5), nn.Linear(10, 3)), 1)
    twin = copy.deepcopy(model)
    tnn.SGD(model.parameters(), 0.1)
    train(model, torch.optim.SGD([torch.zeros(1, requires_grad=True)]), torch.ones(2, 4), range(1))
    train(twin, torch.optim.SGD([torch.zeros(1, requires_grad=True)]), torch.ones(2, 4), range(1))
    for name, weight in model.named_parameters():
        gradient, plain = weight.grad, twin.get_parameter(name).grad
        assert type(plain) is torch.Tensor
        if name == "2.bias":
            continue
        assert isinstance(gradient, CompactGradient)
        assert gradient.compact is not None
        view = gradient.detach()
        assert torch.equal(copy.deepcopy(gradient), plain)
        assert repr(gradient) == repr(plain)
        assert torch.equal(pickle.loads(pickle.dumps(gradient)), plain)
        assert gradient.add_(1) is gradient
        assert gradient.compact is None
        assert torch.equal(gradient, plain + 1)
        assert torch.equal(view, plain + 1)  # what was detached shares memory, as of any tensor
        assert weight.grad.norm() == (plain + 1).norm()
        gradient.zero_()
        assert not gradient.any()


# Memory.


@pytest.mark.skipif(extension() is None, reason="the extension has the pool")
def test_memory_is_lent_again_only_when_its_tensors_are_gone():
    like, shape = torch.empty(1), (POOLED // 4, 2)
    first = survivors.room(shape, like)
    address, view = first.data_ptr(), first[1:3].detach()
    assert address % 64 == 0
    del first
    second = survivors.room(shape, like)
    assert second.data_ptr() != address
    del view
    third = survivors.room(shape, like)
    assert third.data_ptr() == address
    assert third.shape == shape
    assert survivors.room((3,), like.bfloat16()).dtype == torch.bfloat16
