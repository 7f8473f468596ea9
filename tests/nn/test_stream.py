"""Where masks come from inside torch.func: a seed a call, and a mask an example where vmap asks for it."""

import contextlib

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.func import (  # noqa: E402
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vmap,
)
from torch.nn import functional as F  # noqa: E402, N812

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
    net = nn.Sequential(nn.Linear(6, 8), middle(), nn.Linear(8, 2)).double()
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


class Branches(nn.Module):
    """A residual block."""

    def __init__(self):
        super().__init__()
        self.branch, self.path = nn.Sequential(nn.Linear(6, 6), nn.Tanh()), tnn.DropPath(0.5)

    def forward(self, x):
        return x + self.path(self.branch(x))


class Twice(nn.Module):
    """A module that calls dropout as a function, with two rates."""

    def forward(self, x):
        return F.dropout(F.dropout(x, 0.5, self.training), 0.25, self.training)


class Attends(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5 * self.training)


def chain(*between, drop=tnn.Dropout):
    return nn.Sequential(nn.Linear(6, 32), *between, drop(0.5), nn.Linear(32, 2))


def maps():
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.Tanh(), tnn.Dropout2d(0.5), nn.Conv2d(32, 2, 2))
    return nn.Sequential(nn.Unflatten(1, (1, 4, 4)), *net, nn.Flatten())


THINNED = {
    "chain": (lambda: tnn.thin(chain(nn.Tanh()), groups=2), (ROWS, 6)),
    "one group": (lambda: tnn.thin(chain(nn.PReLU(32)), groups=1), (ROWS, 6)),
    "16 groups": (lambda: tnn.thin(chain(nn.Tanh())), (ROWS, 6)),
    "sequences": (lambda: tnn.thin(chain(nn.Tanh()), groups=2), (ROWS, 3, 6)),
    "maps": (lambda: tnn.thin(maps(), groups=2), (ROWS, 16)),
    "branches": (lambda: tnn.thin(nn.Sequential(Branches(), Branches())), (ROWS, 6)),
    "Residual": (lambda: tnn.Residual(nn.Sequential(nn.Linear(6, 6), nn.Tanh()), 0.5), (ROWS, 6)),
}
KEYED = {
    "torch's module": (lambda: chain(nn.Tanh(), drop=nn.Dropout), (ROWS, 6)),
    "function": (lambda: chain(nn.Tanh(), Twice()), (ROWS, 6)),
    "attention": (lambda: nn.Sequential(nn.Linear(6, 8), Attends(), nn.Linear(8, 2)), (ROWS, 3, 6)),
}
each_model = pytest.mark.parametrize(
    ("case", "keyed"),
    [(case, keyed) for case in THINNED.values() for keyed in (False, True)]
    + [(case, True) for case in KEYED.values()],
    ids=[f"{name}, {how}" for name in THINNED for how in ("seeded", "keyed")]
    + [f"{n}, keyed" for n in KEYED],
)


class Made:
    """A model, its parameters and an input, with the same draws in each call of `run`."""

    def __init__(self, case, keyed):
        torch.manual_seed(0)
        make, shape = case
        self.net, self.keyed, self.x = make().double(), keyed, torch.randn(*shape, dtype=torch.float64)
        self.parameters = {name: p.detach() for name, p in self.net.named_parameters()}

    def run(self, what, first=0):
        torch.manual_seed(7)
        with scope(self.net, self.keyed, first):
            return what()

    def loss(self, x):
        return self.net(x).square().sum()

    def gradients(self, x, first=0):
        """Of the loss by each parameter."""
        return list(self.run(lambda: torch.autograd.grad(self.loss(x), list(self.net.parameters())), first))


@each_model
def test_jacobians(case, keyed):
    """All ways of torch.func agree with one pass, and a backward pass for each output."""
    made = Made(case, keyed)
    net, x = made.net, made.x
    expected = made.run(lambda: torch.autograd.functional.jacobian(net, x))
    assert expected.any()
    for way in (jacrev(net), jacrev(net, chunk_size=1), jacfwd(net, randomness="same")):
        torch.testing.assert_close(made.run(lambda way=way: way(x)), expected)
    together = made.run(lambda: torch.autograd.functional.jacobian(net, x, vectorize=True))
    torch.testing.assert_close(together, expected)  # a batch of gradients


