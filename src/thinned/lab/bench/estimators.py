"""The scikit-learn estimators against scikit-learn's: an epoch of large layers, a whole fit of a table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from thinned.estimators import DropoutMLPClassifier
from thinned.key import Key, normals
from thinned.lab.bench.harness.measure import Case

PEERS = ("sklearn",)
HIDDEN = {(512, 512): 0.45, (1024, 1024): 0.35}  # and the goal: our time over theirs
EPOCHS = 200  # at most, of the small table: the default of both
ROWS, FEATURES, CLASSES = 6000, 784, 10  # a tenth of MNIST: the time of a step does not depend on the digits


def cases(threads: int) -> Iterator[Case]:
    """Large layers with either solver; then a small table as created, until training stops."""
    x, labels = data(ROWS, FEATURES)
    for hidden, goal in HIDDEN.items():
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
            yield Case(group, name, "thinned", works, {"MLPClassifier": goal}, threads)
    x, labels = load_digits(return_X_y=True)
    table: dict[str, Any] = {"max_iter": EPOCHS, "random_state": 0}
    works = {
        "thinned": fit(DropoutMLPClassifier(**table), x / 16, labels, threads),
        "MLPClassifier": fit(MLPClassifier(**table), x / 16, labels, threads),
    }
    yield Case(
        "a whole fit, as created", "digits, 1797 rows", "thinned", works, {"MLPClassifier": 1.0}, threads
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


def fit(model: Any, x: NDArray[np.float64], y: NDArray[Any], threads: int) -> Callable[[], object]:
    """Training from the first weights until it stops."""

    def work() -> object:
        with threadpool_limits(threads, user_api="blas"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(x, y)

    return work
