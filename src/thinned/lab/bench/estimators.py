"""The scikit-learn estimators against scikit-learn's own: one epoch, the same layers, batch and solver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits

from thinned.estimators import DropoutMLPClassifier, DropoutMLPRegressor
from thinned.key import Key, normals
from thinned.lab.bench.harness.measure import Case

PEERS = ("sklearn",)
HIDDEN = ((512, 512), (1024, 1024))
ROWS, FEATURES, CLASSES = 6000, 784, 10  # a tenth of MNIST: the time of a step does not depend on the digits
GOAL = 0.5


def cases(threads: int) -> Iterator[Case]:
    """Large layers with either solver; then a table of few columns, where calls cost more than products."""
    x, labels = data(ROWS, FEATURES)
    for hidden in HIDDEN:
        for solver in ("adam", "sgd"):
            settings: dict[str, Any] = {"hidden_layer_sizes": hidden, "solver": solver, "batch_size": 128}
            works = {
                "thinned": epoch(DropoutMLPClassifier(**settings), x, labels, threads),
                "thinned, a mask a sample": epoch(
                    DropoutMLPClassifier(thin=False, **settings), x, labels, threads
                ),
                "MLPClassifier": epoch(MLPClassifier(**settings), x, labels, threads),
            }
            size = "-".join(map(str, (FEATURES, *hidden, CLASSES)))
            name = f"{size}, {solver}, batch 128"
            group = f"an epoch of {ROWS} rows, p = 0.5"
            yield Case(group, name, "thinned", works, {"MLPClassifier": GOAL}, threads)
    x, numbers = data(2000, 20)
    works = {
        "thinned": epoch(DropoutMLPRegressor(), x, numbers / CLASSES, threads),
        "MLPRegressor": epoch(MLPRegressor(), x, numbers / CLASSES, threads),
    }
    yield Case(
        "an epoch of a small table, as created", "2000 rows of 20 columns", "thinned", works, {}, threads
    )


def data(rows: int, columns: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Normal rows, and the class whose random direction is nearest."""
    x = normals(Key(0), rows * columns).reshape(rows, columns).astype(np.float32)
    directions = normals(Key(1), columns * CLASSES).reshape(columns, CLASSES)
    return x, (x @ directions).argmax(axis=1)


def epoch(model: Any, x: NDArray[np.float32], y: NDArray[Any], threads: int) -> Callable[[], object]:
    """One epoch with `partial_fit`, warm: the model is there already."""
    first = {"classes": np.unique(y)} if is_classifier(model) else {}

    def work() -> object:
        with threadpool_limits(threads, user_api="blas"):
            return model.partial_fit(x, y)

    with threadpool_limits(threads, user_api="blas"):
        model.partial_fit(x, y, **first)
    return work
