"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="print the result as JSON, and nothing else")]
DataDir = Annotated[
    Path | None, typer.Option(help="where mnist or cifar10 lies; else $THINNED_DATA, else a download")
]
SaveEvery = Annotated[float, typer.Option(min=0, help="seconds between checkpoints")]
Validation = Annotated[
    float,
    typer.Option(
        help="share of the training data to judge by, in place of the test data: to choose settings"
    ),
]
Device = Annotated[str, typer.Option(help="where torch computes: cpu or cuda")]
Precision = Annotated[
    str, typer.Option(help="of torch: 32, or bf16, where products are of bfloat16 numbers, by autocast")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="runs side by side, each with its share of the cores; by default 1, with --ray all CPUs",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="train on a Ray cluster: host:port, ray://host:port, auto, or local"
    ),
]
