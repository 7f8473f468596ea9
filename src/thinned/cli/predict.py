"""`thinned predict`: a trained network on new rows or images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from thinned.cli.options import Json


def predict(
    run: Annotated[
        str,
        typer.Argument(help="folder or URL of a run, or of a comparison: then its best method's first seed"),
    ],
    data: Annotated[
        Path,
        typer.Option(
            help="table with the columns of training, in any order; of a run of images: a folder, an image, "
            "or a .npz file with an array x"
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="write a CSV file; by default it is printed")] = None,
    samples: Annotated[int, typer.Option(min=1, help="thinned networks for the error bars")] = 100,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="the table's first line has no names: columns are 0, 1, …")
    ] = False,
    json: Json = False,
) -> None:
    """Predict the rows of a new table, or new images, with a network that thinned compare trained.

    Probabilities are those of the whole network. Deviations, and the 5 % and 95 % of numbers, are over
    networks with other units dropped.

    Examples:
        thinned predict thinned-runs/compare-penguins --data new.csv --out predicted.csv
        thinned predict thinned-runs/compare-leaves --data new-leaves
    """
    from thinned import _files
    from thinned.lab import predictions
    from thinned.lab.reporting import terminal
    from thinned.lab.storage.remote import folder

    place = predictions.chosen(folder(run))
    columns, notes = predictions.predictions(place, data.expanduser(), not no_header, samples)
    print(f"run: {place.name}", *notes, sep="\n", file=sys.stderr)
    if json:
        values = [column.tolist() for column in columns.values()]
        terminal.print_json([dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)])
    elif out is None:
        print(predictions.as_csv(columns), end="")
    else:
        _files.write_text(out, predictions.as_csv(columns))
        print(f"{len(columns['prediction']):,} predictions: {out.resolve()}")
