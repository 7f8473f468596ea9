"""Inside `keyed`, dropouts called as functions take their masks from the key, whoever calls them."""

import functools
import math
import threading

import pytest

torch = pytest.importorskip("torch")

from torch import _dynamo, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.utils.checkpoint import checkpoint  # noqa: E402

import thinned  # noqa: E402
import thinned.nn as tnn  # noqa: E402
from thinned import Key  # noqa: E402

N = 4  # samples


@pytest.fixture
def fresh_compiler():
    _dynamo.reset()


class Calls(nn.Module):
    """A module whose forward calls a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x, self.training)


def helper(x, p, training):
    return F.dropout(x, p, training)


class Decorated(nn.Module):
    @staticmethod
    def helped(x, training):
        return F.dropout(x, 0.5, training)

    @torch.autocast("cpu", enabled=False)
    def forward(self, x):
        return self.helped(x, self.training)


class Mine(nn.Dropout):
    """A subclass of torch's class."""


class Attends(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
        self.options = options

    def forward(self, x):
        return self.attention(x, x, x, **self.options)[0]


class First(nn.Module):
    """The first of a module's results."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)[0]


def attend(x, training, **options):
    return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5 * training, **options)


class Packs(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.LSTM(8, 8, 2, dropout=0.5)

    def forward(self, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, [6, 5, 3, 2], batch_first=True)
        return self.net(packed)[0].data


MODELS = {
    "F.dropout": lambda: Calls(lambda x, on: F.dropout(x, 0.5, on)),
    "F.dropout, by name": lambda: Calls(lambda x, on: F.dropout(input=x, p=0.5, training=on)),
    "in place": lambda: Calls(lambda x, on: F.dropout(x * 1, 0.5, on, inplace=True)),
    "F.dropout1d": lambda: Calls(lambda x, on: F.dropout1d(x, 0.5, on)),
    "F.dropout2d": lambda: Calls(lambda x, on: F.dropout2d(x[..., None], 0.5, on)),
    "F.dropout3d": lambda: Calls(lambda x, on: F.dropout3d(x[..., None, None], 0.5, on)),
    "F.alpha_dropout": lambda: Calls(lambda x, on: F.alpha_dropout(x, 0.5, on)),
    "F.feature_alpha_dropout": lambda: Calls(lambda x, on: F.feature_alpha_dropout(x, 0.5, on)),
    "torch.dropout": lambda: Calls(lambda x, on: torch.dropout(x, 0.5, on)),
    "torch.dropout, by name": lambda: Calls(lambda x, on: torch.dropout(x, p=0.5, train=on)),
    "torch.dropout_": lambda: Calls(lambda x, on: torch.dropout_(x * 1, 0.5, on)),
    "torch.alpha_dropout": lambda: Calls(lambda x, on: torch.alpha_dropout(x, 0.5, on)),
    "torch.feature_dropout": lambda: Calls(lambda x, on: torch.feature_dropout(x, 0.5, on)),
    "torch.native_dropout": lambda: Calls(lambda x, on: torch.native_dropout(x, 0.5, on)[0]),
    "a helper": lambda: Calls(lambda x, on: helper(x, 0.5, on)),
    "partial": lambda: Calls(lambda x, on: functools.partial(F.dropout, p=0.5)(x, training=on)),
    "decorated, static": Decorated,
    "a subclass": lambda: nn.Sequential(nn.Linear(8, 8), Mine(0.5)),
    "torch's module": lambda: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)),
    "sdpa": lambda: Calls(attend),
    "sdpa, causal": lambda: Calls(functools.partial(attend, is_causal=True)),
    "attention": Attends,
    "attention, no weights": lambda: Attends(need_weights=False),
    "LSTM": lambda: First(nn.LSTM(8, 8, 3, dropout=0.5, batch_first=True)),
    "LSTM, both ways": lambda: First(
        nn.LSTM(8, 8, 3, dropout=0.5, batch_first=True, bidirectional=True, proj_size=4)
    ),
    "GRU": lambda: First(nn.GRU(8, 8, 2, dropout=0.5, batch_first=True, bias=False)),
    "RNN": lambda: First(nn.RNN(8, 8, 2, dropout=0.5, batch_first=True)),
    "RNN, relu": lambda: First(nn.RNN(8, 8, 2, "relu", dropout=0.5, batch_first=True)),
    "packed": Packs,
    "encoder layer": lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.5, batch_first=True),
    "decoder layer": lambda: Twice(nn.TransformerDecoderLayer(8, 2, 16, 0.5, batch_first=True)),
}


class Twice(nn.Module):
    """A module of two arguments gets one twice."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x, x)


each_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def made(make, seed=0):
    torch.manual_seed(seed)
    return make().double(), torch.randn(N, 6, 8, dtype=torch.float64)


def run(model, x, step=0, offset=0, **options):
    with tnn.keyed(model, Key(0), step, offset, **options):
        return model(x)


@each_model
def test_one_key_one_result(make):
    model, x = made(make)
    y = run(model, x)
    assert torch.equal(run(model, x), y)
    assert not torch.equal(run(model, x, step=1), y)
    evaluated = model.eval()(x)
    assert not torch.equal(evaluated, y)
    torch.testing.assert_close(run(model, x), evaluated)


@pytest.mark.parametrize(
    "make", [m for n, m in MODELS.items() if n != "packed"], ids=[n for n in MODELS if n != "packed"]
)
def test_halves_are_the_whole(make):
    model, x = made(make)
    halves = torch.cat([run(model, x[:2]), run(model, x[2:], offset=2)])
    torch.testing.assert_close(halves, run(model, x))


@each_model
def test_the_backward_pass_has_the_same_mask(make):
    """The gradient of a checkpointed pass is that of a plain one, and agrees with differences."""
    model, x = made(make)
    leaves = [x.requires_grad_(), *model.parameters()]
    plain = torch.autograd.grad(run(model, x).square().sum(), leaves)
    for reentrant in (False, True):
        with tnn.keyed(model, Key(0), 0):
            y = checkpoint(model, x, use_reentrant=reentrant)
            y.square().sum().backward()
        torch.testing.assert_close([leaf.grad for leaf in leaves], list(plain))
        for leaf in leaves:
            leaf.grad = None
    way = torch.randn_like(x)
    with torch.no_grad():
        step = 1e-6
        ahead, behind = (run(model, x + s * way).square().sum() for s in (step, -step))
    torch.testing.assert_close((ahead - behind) / (2 * step), (plain[0] * way).sum(), rtol=1e-5, atol=1e-5)


def test_a_mask_is_that_of_the_module():
    """A function, torch's module and ours drop the same elements under one name."""
    x = torch.ones(N, 50)
    with_function, theirs, ours = (
        nn.Sequential(nn.Identity(), each)
        for each in (Calls(lambda x, on: F.dropout(x, 0.3, on)), nn.Dropout(0.3), tnn.Dropout(0.3))
    )
    expected = thinned.dropout(x, 0.3, key=Key(0).fold_in(5).fold_in("1"))
    for model in (with_function, theirs, ours):
        assert torch.equal(run(model, x, step=5), expected)


def test_calls_are_counted():
    model = Calls(lambda x, on: torch.stack([F.dropout(x, 0.5, on), F.dropout(x, 0.5, on)]))
    x = torch.ones(N, 50)
    with tnn.keyed(model, Key(0), 0):
        first, second = model(x), model(x)
    assert torch.equal(first, second)
    key = Key(0).fold_in(0).fold_in("")
    assert torch.equal(first[0], thinned.dropout(x, 0.5, key=key))
    assert torch.equal(first[1], thinned.dropout(x, 0.5, key=key.fold_in(1)))


def test_calls_outside_of_modules():
    model, x = nn.Linear(3, 3), torch.ones(N, 50)
    with tnn.keyed(model, Key(0), 0):
        y = F.dropout(x)
    with tnn.keyed(model, Key(0), 0):
        assert torch.equal(F.dropout(x), y)
    torch.manual_seed(0)
    plain = F.dropout(x)
    torch.manual_seed(0)
    assert torch.equal(F.dropout(x), plain)


def test_other_models_do_not_change():
    inner, outer, x = (Calls(lambda x, on: F.dropout(x, 0.5, on)) for _ in range(2)), None, torch.ones(N, 50)
    inner, outer = inner
    with tnn.keyed(outer, Key(1), 0):
        with tnn.keyed(inner, Key(2), 0):
            a, b = inner(x), outer(x)
        c = inner(x)
        torch.manual_seed(0)
        other = Calls(lambda x, on: F.dropout(x, 0.5, on))(x)
    assert torch.equal(a, thinned.dropout(x, 0.5, key=Key(2).fold_in(0).fold_in("")))
    assert torch.equal(b, thinned.dropout(x, 0.5, key=Key(1).fold_in(0).fold_in("")))
    torch.manual_seed(0)
    assert torch.equal(other, F.dropout(x, 0.5))
    assert not torch.equal(c, a)


def test_threads():
    """Another thread that runs the model inside the block gets the keys, and leaves nothing behind."""
    model, x = Calls(lambda x, on: F.dropout(x, 0.5, on)), torch.ones(N, 50)
    seen = []

    def work():
        seen.append(model(x))
        torch.manual_seed(0)
        seen.append(F.dropout(x, 0.5))

    with tnn.keyed(model, Key(0), 0):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert torch.equal(seen[0], run(model, x))
    torch.manual_seed(0)
    assert torch.equal(seen[1], F.dropout(x, 0.5))


def test_parts_under_checkpoint():
    """A function that is checkpointed, which no module calls when it is run again."""

    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(8, 8)

        def inside(self, x):
            return F.dropout(self.a(F.dropout(x, 0.5, self.training)), 0.5, self.training)

        def forward(self, x):
            x = checkpoint(self.inside, x, use_reentrant=self.reentrant)
            return checkpoint(self.inside, x, use_reentrant=self.reentrant)

    model, x = made(Parts)
    model.reentrant = False
    slopes = []
    for reentrant in (False, True):
        model.reentrant = reentrant
        leaf = x.clone().requires_grad_()
        with tnn.keyed(model, Key(0), 0):
            model(leaf).sum().backward()
        slopes.append(leaf.grad)
    key = Key(0).fold_in(0).fold_in("")
    keys = [key, *(key.fold_in(n) for n in (1, 2, 3))]
    leaf = y = x.clone().requires_grad_()
    for i in (0, 2):
        y = thinned.dropout(model.a(thinned.dropout(y, 0.5, key=keys[i])), 0.5, key=keys[i + 1])
    y.sum().backward()
    for slope in slopes:
        torch.testing.assert_close(slope, leaf.grad)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_backward_pass_outside_the_block_is_refused(reentrant):
    class Checkpointed(nn.Module):
        def forward(self, x):
            return checkpoint(lambda x: F.dropout(x * x, 0.5), x, use_reentrant=reentrant)

    model, x = Checkpointed(), torch.ones(N, 8, requires_grad=True)
    y = run(model, x)
    with pytest.raises(RuntimeError, match="must be inside keyed"):
        y.sum().backward()
    run(Calls(lambda x, on: F.dropout(x, 0.5, on)), x).sum().backward()


def test_attention_drops_its_weights():
    """Of scaled_dot_product_attention: the weights are dropped by the key of the module."""
    q, k, v = torch.randn(3, N, 2, 5, 8, dtype=torch.float64)
    mask = torch.randn(5, 5, dtype=torch.float64)
    model = Calls(lambda x, on: F.scaled_dot_product_attention(q, k, v, mask, 0.25 * on, scale=0.1))
    weights = torch.softmax(q @ k.mT * 0.1 + mask, -1)
    kept = thinned.dropout(weights, 0.25, key=Key(0).fold_in(0).fold_in(""))
    torch.testing.assert_close(run(model, torch.ones(N)), kept @ v)
    hidden = torch.ones(5, 5, dtype=torch.bool).tril(-1)
    model = Calls(
        lambda x, on: F.scaled_dot_product_attention(
            q, k[:, :1], v[:, :1], hidden, 1e-9 * on, enable_gqa=True
        )
    )
    torch.testing.assert_close(run(model, torch.ones(N)), model.eval()(torch.ones(N)))


def test_the_rate_is_right():
    model = nn.LSTM(4, 64, 2, dropout=0.3)
    x = torch.randn(50, 8, 4)
    seen = []
    drop = thinned.nn.modules.Dropout.by
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tnn.Dropout, "drop", lambda self, x: seen.append(tnn.Dropout.eager(self, x)) or seen[-1]
        )
        run(model, x)
    (y,) = seen
    dropped = y.eq(0).double().mean().item()
    assert abs(dropped - 0.3) <= 6 * math.sqrt(0.3 * 0.7 / y.numel()), drop


