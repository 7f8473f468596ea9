"""The learning rate over training."""

import numpy as np
import pytest
from helpers.clouds import config

from thinned import Key
from thinned.lab.training import learning_rate
from thinned.lab.training.learning_rate import SCHEDULES
from thinned.scratch import Adam, Linear


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_stay_between_0_and_the_full_one(name):
    values = [SCHEDULES[name](t) for t in np.linspace(0.0, 1.0, 101)]
    assert min(values) >= 0.0
    assert max(values) <= 1.0


def test_linear_rises_then_falls_to_nothing():
    values = [learning_rate.linear(t) for t in np.linspace(learning_rate.WARM_UP, 1.0, 50)]
    assert values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert learning_rate.linear(0.0) == learning_rate.linear(1.0) == 0.0
    assert learning_rate.linear(learning_rate.WARM_UP / 2) == pytest.approx(0.5)


def test_cycle_rises_then_falls_to_nothing():
    values = [learning_rate.cycle(t) for t in np.linspace(0.0, 1.0, 101)]
    assert np.argmax(values) == 30
    assert values[30] == 1.0
    assert values[:31] == sorted(values[:31])
    assert values[30:] == sorted(values[30:], reverse=True)
    assert values[0] == values[-1] == 0.0


def test_halve_is_the_sources_rule_at_300_epochs():
    steps = 7  # an epoch
    lr = 1e-3
    ours = config(lr=lr, schedule="halve", epochs=300)
    for epoch in range(300):  # the source halves after epochs 50, 100, 150 and 200
        for step in (epoch * steps, (epoch + 1) * steps - 1):
            assert ours.learning_rate(step, 300 * steps) == pytest.approx(lr, rel=1e-12), epoch
        if epoch % 50 == 49 and epoch < 200:
            lr /= 2


def test_decay_is_adams():
    ours = config(lr=0.05, decay=5e-5, schedule="constant", optimizer="adam")
    assert ours.learning_rate(9_999, 10_001) == pytest.approx(
        0.03333444448148271, rel=1e-12
    )  # as the source prints it
    net, theirs = Linear(1, 1, key=Key(0), dtype=np.float64), Adam(0.05, decay=5e-5)
    before = net.params["weight"].copy()
    net.grads["weight"][:] = 1.0
    theirs.t = 0
    theirs.step(net)
    assert before - net.params["weight"] == pytest.approx(ours.learning_rate(0, 10_001), rel=1e-6)
