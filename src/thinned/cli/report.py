"""`thinned report`: write the report of existing runs again, or list the reports that are there."""

from __future__ import annotations

import json as text_json
from typing import TYPE_CHECKING, Annotated

import typer

from thinned.cli.errors import fail
from thinned.cli.finish import NUMBERS, finish
from thinned.cli.options import Json

if TYPE_CHECKING:
    from thinned.lab.storage.remote import Folder


def report(
    folder: Annotated[
        str | None,
        typer.Argument(
            help="a folder, or URL, that compare or reproduce wrote; all of thinned-runs by default"
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Write a report again from the runs in its folder. A folder of several reports is listed.

    Examples:
        thinned report
        thinned report thinned-runs/compare-digits
    """
    from thinned.lab.reporting import terminal
    from thinned.lab.storage import remote
    from thinned.lab.storage.record import RECORD, Record

    place = remote.folder(folder or "thinned-runs")
    found = [place] if (place / RECORD).exists() else []
    below = sorted(path.parent for depth in ("*", "*/*") for path in place.glob(f"{depth}/{RECORD}"))
    if folder is None or (not found and len(below) > 1):
        if not [*found, *below]:
            fail(f"{place}: no reports; thinned compare makes one", 1)
        listed = [{"folder": str(one), **_finding(one)} for one in [*found, *below]]
        if json:
            terminal.print_json(listed)
        else:
            for one in listed:
                print(f"{one['folder']}\n    {one['title']}. {one['finding']}")
        return
    place = [*found, *below, place][0]
    record = Record.load(place)
    finish(record, record.stored(place), place, json)


def _finding(place: Folder) -> dict[str, str]:
    """Title and finding of a report, from its numbers."""
    try:
        numbers = text_json.loads((place / NUMBERS).read_text("utf-8"))
        return {"title": str(numbers["title"]), "finding": str(numbers["found"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"title": "Not finished", "finding": f"thinned report {place} shows what is there."}
