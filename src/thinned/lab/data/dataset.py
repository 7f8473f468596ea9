"""A data set, and the holding out of a part of its training data."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from thinned import _checks
from thinned.key import Key, choose, is_key, permutation
from thinned.lab.data.table import FOUR, Array, Floats, Labels, Source


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test examples, ready for a network.

    Attributes:
        name: the built-in name, or the file's.
        x_train: (N, features) float32; x_test likewise.
        y_train: (N,) int64 in 0 … len(classes) - 1, or float64 for numbers; y_test likewise.
        classes: the names of the classes; empty where numbers are predicted.
        shape: of one example before it was flattened.
        note: how inputs were scaled and split.
        columns: what each column of a user's table holds (`columns.Column`), the label's first.
        groups: (N,) groups of training examples that `holdout` keeps together; None: each for itself.
        ordered: whether the groups have an order in time; `holdout` then takes the latest.
        source: the test rows of a user's table before they became numbers.
        fitted: what makes inputs of new data: `fitted.FittedColumns` or `arrays.FittedArrays`.
    """

    name: str
    x_train: Floats = field(repr=False)
    y_train: Array = field(repr=False)
    x_test: Floats = field(repr=False)
    y_test: Array = field(repr=False)
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    note: str
    columns: tuple[Any, ...] = ()
    groups: Labels | None = field(default=None, repr=False)
    ordered: bool = False
    source: Source | None = field(default=None, repr=False)
    fitted: Any = field(default=None, repr=False)

    @property
    def outputs(self) -> int:
        """Outputs of a network: one a class, or one for a number."""
        return len(self.classes) or 1

    @cached_property
    def fingerprint(self) -> str:
        """BLAKE2b, in hex, of the classes, the shape and the four arrays."""
        digest = hashlib.blake2b(repr((self.classes, self.shape)).encode(), digest_size=16)
        for name in FOUR:
            values = np.ascontiguousarray(getattr(self, name))
            digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
            digest.update(values.data)
        return digest.hexdigest()


def holdout(dataset: Dataset, n_or_share: int | float, key: Key) -> Dataset:
    """The training data alone: a part of it, chosen with `key`, takes the place of the test data.

    Choose a rate or an epoch on this, never on the test data.

    Args:
        dataset: any data set.
        n_or_share: the number of training examples to hold out, or their share in (0, 1).
        key: decides which ones.

    Raises:
        TypeError, ValueError: nothing would be held out, or nothing would be left to train on.
    """
    key = is_key("key", key)
    total = len(dataset.x_train)
    if isinstance(n_or_share, (float, np.floating)):
        if not 0.0 < n_or_share < 1.0:
            raise ValueError(f"n_or_share must be a count, or a share between 0 and 1, got {n_or_share:g}")
        n_or_share = round(n_or_share * total)
    n = _checks.integer("n_or_share", n_or_share, 1, total)
    held = np.zeros(total, bool)
    held[_held_out(dataset, n, key)] = True
    if held.all():
        raise ValueError("groups must leave one to train on, got one alone; hold out nothing")
    return dataclasses.replace(
        dataset,
        x_train=dataset.x_train[~held],
        y_train=dataset.y_train[~held],
        x_test=dataset.x_train[held],
        y_test=dataset.y_train[held],
        groups=None if dataset.groups is None else dataset.groups[~held],
        source=None,
        note=f"{dataset.note} In place of the test data: {n:,} of the training examples, held out.",
    )


def _held_out(dataset: Dataset, n: int, key: Key) -> Labels:
    """Indices of about `n` training examples: any, whole groups, or the latest groups."""
    if dataset.groups is None:
        return choose(key, len(dataset.x_train), n)
    sizes = np.bincount(dataset.groups)
    order = np.arange(len(sizes))[::-1] if dataset.ordered else permutation(key, len(sizes))
    order = order[sizes[order] > 0]
    count = 1 + int(np.argmin(np.abs(np.cumsum(sizes[order]) - n)))
    return np.flatnonzero(np.isin(dataset.groups, order[:count]))
