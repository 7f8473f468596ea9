"""Samples of networks in NumPy."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.ensembles import rows, small

from thinned import Key, masks, scratch, uncertainty


@pytest.mark.parametrize("drop", [scratch.Dropout, scratch.GaussianDropout, scratch.ThinDropout])
@pytest.mark.parametrize("thin", [True, False])
def test_by_hand_the_batch_size_changes_nothing(drop, thin):
    net, x = small(drop=drop, input_p=0.3), rows(7, 4)
    whole = uncertainty.predict(net, x, 15, key=Key(1), thin=thin)
    parts = uncertainty.predict(net, x, 15, key=Key(1), thin=thin, batch_size=2)
    assert np.allclose(parts.mean, whole.mean, atol=1e-5)
    assert set(whole.random) == {"0", "3", "6"}
    assert all(layer._saved is None for layer in net.children.values()), "the layers were not used"


def old_picks(n, p, key, groups=1):
    """Exactly k of n: what samples of a prediction still pick."""
    units = np.isin(np.arange(n), masks.survivors(n, p, key)[0])
    return SimpleNamespace(units=units[None])


def test_by_hand_maxout_batch_norm_and_drop_connect(monkeypatch):
    layers = [
        scratch.Maxout(4, 6, key=Key(0)),
        scratch.BatchNorm(6),
        scratch.Dropout(0.5),
        scratch.Maxout(6, 5, key=Key(1)),
        scratch.Dropout(0.4),
        scratch.DropConnect(5, 3, 0.3, key=Key(2)),
    ]
    net, x = scratch.Sequential(*layers), rows(5, 4)
    result = uncertainty.predict(net, x, 10, key=Key(0))
    assert "of the 6 units of 0" in result.random["2"]
    assert result.random["4"] == "Dropout(0.4)", "DropConnect is no reader of units"
    dense = scratch.Sequential(
        *(scratch.ThinDropout(0.5, 1) if i == 2 else layer for i, layer in enumerate(layers))
    )
    monkeypatch.setattr(masks, "picks", old_picks)
    same = uncertainty.predict(dense, x, 10, key=Key(0), thin=False)
    assert np.allclose(same.mean, result.mean, atol=1e-5), "as if all units were computed"


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
