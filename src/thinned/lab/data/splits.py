"""Which rows of a table become test data: by a column of groups, by time, or a share of each class."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from thinned.key import Key, permutation
from thinned.lab.data.columns import How, as_dates, as_numbers
from thinned.lab.data.table import Array, Labels, at_random, some_of, stratified
from thinned.lab.errors import CallError


class Split(NamedTuple):
    """Indices of the two parts, the training rows' groups (None: each row for itself), and what was done."""

    train: Labels
    test: Labels
    groups: Labels | None
    ordered: bool
    words: str


def split(where: str, frame: Any, y: Array, how: How, share: float) -> Split:
    """Test data is about `share` of the rows: whole groups, the latest, of each class, or at random.

    Args:
        y: (rows,) classes (int64) or numbers (float64).

    Raises:
        CallError: there is one group or time alone, or a class is in the test data alone.
    """
    if how.group is not None and how.time is not None:
        raise CallError(f"{where}: --group and --time must not be given together, got both; leave one out")
    if how.group is not None:
        return by_group(where, frame[how.group], how.group, share)
    if how.time is not None:
        return by_time(where, frame[how.time], how.time, share)
    if y.dtype.kind == "f":
        return Split(*at_random(len(y), share, Key(0)), None, False, f"{share:g}, at random, is test data")
    return Split(*stratified(y, share, Key(0)), None, False, f"{share:g} of each class is test data")


def by_group(where: str, cells: Any, name: str, share: float) -> Split:
    """Whole groups, in a random order, until about `share` of the rows is test data.

    A row without a group is a group of its own.
    """
    codes, values = cells.factorize()
    codes = np.where(codes < 0, len(values) + np.arange(len(codes)), codes).astype(np.int64)
    _, codes = np.unique(codes, return_inverse=True)
    sizes = np.bincount(codes)
    if len(sizes) < 2:
        raise CallError(f"{where}: --group must be a column of two or more groups, got one in {name!r}")
    order = permutation(Key(0), len(sizes))
    until = np.cumsum(sizes[order])[:-1]
    count = 1 + int(np.argmin(np.abs(until - share * len(codes))))
    for_test = np.isin(codes, order[:count])
    rows = permutation(Key(0), len(codes))
    train, test = rows[~for_test[rows]], rows[for_test[rows]]
    words = f"{count:,} of {len(sizes):,} groups ({name}) are test data"
    return Split(train, test, codes[train], False, words)


def by_time(where: str, cells: Any, name: str, share: float) -> Split:
    """The latest rows are test data; rows of one time stay together."""
    times = as_numbers(cells)
    if times is None:
        dates = as_dates(cells)[0]
        if dates is None:
            raise CallError(f"{where}: --time must be a column of dates or numbers, got others in {name!r}")
        times = np.where(dates.isna(), np.nan, (dates - dates.min()).dt.total_seconds())
    if np.isnan(times).any():
        raise CallError(
            f"{where}: --time must be a column without missing cells, got {int(np.isnan(times).sum()):,} "
            f"in {name!r}; remove these rows"
        )
    order = np.argsort(times, kind="stable")
    cuts = 1 + np.flatnonzero(np.diff(times[order]) > 0)
    if not len(cuts):
        raise CallError(f"{where}: --time must be a column of two or more times, got one in {name!r}")
    cut = int(cuts[np.argmin(np.abs(cuts - (1 - share) * len(order)))])
    train, test = order[:cut], order[cut:]
    groups = np.unique(times[train], return_inverse=True)[1].astype(np.int64)
    words = f"the latest {len(test):,} rows ({name}) are test data"
    return Split(train, test, groups, True, words)


def check_classes(where: str, classes: tuple[str, ...], train: Labels, test: Labels, option: str) -> None:
    """CallError unless training data has each class of the test data, and two or more."""
    alone = sorted(set(np.unique(test).tolist()) - set(np.unique(train).tolist()))
    if alone:
        names = some_of([classes[i] for i in alone])
        raise CallError(
            f"{where}: {option} must leave examples of each class to train on, but {names} would be "
            "test data alone; join or remove such classes, or split otherwise"
        )
    if len(np.unique(train)) < 2:
        raise CallError(
            f"{where}: {option} must leave two or more classes to train on, got one; split otherwise"
        )
