"""What commands print: tables, a report in short, progress, JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thinned.lab.reporting import from_runs
from thinned.lab.reporting.page import Page, table_text
from thinned.lab.reporting.progress_bars import Bars, Line, Lines, Progress


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
    """The table, the source's figures beside ours, and what was learned."""
    console = Console()
    for reference in page.references:
        table(reference.columns, reference.rows, reference.caption)
    if page.rows:
        console.print(table_text(page.rows))
    for text in [*remarks, *from_runs.sentences(page)]:
        console.print(text, markup=False, highlight=False)


def progress(line: Line | None, quiet: bool) -> Progress:
    """Bars where stderr is a terminal, else a line a run."""
    console = Console(stderr=True)
    return Bars(console, line) if console.is_terminal and not quiet else Lines(console, line)


def print_json(found: Any) -> None:
    """JSON on stdout; NaN becomes null."""
    found = json.loads(json.dumps(found), parse_constant=lambda name: None)
    print(json.dumps(found, indent=2, ensure_ascii=False))
