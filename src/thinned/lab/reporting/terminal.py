"""What commands print: tables, a report in short, progress, JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinned.lab.reporting.from_runs import Row
from thinned.lab.reporting.measure import ERROR, Measure
from thinned.lab.reporting.page import Page
from thinned.lab.reporting.progress_bars import Bars, Line, Lines, Progress
from thinned.lab.reporting.summary import Summary, best, summarise
from thinned.lab.reporting.wording import seconds_text, seeds_text, shorten
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Stored

NAME = 24  # characters of a method's name that stay in a narrow terminal


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Print a table of plain text."""
    drawn = Table(
        *columns,
        caption=caption or None,
        caption_justify="left",
        show_lines=any("\n" in cell for row in rows for cell in row),
    )
    for row in rows:
        drawn.add_row(*map(Text, row))
    Console().print(drawn)


def plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a line a row, without a frame; the last column is cut where the terminal ends."""
    console = Console()
    widths = [max(map(len, cells)) + 2 for cells in zip(*rows, columns, strict=True)]
    for row in (columns, *rows):
        start = "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False))
        last = shorten(row[-1], max(1, console.width - len(start)))
        console.print((start + last).rstrip(), markup=False, highlight=False, soft_wrap=True)


def show(page: Page, remarks: Sequence[str]) -> None:
    """Print the source's figures beside ours, the table, the remarks and the findings."""
    console = Console()
    for reference in page.references:
        table(reference.columns, reference.rows, reference.caption)
    if page.rows:
        console.print(table_text(page.rows, console.width))
    for text in [*remarks, *page.sentences()]:
        console.print(text, markup=False, highlight=False)


def table_text(rows: Sequence[Row], width: int = 80) -> Table:
    """The report's table for a terminal; the best figures are bold, unfinished runs are named.

    Where the terminal is narrow, columns are left out from the right, so that the method's name stays.
    """
    every = [summarise(row) for row in rows]
    measure = every[0].measure if every else ERROR
    units = "errors in %, gap in points" if measure.unit else "RMSE and gap in the label's units"
    columns = _columns(every, measure)
    name = max([len("method"), *(min(len(s.label), NAME) for s in every)])
    while len(columns) > 1 and name + sum(_width(*column[:2]) + 3 for column in columns) + 2 > width:
        columns.pop()
    table = Table(
        caption=f"{units}; {seeds_text(every)}", caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("\nmethod", overflow="fold", min_width=min(name, max(6, width - 20)))
    for head, *_ in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for i, s in enumerate(every):
        cells = [Text(texts[i], style="bold" if bold[i] else "") for _, texts, bold in columns]
        label = Text(s.label)
        if s.note:
            label.append(f"\n{s.note}", style="red")
        table.add_row(label, *cells)
    return table


def _columns(every: Sequence[Summary], measure: Measure) -> list[tuple[str, list[str], list[bool]]]:
    """(head, cells, which are bold), the most important first."""
    text = measure.text
    gaps, times = [text(s.gap.mean) for s in every], [seconds_text(s.seconds.mean) for s in every]
    none = [False] * len(every)
    lowest = best([s.test.mean for s in every], [text(s.test.mean) for s in every])
    return [
        (f"{measure.of}\n{measure.name}", [s.stat(s.test) for s in every], lowest),
        (f"training\n{measure.name}", [s.stat(s.train) for s in every], none),
        ("\ngap", gaps, best([abs(s.gap.mean) for s in every], gaps)),
        ("seconds\nper epoch", times, best([s.seconds.mean for s in every], times)),
        ("\nparameters", [f"{s.parameters:,}" for s in every], none),
    ]


def _width(head: str, cells: Sequence[str]) -> int:
    return max(len(line) for text in (head, *cells) for line in text.split("\n"))


def progress(line: Line | None, quiet: bool) -> Progress:
    """Bars if stderr is a terminal, else a line per run."""
    console = Console(stderr=True)
    return Bars(console, line) if console.is_terminal and not quiet else Lines(console, line)


def print_json(found: Any) -> None:
    """Print JSON; NaN becomes null."""
    found = json.loads(json.dumps(found), parse_constant=lambda name: None)
    print(json.dumps(found, indent=2, ensure_ascii=False))


def as_json(page: Page, stored: Sequence[Stored], report: Folder) -> dict[str, Any]:
    """A page for programs: errors as shares from 0 to 1 (or RMSE), a row per label, and the runs."""
    found = []
    for row in page.rows:
        s, factor = summarise(row), row.measure.factor
        stats = {"test_error": s.test, "train_error": s.train, "gap": s.gap}
        found.append(
            {
                "label": row.label,
                **{
                    name: {"mean": stat.mean / factor, "sd": stat.sd / factor, "n": stat.n}
                    for name, stat in stats.items()
                },
                "seconds_per_epoch": s.seconds.mean,
                "parameters": row.parameters,
                "status": list(row.status),
            }
        )
    return {
        "title": page.title,
        "finding": " ".join(page.sentences()),
        "found": page.sentences()[0],
        "rows": found,
        "runs": [{"folder": str(run.folder), "config": run.config, "result": run.result} for run in stored],
        "differences": [dataclasses.asdict(one) | {"decided": one.decided} for one in page.differences],
        "scores": page.scores,
        "references": [dataclasses.asdict(reference) for reference in page.references],
        "notes": list(page.notes),
        "settings": dict(page.settings),
        "command": page.command,
        "report": str(report),
    }
