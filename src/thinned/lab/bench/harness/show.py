"""Results for a terminal, for Markdown pages, and for programs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinned import _files
from thinned.lab.bench.harness.measure import Result
from thinned.lab.errors import LabError

NOTE = (
    "Medians of interleaved rounds in one process; spread: distance of the quartiles over the median; "
    "÷ clone: ours over clone's, the median of the ratios within a round (1/20: ours takes a twentieth of "
    "its time); goals: the largest ratio that meets them."
)


def groups(results: Iterable[Result]) -> list[list[Result]]:
    """The results, table by table."""
    return [list(group) for _, group in groupby(results, key=lambda r: (r.group, r.threads, r.unit))]


def heading(rows: list[Result]) -> str:
    """The title of a table."""
    first = rows[0]
    if first.unit != "s":
        return first.group if first.unit == "B" else f"{first.group}, {first.unit}"
    return f"{first.group}, {first.threads} thread{'s' if first.threads > 1 else ''}"


def columns(rows: list[Result]) -> list[str]:
    """The headings of a table's columns: ours, then each other contestant and the ratio of ours to it."""
    first, timed = rows[0], rows[0].unit == "s"
    names = ["case", first.ours]
    names += ["spread"] if timed else []
    names += ["an element"] if timed and any(r.elements for r in rows) else []
    for label in others(rows):
        names += [label, f"÷ {label}"]
    return names + (["goals"] if any(r.goals for r in rows) else [])


def others(rows: list[Result]) -> list[str]:
    """The labels of all contestants but ours, in order."""
    return list(dict.fromkeys(label for r in rows for label in r.ratios))


def cells(rows: list[Result]) -> list[list[str]]:
    """The cells of a table as text, row by row."""
    names, labels = columns(rows), others(rows)
    out = []
    for r in rows:
        mine = r.figures[r.ours]
        line = [r.name, quantity(mine.median, r.unit)]
        if "spread" in names:
            line.append(f"{(mine.high - mine.low) / mine.median:.0%}")
        if "an element" in names:
            line.append(quantity(mine.median / r.elements, r.unit) if r.elements else "")
        for label in labels:
            there = label in r.ratios
            line.append(quantity(r.figures[label].median, r.unit) if there else "")
            line.append(times(r.ratios[label].median) if there else "")
        if "goals" in names:
            line.append("\n".join(verdict(r, label) for label in r.goals))
        out.append(line)
    return out


def verdict(r: Result, label: str) -> str:
    """Whether a goal was met, such as `clone ≤ 1.15: met`."""
    return f"{label} ≤ {times(r.goals[label])}: {'met' if r.met(label) else 'missed'}"


def quantity(value: float, unit: str) -> str:
    """Three digits and a unit: `33.5 µs`, `411 MB`; `4` where the title names the unit."""
    if unit not in ("s", "B"):
        return f"{value:.3g}"
    steps = (
        ((1e-12, "ps"), (1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s"))
        if unit == "s"
        else ((1.0, "B"), (1e3, "kB"), (1e6, "MB"), (1e9, "GB"))
    )
    size, name = next(((s, n) for s, n in reversed(steps) if value >= s), steps[0])
    return f"{digits(value / size)} {name}"


def times(value: float) -> str:
    """A ratio as text: `1.12`, `1/48.6`, `0`."""
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    return digits(value) if value >= 0.5 else f"1/{digits(1 / value)}"


def digits(value: float) -> str:
    """A number with three digits and no exponent; a whole number without a point."""
    if value >= 99.95 or abs(value - round(value)) < 1e-9:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def to_terminal(console: Console, results: list[Result], machine: Mapping[str, Any]) -> None:
    """Print the tables to a terminal."""
    console.print(machine_line(machine), markup=False, highlight=False)
    console.print(NOTE, markup=False, highlight=False)
    for rows in groups(results):
        table = Table(title=heading(rows), title_justify="left", box=box.SIMPLE_HEAD)
        for i, name in enumerate(columns(rows)):
            table.add_column(name, justify="left" if i == 0 or name == "goals" else "right", no_wrap=i == 0)
        for line in cells(rows):
            table.add_row(*map(Text, line))
        console.print(table)


def to_json(results: list[Result], machine: Mapping[str, Any]) -> dict[str, Any]:
    """All figures as JSON's types, in seconds or the unit of their case."""
    found = [{**asdict(r), "met": {label: r.met(label) for label in r.goals}} for r in results]
    return {"machine": dict(machine), "results": found}


def to_markdown(results: list[Result], machine: Mapping[str, Any], command: str, seconds: float) -> str:
    """The same tables as Markdown, under the command that made them and the time that it took."""
    parts = [f"`{command}`, {seconds:.0f} s: {machine_line(machine)}"]
    for rows in groups(results):
        names = columns(rows)
        lines = [names, ["---"] + ["---" if name == "goals" else "---:" for name in names[1:]], *cells(rows)]
        table = "\n".join(
            "| " + " | ".join(cell.replace("\n", ", ") for cell in line) + " |" for line in lines
        )
        parts.append(f"**{heading(rows)}**\n\n{table}")
    return "\n\n".join(parts)


def machine_line(machine: Mapping[str, Any]) -> str:
    """The machine, in one line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def write(page: Path, sections: Mapping[str, str]) -> None:
    """Put each section between its marks in a page. The page is replaced whole, or not changed."""
    text = sections_of(page, sections)
    for name, section in sections.items():
        begin, end = marks(name)
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{section}\n{end}{rest.partition(end)[2]}"
    _files.write_text(page, text)


def sections_of(page: Path, names: Iterable[str]) -> str:
    """The text of a page, which must have the marks of all names. Raises LabError where one is missing."""
    text = page.read_text("utf-8")
    for name in names:
        begin, end = marks(name)
        if text.count(begin) != 1 or text.partition(begin)[2].count(end) != 1:
            raise LabError(f"{page} must hold {begin} and {end} once, in this order")
    return text


def marks(name: str) -> tuple[str, str]:
    """The comments in a page between which the tables of a benchmark stand."""
    return f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
