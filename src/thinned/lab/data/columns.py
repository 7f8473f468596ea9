"""What each column of a table holds: its kind, found from its cells or given by the user."""

from __future__ import annotations

import difflib
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from thinned.lab.data.table import LARGEST, some_of
from thinned.lab.errors import CallError, LabError

NUMBER, CATEGORY, YES_NO, DATE = "number", "category", "yes/no", "date"  # kinds that a network reads
TEXT, ID, ROW_NUMBER, DROPPED = "text", "id", "row number", "dropped"
GROUP, TIME = "group", "time"  # they decide the split
CONSTANT, EMPTY, NESTED, LABEL = "constant", "empty", "lists or objects", "label"
READ = (NUMBER, CATEGORY, YES_NO, DATE)
NO_TABLE = "--label, --no-header and options for columns are for tables; leave them out here"
FEW = 20  # a category of more values is target-encoded
PAIRS = ({"yes", "no"}, {"y", "n"}, {"true", "false"}, {"t", "f"}, {"on", "off"})
NO_NUMBER = {"none", "-", "--", ".", "..", "missing", "unknown", "na", "n.a.", "#value!", "inf", "-inf"}
ID_NAMES = re.compile(
    r"(?i:id|index|row ?names?|row\.names|uuid|guid|unnamed \d+|unnamed: \d+)|.*(?i:[_ .-]id)|.*[a-z]I[Dd]"
)
DAY_FIRST = "day first"  # a remark on dates
DATES = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})([ T]\d{1,2}:\d{2}.*)?")
OTHER_DATES = re.compile(r"(\d{1,2})([-/.])(\d{1,2})[-/.](\d{4})([ T]\d{1,2}:\d{2}.*)?")
MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
NAMED_DATES = re.compile(
    rf"(?i:{MONTH}[-/. ]+\d{{1,2}}|\d{{1,2}}[-/. ]+{MONTH})[-/., ]+\d{{4}}([ T]\d{{1,2}}:\d{{2}}.*)?"
)


