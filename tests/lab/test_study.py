"""What is found out after training: baselines, columns that matter, examples that are hard."""

import dataclasses

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
from thinned import _files  # noqa: E402
from thinned.lab import compare  # noqa: E402
from thinned.lab.data.registry import load  # noqa: E402
from thinned.lab.storage.run import predictions  # noqa: E402
from thinned.lab.study import baselines, complete, hardest, study  # noqa: E402
from thinned.lab.sweeping import sweep  # noqa: E402
from thinned.lab.training.config import Config  # noqa: E402

SETTINGS = {"hidden": (8,), "epochs": 30, "batch": 16, "lr": 0.05, "method": "dropout", "p": 0.2}


def made(tmp_path, numbers=False, **settings):
    """A table where `a` decides, `b` and `c` say nothing; two methods, two seeds."""
    rng = np.random.default_rng(4)
    a, b, c = rng.normal(size=(3, 150))
    y = 10 * a if numbers else np.where(a > 0, "up", "down")
    pd.DataFrame({"a": a, "b": b, "c": np.where(c > 0, "u", "v"), "y": y}).to_csv(
        tmp_path / "t.csv", index=False
    )
    data = load(tmp_path / "t.csv", label="y")
    base = Config(data=data.name, fingerprint=data.fingerprint, **(SETTINGS | settings))
    todo = compare.jobs(base, data, ["none", "dropout"], range(2))
    return data, todo, sweep.run(todo, tmp_path / "o")


@pytest.mark.parametrize("numbers", [False, True])
def test_the_column_that_decides_matters_most(tmp_path, numbers):
    data, todo, stored = made(tmp_path, numbers)
    found = study(todo, stored, print)
    assert found.what == "rows"
    means = {name: np.mean(values) for name, values in found.importance.items()}
    assert max(means, key=means.get) == "a"
    assert means["a"] > 3 * max(abs(means["b"]), abs(means["c"]))
    assert found.of in ("none", "dropout")
    np.testing.assert_array_equal(found.labels, data.y_test)
    assert found.columns == ["a", "b", "c"]
    row = data.source.rows.iloc[found.index[0]]
    assert found.rows[0] == [str(cell) for cell in row[["a", "b", "c"]]]


def test_hardest_are_those_with_the_least_probability(tmp_path):
    data, _, stored = made(tmp_path)
    runs = [run for run in stored if run.config["method"] == "none"]
    shares = np.mean([predictions(run.folder)["outputs"] for run in runs], axis=0)
    own = shares[np.arange(len(data.y_test)), data.y_test]
    np.testing.assert_array_equal(hardest(data, runs), np.argsort(own, kind="stable")[:8])


def test_baselines(tmp_path):
    data, *_ = made(tmp_path)
    (shares,) = baselines(data).values()
    np.testing.assert_allclose(shares[0], np.bincount(data.y_train) / len(data.y_train), rtol=1e-6)
    numbers, *_ = made(tmp_path, numbers=True, epochs=1)
    found = baselines(numbers)
    assert set(found["always the mean"]) == {numbers.y_train.mean()}
    assert np.abs(found["linear (ridge)"] - numbers.y_test).max() < 2


def test_held_out_data_is_no_evidence(tmp_path):
    _, todo, stored = made(tmp_path, validation=0.2)
    found = study(todo, stored, print)
    assert len(found.labels) == len(found.index) == 0  # each seed has its own
    assert not found.importance
    one = study(todo[:2], stored[:2], print)  # seed 0 alone
    np.testing.assert_array_equal(one.labels, predictions(stored[0].folder)["labels"])
    assert set(one.baselines) == {"always the largest class"}


def test_the_latest_rows_are_held_out_by_all_seeds(tmp_path):
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"a": rng.normal(size=150), "day": np.arange(150), "y": np.tile(["u", "v"], 75)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = load(tmp_path / "t.csv", label="y", time="day")
    base = Config(data=data.name, fingerprint=data.fingerprint, validation=0.25, **(SETTINGS | {"epochs": 1}))
    todo = compare.jobs(base, data, ["none", "dropout"], range(2))
    stored = sweep.run(todo, tmp_path / "o")
    found = study(todo, stored, print)
    for run in stored:
        np.testing.assert_array_equal(found.labels, predictions(run.folder)["labels"])


def test_runs_that_diverged_leave_baselines(tmp_path):
    _, todo, stored = made(tmp_path, lr=1e30, schedule="constant")
    assert {run.status for run in stored} == {"diverged"}
    found = study(todo, stored, print)
    assert found.baselines
    assert len(found.index) == 0


def test_columns_of_arrays_have_numbers(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 3))
    np.savez(tmp_path / "a.npz", x=x, y=(x[:, 1] > 0).astype(int))
    data = load(tmp_path / "a.npz")
    base = Config(data=data.name, fingerprint=data.fingerprint, **SETTINGS)
    todo = compare.jobs(dataclasses.replace(base, epochs=20), data, ["none"], range(1))
    found = study(todo, sweep.run(todo, tmp_path / "o"), print)
    assert max(found.importance, key=lambda name: found.importance[name][0]) == "1"
    assert found.rows == ()


def test_finished_runs_of_older_versions_get_their_networks(tmp_path):
    _, todo, stored = made(tmp_path)
    names = ("model.npz", "predictions.npz")
    before = {run.folder: [_files.load_npz(run.folder / name) for name in names] for run in stored}
    for i, run in enumerate(stored):
        for name in names[: 1 + i % 2]:
            (run.folder / name).unlink()
    (stored[2].folder / "last.npz").unlink()  # its predictions are there: nothing is lost but the network
    notes = []
    complete(todo, stored, notes.append)
    assert notes == [
        "2 runs of an older version have no predictions; these were computed from their parameters"
    ]
    assert not (stored[2].folder / "model.npz").exists()
    for run in (stored[0], stored[1], stored[3]):
        for name, arrays in zip(names, before[run.folder], strict=True):
            found = _files.load_npz(run.folder / name)
            assert found.keys() == arrays.keys()
            for key in arrays:
                np.testing.assert_array_equal(found[key], arrays[key])
