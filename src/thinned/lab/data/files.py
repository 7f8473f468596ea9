"""Readers of a user's own files, by suffix: `.npz`, `.csv`."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from thinned._files import load_npz
from thinned.lab.data.table import FOUR, Array, Table, check_inputs, divide, labels, make, some_of
from thinned.lab.errors import LabError


def read_npz(path: Path, label: str | None, test_share: float) -> Table:
    """The arrays `x_train, y_train, x_test, y_test`, or `x, y` to be split.

    uint8 inputs are images, divided by 255; others are standardised. Labels are integers or strings.

    Raises:
        LabError: the file is damaged, or cannot be learnt from; the message names array, row and column.
    """
    try:
        arrays = load_npz(path)
    except ValueError as error:  # its message begins with the path
        raise LabError(str(error)) from error
    names = next((names for names in (FOUR, ("x", "y")) if set(names) <= arrays.keys()), None)
    if names is None:
        came = ", ".join(arrays) or "none"
        raise LabError(
            f"{path}: arrays must be {', '.join(FOUR)}, or x, y, got {came}; save it with these names"
        )
    for x, y in zip(names[::2], names[1::2], strict=True):
        check_inputs(f"{path}: {x}", arrays[x])
        arrays[y] = labels(f"{path}: {y}", arrays[y], len(arrays[x]))
    if names == FOUR:
        x_train, y_train, x_test, y_test = (arrays[name] for name in FOUR)
        return make(path, x_train, y_train, x_test, y_test, "its own test data")
    return divide(path, arrays["x"], arrays["y"], test_share)


def read_csv(path: Path, label: str | None, test_share: float) -> Table:
    """A comma-separated table. Its first line names the columns: one has labels, all others numbers.

    Raises:
        LabError: the file cannot be read or learnt from; the message names line and column.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            x, y = _parse_csv(path, csv.reader(file, strict=True), label)
    except UnicodeDecodeError as error:
        raise LabError(
            f"{path} must be text in UTF-8, got {error.reason} at byte {error.start}; save it in UTF-8"
        ) from error
    except csv.Error as error:
        raise LabError(f"{path}: not a comma-separated table ({error}); correct it") from error
    return divide(path, x, labels(f"{path}: column {label!r}", y, len(x)), test_share)


def _parse_csv(path: Path, lines: Any, label: str | None) -> tuple[Array, Array]:
    """Numbers (N, columns - 1) in float64, and labels (N,): integers if all of them are, else strings."""
    header = [name.strip() for name in next(lines, [])]
    if not header:
        raise LabError(f"{path}: empty; the first line must name the columns")
    if label is None or header.count(label) != 1:
        came = "none" if label is None else f"{label!r}, which {header.count(label)} columns have"
        hint = "; separate columns by commas" if len(header) == 1 and set(";\t") & set(header[0]) else ""
        raise LabError(f"{path}: --label must be the name of one column: {some_of(header)}, got {came}{hint}")
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
                f"{where} must have {len(header)} columns, as the first line has, got {len(cells)}"
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
    """The error for the first cell that is not a finite number."""
    at = next(i for i, text in enumerate(cells) if not _is_finite(text))
    return LabError(
        f"{where}, column {names[at]!r} must be a finite number, got {cells[at]!r}; correct or remove it"
    )


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


# By suffix. A reader takes the path, the column of the labels, and the share that becomes test data.
READERS: dict[str, Callable[[Path, str | None, float], Table]] = {".npz": read_npz, ".csv": read_csv}