@dataclass(frozen=True)
class How:
    """How a table is to be read: its label, and the user's word on columns.

    Attributes:
        label: the column of the labels.
        header: whether the first line names the columns.
        task: "classes" takes numbers as classes too, "numbers" as numbers; "auto" finds out.
        group: no value of this column is in both parts of the data.
        time: the latest rows by this column are the test data.
        drop, categorical, numeric, id: names of columns whose kind is given.
    """

    label: str | None = None
    header: bool = True
    task: str = "auto"
    group: str | None = None
    time: str | None = None
    drop: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    id: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column: its name, its kind, and what else a reader should know of it."""

    name: str
    kind: str
    remarks: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        left_out = () if self.kind in (*READ, LABEL) else ("left out",)
        return ", ".join((self.kind, *left_out, *self.remarks))


def understand(where: str, frame: Any, how: How) -> tuple[Any, list[Column]]:
    """The columns, the label's first, and a frame of those that a network reads.

    Numbers become float64, dates datetime64, categories and yes/no text (object); missing cells stay missing.

    Raises:
        LabError: a name is no column, a column given as numbers holds words, or nothing is left.
    """
    given = _given(where, frame, how)
    found, parts = [Column(how.label or "", LABEL)], {}
    for name in frame.columns:
        if name == how.label:
            continue
        kind = given.get(name, NESTED if name in frame.attrs.get("nested", ()) else None)
        column, cells = _column(where, name, frame[name], kind)
        found.append(column)
        if cells is not None:
            parts[name] = cells
    if not parts:
        reasons = "; ".join(f"{one.name!r}: {one}" for one in found[1:4]) or "only the label column is there"
        raise LabError(f"{where}: nothing to learn from ({reasons}); add columns, or name one with --numeric")
    import pandas as pd

    return pd.DataFrame(parts), found


def _given(where: str, frame: Any, how: How) -> dict[str, str]:
    """Column -> kind, where the user gave one."""
    given: dict[str, str] = {}
    options = (("drop", DROPPED), ("categorical", CATEGORY), ("numeric", NUMBER), ("id", ID))
    for option, kind in options:
        for name in getattr(how, option):
            if name not in frame.columns:
                raise unknown(where, f"--{option}", name, list(frame.columns))
            if name == how.label:
                raise CallError(f"{where}: --{option} must be columns other than the label, got {name!r}")
            if given.setdefault(name, kind) != kind:
                raise CallError(
                    f"{where}: a column must have one kind, got {given[name]} and {kind} for {name!r}"
                )
    for option, kind, split_by in (("group", GROUP, how.group), ("time", TIME, how.time)):
        if split_by is None:
            continue
        if split_by not in frame.columns:
            raise unknown(where, f"--{option}", split_by, list(frame.columns))
        if split_by == how.label:
            raise CallError(f"{where}: --{option} must be a column other than the label, got {split_by!r}")
        given.setdefault(split_by, kind)  # --numeric or --categorical lets the network read it too
    return given


def unknown(where: str, option: str, name: str, names: list[str]) -> CallError:
    """The error for a name that no column has."""
    near = difflib.get_close_matches(name.lower(), [one.lower() for one in names], 1, 0.7)
    hint = next((f" (did you mean {one!r}?)" for one in names if [one.lower()] == near), "")
    known = some_of(names)
    return CallError(f"{where}: {option} must be the name of one column: {known}, got {name!r}{hint}")


def _column(where: str, name: str, cells: Any, kind: str | None) -> tuple[Column, Any]:
    """The column, and its cells as a network's pipeline takes them; None where it is left out."""
    if kind in (DROPPED, ID, NESTED):
        return Column(name, kind), None
    if kind in (GROUP, TIME):
        return Column(name, kind, ("it decides what is test data",)), None
    missing = int(cells.isna().sum())
    remarks = [f"{missing:,} missing"] if missing else []
    numbers = None if kind == CATEGORY else as_numbers(cells)
    if kind == NUMBER and numbers is None:
        word = next(str(cell) for cell in cells.dropna() if as_numbers(cells[cells == cell]) is None)
        raise LabError(f"{where}: --numeric must be columns of numbers, got {word!r} in {name!r}")
    kind = kind or _kind(name, cells, numbers, missing)
    if kind == NUMBER:
        return _number(where, name, numbers)
    if kind == DATE:
        dates, remark = as_dates(cells)
        return Column(name, kind, (*remarks, *([remark] if remark else []))), dates
    if kind in (CATEGORY, YES_NO):
        distinct = cells.nunique()
        remarks = [*([f"{distinct:,} values"] if kind == CATEGORY else []), *remarks]
        remarks += ["target-encoded"] if distinct > FEW else []
        return Column(name, kind, tuple(remarks)), as_text(cells)
    remedy = {
        ROW_NUMBER: f"--numeric {shlex.quote(name)} takes it",
        ID: f"--categorical {shlex.quote(name)} takes it",
    }
    return Column(name, kind, (remedy[kind],) if kind in remedy else ()), None


def _number(where: str, name: str, numbers: Any) -> tuple[Column, Any]:
    missing = int(np.isnan(numbers).sum())
    if (np.abs(numbers[~np.isnan(numbers)]) > LARGEST).any():
        raise LabError(
            f"{where}: column {name!r} must have numbers up to {LARGEST:g}, "
            f"got {np.nanmax(np.abs(numbers)):g}; correct it, or leave it out with --drop {shlex.quote(name)}"
        )
    return Column(name, NUMBER, (f"{missing:,} missing",) if missing else ()), numbers


