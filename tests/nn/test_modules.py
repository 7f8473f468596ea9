"""Torch modules: the functions' masks, torch's seeds, compiled graphs, keyed masks."""

import contextlib
import copy
import inspect
import io
import pickle
import shutil
import threading

import pytest
from helpers import family

from thinned import Key, functional, theory

torch = pytest.importorskip("torch")

from torch import _dynamo, nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import thinned.nn as tnn  # noqa: E402
from thinned.kernels import autograd  # noqa: E402
from thinned.methods import DROPS  # noqa: E402
from thinned.nn import compiled as ops  # noqa: E402
from thinned.nn.modules import MODULES  # noqa: E402

MAP = (6, 4, 9, 8)  # (N, C, H, W)
CASES = {  # a module, its options, the shape of its input, the function that it stands for
    **{
        str(case): (MODULES[case.method.method], case.options, MAP, case.method.function)
        for case in family.CASES
        if not case.linear
    },
    "dropout1d": (tnn.Dropout1d, {}, (5, 4, 7), functional.spatial_dropout),
    "dropout3d": (tnn.Dropout3d, {}, (3, 4, 2, 5, 3), functional.spatial_dropout),
    "block1d": (tnn.DropBlock1d, {"block_size": 3}, (5, 4, 17), functional.drop_block),
    "block3d": (tnn.DropBlock3d, {"block_size": 2}, (3, 4, 5, 5, 5), functional.drop_block),
}
EACH = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
TWINS = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]


def inputs(shape, requires_grad=False, **kinds):
    x = torch.linspace(-2, 2, torch.Size(shape).numel(), **kinds).reshape(shape)
    return x.requires_grad_(requires_grad)


def graphs():
    return _dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.fixture
def fresh_compiler():
    _dynamo.reset()
    _dynamo.utils.counters.clear()


# The mask is the function's.


@EACH
def test_keyed_mask_is_the_functions(case):
    kind, options, shape, function = case
    module, x = kind(0.4, **options), inputs(shape)
    with tnn.keyed(module, Key(5), 7, sample_offset=11):
        ours = module(x)
    key = Key(5).fold_in(7).fold_in("")
    assert torch.equal(ours, function(x, 0.4, key=key, sample_offset=11, **options))


def test_seed_is_the_generators_next_number():
    torch.manual_seed(3)
    seed = torch.empty((), dtype=torch.int64).random_(-(1 << 63), None).item() & ((1 << 64) - 1)
    torch.manual_seed(3)
    module, x = tnn.Dropout(0.3), inputs((20, 30))
    assert torch.equal(module(x), functional.dropout(x, 0.3, key=Key(seed)))


class Long(tnn.Dropout):
    """Another class, which takes every step."""


def both_passes(module, x):
    """Output and gradient of each pass, and the generator's next number; p changes between passes."""
    torch.manual_seed(11)
    found = []
    for p in (0.5, 0.1, 0.0, 0.1, 1.0):
        module.p = p
        y = module(x)
        (grad,) = torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)
        found += [y, grad]
    return [*found, torch.rand(1)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 30), (1 << 15,), (1 << 16,), (3, 1 << 17)], ids=str)
def test_a_flat_tensor_has_the_mask_of_the_long_way(shape, dtype):
    x = inputs(shape, requires_grad=True, dtype=dtype)
    ours, long = both_passes(tnn.Dropout(), x), both_passes(Long(), x)
    torch.testing.assert_close(ours, long, rtol=0.0, atol=0.0, equal_nan=True)  # float16 overflows


def test_a_flat_tensor_takes_the_short_way(monkeypatch):
    def long(*args):
        raise AssertionError("it took the long way")

    monkeypatch.setattr(autograd, "select", long)
    module, x = tnn.Dropout(), inputs((7, 30), requires_grad=True)
    module(x).backward(torch.ones_like(x))
    module(x.detach())
    module(inputs((1 << 17,)))
    for other in (x.T, tnn.Dropout(inplace=True), Long(), tnn.Dropout(rescale="test")):
        with pytest.raises(AssertionError, match="long way"):
            other(x) if isinstance(other, nn.Module) else module(other)
    with pytest.raises(AssertionError, match="long way"), tnn.keyed(module, Key(1), 0):
        module(x)


def test_a_gradient_of_a_gradient_of_a_flat_tensor():
    x, c = inputs((7, 30), requires_grad=True), inputs((7, 30)) + 3
    y = tnn.Dropout(0.5)(x)
    (grad,) = torch.autograd.grad((y * y * c).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), x)
    assert torch.equal(second, torch.where(y == 0, 0.0, 8 * c))


@EACH
def test_manual_seed_and_fork_rng(case):
    kind, options, shape, *_ = case
    module, x = kind(0.5, **options), inputs(shape)
    torch.manual_seed(1)
    first = [module(x) for _ in range(8)]
    torch.manual_seed(1)
    with torch.random.fork_rng():
        module(x)
    assert all(torch.equal(a, module(x)) for a in first)
    assert len({tuple(a.flatten().tolist()) for a in first}) > 1, "passes differ"


