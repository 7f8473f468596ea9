"""All figures that the sources print, beside ours at full size: one table and one picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from thinned.lab import experiments
from thinned.lab.reporting import figures
from thinned.lab.reporting.page import Figure
from thinned.lab.reporting.summary import Stat
from thinned.lab.reporting.wording import number, stat_text, time_text

TITLE = "The printed test errors and ours at full size"


@dataclass(frozen=True)
class Pair:
    """A system whose test error a source prints, in %, and our row at full size; None where it is not run."""

    experiment: str
    system: str
    printed: float
    ours: dict[str, Any] | None

    @property
    def error(self) -> Stat | None:
        """Our test error over the seeds, in %."""
        if self.ours is None or self.ours["test_error"] is None:
            return None
        mean, sd = self.ours["test_error"]["mean"], self.ours["test_error"]["sd"]
        return Stat(mean, math.nan if sd is None else sd, len(self.ours["seeds"]))


def pairs(rows: Callable[[str], Sequence[dict[str, Any]]]) -> list[Pair]:
    """Every system of a source that has a printed test error; `rows` gives the rows of an experiment."""
    found = []
    for name in experiments.names():
        experiment = experiments.load(name)
        ours = {row["system"]: row for row in rows(name) if row["budget"] == "paper"}
        for target in experiment.targets:
            if target.theirs is not None:
                found.append(Pair(name, target.label, target.theirs, ours.get(target.label)))
    return found


def table(found: Sequence[Pair]) -> str:
    """Theirs against ours, a line a system, as Markdown."""
    lines = [
        "| experiment | system | printed | ours | seeds | time of a run |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for pair in found:
        cells = [f"[{pair.experiment}](#{pair.experiment})", pair.system, number(pair.printed), *_ours(pair)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ours(pair: Pair) -> list[str]:
    if pair.error is None or pair.ours is None:
        return ["not run", "", ""]
    seconds = pair.ours["seconds"]
    time = time_text(seconds["mean"]) if seconds else ""
    return [stat_text(pair.error), str(pair.error.n), time]


def sentence(found: Sequence[Pair]) -> str:
    """How many systems are run, and how many of them are at or below the printed error."""
    run = [pair for pair in found if pair.error is not None]
    below = [pair for pair in run if pair.error is not None and pair.error.mean <= pair.printed]
    return (
        f"The sources print the test errors of {len(found)} systems. {len(run)} of them have been run at "
        f"full size; {len(below)} of these end at or below the printed error."
    )


def picture(found: Sequence[Pair]) -> Figure:
    """Our error over the printed one, a row a system; left of 1 ours is lower."""
    groups: dict[str, list[figures.Ratio]] = {}
    for pair in found:
        groups.setdefault(pair.experiment, []).append(_ratio(pair))
    return figures.ratios(TITLE, "our error ÷ the printed error", "in %", groups)


def _ratio(pair: Pair) -> figures.Ratio:
    printed, stat = number(pair.printed), pair.error
    if stat is None:
        return figures.Ratio(pair.system, math.nan, math.nan, f"{printed}, not run")
    text = f"{printed} → {number(stat.mean)}"
    return figures.Ratio(pair.system, stat.mean / pair.printed, stat.sd / pair.printed, text)
