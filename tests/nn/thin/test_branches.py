"""Branches that a DropPath drops, for the survivors alone: judged by the dense network, same masks."""

import copy
import operator
import pickle

import pytest

from thinned import Key, keep_mask

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import thinned.nn as tnn  # noqa: E402
from thinned.nn import stream  # noqa: E402
from thinned.nn.thin.run_branches import ThinDropPath  # noqa: E402

KEY, STEP, N = Key(5), 3, 8
WIDER = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps


class Scale(nn.Module):
    """A factor for each feature."""

    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.linspace(0.5, 1.5, width))

    def forward(self, x):
        return x * self.gamma


class Norm(nn.LayerNorm):
    """A subclass, in which torch.fx looks: the input of the branch goes into a function."""

    def forward(self, x):
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class Attention(nn.Module):
    """By hand, with sizes taken from the input; ``by_hand`` or fused."""

    def __init__(self, width, heads=2, by_hand=False):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(1, heads, 1, 1)) if by_hand else None
        self.drop, self.heads, self.by_hand = tnn.Dropout(0.2), heads, by_hand

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.by_hand:
            weights = self.drop((q @ k.transpose(-2, -1) * 0.5 + self.bias).softmax(dim=-1))
            x = weights @ v
        else:
            x = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class Torchs(nn.Module):
    """Torch's own attention, of a normed input."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x):
        return self.layer(x, x, x, need_weights=False)[0]


def mlp(width, *between):
    return nn.Sequential(nn.Linear(width, 12), nn.GELU(), *between, nn.Linear(12, width))


SUMS = {
    "left": lambda x, left: x + left,
    "right": lambda x, left: left + x,
    "torch": torch.add,
    "method": lambda x, left: left.add(x),
    "in place": operator.iadd,
    "in place, the branch": lambda x, left: operator.iadd(left, x),
}


class Block(nn.Module):
    """As transformers have it."""

    def __init__(self, attention, p=0.4, norm=nn.LayerNorm, mode="sample", total="left", width=6):
        super().__init__()
        self.norm1, self.attn, self.ls1 = norm(width), attention, Scale(width)
        self.norm2, self.mlp, self.ls2 = norm(width), mlp(width, tnn.Dropout(0.3)), Scale(width)
        self.drop_path1, self.drop_path2 = tnn.DropPath(p, mode), tnn.DropPath(p, mode)
        self.total = total

    def forward(self, x):
        x = SUMS[self.total](x, self.drop_path1(self.ls1(self.attn(self.norm1(x)))))
        return SUMS[self.total](x, self.drop_path2(self.ls2(self.mlp(self.norm2(x)))))


class Maps(nn.Module):
    """Convolutions, a squeeze, a shortcut of its own; batch norm on demand."""

    def __init__(self, norm=lambda c: nn.GroupNorm(1, c)):
        super().__init__()
        self.conv1, self.bn, self.act = nn.Conv2d(4, 6, 3, padding=1), norm(6), nn.ReLU(inplace=True)
        self.gate, self.conv2 = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 5, 3, stride=2)
        self.short, self.drop = nn.Conv2d(4, 5, 3, stride=2), tnn.DropPath(0.4)

    def forward(self, x):
        y = self.act(self.bn(self.conv1(x)))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        y = self.drop(self.conv2(y))
        y += self.short(x)
        return y


class Sum(nn.Module):
    """x + drop(branch(x))."""

    def __init__(self, branch, drop=None):
        super().__init__()
        self.branch, self.drop = branch, drop or tnn.DropPath(0.4)

    def forward(self, x):
        return x + self.drop(self.branch(x))


class Ways(nn.Module):
    """Two layers that read the input, torch's attention as the first, a view that guesses a size."""

    def __init__(self):
        super().__init__()
        self.attn, self.up, self.gate = nn.MultiheadAttention(6, 2, batch_first=True), *(nn.Linear(6, 9),) * 2
        self.gate = nn.Linear(6, 9)
        self.down, self.drop1, self.drop2 = nn.Linear(45, 30), tnn.DropPath(0.4), tnn.DropPath(0.4)

    def forward(self, x):
        x = x + self.drop1(self.attn(x, x, value=x)[0])
        y = self.up(x) * functional.silu(self.gate(x))
        return x + self.drop2(self.down(y.view(y.size(0), -1)).view(y.shape[0], 5, 6))


