"""Readers of a user's own files, by suffix: arrays in `.npz`, tables in all formats of `frames`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from thinned._files import load_npz
from thinned.lab.data import frames, tabular
from thinned.lab.data.columns import How
from thinned.lab.data.table import FOUR, Table, check_inputs, divide, labels, make
from thinned.lab.errors import LabError


def read_npz(path: Path, test_share: float, task: str = "auto") -> Table:
    """The arrays `x_train, y_train, x_test, y_test`, or `x, y` to be split.

    uint8 inputs are images, divided by 255; others are standardised. Labels are integers or strings
    (classes), or numbers, as `task` says.

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
        arrays[y] = labels(f"{path}: {y}", arrays[y], len(arrays[x]), task)
        if task == "auto":  # what the training data is, the test data is too
            task = "numbers" if arrays[y].dtype.kind == "f" else "classes"
    if names == FOUR:
        x_train, y_train, x_test, y_test = (arrays[name] for name in FOUR)
        return make(path, x_train, y_train, x_test, y_test, "its own test data")
    return divide(path, arrays["x"], arrays["y"], test_share)


def _npz(path: Path, how: How, test_share: float) -> Table:
    for option, given in dataclasses.asdict(how).items():
        if option != "task" and given != getattr(How(), option):
            raise LabError(f"{path}: --{NAMES.get(option, option)} is for a table; leave it out here")
    return read_npz(path, test_share, how.task)


NAMES = {"header": "no-header"}
# By suffix. A reader takes the path, how a table is to be read, and the share that becomes test data.
READERS: dict[str, Callable[[Path, How, float], Table]] = {
    ".npz": _npz,
    **dict.fromkeys(frames.FORMATS, tabular.read_table),
}
