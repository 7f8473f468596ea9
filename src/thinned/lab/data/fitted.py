"""What makes inputs of new data, after it was fitted: plain arrays, to be stored and used again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from thinned.lab.data.arrays import FittedArrays
from thinned.lab.data.columns import DATE, DAY_FIRST, NO_NUMBER, NUMBER, Column, as_dates, as_text
from thinned.lab.data.encoding import date_parts
from thinned.lab.data.frames import MISSING
from thinned.lab.data.table import Array, Floats, some_of
from thinned.lab.errors import LabError

PARTS = 6  # numbers of a date


@dataclass(frozen=True)
class Numbers:
    """Columns of numbers, or of dates: filled where missing, indicators of that, standardised.

    Attributes:
        kind: NUMBER, or DATE, of which each column gives `PARTS` numbers.
        names: the columns.
        day_first: of dates, whether 3/4/2024 is in April.
        fill: (n,) what stands for a missing number.
        shown: (m,) the numbers that have an indicator.
        mean, scale: (n + m,) of the numbers and the indicators.
    """

    kind: str
    names: tuple[str, ...]
    day_first: tuple[bool, ...]
    fill: Array
    shown: Array
    mean: Array
    scale: Array

    def __post_init__(self) -> None:
        n = len(self.names) * (PARTS if self.kind == DATE else 1)
        _shaped("fill", self.fill, (n,))
        m = len(_shaped("shown", self.shown, (len(self.shown),)))
        for name in ("mean", "scale"):
            _shaped(name, getattr(self, name), (n + m,))
        if len(self.day_first) != len(self.names) or (
            m and not 0 <= self.shown.min() <= self.shown.max() < n
        ):
            raise ValueError("shown and day_first must fit the columns, got others")

    @property
    def width(self) -> int:
        """The number of outputs."""
        return len(self.mean)

    def transform(self, frame: Any) -> Floats:
        """(rows, width) of these columns."""
        import pandas as pd

        if self.kind == DATE:
            each = zip(self.names, self.day_first, strict=True)
            x = date_parts(pd.DataFrame({name: _dates(name, frame[name], first) for name, first in each}))
        else:
            x = np.column_stack([_numbers(name, frame[name]) for name in self.names])
        missing = np.isnan(x)
        whole = np.hstack([np.where(missing, self.fill, x), missing[:, self.shown]])
        with np.errstate(over="ignore"):
            y = ((whole - self.mean) / self.scale).astype(np.float32)
        if not np.isfinite(y).all():
            at = int(np.argmin(np.isfinite(y).all(axis=0))) // (PARTS if self.kind == DATE else 1)
            raise LabError(f"column {self.names[at]!r} must have numbers like those of training, got larger")
        return y


@dataclass(frozen=True)
class Values:
    """A column of categories: a row of numbers for each value.

    Attributes:
        name: the column.
        values: the values that training data had; "" stands for a missing cell.
        table: (values + 1, width); the last row is for every other value.
    """

    name: str
    values: tuple[str, ...]
    table: Array

    def __post_init__(self) -> None:
        _shaped("table", self.table, (len(self.values) + 1, *self.table.shape[1:2]))

    @property
    def names(self) -> tuple[str, ...]:
        """The column, as a tuple."""
        return (self.name,)

    @property
    def width(self) -> int:
        """The number of outputs."""
        return int(self.table.shape[1])

    def transform(self, frame: Any) -> Floats:
        """(rows, width) of this column."""
        cells = _stripped(as_text(frame[self.name]))
        places = {value: i for i, value in enumerate(self.values)}
        rows = cells.map(places).fillna(len(places)).to_numpy(np.int64)
        return np.asarray(self.table[rows], np.float32)


class FittedColumns(TransformerMixin, BaseEstimator):
    """A fitted transformer: a frame with named columns -> (rows, numbers), float32.

    Columns are found by name, in any order; others are ignored. Cells are numbers or text, as pandas reads
    them. A value that training data did not have counts as rare.

    Args:
        blocks: of `Numbers` and `Values`, in the order of the outputs.
        label: the column that is predicted; it is not read.
    """

    def __init__(self, blocks: Sequence[Numbers | Values], label: str) -> None:
        self.blocks, self.label = blocks, label

    def fit(self, X: Any, y: Any = None) -> Any:
        """Not possible: raises TypeError."""
        raise TypeError("FittedColumns must be used as it is: thinned compare fits the columns of a table")

    def transform(self, X: Any) -> Floats:
        """(rows, width), float32. LabError, which names the column, if one is missing or cannot be read."""
        if not hasattr(X, "columns"):
            raise TypeError(
                f"X must be a pandas DataFrame with the columns of training, got {type(X).__name__}"
            )
        needed = [name for block in self.blocks for name in block.names]
        if missing := [name for name in needed if name not in X.columns]:
            raise LabError(
                f"columns {some_of(missing)} are missing; the model reads {some_of(needed)}, got "
                f"{some_of([str(name) for name in X.columns])}"
            )
        return np.hstack([block.transform(X) for block in self.blocks])

    @property
    def width(self) -> int:
        """The number of outputs."""
        return sum(block.width for block in self.blocks)

    def __sklearn_clone__(self) -> Any:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True


def fitted(encode: Any, x: Any, columns: Sequence[Column]) -> FittedColumns:
    """The plain form of a fitted `encoding.pipeline`, for the training rows x and what was understood."""
    known = {column.name: column for column in columns}
    blocks: list[Numbers | Values] = []
    for _, part, names in encode.transformers_:
        if part == "drop" or not names:
            continue
        kind = known[names[0]].kind
        if kind in (NUMBER, DATE):
            chain = part if kind == NUMBER else part[-1]
            imputer, scaler = chain[-3], chain[-2]
            day_first = tuple(DAY_FIRST in known[name].remarks for name in names)
            shown = imputer.indicator_.features_.astype(np.int64)
            blocks.append(
                Numbers(
                    kind, tuple(names), day_first, imputer.statistics_, shown, scaler.mean_, scaler.scale_
                )
            )
        else:
            blocks += _tabulated(part, x[list(names)])
    return FittedColumns(blocks, columns[0].name)


def _tabulated(part: Any, x: Any) -> list[Values]:
    """What a fitted transformer makes of every value of each of its columns."""
    import pandas as pd

    blocks, start = [], 0
    other = "\0"  # in no table: text with a zero byte is refused
    for name in x:
        values = [str(value) for value in x[name].unique()]
        frame = pd.DataFrame({one: [other] * (len(values) + 1) for one in x}, dtype=object)
        frame[name] = pd.Series([*values, other], dtype=object)
        y = np.asarray(part.transform(frame), np.float32)
        moved = np.flatnonzero((y != y[-1]).any(axis=0))
        stop = int(moved.max()) + 1 if len(moved) else start
        blocks.append(Values(str(name), tuple(values), y[:, start:stop]))
        start = stop
    if blocks and start < y.shape[1]:  # columns whose values are all alike to the network
        last = blocks[-1]
        blocks[-1] = Values(last.name, last.values, np.hstack([last.table, y[:, start:]]))
    return blocks


def stored(inputs: FittedColumns | FittedArrays) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Blocks of columns, or arrays, as JSON, and their arrays by name."""
    if isinstance(inputs, FittedArrays):
        return [{"shape": inputs.shape, "images": inputs.images}], {
            "mean": inputs.mean,
            "factor": inputs.factor,
        }
    about: list[dict[str, Any]] = []
    arrays: dict[str, Array] = {}
    for i, block in enumerate(inputs.blocks):
        names = ("table",) if isinstance(block, Values) else ("fill", "shown", "mean", "scale")
        arrays |= {f"{i}/{name}": getattr(block, name) for name in names}
        about.append({name: value for name, value in vars(block).items() if name not in names})
    return about, arrays