class Own(nn.Module):
    """A dropout of one's own making."""

    def forward(self, x):
        return x * torch.bernoulli(torch.full_like(x, 0.5)) if self.training else x


def test_what_is_not_reached_is_named_once():
    model, x = nn.Sequential(nn.Linear(8, 8), Own()), torch.ones(N, 8)
    with pytest.warns(UserWarning, match=r"^0.1 \(Own\) calls torch.bernoulli: inside keyed") as said:
        run(nn.Sequential(model, model), x)
    assert len(said) == 1
    run(nn.Sequential(nn.Linear(8, 8), tnn.Dropout(0.5)), x)


def test_random_slopes_are_named():
    model, x = nn.Sequential(nn.Linear(8, 8), nn.RReLU()), torch.ones(N, 8)
    run(model.eval(), x)
    with pytest.warns(UserWarning, match=r"^1 \(RReLU\) calls torch.nn.functional.rrelu: inside keyed"):
        run(model.train(), x)


def test_a_dropout_that_is_never_off_is_noticed():
    model = Calls(lambda x, on: F.dropout(x, 0.5)).eval()
    with pytest.warns(UserWarning, match=r"^the model \(Calls\) drops in evaluation too"):
        y = run(model, torch.ones(N, 8))
    assert torch.equal(y, run(model, torch.ones(N, 8)))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@each_model
def test_compiled_is_eager(make, fresh_compiler):
    model, x = made(make)
    compiled = torch.compile(model, backend="eager")
    for step in (0, 1):
        torch.testing.assert_close(run(compiled, x, step), run(model, x, step))


def test_a_whole_graph_is_refused_with_the_reason(fresh_compiler):
    model = Calls(lambda x, on: F.dropout(x, 0.5, on))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="a dropout called as a function cannot be compiled"):
        run(compiled, torch.ones(N, 8))


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@each_model
def test_examples_of_a_vmap(make):
    """Inside `keyed` they have the masks of one batch."""
    if make in (Packs, MODELS["torch.native_dropout"]):
        pytest.skip("no vmap of packed sequences, and of the mask of native_dropout")
    model, x = made(make)
    try:
        torch.func.vmap(lambda row: model.eval()(row[None])[0])(x)
    except (RuntimeError, NotImplementedError):
        pytest.skip("vmap does not take it in evaluation either")
    model.train()
    with tnn.keyed(model, Key(0), 0):
        each = torch.func.vmap(lambda row: model(row[None])[0], randomness="different")(x)
    torch.testing.assert_close(each, run(model, x))
