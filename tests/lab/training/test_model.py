"""A trained network in its run's folder: what it predicts, and what becomes of a damaged file."""

import json

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
from helpers.commands import call  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.inspection import permutation_importance  # noqa: E402

import thinned  # noqa: E402
from thinned import _files, uncertainty  # noqa: E402
from thinned.lab import predictions  # noqa: E402
from thinned.lab.data import frames  # noqa: E402
from thinned.lab.data.registry import load as load_data  # noqa: E402
from thinned.lab.errors import LabError  # noqa: E402
from thinned.lab.training.config import Config  # noqa: E402
from thinned.lab.training.keeping import trainer  # noqa: E402
from thinned.lab.training.train import train  # noqa: E402

N = 120


@pytest.fixture
def table(in_tmp):
    """Cells of three kinds, a label of words, and one of numbers."""
    rng = np.random.default_rng(0)
    kind = np.arange(N) % 3
    frame = pd.DataFrame(
        {
            "kind": np.array(["007", "7", "eight"])[kind],
            "size": (100 + 50 * kind + rng.normal(size=N)).round(2),
            "a": (kind + rng.normal(size=N) / 4).round(3),
            "b": rng.choice(["u", "v"], N),
        }
    )
    frame.to_csv("t.csv", index=False)
    return frames.read(in_tmp / "t.csv")[0]


def run(in_tmp, label="kind", method="dropout", **settings):
    data = load_data("t.csv", label=label, drop=("size",) if label == "kind" else ())
    settings = {"hidden": (8,), "epochs": 30, "batch": 16, **settings}
    config = Config(data="t.csv", fingerprint=data.fingerprint, method=method, **settings)
    return train(config, data, in_tmp / "runs", trainer=trainer(data)), data


@pytest.mark.parametrize("method", ["none", "dropout", "gaussian", "drop-connect"])
@pytest.mark.parametrize("activation", ["relu", "maxout"])
def test_it_predicts_as_in_training(in_tmp, table, method, activation):
    if method == "drop-connect" and activation == "maxout":
        pytest.skip("no such network")
    stored, data = run(in_tmp, method=method, activation=activation)
    pipeline = thinned.load(stored.folder)
    kept = _files.load_npz(stored.folder / "predictions.npz")
    p = pipeline.predict_proba(data.source.rows)
    np.testing.assert_allclose(p, kept["outputs"], rtol=1e-5, atol=1e-6)  # float32
    assert list(pipeline.classes_) == ["007", "7", "eight"]
    assert pipeline.score(data.source.rows, data.source.rows["kind"]) == 1 - stored.result["test_error"]
    np.testing.assert_array_equal(clone(pipeline).predict(table), pipeline.predict(table))
    if method == "none":
        with pytest.raises(ValueError, match="model must hold dropout with p > 0"):
            pipeline.predict_proba(table, return_std=True)
        return
    mean, std = pipeline.predict_proba(table, return_std=True, samples=20)
    assert mean.shape == std.shape == (N, 3)
    assert std.max() > 0
    x = pipeline["columns"].transform(table)
    found = uncertainty.predict(pipeline["network"], x, 20, key=thinned.Key(0).fold_in("samples"))
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6)


def test_numbers_have_their_units(in_tmp, table):
    stored, data = run(in_tmp, label="size", method="thin")
    pipeline = thinned.load(str(stored.folder / "model.npz"))
    kept = _files.load_npz(stored.folder / "predictions.npz")
    np.testing.assert_allclose(pipeline.predict(data.source.rows), kept["outputs"], rtol=1e-5)
    mean, std = pipeline.predict(table, return_std=True)
    assert 100 < mean.mean() < 200
    assert 0 < std.mean() < 50
    assert pipeline.score(table, table["size"].astype(float)) > 0.8
    importance = permutation_importance(pipeline, table, table["size"].astype(float), n_repeats=2)
    assert importance.importances_mean.argmax() == list(table.columns).index("kind")


def test_it_is_not_trained_again(in_tmp, table):
    pipeline = thinned.load(run(in_tmp)[0].folder)
    with pytest.raises(TypeError, match="TrainedClassifier must be used as it is: thinned compare trains it"):
        pipeline["network"].fit(np.zeros((3, 3)), [0, 1, 2])
    with pytest.raises(ValueError, match=r"X must have shape \(N, 3\), got \(2, 2\)"):
        pipeline["network"].predict(np.zeros((2, 2)))


def test_damage_is_one_line(in_tmp, table):
    """A changed byte anywhere, a file that ends early, or other content: an error, never another model."""
    stored, _ = run(in_tmp)
    path = stored.folder / "model.npz"
    good = path.read_bytes()
    before = thinned.load(path).predict_proba(table)
    silent = 0
    for at in range(0, len(good), 97):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x55]) + good[at + 1 :])
        try:
            found = thinned.load(path)
        except LabError as error:
            assert "\n" not in str(error)
            continue
        silent += 1  # in a place that nobody reads, such as a date
        np.testing.assert_array_equal(found.predict_proba(table), before)
    assert silent < len(good) / 97 / 2
    path.write_bytes(good[:-30])
    with pytest.raises(LabError, match="train the run again"):
        thinned.load(path)
    path.write_bytes(good)
    arrays = _files.load_npz(path)
    about = json.loads(arrays["about"].tobytes())
    config = about["config"]
    for wrong in (
        {"format": 9},
        {"classes": ["a"]},
        {"blocks": about["blocks"][:1]},
        {"config": {**config, "hidden": [1 << 40]}},
        {"config": {**config, "hidden": [9]}},
        {"config": {**config, "more": 1}},
        {"config": None},
    ):
        text = np.frombuffer(json.dumps({**about, **wrong}).encode(), np.uint8)
        _files.save_npz(path, {**arrays, "about": text})
        with pytest.raises(LabError, match=r"model\.npz: damaged \(.*\); train the run again$"):
            thinned.load(path)
    path.unlink()
    with pytest.raises(LabError, match="no such file; give the folder of a run that thinned compare trained"):
        thinned.load(path.parent)


def test_the_best_of_a_comparison(in_tmp, table):
    options = ["--data", "t.csv", "--label", "kind", "--hidden", "4", "--epochs", "3", "--seeds", "1"]
    assert call("compare", *options, "--out", "out", "--methods", "none,dropout").exit_code == 0
    found = predictions.chosen(in_tmp / "out")
    errors = {
        path.parent.name: json.loads(path.read_text())["test_error"]
        for path in in_tmp.glob("out/*/result.json")
    }
    assert errors[found.name] == min(errors.values())
    assert predictions.chosen(found) == found
    assert (found / "model.npz").exists()
