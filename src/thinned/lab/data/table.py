"""A table: training and test arrays as a network takes them; how arrays of any kind become one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinned.key import Key, permutation
from thinned.lab.data.arrays import FittedArrays
from thinned.lab.errors import LabError

FOUR = ("x_train", "y_train", "x_test", "y_test")
MOST = 20  # whole numbers of more values than this are taken for numbers, not for classes
LARGEST = 1e100  # the square of a larger number may overflow
BLOCK = 1 << 22  # numbers that are scaled at a time: a large table is never copied to float64 as a whole

Array = NDArray[Any]
Bytes = NDArray[np.uint8]
Four = tuple[Bytes, Bytes, Bytes, Bytes]  # training images and labels, test images and labels
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


class Source(NamedTuple):
    """The test rows of a user's table before they became numbers."""

    rows: Any  # a frame of all columns, as they were read
    columns: Any  # a frame of the columns that the network reads
    encode: Any  # the fitted pipeline: `encode.transform(columns)` is x_test


class Table(NamedTuple):
    """Training and test data as a network takes them; images are still bytes, to be divided by 255."""

    x_train: Array  # (N, features), float32 or uint8
    y_train: Array  # (N,) int64: classes; or float64: numbers
    x_test: Array
    y_test: Array
    classes: tuple[str, ...]  # none for numbers
    shape: tuple[int, ...]  # of one example before it was flattened
    note: str
    columns: tuple[Any, ...] = ()  # what each column of a user's table holds: `columns.Column`
    groups: Labels | None = None  # of the training examples: those of a group stay together
    ordered: bool = False  # the groups have an order in time
    source: Source | None = None
    fitted: Any = None  # `FittedColumns` or `FittedArrays`: makes inputs of new data


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


def labels(where: str, y: Array, examples: int, task: str = "auto") -> Array:
    """Labels (N,): int64 or strings for classes, float64 for numbers."""
    if y.shape not in ((examples,), (examples, 1)):
        raise LabError(
            f"{where} must have one label for each of {examples} examples, got the shape {y.shape}"
        )
    y = y.reshape(-1)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind not in "buifU":
        raise LabError(f"{where} must be numbers or strings, got {y.dtype}; convert it")
    if y.dtype.kind == "U":
        if task == "numbers":
            raise LabError(f"{where} must be numbers for --task numbers, got {y[:1].tolist()} and others")
        return y
    finite = np.isfinite(y)
    if not finite.all():
        row = int(np.argmin(finite))
        raise LabError(f"{where} must be finite numbers or strings, got {y[row]} in row {row}")
    codes = y.dtype.kind in "iu" and len(np.unique(y)) <= 0.5 * len(y)  # integers: of any number of classes
    if is_numbers(y, "classes" if task == "auto" and codes else task):
        return y.astype(np.float64)
    whole = (y == np.trunc(y)) & (np.abs(y) < 2**53)
    if not whole.all():
        row = int(np.argmin(whole))
        raise LabError(
            f"{where} must be whole numbers or strings for --task classes, got {y[row]} in row {row}"
        )
    return y.astype(np.int64)


def is_numbers(y: Array, task: str) -> bool:
    """Whether labels that are finite numbers are to be predicted as numbers, not as classes.

    They are classes if they are whole and have at most `MOST` different values, two rows each or more.
    """
    if task != "auto" or y.dtype.kind == "b":
        return task == "numbers"
    distinct = len(np.unique(y))
    return not (y == np.trunc(y)).all() or distinct > MOST or (len(y) >= 10 and 2 * distinct > len(y))


def at_random(examples: int, share: float, key: Key) -> tuple[Labels, Labels]:
    """Indices (training, test), in the order of a permutation; at least one of each."""
    order = permutation(key, examples)
    n_test = min(max(1, round(share * examples)), examples - 1)
    return order[n_test:], order[:n_test]