@EACH
def test_evaluation_is_the_functions(case):
    """For most the input itself."""
    kind, options, shape, function = case
    module, x = kind(0.5, **options).eval(), inputs(shape)
    state, expected = torch.get_rng_state(), function(x, 0.5, key=Key(0), training=False, **options)
    assert torch.equal(module(x), expected)
    assert (module(x) is x) == (expected is x)
    assert torch.equal(torch.get_rng_state(), state), "evaluation takes no random number"


def test_the_moments_of_paths_that_are_not_scaled():
    assert tnn.DropPath(0.2).moments() == theory.bernoulli_moments(0.2)
    assert tnn.DropPath(0.2, scale_by_keep=False).moments() == theory.mask_moments(0.2)


def test_one_seed_a_pass_at_any_rate():
    """So that another layer's rate, 0 included, changes no mask of this one."""
    x = inputs((9, 9))
    out = []
    for p in (0.0, 0.5, 1.0):
        torch.manual_seed(0)
        tnn.Dropout(p)(x)
        out.append(tnn.Dropout(0.5)(x))
    assert torch.equal(out[0], out[1])
    assert torch.equal(out[1], out[2])


@pytest.mark.parametrize("name", DROPS)
def test_every_method_has_its_module(name):
    """Of the function's name, where none is written by hand; with the defaults of the function."""
    method, kind = DROPS[name], MODULES[DROPS[name]]
    assert getattr(tnn, kind.__name__) is kind
    assert kind.__name__ in tnn.__all__
    if kind is tnn.DropConnectLinear:
        return
    module = kind(**method.given)
    assert module.method is method
    defaults = {n: p.default for n, p in inspect.signature(method.function).parameters.items()}
    assert all(getattr(module, option) == defaults[option] for option in ("p", *method.names))
    with pytest.raises(TypeError, match="unknown"):
        kind(0.5, unknown=1)


# As torch's.


@pytest.mark.parametrize("name", TWINS)
def test_signature_repr_and_errors_are_torchs(name):
    ours, theirs = getattr(tnn, name), getattr(nn, name)
    assert repr(ours(0.25, True)) == repr(theirs(0.25, True))
    assert repr(ours(p=0.25, inplace=False)) == repr(theirs(p=0.25, inplace=False))
    assert repr(ours()) == repr(theirs())
    for p in (-0.1, 1.1):
        for kind in (ours, theirs):
            with pytest.raises(ValueError, match=r"p must be|probability"):
                kind(p)
    for kind in (ours, theirs):
        with pytest.raises(TypeError):
            kind("0.5")


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_inplace_as_torch_does(name, p):
    shape = {"Dropout1d": (3, 4, 5), "Dropout3d": (2, 3, 4, 5, 6)}.get(name, MAP)
    kinds = [getattr(tnn, name)] if "Alpha" in name else [getattr(tnn, name), getattr(nn, name)]
    for kind in kinds:  # torch's alpha dropouts ignore inplace
        x = inputs(shape)
        kept = x.clone()
        assert kind(p, inplace=True)(x) is x
        assert not torch.equal(x, kept)
        assert kind(p, inplace=True).eval()(kept) is kept
        leaf = inputs(shape, requires_grad=True)
        with pytest.raises(RuntimeError, match="leaf Variable"):
            kind(p, inplace=True)(leaf)
    leaf = inputs(shape, requires_grad=True)
    results = []
    for inplace in (False, True):
        torch.manual_seed(4)
        y = getattr(tnn, name)(p, inplace)(leaf * 2)
        results += [y, torch.autograd.grad(y.square().sum(), leaf)[0]]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])


@pytest.mark.parametrize(
    ("name", "shape", "same_as"),
    [("Dropout1d", (8, 9), (1, 8, 9)), ("Dropout3d", (8, 3, 4, 5), (1, 8, 3, 4, 5))],
)
def test_without_a_batch_dimension(name, shape, same_as):
    module, x = getattr(tnn, name)(0.5), inputs(shape)
    torch.manual_seed(0)
    single = module(x)
    torch.manual_seed(0)
    assert torch.equal(single, module(x.reshape(same_as)).reshape(shape))
    rows = single.flatten(1).ne(0).any(1)
    assert 0 < rows.sum() < 8, "channels, not samples"


def test_dropout2d_takes_three_dimensions_as_n_c_l():
    x = torch.ones(40, 10, 6)
    kept = tnn.Dropout2d(0.5)(x).ne(0)
    assert torch.equal(kept.any(2), kept.all(2))
    assert kept.any(2).float().mean(1).std() > 0


# The original rule.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("inplace", [False, True])
def test_original_rule(dtype, inplace):
    module, x = tnn.Dropout(0.3, inplace, rescale="test"), inputs(MAP, dtype=dtype)
    assert repr(module) == f"Dropout(p=0.3, inplace={inplace}, rescale='test')"
    with tnn.keyed(module, Key(5), 7):
        y = module(x.clone())
    key = Key(5).fold_in(7).fold_in("")
    assert torch.equal(y, functional.dropout(x, 0.3, key=key, rescale="test"))
    module.eval()
    for p in (0.3, 0.0, 1.0):
        module.p = p
        given = x.clone()
        y = module(given)
        assert (y is given) == inplace
        assert y.dtype == dtype
        assert torch.equal(y, functional.dropout(x, p, key=key, training=False, rescale="test"))
    with pytest.raises(ValueError, match="rescale must be one of 'train', 'test', got 'eval'"):
        tnn.Dropout(rescale="eval")
    with pytest.raises(ValueError, match="rescale must be one of 'train', 'test', got 'eval'"):
        module.rescale = "eval"
    module.rescale = "train"
    assert module(x) is x
    assert repr(module) == f"Dropout(p=1.0, inplace={inplace})"
    with pytest.raises(TypeError):
        tnn.Dropout(0.5, False, "test")


