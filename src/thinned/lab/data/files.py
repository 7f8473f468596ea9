"""The user's own data: `.npz` and `.csv` files, their labels and scale, and the split of undivided data."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thinned._files import load_npz
from thinned.key import Key, permutation
from thinned.lab.errors import LabError

FOUR = ("x_train", "y_train", "x_test", "y_test")
BLOCK = 1 << 22  # numbers that are scaled at a time, so that a large table needs no second copy in float64

Array = NDArray[Any]
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


class Table(NamedTuple):
    """Training and test data as the network sees them, images but for the division by 255."""

    x_train: Array  # (N, features), float32 or uint8
    y_train: Labels
    x_test: Array
    y_test: Labels
    classes: tuple[str, ...]
    shape: tuple[int, ...]  # of one example, as it came
    note: str


def stratified(y: Array, share: float, key: Key) -> tuple[Labels, Labels]:
    """Indices (training, test): a share of each class, the first in the order of a permutation, is for test.

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


def read_npz(path: Path, test_share: float) -> Table:
    """The arrays `x_train, y_train, x_test, y_test`, or `x, y` to be split.

    uint8 inputs are images and divided by 255; others are standardised. Labels are integers or strings.

    Raises:
        LabError: damaged, or nothing to learn from; it names file, array, row and column.
    """
    try:
        arrays = load_npz(path)
    except ValueError as error:  # its message begins with the path
        raise LabError(str(error)) from error
    names = next((names for names in (FOUR, ("x", "y")) if set(names) <= arrays.keys()), None)
    if names is None:
        came = ", ".join(arrays) or "none"
        raise LabError(
            f"{path}: expected the arrays {', '.join(FOUR)}, or x, y; got {came}; save it with these names"
        )
    for x, y in zip(names[::2], names[1::2], strict=True):
        _check_inputs(f"{path}: {x}", arrays[x])
        arrays[y] = _labels(f"{path}: {y}", arrays[y], len(arrays[x]))
    if names == FOUR:
        x_train, y_train, x_test, y_test = (arrays[name] for name in FOUR)
        return _table(path, x_train, y_train, x_test, y_test, "its own test data")
    return _split(path, arrays["x"], arrays["y"], test_share)


