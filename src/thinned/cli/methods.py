"""`thinned methods`: the table of methods."""

from __future__ import annotations

from thinned.cli.options import Json


def methods(
    json: Json = False,
) -> None:
    """List the methods.

    Examples:
        thinned methods
        thinned methods --json
    """
    from thinned.lab.reporting import terminal
    from thinned.methods import METHODS

    fields = ("name", "unit", "summary", "source")
    found = [{field: str(getattr(row, field)) for field in fields} for row in METHODS.values()]
    if json:
        terminal.print_json(found)
        return
    terminal.table([*fields], [list(row.values()) for row in found])
    print('"none" trains without dropping anything: the baseline of thinned compare.')