@pytest.mark.parametrize("training", [True, False])
def test_original_rule_compiled_and_exported(training, fresh_compiler):
    module, x = tnn.Dropout(0.5, rescale="test").train(training), inputs(MAP, requires_grad=True)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for i, p in enumerate((0.2, 0.5, 0.0, 1.0)):
        module.p = p
        results = []
        for run in (module, compiled):
            torch.manual_seed(i)
            y = run(x)
            results.append([y, *torch.autograd.grad(y.square().sum(), x)])
        assert all(map(torch.equal, *results))
    assert graphs() == 1
    if not training:
        module.p = 0.25
        assert torch.equal(torch.export.export(module, (x,)).module()(x), x * 0.75)


# Wrong input.


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (tnn.Dropout1d(), (2, 3, 4, 5)),
        (tnn.Dropout1d(), (2,)),
        (tnn.Dropout2d(), (2,)),
        (tnn.Dropout3d(), (2,)),
        (tnn.FeatureAlphaDropout(), (2,)),
        (tnn.DropBlock1d(), MAP),
        (tnn.DropBlock2d(), (2, 3, 4)),
        (tnn.DropBlock3d(), MAP),
        (tnn.DropPath(), ()),
        (tnn.DropConnectLinear(4, 2), (3, 5)),
        (tnn.DropConnectLinear(4, 2), ()),
    ],
    ids=str,
)
def test_wrong_rank_or_shape(module, shape):
    with pytest.raises(ValueError, match=r"^input .*must have"):
        module(torch.ones(shape))


TORCHS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")


@pytest.mark.parametrize("name", TORCHS)
def test_they_are_torchs_modules(name):
    """The best-known recipe for Monte-Carlo dropout, and code that rests dropout, find modules so."""
    ours = getattr(tnn, name)(0.3, inplace=True)
    assert isinstance(ours, getattr(torch.nn, name))
    assert (ours.p, ours.inplace) == (0.3, True)
    ours.p = 0.0
    x = torch.ones(4, 6, 5) if name == "Dropout1d" else torch.ones(4, 6, 5, 5)
    assert ours(x) is x


@pytest.mark.parametrize("name", [*TORCHS, "GaussianDropout", "DropBlock2d", "DropPath"])
def test_evaluation_returns_whatever_comes(name):
    module = getattr(tnn, name)(0.5).eval()
    for x in (torch.arange(3), torch.ones(2, dtype=torch.complex64), torch.ones(())):
        assert module(x) is x


@pytest.mark.parametrize(
    ("name", "shape"), [("Dropout2d", (64, 8)), ("Dropout3d", (9, 8, 3)), ("Dropout2d", (9, 8, 2, 2, 2))]
)
def test_other_ranks_have_torchs_meaning_and_a_warning(name, shape):
    with pytest.warns(UserWarning, match=f"{name} is for . or . dimensions, got"):
        y = getattr(tnn, name)(0.5)(torch.ones(shape))
    with pytest.warns(UserWarning, match="-D input"):
        torchs = getattr(torch.nn, name)(0.5)(torch.ones(shape))
    for each in (y, torchs):
        channels = each.reshape(*shape[:2], -1)
        assert (channels == channels[..., :1]).all()
        assert set(each.unique().tolist()) == {0.0, 2.0}


def test_a_rate_in_a_tensor():
    assert tnn.Dropout(torch.tensor(0.25)).p == 0.25
    with pytest.raises(TypeError, match="p must be a number"):
        tnn.Dropout(torch.tensor([0.25, 0.5]))


@EACH
def test_wrong_dtype(case):
    kind, options, shape, *_ = case
    module = kind(0.5, **options)
    for x in (
        torch.ones(shape, dtype=torch.int64),
        torch.ones(shape, dtype=torch.bool),
        torch.ones(shape).numpy(),
    ):
        with pytest.raises(TypeError, match=r"^input must"):
            module(x)


@EACH
def test_wrong_rates(case):
    kind, options, *_ = case
    module = kind(0.5, **options)
    for p, error in ((float("nan"), ValueError), (1.5, ValueError), (None, TypeError), (True, TypeError)):
        with pytest.raises(error, match=r"^p must be"):
            kind(p, **options)
        with pytest.raises(error, match=r"^p must be"):
            module.p = p
    assert module.p == 0.5


def test_wrong_options():
    with pytest.raises(ValueError, match="block_size must be at least 1, got 0"):
        tnn.DropBlock2d(0.1, 0)
    with pytest.raises(ValueError, match=r"block_size must have one number for each of 1 axes, got \(3, 3\)"):
        tnn.DropBlock1d(0.1, (3, 3))
    assert tnn.DropBlock2d(0.1, (3, 5)).block_size == (3, 5)
    with pytest.raises(ValueError, match="mode must be one of 'sample', 'batch', got 'row'"):
        tnn.DropPath(0.1, "row")
    with pytest.raises(ValueError, match="inference must be one of"):
        tnn.DropConnectLinear(3, 3, inference="median")
    with pytest.raises(ValueError, match="in_features must be at least 1"):
        tnn.DropConnectLinear(0, 3)


