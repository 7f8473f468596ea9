"""What a paired comparison found, in sentences: the headline, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from thinned.lab.reporting.paired import Difference
from thinned.lab.reporting.summary import Summary
from thinned.lab.reporting.wording import plural

SEEDS, ASKED = 3, 5  # with fewer, the spread over seeds is hardly known; then so many are asked for
FEW_ROWS = 1_000  # test rows
SMALL = 0.2  # a rate up to which none smaller is advised for numbers
MOST_SEEDS, MOST_TIMES = 50, 100  # more is not worth asking for


class Rate(NamedTuple):
    """The rate of a row, and the smallest and the largest that its method was tried with."""

    own: float
    smallest: float
    largest: float


@dataclass(frozen=True)
class Verdict:
    """A paired comparison.

    Attributes:
        found: the differences from `other`, of every other row.
        other: the label that all are compared with.
        rows: label -> its figures.
        what: the plural of a test example, "images" or "rows".
        counts: whether an error is a wrong class.
        rates: label -> its rate, where it is known.
    """

    found: Sequence[Difference]
    other: str
    rows: Mapping[str, Summary]
    what: str
    counts: bool
    rates: Mapping[str, Rate] = field(default_factory=dict)

    @property
    def first(self) -> Difference:
        """The row with the lowest error, or the best of those that are decided."""
        better = [one for one in self.found if one.decided and one.mean < 0]
        return min(better or self.found, key=lambda one: one.mean)

    @property
    def held_out(self) -> bool:
        """Whether each seed holds out its own examples."""
        return any(one.own for one in self.found)

    @property
    def of(self) -> str:
        """The data that the errors are of: "test" or "held-out"."""
        return next(iter(self.rows.values())).measure.of

    def amount(self, one: Difference, value: float) -> str:
        """A difference as a number of test examples, or in the units of the labels."""
        if self.counts:
            return f"{round(value * one.examples, 1) + 0.0:.1f}".replace("-", "−")
        return self.rows[one.label].measure.text(value)

    def interval(self, one: Difference, sign: int = 1) -> str:
        """`−0.4 to 3.8`, of the difference, or with sign −1 of what it is lower by."""
        low, high = sorted((sign * one.low, sign * one.high))
        return f"{self.amount(one, low)} to {self.amount(one, high)}"

    def headline(self) -> str:
        """Which row is better than `other`, by how much, and how sure that is."""
        one, name = self.first, self._verb()
        mine, theirs = (self._error(label) for label in (one.label, self.other))
        if one.same:
            return f"{one.label} and {self.other} err alike on all {self.of} {self.what}: {mine} each."
        amount = f"{self.amount(one, abs(one.mean))}{self._of(one)}"
        against = f"{mine} against {theirs}"
        if one.decided and one.mean < 0:
            bounds = self._bounds(one, -1)
            text = f"{one.label} {name[0]} than {self.other}: {against}, {amount} {name[1]} ({bounds})"
        elif one.decided:
            text = (
                f"No method {name[0]} than {self.other}: {one.label} comes closest with {against}, "
                f"{amount} {name[2]} ({self._bounds(one, 1)})"
            )
        elif mine == theirs:
            bounds = self._bounds(one, -1)
            text = f"{one.label} and {self.other} tie: {mine} each, a difference of {amount} ({bounds})"
        elif one.mean > 0:
            text = (
                f"No method {name[0]} than {self.other} here, but the data cannot decide: {one.label} "
                f"comes closest with {against}, {amount} {name[2]} ({self._bounds(one, 1)})"
            )
        else:
            text = (
                f"The data cannot decide whether {one.label} or {self.other} {name[0]}: {against}, a "
                f"difference of {amount} ({self._bounds(one, -1)})"
            )
        return text + ("; with one seed each, another seed may turn this around." if one.seeds == 1 else ".")

    def others(self) -> str:
        """What can be said of the other rows, in a sentence; empty where there are none."""
        rest = [one for one in self.found if one is not self.first]
        parts = []
        for some, words in (
            ([one for one in rest if one.decided and one.mean < 0], f"better than {self.other} too"),
            ([one for one in rest if one.decided and one.mean > 0], f"worse than {self.other}"),
            ([one for one in rest if not one.decided], f"not clearly different from {self.other}"),
        ):
            if some:
                names = ", ".join(one.label for one in some)
                parts.append(f"{names} {'is' if len(some) == 1 else 'are'} {words}")
        return "; ".join(parts) + "." if parts else ""

    def next(self) -> str:
        """What to do next, in two sentences."""
        one = self.first
        if one.decided:
            rates = self._smaller(one) or self._rates(one)
            return f"Take {one.label if one.mean < 0 else self.other}. {rates}"
        if one.same:
            same = f"Keep {self.other}: {one.label} changes no answer."
            return f"{same} More {self.of} data may show a difference."
        keep = f"Keep {self.other}, or choose by time and taste: the data cannot decide."
        if self._too_much(one):
            keep = (
                f"Try a smaller --p: {one.label} errs more on training data than {self.other} on {self.of} "
                "data."
            )
        return f"{keep} {self._smaller(one) or self._more(one)}"

    def _smaller(self, one: Difference) -> str:
        """For numbers and few rows, where dropping at no small rate made it worse: rates to try; else ""."""
        rate = self.rates.get(one.label)
        if self.counts or one.mean <= 0 or one.examples > FEW_ROWS or (rate and rate.smallest <= SMALL):
            return ""
        return (
            "Numbers that are predicted from few rows may need a rate far below 0.5: "
            "try --p 0.05,0.1,0.2, or --tune."
        )

    def _rates(self, one: Difference) -> str:
        """Whether a larger or smaller rate is worth a try: by the errors on training and test data."""
        mine, rate = self.rows[one.label], self.rates.get(one.label)
        if self._too_much(one):
            return (
                f"{one.label} errs more on training data than {self.other} on {self.of} data, so it drops "
                "too much: try a smaller --p, or a larger --hidden."
            )
        if mine.gap.mean > 0.5 * mine.test.mean and (not rate or rate.own == rate.largest):
            return (
                f"Much of the error of {one.label} is a gap to its training error: try a larger --p, "
                "--max-norm 3 or more data."
            )
        return (
            f"Training and {self.of} error are close: try a larger network with --hidden, or more --epochs."
        )

    def _too_much(self, one: Difference) -> bool:
        """Whether a row errs more in training than the other in the test, and had no smaller rate."""
        rate = self.rates.get(one.label)
        smallest = not rate or rate.own == rate.smallest
        return smallest and self.rows[one.label].train.mean > self.rows[self.other].test.mean

    def _more(self, one: Difference) -> str:
        """What would decide: more seeds, or more test examples."""
        if one.seeds < SEEDS:
            few = plural(one.seeds, "seed")
            return f"Run --seeds {ASKED}: with {few} nobody knows what another seed changes."
        half = (one.high - one.low) / 2
        times = (half / abs(one.mean)) ** 2 if one.mean else math.inf
        if times > MOST_TIMES:
            return "A difference this small would take far more data to show, and hardly matters."
        seeds = math.ceil(1.2 * times * one.seeds)
        if one.by_seeds > 0.5 and seeds <= MOST_SEEDS:
            return f"Most of the uncertainty comes from the seeds: run --seeds {max(seeds, one.seeds + 2)}."
        needed = float(f"{1.2 * times * one.examples:.2g}")
        return (
            f"Most of the uncertainty comes from the few {self.of} {self.what}: to see a difference of this "
            f"size, about {needed:,.0f} are needed."
        )

    def _verb(self) -> tuple[str, str, str]:
        if self.counts:
            return "makes fewer errors", "fewer", "more"
        return f"has a lower {self.of} RMSE", "lower", "higher"

    def _error(self, label: str) -> str:
        row = self.rows[label]
        return row.measure.with_unit(row.test.mean)

    def _examples(self, one: Difference) -> str:
        return ("each seed's " if one.own else "") + f"{one.examples:,} {self.what}"

    def _of(self, one: Difference) -> str:
        return f" of {self._examples(one)}" if self.counts else ""

    def _bounds(self, one: Difference, sign: int) -> str:
        return f"95 % interval {self.interval(one, sign)}"
