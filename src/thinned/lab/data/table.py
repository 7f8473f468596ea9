"""A table: training and test arrays as a network takes them; how arrays of any kind become one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinned.key import Key, permutation
from thinned.lab.errors import LabError

FOUR = ("x_train", "y_train", "x_test", "y_test")
BLOCK = 1 << 22  # numbers that are scaled at a time: a large table is never copied to float64 as a whole

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Four = tuple[Bytes, Bytes, Bytes, Bytes]  # training images and labels, test images and labels
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


class Table(NamedTuple):
    """Training and test data as a network takes them; images are still bytes, to be divided by 255."""

    x_train: Array  # (N, features), float32 or uint8
    y_train: Labels
    x_test: Array
    y_test: Labels
    classes: tuple[str, ...]
    shape: tuple[int, ...]  # of one example before it was flattened
    note: str
    columns: tuple[Any, ...] = ()  # what each column of a user's table holds: `columns.Column`


def stratified(y: Array, share: float, key: Key) -> tuple[Labels, Labels]:
    """Indices (training, test). Test data is a share of each class: the first in the order of a permutation.

    A class keeps at least one training example and, if it has two, gives at least one test example. Both
    parts stay in the order of `permutation(key, len(y))`.
    """
    order = permutation(key, len(y))
    _, codes = np.unique(y[order], return_inverse=True)
    for_test = np.zeros(len(y), bool)
    by_class = np.argsort(codes, kind="stable")
    for members in np.split(by_class, np.flatnonzero(np.diff(codes[by_class])) + 1):
        for_test[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return order[~for_test], order[for_test]


def check_inputs(where: str, x: Array) -> None:
    """LabError unless the inputs are finite numbers (N, features, …), at least one of each."""
    if x.dtype.kind not in "buif":
        raise LabError(f"{where} must be an array of numbers, got {x.dtype}; convert it")
    if x.ndim < 2:
        raise LabError(f"{where} must have the shape (examples, features, ...), got {x.shape}; reshape it")
    if x.size == 0:
        raise LabError(f"{where} must have at least one example and one feature, got the shape {x.shape}")
    if x.dtype.kind == "f":
        for start, block in _blocks(x):
            finite = np.isfinite(block)
            if not finite.all():
                index = tuple(int(i) for i in np.unravel_index(np.argmin(finite), finite.shape))
                column = index[1] if len(index) == 2 else index[1:]
                raise LabError(
                    f"{where}: row {start + index[0]}, column {column} is {block[index]}; "
                    "fill in or remove such examples"
                )


def labels(where: str, y: Array, examples: int) -> Array:
    """Labels (N,), as int64 or strings."""
    if y.shape not in ((examples,), (examples, 1)):
        raise LabError(
            f"{where} must have one label for each of {examples} examples, got the shape {y.shape}"
        )
    y = y.reshape(-1)
    if y.dtype.kind == "S":
        return np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind == "f":
        whole = np.isfinite(y) & (y == np.trunc(y)) & (np.abs(y) < 2**53)
        if not whole.all():
            row = int(np.argmin(whole))
            raise LabError(f"{where} must be whole numbers or strings, got {y[row]} in row {row}")
    elif y.dtype.kind not in "buiU":
        raise LabError(f"{where} must be whole numbers or strings, got {y.dtype}; convert it")
    return y if y.dtype.kind == "U" else y.astype(np.int64)


def divide(path: Path, x: Array, y: Array, share: float) -> Table:
    """Undivided data: a share of each class becomes test data."""
    if len(y) == 0:
        raise LabError(f"{path}: no examples; there must be at least two of each class")
    train, test = stratified(y, share, Key(0))
    if len(test) == 0:
        raise LabError(f"{path}: no class has two examples, so none can be kept for testing; add examples")
    split = f"{share:g} of each class is test data"
    return make(path, x[train], y[train], x[test], y[test], split)


def make(path: Path, x_train: Array, y_train: Array, x_test: Array, y_test: Array, split: str) -> Table:
    """Labels become 0, 1, … in the order of the classes; inputs are flattened, numbers standardised."""
    _check_alike(path, x_train, y_train, x_test, y_test)
    values, codes = np.unique(y_train, return_inverse=True)
    classes = tuple(str(value) for value in values)
    if len(classes) < 2:
        raise LabError(f"{path}: training examples must be of two or more classes, got {classes[0]!r} alone")
    test_codes = np.minimum(np.searchsorted(values, y_test), len(values) - 1)
    unseen = values[test_codes] != y_test
    if unseen.any():
        row = int(np.argmax(unseen))
        raise LabError(
            f"{path}: y_test: row {row} is {y_test[row].item()!r}, but the training data has the classes "
            f"{some_of(classes)} alone; add such examples there, or remove them here"
        )
    shape = x_train.shape[1:]
    x_train, x_test = x_train.reshape(len(x_train), -1), x_test.reshape(len(x_test), -1)
    scale = "bytes / 255"
    if x_train.dtype != np.uint8:
        scale = "each column standardised with the training data's mean and deviation"
        x_train, x_test = _standardised(path, x_train, x_test)
    return Table(x_train, codes, x_test, test_codes, classes, shape, f"Inputs: {scale}; {split}.")


def of_images(four: Four, classes: tuple[str, ...]) -> Table:
    """Training and test images, flattened, still in bytes."""
    x_train, x_test = (x.reshape(len(x), -1) for x in four[::2])
    y_train, y_test = (y.astype(np.int64) for y in four[1::2])
    note = "Inputs: bytes / 255; its own test data."
    return Table(x_train, y_train, x_test, y_test, classes, four[0].shape[1:], note)


def limited(table: Table, limit: int) -> Table:
    """`limit` training and a fifth as many test examples; a smaller limit gives a part of a larger one's."""
    train = permutation(Key(0), len(table.x_train))[:limit]
    test = permutation(Key(0), len(table.x_test))[: max(1, limit // 5)]
    return table._replace(
        x_train=table.x_train[train],
        y_train=table.y_train[train],
        x_test=table.x_test[test],
        y_test=table.y_test[test],
        note=f"{table.note} Cut down to {len(train):,} training and {len(test):,} test examples.",
    )


def pixels(x: NDArray[np.uint8]) -> Floats:
    """Bytes as float32 in [0, 1]."""
    return np.divide(x, 255, dtype=np.float32)


def _check_alike(path: Path, x_train: Array, y_train: Array, x_test: Array, y_test: Array) -> None:
    """LabError unless training and test data have examples of one shape and kind, and labels of one kind."""
    fault = None
    if x_train.shape[1:] != x_test.shape[1:]:
        fault = (
            f"x_train and x_test must have examples of one shape, got {x_train.shape[1:]} and "
            f"{x_test.shape[1:]}"
        )
    elif (x_train.dtype == np.uint8) != (x_test.dtype == np.uint8):
        fault = (
            f"x_train and x_test must both be uint8 (images), or neither, got {x_train.dtype} and "
            f"{x_test.dtype}"
        )
    elif (y_train.dtype.kind == "U") != (y_test.dtype.kind == "U"):
        fault = (
            f"y_train and y_test must both be numbers, or both strings, got {y_train.dtype} and "
            f"{y_test.dtype}"
        )
    if fault:
        raise LabError(f"{path}: {fault}; convert one of them")


def _standardised(path: Path, train: Array, test: Array) -> tuple[Floats, Floats]:
    """(x - mean) / deviation of each column, of the training data; a constant column becomes 0."""
    with np.errstate(all="ignore"):  # an overflow is reported below
        mean = train.mean(axis=0, dtype=np.float64)
        variance = sum(np.square(block - mean).sum(axis=0) for _, block in _blocks(train)) / len(train)
        constant = train.max(axis=0) == train.min(axis=0)
        factor = np.where(constant, 0.0, 1.0 / np.sqrt(np.where(constant, 1.0, variance)))
        results = tuple(np.empty(x.shape, np.float32) for x in (train, test))
        for x, result in zip((train, test), results, strict=True):
            for start, block in _blocks(x):
                result[start : start + len(block)] = (block - mean) * factor
    bad = ~np.isfinite(factor) | (factor == 0) & ~constant
    for result in results:
        bad |= ~np.isfinite(result).all(axis=0)
    if bad.any():
        raise LabError(
            f"{path}: column {int(np.argmax(bad))} is too large, too small or too far off to be standardised"
        )
    return results[0], results[1]


def _blocks(x: Array) -> Iterator[tuple[int, Array]]:
    """(start, rows): blocks of about `BLOCK` numbers."""
    rows = max(1, BLOCK * len(x) // max(1, x.size))
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows]


def some_of(names: list[str] | tuple[str, ...]) -> str:
    """The first few names, quoted."""
    return ", ".join(map(repr, names[:12])) + (", …" if len(names) > 12 else "")