@each_model
def test_jacobians_by_parameters(case, keyed):
    made = Made(case, keyed)
    y = made.run(lambda: made.net(made.x))
    leaves, eye = list(made.net.parameters()), torch.eye(y.numel(), dtype=y.dtype).view(-1, *y.shape)
    expected = torch.autograd.grad(y, leaves, eye, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(y, leaves, slope, retain_graph=True) for slope in eye]
    torch.testing.assert_close(list(expected), [torch.stack(each) for each in zip(*one_by_one, strict=True)])

    def call(parameters):
        return functional_call(made.net, parameters, (made.x,)).flatten()

    for way in (jacrev(call), jacfwd(call, randomness="same")):
        came = made.run(lambda way=way: way(made.parameters))
        torch.testing.assert_close(list(came.values()), list(expected))


@each_model
def test_hessians(case, keyed):
    made = Made(case, keyed)
    expected = made.run(lambda: torch.autograd.functional.hessian(made.loss, made.x))
    assert expected.any()
    for way in (jacfwd(jacrev(made.loss), randomness="same"), jacrev(jacrev(made.loss))):
        torch.testing.assert_close(made.run(lambda way=way: way(made.x)), expected)
    if keyed:
        torch.testing.assert_close(made.run(lambda: hessian(made.loss)(made.x)), expected)
    else:  # as of torch's own dropout
        with pytest.raises(RuntimeError, match="randomness of a vmap must be 'same' or 'different'"):
            hessian(made.loss)(made.x)


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")  # torch's own
@each_model
def test_linear_maps(case, keyed):
    """`linearize` records one mask; inside `keyed` that of the pass whose output it returns."""
    made = Made(case, keyed)
    y, tangent = made.run(lambda: linearize(made.net, made.x))
    slope = tangent(made.x)
    assert torch.equal(slope, tangent(made.x))
    if keyed:
        same, expected = made.run(lambda: jvp(made.net, (made.x,), (made.x,)))
        torch.testing.assert_close((y, slope), (same, expected))


@each_model
def test_same_randomness_of_examples(case, keyed):
    """Each example has what it has alone, and so has its gradient."""
    made = Made(case, keyed)
    rows = made.x[:, None]
    each = made.run(lambda: vmap(lambda row: made.net(row)[0], randomness="same")(rows))
    alone = [made.run(lambda row=row: made.net(row)[0]) for row in rows]
    torch.testing.assert_close(each, torch.stack(alone))

    slopes = made.run(lambda: per_sample(made, "same")(made.parameters, rows))
    one_by_one = [made.gradients(row) for row in rows]
    expected = [torch.stack(each) for each in zip(*one_by_one, strict=True)]
    torch.testing.assert_close(list(slopes.values()), expected)


@each_model
def test_different_randomness_of_examples(case, keyed):
    """Each example has a mask of its own; inside `keyed` it is the plain dropout of one batch."""
    made = Made(case, keyed)
    rows = made.x[:, None]

    def different():
        return vmap(lambda row: made.net(row)[0], randomness="different")(rows)

    each = made.run(different)
    slopes = made.run(lambda: per_sample(made, "different")(made.parameters, rows))
    assert [each.shape for each in slopes.values()] == [(ROWS, *p.shape) for p in made.net.parameters()]
    if not keyed:
        rows = rows[:1].expand(64, *rows.shape[1:])
        assert len(different().unique(dim=0)) > 1
        return
    tnn.thin(made.net, back=True)
    torch.testing.assert_close(each, made.run(lambda: made.net(made.x)))
    one_by_one = [made.gradients(row, first=i) for i, row in enumerate(rows)]
    expected = [torch.stack(each) for each in zip(*one_by_one, strict=True)]
    torch.testing.assert_close(list(slopes.values()), expected)


def per_sample(made, randomness):
    """The gradient of each sample."""
    one = grad(lambda parameters, row: functional_call(made.net, parameters, (row,)).square().sum())
    return vmap(one, in_dims=(None, 0), randomness=randomness)


@pytest.mark.parametrize("rows", [4, 80])  # a group has fewer values of a unit than its own statistics need
def test_running_statistics_of_examples(rows):
    """A thinned BatchNorm asks for what torch's own does: running statistics of each example, or none."""
    torch.manual_seed(0)
    nets = [tnn.thin(chain(nn.BatchNorm1d(32)), groups=2) for _ in range(3)]
    x = torch.randn(3, rows, 6)
    with pytest.raises(ValueError, match="running statistics of a BatchNorm inside vmap must be given"):
        vmap(nets[0], randomness="same")(x)
    parameters, buffers = stack_module_state(nets)
    torch.manual_seed(7)
    each = vmap(lambda p, b, x: functional_call(nets[0], (p, b), (x,)), randomness="same")(
        parameters, buffers, x
    )
    for i, net in enumerate(nets):
        torch.manual_seed(7)
        torch.testing.assert_close(each[i], net(x[i]))
        torch.testing.assert_close(buffers["1.running_var"][i], net[1].running_var)
