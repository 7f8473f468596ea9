"""Optimizers for thinned models, judged by torch's own on the same gradients."""

import copy

import pytest

from thinned import Key, kernels

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import thinned.nn as tnn  # noqa: E402
from thinned.nn.thin.compact_gradient import CompactGradient  # noqa: E402

KEY = Key(5)
OURS = {"SGD": tnn.SGD, "Adam": tnn.Adam, "AdamW": tnn.AdamW}
BY_NAME = pytest.mark.parametrize("name", OURS)
PLAIN = {"SGD": {"momentum": 0.9}, "Adam": {}, "AdamW": {}}
RULES = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
    ("SGD", {"momentum": 0.9, "dampening": 0.5}),
    ("SGD", {"momentum": 0.5, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"amsgrad": True}),
    ("Adam", {"maximize": True}),
    ("AdamW", {}),
    ("AdamW", {"betas": (0.0, 0.9), "weight_decay": 0.5}),
    ("AdamW", {"weight_decay": 0.0}),
    ("AdamW", {"amsgrad": True, "weight_decay": 0.1}),
]
BY_RULE = pytest.mark.parametrize(("name", "rule"), RULES, ids=str)


def theirs_of(name):
    return getattr(torch.optim, name)


def pair(dtype=torch.float64):
    """A thinned network, a copy, and a batch."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Linear(6, 20), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(20, 9), nn.PReLU(9), nn.Dropout(0.3), nn.Tanh(), nn.Linear(9, 3)),
    )
    net = tnn.thin(net.to(dtype), groups=1)
    return net, copy.deepcopy(net), torch.randn(5, 6, dtype=dtype)


def train(model, optimizer, x, steps=range(3), change=None):
    for step in steps:
        optimizer.zero_grad()
        with tnn.keyed(model, KEY, step):
            model(x).square().sum().backward()
        if change:
            change(model)
        optimizer.step()


def clip(model):
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)


def hook(model):
    for weight in model.parameters():
        weight.grad = weight.grad * 0.5


def again(model):
    with tnn.keyed(model, KEY, 77):
        model(torch.ones(2, 6, dtype=model[0].weight.dtype)).sum().backward()


def assert_same(one, other):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@BY_RULE
@pytest.mark.parametrize("change", [None, clip, hook, again])
def test_the_rule_is_torchs(name, rule, change):
    """Also after a ``state_dict`` is loaded, in both directions."""
    ours, theirs, x = pair()
    one, other = (
        OURS[name](ours.parameters(), 0.01, **rule),
        theirs_of(name)(theirs.parameters(), 0.01, **rule),
    )
    train(ours, one, x, change=change)
    train(theirs, other, x, change=change)
    assert_same(ours, theirs)
    mine, its = copy.deepcopy(one.state_dict()), copy.deepcopy(other.state_dict())
    assert mine["param_groups"] == its["param_groups"]
    for i, state in its["state"].items():
        assert mine["state"][i].keys() == state.keys()
        for key, value in state.items():
            torch.testing.assert_close(mine["state"][i][key], value)
    other.load_state_dict(mine)
    one.load_state_dict(its)
    train(ours, one, x, range(3, 5))
    train(theirs, other, x, range(3, 5))
    assert_same(ours, theirs)


@BY_NAME
def test_defaults_are_torchs(name):
    w = nn.Parameter(torch.ones(1))
    assert OURS[name]([w]).defaults == theirs_of(name)([w]).defaults


@BY_RULE
def test_one_step_in_single_precision(name, rule):
    """The first step: no difference in it, so a bound on its roundings bounds the result."""
    torch.manual_seed(0)
    w = torch.randn(40, 30)
    g = torch.randn(40, 30)
    got = []
    for kind in (OURS[name], theirs_of(name)):
        p = nn.Parameter(w.clone())
        p.grad = g.clone()
        kind([p], 0.01, **rule).step()
        got.append(p.detach())
    # at most 16 roundings of the change, and two of the weight, in each
    eps = torch.finfo(torch.float32).eps
    bound = eps * (2 * w.abs() + 16 * (got[1] - w).abs())
    assert ((got[0] - got[1]).abs() <= bound).all()


@BY_NAME
def test_compact_gradients_are_read_as_they_are(name):
    """Also beside a parameter that takes torch's step."""
    ours, theirs, x = pair()
    half = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    one, other = OURS[name]([*ours.parameters(), half], 0.01), theirs_of(name)(theirs.parameters(), 0.01)
    version = ours[0].weight._version
    train(ours, one, x, range(1), change=lambda model: setattr(half, "grad", torch.ones_like(half)))
    assert (half < 1).all()
    train(theirs, other, x, range(1))
    assert isinstance(ours[0].weight.grad, CompactGradient)
    assert ours[0].weight.grad.compact is not None
    assert ours[0].weight._version > version  # autograd counts the change
    assert_same(ours, theirs)


@BY_NAME
def test_without_the_extension(name, monkeypatch):
    """The rules in NumPy, on the memory of the same tensors."""
    monkeypatch.setattr(kernels, "extension", lambda: None)
    ours, theirs, x = pair()
    train(ours, OURS[name](ours.parameters(), 0.01, **PLAIN[name]), x)
    train(theirs, theirs_of(name)(theirs.parameters(), 0.01, **PLAIN[name]), x)
    assert_same(ours, theirs)


