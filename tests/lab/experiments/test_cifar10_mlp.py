"""`cifar10-mlp`: its rows, inputs dropped in place, and what its report says of the loss."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from thinned import Key
from thinned.key import words
from thinned.lab.data.dataset import Dataset
from thinned.lab.experiments import cifar10_mlp
from thinned.lab.reporting.html import html
from thinned.lab.storage.record import Record
from thinned.lab.storage.run import Stored, run_name
from thinned.lab.sweeping import sweep

CIFAR = cifar10_mlp.EXPERIMENT
ROWS = [target.label for target in CIFAR.targets]


def photographs(n=40, features=12):
    """Ten classes of nothing."""
    key = Key(9)
    pixels = (words(key, 2 * n * features) % 256 / 255).astype(np.float32).reshape(2 * n, features)
    labels = np.arange(2 * n, dtype=np.int64) % 10
    names = tuple(map(str, range(10)))
    return Dataset("cifar10", pixels[:n], labels[:n], pixels[n:], labels[n:], names, (3, 2, 2), "Nothing.")


def test_cifar_rows_differ_as_declared(monkeypatch):
    monkeypatch.setattr(cifar10_mlp, "load", lambda *args, **more: photographs())
    todo = CIFAR.jobs("paper", [0, 1])
    assert [cifar10_mlp.label(dataclasses.asdict(job.config)) for job in todo] == ROWS * 2
    assert len({run_name(job.config) for job in todo}) == 10
    a, b, c, d = (job.config for job in todo[:4])
    assert (a.epochs, a.lr, a.schedule, a.l2, a.batch, a.hidden) == (
        300,
        1e-3,
        "halve",
        1e-3,
        256,
        (2000, 800),
    )
    assert todo[4].config.method == "thin"
    assert [job.p for job in (a, b, c, d)] == [0.0, 0.5, 0.5, 0.5]
    assert [job.input_p for job in (a, b, c, d)] == [0.0, 0.0, 0.1, 0.0]
    assert [job.trainer.__name__ for job in todo[:4]] == ["Trainer", "Trainer", "Trainer", "InPlace"]


def test_inputs_dropped_in_place_are_lost_for_good():
    data = photographs(400, 50)
    ones = dataclasses.replace(data, x_train=np.ones_like(data.x_train))
    config = cifar10_mlp.CifarConfig(
        data="cifar10", fingerprint="", in_place=0.1, hidden=(4,), method="dropout"
    )
    trainer = cifar10_mlp.InPlace(config, ones)
    alive = np.ones(ones.x_train.shape, bool)
    for epoch in range(12):
        trainer.epoch = epoch
        x, keep = trainer.examples(), 0.9 ** (epoch + 1)
        assert not (x != 0)[~alive].any()
        alive = x != 0
        assert x[alive] == pytest.approx(1 / keep, rel=1e-5)
        bound = 5 * math.sqrt(keep * (1 - keep) / x.size)  # five standard deviations of a binomial share
        assert abs(alive.mean() - keep) < bound
    assert np.array_equal(ones.x_train, np.ones_like(ones.x_train))


def test_cifar_smoke(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_mlp, "load", lambda *args, **more: photographs())
    todo = CIFAR.jobs("smoke", [0])
    stored = sweep.run(todo, tmp_path)
    record = Record("cifar10-mlp", "", CIFAR.settings("smoke", todo), budget="smoke")
    page = CIFAR.page(record, stored)
    assert page.references[1].rows[0][:2] == ["source, A, standard", "100.00"]
    assert [row[0] for row in page.references[1].rows[2:]] == ROWS
    assert stored[0].result["parameters"] == 12 * 64 + 64 + 64 * 32 + 32 + 32 * 40 + 40
    assert any("lowest" in note for note in page.notes)
    html(page)


def test_cifar_says_what_became_of_the_loss():
    falls, rises = (Stored(Path("x"), {}, {"loss": loss}, {}) for loss in ([2.0, 1.0], [1.0, 2.0]))
    diverged = Stored(Path("x"), {}, {"loss": []}, {"status": "diverged", "epoch": 1})
    assert "it converges" in cifar10_mlp._convergence("C", [falls])
    assert "no convergence" in cifar10_mlp._convergence("C", [rises])
    assert "diverged in epoch 1" in cifar10_mlp._convergence("C", [diverged])
    assert cifar10_mlp._figures([diverged])[0] == "diverged"
