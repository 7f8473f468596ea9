"""`thin-parity`: the networks that it trains, and its paired differences."""

import json
from pathlib import Path

import numpy as np
import pytest

from thinned import Key, masks, scratch
from thinned.lab.data.registry import load
from thinned.lab.experiments import thin_parity
from thinned.lab.experiments.thin_parity import SCENES, STEADY, WAYS, SteepConfig, Unpaired, paired
from thinned.lab.storage.run import Stored


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


# --- large rates ---


def steep(way, **more):
    """A trainer of the scene at large rates, on 8 × 8 digits."""
    scene = SCENES[-1]
    settings = {"hidden": (16, 8), "epochs": 2, "lr": 0.1, "optimizer": "sgd", "schedule": "constant"}
    settings |= (WAYS | STEADY)[way] | more
    return scene.trainer(SteepConfig(data="digits", fingerprint="", system=way, **settings), load("digits"))


def test_a_warm_up_rises_in_a_straight_line():
    config = steep(f"{thin_parity.DROPOUT}, warm-up").config
    rates = [config.learning_rate(step, 1000) for step in (0, 99, 199, 200, 999)]
    assert rates == pytest.approx([0.1 / 200, 0.05, 0.1, 0.1, 0.1])
    assert steep(thin_parity.DROPOUT).config.learning_rate(0, 1000) == 0.1


def test_dead_units_give_nothing_for_any_input():
    x = np.abs(np.random.default_rng(0).standard_normal((20, 5)))
    net = scratch.mlp((5, 8, 4, 2), key=Key(0), drop=None, dtype=np.dtype("float64"))
    params = net.get_params()
    params["2.weight"][:] = np.array([-1, 1, 1, 1])[:, None]
    params["2.bias"][:] = [0, 0, 0, -1e9]
    net.set_params(params)
    assert thin_parity.dead_units(net, x) == 2 / 4


def test_large_rates_are_measured_over_the_first_epochs():
    trainer = steep(thin_parity.SIXTEEN)
    losses = []
    loss = trainer.criterion.forward
    trainer.criterion.forward = lambda *of: losses.append(float(loss(*of))) or losses[-1]
    trainer.next_epoch(lambda *_: None)
    dead = thin_parity.dead_units(trainer.net, trainer.x[trainer.part[: thin_parity.SEEN]])
    trainer.next_epoch(lambda *_: None)
    measured = trainer.measure()
    assert measured.pop(thin_parity.NOISE) == trainer.noise
    assert measured == {thin_parity.HIGHEST: max(losses), thin_parity.DEAD: 100 * dead}


def test_inputs_of_mean_0_are_those_of_the_training_data():
    trainer, plain = (steep(way) for way in (f"{thin_parity.SIXTEEN}, inputs of mean 0", thin_parity.SIXTEEN))
    mean = plain.x.mean(axis=0)
    assert np.array_equal(trainer.x, plain.x - mean)
    assert np.array_equal(trainer.data.x_test, plain.data.x_test - mean)


def test_the_first_steps_can_be_dropout():
    late, dropout = steep(thin_parity.LATE, plain=18), steep(thin_parity.DROPOUT)
    assert late.steps < 18 < 2 * late.steps
    for trainer in (late, dropout):
        trainer.next_epoch(lambda *_: None)
    same = [np.array_equal(a, b) for a, b in zip(weights(late), weights(dropout), strict=True)]
    assert all(same)
    assert isinstance(late.net, scratch.Thin)
    for trainer in (late, dropout):
        trainer.next_epoch(lambda *_: None)
    assert not np.array_equal(weights(late)[0], weights(dropout)[0])


def weights(trainer):
    """The parameters of a trainer's network."""
    return [param for _, param, _ in trainer.net.named_params()]


def test_the_variance_is_that_of_gradients_over_masks():
    x, y = np.abs(np.random.default_rng(0).standard_normal((6, 5))), np.array([0, 1, 0, 1, 1, 0])
    net = scratch.mlp((5, 8, 2), key=Key(0), drop=scratch.Dropout, dtype=np.dtype("float64"))
    loss, grads = scratch.SoftmaxCrossEntropy(), []
    for i in range(thin_parity.DRAWS):
        loss.forward(net.forward(x, Key(1).fold_in(i)), y)
        net.backward(loss.backward())
        grads.append(np.concatenate([g.ravel() for _, _, g in net.named_params()]))
    expected = np.var(grads, axis=0, ddof=1).sum()
    assert thin_parity.variance(net, x, y, Key(1)) == pytest.approx(expected, rel=1e-9)


