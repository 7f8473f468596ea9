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
from thinned.lab.reporting.measure import ERROR
from thinned.lab.reporting.page import Page
from thinned.lab.reporting.progress_bars import Bars, Line, Lines, Progress
from thinned.lab.reporting.summary import best, summarise
from thinned.lab.reporting.wording import seconds_text, seeds_text
from thinned.lab.storage.remote import Folder
from thinned.lab.storage.run import Stored


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


def show(page: Page, remarks: Sequence[str]) -> None:
    """Print the source's figures beside ours, the table, the remarks and the findings."""
    console = Console()
    for reference in page.references:
        table(reference.columns, reference.rows, reference.caption)
    if page.rows:
        console.print(table_text(page.rows))
    for text in [*remarks, *page.sentences()]:
        console.print(text, markup=False, highlight=False)


def table_text(rows: Sequence[Row]) -> Table:
    """The report's table for the terminal; the best figures are bold, unfinished runs are named."""
    every = [summarise(row) for row in rows]
    measure = every[0].measure if every else ERROR
    units = "errors in %, gap in points" if measure.unit else "RMSE and gap in the label's units"
    caption = f"{units}; {seeds_text(every)}"
    table = Table(caption=caption, caption_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("\nmethod", overflow="fold")
    for head in (
        f"test\n{measure.name}",
        f"training\n{measure.name}",
        "\ngap",
        "seconds\nper epoch",
        "\nparameters",
    ):
        table.add_column(head, justify="right", no_wrap=True)
    columns = [
        [s.stat(s.test) for s in every],
        [s.stat(s.train) for s in every],
        [measure.text(s.gap.mean) for s in every],
        [seconds_text(s.seconds.mean) for s in every],
    ]
    bold = [
        best([s.test.mean for s in every], [measure.text(s.test.mean) for s in every]),
        [False] * len(every),
        best([abs(s.gap.mean) for s in every], columns[2]),
        best([s.seconds.mean for s in every], columns[3]),
    ]
    for i, s in enumerate(every):
        cells = [
            Text(column[i], style="bold" if b[i] else "") for column, b in zip(columns, bold, strict=True)
        ]
        name = Text(s.label)
        if s.note:
            name.append(f"\n{s.note}", style="red")
        table.add_row(name, *cells, Text(f"{s.parameters:,}"))
    return table


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
        "differences": [dataclasses.asdict(one) | {"told": one.told} for one in page.differences],
        "scores": page.scores,
        "references": [dataclasses.asdict(reference) for reference in page.references],
        "notes": list(page.notes),
        "settings": dict(page.settings),
        "command": page.command,
        "report": str(report),
    }
