"""Estimators as ONNX graphs, run by onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skl2onnx")
pytest.importorskip("onnxruntime")

import onnxruntime as runtime
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from thinned.estimators import DropoutMLPClassifier, DropoutMLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore")
X, Y = load_iris(return_X_y=True)
X = X.astype(np.float32)
BOUND = 2.0**-16  # float32, some products of tens of numbers below 10
TARGETS = {
    "classes": Y,
    "two": (Y > 0).astype(int),
    "words": np.array(["a", "b", "c"])[Y],
    "labels": np.stack([Y == 0, Y == 1], axis=1).astype(int),
    "floats": 10.0 * Y,
}


def run(model: Any, x: np.ndarray) -> list[np.ndarray]:
    graph = to_onnx(model, x[:1]).SerializeToString()
    return runtime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, {"X": x})


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("target", TARGETS)
def test_classes(target: str, activation: str) -> None:
    net = DropoutMLPClassifier((8, 5), activation, max_iter=20, random_state=0)
    model = make_pipeline(StandardScaler(), net).fit(X, TARGETS[target])
    labels, shares = run(model, X)
    p = model.predict_proba(X)
    np.testing.assert_allclose(shares, p, rtol=0, atol=BOUND)
    other = (labels != model.predict(X)).reshape(len(X), -1).any(axis=1)
    order = np.sort(p, axis=1)
    close = (abs(p - 0.5) < BOUND).any(axis=1) if target == "labels" else order[:, -1] - order[:, -2] < BOUND
    assert not (other & ~close).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("y", "settings"), [(X[:, 0], {}), (X[:, :2], {}), (Y, {"loss": "poisson"})], ids=["one", "two", "counts"]
)
def test_numbers(y: np.ndarray, settings: dict[str, Any], dtype: Any) -> None:
    net = DropoutMLPRegressor((8,), max_iter=20, random_state=0, **settings)
    x = X.astype(dtype)
    model = make_pipeline(StandardScaler(), net).fit(x, y)
    (found,) = run(model, x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.reshape(y.shape), model.predict(x), rtol=BOUND, atol=BOUND)