def loaded(
    about: Sequence[Mapping[str, Any]], arrays: Mapping[str, Array], label: str
) -> FittedColumns | FittedArrays:
    """The transformer of what `stored` gave. ValueError, KeyError or TypeError where it is damaged."""
    if about and "shape" in about[0]:
        shape = tuple(map(int, about[0]["shape"]))
        return FittedArrays(
            shape, _floats(arrays["mean"]), _floats(arrays["factor"]), bool(about[0]["images"])
        )
    blocks: list[Numbers | Values] = []
    for i, one in enumerate(about):
        if "values" in one:
            values = tuple(map(str, one["values"]))
            blocks.append(Values(str(one["name"]), values, _floats(arrays[f"{i}/table"])))
            continue
        kind = one["kind"]
        if kind not in (NUMBER, DATE):
            raise ValueError(f"kind must be {NUMBER!r} or {DATE!r}, got {kind!r}")
        fill, mean, scale = (_floats(arrays[f"{i}/{name}"]) for name in ("fill", "mean", "scale"))
        shown = arrays[f"{i}/shown"]
        if shown.dtype != np.int64:
            raise TypeError(f"shown must hold int64, got {shown.dtype}")
        names, first = tuple(map(str, one["names"])), tuple(map(bool, one["day_first"]))
        blocks.append(Numbers(kind, names, first, fill, shown, mean, scale))
    return FittedColumns(blocks, label)


def _numbers(name: str, cells: Any) -> NDArray[np.float64]:
    """float64 (rows,), NaN where a cell is missing."""
    import pandas as pd

    if cells.dtype.kind in "iuf":
        x = cells.to_numpy(np.float64, na_value=math.nan)
    else:
        text = _stripped(as_text(cells))
        x = pd.to_numeric(text, errors="coerce").to_numpy(np.float64, na_value=math.nan)
        words = text[np.isnan(x) & (text != "") & ~text.str.lower().isin(NO_NUMBER)]
        if len(words):
            raise LabError(f"column {name!r} must hold numbers, as in training, got {words.iloc[0]!r}")
    return np.where(np.isinf(x), math.nan, x)


def _dates(name: str, cells: Any, day_first: bool) -> Any:
    """datetime64 (rows,)."""
    if cells.dtype.kind != "M":
        cells = cells.where(cells.notna(), "").astype(str).str.strip()
        cells = cells.mask(cells.isin(MISSING))
    dates, _ = as_dates(cells, day_first)
    if dates is None:
        raise LabError(f"column {name!r} must hold dates, as in training, got {cells.dropna().iloc[0]!r}")
    return dates


def _stripped(text: Any) -> Any:
    text = text.str.strip()
    return text.mask(text.isin(MISSING), "")


def _shaped(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    if array.shape != shape or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise ValueError(f"{name} must be finite numbers of shape {shape}, got {array.shape}")
    return array


def _floats(array: Array) -> Array:
    if array.dtype.kind != "f":
        raise TypeError(f"arrays must hold floats, got {array.dtype}")
    return array
