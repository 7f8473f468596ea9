"""From a table of any kind to training and test arrays: label, classes, split, encoding."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from thinned.key import Key
from thinned.lab.data import frames
from thinned.lab.data.columns import How, as_numbers, as_text, understand, unknown
from thinned.lab.data.encoding import pipeline
from thinned.lab.data.table import Array, Labels, Table, some_of, stratified
from thinned.lab.errors import LabError

TASKS = ("auto", "classes")
MOST_UNLABELLED = 0.25  # a larger share of missing labels may mean something: it is not dropped
MOST = 20  # whole numbers of more values than this are taken for numbers


def read_table(path: Path, how: How, test_share: float) -> Table:
    """One row an example. What each column holds is found out, and kept in `Table.columns`.

    Rows without a label are dropped and counted. `test_share` of each class becomes test data; the encoding
    of the columns is fitted on the others.

    Raises:
        LabError: the file cannot be read or learnt from; the message names line or column.
    """
    frame, read_as = frames.read(path, how.header)
    label = _label(path, list(frame.columns), how.label)
    frame, dropped = _labelled(f"{path}: column {label!r}", frame, label)
    y = _labels(f"{path}: column {label!r}", frame[label], how.task)
    x, columns = understand(str(path), frame, how)
    classes, codes = _classes(path, y)
    train, test = stratified(codes, test_share, Key(0))
    values = {name: x[name].nunique() for name in x if x[name].dtype == object}
    seldom = {name: int(x[name].iloc[train].value_counts().min()) for name in values}
    encode = pipeline(columns, values, seldom, codes[train])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # rare classes are in fewer folds
        x_train = encode.fit_transform(x.iloc[train], codes[train])
    x_test = encode.transform(x.iloc[test])
    columns[0] = _described(columns[0], classes, dropped)
    note = (
        f"Inputs: {len(x.columns)} of {len(frame.columns) - 1} columns as {x_train.shape[1]} numbers, "
        f"fitted on the training data; {test_share:g} of each class is test data."
    )
    note += f" {dropped:,} rows without a label were dropped." if dropped else ""
    note += f" The file was {read_as}." if read_as.startswith("read") else ""
    return Table(
        np.ascontiguousarray(x_train, np.float32), codes[train],
        np.ascontiguousarray(x_test, np.float32), codes[test],
        classes, (x_train.shape[1],), note, tuple(columns),
    )  # fmt: skip


def _labelled(where: str, frame: Any, label: str) -> tuple[Any, int]:
    """The rows that have a label, and the number of the others."""
    kept = frame[label].notna()
    rows, dropped = len(frame), int((~kept).sum())
    if rows == 0:
        raise LabError(f"{where}: no examples; there must be at least two of each class")
    if dropped > MOST_UNLABELLED * rows:
        raise LabError(
            f"{where}: {dropped:,} of {rows:,} rows have no label (an empty cell, NA, ?); write a word "
            "there if that is a class, or remove such rows"
        )
    return frame[kept].reset_index(drop=True), dropped


def _described(column: Any, classes: tuple[str, ...], dropped: int) -> Any:
    remarks = [f"{len(classes)} classes: {some_of(classes)}"]
    remarks += [f"{dropped:,} rows without one dropped"] if dropped else []
    return type(column)(column.name, column.kind, tuple(remarks))


def _label(path: Path, names: list[str], label: str | None) -> str:
    if label is None:
        raise LabError(f"{path}: --label must be the name of one column: {some_of(names)}, got none")
    if label not in names:
        raise unknown(str(path), "--label", label, names)
    if f"{label} (2)" in names:
        raise LabError(
            f"{path}: --label must be the name of one column, got {label!r}, which several columns have"
        )
    return label


def _labels(where: str, cells: Any, task: str) -> Array:
    """Text or whole numbers (N,): numbers where each is written as int writes it, so 007 and 7 differ."""
    numbers = as_numbers(cells)
    text = as_text(cells).to_numpy().astype(str)
    if numbers is None:
        _check_unique(where, text)
        return text
    values = np.unique(numbers[~np.isnan(numbers)])
    whole = bool((values == np.trunc(values)).all())
    if task == "auto" and not (whole and len(values) <= MOST):
        raise LabError(
            f"{where} must be classes, got {len(values):,} different numbers, such as {values[0]:g} and "
            f"{values[-1]:g}; cut them into classes, or give --task classes if each number is one"
        )
    _check_unique(where, text)
    if cells.dtype.kind in "iuf" and whole and not np.isnan(numbers).any():
        return numbers.astype(np.int64)
    integers = whole and all(str(int(float(one))) == one for one in np.unique(text) if _plain(one))
    return text.astype(np.int64) if integers and all(map(_plain, np.unique(text))) else text


def _plain(text: str) -> bool:
    return text.lstrip("-").isdecimal() and len(text) < 18


def _check_unique(where: str, y: Array) -> None:
    distinct = len(np.unique(y))
    if len(y) >= 10 and distinct > 0.5 * len(y):
        raise LabError(
            f"{where} must have classes with several examples each, got {distinct:,} different "
            f"labels in {len(y):,} rows; name another column with --label"
        )


def _classes(path: Path, y: Array) -> tuple[tuple[str, ...], Labels]:
    """The names of the classes and each example's place among them."""
    values, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    classes = tuple(map(str, values))
    if len(classes) < 2:
        raise LabError(
            f"{path}: examples must be of two or more classes, got {classes[0]!r} alone; add another class"
        )
    if counts.max() < 2:
        raise LabError(f"{path}: no class has two examples, so none can be kept for testing; add examples")
    if counts.min() < 2:
        rare = [name for name, count in zip(classes, counts, strict=True) if count < 2]
        raise LabError(
            f"{path}: each class must have two or more examples, got one of {some_of(rare)}; "
            "add some, or join or remove such classes"
        )
    return classes, codes.astype(np.int64)
