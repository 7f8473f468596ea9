"""An autoencoder with one hidden layer, and measures of co-adaptation and sparsity of its units."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thinned import Key, _files, scratch
from thinned.lab.grids.grid import Budget, Grid, GridTrainer, Group, System, figure
from thinned.lab.reporting.page import Reference
from thinned.lab.reporting.wording import stat_text
from thinned.lab.storage.run import Stored
from thinned.lab.training import networks

ACTIVE = 1e-6  # a unit with a larger activation counts as active
BINS = 30
UNEXPLAINED = "variance not explained, %"
LABELS = ("autoencoder", "autoencoder, dropout")


class Autoencoder(GridTrainer):
    """Inputs → hidden ReLU units → linear outputs that reconstruct the inputs, with squared error.

    The "error" is the share of the variance of the inputs that is not explained.
    """

    keeps = True

    def build(self) -> scratch.Network:
        """The network before training."""
        n, c = self.data.x_train.shape[1], self.config
        arguments = networks.drop_arguments(c.method)
        sizes, key = (n, *c.hidden, n), Key(c.seed).fold_in("init")
        self.variance = float(np.sum(np.var(self.data.x_train, axis=0, dtype=np.float64)))
        net = scratch.mlp(sizes, key=key, p=c.p, input_p=0.0, l2=c.l2, dtype=np.dtype(c.dtype), **arguments)
        return networks.computed(net, c)

    def loss(self) -> scratch.Loss:
        """½‖y − x‖²."""
        return scratch.SquaredError()

    def targets(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The targets: the inputs themselves."""
        return x

    def wrong(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        """The share of variance not explained, times the number of samples."""
        return float(np.sum((outputs - targets) ** 2, dtype=np.float64)) / self.variance

    def measure(self) -> dict[str, Any]:
        """Co-adaptation and sparsity of the hidden units on the test data."""
        hidden = self.hidden(self.data.x_test)
        alive = hidden.std(axis=0) > 0
        correlations = np.corrcoef(hidden[:, alive], rowvar=False)
        others = ~np.eye(int(alive.sum()), dtype=bool)
        weight = self.net.get_params()["0.weight"]
        edges = np.linspace(0.0, float(np.quantile(hidden, 0.999)) or 1.0, BINS + 1)
        counts, _ = np.histogram(np.minimum(hidden, edges[-1]), bins=edges)
        return {
            UNEXPLAINED: 100 * self.history["test_error"][-1],
            "mean absolute correlation": float(np.abs(correlations[others]).mean()),
            "units that never fire": int((~alive).sum()),
            "share of active units": float((hidden > ACTIVE).mean()),
            "mean activation": float(hidden.mean()),
            "smoothness of features": smoothness(weight, self.data.shape),
            "edges": edges.tolist(),
            "shares": (counts / hidden.size).tolist(),
        }

    def hidden(self, x: np.ndarray) -> np.ndarray:
        """The activations of the hidden units in evaluation mode."""
        first = self.net.children["0"], self.net.children["1"]
        for layer in first:
            x = layer.forward(x)
        return x


def smoothness(weight: np.ndarray, shape: tuple[int, ...]) -> float:
    """Mean correlation of a feature's weights with those one pixel to the right; 0 for noise."""
    features = weight.reshape(-1, *shape)
    a, b = features[:, :, :-1].reshape(len(weight), -1), features[:, :, 1:].reshape(len(weight), -1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return float(np.mean((a * b).sum(axis=1) / np.maximum(norm, 1e-12)))


def features(run: Stored) -> np.ndarray:
    """First-layer weights (units, pixels) of a finished run."""
    return _files.load_npz(run.folder / "last.npz")["params/0.weight"]


SETTINGS: Mapping[str, Any] = {"hidden": (256,), "optimizer": "adam", "lr": 3e-3, "l2": 1e-2, "p": 0.5}
SYSTEMS = [
    System(label=name, settings={"method": method}, trainer=Autoencoder)
    for name, method in zip(LABELS, ("none", "dropout"), strict=True)
]
BUDGETS = {
    "smoke": Budget(
        text="8 × 8 digits, 32 units, 15 epochs", data="digits", width=1 / 8, settings={"epochs": 15}
    ),
    "quick": Budget(text="20,000 digits, 256 units, 30 epochs", limit=20_000, settings={"epochs": 30}),
    "paper": Budget(text="all digits, 200 epochs, 3 seeds", seeds=3, settings={"epochs": 200}),
}
DIFFERS = [
    "As many linear outputs as inputs, squared error, Adam at 0.003 falling linearly to 0, L2 0.01. The "
    "source does not print its settings. Rate and L2 were chosen by looking at the features: without L2 they "
    "mostly show their random initial weights.",
]
AutoencoderGrid = functools.partial(
    Grid,
    settings=SETTINGS,
    systems=SYSTEMS,
    budgets=BUDGETS,
    differs=DIFFERS,
    baseline=LABELS[0],
    errors=False,
)


def numbers(groups: Group, figures: Sequence[str], caption: str) -> Reference:
    """A table of these figures with a row per network."""
    rows = [[name, *(stat_text(figure(runs, f)) for f in figures)] for name, runs in groups.items() if runs]
    return Reference(["network", *figures], rows, caption)
