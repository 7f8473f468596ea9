"""`thinned report`: write the report of existing runs again."""

from __future__ import annotations

from typing import Annotated

import typer

from thinned.cli.finish import finish
from thinned.cli.options import Json


def report(
    folder: Annotated[str, typer.Argument(help="a folder, or URL, that compare or reproduce wrote")],
    json: Json = False,
) -> None:
    """Write the report again from the runs in a folder."""
    from thinned.lab.storage import remote
    from thinned.lab.storage.record import Record

    place = remote.folder(folder)
    record = Record.load(place)
    finish(record, record.stored(place), place, json)
