"""Where masks come from inside torch.func: a seed a call, and a mask an example where vmap asks for it."""

import contextlib

import pytest

torch = pytest.importorskip("torch")

from torch.func import functional_call, grad, jvp, vmap  # noqa: E402

import thinned.nn as tnn  # noqa: E402
from thinned import Key  # noqa: E402

# torch's own forward-mode AD scripts its decompositions.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

MIDDLES = {
    "Dropout": lambda: tnn.Dropout(0.5),
    "in place": lambda: tnn.Dropout(0.5, inplace=True),
    "GaussianDropout": lambda: tnn.GaussianDropout(0.5),
    "AlphaDropout": lambda: tnn.AlphaDropout(0.5),
    "DropPath": lambda: tnn.DropPath(0.5),
    "DropConnectLinear": lambda: tnn.DropConnectLinear(8, 8),
    "DropConnectLinear, one mask": lambda: tnn.DropConnectLinear(8, 8, per_sample=False),
}
each_middle = pytest.mark.parametrize("middle", MIDDLES.values(), ids=MIDDLES)
both = pytest.mark.parametrize("keyed", [False, True], ids=["seeded", "keyed"])
ROWS = 5


def made(middle):
    """A network, its parameters and an input."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), middle(), torch.nn.Linear(8, 2)).double()
    x = torch.randn(ROWS, 6, dtype=torch.float64)
    torch.manual_seed(7)
    return net, {name: p.detach() for name, p in net.named_parameters()}, x


def scope(net, keyed, first=0):
    return tnn.keyed(net, Key(1), 0, first) if keyed else contextlib.nullcontext()


def squares(net):
    return lambda parameters, x: functional_call(net, parameters, (x,)).square().sum()


@both
@each_middle
def test_gradients_of_torch_func_are_those_of_autograd(middle, keyed):
    net, parameters, x = made(middle)
    with scope(net, keyed):
        came = grad(squares(net))(parameters, x)
    net, _, x = made(middle)
    with scope(net, keyed):
        net(x).square().sum().backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(came[name], p.grad, msg=name)


@both
@each_middle
def test_tangents_are_gradients(middle, keyed):
    net, parameters, x = made(middle)
    with scope(net, keyed):
        _, tangent = jvp(lambda x: squares(net)(parameters, x), (x,), (torch.ones_like(x),))
    net, _, x = made(middle)
    x.requires_grad_()
    with scope(net, keyed):
        (slope,) = torch.autograd.grad(net(x).square().sum(), x)
    torch.testing.assert_close(tangent, slope.sum())


@each_middle
def test_randomness_of_vmap(middle):
    """Of one row, many times: with "same" one mask, with "different" many; "error" is an error."""
    net, _, x = made(middle)
    rows = x[:1].expand(64, -1)
    same = vmap(lambda row: net(row[None])[0], randomness="same")(rows)
    assert (same == same[0]).all()
    different = vmap(lambda row: net(row[None])[0], randomness="different")(rows)
    assert len(different.unique(dim=0)) > 1  # of 64 masks all are equal with a probability of 2⁻⁶³ at most
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(lambda row: net(row[None])[0])(rows)


@each_middle
def test_examples_inside_keyed_are_one_batch(middle):
    net, _, x = made(middle)
    with tnn.keyed(net, Key(1), 0):
        whole = net(x)
    with tnn.keyed(net, Key(1), 0):
        each = vmap(lambda row: net(row[None])[0], randomness="different")(x)
    torch.testing.assert_close(each, whole)


@both
@each_middle
def test_gradients_of_each_sample(middle, keyed):
    net, parameters, x = made(middle)

    def loss(parameters, row):
        return squares(net)(parameters, row[None])

    with scope(net, keyed):
        each = vmap(grad(loss), in_dims=(None, 0), randomness="different")(parameters, x)
    if not keyed:
        assert all(each[name].shape == (ROWS, *p.shape) for name, p in parameters.items())
        return
    for i in range(ROWS):
        with scope(net, keyed, first=i):
            one = torch.autograd.grad(net(x[i : i + 1]).square().sum(), list(net.parameters()))
        for name, slope in zip(parameters, one, strict=True):
            torch.testing.assert_close(each[name][i], slope)


@both
@each_middle
def test_batches_of_gradients(middle, keyed):
    net, _, x = made(middle)
    with scope(net, keyed):
        y = net(x)
    some, leaves = torch.randn(3, *y.shape, dtype=y.dtype), list(net.parameters())
    together = torch.autograd.grad(y, leaves, some, is_grads_batched=True, retain_graph=True)
    for i, slope in enumerate(some):
        one = torch.autograd.grad(y, leaves, slope, retain_graph=True)
        torch.testing.assert_close([each[i] for each in together], list(one))


THINNED = {
    "chain": lambda: tnn.thin(
        torch.nn.Sequential(torch.nn.Linear(6, 64), tnn.Dropout(0.5), torch.nn.Linear(64, 6)).double(),
        groups=2,
    ),
    "Residual": lambda: tnn.Residual(torch.nn.Linear(6, 6), 0.5).double(),
}


@both
@pytest.mark.parametrize("make", THINNED.values(), ids=THINNED)
def test_thinned_models_in_torch_func(make, keyed):
    """Dense there, with the mask of the thinned pass."""
    torch.manual_seed(0)
    net, x = make(), torch.randn(ROWS, 6, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    torch.manual_seed(7)
    with scope(net, keyed):
        y = net(x)
    some = torch.randn(3, *y.shape, dtype=y.dtype)
    together = torch.autograd.grad(y, list(net.parameters()), some, is_grads_batched=True, retain_graph=True)
    for i, slope in enumerate(some):
        one = torch.autograd.grad(y, list(net.parameters()), slope, retain_graph=True)
        torch.testing.assert_close([each[i] for each in together], list(one))
    torch.manual_seed(7)
    with scope(net, keyed):
        came = grad(squares(net))(parameters, x)
    slopes = torch.autograd.grad(y.square().sum(), list(net.parameters()))
    torch.testing.assert_close(list(came.values()), list(slopes))
    each = vmap(lambda row: net(row[None])[0], randomness="different")(x[:1].expand(64, -1))
    assert len(each.unique(dim=0)) > 1
