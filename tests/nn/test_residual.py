"""Residual skips what it drops, and gives what the dense sum with DropPath gives."""

import copy
import math
import pickle

import numpy as np
import pytest

from thinned import Key, functional, keep_mask

torch = pytest.importorskip("torch")

from torch import _dynamo, nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import thinned.nn as tnn  # noqa: E402
from thinned.nn import stream  # noqa: E402
from thinned.nn.residual import on_survivors  # noqa: E402

N = 12
EPS = torch.finfo(torch.float64).eps


class Bend(nn.Module):
    """tanh(w·x), element by element, so that batches of any size round alike. It records their sizes."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7, dtype=dtype))
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        return (x * self.weight).tanh()


def inputs(*shape, dtype=torch.float64, requires_grad=False):
    x = torch.linspace(-2, 2, math.prod(shape), dtype=torch.float64).sin().mul(3).reshape(shape)
    return x.to(dtype).requires_grad_(requires_grad)


def dense(block, x, key=Key(3), step=1, offset=0, name=""):
    """x + drop_path(branch(x)), by the whole batch."""
    key = key.fold_in(step).fold_in(name)
    left = functional.drop_path(block.branch(x), block.p, key=key, mode=block.mode, sample_offset=offset)
    return x + left


def keyed(model, x, key=Key(3), step=1, offset=0):
    with tnn.keyed(model, key, step, sample_offset=offset):
        return model(x)


def with_grads(y, x, model):
    """The result and its gradients by x and by the parameters."""
    return [y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()])]


def survivors(p, step=1, n=N, offset=0):
    return keep_mask(n, p, key=Key(3).fold_in(step).fold_in(""), start=offset)


def a_step(p, count, n=N):
    """A step at which so many of n samples survive."""
    return next(step for step in range(100_000) if survivors(p, step, n).sum() == count)


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


# The same result, from fewer samples.


@pytest.mark.parametrize("mode", ["sample", "batch"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("offset", [0, 7, 2**40])
def test_it_is_the_dense_sum(mode, p, offset):
    block, x = tnn.Residual(Bend(), p, mode), inputs(N, 3, 5, requires_grad=True)
    for step in range(5):
        y = keyed(block, x, step=step, offset=offset)
        ours = with_grads(y, x, block)
        theirs = with_grads(dense(block, x, step=step, offset=offset), x, block)
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
        # a sum of 180 products of numbers up to 3·1·6·10 each, in another order
        assert torch.allclose(ours[2], theirs[2], rtol=0, atol=180 * EPS * 180 * 180)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_the_branch_sees_the_survivors_alone(p):
    block, x = tnn.Residual(Bend(), p), inputs(N, 4)
    for step in range(8):
        block.branch.seen.clear()
        kept = torch.from_numpy(survivors(p, step))
        y = keyed(block, x, step=step)
        assert block.branch.seen == [int(kept.sum())] * bool(kept.any())
        assert torch.equal(y[~kept], x[~kept])
        assert torch.equal(y[kept], (x + block.branch(x) * (1 / (1 - p)))[kept])


def test_a_nan_in_a_dropped_branch_is_never_made():
    """Where the branch cannot be computed, forward or backward, and is dropped, nothing shows."""
    block = tnn.Residual(nn.Sequential(Bend(), nn.Softmax(1)), 0.5)
    kept = torch.from_numpy(survivors(0.5))
    x = inputs(N, 4)
    x[~kept] = torch.inf
    x.requires_grad_()
    y = keyed(block, x)
    y[kept].sum().backward()
    assert y[kept].isfinite().all()
    assert torch.equal(y[~kept], x[~kept])
    assert x.grad.isfinite().all()
    assert block.branch[0].weight.grad.isfinite()


@pytest.mark.parametrize("p", [0.25, 0.5])
@pytest.mark.parametrize("n", [1, 3])
def test_the_rate_is_p_at_any_batch(n, p):
    """Over seeds, within 6 standard errors: of one sample and of three, where a fixed count cannot be p."""
    seeds = 600
    block, x = tnn.Residual(nn.Identity(), p), torch.ones(n, 1)
    torch.manual_seed(n)
    added = torch.stack([block(x) - x for _ in range(seeds)]).flatten()
    assert set(added.tolist()) == {0.0, (x[0] * (1 / (1 - p)) + x[0] - x[0]).item()}
    share = added.eq(0).double().mean().item()
    assert abs(share - p) <= 6 * math.sqrt(p * (1 - p) / (n * seeds)), f"torch.manual_seed({n})"


def test_evaluation_and_one_seed_a_pass():
    block, x = tnn.Residual(Bend(), 0.5).eval(), inputs(N, 4)
    state = torch.get_rng_state()
    assert torch.equal(block(x), x + block.branch(x))
    assert torch.equal(torch.get_rng_state(), state), "evaluation takes no random number"
    after = []
    for p in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        tnn.Residual(Bend(), p)(x)
        after.append(torch.rand(3))
    assert torch.equal(after[0], after[1])
    assert torch.equal(after[0], after[2])


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_never_the_input_itself(p):
    """What follows may work in place, as a ReLU in many networks does."""
    block, x = tnn.Residual(Bend(), p), inputs(3, 4)
    kept = x.clone()
    for step in range(20):
        keyed(block, x, step=step).zero_()
    assert torch.equal(x, kept)


def test_in_place_after_it_and_before_it():
    x = inputs(N, 4, requires_grad=True)
    block = nn.Sequential(nn.Tanh(), tnn.Residual(Bend(), 0.5), nn.ReLU(inplace=True))
    for step in (a_step(0.5, 0), a_step(0.5, 4), a_step(0.5, N)):
        keyed(block, x, step=step).sum().backward()
    assert x.grad.isfinite().all()


# None, all, nothing.


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_none_survive(p):
    """The branch is not run; its parameters get zeros, as from the dense sum."""
    block, x = (
        tnn.Residual(nn.Sequential(Bend(), nn.Linear(4, 4).double()), p),
        inputs(N, 4, requires_grad=True),
    )
    block.branch[1].bias.requires_grad_(False)
    y = keyed(block, x, step=a_step(p, 0))
    assert torch.equal(y, x)
    assert not block.branch[0].seen
    y.square().sum().backward()
    assert torch.equal(x.grad, 2 * x)
    assert torch.equal(block.branch[0].weight.grad, torch.zeros((), dtype=torch.float64))
    assert torch.equal(block.branch[1].weight.grad, torch.zeros(4, 4, dtype=torch.float64))
    assert block.branch[1].bias.grad is None
    with torch.no_grad():
        assert torch.equal(keyed(block, x, step=a_step(p, 0)), x)


def test_an_optimizer_may_step_between_the_passes():
    block, x = tnn.Residual(Bend(), 1.0), inputs(N, 4, requires_grad=True)
    y = block(x)
    with torch.no_grad():
        block.branch.weight.add_(1.0)
    y.sum().backward()
    assert block.branch.weight.grad == 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", ["sample", "batch"])
def test_a_batch_of_none(mode, training):
    block, x = tnn.Residual(Bend(), 0.5, mode).train(training), inputs(0, 4, requires_grad=True)
    y = block(x)
    assert y.shape == (0, 4)
    y.sum().backward()
    assert x.grad.shape == (0, 4)


@pytest.mark.usefixtures("one_process")
def test_distributed_data_parallel_needs_no_unused_parameters():
    """A step in which none survives leaves no parameter without a gradient."""
    block = tnn.Residual(Bend(), 0.5)
    model = nn.parallel.DistributedDataParallel(block)
    for step in (a_step(0.5, 0), a_step(0.5, 4), a_step(0.5, 0)):
        keyed(model, inputs(N, 4), step=step).sum().backward()


# What may stand in a branch.


class Normed(nn.Module):
    """A batch norm, after a layer that records the sizes of its batches."""

    def __init__(self, kind=nn.BatchNorm1d, **options):
        super().__init__()
        self.bend, self.norm = Bend(), kind(4, **options).double()

    def forward(self, x):
        return self.norm(self.bend(x))


def test_batch_norm_takes_the_survivors_statistics():
    block, x = tnn.Residual(Normed(), 0.5), inputs(N, 4)
    kept = torch.from_numpy(survivors(0.5))
    assert 1 < kept.sum() < N
    twin = copy.deepcopy(block.branch)
    y = keyed(block, x)
    assert torch.equal(y[kept], x[kept] + 2 * twin(x[kept]))
    assert torch.equal(y[~kept], x[~kept])
    assert torch.equal(block.branch.norm.running_mean, twin.norm.running_mean)
    before = {name: t.clone() for name, t in block.state_dict().items()}
    assert torch.equal(keyed(block, x, step=a_step(0.5, 0)), x)
    assert all(torch.equal(before[name], t) for name, t in block.state_dict().items()), "not called"


@pytest.mark.parametrize("options", [{}, {"track_running_stats": False}])
def test_batch_norm_of_one_survivor_runs_the_whole_batch(options):
    block, x, step = tnn.Residual(Normed(**options), 0.5), inputs(N, 4), a_step(0.5, 1)
    twin = copy.deepcopy(block)
    assert torch.equal(keyed(block, x, step=step), dense(twin, x, step=step))
    assert block.branch.bend.seen == [N]
    block.branch.norm.eval()
    block.branch.bend.seen.clear()
    keyed(block, x, step=step)
    assert block.branch.bend.seen == ([1] if not options else [N]), "with running statistics, one is enough"


@pytest.mark.parametrize(
    ("branch", "skip"), [(Normed(), False), (Normed(nn.SyncBatchNorm), True), (Bend(), False)], ids=str
)
def test_the_whole_batch_where_it_is_wanted(branch, skip):
    block, x = tnn.Residual(branch, 0.5, skip=skip), inputs(N, 4, requires_grad=True)
    recorder = getattr(branch, "bend", branch)
    for count in (0, 1, 5, N):
        step = a_step(0.5, count)
        recorder.seen.clear()
        twin = copy.deepcopy(block)
        same(with_grads(keyed(block, x, step=step), x, block), with_grads(dense(twin, x, step=step), x, twin))
        assert recorder.seen == [N]


class Inner(nn.Module):
    """Drops of all units, in a branch; rows of a sample, and a block within the block."""

    def __init__(self):
        super().__init__()
        self.drops = nn.Sequential(
            tnn.Dropout(0.5), tnn.AlphaDropout(0.3), tnn.GaussianDropout(0.2), tnn.Dropout1d(0.3)
        )
        self.block = tnn.DropBlock1d(0.3, 2)
        self.path = tnn.DropPath(0.3)
        self.whole = tnn.DropPath(0.3, "batch")
        self.rows = tnn.Dropout(0.4)
        self.nested = tnn.Residual(nn.Sequential(tnn.Dropout(0.5), Bend()), 0.4)

    def forward(self, x):
        x = self.path(self.block(self.drops(x)))
        return self.nested(self.rows(x.flatten(0, 1)).unflatten(0, x.shape[:2])) + self.whole(x)


@pytest.mark.parametrize("small", [0, stream.SMALL])
@pytest.mark.parametrize("offset", [0, 5])
def test_drops_in_a_branch_number_the_whole_batch(offset, small, monkeypatch):
    """So the result is the dense sum's, and a shard's part is its own; samples large or small."""
    monkeypatch.setattr(stream, "SMALL", small)
    block, x = tnn.Residual(Inner(), 0.5), inputs(N, 3, 6, requires_grad=True)
    plain = tnn.Residual(copy.deepcopy(block.branch), 0.5, skip=False)
    for step in range(4):
        ours = with_grads(keyed(block, x, step=step, offset=offset), x, block)
        theirs = with_grads(keyed(plain, x, step=step, offset=offset), x, plain)
        assert torch.equal(ours[0], theirs[0])
        assert torch.allclose(ours[1], theirs[1], rtol=1e-12, atol=0)
    block.branch.rows.p = 0.0  # its units are rows, whose number a shard's first sample does not tell
    whole = keyed(block, x)
    for size in (1, 5, 6):
        parts = [keyed(block, x[i : i + size], offset=i) for i in range(0, N, size)]
        assert torch.equal(torch.cat(parts), whole), size


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("shape", [(N, 4), (N, 3, 4)])
@pytest.mark.parametrize("small", [0, stream.SMALL])
def test_drop_connect_in_a_branch(per_sample, shape, small, monkeypatch):
    monkeypatch.setattr(stream, "SMALL", small)
    layer = tnn.DropConnectLinear(4, 4, p=0.5, per_sample=per_sample, dtype=torch.float64)
    block, x = tnn.Residual(layer, 0.5), inputs(*shape, requires_grad=True)
    plain = tnn.Residual(layer, 0.5, skip=False)
    for step in range(4):
        results = [with_grads(keyed(b, x, step=step, offset=3), x, b) for b in (block, plain)]
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


class Foreign(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda x: x[:, :2], ValueError, r"^branch must keep the shape \(\d+, 4\), got \(\d+, 2\)"),
        (lambda x: (x, None), TypeError, "^branch must return a tensor of floating-point numbers, got tuple"),
        (lambda x: x.long(), TypeError, r"floating-point numbers, got dtype torch\.int64"),
        (lambda x: x.relu_(), RuntimeError, "^branch must leave its input unchanged, got a change in place"),
    ],
)
def test_wrong_branches(call, error, said, training, p):
    block = tnn.Residual(Foreign(call), p).train(training)
    with pytest.raises(error, match=said):
        keyed(block, inputs(N, 4))


@pytest.mark.parametrize("training", [True, False])
def test_wrong_inputs(training):
    block = tnn.Residual(Bend(), 0.5).train(training)
    with pytest.raises(ValueError, match=r"^input of Residual must have shape \(N, …\), got \(\)"):
        block(torch.tensor(1.0))
    with pytest.raises(TypeError, match=r"^input must hold floating-point numbers"):
        block(torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"^input must be a torch tensor"):
        block(np.ones((3, 2)))
    with pytest.raises(TypeError, match="positional argument"):
        block(torch.ones(3, 2), torch.ones(3, 2))


def test_wrong_options():
    for p, error in ((1.5, ValueError), (float("nan"), ValueError), ("0.5", TypeError)):
        with pytest.raises(error, match=r"^p must be"):
            tnn.Residual(Bend(), p)
    with pytest.raises(ValueError, match="mode must be one of 'sample', 'batch', got 'row'"):
        tnn.Residual(Bend(), 0.1, "row")
    with pytest.raises(TypeError, match=r"^branch must be a torch module, got function \(on_survivors takes"):
        tnn.Residual(lambda x: x, 0.1)


# Dtypes, layouts.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("p", [0.3, 0.5])
def test_dtypes_round_as_the_dense_sum(dtype, p):
    block, x = tnn.Residual(Bend(dtype), p), inputs(N, 3, 5, dtype=dtype, requires_grad=True)
    ours, theirs = keyed(block, x), dense(block, x)
    same([ours, *torch.autograd.grad(ours.sum(), x)], [theirs, *torch.autograd.grad(theirs.sum(), x)])


def test_autocast():
    """The sum has the wider dtype of x and the branch, as torch's + gives it; x's own where none survives."""
    block = tnn.Residual(nn.Linear(4, 4), 0.5)
    for dtype, wide in ((torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)):
        for count in (0, 1, 5, N):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                y = keyed(block, inputs(N, 4, dtype=dtype), step=a_step(0.5, count))
            assert y.dtype == wide
    wider = tnn.Residual(nn.LayerNorm(4), 0.5)
    x = inputs(N, 4, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = keyed(wider, x, step=a_step(0.5, 5))
        assert y.dtype == dense(wider, x, step=a_step(0.5, 5)).dtype
    y.sum().backward()
    assert x.grad.dtype == torch.bfloat16


def test_strides_are_kept():
    block, x = tnn.Residual(Bend(), 0.5), inputs(N, 3, 4, 5).to(memory_format=torch.channels_last)
    for count in (0, 5, N):
        y = keyed(block, x, step=a_step(0.5, count))
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(y, dense(block, x, step=a_step(0.5, count)))
    for view in (x[::2], x.transpose(0, 1), x[:, :, 1:], x[:, :1].expand_as(x)):
        assert torch.equal(keyed(block, view), dense(block, view))


# Gradients.


@pytest.mark.parametrize("count", [0, 1, 3, 6])
def test_gradients_once_and_twice(count):
    n = 6
    block, step = tnn.Residual(nn.Sequential(nn.Linear(2, 2).double(), nn.Tanh()), 0.5), a_step(0.5, count, 6)
    x = inputs(n, 2, requires_grad=True)
    learned = list(block.parameters())

    def run(x, *_):
        return keyed(block, x, step=step)

    assert torch.autograd.gradcheck(run, (x, *learned))
    assert torch.autograd.gradgradcheck(run, (x, *learned))


def test_the_input_needs_no_gradient():
    block, x = tnn.Residual(Bend(), 0.5), inputs(N, 4)
    keyed(block, x).sum().backward()
    assert block.branch.weight.grad != 0
    with torch.no_grad():
        assert not keyed(block, x).requires_grad
    with torch.inference_mode():
        keyed(block, x)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("whole", [True, False], ids=["block", "branch"])
@pytest.mark.parametrize("where", ["free", "keyed", "backward outside"])
def test_checkpointing_gives_the_same_survivors(reentrant, whole, where):
    """Of the block run again as a whole; and, of a branch that runs itself again, its inner drops."""

    def gradients(how):
        torch.manual_seed(0)
        inner = nn.Sequential(nn.Linear(6, 6), tnn.Dropout(0.5), nn.Tanh()).double()
        block = tnn.Residual(inner if whole else Foreign(lambda x: how(inner, x)), 0.5)
        if not whole:
            block.branch.inner = inner
        x = inputs(N, 6, requires_grad=True)
        torch.manual_seed(5)
        total = 0.0
        run = lambda: (how(block, x) if whole else block(x)).square().sum()  # noqa: E731
        if where == "free":
            for _ in range(3):
                total += run()
            total.backward()
        else:
            for step in range(3):
                with tnn.keyed(block, Key(1), step):
                    total += run()
                    if where == "keyed":
                        total.backward(retain_graph=True)
            if where != "keyed":
                total.backward()
        return [x.grad, *(w.grad for w in inner.parameters())]

    plain = gradients(lambda f, x: f(x))
    again = gradients(lambda f, x: checkpoint(f, x, use_reentrant=reentrant))
    for a, b in zip(again, plain, strict=True):  # sums of three steps, in another order
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_checkpointed_branch_without_the_generators_state():
    how = lambda f, x: checkpoint(f, x, use_reentrant=False, preserve_rng_state=False)  # noqa: E731
    grads = []
    for run in (how, lambda f, x: f(x)):
        torch.manual_seed(0)
        inner = nn.Sequential(nn.Linear(6, 6), tnn.Dropout(0.5), nn.Tanh()).double()
        block = tnn.Residual(Foreign(lambda x, run=run, inner=inner: run(inner, x)), 0.5)
        block.branch.inner = inner
        with tnn.keyed(block, Key(1), 0):
            block(inputs(N, 6)).square().sum().backward()
        grads.append(inner[0].weight.grad)
    assert torch.equal(*grads)


# Modules.


def test_copies_files_and_hooks():
    block, x = tnn.Residual(nn.Linear(4, 4).double(), 0.3, "batch", skip=False), inputs(N, 4)
    assert list(block.state_dict()) == ["branch.weight", "branch.bias"]
    assert block.extra_repr() == "p=0.3, mode='batch', skip=False"
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert repr(twin) == repr(block)
        assert torch.equal(keyed(twin, x), keyed(block, x))
    assert tnn.set_rate(block, 0.5) == {"": 0.5}
    hooked = tnn.Residual(Bend(), 0.5)
    said = []
    hooked.branch.register_forward_hook(lambda module, args, out: said.append(out.shape))
    hooked.branch.register_full_backward_hook(lambda module, grad, out: said.append(out[0].shape))
    kept = int(survivors(0.5).sum())
    keyed(hooked, inputs(N, 4, requires_grad=True)).sum().backward()
    assert said == [(kept, 4), (kept, 4)]


@pytest.fixture
def fresh_compiler():
    _dynamo.reset()
    _dynamo.utils.counters.clear()


@pytest.mark.parametrize("mode", ["sample", "batch"])
def test_compiled_is_eager_and_compiles_once(mode, fresh_compiler):
    block = tnn.Residual(nn.Sequential(nn.Linear(4, 4).double(), nn.Tanh()), 0.5, mode)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    x = inputs(N, 4, requires_grad=True)
    for i, p in enumerate((0.2, 0.5, 0.0, 1.0, 0.8)):
        block.p = p
        results = []
        for run in (block, compiled):
            torch.manual_seed(i)
            results.append([*with_grads(run(x), x, block), keyed(run, x, step=i, offset=i)])
        for eager, graph in zip(*results, strict=True):
            torch.testing.assert_close(eager, graph)
    assert _dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_compiled_drops_in_a_branch(fresh_compiler):
    """Compiled as a whole it gives the eager result. A compiled branch cannot know which samples it sees."""
    block, x = tnn.Residual(nn.Sequential(tnn.Dropout(0.5), Bend()), 0.5), inputs(N, 4)
    compiled = torch.compile(block, backend="aot_eager")
    torch.testing.assert_close(keyed(compiled, x), keyed(block, x))
    part = tnn.Residual(torch.compile(block.branch, backend="aot_eager"), 0.5)
    part(x)
    with pytest.raises(RuntimeError, match="skip=False"):
        keyed(part, x)
    part.skip = False
    torch.testing.assert_close(keyed(part, x), keyed(block, x))


@pytest.mark.parametrize("training", [True, False])
def test_exported(training):
    model = nn.Sequential(tnn.Residual(nn.Linear(4, 4), 0.5)).train(training)
    x = inputs(N, 4, dtype=torch.float32)
    size = torch.export.Dim("size", min=2)
    run = torch.export.export(model, (x,), dynamic_shapes=({0: size},)).module()
    if not training:
        torch.testing.assert_close(run(x[:5]), model(x[:5]))
        return
    outs = torch.stack([run(x) for _ in range(30)])
    assert len(outs.unique(dim=0)) > 1


# Networks.


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm, self.attend = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x):
        y = self.norm(x)
        return self.attend(y, y, y, need_weights=False)[0]


def branches(width):
    wide = nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
    )
    return Attention(width, 4).double(), wide.double()


def test_a_transformer_block():
    torch.manual_seed(0)
    parts = branches(256)
    block, plain = (
        nn.Sequential(*(tnn.Residual(part, 0.5, skip=skip) for part in parts)) for skip in (True, False)
    )
    x = inputs(8, 5, 256, requires_grad=True)
    seen = []
    for part in parts:
        part.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    ours = with_grads(keyed(block, x), x, block)
    kept = [keep_mask(8, 0.5, key=Key(3).fold_in(1).fold_in(name)).sum() for name in ("0", "1")]
    assert seen == kept
    assert min(kept) > 0
    assert max(kept) < 8
    for a, b in zip(ours, with_grads(keyed(plain, x), x, plain), strict=True):
        torch.testing.assert_close(a, b)


class Scale(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 0.1, dtype=torch.float64))

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    """As libraries of vision transformers write it: x + drop_path1(ls1(attn(norm1(x)))), and so on."""

    def __init__(self, width, skips):
        super().__init__()
        torch.manual_seed(0)
        self.attn, self.mlp = branches(width)
        self.ls1, self.ls2 = Scale(width), Scale(width)
        self.drop_path1, self.drop_path2 = tnn.DropPath(0.5), tnn.DropPath(0.5)
        self.skips = skips

    def forward(self, x):
        if self.skips:
            x = on_survivors(lambda t: self.ls1(self.attn(t)), x, self.drop_path1)
            return on_survivors(lambda t: self.ls2(self.mlp(t)), x, self.drop_path2)
        x = x + self.drop_path1(self.ls1(self.attn(x)))
        return x + self.drop_path2(self.ls2(self.mlp(x)))


@pytest.mark.parametrize("training", [True, False])
def test_a_block_that_writes_its_sum_itself(training, fresh_compiler):
    block, plain = Block(16, True).train(training), Block(16, False).train(training)
    seen = []
    block.mlp.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    x = inputs(N, 5, 16, requires_grad=True)
    ours, theirs = (with_grads(keyed(b, x), x, b) for b in (block, plain))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
    kept = keep_mask(N, 0.5, key=Key(3).fold_in(1).fold_in("drop_path2")).sum()
    assert seen == [kept if training else N]
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(keyed(compiled, x), ours[0])


def test_a_function_as_a_branch_where_none_survive():
    inner, drop, x = Bend(), tnn.DropPath(1.0), inputs(N, 4, requires_grad=True)
    on_survivors(lambda t: inner(t), x, drop).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    assert inner.weight.grad is None
    on_survivors(inner, x, drop).sum().backward()
    assert inner.weight.grad == 0
