"""Samples of networks in NumPy."""

import subprocess
import sys

import numpy as np
import pytest
from helpers.ensembles import rows, small

from thinned import Key, keep_mask, scratch, uncertainty


@pytest.mark.parametrize("drop", [scratch.Dropout, scratch.GaussianDropout, scratch.ThinDropout])
@pytest.mark.parametrize("thin", [True, False])
def test_by_hand_the_batch_size_changes_nothing(drop, thin):
    net, x = small(drop=drop, input_p=0.3), rows(7, 4)
    whole = uncertainty.predict(net, x, 15, key=Key(1), thin=thin)
    parts = uncertainty.predict(net, x, 15, key=Key(1), thin=thin, batch_size=2)
    assert np.allclose(parts.mean, whole.mean, atol=1e-5)
    assert set(whole.random) == {"0", "3", "6"}
    assert all(layer._saved is None for layer in net.children.values()), "the layers were not used"


def test_by_hand_maxout_batch_norm_and_drop_connect():
    layers = [
        scratch.Maxout(4, 6, key=Key(0)),
        scratch.BatchNorm(6),
        scratch.Dropout(0.5),
        scratch.Maxout(6, 5, key=Key(1)),
        scratch.Dropout(0.4),
        scratch.DropConnect(5, 3, 0.3, key=Key(2)),
    ]
    net, x, samples = scratch.Sequential(*layers), rows(5, 4), 10
    drawn = uncertainty.sample(net, x, samples, key=Key(0), outputs="numbers")
    result = uncertainty.predict(net, x, samples, key=Key(0))
    assert "of the 6 units of 0" in result.random["2"]
    assert result.random["4"] == "Dropout(0.4)", "DropConnect is no reader of units"
    units, norm, _, more, single, last = layers
    for s in range(samples):
        key = Key(0).fold_in(s)
        kept = keep_mask((6,), 0.5, key=key.fold_in("2"))
        y = more.forward(norm.forward(units.forward(x)) * kept / np.float32(0.5))
        y = last.drop(single.drop(y, key.fold_in("4"), 0), key.fold_in("5"), 0)
        assert np.allclose(drawn[s], y, atol=1e-5), "as if all units were computed"


@pytest.mark.parametrize("p", [0.9, 1.0])
def test_a_sample_may_keep_no_unit(p):
    """Two units at p = 0.9: in 81 % of the samples only the biases of the next layer are left."""
    layers = [
        *(scratch.Maxout(4, 2, key=Key(0)), scratch.BatchNorm(2), scratch.Dropout(p)),
        *(
            scratch.Linear(2, 3, key=Key(1)),
            scratch.Sigmoid(),
            scratch.Dropout(p),
            scratch.Linear(3, 2, key=Key(2)),
        ),
    ]
    layers[3].params["bias"] += 1.0
    layers[6].params["bias"] += np.arange(2, dtype=np.float32)
    net, x, samples = scratch.Sequential(*layers), rows(5, 4), 20
    drawn = uncertainty.sample(net, x, samples, key=Key(0), outputs="numbers")
    none = 0
    for s in range(samples):
        kept = [keep_mask((n,), p, key=Key(0).fold_in(s).fold_in(name)) for n, name in ((2, "2"), (3, "5"))]
        none += not kept[0].any()
        y = layers[1].forward(layers[0].forward(x))
        for mask, (reader, activation) in zip(kept, ((3, 4), (6, None)), strict=True):
            y = np.where(mask, y / np.float32(1 - p if p < 1 else 1), 0)
            y = layers[reader].forward(y)
            y = layers[activation].forward(y) if activation else y
        assert np.allclose(drawn[s], y, atol=1e-4)
    assert none > 0


def test_networks_by_hand_need_no_torch():
    code = """
import sys
sys.modules["torch"] = None
import numpy as np, thinned
from thinned import scratch, uncertainty
net = scratch.mlp((4, 6, 3), key=thinned.Key(0), drop=scratch.Dropout)
x = np.ones((2, 4), np.float32)
print(uncertainty.predict(net, x, 3, key=thinned.Key(0)).mean.shape, uncertainty.moments(net, x).mean.shape)
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "(2, 3) (2, 3)"
