"""Averages over all thinned networks against loops over the masks."""

import itertools
import math

import numpy as np
import pytest
from helpers.ensembles import rows, small, thin_ensemble

from thinned import Key, masks, scratch, theory, uncertainty


def test_the_geometric_mean_of_a_net_without_hidden_layers_is_weight_scaling():
    net = scratch.mlp((6, 3), key=Key(0), drop=scratch.Dropout, input_p=0.3)
    result = uncertainty.average(net, rows(5, 6))
    assert np.allclose(result.geometric, result.scaled, atol=1e-5)
    assert not np.allclose(result.arithmetic, result.scaled, atol=1e-3)
    assert result.networks == 2**6
    assert result.effective == pytest.approx(theory.effective_subnetworks(6, 0.3))


def test_averages_against_a_loop_over_masks():
    net, x = scratch.mlp((3, 4, 2), key=Key(1), drop=scratch.Dropout, p=0.3, init=1.0), rows(3, 3)
    fc1, fc2 = (layer for layer in net.children.values() if isinstance(layer, scratch.Linear))
    total, logs, votes, each = 0.0, 0.0, np.zeros((3, 2)), []
    for mask in itertools.product((0, 1), repeat=4):
        chance = math.prod(0.7 if m else 0.3 for m in mask)
        h = np.maximum(x @ fc1.params["weight"].T + fc1.params["bias"], 0) * mask / 0.7
        z = np.exp(h @ fc2.params["weight"].T + fc2.params["bias"])
        p = z / z.sum(1, keepdims=True)
        total, logs = total + chance * p, logs + chance * np.log(p)
        each.append((chance, p))
        best = p == p.max(1, keepdims=True)
        votes += chance * best / best.sum(1, keepdims=True)
    result = uncertainty.average(net, x)
    assert np.allclose(result.arithmetic, total, atol=1e-5)
    geometric = np.exp(logs) / np.exp(logs).sum(1, keepdims=True)
    assert np.allclose(result.geometric, geometric, atol=1e-5)
    assert np.allclose(result.votes, votes, atol=1e-5)
    assert np.allclose(result.votes.sum(1), 1)
    (chances, found), *rest = uncertainty.subnetworks(net, x)
    assert not rest, "so few are one block"
    assert np.allclose(chances, [chance for chance, _ in each])
    assert np.allclose(found, [p for _, p in each], atol=1e-5), "in the order of itertools.product"


@pytest.mark.parametrize("p", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("together", [1, 1 << 24])
def test_all_picks_against_a_loop(p, together, monkeypatch):
    # one network at a time, or all at once
    monkeypatch.setattr("thinned.uncertainty.all_subnetworks.TOGETHER", together)
    if p == 1.0:
        net, x, chance, every = small(p=p), rows(4, 4), np.ones(1), None
    else:
        net, x = small(p=p), rows(4, 4)
        chance, every = thin_ensemble(net, x, p)
    chances, found = map(np.concatenate, zip(*uncertainty.subnetworks(net, x, thin=True), strict=True))
    assert np.allclose(chances, chance)
    assert chances.sum() == pytest.approx(1.0)
    result = uncertainty.average(net, x, thin=True)
    assert result.networks == len(chance)
    assert result.effective == pytest.approx(math.exp(-np.sum(chance * np.log(chance))))
    if every is not None:
        assert np.allclose(found, every, atol=1e-5), "in the order of itertools.combinations, fewest first"
        assert np.allclose(result.arithmetic, np.tensordot(chance, every, 1), atol=1e-5)
    by_name = uncertainty.average(small(drop=scratch.ThinDropout, p=p), x)
    assert np.allclose(by_name.arithmetic, result.arithmetic, atol=1e-5)


def test_picks_are_those_of_thin():
    """Each unit survives in a share 1 − p of the networks, in P(m)."""
    net, x = scratch.mlp((3, 7, 2), key=Key(1), drop=scratch.ThinDropout, p=0.4, init=1.0), rows(1, 3)
    drawn = masks.picks(7, 0.4, Key(0), 40).counts
    assert set(drawn) == {4, 5}, "4.2 units on average: 35 networks of 4, 21 of 5"
    (chances, _), *rest = uncertainty.subnetworks(net, x)
    assert not rest
    assert chances[:35].sum() == pytest.approx(0.8)
    assert chances[35:].sum() == pytest.approx(0.2)
    with pytest.raises(ValueError, match="must be small enough to keep single units, got 64 units in panels"):
        uncertainty.average(scratch.mlp((3, 64, 2), key=Key(1), drop=scratch.ThinDropout), x)


def test_a_half_makes_the_most_networks():
    rates = np.linspace(0.05, 0.95, 19)
    sizes = [theory.effective_subnetworks(10, p) for p in rates]
    assert rates[int(np.argmax(sizes))] == pytest.approx(0.5)
    assert max(sizes) == pytest.approx(2**10)


def test_too_many_networks_are_refused():
    with pytest.raises(
        ValueError, match=r"at most limit = 1024 thinned networks, got 2\*\*6 · 2\*\*5 of 11 units"
    ):
        uncertainty.average(small(), rows(2, 4), limit=1024)
    with pytest.raises(ValueError, match=r"got 20 \(3 of 6\) · 20 \(2 or 3 of 5\) of 11 units"):
        uncertainty.subnetworks(small(), rows(2, 4), limit=399, thin=True)
    with pytest.raises(ValueError, match="must drop single units of vectors"):
        uncertainty.average(small(drop=scratch.GaussianDropout), rows(2, 4))