TOKENS = (N, 5, 6)
NETWORKS = {  # name -> network, shape of a batch, the DropPaths of branches that are skipped
    "block": (lambda: Block(Attention(6)), TOKENS, ["drop_path1", "drop_path2"]),
    "by hand": (lambda: Block(Attention(6, by_hand=True)), TOKENS, ["drop_path1", "drop_path2"]),
    "torch's attention": (lambda: Block(Torchs(6)), TOKENS, ["drop_path1", "drop_path2"]),
    "functions": (lambda: Block(Attention(6), norm=Norm), TOKENS, ["drop_path1", "drop_path2"]),
    "blocks": (
        lambda: nn.Sequential(nn.Linear(6, 6), Block(Attention(6)), Block(mlp(6)), nn.Linear(6, 2)),
        TOKENS,
        ["1.drop_path1", "1.drop_path2", "2.drop_path1", "2.drop_path2"],
    ),
    "maps": (Maps, (N, 4, 7, 7), ["drop"]),
    "ways": (Ways, TOKENS, ["drop1", "drop2"]),
    "nested": (lambda: Sum(nn.Sequential(Sum(mlp(6)), nn.Linear(6, 6))), (N, 6), ["drop", "branch.0.drop"]),
    "one after the other": (
        lambda: nn.Sequential(mlp(6), *map(tnn.DropPath, (0.3, 0.4))),
        (N, 6),
        ["1", "2"],
    ),
    "residual": (lambda: Sum(nn.Sequential(tnn.Residual(mlp(6), 0.5), nn.Linear(6, 6))), (N, 6), ["drop"]),
    "no sum": (lambda: nn.Sequential(mlp(6), tnn.DropPath(0.4), nn.Linear(6, 3)), (N, 6), ["1"]),
}
NETWORKS |= {
    f"sum {name}": (lambda name=name: Block(mlp(6), total=name), TOKENS, ["drop_path1", "drop_path2"])
    for name in SUMS
    if name != "in place"
}
BY_NAME = pytest.mark.parametrize("name", NETWORKS)


def pair(name, rate=None, dtype=torch.float64):
    """A thinned network without chains, the dense one, and a batch."""
    build, shape, drops = NETWORKS[name]
    torch.manual_seed(0)
    dense = build().to(dtype)
    if rate is not None:
        tnn.set_rate(dense, rate, only=tnn.DropPath)
    thin = tnn.thin(copy.deepcopy(dense))
    for model in (thin, dense):
        for module in model.modules():  # chains of units have masks of their own
            if isinstance(module, tnn.Dropout):
                module.p = 0.0
    report = tnn.thinning(thin)
    idle = [each for each, why in report.dense.items() if why.startswith("p = 0")]
    found = [*report.chains, *idle]
    assert {each for each in found if isinstance(thin.get_submodule(each), tnn.DropPath)} == set(drops)
    return thin, dense, torch.randn(shape, dtype=dtype)


def run(model, x, step=STEP, offset=0, call=None):
    """Output, and the gradients of its square: of the input and all parameters."""
    x = x.clone().requires_grad_()
    with tnn.keyed(model, KEY, step, sample_offset=offset):
        y = model(x * 1.0) if call is None else call(x)
    weights = list(model.parameters())
    loss = (y.float() if y.dtype.itemsize == 2 else y).square().sum()
    return [y, *torch.autograd.grad(loss, [x, *weights])]


def agree(name, ours, theirs, dense, x, **how):
    """To rounding: 16 times the error of the dense network in float32, at the width of float64."""
    single = run(copy.deepcopy(dense).float(), x.float(), **how)
    for a, b, c in zip(ours, theirs, single, strict=True):
        error = (c.double() - b).abs().max() + torch.finfo(torch.float32).eps * b.abs().max()
        assert (a - b).abs().max() <= 16 * WIDER * error, name


def saw(model, name, x, step=STEP, call=None):
    """How many samples a layer of a thinned network got."""
    seen, layer = [], model.get_submodule(name)
    kind = type(layer)

    class Telling(kind):
        def forward(self, *args, **kwargs):
            seen.append(len(args[0]))
            return super().forward(*args, **kwargs)

    layer.__class__ = Telling
    with tnn.keyed(model, KEY, step):
        (call or model.__call__)(x)
    layer.__class__ = kind
    return seen


def alive(name, p=0.4, step=STEP, n=N):
    return int(keep_mask(n, p, key=KEY.fold_in(step).fold_in(name)).sum())


