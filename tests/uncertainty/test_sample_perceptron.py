"""The kernel of perceptrons gives what the layers give."""

from collections import OrderedDict

import numpy as np
import pytest
from helpers.ensembles import rows, small

from thinned import Key, scratch, uncertainty
from thinned.kernels import networks
from thinned.kernels.networks import Networks, available

PERCEPTRONS = {
    "one": lambda nn: [nn.Linear(4, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 3)],
    "two, dropout first": lambda nn: [
        *(nn.Linear(4, 20), nn.ReLU(), nn.Dropout(0.2), nn.Linear(20, 30), nn.Dropout(0.6), nn.ReLU()),
        nn.Linear(30, 3),
    ],
    "a layer without dropout": lambda nn: [
        *(nn.Linear(4, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 7), nn.ReLU(), nn.Dropout(0.0)),
        *(nn.Linear(7, 30, bias=False), nn.Identity(), nn.Dropout(0.5), nn.Linear(30, 3), nn.ReLU()),
    ],
}
PERCEPTRONS["masks for each row"] = lambda nn: [
    *(nn.Dropout(0.3), nn.Linear(4, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 3)),
]
PERCEPTRONS["of convolutions"] = lambda nn: [
    *(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 5, 2), nn.Flatten(), nn.Dropout(0.5)),
    *(nn.Linear(15, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 3)),
]
OTHERS = {
    "no ReLU": lambda nn: [nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 3)],
    "ReLU first": lambda nn: [nn.Linear(4, 9), nn.Dropout(0.5), nn.ReLU(), nn.Linear(9, 3)],
    "a norm": lambda nn: [nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 3), nn.LayerNorm(3)],
    "a layer called relu": lambda nn: [
        OrderedDict(
            a=nn.Linear(4, 9), b=nn.Dropout(0.5), c=nn.Linear(9, 9), relu=nn.GELU(), d=nn.Linear(9, 3)
        )
    ],
    "masks for each row, twice": lambda nn: [
        *(nn.Dropout(0.5), nn.Dropout(0.2), nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 3)),
    ],
    "masks for each row, later": lambda nn: [
        *(nn.Dropout(0.5), nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 3), nn.Dropout(0.5)),
    ],
    "nothing left": lambda nn: [nn.Dropout(1.0), nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 3)],
}


@pytest.mark.parametrize("name", [*PERCEPTRONS, *OTHERS])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.skipif(not available(np.zeros(1)), reason="the kernel of perceptrons is not here")
def test_the_kernel_of_perceptrons_gives_what_the_layers_give(torch, name, dtype, monkeypatch):
    torch.manual_seed(0)
    make = (PERCEPTRONS | OTHERS)[name]
    model = torch.nn.Sequential(*make(torch.nn)).to(getattr(torch, dtype))
    x = torch.randn(37, 4, dtype=getattr(torch, dtype))
    runs, given = [], []
    monkeypatch.setattr(networks, "Networks", lambda *args: runs.append(1) or Networks(*args))
    for fast in (True, False):
        monkeypatch.setattr(networks, "available", lambda x, fast=fast: fast)
        given.append(uncertainty.sample(model, x, 20, key=Key(3), batch_size=20))
    assert len(runs) == (2 if name in PERCEPTRONS else 0), "batches that the kernel ran"
    tight = 1e-5 if dtype == "float32" else 1e-13
    assert torch.allclose(*given, rtol=tight, atol=tight)


@pytest.mark.skipif(not available(np.zeros(1)), reason="the kernel of perceptrons is not here")
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("input_p", [0.0, 0.2])
def test_the_kernel_gives_what_the_layers_by_hand_give(p, input_p, monkeypatch):
    runs, given, x, net = [], [], rows(40, 4), small(p=p)
    if input_p:
        net = scratch.Network({"input": scratch.Dropout(input_p), **net.children})
    monkeypatch.setattr(networks, "Networks", lambda *args: runs.append(1) or Networks(*args))
    for fast in (True, False):
        monkeypatch.setattr(networks, "available", lambda x, fast=fast: fast)
        given.append(uncertainty.sample(net, x, 20, key=Key(3), batch_size=17))
    assert len(runs) == 3, "batches that the kernel ran"
    assert np.allclose(*given, rtol=1e-5, atol=1e-5)
