"""The data of training: rows of a table, their weights, and the batches of a training step."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from thinned.key import Key, permutation
from thinned.scratch.layer import Layer
from thinned.scratch.linear import Linear

Array = NDArray[Any]
BLOCK = 1 << 22  # numbers of X that are dense at once: memory stays small for any number of samples
NEAR = 1 << 16  # the same where a row takes little work: they stay in cache


class Data(NamedTuple):
    """Rows to learn from."""

    X: Any  # (N, features), dense or sparse
    targets: Array  # as the loss takes them
    weights: Array | None
    ids: Array | None = None  # of `row_ids`, where units are dropped

    def take(self, rows: Array) -> Data:
        """These rows of each."""
        return Data(self.X[rows], self.targets[rows], *(a if a is None else a[rows] for a in self[2:]))

    def batch(self, rows: Array) -> Data:
        """These rows, as a training step takes them.

        Where units are dropped, the order depends on the content of the rows alone, and copies become one row
        of larger weight: so a weight of 2 is as two copies, whose masks would differ.
        """
        if self.ids is None:
            return self.take(rows)
        rows = rows[np.argsort(self.ids[rows], kind="stable")]
        ids = self.ids[rows]
        new = np.append(True, ids[1:] != ids[:-1])
        for i in np.flatnonzero(~new):
            new[i] = not self._same(rows[i], rows[i - 1])
        some = self.take(rows[new])
        if new.all():
            return some
        weights = np.ones(len(rows)) if self.weights is None else self.weights[rows]
        return some._replace(weights=np.bincount(np.cumsum(new) - 1, weights).astype(self.X.dtype))

    def _same(self, i: int, j: int) -> bool:
        """Whether two rows and their targets are equal to the last bit."""
        a, b = self.take(np.array([i])), self.take(np.array([j]))
        return np.array_equal(dense(a.X), dense(b.X)) and np.array_equal(a.targets, b.targets)


class Column(Layer):
    """(N, 1) -> (N,), as the targets of one output are."""

    moves_only = True

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(N, 1) -> (N,): the one column of x."""
        return x[:, 0]


class Exp(Layer):
    """y = eˣ, for predictions."""

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """Any shape -> same."""
        y: Array = np.exp(x)
        return y


class Views(list[Array]):
    """Arrays of a network. Setting one, or a slice, copies values into them: all or none."""

    def __init__(self, name: str, arrays: Iterable[Array] = ()) -> None:
        super().__init__(arrays)
        self.name = name

    def __setitem__(self, at: Any, values: Any) -> None:
        places = range(len(self))[at]
        whole = isinstance(places, range)
        places, given = (list(places), list(values)) if whole else ([places], [values])
        if len(given) != len(places):
            raise ValueError(f"{self.name} must have {len(places)} arrays, got {len(given)}")
        arrays = [np.array(value, self[i].dtype) for i, value in zip(places, given, strict=True)]
        for i, array in zip(places, arrays, strict=True):
            if array.shape != self[i].shape:
                raise ValueError(f"{self.name}[{i}] must have shape {self[i].shape}, got {array.shape}")
        for i, array in zip(places, arrays, strict=True):
            self[i][...] = array

    def __reduce__(self) -> tuple[Any, ...]:
        return Views, (self.name, [*self])


def with_zero(layer: Layer) -> Linear:
    """A linear layer of one logit as one of two classes, where the logit of the first is 0."""
    weight, bias = layer.params["weight"], layer.params["bias"]
    both = Linear(weight.shape[1], 2, key=Key(0), dtype=weight.dtype)
    both.params["weight"][:], both.params["bias"][:] = [0 * weight[0], weight[0]], [0.0, bias[0]]
    return both


def row_ids(X: Any, targets: Array) -> Array:
    """A number for each row and its target, (N,): the CRC-32 of their values in float32."""
    y, start, ids = targets.reshape(len(targets), -1), 0, np.empty(len(targets), np.uint32)
    columns = X.shape[1]
    some = np.empty((max(1, NEAR // columns), columns + y.shape[1]), np.float32)
    for block in dense_blocks(X, NEAR):
        rows, stop = some[: len(block)], start + len(block)
        rows[:, :columns], rows[:, columns:] = block, y[start:stop]
        rows += 0.0  # -0 becomes 0
        ids[start:stop] = np.fromiter(map(zlib.crc32, rows), np.uint32, len(rows))
        start = stop
    return ids


def dense(rows: Any) -> Array:
    """Sparse rows as an array; an array unchanged."""
    return rows.toarray() if hasattr(rows, "toarray") else rows


def dense_blocks(X: Any, numbers: int = BLOCK) -> Iterator[Array]:
    """X (N, features), a few rows at a time: at most so many numbers, or one row."""
    rows = max(1, numbers // X.shape[1])
    return (dense(X[i : i + rows]) for i in range(0, X.shape[0], rows))


def hold_out(targets: Array, fraction: float, key: Key) -> tuple[Array, Array]:
    """Rows to train on and rows held out, evenly spaced among all in the order of their targets.

    Raises ValueError where fewer than two would be on either side.
    """
    n = len(targets)
    count = round(fraction * n)
    if not 2 <= count < n - 1:
        raise ValueError(
            f"validation_fraction must leave 2 samples or more on either side of {n}, got {fraction!r}"
        )
    order = permutation(key, n)
    order = order[np.lexsort(targets[order].reshape(n, -1).T)]
    held = np.zeros(n, bool)
    held[order[((np.arange(count) + 0.5) * n / count).astype(int)]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def sample_weights(sample_weight: Any, n: int, dtype: Any) -> Array:
    """Weights (n,), at least 0, not all 0."""
    weights: Array = check_array(sample_weight, ensure_2d=False, dtype=dtype, input_name="sample_weight")
    if weights.shape != (n,):
        raise ValueError(f"sample_weight must have shape ({n},), one a row of X, got {weights.shape}")
    if weights.min() < 0 or not weights.any():
        raise ValueError(f"sample_weight must be at least 0, and not all zero, got {weights.min():g}")
    return weights
