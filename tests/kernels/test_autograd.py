"""All derivatives of the kernels: forward, backward, second, batched; by autograd and by torch.func."""

import pytest

import thinned
from thinned import Key

torch = pytest.importorskip("torch")

from torch.autograd import forward_ad, gradcheck, gradgradcheck  # noqa: E402

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
