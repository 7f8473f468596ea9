"""Runs that begin with a Boltzmann machine: shared, repeatable, cut off and continued."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")

from thinned import Key, _files, scratch
from thinned.lab.data.dataset import Dataset
from thinned.lab.data.registry import load
from thinned.lab.grids import pretrained
from thinned.lab.grids.grid import GridTrainer
from thinned.lab.grids.pretrained import Pretrained, PretrainedConfig
from thinned.lab.reporting.progress_bars import Progress
from thinned.lab.storage.run import Stored
from thinned.lab.training import train, trainer

KINDS = ["dbn", "dbm"]
EPOCHS = {"pretraining": 0.5, "joint": 0.25, "epochs": 4}


@pytest.fixture(scope="module")
def data() -> Dataset:
    digits = load("digits")
    return dataclasses.replace(digits, x_train=digits.x_train[:200], y_train=digits.y_train[:200])


def config(data: Dataset, **more: Any) -> PretrainedConfig:
    common: dict[str, Any] = {
        "data": "digits",
        "fingerprint": data.fingerprint,
        "system": "a",
        "hidden": (8, 6),
    }
    common |= {"activation": "sigmoid", "optimizer": "adam", "lr": 1e-3, "batch": 50, **EPOCHS}
    return PretrainedConfig(**{**common, **more})


def run(c: PretrainedConfig, data: Dataset, out: Path, progress: Progress | None = None) -> Stored:
    return train.train(c, data, out, progress, trainer=Pretrained, save_every=0)


def params(stored: Stored) -> dict[str, bytes]:
    arrays = _files.load_npz(stored.folder / "last.npz")
    return {name: array.tobytes() for name, array in arrays.items() if name != "history/seconds"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_begins_with_the_machine(data, kind):
    trainer = Pretrained(config(data, machine=kind, method="dropout", input_p=0.2, lr=1e-30), data)
    key = Key(0).fold_in("pretrain")
    more: dict[str, Any] = {"key": key.fold_in("init"), "l2": trainer.config.machine_l2}
    how: dict[str, Any] = {"epochs": 2, "lr": trainer.config.machine_lr, "batch": pretrained.BATCH}
    if kind == "dbn":
        machine: Any = scratch.DBN((64, 8, 6), **more)
        machine.fit(data.x_train, key=key, **how)
    else:
        machine = scratch.DBM((64, 8, 6), **more)
        machine.pretrain(data.x_train, key=key, **how)
        joint = {**how, "epochs": 1, "lr": trainer.config.joint_lr, "k": pretrained.GIBBS}
        machine.fit(data.x_train, key=key.fold_in("joint"), **joint)
    trainer.next_epoch(lambda done, loss: None)
    linear = [layer for layer in trainer.net.children.values() if isinstance(layer, scratch.Linear)]
    for layer, (weight, bias) in zip(linear, machine.upward(), strict=False):
        assert layer.params["weight"] == pytest.approx(weight, abs=1e-12)
        assert layer.params["bias"] == pytest.approx(bias, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_runs_share_what_was_pretrained(data, tmp_path, monkeypatch, kind):
    plain, dropped = (config(data, machine=kind, method=method) for method in ("none", "dropout"))
    alone = run(dropped, data, tmp_path / "alone")
    first = run(plain, data, tmp_path / "both")
    (file,) = (tmp_path / "both").glob("*.npz")
    assert not list((tmp_path / "alone").glob(f"[!{kind[0]}]*.npz"))
    assert file.name in {path.name for path in (tmp_path / "alone").glob("*.npz")}
    monkeypatch.setattr(Pretrained, "_train", lambda *args: pytest.fail("pretrained twice"))
    second = run(dropped, data, tmp_path / "both")
    assert params(second) == params(alone)
    spent = float(_files.load_npz(file)["seconds"])
    assert min(first.seconds, second.seconds) > spent > 0


def test_what_decides_names_the_file(data, tmp_path):
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"hidden": (8, 7)}, {"machine_lr": 0.1}, {"validation": 0.2}, {"machine": "dbm"},
        {"machine_l2": 0.0},
    ]  # fmt: skip
    for change in changes:
        run(config(data, **change), data, tmp_path)
    run(config(data, lr=2e-3), data, tmp_path)  # finetuning alone: the first's again
    assert len(list(tmp_path.glob("*.npz"))) == len(changes)


class Stop(Progress):
    """Cuts a run off, in pretraining or in its third epoch."""

    def __init__(self, early: bool) -> None:
        self.early = early

    def step(self, done: float, loss: float) -> None:
        if self.early:
            raise KeyboardInterrupt

    def row(self, name: str, row: dict[str, float]) -> None:
        if row["epoch"] == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("early", [True, False])
def test_a_run_goes_on_where_it_was(data, tmp_path, early):
    c = config(data, machine="dbm", method="dropout")
    with pytest.raises(KeyboardInterrupt):
        run(c, data, tmp_path / "cut", Stop(early))
    assert len(list((tmp_path / "cut").glob("dbm-*.npz"))) == (0 if early else 1)
    again, whole = (run(c, data, tmp_path / name) for name in ("cut", "whole"))
    assert params(again) == params(whole)


def test_a_damaged_file_is_made_anew(data, tmp_path):
    c = config(data)
    whole = run(c, data, tmp_path / "a")
    (file,) = (tmp_path / "a").glob("*.npz")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / file.name).write_bytes(file.read_bytes()[:1000])
    assert params(run(c, data, tmp_path / "b")) == params(whole)
    assert _files.load_npz(tmp_path / "b" / file.name).keys() == _files.load_npz(file).keys()


def test_torch_pretrains_the_same_machine(data):
    pytest.importorskip("torch")
    hand, engine = (
        Pretrained(config(data, machine="dbm", engine=name, dtype="float64"), data).pretrained(
            lambda done, loss: None
        )[0]
        for name in ("numpy", "torch")
    )
    for (name, one), (_, two) in zip(hand.named_arrays(), engine.named_arrays(), strict=True):
        assert two == pytest.approx(one, rel=1e-9, abs=1e-12), name


def test_work_counts_pretraining():
    settings = {"hidden": (8, 6), "method": "none", **EPOCHS}
    dense, dbn, dbm = (
        GridTrainer.work(settings, 200, 64, 10),
        Pretrained.work({**settings, "machine": "dbn"}, 200, 64, 10),
        Pretrained.work({**settings, "machine": "dbm"}, 200, 64, 10),
    )
    weights, units, steps = 64 * 8 + 8 * 6, 64 + 8 + 6, 2
    step = 3 * trainer.STEP * steps
    assert dbn == dense + 2 * (200 * (6 * weights + 2 * pretrained.DRAW * units) + step)
    passes = 2 * pretrained.ITERATIONS + 2 * pretrained.GIBBS + 2
    assert dbm == dbn + 200 * (passes * weights + pretrained.GIBBS * pretrained.DRAW * units) + step


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"machine": "gan"}, "machine must be one of 'dbn', 'dbm', got 'gan'"),
        ({"activation": "relu"}, "activation must be one of 'sigmoid', got 'relu'"),
        ({"pretraining": 0.0}, "pretraining must be finite and greater than 0"),
        ({"machine_l2": -1.0}, "machine_l2 must be finite and at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(data, more, message):
    with pytest.raises(ValueError, match=message):
        config(data, **more)
