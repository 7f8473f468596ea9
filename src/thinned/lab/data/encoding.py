"""From columns to numbers: one scikit-learn pipeline, fitted on training data alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from thinned.lab.data.columns import CATEGORY, DATE, FEW, NUMBER, YES_NO, Column
from thinned.lab.data.table import Array, Floats

RARE = 5  # values seen less often share one column
FOLDS = 5


def pipeline(columns: list[Column], values: dict[str, int], seldom: dict[str, int], y: Array) -> Any:
    """An unfitted ColumnTransformer of the columns that a network reads.

    Numbers: the median where missing, an indicator of that, then mean 0 and deviation 1. Dates: their parts,
    as numbers. Categories: a column a value, those seen less than `RARE` times together; with more than `FEW`
    values, each is replaced by its mean target (a column a class), fitted within 5 folds.

    Args:
        columns: what `columns.understand` found.
        values: the number of values of each category.
        seldom: how often the rarest value of each is in the training data.
        y: (rows,) classes, or numbers (floats), of the training data: the number of folds follows from them.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

    numbers = y.dtype.kind == "f"
    most = len(y) if numbers else int(np.bincount(y).max())
    few = FEW if most > 1 else len(y)  # folds need two examples of a class

    def named(wanted: Any) -> list[str]:
        return [one.name for one in columns if wanted(one)]

    rare = max(1, min(RARE, len(y) // 20))

    def one_hot(least: int | None) -> Any:  # without rare values, counting them would take most of the time
        return OneHotEncoder(
            min_frequency=least,
            handle_unknown="infrequent_if_exist",
            sparse_output=False,
            dtype=np.float32,
        )

    def is_few(one: Column) -> bool:
        return one.kind in (CATEGORY, YES_NO) and values[one.name] <= few

    single = FunctionTransformer(as_floats)
    parts = [
        ("numbers", _numbers(single), named(lambda one: one.kind == NUMBER)),
        (
            "dates",
            make_pipeline(FunctionTransformer(date_parts), _numbers(single)),
            named(lambda one: one.kind == DATE),
        ),
        ("common", one_hot(None), named(lambda one: is_few(one) and seldom[one.name] >= rare)),
        ("some rare", one_hot(rare), named(lambda one: is_few(one) and seldom[one.name] < rare)),
        (
            "many",
            make_pipeline(_target_encoder(max(2, min(FOLDS, most)), numbers), StandardScaler(), single),
            named(lambda one: one.kind in (CATEGORY, YES_NO) and values[one.name] > few),
        ),
    ]
    return ColumnTransformer([part for part in parts if part[2]], sparse_threshold=0.0)


def _numbers(last: Any) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    return make_pipeline(imputer, StandardScaler(), last)


def _target_encoder(folds: int, numbers: bool) -> Any:
    """Folds are blocks of rows: the rows come in the random order of the split."""
    import sklearn
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.preprocessing import TargetEncoder

    kind = "continuous" if numbers else "auto"
    if tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 9):
        return TargetEncoder(target_type=kind, cv=folds, shuffle=False)
    return TargetEncoder(target_type=kind, cv=KFold(folds) if numbers else StratifiedKFold(folds))


def as_floats(x: Array) -> Floats:
    """float32."""
    return np.asarray(x, np.float32)


def date_parts(dates: Any) -> NDArray[np.float64]:
    """(rows, 6 · columns): days since 1970, year, month, day, weekday, hour; NaN where it is missing."""
    parts = []
    for name in dates:
        at = dates[name].dt
        days = (dates[name] - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")
        parts += [days, at.year, at.month, at.day, at.day_of_week, at.hour]
    return np.column_stack([part.to_numpy(np.float64, na_value=np.nan) for part in parts])
