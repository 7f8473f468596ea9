"""`thin-parity`: the networks that it trains, and its paired differences."""

import numpy as np
import pytest

from thinned import Key, masks, scratch
from thinned.lab.experiments import thin_parity
from thinned.lab.experiments.thin_parity import SCENES, WAYS, Unpaired, paired


def test_unpaired_groups_are_the_first_of_as_many_pairs():
    x, layer = np.ones((7, 40), np.float32), Unpaired(0.5, 3)
    y = layer.forward(x, Key(1))
    first = masks.picks(40, 0.5, Key(1), 6).units[::2]
    assert np.array_equal(y, 2.0 * first[np.arange(7) % 3])
    assert np.array_equal(layer.backward(3 * x), 3 * y)
    assert np.array_equal(layer.drop(x[4:], Key(1), 4), y[4:])
    assert layer.forward(x) is x


@pytest.mark.parametrize(
    ("differences", "mean", "chance"),
    [
        ([1.0], 1.0, 1.0),
        ([1.0, 2.0, 3.0], 2.0, 2 / 8),
        ([1.0, -1.0], 0.0, 1.0),
        ([-2.0, 1.0, -2.0], -1.0, 4 / 8),
    ],
)
def test_paired_differences(differences, mean, chance):
    stat, found = paired(differences)
    assert stat.mean == pytest.approx(mean)
    assert found == pytest.approx(chance)


def test_scenes_have_systems_of_their_own():
    systems = thin_parity.EXPERIMENT.targets
    assert len({target.label for target in systems}) == len(systems)
    assert len(systems) == sum(len(scene.ways) * len(scene.rates) for scene in SCENES)


@pytest.mark.parametrize("way", [way for way, settings in WAYS.items() if settings.get("groups")])
def test_each_way_trains_with_its_groups(way):
    (job,) = [
        job
        for job in thin_parity.EXPERIMENT.jobs("smoke", [0])
        if job.config.system == SCENES[0].label(way, 0.1)
    ]
    net = job.trainer(job.config, job.dataset).net
    groups = WAYS[way]["groups"]
    if WAYS[way].get("pairs", True):
        assert isinstance(net, scratch.Thin)
        assert net.groups == groups
        assert len(net.thinned) == 2
    else:
        drops = [layer for layer in net.children.values() if isinstance(layer, scratch.ThinDropout)]
        assert [(type(drop), drop.groups) for drop in drops] == [(Unpaired, groups)] * 2