# Copies, files, precision.


@EACH
def test_copies_draw_alike_and_hold_no_state(case):
    kind, options, shape, *_ = case
    module, x = kind(0.3, **options), inputs(shape)
    assert not module.state_dict()
    assert not list(module.parameters()) + list(module.buffers())
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module)), module.half().bfloat16()]
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    copies.append(torch.load(buffer, weights_only=False))
    torch.manual_seed(0)
    expected = module(x)
    for twin in copies:
        assert twin.p == 0.3, "half() rounds no rate"
        assert repr(twin) == repr(module)
        torch.manual_seed(0)
        assert torch.equal(twin(x), expected)
    copies[0].p = 0.9
    assert module.p == 0.3


def test_a_copy_made_inside_keyed_is_not_keyed():
    module, x = tnn.Dropout(), inputs((30, 30))
    with tnn.keyed(module, Key(0), 0):
        twin = copy.deepcopy(module)
        assert not torch.equal(twin(x), twin(x))


@pytest.mark.parametrize("guard", [torch.inference_mode, lambda: torch.device("meta")])
def test_modules_made_under_a_mode_work_outside(guard):
    with guard():
        module = tnn.Dropout(0.5)
    module.p = 0.25
    x = torch.ones(50, 50, requires_grad=True)
    module(x).sum().backward()
    assert set(x.grad.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}


@EACH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_and_autocast(case, dtype):
    kind, options, shape, *_ = case
    module, x = kind(0.3, **options), inputs(shape, dtype=dtype)
    assert module(x).dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(x).dtype == dtype


# Compiled: one graph for all rates, seeds, steps and offsets; the same numbers as in eager mode.


@EACH
def test_compiled_is_eager_and_compiles_once(case, fresh_compiler):
    kind, options, shape, *_ = case
    module = kind(0.5, **options)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    x = inputs(shape, requires_grad=True)
    for i, p in enumerate((0.2, 0.5, 0.0, 1.0, 0.7)):
        module.p = p
        results = []
        for run in (module, compiled):
            torch.manual_seed(i)
            y = run(x)
            results += [y, torch.autograd.grad(y.square().sum(), x)[0]]
            with tnn.keyed(run, Key(1), i, sample_offset=i):
                results.append(run(x))
        for eager, graph in zip(results[:3], results[3:], strict=True):
            assert torch.equal(eager, graph)
    assert graphs() == 1


def test_compiled_double_backward_of_alpha_is_its_own(fresh_compiler):
    """The operators themselves differentiate twice; compiled graphs do once."""
    x = inputs((4, 5), dtype=torch.float64, requires_grad=True)
    for function in ("dropout", "alpha_dropout", "feature_alpha_dropout", "gaussian_dropout"):
        for p in (0.0, 0.4, 1.0):
            ticket = ops.pack(5, 2, p)
            run = lambda x, f=function, t=ticket: torch.ops.thinned.drop(x, t, f, "{}")  # noqa: E731
            assert torch.autograd.gradcheck(run, x)
            assert torch.autograd.gradgradcheck(run, x)


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
@pytest.mark.parametrize("inplace", [False, True])
def test_compiled_with_inductor(fresh_compiler, inplace):
    model = nn.Sequential(nn.Linear(12, 20), tnn.Dropout(0.5, inplace), nn.Tanh(), nn.Linear(20, 3))
    compiled = torch.compile(model, fullgraph=True)
    x = inputs((8, 12))
    for seed, p in ((0, 0.5), (1, 0.2)):
        model[1].p = p
        grads = []
        for run in (model, compiled):
            torch.manual_seed(seed)
            model.zero_grad()
            run(x).square().sum().backward()
            grads.append([w.grad.clone() for w in model.parameters()])
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b)
    assert graphs() == 1


def test_a_module_used_twice_in_a_graph_draws_twice(fresh_compiler):
    drop = tnn.Dropout(0.5)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = drop

        def forward(self, x):
            return torch.stack([self.drop(x), self.drop(x)])

    model = Twice()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.ones(400)
    torch.manual_seed(0)
    eager = model(x)
    torch.manual_seed(0)
    graph = compiled(x)
    assert torch.equal(graph, eager)
    assert not torch.equal(graph[0], graph[1])
    with tnn.keyed(compiled, Key(2), 3):
        graph = compiled(x)
        assert torch.equal(compiled(x), graph), "a pass is a call of the model"
    with tnn.keyed(model, Key(2), 3):
        assert torch.equal(model(x), graph)
    for run in (model, compiled):  # a graph with a backward pass goes another way through the compiler
        torch.manual_seed(0)
        x = torch.ones(400, requires_grad=True)
        assert torch.equal(run(x), eager)


@EACH
def test_exported_evaluation_has_no_operator_of_ours(case):
    kind, options, shape, *_ = case
    model = nn.Sequential(kind(0.5, **options), nn.ReLU()).eval()
    x = inputs(shape)
    program = torch.export.export(model, (x,))
    assert torch.equal(program.module()(x), model(x))
    assert not [node for node in program.graph.nodes if "thinned" in str(node.target)]


