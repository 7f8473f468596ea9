"""DropoutMLPClassifier and scikit-learn's MLPClassifier on MNIST: the same layers, batch, solver and epochs.

    python examples/mnist_estimators.py              # trains on all 60,000, tests once at the end
    python examples/mnist_estimators.py --held-out   # trains on 50,000, tests each epoch on the rest

Takes about a quarter of an hour on one core. The two train in turn, an epoch each, so a change in the
machine's speed affects both. Use --held-out to choose settings.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
from sklearn.neural_network import MLPClassifier

from thinned.estimators import DropoutMLPClassifier
from thinned.lab.data.registry import load


def main() -> None:
    """Train both and print their errors and times."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, nargs="+", default=[1024, 1024])
    parser.add_argument("--solver", default="adam", choices=("adam", "sgd"))
    parser.add_argument("--rate", type=float, default=0.001)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--input-dropout", type=float, default=0.0)
    parser.add_argument("--max-norm", type=float)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--data-dir", default=os.environ.get("THINNED_DATA"))
    asked = parser.parse_args()
    mnist = load("mnist", data_dir=asked.data_dir)
    x, y, x_test, y_test = mnist.x_train, mnist.y_train, mnist.x_test, mnist.y_test
    if asked.held_out:
        order = np.random.default_rng(0).permutation(len(x))
        held, rest = order[:10_000], order[10_000:]
        x, y, x_test, y_test = x[rest], y[rest], x[held], y[held]
    same: dict[str, Any] = {
        "hidden_layer_sizes": tuple(asked.hidden),
        "solver": asked.solver,
        "batch_size": 128,
        "learning_rate_init": asked.rate,
        "random_state": asked.seed,
    }
    drops = {"dropout": asked.dropout, "input_dropout": asked.input_dropout, "max_norm": asked.max_norm}
    models = {
        "DropoutMLPClassifier": DropoutMLPClassifier(**same, **drops),
        "MLPClassifier": MLPClassifier(**same),
    }
    taken = dict.fromkeys(models, 0.0)
    for epoch in range(1, asked.epochs + 1):
        for name, model in models.items():
            begin = time.perf_counter()
            model.partial_fit(x, y, classes=np.unique(y))
            taken[name] += time.perf_counter() - begin
            if asked.held_out or epoch == asked.epochs:
                error = 1 - model.score(x_test, y_test)
                print(f"epoch {epoch}: {name}: {error:.2%} error, {taken[name]:.1f} s", flush=True)
    ours, theirs = taken.values()
    print(f"time: {ours / theirs:.2f} of MLPClassifier's")


if __name__ == "__main__":
    main()