def test_sgd_moves_survivors_alone_where_the_rule_does():
    ours, theirs, x = pair()
    before = ours[0].weight.detach().clone()
    train(theirs, torch.optim.SGD(theirs.parameters(), 0.1), x, range(1))
    train(ours, tnn.SGD(ours.parameters(), 0.1), x, range(1))
    survives = (theirs[0].weight.grad != 0).any(1)
    assert 0 < survives.sum() < 20
    assert torch.equal((ours[0].weight != before).any(1), survives)


@BY_NAME
@pytest.mark.parametrize("tensor", [False, True])
def test_groups_schedules_and_rates_as_tensors(name, tensor):
    ours, theirs, x = pair()
    for model, kind in ((ours, OURS[name]), (theirs, theirs_of(name))):
        first, *others = model.parameters()
        groups = [{"params": [first], "weight_decay": 0.3}, {"params": others, "lr": 0.003}]
        optimizer = kind(groups, torch.tensor(0.01, dtype=torch.float64) if tensor else 0.01, **PLAIN[name])
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        train(model, optimizer, x)
        schedule.step()
        train(model, optimizer, x, range(3, 5))
    assert_same(ours, theirs)


@BY_NAME
def test_a_scaler_and_a_closure(name):
    ours, theirs, x = pair(torch.float32)
    for model, kind in ((ours, OURS[name]), (theirs, theirs_of(name))):
        optimizer, scaler = kind(model.parameters(), 0.01, **PLAIN[name]), torch.amp.GradScaler("cpu")
        for step in range(2):
            optimizer.zero_grad(set_to_none=step == 0)
            with tnn.keyed(model, KEY, step):
                scaler.scale(model(x).square().sum()).backward()
            scaler.step(optimizer)
            scaler.update()

        def loss(model=model, optimizer=optimizer):
            optimizer.zero_grad()
            with tnn.keyed(model, KEY, 9):
                value = model(x).square().sum()
            value.backward()
            return value

        assert optimizer.step(loss) > 0
    assert_same(ours, theirs)


@BY_NAME
def test_parameters_of_all_kinds(name):
    """What the kernel takes, and what takes torch's step, in one group. Hooks run once a step."""
    torch.manual_seed(0)
    values = [
        torch.randn(3, 4),
        torch.randn(()),
        torch.randn(0, 3),
        torch.randn(5, dtype=torch.float64),
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(4, 3).T,
        torch.randn(6).bfloat16(),
        torch.randn(6).half(),
        torch.randn(4, dtype=torch.complex64),
        torch.randn(2),
    ]
    twice = []
    for kind in (theirs_of(name), OURS[name]):
        params = [nn.Parameter(value.clone()) for value in values]
        optimizer, calls = kind(params, 0.1, **PLAIN[name]), []
        optimizer.register_step_pre_hook(lambda *_, calls=calls: calls.append("before"))
        optimizer.register_step_post_hook(lambda *_, calls=calls: calls.append("after"))
        for step in range(3):
            for p in params[:-1]:
                p.grad = (p.detach() + step).contiguous()
            optimizer.step()
        assert calls == ["before", "after"] * 3
        assert params[-1].grad is None
        twice.append([p.detach() for p in params])
    for a, b in zip(*twice, strict=True):
        torch.testing.assert_close(a, b)


@BY_NAME
def test_sparse_gradients_are_torchs_too(name):
    results = []
    for kind in (theirs_of(name), OURS[name]):
        table, plain = nn.Embedding(5, 3, sparse=True), nn.Parameter(torch.ones(2))
        nn.init.ones_(table.weight)
        optimizer = kind([plain, table.weight], 0.1)
        plain.grad = torch.ones(2)
        table(torch.tensor([1, 3])).sum().backward()
        if name == "SGD":
            optimizer.step()
        else:
            with pytest.raises(RuntimeError, match="does not support sparse gradients"):
                optimizer.step()
            assert torch.equal(plain, torch.ones(2))
        assert plain.grad is not None
        results.append(table.weight.detach())
    assert torch.equal(*results)


@BY_NAME
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_torchs_bit_for_bit(name, dtype):
    ours, theirs, x = pair(dtype)
    train(ours, OURS[name](ours.parameters(), 0.01), x)
    train(theirs, theirs_of(name)(theirs.parameters(), 0.01), x)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)  # 1e-8 is 0 in float16: 0/0


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("view", [False, True])
def test_distributed_data_parallel(view):
    for name, kind in OURS.items():
        ours, theirs, x = pair()
        train(ours, kind(ours.parameters(), 0.01, **PLAIN[name]), x)
        parallel = nn.parallel.DistributedDataParallel(theirs, gradient_as_bucket_view=view)
        train(parallel, kind(parallel.parameters(), 0.01, **PLAIN[name]), x)
        assert_same(ours, theirs)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_wrong_options_raise(name):
    w = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="learning rate: -1"):
        OURS[name]([w], -1.0)
    with pytest.raises(ValueError, match="beta parameter at index 1: 1"):
        OURS[name]([w], betas=(0.9, 1.0))