def test_exported_training_draws():
    model = nn.Sequential(tnn.Dropout(0.5))
    program = torch.export.export(model, (torch.ones(1000),))
    run = program.module()
    assert 0 < run(torch.ones(1000)).ne(0).float().mean() < 1
    assert not torch.equal(run(torch.ones(1000)), run(torch.ones(1000)))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
def test_evaluation_as_an_onnx_file(tmp_path):
    """Of every module: no operator of ours is left, and another program computes the same."""
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    kinds = {kind for kind, *_ in CASES.values()} - {
        tnn.Dropout1d,
        tnn.Dropout3d,
        tnn.DropBlock1d,
        tnn.DropBlock3d,
    }
    model = nn.Sequential(
        *(kind(0.5) for kind in sorted(kinds, key=str)),
        tnn.Dropout(0.25, rescale="test"),
        tnn.Residual(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), tnn.Dropout(0.5)), 0.5),
        nn.Flatten(),
        tnn.DropConnectLinear(4 * 9 * 8, 3),
    ).eval()
    x = inputs(MAP)
    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    program.save(tmp_path / "model.onnx")
    assert {node.domain for node in program.model.graph} <= {"", "pkg.onnxscript.torch_lib"}
    run = reference.ReferenceEvaluator(str(tmp_path / "model.onnx"))
    (y,) = run.run(None, {run.input_names[0]: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(x).detach(), rtol=1e-4, atol=1e-4)


CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@EACH
def test_opcheck(case):
    kind, options, shape, *_ = case
    module = kind(0.4, **options)
    ticket = ops.pack(9, 3, 0.4)
    for x in (inputs(shape, requires_grad=True), inputs((*shape[:-2], shape[-1], shape[-2])).mT):
        arguments = x, ticket, module.method.name, module.options()
        torch.library.opcheck(torch.ops.thinned.drop, arguments, test_utils=CHECKS)


def test_opcheck_connect_and_draw():
    x, w = inputs((4, 6), requires_grad=True), inputs((3, 6), requires_grad=True)
    ticket = ops.pack(9, 3, 0.4)
    for bias in (None, inputs((3,), requires_grad=True)):
        for per_sample in (True, False):
            torch.library.opcheck(
                torch.ops.thinned.connect, (x, w, bias, ticket, per_sample, 1), test_utils=CHECKS
            )
        plain = [t if t is None else t.detach() for t in (x, w, bias)]
        torch.library.opcheck(torch.ops.thinned.connect_gaussian, (*plain, ticket, 1), test_utils=CHECKS)
    stream = tnn.Dropout().stream
    drawn = stream.handle, torch.tensor(0.5, dtype=torch.float64), torch.empty(0)
    torch.library.opcheck(torch.ops.thinned.drawn, drawn, test_utils=CHECKS[:3])


@EACH
def test_opcheck_of_gradients(case):
    kind, options, shape, *_ = case
    module = kind(0.4, **options)
    how = ops.pack(9, 3, 0.4), module.method.name, module.options()
    torch.library.opcheck(
        torch.ops.thinned.drop_gradient, (inputs(shape, requires_grad=True), *how), test_utils=CHECKS
    )


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_the_operators_of_drop_connect_differentiate_twice(p, per_sample):
    kinds = {"dtype": torch.float64, "requires_grad": True}
    x, w, g = inputs((4, 6), **kinds), inputs((3, 6), **kinds), inputs((4, 3), **kinds)
    ticket = ops.pack(9, 3, p)
    run = lambda x, w: torch.ops.thinned.connect(x, w, None, ticket, per_sample, 1)  # noqa: E731
    assert torch.autograd.gradcheck(run, (x, w))
    assert torch.autograd.gradgradcheck(run, (x, w))
    torch.library.opcheck(
        torch.ops.thinned.connect_gradient, (g, x, w, ticket, per_sample, 1), test_utils=CHECKS
    )


# Tensors without numbers, recorded functions, and torch.func inside a compiled function.

MADE = {**CASES, "drop_connect": (None, {}, (6, 8), functional.drop_connect)}


def made(case):
    """A module with rate 0.5 and an input for it."""
    kind, options, shape, *_ = case
    return tnn.DropConnectLinear(8, 3) if kind is None else kind(0.5, **options), inputs(shape)


ALL = pytest.mark.parametrize("case", MADE.values(), ids=MADE)


@ALL
def test_fake_tensors_stay_fake(case):
    with FakeTensorMode():
        module, x = made(case)
        y = module(x.requires_grad_())
        y.sum().backward()
    assert type(y) is type(x.grad) is FakeTensor


@ALL
def test_a_recorded_function_draws(case):
    module, x = made(case)

    def gradient(x):
        x = x.detach().requires_grad_()
        y = module(x)
        return y, torch.autograd.grad(y.square().sum(), x)[0]

    for run in (module, gradient):
        recorded = make_fx(run)(x)
        torch.manual_seed(4)
        expected = run(x)
        torch.manual_seed(4)
        torch.testing.assert_close(recorded(x), expected)
        if module.method.name != "drop_path":  # six samples may fall alike
            assert not all(torch.equal(recorded(x)[0], recorded(x)[0]) for _ in range(20))


TRANSFORMED = {
    "vmap": lambda f: torch.vmap(f, randomness="same"),
    "grad": lambda f: torch.vmap(torch.func.grad(lambda x: f(x).square().sum()), randomness="same"),
    "jvp": lambda f: lambda x: torch.func.jvp(lambda x: f(x[0]), (x,), (x.cos(),)),
    "second": lambda f: lambda x: torch.func.jvp(torch.func.grad(lambda x: f(x[0]).exp().sum()), (x,), (x,)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
@pytest.mark.parametrize("how", TRANSFORMED.values(), ids=TRANSFORMED)
@pytest.mark.parametrize("case", [MADE[name] for name in ("alpha", "gaussian", "drop_connect")])
def test_torch_func_compiled_is_eager(case, how, fresh_compiler):
    module, x = made(case)
    xs, run = torch.stack([x, 2 * x]), how(module)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    results = []
    for call in (run, compiled):
        with tnn.keyed(module, Key(3), 1, sample_offset=2):
            results.append(call(xs))
    torch.testing.assert_close(*results)


def test_masks_of_each_example_are_not_compiled(fresh_compiler):
    run = torch.compile(torch.vmap(tnn.Dropout(), randomness="different"), backend="aot_eager")
    with pytest.raises(Exception, match="randomness of a compiled vmap must be 'same'"):
        run(torch.ones(3, 4))


def test_compiled_code_may_read_p(fresh_compiler):
    """As some attention layers do: they hand the rate of a module to torch's fused attention."""

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = tnn.Dropout(0.25)

        def forward(self, x):
            return self.drop(x) * 0 + self.drop.p

    compiled = torch.compile(Reads(), fullgraph=True, backend="aot_eager")
    assert compiled(torch.ones(3)).unique().item() == 0.25


def test_fx_keeps_modules_as_nodes():
    model = nn.Sequential(tnn.Dropout(), tnn.Residual(nn.Linear(6, 6), 0.5), tnn.DropConnectLinear(6, 3))
    graph = torch.fx.symbolic_trace(model)
    assert [node.target for node in graph.graph.nodes if node.op == "call_module"] == ["0", "1", "2"]
    x = inputs((8, 6))
    with tnn.keyed(model, Key(0), 0):
        expected = model(x)
    with tnn.keyed(graph, Key(0), 0):
        assert torch.equal(graph(x), expected)


# DropConnectLinear.


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_drop_connect_linear(per_sample, bias, fresh_compiler):
    layer = tnn.DropConnectLinear(6, 5, bias=bias, p=0.4, per_sample=per_sample)
    plain = nn.Linear(6, 5, bias=bias)
    assert list(layer.state_dict()) == list(plain.state_dict())
    layer.load_state_dict(plain.state_dict())
    x = inputs((7, 6), requires_grad=True)
    assert torch.equal(layer.eval()(x), plain(x)), "the mean network"
    before = layer.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(layer.weight, before)
    layer.train()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for i, p in enumerate((0.3, 0.8, 0.0, 1.0)):
        layer.p = p
        expected = functional.drop_connect(
            x,
            layer.weight,
            layer.bias,
            p,
            key=Key(4).fold_in(i).fold_in(""),
            per_sample=per_sample,
            sample_offset=9,
        )
        grads = torch.autograd.grad(expected.square().sum(), [x, *layer.parameters()])
        for run in (layer, compiled):
            with tnn.keyed(run, Key(4), i, sample_offset=9):
                y = run(x)
            assert torch.equal(y, expected)
            for ours, theirs in zip(
                torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]), grads, strict=True
            ):
                torch.testing.assert_close(ours, theirs)
    assert graphs() == 1


def test_drop_connect_linear_of_sequences_autocast_and_gaussian(fresh_compiler):
    layer = tnn.DropConnectLinear(6, 5, p=0.4, inference="gaussian", dtype=torch.float64)
    x = inputs((4, 3, 6), dtype=torch.float64)
    key = Key(4).fold_in(0).fold_in("")
    for training in (True, False):
        layer.train(training)
        expected = functional.drop_connect(
            x.reshape(12, 6),
            layer.weight,
            layer.bias,
            0.4,
            key=key,
            training=training,
            inference="gaussian",
            sample_offset=6,
        )
        for run in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
            with torch.no_grad(), tnn.keyed(run, Key(4), 0, sample_offset=2):
                assert torch.equal(run(x), expected.reshape(4, 3, 5))
    assert layer.train()(x[0, 0]).shape == (5,)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tnn.DropConnectLinear(6, 5)(x.float()).dtype == torch.bfloat16


# keyed.


class Net(nn.Module):
    """A shared drop, and one of its own."""

    def __init__(self, extra=False):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 8), tnn.Dropout(0.5))
        if extra:
            self.new = tnn.Dropout(0.5)
        self.shared = tnn.Dropout(0.5)
        self.last = tnn.Dropout(0.5)

    def forward(self, x):
        x = torch.ones_like(x)
        return torch.stack([self.first[1](x), self.shared(x), self.shared(x), self.last(x)])


