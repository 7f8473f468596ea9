"""The data of training: rows of a table, their weights, and masks that belong to rows."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from thinned import functional, keep_mask
from thinned.key import Key, permutation
from thinned.scratch.drops import Drop
from thinned.scratch.layer import Layer
from thinned.scratch.linear import Linear

Array = NDArray[Any]
BLOCK = 1 << 22  # numbers of X that are dense at once: memory stays small for any number of samples


class Data(NamedTuple):
    """Rows to learn from."""

    X: Any  # (N, features), dense or sparse
    targets: Array  # as the loss takes them
    weights: Array | None
    ids: Array | None = None  # of `row_ids`, where masks belong to rows

    def take(self, rows: Array) -> Data:
        """These rows of each."""
        return Data(self.X[rows], self.targets[rows], *(a if a is None else a[rows] for a in self[2:]))


class RowDropout(Drop):
    """Dropout whose mask belongs to the content of a row: copies of a row have the same mask.

    y[i] = r[place[i]]·x[i]/(1 − p), r ~ Bernoulli(1 − p), (N, n) -> same; y = x in evaluation. Call
    `set_rows` before a training pass.
    """

    method = functional.DROPOUT  # by another mask
    place: Array

    def drop(self, x: Array, key: Key | None, sample_offset: int = 0) -> Array:
        """Each row's mask."""
        if key is None or self.p == 0:
            return x
        keep = keep_mask((self.place.max() + 1, x.shape[1]), self.p, key=key)[self.place]
        return np.where(keep, x * x.dtype.type(1 / (1 - self.p)), x.dtype.type(0))

    def backward(self, grad: Array) -> Array:
        """∂L/∂x = ∂L/∂y times the same factors."""
        return self.drop(grad, *self.recall())

    @staticmethod
    def set_rows(layers: list[RowDropout], ids: Array) -> None:
        """Set which rows of a batch are copies, by their ``ids`` (N,)."""
        _, place = np.unique(ids, return_inverse=True)
        for layer in layers:
            layer.place = place


class Column(Layer):
    """(N, 1) -> (N,), as the targets of one output are."""

    moves_only = True

    def forward(self, x: Array, key: Key | None = None) -> Array:
        """(N, 1) -> (N,): the one column of x."""
        return x[:, 0]


def with_zero(layer: Layer) -> Linear:
    """A linear layer of one logit as one of two classes, where the logit of the first is 0."""
    weight, bias = layer.params["weight"], layer.params["bias"]
    both = Linear(weight.shape[1], 2, key=Key(0), dtype=weight.dtype)
    both.params["weight"][:], both.params["bias"][:] = [0 * weight[0], weight[0]], [0.0, bias[0]]
    return both


def row_ids(X: Any) -> Array:
    """A number for each row, (N,), that depends only on its values in float32: their CRC-32.

    Among a million pairs of different rows, fewer than one pair shares a number, and so its masks.
    """
    rows = (row for block in dense_blocks(X) for row in block.astype(np.float32) + 0)  # -0 becomes 0
    return np.fromiter(map(zlib.crc32, rows), np.uint32, X.shape[0])


def dense(rows: Any) -> Array:
    """Sparse rows as an array; an array unchanged."""
    return rows.toarray() if hasattr(rows, "toarray") else rows


def dense_blocks(X: Any) -> Iterator[Array]:
    """X (N, features), a few rows at a time."""
    rows = max(1, BLOCK // X.shape[1])
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
