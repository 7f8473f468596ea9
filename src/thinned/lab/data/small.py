"""Data sets that need no file: digits, embedded in scikit-learn, and the spiral, generated."""

from __future__ import annotations

import numpy as np

from thinned import _checks
from thinned.key import Key, is_key, normals, permutation
from thinned.lab.data.arrays import FittedArrays
from thinned.lab.data.table import Floats, Labels, Table, stratified
from thinned.lab.errors import LabError


def digits(test_share: float) -> Table:
    """Handwritten digits of 8 × 8 pixels; `test_share` of each class becomes test data.

    Source: Alpaydin and Kaynak 1998, doi:10.24432/C50P49; the part that scikit-learn has.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise LabError(
            'digits: scikit-learn, which has them, is missing; run pip install "thinned[lab]"'
        ) from None
    x, y = load_digits(return_X_y=True)
    x, y = (x / 16.0).astype(np.float32), y.astype(np.int64)
    train, test = stratified(y, test_share, Key(0))
    note = f"Inputs: grey levels / 16; {test_share:g} of each class is test data."
    fitted = FittedArrays.scaled((8, 8), 1 / 16)
    return Table(x[train], y[train], x[test], y[test], tuple("0123456789"), (8, 8), note, fitted=fitted)


def spiral(samples: int = 2000, classes: int = 3, *, key: Key) -> tuple[Floats, Labels]:
    """Points on spiral arms, `samples` for each of `classes`, one arm after the other.

    Arm c has radius r from 0 to 1 and angle 2.5 t, t from 4c to 4(c + 1) plus 0.2 N(0, 1).

    Returns:
        x (samples · classes, 2) float32, y (samples · classes,) int64.

    Source: Kinsley and Kukieła 2020, "Neural networks from scratch in Python", after Karpathy's CS231n notes.
    """
    samples, classes = _checks.positive_int("samples", samples), _checks.positive_int("classes", classes)
    noise = 0.2 * normals(is_key("key", key), samples * classes).reshape(classes, samples)
    r = np.linspace(0.0, 1.0, samples)
    t = np.linspace(4.0 * np.arange(classes), 4.0 * np.arange(1, classes + 1), samples, axis=1) + noise
    x = np.stack([r * np.sin(2.5 * t), r * np.cos(2.5 * t)], axis=-1)
    return x.reshape(-1, 2).astype(np.float32), np.repeat(np.arange(classes, dtype=np.int64), samples)


def spiral_table() -> Table:
    """Spiral points, shuffled and not scaled: half are training data, half test data."""
    key = Key(0).fold_in("spiral")
    x, y = spiral(key=key.fold_in("points"))
    train, test = np.split(permutation(key.fold_in("order"), len(y)), 2)
    note = "Inputs: the coordinates as they are; 3,000 of 6,000 points are test data."
    fitted = FittedArrays.scaled((2,), 1.0)
    return Table(x[train], y[train], x[test], y[test], ("0", "1", "2"), (2,), note, fitted=fitted)