def test_keys_are_the_documented_ones():
    net, x, step = Net(), inputs((6, 8)), Key(7).fold_in(3)
    keys = [step.fold_in("first.1"), step.fold_in("shared"), step.fold_in("shared").fold_in(1)]
    expected = [
        functional.dropout(torch.ones(6, 8), 0.5, key=key, sample_offset=5)
        for key in [*keys, step.fold_in("last")]
    ]
    with tnn.keyed(net, Key(7), 3, sample_offset=5) as same:
        assert same is net
        assert torch.equal(net(x), torch.stack(expected))
        assert torch.equal(net(x), torch.stack(expected)), "a pass is a call of the model"
    assert torch.equal(keyed_pass(Net(extra=True), x, 3, 5), torch.stack(expected)), "names, not places"
    assert not torch.equal(keyed_pass(net, x, 4, 5), torch.stack(expected)), "steps differ"


def keyed_pass(net, x, step, offset=0):
    with tnn.keyed(net, Key(7), step, sample_offset=offset):
        return net(x)


def test_shards_get_their_part_of_the_masks():
    net, x = Net(), inputs((64, 8))
    whole = keyed_pass(net, x, 0)
    parts = [keyed_pass(net, x[i : i + 16], 0, i) for i in range(0, 64, 16)]
    assert torch.equal(torch.cat(parts, 1), whole)


