"""Gaussian clouds to train on, and a configuration for them."""

import numpy as np

from thinned import Key
from thinned.key import normals, words
from thinned.lab.data.dataset import Dataset
from thinned.lab.training.config import Config


def clouds(n=90, features=6, classes=3, seed=1):
    """Gaussian clouds, a third as many to test."""
    key = Key(seed)
    y = (words(key.fold_in("y"), n + n // 3) % classes).astype(np.int64)
    x = normals(key.fold_in("x"), len(y) * features).reshape(len(y), features).astype(np.float32)
    x[np.arange(len(y)), y] += 2.0
    names = tuple(map(str, range(classes)))
    return Dataset("clouds", x[:n], y[:n], x[n:], y[n:], names, (features,), "Clouds.")


DATA = clouds()


def config(**settings):
    settings = {"hidden": (8,), "epochs": 4, "batch": 20, "method": "dropout", **settings}
    return Config(data=DATA.name, fingerprint=DATA.fingerprint, **settings)