def test_rows_that_are_alike_make_one_pick_noisier_than_dropout():
    """For equal rows, the mean gradient of N masks has 1/N of the variance of one mask's."""
    x, y = np.ones((16, 5)), np.zeros(16, int)
    net = scratch.mlp((5, 32, 2), key=Key(0), drop=scratch.Dropout, dtype=np.dtype("float64"))
    one, all_rows = (thin_parity.variance(n, x, y, Key(1)) for n in (scratch.Thin(net, 1), net))
    assert one > 4 * all_rows


def test_what_keeps_thin_steady_is_compared_with_dropout_that_has_it_too():
    scene = SCENES[-1]
    groups = {
        scene.label(way, 0.1): [
            Stored(Path(), {"seed": 0, "epochs": 1}, {"epoch": []},
                   {"status": "done", "test_error": error, "seconds_per_epoch": 1.0})
        ]
        for way, error in zip(scene.ways, (0.8, 0.9, 0.5, 0.51, 0.4, 0.42, 0.83), strict=True)
    }  # fmt: skip
    _, apart, _ = thin_parity.tables(groups)
    assert {row[0]: row[2] for row in apart.rows} == {
        thin_parity.SIXTEEN: "10.00",
        f"{thin_parity.SIXTEEN}, warm-up": "1.00",
        f"{thin_parity.SIXTEEN}, inputs of mean 0": "2.00",
        thin_parity.LATE: "3.00",
    }


# --- the figures of docs/thin.md are the published ones ---

DOCS = Path(__file__).parents[3] / "docs"
PUBLISHED = {
    row["system"]: row for row in json.loads((DOCS / "results/thin-parity.json").read_text("utf-8"))["rows"]
}


def shown(heading, until):
    """The rows of the first table after a heading of docs/thin.md."""
    text = (DOCS / "thin.md").read_text("utf-8").partition(heading)[2].partition(until)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_differences_in_the_docs_are_the_published_ones():
    rows = shown("**What it costs in accuracy.**", "\n## ")
    scenes = ("MNIST, 256-256", "CIFAR-10, 512-256", "Words, 256-256")
    for scene, (name, *cells) in zip(scenes, rows, strict=True):
        assert name.split(",")[0] == scene.split(",")[0]
        for rate, cell in zip(thin_parity.RATES, cells, strict=True):
            thin, dropout = (PUBLISHED[f"{scene}, {way}, rate {rate:g}"] for way in thin_parity.TWO[::-1])
            if dropout["lost"]:
                assert (cell, set(thin["lost"])) == ("", set(dropout["lost"]))
                continue
            gaps = [
                run["test_error"] - dropout["each"][seed]["test_error"] for seed, run in thin["each"].items()
            ]
            error = np.std(gaps, ddof=1) / len(gaps) ** 0.5
            assert cell == f"{np.mean(gaps):+.2f} ± {error:.2f}".replace("-", "−"), (scene, rate)


def test_the_errors_at_a_large_rate_in_the_docs_are_the_published_ones():
    ways = {
        "dropout": thin_parity.DROPOUT,
        "16 groups": thin_parity.SIXTEEN,
        "16 groups after 50 steps of dropout": thin_parity.LATE,
        "dropout, warm-up of 200 steps": "dropout, warm-up",
        "16 groups, the same warm-up": "thin, 16 groups, warm-up",
        "dropout, inputs of mean 0": "dropout, inputs of mean 0",
        "16 groups, inputs of mean 0": "thin, 16 groups, inputs of mean 0",
    }
    rows = shown("## Large rates", "\n## ")
    assert [row[0] for row in rows] == [*ways]
    for name, noise, highest, dead, lost, error in rows:
        row = PUBLISHED[f"{SCENES[-1].name}, {ways[name]}, rate 0.1"]
        runs = [run["figures"] for run in row["each"].values()]
        errors = [run["test_error"] for run in row["each"].values()]
        losses, units = ([run[kind] for run in runs] for kind in (thin_parity.HIGHEST, thin_parity.DEAD))
        assert highest == f"{min(losses):.1f} to {max(losses):.1f}"
        assert dead == f"{min(units):.0f} to {max(units):.0f} %"
        count = sum(value >= 89.9 for value in errors)
        assert lost == (f"{count} of {len(errors)}" if count else "none")
        spread = f" ± {np.std(errors, ddof=1):.1f}" if max(errors) > min(errors) else ""
        assert error == f"{np.mean(errors):.1f}{spread} %"
        if "±" in noise:
            kept = [run[thin_parity.NOISE] for run in runs]
            assert noise == f"{np.mean(kept):.2f} ± {np.std(kept, ddof=1):.2f}"