def test_wrappers_do_not_change_names():
    net, x = Net(), inputs((6, 8))
    expected = keyed_pass(net, x, 0)
    inner = Net()
    inner.last = torch.compile(inner.last, backend="eager")
    wrapped = nn.DataParallel(inner)
    assert torch.equal(keyed_pass(wrapped, x, 0), expected)


def test_keyed_leaves_others_alone_nests_and_ends():
    net, other, x = Net(), tnn.Dropout(), torch.ones(6, 8)
    torch.manual_seed(0)
    free = other(x)
    outer, inner = keyed_pass(net, x, 0), keyed_pass(net, x, 1)
    with tnn.keyed(net, Key(7), 0):
        torch.manual_seed(0)
        assert torch.equal(other(x), free)
        with contextlib.suppress(KeyError), tnn.keyed(net, Key(7), 1):
            assert torch.equal(net(x), inner)
            raise KeyError
        assert torch.equal(net(x), outer)
    assert not torch.equal(net(x), net(x))
    assert not net._forward_pre_hooks


def test_keyed_refuses_a_second_thread_and_wrong_arguments():
    net, said = Net(), []

    def enter():
        try:
            with tnn.keyed(net, Key(0), 0):
                pass
        except RuntimeError as error:
            said.append(str(error))

    with tnn.keyed(net, Key(0), 0):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert said == [
        "model must be inside keyed(...) in one thread at a time, got a second thread: wait for the first, "
        "or give each thread its own copy"
    ]
    for wrong, error, name in (
        ((net, 0, 0), TypeError, "key"),
        ((net, Key(0), -1), ValueError, "step"),
        ((net, Key(0), 0.5), TypeError, "step"),
        ((net, Key(0), 0, -1), ValueError, "sample_offset"),
        ((Key(0), Key(0), 0), TypeError, "model"),
    ):
        with pytest.raises(error, match=f"^{name} must be"), tnn.keyed(*wrong):
            pass


def test_compiled_keyed_steps_compile_once(fresh_compiler):
    net, x = nn.Sequential(nn.Linear(8, 8), tnn.Dropout(0.5), tnn.DropPath(0.3)), inputs((6, 8))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for step in range(4):
        tnn.set_rate(net, 0.1 * step)
        for offset in (0, 6):
            torch.testing.assert_close(
                keyed_pass(compiled, x, step, offset), keyed_pass(net, x, step, offset)
            )
        compiled(x)
    assert graphs() == 1


# Activation checkpointing: the same masks again.


class Deep(nn.Module):
    """Segments that are checkpointed, and that share one drop, so that calls are run again out of order."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.drop, self.how = tnn.Dropout(0.5), how
        self.lines = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.own = nn.ModuleList(tnn.Dropout(0.3) for _ in range(3))

    def forward(self, x):
        for line, own in zip(self.lines, self.own, strict=True):
            x = self.how(lambda x, line=line, own=own: own(self.drop(line(x)).tanh()), x)
        return x


def plainly(segment, x):
    return segment(x)


def gradients(how, where):
    net = Deep(how)
    x = inputs((8, 16), requires_grad=True)
    torch.manual_seed(5)
    if where == "never":
        net(x).square().sum().backward()
    elif where == "never, after keyed":
        with tnn.keyed(net, Key(1), 2):
            net(x)
        torch.manual_seed(5)
        net(x).square().sum().backward()
    elif where == "backward outside":
        with tnn.keyed(net, Key(1), 2):
            loss = net(x).square().sum()
        loss.backward()
    elif where == "two steps":  # both passes first, then the backward passes
        losses = []
        for step in range(2):
            with tnn.keyed(net, Key(1), step):
                losses.append(net(x).square().sum())
        for loss in losses:
            loss.backward()
    else:
        with tnn.keyed(net, Key(1), 2):
            net(x).square().sum().backward()
    return [x.grad, *(w.grad for w in net.parameters())]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("where", ["never", "never, after keyed", "inside", "backward outside", "two steps"])
def test_checkpointing_gives_the_same_gradients(reentrant, where):
    again = gradients(lambda f, x: checkpoint(f, x, use_reentrant=reentrant), where)
    for ours, expected in zip(again, gradients(plainly, where), strict=True):
        assert torch.equal(ours, expected)


def test_checkpointing_without_the_generators_state():
    """A module with one call a pass is found by its name. With several calls it is not, which is an error."""
    how = lambda f, x: checkpoint(f, x, use_reentrant=False, preserve_rng_state=False)  # noqa: E731
    with pytest.raises(RuntimeError, match="called several times in a pass"):
        gradients(how, "inside")
    grads = []
    for run in (how, plainly):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(16, 16), tnn.Dropout(0.5), nn.Tanh())
        with tnn.keyed(net, Key(0), 0):
            run(net, inputs((8, 16))).square().sum().backward()
        grads.append(net[0].weight.grad)
    assert torch.equal(*grads)


def test_checkpointing_compiled(fresh_compiler):
    eager = gradients(plainly, "inside")
    net = Deep(lambda f, x: checkpoint(f, x, use_reentrant=False))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    x = inputs((8, 16), requires_grad=True)
    with tnn.keyed(compiled, Key(1), 2):
        compiled(x).square().sum().backward()
    for ours, expected in zip([x.grad, *(w.grad for w in net.parameters())], eager, strict=True):
        torch.testing.assert_close(ours, expected)


class Recomputed(nn.Module):
    """Cheap after each drop: what a partitioner recomputes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = tnn.Dropout(0.5), tnn.AlphaDropout(0.4)
        self.line = tnn.DropConnectLinear(16, 8)

    def forward(self, x):
        return self.line(self.b(self.a(2 * x).sin().exp()).cos())


