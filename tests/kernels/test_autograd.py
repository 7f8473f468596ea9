"""All derivatives of the kernels: forward, backward, second, batched; by autograd and by torch.func."""

import contextlib
import subprocess
import sys

import pytest

import thinned
from thinned import Key

torch = pytest.importorskip("torch")

from torch import _dynamo, nn  # noqa: E402
from torch._dynamo import compiled_autograd  # noqa: E402
from torch.autograd import forward_ad, gradcheck, gradgradcheck  # noqa: E402

import thinned.nn as tnn  # noqa: E402

# torch's own forward-mode AD scripts its decompositions.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

KEY, N = Key(3), 24
CALLS = {
    "dropout": lambda x: thinned.dropout(x, key=KEY),
    "gaussian": lambda x: thinned.gaussian_dropout(x, key=KEY),
    "alpha": lambda x: thinned.alpha_dropout(x, key=KEY),
    "spatial": lambda x: thinned.spatial_dropout(x.reshape(2, 3, 4), key=KEY),
    "block": lambda x: thinned.drop_block(x.reshape(1, 2, 3, 4), 0.3, 2, key=KEY),
    "thin": lambda x: thinned.functional.thin_dropout(x.reshape(6, 4), key=KEY),
    "connect": lambda x: thinned.drop_connect(x[:12].reshape(3, 4), x[12:].reshape(3, 4), key=KEY),
    "connect, one mask": lambda x: thinned.drop_connect(
        x[:12].reshape(3, 4), x[12:].reshape(3, 4), key=KEY, per_sample=False
    ),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def numbers():
    return torch.linspace(-2.0, 2.0, N, dtype=torch.float64)


@each_call
def test_first_order(call):
    x = numbers().requires_grad_()
    batched = {"check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(call, x, check_forward_ad=True, **batched)


@each_call
def test_second_order(call):
    assert gradgradcheck(call, numbers().requires_grad_(), check_fwd_over_rev=True, check_rev_over_rev=True)


@each_call
def test_torch_func_agrees_with_autograd(call):
    x = numbers()

    def flat(x):
        return call(x).reshape(-1)

    def squares(x):
        return flat(x).square().sum()

    jacobian = torch.autograd.functional.jacobian(flat, x)
    torch.testing.assert_close(torch.func.jacfwd(flat)(x), jacobian)
    torch.testing.assert_close(torch.func.jacrev(flat)(x), jacobian)
    torch.testing.assert_close(torch.func.jvp(flat, (x,), (x,))[1], jacobian @ x)
    hessian = torch.autograd.functional.hessian(squares, x)
    torch.testing.assert_close(torch.func.hessian(squares)(x), hessian)


@each_call
def test_an_example_of_vmap_has_the_mask_of_its_shape(call):
    x = torch.stack([numbers(), numbers() * 3], 1)
    out = torch.vmap(call, in_dims=1)(x)
    torch.testing.assert_close(out, torch.stack([call(x[:, 0]), call(x[:, 1])]))


@pytest.mark.parametrize("recorded", [False, True])
def test_a_tangent_is_never_lost(recorded):
    x = numbers().requires_grad_(recorded)
    with forward_ad.dual_level():
        y, tangent = forward_ad.unpack_dual(CALLS["dropout"](forward_ad.make_dual(x, torch.ones(N).double())))
    assert torch.equal(tangent, torch.where(y == 0, 0.0, 2.0))


def test_drop_connect_of_a_gradient():
    """Its second derivative was cut off: a penalty on gradients did not train the weights."""
    x, weight = numbers()[:12].reshape(3, 4).requires_grad_(), numbers()[12:].reshape(3, 4).requires_grad_()
    y = thinned.drop_connect(x, weight, key=KEY).square().sum()
    (slope,) = torch.autograd.grad(y, x, create_graph=True)
    (of_weight,) = torch.autograd.grad(slope.square().sum(), weight)
    assert of_weight.abs().sum() > 0


# Compiled autograd, which makes a graph of a backward pass.


def thinned_model(groups):
    model = nn.Sequential(nn.Linear(100, 64), nn.ReLU(), tnn.Dropout(0.5), nn.Linear(64, 8))
    tnn.thin(model, groups)
    tnn.SGD(model.parameters(), lr=0.1)  # which asks for compact gradients
    return model


MODELS = {
    "dropout": lambda: tnn.Dropout(0.5),
    "alpha": lambda: tnn.AlphaDropout(0.5),
    "gaussian": lambda: tnn.GaussianDropout(0.5),
    "path": lambda: tnn.DropPath(0.5),
    "in place": lambda: nn.Sequential(nn.Linear(100, 100), tnn.Dropout(0.5, inplace=True)),
    "connect": lambda: tnn.DropConnectLinear(100, 7),
    "connect, one mask": lambda: tnn.DropConnectLinear(100, 7, per_sample=False),
    "residual": lambda: tnn.Residual(nn.Linear(100, 100), 0.5),
    "residual, all dropped": lambda: tnn.Residual(nn.Linear(100, 100), 1.0),
    "thin, one group": lambda: thinned_model(1),
    "thin": lambda: thinned_model(8),
}


def batch(n):
    return torch.linspace(-2.0, 2.0, 100 * n, dtype=torch.float64).reshape(n, 100)


def gradients(model, n, seed, how):
    """Those of input and parameters, of n samples."""
    x = batch(n).requires_grad_()
    model.zero_grad()
    torch.manual_seed(seed)
    loss = model(x).square().sum()
    with how:
        loss.backward()
    return [x.grad, *(parameter.grad.clone() for parameter in model.parameters())]


filtered = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@filtered
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_compiled_autograd_has_the_gradients_of_the_engine(make):
    _dynamo.reset()
    model, compiler = make().double(), torch.compile(backend="eager")
    for seed, n in enumerate((700, 900, 800)):
        ours = gradients(model, n, seed, compiled_autograd._enable(compiler))
        for a, b in zip(ours, gradients(model, n, seed, contextlib.nullcontext()), strict=True):
            torch.testing.assert_close(a, b)


@filtered
def test_a_compiled_model_with_compiled_autograd():
    _dynamo.reset()
    model = nn.Sequential(nn.Linear(100, 90), tnn.Dropout(0.5), tnn.DropConnectLinear(90, 3)).double()

    def step(x):
        model(x).square().sum().backward()

    for n in (700, 900):
        x, found = batch(n), []
        with _dynamo.config.patch(compiled_autograd=True):
            for run in (step, torch.compile(step, backend="aot_eager")):
                model.zero_grad()
                torch.manual_seed(n)
                run(x)
                found.append([parameter.grad for parameter in model.parameters()])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b)


@filtered
def test_a_whole_graph_of_an_eager_backward_pass_is_refused_with_the_reason():
    _dynamo.reset()
    whole = compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True))
    with pytest.raises(Exception, match="thinned's eager code cannot be compiled: compile the forward pass"):
        gradients(tnn.Dropout(0.5), 400, 0, whole)


def test_the_compiler_is_not_imported_before_it_is_needed():
    code = "import sys, torch, thinned.nn as tnn; tnn.Dropout()(torch.ones(9, requires_grad=True)).sum()"
    code += ".backward(); assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
