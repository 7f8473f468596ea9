"""The report's table for the terminal."""

import io
import math
import re

import pytest
from helpers.pages import row, usual

from thinned.lab.reporting.from_runs import Row
from thinned.lab.reporting.terminal import table_text

rich_console = pytest.importorskip("rich.console")


def printed(rows: list[Row], width: int = 80) -> str:
    console = rich_console.Console(width=width, file=io.StringIO())
    console.print(table_text(rows))
    return str(console.file.getvalue())


def test_table_text() -> None:
    text = printed([*usual().rows, row("[red]odd", [math.nan, 0.1], status=("diverged", "diverged"))])
    assert re.search(r"dropout +4\.10 ± 0\.14 +1\.10 ± 0\.14 +3\.00 +0\.500 +12,345", text)
    assert "[red]odd" in text
    assert "diverged" in text
    assert "2 seeds" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_table_keeps_names_and_test_errors(width):
    rows = [row(label, [0.02, 0.03]) for label in ("none", "spatial_dropout")]
    console = rich_console.Console(width=width, file=io.StringIO(), no_color=True)
    console.print(table_text(rows, width))
    text = console.file.getvalue()
    assert "spatial_dropout" in text
    assert "2.50 ± 0.71" in text
    assert max(map(len, text.splitlines())) <= width
    assert ("parameters" in text) == (width >= 80)