def _kind(name: str, cells: Any, numbers: Any, missing: int) -> str:
    """The kind of a column that the user gave none."""
    rows, distinct = len(cells), cells.nunique()
    if distinct == 0:
        return EMPTY
    if distinct == 1 and not missing:
        return CONSTANT
    named, alone = bool(ID_NAMES.fullmatch(name)), rows >= 10 and distinct >= 0.95 * (rows - missing)
    if cells.dtype.kind == "M":
        return DATE
    if numbers is not None:
        whole = not np.isnan(numbers).any() and bool((numbers == np.trunc(numbers)).all())
        if rows >= 10 and whole and (np.diff(numbers) == 1).all():
            return ROW_NUMBER
        return ID if named and alone and whole else NUMBER
    if set(cells.dropna().astype(str).str.lower().unique()) in PAIRS:
        return YES_NO
    if as_dates(cells)[0] is not None:
        return DATE
    if rows >= 10 and distinct > 0.5 * (rows - missing) and _sentences(cells.dropna().astype(str)):
        return TEXT
    return ID if alone else CATEGORY


def _sentences(text: Any) -> bool:
    """Three words or more a cell, or more than 40 characters."""
    return bool(text.str.count(r"\s+").mean() >= 2 or text.str.len().mean() > 40)


def as_numbers(cells: Any) -> Any:
    """float64 (rows,), NaN where a cell is missing or infinite; None if one is a word or a code (007)."""
    import pandas as pd

    if cells.dtype == bool or cells.dtype.kind in "Mm":
        return None
    if cells.dtype.kind in "iuf":
        numbers = cells.to_numpy(np.float64, na_value=np.nan)
    else:
        head = cells.dropna().iloc[:100]
        if len(head) < len(cells) and as_numbers(head) is None and not head.str.lower().isin(NO_NUMBER).all():
            return None  # a long column of words is not read to its end
        numbers = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        words = cells[np.isnan(numbers) & cells.notna().to_numpy()]
        if not set(words.str.lower().unique()) <= NO_NUMBER or len(words) == int(cells.notna().sum()):
            return None
        if cells.str.match(r"[+-]?0\d+$").any():
            return None
    return np.where(np.isinf(numbers), np.nan, numbers)


def as_text(cells: Any) -> Any:
    """Object (rows,) of str; "" where a cell is missing."""
    return cells.astype("str").astype(object).where(cells.notna(), "")


def as_dates(cells: Any, day_first: bool | None = None) -> tuple[Any, str]:
    """datetime64 of every cell, and a remark on their form; (None, "") where a cell is no date.

    ``day_first``: whether 3/4/2024 is in April; None finds it out from all cells.
    """
    import pandas as pd

    if cells.dtype.kind == "M":
        return (cells.dt.tz_localize(None) if cells.dt.tz is not None else cells), ""
    if cells.dtype.kind in "biuf":
        return None, ""
    text = cells.dropna()
    head = text.iloc[:20]
    if all(DATES.fullmatch(cell) for cell in head):
        return _parsed(pd, cells, cells.str.replace(r"^(\d{4})[/.](\d{1,2})[/.]", r"\1-\2-", regex=True)), ""
    if len(head) and all(NAMED_DATES.fullmatch(cell) for cell in head):
        return _parsed(pd, cells, cells), ""
    if not all(OTHER_DATES.fullmatch(cell) for cell in head):
        return None, ""
    parts = text.str.extract(r"^(\d{1,2})[-/.](\d{1,2})[-/.]\d{4}").astype(float)
    if day_first is None:
        day_first = bool(parts[0].max() > 12) or bool(text.str.contains(".", regex=False).all())
    sure = day_first or bool(parts[1].max() > 12)
    order = r"\3-\2-\1" if day_first else r"\3-\1-\2"
    ordered = cells.str.replace(r"^(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})", order, regex=True)
    dates = _parsed(pd, cells, ordered)
    return dates, "" if dates is None else (
        DAY_FIRST if day_first else "month first" + ("" if sure else ", as it seems")
    )


def _parsed(pd: Any, cells: Any, text: Any) -> Any:
    dates = pd.to_datetime(text, errors="coerce", format="mixed", utc=True).dt.tz_localize(None)
    return None if (dates.isna() & cells.notna()).any() else dates
