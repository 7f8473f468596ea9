"""`thinned bench`: run the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thinned.cli.options import Json
from thinned.lab.bench import NAMES


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"any of {', '.join(NAMES)}; all by default")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="few rounds: a rough look, not a measurement")
    ] = False,
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="print Markdown")] = False,
    write: Annotated[Path | None, typer.Option(help="also write the tables into this page")] = None,
) -> None:
    """Measure the kernels beside their floor, a plain copy or product, and their peers.

    Examples:
        thinned bench elements --quick
        thinned bench thin --json
    """
    from thinned.lab.bench.harness import run

    run.run(names or (), json, quick, markdown, write)