@BY_NAME
def test_it_is_the_dense_sum_with_the_same_masks(name):
    thin, dense, x = pair(name)
    for step in range(3):
        agree(name, run(thin, x, step), run(dense, x, step), dense, x, step=step)


@BY_NAME
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_all_survive_and_none(name, rate):
    thin, dense, x = pair(name, rate)
    agree(name, run(thin, x), run(dense, x), dense, x)


@pytest.mark.parametrize("name", ["block", "maps", "torch's attention"])
def test_the_survivors_alone_are_computed(name):
    thin, _, x = pair(name)
    drop, layers = ("drop", ["conv1", "gate"]) if name == "maps" else ("drop_path1", ["norm1", "ls1"])
    for step in range(4):
        for layer in layers:
            assert saw(thin, layer, x, step) == [alive(drop, step=step)]


def test_some_rows_of_the_batch_at_some_rates():
    thin, dense, x = pair("block")
    for rate in (0.1, 0.9):
        for model in (thin, dense):
            tnn.set_rate(model, rate, only=tnn.DropPath)
        assert (
            tnn.thinning(thin).chains["drop_path1"]
            == f"{1 - rate:.4g} of the samples of 3 or 4 or 5 dimensions, from norm1 on"
        )
        agree(rate, run(thin, x), run(dense, x), dense, x)
    empty = thin(x[:0])
    assert empty.shape == (0, 5, 6)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_whole_batches(rate):
    torch.manual_seed(0)
    dense = Block(mlp(6), rate, mode="batch").double()
    tnn.set_rate(dense, 0.0, only=tnn.Dropout)
    thin, x = tnn.thin(copy.deepcopy(dense)), torch.randn(TOKENS, dtype=torch.float64)
    for step in range(4):
        agree(rate, run(thin, x, step), run(dense, x, step), dense, x, step=step)
        kept = bool(keep_mask(1, rate, key=KEY.fold_in(step).fold_in("drop_path1"))[0])
        assert saw(thin, "norm1", x, step) == [N * kept]


def test_chains_inside_a_branch_and_drop_modules_number_the_samples():
    torch.manual_seed(0)
    dense = Block(Attention(6, by_hand=True)).double()
    thin, x = tnn.thin(copy.deepcopy(dense)), torch.randn(TOKENS, dtype=torch.float64)
    assert set(tnn.thinning(thin).chains) == {"drop_path1", "drop_path2", "mlp.2"}
    chain = tnn.thin(copy.deepcopy(dense))
    for name in ("drop_path1", "drop_path2"):  # a hook that is registered later: all samples are computed
        chain.get_submodule("norm" + name[-1]).register_forward_hook(lambda *_: None)
    agree("chain", run(thin, x), run(chain, x), dense, x)
    assert saw(chain, "norm1", x) == [N]
    alone = tnn.thin(copy.deepcopy(dense), groups=1)
    assert set(tnn.thinning(alone).chains) == {"drop_path1", "drop_path2", "mlp.2"}


def test_shards_get_their_part():
    thin, _, x = pair("by hand")
    whole = run(thin, x)[0]
    parts = [run(thin, x[begin:end], offset=begin)[0] for begin, end in ((0, 3), (3, 8))]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_the_stream_is_torchs():
    thin, dense, x = pair("maps", 0.5)
    for seed in range(3):
        torch.manual_seed(seed)
        ours = thin(x)
        torch.manual_seed(seed)
        torch.testing.assert_close(ours, dense(x))


def test_batch_norm_sees_the_survivors():
    torch.manual_seed(0)
    dense = Maps(nn.BatchNorm2d).double()
    x = torch.randn(N, 4, 7, 7, dtype=torch.float64)
    counts = {alive("drop", 0.8, step): step for step in range(300)}
    for count, step in counts.items():
        thin = tnn.thin(copy.deepcopy(dense))
        thin.drop.p, twin = 0.8, copy.deepcopy(dense)
        kept = torch.from_numpy(keep_mask(N, 0.8, key=KEY.fold_in(step).fold_in("drop")))
        seen = x if count == 1 else x[kept]  # a single sample has no variance: then the whole batch
        run(thin, x, step)
        twin.bn(twin.conv1(seen))
        torch.testing.assert_close(thin.bn.running_var, twin.bn.running_var)
    assert {0, 1, 2} <= set(counts)