def read_csv(path: Path, label: str | None, test_share: float) -> Table:
    """A comma-separated table whose first line names the columns: one of labels, all others of numbers.

    Raises:
        LabError: no such column, no number, or nothing to learn from; it names file, line and column.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            x, y = _parse_csv(path, csv.reader(file, strict=True), label)
    except UnicodeDecodeError as error:
        raise LabError(
            f"{path}: expected text in UTF-8 ({error.reason} at byte {error.start}); save it so"
        ) from error
    except csv.Error as error:
        raise LabError(f"{path}: not a comma-separated table ({error}); correct it") from error
    return _split(path, x, _labels(f"{path}: column {label!r}", y, len(x)), test_share)


def _parse_csv(path: Path, lines: Any, label: str | None) -> tuple[Array, Array]:
    """Numbers (N, columns - 1) in float64, and labels (N,): integers if all of them are, else strings."""
    header = [name.strip() for name in next(lines, [])]
    if not header:
        raise LabError(f"{path}: empty; expected a first line that names the columns")
    if label is None or header.count(label) != 1:
        fault = (
            "no label column was named"
            if label is None
            else f"{header.count(label)} columns are named {label!r}"
        )
        hint = "; separate columns by commas" if len(header) == 1 and set(";\t") & set(header[0]) else ""
        raise LabError(f"{path}: {fault}, expected --label to be one of {_some(header)}{hint}")
    if len(header) == 1:
        raise LabError(
            f"{path}: only the label column is there, nothing to learn from; add columns of numbers"
        )
    at, numbers, labels = header.index(label), array("d"), []
    for cells in lines:
        if not cells:
            continue
        where = f"{path}: line {lines.line_num}"
        if len(cells) != len(header):
            raise LabError(
                f"{where}: expected {len(header)} columns as in the first line, got {len(cells)}; correct it"
            )
        labels.append(cells.pop(at).strip())
        if not labels[-1]:
            raise LabError(f"{where}, column {label!r}: no label; fill it in or remove the line")
        try:
            numbers.extend(map(float, cells))
        except ValueError:
            raise _no_number(where, cells, header[:at] + header[at + 1 :]) from None
        if not np.isfinite(numbers[-len(cells) :]).all():
            raise _no_number(where, cells, header[:at] + header[at + 1 :])
    x = np.frombuffer(numbers).reshape(len(labels), len(header) - 1)
    try:
        return x, np.array([int(text) for text in labels], np.int64)
    except (ValueError, OverflowError):
        return x, np.array(labels)


def _no_number(where: str, cells: list[str], names: list[str]) -> LabError:
    """What is wrong with the first cell that is no finite number."""
    at = next(i for i, text in enumerate(cells) if not _is_finite(text))
    return LabError(
        f"{where}, column {names[at]!r}: expected a finite number, got {cells[at]!r}; correct or remove it"
    )


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_inputs(where: str, x: Array) -> None:
    if x.dtype.kind not in "buif":
        raise LabError(f"{where}: expected an array of numbers, got {x.dtype}; convert it")
    if x.ndim < 2:
        raise LabError(f"{where}: expected the shape (examples, features, ...), got {x.shape}; reshape it")
    if x.size == 0:
        raise LabError(f"{where}: empty, of shape {x.shape}; expected at least one example and one feature")
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


def _labels(where: str, y: Array, examples: int) -> Array:
    """Labels (N,), as int64 or strings."""
    if y.shape not in ((examples,), (examples, 1)):
        raise LabError(
            f"{where}: expected one label for each of {examples} examples, got the shape {y.shape}"
        )
    y = y.reshape(-1)
    if y.dtype.kind == "S":
        return np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind == "f":
        whole = np.isfinite(y) & (y == np.trunc(y)) & (np.abs(y) < 2**53)
        if not whole.all():
            row = int(np.argmin(whole))
            raise LabError(f"{where}: row {row} is {y[row]}; expected whole numbers or strings, one a class")
    elif y.dtype.kind not in "buiU":
        raise LabError(f"{where}: expected whole numbers or strings, got {y.dtype}; convert it")
    return y if y.dtype.kind == "U" else y.astype(np.int64)


def _split(path: Path, x: Array, y: Array, share: float) -> Table:
    """Undivided data: a share of each class becomes test data."""
    if len(y) == 0:
        raise LabError(f"{path}: no examples; expected at least two of each class")
    train, test = stratified(y, share, Key(0))
    if len(test) == 0:
        raise LabError(f"{path}: no class has two examples, so none can be kept for testing; add examples")
    split = f"{share:g} of each class is test data"
    return _table(path, x[train], y[train], x[test], y[test], split)


def _table(path: Path, x_train: Array, y_train: Array, x_test: Array, y_test: Array, split: str) -> Table:
    """Labels become 0, 1, … in the order of the classes; inputs are flattened, numbers standardised."""
    _check_alike(path, x_train, y_train, x_test, y_test)
    values, codes = np.unique(y_train, return_inverse=True)
    classes = tuple(str(value) for value in values)
    if len(classes) < 2:
        raise LabError(
            f"{path}: all training examples are of one class, {classes[0]!r}; expected two or more"
        )
    test_codes = np.minimum(np.searchsorted(values, y_test), len(values) - 1)
    unseen = values[test_codes] != y_test
    if unseen.any():
        row = int(np.argmax(unseen))
        raise LabError(
            f"{path}: y_test: row {row} is {y_test[row].item()!r}, but the training data has the classes "
            f"{_some(classes)} alone; add such examples there, or remove them here"
        )
    shape = x_train.shape[1:]
    x_train, x_test = x_train.reshape(len(x_train), -1), x_test.reshape(len(x_test), -1)
    scale = "bytes / 255"
    if x_train.dtype != np.uint8:
        scale = "each column standardised with the training data's mean and deviation"
        x_train, x_test = _standardised(path, x_train, x_test)
    return Table(x_train, codes, x_test, test_codes, classes, shape, f"Inputs: {scale}; {split}.")


def _check_alike(path: Path, x_train: Array, y_train: Array, x_test: Array, y_test: Array) -> None:
    """Training and test data must have examples of one shape and kind, and labels of one kind."""
    fault = None
    if x_train.shape[1:] != x_test.shape[1:]:
        fault = f"one shape of examples in x_train and x_test, got {x_train.shape[1:]} and {x_test.shape[1:]}"
    elif (x_train.dtype == np.uint8) != (x_test.dtype == np.uint8):
        fault = f"uint8 (images) in both x_train and x_test, or none, got {x_train.dtype} and {x_test.dtype}"
    elif (y_train.dtype.kind == "U") != (y_test.dtype.kind == "U"):
        fault = f"numbers in both y_train and y_test, or strings, got {y_train.dtype} and {y_test.dtype}"
    if fault:
        raise LabError(f"{path}: expected {fault}; convert one of them")


def _standardised(path: Path, train: Array, test: Array) -> tuple[Floats, Floats]:
    """(x - mean) / deviation of each column, with the training data's figures; a constant column is 0."""
    with np.errstate(all="ignore"):  # what overflows is reported below
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
    """(start, rows) of some million numbers at a time."""
    rows = max(1, BLOCK * len(x) // max(1, x.size))
    for start in range(0, len(x), rows):
        yield start, x[start : start + rows]


def _some(names: list[str] | tuple[str, ...]) -> str:
    """The first few names, quoted."""
    return ", ".join(map(repr, names[:12])) + (", …" if len(names) > 12 else "")
