"""Mixed images: what is mixed with what, and the network that is trained first to attend."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")
pytest.importorskip("sklearn")

from thinned import Key, _files
from thinned.lab import experiments
from thinned.lab.data.registry import load
from thinned.lab.experiments.attentive_cutmix import ATTENTIVE
from thinned.lab.grids import image_mixing
from thinned.lab.grids.image_mixing import MixConfig, MixTrainer
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.reproduce import order
from thinned.lab.storage import run as runs
from thinned.lab.storage.run import run_name
from thinned.lab.sweeping import costs
from thinned.lab.sweeping.job import Job
from thinned.lab.sweeping.worker import train_one
from thinned.lab.training import train


@pytest.fixture(scope="module")
def images():
    data = load("digits")
    return dataclasses.replace(data, x_train=data.x_train[:101], y_train=data.y_train[:101])


def config(data, **more):
    usual = {"data": "digits", "fingerprint": data.fingerprint, "system": "a", "engine": "torch", "blocks": 1}
    usual |= {"hidden": (4, 8), "epochs": 3, "batch": 50, "lr": 0.05, "grid": 4, "patches": 5}
    return MixConfig(**usual | {"mix": "attentive"} | more)


def quiet(done, loss):
    """Nobody listens."""


class Stop(Progress):
    """Cuts a run off in its second epoch."""

    def row(self, name, row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt


def parameters(run):
    found = _files.load_npz(run.folder / "last.npz")
    found.pop("history/seconds")
    return {name: array.tobytes() for name, array in found.items()}


def test_a_run_goes_on_where_it_was_and_attends_to_the_same(tmp_path, images):
    c, more = config(images), {"trainer": MixTrainer, "save_every": 0}
    with pytest.raises(KeyboardInterrupt):
        train.train(c, images, tmp_path / "a", Stop(), **more)
    (attending,) = (tmp_path / "a").glob("*/attends/*/last.npz")
    before = attending.stat().st_mtime_ns
    one, two = (train.train(c, images, tmp_path / name, **more) for name in "ab")
    assert attending.stat().st_mtime_ns == before  # trained once
    assert parameters(one) == parameters(two)
    other = train.train(dataclasses.replace(c, mix="cells"), images, tmp_path / "b", **more)
    assert parameters(other)["params/0.0.weight"] != parameters(two)["params/0.0.weight"]


def test_time_and_errors_of_the_network_that_attends_are_apart(tmp_path, images):
    c = config(images)
    run = train_one(Job(c, images, MixTrainer), tmp_path, Progress(), 1.0)
    (attending,) = map(runs.read, (run.folder / "attends").iterdir())
    assert attending.config["mix"] == "none"
    assert attending.config["seed"] != run.config["seed"]
    assert run.measured == {
        image_mixing.SECONDS: attending.seconds,
        image_mixing.ERROR: 100 * attending.result["test_error"],
    }
    assert run.seconds == pytest.approx(sum(run.history["seconds"]))
    assert not list(run.folder.rglob("*.npz"))  # nobody needs parameters any more


def test_the_attention_of_a_batch_is_that_of_its_images(images, monkeypatch):
    trainer = MixTrainer(config(images), images)
    rng = np.random.default_rng(0)
    trainer.attention = rng.random((101, 4, 4))
    seen = []
    real = image_mixing.attentive_cutmix

    def spy(batch, labels, attention, **more):
        seen.append((batch.reshape(len(batch), -1), labels, attention))
        return real(batch, labels, attention, **more)

    monkeypatch.setattr(image_mixing, "attentive_cutmix", spy)
    trainer.next_epoch(quiet)
    assert [len(batch) for batch, _, _ in seen] == [50, 50]  # the last image is alone, and stays as it is
    for batch, labels, attention in seen:
        for image, y, scores in zip(batch, labels, attention, strict=True):
            (rows,) = np.nonzero((trainer.x == image).all(axis=1))
            assert any(np.array_equal(trainer.attention[row], scores) for row in rows)
            assert y in trainer.y[rows]


@pytest.mark.parametrize("mix", ["cutmix", "cells", "attentive"])
def test_images_and_shares_are_mixed_alike(images, mix):
    trainer = MixTrainer(config(images, mix=mix), images)
    trainer.attention = np.random.default_rng(0).random((101, 4, 4)) if mix == "attentive" else None
    trainer._order()
    labels = np.arange(50) % 2
    flat = np.repeat(labels[:, None], 64, axis=1).astype(np.float32)
    x, shares = trainer._mixed(flat, labels, 0)
    # images of class 0 are zeros, those of class 1 ones: the share of class 1 is the mean pixel
    np.testing.assert_allclose(shares[:, 1], x.mean(axis=1), rtol=0, atol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=0, atol=1e-6)
    if mix != "cutmix":
        assert set(np.round(shares[:, 1] * 16).astype(int)) <= {0, 5, 11, 16}
    again, _ = trainer._mixed(flat, labels, 1)
    assert not np.array_equal(again, x)  # each step its own


def test_a_mixed_image_is_of_the_class_that_has_most_of_it(images):
    trainer = MixTrainer(config(images), images)
    outputs = np.eye(10, dtype=np.float32)[[3, 4, 5]]
    shares = 0.7 * np.eye(10)[[3, 4, 6]] + 0.3 * np.eye(10)[[4, 5, 5]]
    assert trainer.wrong(outputs, shares) == 1
    assert trainer.wrong(outputs, np.array([3, 4, 6])) == 1


def test_a_network_that_attends_and_diverges_is_reported(tmp_path, images):
    c = config(images, lr=1e30, schedule="constant")
    run = train_one(Job(c, images, MixTrainer), tmp_path, Progress(), 1.0)
    assert run.status == "failed"
    assert run.failure.startswith("RuntimeError: the attending network diverged in epoch 1")


def test_settings_without_effect_do_not_make_another_run(images):
    plain = config(images, mix="none")
    assert run_name(plain) == run_name(config(images, mix="none", grid=2, patches=1))
    assert run_name(config(images)) != run_name(config(images, patches=1))
    for bad, message in (
        ({"mix": "all"}, "mix must be one of"),
        ({"patches": 17}, r"patches must be in \[0, 17\)"),
    ):
        with pytest.raises(ValueError, match=message):
            config(images, **bad)


def test_attending_counts_as_a_second_network():
    experiment = experiments.load("attentive-cutmix")
    asked = order.order("attentive-cutmix", "smoke", None)
    seconds = {job.config.system: costs.seconds(job, 1) for job in asked.jobs()}
    assert seconds[ATTENTIVE] == pytest.approx(2 * seconds["CutMix"])
    assert set(seconds) == {target.label for target in experiment.targets}


def test_random_scores_are_the_keys_alone(images):
    trainer = MixTrainer(config(images, mix="cells"), images)
    one, two = (trainer._scores(7, 3, Key(k)) for k in (5, 6))
    assert np.array_equal(one, trainer._scores(7, 3, Key(5)))
    assert not np.array_equal(one, two)
    assert one.shape == (7, 4, 4)