def two_passes(run, net, named, *, after):
    """The gradients of two passes, whose backward passes come after both."""
    torch.manual_seed(3)
    xs, losses = [inputs((8, 16), requires_grad=True) for _ in range(2)], []
    for step, x in enumerate(xs):
        with tnn.keyed(net, Key(1), step) if named else contextlib.nullcontext():
            losses.append(run(x).square().sum())
    torch.manual_seed(after)
    for loss in losses:
        loss.backward()
    return [x.grad for x in xs]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("budget", [1.0, 0.5, 0.1, 0.0])
def test_a_backward_pass_takes_the_masks_of_its_forward_pass(budget, named, fresh_compiler):
    """With a memory budget the compiler's backward pass computes again what was not saved."""
    net = Recomputed()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager_decomp_partition")
    with torch._functorch.config.patch(activation_memory_budget=budget):
        grads = two_passes(compiled, net, named, after=4)
    for ours, eager in zip(grads, two_passes(net, net, named, after=4), strict=True):
        torch.testing.assert_close(ours, eager)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, in its compiler
def test_a_region_with_a_budget(fresh_compiler):
    region = pytest.importorskip("torch.autograd.graph").region_activation_memory_budget
    net = Recomputed()

    class Region(nn.Module):
        def forward(self, x):
            with region(0.0):
                return net(x)

    compiled = torch.compile(Region(), fullgraph=True, backend="aot_eager_decomp_partition")
    for ours, eager in zip(
        two_passes(compiled, net, False, after=4), two_passes(net, net, False, after=4), strict=True
    ):
        torch.testing.assert_close(ours, eager)


def test_a_compiled_module_never_draws_anew_in_a_backward_pass(fresh_compiler):
    compiled = torch.compile(Recomputed(), fullgraph=True, backend="aot_eager")
    for kept in (True, False):
        y = checkpoint(
            compiled, inputs((8, 16), requires_grad=True), use_reentrant=False, preserve_rng_state=kept
        )
        with contextlib.nullcontext() if kept else pytest.raises(RuntimeError, match="in its forward pass"):
            y.sum().backward()


# Other forms of a model.


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("layout", [torch.jagged, torch.strided], ids=str)
def test_nested_tensors(layout):
    parts = [torch.ones(2, 30), torch.ones(4, 30)]
    x = torch.nested.nested_tensor(parts, layout=layout, requires_grad=True)
    y = tnn.Dropout(0.5)(x)
    assert y.is_nested
    assert y.layout == layout
    torch.cat(list((x + y).unbind())).sum().backward()
    for came, slope in zip(y.unbind(), x.grad.unbind(), strict=True):
        assert set(came.unique().tolist()) == {0.0, 2.0}  # of 60 units all alike with a probability of 2⁻⁵⁹
        assert torch.equal(slope, 1.0 + came)
    with pytest.raises(TypeError, match="must not be a nested tensor"):
        tnn.DropPath(0.5)(x)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["Dropout", "Dropout2d", "DropPath", "DropBlock2d", "AlphaDropout"])
def test_torch_script(name):
    """In evaluation a module is not there; in training it is torch's own, or refused."""
    x, module = torch.ones(2, 3, 8, 8), getattr(tnn, name)(0.5)
    assert torch.equal(torch.jit.script(module.eval())(x), x)
    module.train()
    if isinstance(module, torch.nn.modules.dropout._DropoutNd):
        assert not torch.equal(torch.jit.script(module)(x), x)
    else:
        with pytest.raises(TypeError, match=f"torch.jit.script takes no {name} in training"):
            torch.jit.script(module)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torch_trace():
    x, module = torch.ones(8), tnn.Dropout(0.5)
    assert torch.equal(torch.jit.trace(module.eval(), x)(x), x)
    with pytest.raises(RuntimeError, match=r"torch.jit.trace cannot record a dropout in training"):
        torch.jit.trace(module.train(), x, check_trace=False)
