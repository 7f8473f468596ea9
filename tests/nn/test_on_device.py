"""Modules give the same masks on each device, eager and compiled. `make gpu` runs this file on a GPU."""

import numpy as np
import pytest

import thinned
from thinned import Key

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import thinned.nn as tnn  # noqa: E402

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))
DEVICES = pytest.mark.parametrize("device", ["cpu", GPU])
MODULES = {
    "Dropout": (lambda: tnn.Dropout(0.3), (5, 7, 9)),
    "Dropout2d": (lambda: tnn.Dropout2d(0.3), (3, 5, 4, 4)),
    "AlphaDropout": (lambda: tnn.AlphaDropout(0.3), (5, 70)),
    "FeatureAlphaDropout": (lambda: tnn.FeatureAlphaDropout(0.3), (3, 5, 4)),
    "DropPath": (lambda: tnn.DropPath(0.4), (9, 5)),
    "DropBlock2d": (lambda: tnn.DropBlock2d(0.2, 2), (3, 4, 6, 7)),
}


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@DEVICES
@pytest.mark.parametrize("name", MODULES)
def test_a_module_drops_the_same_units_on_each_device(device, name):
    build, shape = MODULES[name]
    x, grad = numbers(*shape), numbers(*shape, seed=1)
    found = []
    for place in ("cpu", device):
        module, leaf = build().to(place), x.clone().to(place).requires_grad_()
        torch.manual_seed(5)
        y = module(leaf)
        y.backward(grad.to(place))
        found.append((y.detach().cpu(), leaf.grad.cpu()))
    for ours, reference in zip(found[1], found[0], strict=True):
        assert torch.equal(ours == 0, reference == 0)
        torch.testing.assert_close(ours, reference)


@DEVICES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dropout_is_the_reference_to_the_bit(device, dtype):
    x = numbers(33, 65).to(dtype)
    kept = thinned.keep_mask((33, 65), 0.5, key=Key(4))
    y = thinned.dropout(x.to(device), 0.5, key=Key(4)).cpu()
    assert torch.equal(y, torch.where(torch.from_numpy(kept), x * 2, 0))


@DEVICES
def test_compiled_is_eager(device):
    net = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), tnn.Dropout(0.5), nn.Linear(30, 4)).to(device)
    x = numbers(6, 20).to(device)
    faster = torch.compile(net, backend="inductor" if device == "cuda" else "aot_eager")
    found = []
    for model in (net, faster):
        net.zero_grad()
        torch.manual_seed(3)
        y = model(x)
        y.square().sum().backward()
        found.append([y.detach(), *(p.grad.clone() for p in net.parameters())])
    for ours, reference in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)


@DEVICES
@pytest.mark.parametrize("groups", [1, 4, "auto"])
def test_a_thinned_network_is_the_dense_one_with_the_same_picks(device, groups):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), tnn.Dropout(0.5), nn.Linear(64, 48), nn.ReLU(), tnn.Dropout(0.5),
        nn.Linear(48, 4),
    )  # fmt: skip
    x, found = numbers(32, 20), []
    for place in ("cpu", device):
        model = tnn.thin(nn.Sequential(*net).to(place), groups)
        with tnn.keyed(model, Key(7), step=2):
            y = model(x.to(place))
        model.zero_grad()
        y.square().sum().backward()
        grads = [p.grad.to_dense() if p.grad.is_sparse else p.grad for p in model.parameters()]
        found.append([y.detach().cpu(), *(torch.as_tensor(np.asarray(g.cpu())) for g in grads)])
        tnn.thin(model, back=True)
    for ours, reference in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-5)