def divide(path: Path, x: Array, y: Array, share: float) -> Table:
    """Undivided data: a share of each class, or of the numbers, becomes test data."""
    if len(y) == 0:
        raise LabError(f"{path}: no examples; there must be at least two of each class")
    if y.dtype.kind == "f":
        check_numbers(str(path), y)
        train, test = at_random(len(y), share, Key(0))
        return make(path, x[train], y[train], x[test], y[test], f"{share:g}, chosen at random, is test data")
    train, test = stratified(y, share, Key(0))
    if len(test) == 0:
        raise LabError(f"{path}: no class has two examples, so none can be kept for testing; add examples")
    split = f"{share:g} of each class is test data"
    return make(path, x[train], y[train], x[test], y[test], split)


def make(path: Path, x_train: Array, y_train: Array, x_test: Array, y_test: Array, split: str) -> Table:
    """Labels become 0, 1, … in the order of the classes; inputs are flattened, numbers standardised."""
    _check_alike(path, x_train, y_train, x_test, y_test)
    if y_train.dtype.kind == "f":
        check_numbers(f"{path}: y_train", y_train)
        known: tuple[tuple[str, ...], Array, Array] = (), y_train, y_test
    else:
        known = _codes(path, y_train, y_test)
    shape = x_train.shape[1:]
    x_train, x_test = x_train.reshape(len(x_train), -1), x_test.reshape(len(x_test), -1)
    scale, fitted = "bytes / 255", FittedArrays.scaled(shape, 1 / 255, images=True)
    if x_train.dtype != np.uint8:
        scale = "each column standardised with the training data's mean and deviation"
        x_train, x_test, mean, factor = _standardised(path, x_train, x_test)
        fitted = FittedArrays(shape, mean, factor)
    classes, y_train, y_test = known
    note = f"Inputs: {scale}; {split}."
    return Table(x_train, y_train, x_test, y_test, classes, shape, note, fitted=fitted)


def check_numbers(where: str, y: Array) -> None:
    """LabError unless there are two different numbers or more, of a size that can be squared."""
    if len(y) < 2 or y.min() == y.max():
        came = f"{y[0]:g} alone" if len(y) else "none"
        raise LabError(
            f"{where}: labels must be two or more different numbers, got {came}; name another column"
        )
    if np.abs(y).max() > LARGEST:
        raise LabError(f"{where}: labels must be at most {LARGEST:g}, got {np.abs(y).max():g}; correct it")


def _codes(path: Path, y_train: Array, y_test: Array) -> tuple[tuple[str, ...], Labels, Labels]:
    """The classes of the training data, and the place of each label among them."""
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
    return classes, codes.astype(np.int64), test_codes.astype(np.int64)


def of_images(four: Four, classes: tuple[str, ...]) -> Table:
    """Training and test images, flattened, still in bytes."""
    x_train, x_test = (x.reshape(len(x), -1) for x in four[::2])
    y_train, y_test = (y.astype(np.int64) for y in four[1::2])
    note = "Inputs: bytes / 255; its own test data."
    shape = four[0].shape[1:]
    fitted = FittedArrays.scaled(shape, 1 / 255, images=True)
    return Table(x_train, y_train, x_test, y_test, classes, shape, note, fitted=fitted)


def limited(table: Table, limit: int) -> Table:
    """`limit` training and a fifth as many test examples; a smaller limit gives a part of a larger one's."""
    train = permutation(Key(0), len(table.x_train))[:limit]
    test = permutation(Key(0), len(table.x_test))[: max(1, limit // 5)]
    if table.ordered:
        train, test = np.sort(train), np.sort(test)
    source = table.source
    if source is not None:
        source = source._replace(rows=source.rows.iloc[test], columns=source.columns.iloc[test])
    return table._replace(
        groups=None if table.groups is None else table.groups[train],
        source=source,
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


def _standardised(path: Path, train: Array, test: Array) -> tuple[Floats, Floats, Array, Array]:
    """(x - mean) · factor of each column, mean and factor; a constant column becomes 0.

    Mean and factor, 1/deviation, are those of the training data.
    """
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
    return results[0], results[1], mean, factor


def _blocks(x: Array) -> Iterator[tuple[int, Array]]:
    """(start, rows): blocks of about `BLOCK` numbers."""
    rows = max(1, BLOCK * len(x) // max(1, x.size))
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows]


def some_of(names: list[str] | tuple[str, ...]) -> str:
    """The first few names, quoted."""
    return ", ".join(map(repr, names[:12])) + (", …" if len(names) > 12 else "")