@BY_NAME
def test_names_state_evaluation_and_back(name):
    plain = NETWORKS[name][0]()
    thin = tnn.thin(copy.deepcopy(plain))
    assert list(thin.state_dict()) == list(plain.state_dict())
    assert [each for each, _ in thin.named_modules()] == [each for each, _ in plain.named_modules()]
    x = torch.randn(NETWORKS[name][1])
    assert torch.equal(thin.eval()(x), plain.eval()(x))
    tnn.thin(tnn.thin(thin), back=True)
    assert repr(thin) == repr(plain)
    for module, twin in zip(thin.modules(), plain.modules(), strict=True):
        assert type(module) is type(twin)
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not {"chain", "branch"} & set(vars(module))


@BY_NAME
def test_copies_and_pickles(name):
    thin, _, x = pair(name)
    expected = run(thin, x)
    twins = [copy.deepcopy(thin)]
    if name != "one after the other":
        twins.append(pickle.loads(pickle.dumps(thin)))
    for twin in twins:
        assert all(torch.equal(*both) for both in zip(run(twin, x), expected, strict=True))
        own = {id(module) for module in twin.modules()}
        assert all(id(module.branch.drop) in own for module in twin.modules() if type(module) is ThinDropPath)


@pytest.mark.parametrize("name", ["block", "functions", "maps"])
def test_compiled_is_the_dense_sum(name):
    thin, dense, x = pair(name)
    torch._dynamo.reset()
    compiled = torch.compile(thin, fullgraph=True, backend="aot_eager")
    ours = run(thin, x, call=compiled)
    agree(name, ours, run(dense, x), dense, x)
    agree(name, run(thin, x), run(dense, x), dense, x)  # and eager after that


@pytest.mark.parametrize("name", ["block", "maps"])
def test_autocast(name):
    thin, dense, x = pair(name, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = run(thin, x), run(dense, x)
    exact = run(dense.double(), x.double())
    off = []
    for each in (ours, theirs):
        assert [t.dtype for t in each] == [t.dtype for t in theirs]
        off.append(torch.cat([(a - b).flatten() for a, b in zip(each, exact, strict=True)]).norm())
    assert off[0] <= 2 * off[1]  # no further from the exact gradient than the dense network, but for luck


def test_gradients_of_gradients_and_channels_last():
    thin, dense, x = pair("maps")
    model = tnn.thin(Sum(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)))).double()

    def call(x):
        with tnn.keyed(model, KEY, STEP):
            return model(x)

    assert torch.autograd.gradgradcheck(call, torch.randn(4, 2, dtype=torch.float64, requires_grad=True))
    last = x.contiguous(memory_format=torch.channels_last)
    ours, theirs = run(thin, last), run(dense, last)
    agree("channels last", ours, theirs, dense, x)
    assert ours[0].stride() == theirs[0].stride()


class Checkpointed(nn.Module):
    """A checkpoint around a block, or around the part of a branch where it begins."""

    def __init__(self):
        super().__init__()
        self.block, self.norm, self.fc, self.drop = Block(mlp(6)), nn.LayerNorm(6), mlp(6), tnn.DropPath(0.4)
        self.how = None

    def begins(self, x):
        return self.fc(self.norm(x))

    def forward(self, x):
        if self.how is None:
            return (lambda x: x + self.drop(self.begins(x)))(self.block(x))
        x = checkpoint(self.block, x, use_reentrant=self.how)
        return x + self.drop(checkpoint(self.begins, x, use_reentrant=self.how))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("keyed", [True, False])
