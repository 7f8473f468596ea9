"""What an error is measured in: shares of examples, shown in %, or the units of the labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

RMSE = "RMSE"
TEST, HELD_OUT = "test", "held-out"


@dataclass(frozen=True)
class Measure:
    """An error: its name, and how its values are shown.

    Attributes:
        name: in a sentence: "test error", "test RMSE".
        unit: behind a value; may be empty.
        difference: the unit of a difference; may be empty.
        factor: a stored value times this is shown.
        decimals: digits behind the point.
        of: the data that it is measured on, in place of "test" above.
    """

    name: str = "error"
    unit: str = "%"
    difference: str = "points"
    factor: float = 100.0
    decimals: int = 2
    of: str = TEST

    def text(self, value: float) -> str:
        """A shown value with a true minus; "–" for NaN."""
        if not math.isfinite(value):
            return "–"
        return f"{value + 0.0:,.{self.decimals}f}".replace("-", "−")

    def with_unit(self, value: float) -> str:
        """`2.50 %`, or `1,234`."""
        return self.text(value) + (f" {self.unit}" if self.unit else "")

    @property
    def axis(self) -> str:
        """`error, %`, or `RMSE`."""
        return ", ".join(filter(None, (self.name, self.unit)))

    @property
    def gap(self) -> str:
        """`gap, points`, or `gap`."""
        return ", ".join(filter(None, ("gap", self.difference)))


ERROR = Measure()


def rmse(values: Iterable[float]) -> Measure:
    """The root of the mean squared error, with three digits of the smallest of these values."""
    positive = [value for value in values if math.isfinite(value) and value > 0]
    decimals = 2 - math.floor(math.log10(min(positive))) if positive else 2
    return Measure(RMSE, "", "", 1.0, max(0, min(decimals, 12)))


def judged_on(config: Mapping[str, Any]) -> str:
    """The data that a run with these settings is judged on: "test" or "held-out"."""
    return HELD_OUT if config.get("validation") else TEST
