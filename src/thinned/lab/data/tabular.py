"""From a table of any kind to training and test arrays: label, classes, split, encoding."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from thinned.lab.data import frames
from thinned.lab.data.columns import Column, How, as_numbers, as_text, understand, unknown
from thinned.lab.data.encoding import pipeline
from thinned.lab.data.fitted import fitted
from thinned.lab.data.splits import check_classes, split
from thinned.lab.data.table import Array, Labels, Source, Table, check_numbers, is_numbers, some_of
from thinned.lab.errors import CallError, LabError

TASKS = ("auto", "classes", "numbers")
MOST_UNLABELLED = 0.25  # a larger share of missing labels may mean something: it is not dropped
FEW_EXAMPLES = 10  # a class of fewer is named: little can be learnt, and less be tested


def read_table(path: Path, how: How, test_share: float) -> Table:
    """One row an example. What each column holds is found out, and kept in `Table.columns`.

    Rows without a label are dropped and counted. About `test_share` becomes test data (`splits.split`); the
    encoding of the columns is fitted on the others.

    Raises:
        LabError: the file cannot be read or learnt from; the message names line or column.
    """
    frame, read_as = frames.read(path, how.header)
    label = _label(path, list(frame.columns), how.label)
    where = f"{path}: column {label!r}"
    frame, dropped = _labelled(where, frame, label)
    y = _labels(where, frame[label], how.task)
    x, columns = understand(str(path), frame, how)
    classes: tuple[str, ...] = ()
    if y.dtype.kind == "f":
        check_numbers(where, y)
    else:
        classes, y = _classes(path, y)
    parts = split(str(path), frame, y, how, test_share)
    train, test = parts.train, parts.test
    if classes and (how.group or how.time):
        check_classes(str(path), classes, y[train], y[test], "--group" if how.group else "--time")
    values = {name: x[name].nunique() for name in x if x[name].dtype == object}
    seldom = {name: int(x[name].iloc[train].value_counts().min()) for name in values}
    encode = pipeline(columns, values, seldom, y[train])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # rare classes are in fewer folds
        x_train = encode.fit_transform(x.iloc[train], y[train])
    plain = fitted(encode, x.iloc[train], columns)
    source = Source(frame.iloc[test], x.iloc[test], encode)
    columns[0] = _described(columns[0], classes, y, dropped)
    note = (
        f"Inputs: {len(x.columns)} of {len(frame.columns) - 1} columns as {x_train.shape[1]} numbers, "
        f"fitted on the training data; {parts.words}."
    )
    note += f" {dropped:,} rows without a label were dropped." if dropped else ""
    note += f" The file was {read_as}." if read_as.startswith("read") else ""
    return Table(
        np.ascontiguousarray(x_train, np.float32), y[train],
        np.ascontiguousarray(encode.transform(source.columns), np.float32), y[test],
        classes, (x_train.shape[1],), note, tuple(columns), parts.groups, parts.ordered, source, plain,
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


def _described(column: Column, classes: tuple[str, ...], y: Array, dropped: int) -> Column:
    """The label's column, with what is to be predicted."""
    if classes:
        counts = np.bincount(y)
        rare = [name for name, count in zip(classes, counts, strict=True) if count < FEW_EXAMPLES]
        remarks = [f"{len(classes)} classes: {some_of(classes)}"]
        remarks += [f"fewer than {FEW_EXAMPLES} examples of {some_of(rare)}"] if rare else []
    else:
        remarks = [f"numbers from {y.min():g} to {y.max():g}"]
    remarks += [f"{dropped:,} rows without one dropped"] if dropped else []
    return dataclasses.replace(column, remarks=tuple(remarks))


def _label(path: Path, names: list[str], label: str | None) -> str:
    if label is None:
        raise CallError(f"{path}: --label must be the name of one column: {some_of(names)}, got none")
    if label not in names:
        error = unknown(str(path), "--label", label, names)
        if sum(map(_plain, names)) > 1:
            raise CallError(f"{error}; if the first line has no names, add one, or give --no-header")
        raise error
    if f"{label} (2)" in names:
        raise CallError(
            f"{path}: --label must be the name of one column, got {label!r}, which several columns have"
        )
    return label


def _labels(where: str, cells: Any, task: str) -> Array:
    """The labels (N,): float64 to be predicted as numbers; else classes, as text or whole numbers.

    Classes are numbers where each is written as int writes it, so 007 and 7 differ.
    """
    numbers = as_numbers(cells)
    text = as_text(cells).to_numpy().astype(str)
    if numbers is None:
        if task == "numbers":
            word = next(str(one) for one in text if as_numbers(cells[cells == one]) is None)
            raise LabError(f"{where} must be numbers for --task numbers, got {word!r}; correct it")
        _check_unique(where, text)
        return text
    known = numbers[~np.isnan(numbers)]
    if is_numbers(known, task):
        if len(known) < len(numbers):
            word = str(text[np.isnan(numbers)][0])
            raise LabError(
                f"{where} must be finite numbers, got {word!r}; correct it or remove such rows, or give "
                "--task classes"
            )
        return np.asarray(numbers, np.float64)
    _check_unique(where, text)
    whole = bool((known == np.trunc(known)).all())
    if cells.dtype.kind in "iuf" and whole and len(known) == len(numbers):
        return numbers.astype(np.int64)
    integers = whole and all(_plain(one) and str(int(float(one))) == one for one in np.unique(text))
    return text.astype(np.int64) if integers else text


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
            + (", or give --task numbers" if all(map(_plain, classes)) else "")
        )
    return classes, codes.astype(np.int64)