def test_a_checkpoint_inside_the_model(reentrant, keyed):
    model, x = tnn.thin(Checkpointed()), torch.randn(TOKENS)
    tnn.set_rate(model, 0.0, only=tnn.Dropout)
    assert {"block.drop_path1", "block.drop_path2", "drop"} <= set(tnn.thinning(model).chains)
    found = []
    for model.how in (None, reentrant):
        torch.manual_seed(3)
        model.zero_grad()
        if keyed:
            with tnn.keyed(model, KEY, STEP):
                y = model(x.clone().requires_grad_())
        else:
            y = model(x.clone().requires_grad_())
        y.square().sum().backward()
        assert stream._places.get() is None  # samples have their own numbers again
        found.append([y, *(weight.grad for weight in model.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_parts_and_errors():
    thin, dense, x = pair("block")
    torch.manual_seed(1)
    assert thin.norm1(x).shape == x.shape
    assert len(thin.drop_path1(x)) == N
    with pytest.raises(RuntimeError, match="normalized_shape"):
        thin(x[..., :5])
    with pytest.raises(RuntimeError, match="shape"):
        run(thin, x.repeat(1, 1, 2))
    assert stream._places.get() is None
    agree("after errors", run(thin, x), run(dense, x), dense, x)
    thin.drop_path1.eval()  # it alone evaluates
    dense.drop_path1.eval()
    agree("one evaluates", run(thin, x), run(dense, x), dense, x)


def test_a_model_that_runs_another_way_is_told():
    class Changing(Sum):
        early = twice = False

        def forward(self, x):
            if self.early:
                return self.branch(x)
            return x + self.drop(self.branch(self.branch(x) if self.twice else x))

    model, x = tnn.thin(Changing(nn.Linear(6, 6), tnn.DropPath(0.5))), torch.randn(N, 6)
    run(model, x)
    for flag, what in (("early", "not left"), ("twice", "entered twice")):
        setattr(model, flag, True)
        with pytest.raises(RuntimeError, match=rf"begins at branch was {what}; call thinned.nn.thin"):
            run(model, x)
        setattr(model, flag, False)
    assert stream._places.get() is None
    run(model, x)


# What stays dense, or begins later.


class Calls(nn.Module):
    """x + drop(something of three layers)."""

    def __init__(self, call):
        super().__init__()
        self.one, self.two, self.norm = nn.Linear(6, 6), nn.Linear(6, 6), nn.LayerNorm(6)
        self.drop, self.other, self.call = tnn.DropPath(0.4), tnn.Dropout(0.5), call
        self.rows = nn.Parameter(torch.ones(N, 5, 6))

    def forward(self, x, mask):
        return self.call(self, x, mask)


class Mine(nn.Linear):
    """A subclass: what it changes is not known."""


def twice(m, x, mask):
    x = x + m.drop(m.one(x))
    return x + m.drop(m.two(x))


def between(m, x, mask):
    y = m.norm(x)
    x = m.other(x)
    return x + m.drop(m.one(y))


def size_of_x(m, x, mask):
    b = x.shape[0]
    return x + m.drop(m.one(x).reshape(b, 6, 5).transpose(1, 2)) * (b > 0)


LEFT = {  # name -> call, what is told
    "another tensor": (
        lambda m, x, k: x + m.drop(m.one(x) * k),
        "its branch reads the input x and the input mask",
    ),
    "of two": (
        lambda m, x, k: x + m.drop(m.one(x) + m.two(k)),
        "its branch reads the input x and the input mask",
    ),
    "a mean over samples": (lambda m, x, k: x + m.drop(m.one(x) - m.one(x).mean(0)), "mean"),
    "softmax over samples": (lambda m, x, k: x + m.drop(m.one(x).softmax(0)), "softmax"),
    "merged": (lambda m, x, k: x + m.drop(m.one(x).flatten(0, 1).view(N, 5, 6)), "flatten"),
    "moved": (lambda m, x, k: x + m.drop(m.one(x).transpose(0, 1).reshape(N, 5, 6)), "reshape"),
    "guessed": (lambda m, x, k: x + m.drop(m.one(x).view(-1, 5, 6)), "view"),
    "a fixed batch": (lambda m, x, k: x + m.drop(m.one(x).view(N, 5, 6)), "view"),
    "flipped": (lambda m, x, k: x + m.drop(m.one(x).flip(0)), "flip"),
    "a sample for all": (lambda m, x, k: x + m.drop(m.one(x) + m.one(x)[0]), "getitem"),
    "size in arithmetic": (lambda m, x, k: x + m.drop(m.one(x) / m.one(x).shape[0]), "div"),
    "size of all": (size_of_x, "its branch reads"),
    "function first": (
        lambda m, x, k: x + m.drop(m.one(x.tanh())),
        "a call of tanh reads the input x outside",
    ),
    "twice": (twice, "drop is called 2 times"),
    "layer twice": (lambda m, x, k: x + m.drop(m.one(m.one(x))), "outside of a layer called once"),
    "between": (between, r"other \(Dropout\) runs between"),
    "nothing": (lambda m, x, k: x + m.drop(m.norm(x)), "no layer before it"),
    "used elsewhere": (lambda m, x, k: (y := m.norm(m.one(x))) + m.drop(y), "no layer before it"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_stays_dense_is_told_and_right(name):
    call, why = LEFT[name]
    torch.manual_seed(0)
    dense = Calls(call).double()
    thin, x = tnn.thin(copy.deepcopy(dense)), torch.randn(TOKENS, dtype=torch.float64)
    assert "drop" not in tnn.thinning(thin).chains
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(tnn.thinning(thin).dense["drop"])
    outs = []
    for model in (thin, dense):
        with tnn.keyed(model, KEY, STEP):
            outs.append(model(x.clone(), x.cos()))
    assert torch.equal(*outs)


LATER = {  # what mixes samples or is used elsewhere is computed for all, what follows is not
    "samples in another order": lambda m, x, k: x + m.drop(m.two(m.one(x).flip(0))),
    "softmax over samples": lambda m, x, k: x + m.drop(m.two(m.one(x).softmax(0))),
    "used elsewhere": lambda m, x, k: (y := m.one(x)) + m.drop(m.two(y)),
    "in place, of the input": lambda m, x, k: m.drop(m.two(x.mul_(2))) + x,
}


@pytest.mark.parametrize("name", LATER)
def test_the_part_after_it_is_skipped(name):
    torch.manual_seed(0)
    dense = Calls(LATER[name]).double()
    thin, x = tnn.thin(copy.deepcopy(dense)), torch.randn(TOKENS, dtype=torch.float64)
    assert tnn.thinning(thin).chains == {"drop": "0.6 of the samples, from two on"}
    outs = []
    for model in (thin, dense):
        with tnn.keyed(model, KEY, STEP):
            outs.append(model(x.clone(), x))
    torch.testing.assert_close(*outs)


def joined(m, x, mask):
    a, b = m.one(x).chunk(2, dim=2)
    return x + m.drop(torch.cat([b, a], -1).unsqueeze(1)[:, 0])


RANKS = {  # skipped for inputs of some ranks alone
    "a parameter with rows": (lambda m, x, k: x + m.drop(m.one(x) * m.rows), "4 or 5", "one"),
    "cumsum from behind": (lambda m, x, k: x + m.drop(m.one(x).cumsum(dim=-3)), "4 or 5", "one"),
    "parameters that broadcast": (
        *(lambda m, x, k: x + m.drop(m.one(x) * m.rows[0] * m.rows[:1]), "3 or 4 or 5", "one"),
    ),
    "in place, of its own": (
        *(
            lambda m, x, k: x + m.drop(m.two(m.one(x).mul_(2)[:, ..., None].relu_()[:, :, :, 0])),
            "",
            "one",
        ),
    ),
    "joined": (joined, "3 or 4 or 5", "one"),
}


@pytest.mark.parametrize("name", RANKS)
def test_ranks(name):
    call, ranks, begin = RANKS[name]
    torch.manual_seed(0)
    dense = Calls(call).double()
    thin, x = tnn.thin(copy.deepcopy(dense)), torch.randn(TOKENS, dtype=torch.float64)
    dims = f" of {ranks} dimensions" if ranks else ""
    assert tnn.thinning(thin).chains == {"drop": f"0.6 of the samples{dims}, from {begin} on"}
    outs = []
    for model in (thin, dense):
        with tnn.keyed(model, KEY, STEP):
            outs.append(model(x.clone(), x))
    torch.testing.assert_close(*outs)
    assert saw(thin, "one", x, call=lambda t: thin(t, t)) == [N if ranks == "4 or 5" else alive("drop")]


def test_layers_that_are_not_known_and_hooks():
    def report(model, name="drop"):
        return tnn.thinning(tnn.thin(model)).dense[name]

    assert "branch (Mine) is not known to keep samples apart" in report(Sum(Mine(6, 6)))
    model = Sum(nn.Sequential(nn.Linear(6, 6), nn.ReLU()))
    model.branch.register_forward_hook(lambda *_: None)
    assert report(model) == "branch has hooks, which would see the survivors alone"
    seq_first = Sum(Torchs(6))
    seq_first.branch.layer.batch_first = False
    assert "MultiheadAttention" in report(seq_first)
    assert "skip" not in report(Sum(tnn.Residual(nn.Linear(6, 6), skip=False)))
    in_place = Sum(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6)))
    assert tnn.thinning(tnn.thin(in_place)).chains == {"drop": "0.6 of the samples, from branch.1 on"}


class StochasticDepth(nn.Module):
    """Another library's."""

    def forward(self, x):
        return x


def test_other_libraries_modules_are_told():
    report = tnn.thinning(tnn.thin(Sum(nn.Linear(6, 6), StochasticDepth())))
    assert report.dense == {
        "drop": f"StochasticDepth of {__name__.split('.')[0]}: no module of thinned.nn does the same"
    }
